//! One file that weights are merged into. Owns: what keeps routes of it from being edited, and
//! whether they have the same weights in another text.

use crate::snapshot::{File, FileName};
use crate::xds::weights::{self, HostWeights, Refused, Weighted};
use crate::xds::yaml::{self, Encoding, Form};

/// The number of routes of a file that are named one by one if they cannot be edited.
const NAMED_MAX: usize = 4;

/// A file that weights were to be merged into.
pub struct Tried {
    pub file: File,
    pub encoding: Encoding,
    /// The merged text, or the reason why no route of it can be edited.
    pub merged: Result<weights::Merged, Refused>,
}

impl Tried {
    pub fn new(name: &FileName, file: File, inputs: &[&HostWeights], domain: &str) -> Tried {
        let (text, encoding) = yaml::decode(&file.bytes);
        let mut merged = weights::merge(name, &text, inputs, domain);
        let is_edited = merged.as_ref().is_ok_and(|merged| merged.text.is_some());
        // Only yaml-cpp takes what is not UTF-8.
        let is_sound = match (Form::of(name), encoding) {
            (_, Encoding::Utf8) => true,
            (Form::Yaml, _) if is_edited => *encoding.encode(text.into_owned()) == *file.bytes,
            _ => !is_edited,
        };
        if !is_sound {
            let reason = "it is not UTF-8, or its encoding is broken".into();
            merged = Err(Refused { line: 0, reason });
        }
        Tried {
            file,
            encoding,
            merged,
        }
    }

    /// Returns whether every route follows the object that applies to it.
    pub fn is_whole(&self) -> bool {
        let merged = self.merged.as_ref();
        merged.is_ok_and(|merged| merged.left_out.is_empty())
    }

    /// Returns whether the routes that cannot be edited have the weights that they have in `shown`.
    pub fn keeps(&self, name: &FileName, shown: &File) -> bool {
        let Ok(merged) = &self.merged else {
            return false;
        };
        if self.is_whole() {
            return true;
        }
        let routes = |file: &File| weights::weights(name, &yaml::decode(&file.bytes).0);
        let (now, before) = (routes(&self.file), routes(shown));
        let kept = |at: usize| {
            let route = now.get(at)?;
            // Equal routes are told apart by their order.
            let nth = now[..at].iter().filter(|other| is_alike(other, route));
            let nth = nth.count();
            let known = before
                .iter()
                .filter(|other| is_alike(other, route))
                .nth(nth)?;
            Some(route.weights.is_some() && route.weights == known.weights)
        };
        let is_kept = |out: &weights::LeftOut| out.route.and_then(kept) == Some(true);
        merged.left_out.iter().all(is_kept)
    }

    /// Returns what keeps routes from being edited, a text for each.
    pub fn reasons(&self) -> Vec<String> {
        let refused: Vec<&Refused> = match &self.merged {
            Ok(merged) => merged.left_out.iter().map(|out| &out.why).collect(),
            Err(refused) => vec![refused],
        };
        let named = refused.iter().take(NAMED_MAX);
        let mut reasons: Vec<String> = named.map(ToString::to_string).collect();
        if refused.len() > NAMED_MAX {
            reasons.push(format!("{} more routes", refused.len() - NAMED_MAX));
        }
        reasons
    }
}

/// Returns whether both are the same route, as far as a route can be told from others.
fn is_alike(one: &Weighted, other: &Weighted) -> bool {
    (&one.virtual_host, &one.clusters) == (&other.virtual_host, &other.clusters)
}
