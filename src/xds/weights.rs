//! Merges weights into route configurations: those of the routes that a TrafficSplit or an
//! HTTPRoute applies to are replaced in the text's own bytes. Owns: which routes those are and what
//! each text becomes. Must not: do I/O or log; every warning is handed back.
//!
//! 1. A text that cannot concern any of them is let through unread.
//! 2. `scan` reads the events once and gathers each virtual host's weighted clusters (`schema` says
//!    where those stand); at its end `plan` decides their weights.
//! 3. `edit` writes them, and reads old and new in step to prove that nothing else changed.
//!
//! A route that cannot be edited is left out: it has the text's weights, and all others follow.

mod anchors;
mod choice;
mod edit;
mod host;
mod host_weights;
mod insert;
mod matching;
mod number;
mod outcome;
mod plan;
mod route_match;
mod scan;
mod schema;
mod service;
mod share;
mod warning;

use std::borrow::Cow;

pub use host_weights::{
    Backend, HostName, HostWeights, Naming, Rule, Unmet, WeightKind, WeightSource,
    resolve_conflicts,
};
pub use matching::{Condition, Match, Part, PathMatch, ValueMatch};
pub use outcome::{ClusterWeight, LeftOut, Matches, Merged, Refused, RouteWeights, Weighted};

use crate::snapshot::FileName;
use crate::xds::yaml::{self, Form};
use edit::Edit;
use plan::Plan;
use scan::{Scanner, Stop};

/// The number of routes, whose edits would change more, that are found one after another, at two
/// passes each.
const BARRED_ONE_BY_ONE: usize = 8;

/// Merges the weights of `inputs` into the text of file `name`. Of two TrafficSplits that want a
/// route the earlier gets it; an HTTPRoute gets it before both, the earlier of two that differ.
/// `domain` is the cluster's. Merging the result again changes nothing. Returns an error if the
/// file cannot be read to its end, so that no route of it can be edited.
pub fn merge(
    name: &FileName,
    text: &str,
    inputs: &[&HostWeights],
    domain: &str,
) -> Result<Merged, Refused> {
    let untouched = || Ok(Plan::new(inputs, domain).into_outcome(None));
    let form = Form::of(name);
    let is_other = || form == Form::Unnamed && !yaml::is_discovery_response(text);
    if !may_concern(text, inputs, domain) || is_other() {
        return untouched();
    }
    if let Some(why) = yaml::obstacle(form, text) {
        return match names_all_of_any(text, inputs, domain) {
            true => Err(Refused::new(0, why)),
            false => untouched(),
        };
    }
    let masked = masked(form, text);
    let (mut barred, mut unproven) = (Vec::new(), 0);
    loop {
        let mut plan = Plan::new(inputs, domain);
        plan.barred = std::mem::take(&mut barred);
        let mut plan = match Scanner::new(&masked, form, plan).run() {
            Ok(plan) => plan,
            Err(Stop::Refused(refused)) => return Err(refused),
            Err(Stop::Unreadable(refused)) if names_all_of_any(text, inputs, domain) => {
                return Err(refused);
            }
            Err(Stop::Unreadable(_)) => return untouched(),
        };
        let in_edits = |edit: &Edit| plan.find_barred(edit.route).is_ok();
        if plan.edits.iter().any(in_edits) {
            // It came to light behind them.
            barred = plan.barred;
            continue;
        }
        note_cut(&mut plan, text, inputs, domain);
        if plan.edits.is_empty() {
            return Ok(plan.into_outcome(None));
        }
        plan.edits.sort_unstable_by_key(|edit| edit.at);
        let merged = edit::apply(text, &plan.edits);
        match edit::verify(&masked, &self::masked(form, &merged), form, &plan.edits) {
            Ok(()) => {
                return Ok(plan.into_outcome(Some(merged)));
            }
            Err((Some(route), why)) if unproven < BARRED_ONE_BY_ONE => {
                unproven += 1;
                plan.bar(route, why);
                barred = plan.barred;
            }
            Err((_, why)) => return Err(why),
        }
    }
}

/// Notes that the part which was not read may hold routes that should follow an input.
fn note_cut(plan: &mut Plan<'_>, text: &str, inputs: &[&HostWeights], domain: &str) {
    let applies = || plan.applied.iter().any(|applied| applied.routes > 0);
    if plan.cut.is_some() && (applies() || names_all_of_any(text, inputs, domain)) {
        let cut = plan.cut.take().map(|why| LeftOut { route: None, why });
        plan.left_out.extend(cut);
    }
}

/// Returns every route with weighted clusters in the text of file `name`, as it stands there; none
/// where it cannot be read.
pub fn weights(name: &FileName, text: &str) -> Vec<Weighted> {
    let form = Form::of(name);
    let masked = masked(form, text);
    let mut plan = Plan::new(&[], "");
    plan.seen = Some(Vec::new());
    let plan = match yaml::obstacle(form, text) {
        Some(_) => None,
        None => Scanner::new(&masked, form, plan).run().ok(),
    };
    plan.and_then(|plan| plan.seen).unwrap_or_default()
}

/// Returns the text in a form that our parsers can read.
fn masked(form: Form, text: &str) -> Cow<'_, str> {
    match form {
        Form::Yaml => yaml::mask(text),
        Form::Json | Form::Unnamed | Form::Protobuf => text.into(),
    }
}

/// Returns whether the words that an input needs are there at all, or could be, behind escapes.
fn may_concern(text: &str, inputs: &[&HostWeights], domain: &str) -> bool {
    let names = |input: &&HostWeights| {
        let mut roots = input.roots(domain);
        // An HTTPRoute that no host follows is told of the hosts that have its backends.
        roots.any(|root| service::is_in(text, root))
            || !input.is_split() && has_backend(text, input)
    };
    if inputs.is_empty() {
        return false;
    }
    let escaped = text
        .as_bytes()
        .windows(2)
        .any(|pair| matches!(pair, [b'\\', b'x' | b'u' | b'U' | b'\n' | b'\r']));
    escaped
        // `weighted_clusters` or `weightedClusters`
        || text.contains("weighted") && inputs.iter().any(names)
}

/// Returns whether a text that cannot be read looks as if an input applied to it: the words stand
/// there.
fn names_all_of_any(text: &str, inputs: &[&HostWeights], domain: &str) -> bool {
    // Domains are compared without case.
    let lower = text.to_ascii_lowercase();
    let names = |input: &&HostWeights| {
        let mut roots = input.roots(domain);
        let has_root = roots.any(|root| has_word(&lower, &root.to_ascii_lowercase()));
        has_root && has_backend(text, input)
    };
    text.contains("weighted") && inputs.iter().any(names)
}

/// Returns whether the name of one of an input's backends stands in `text`.
fn has_backend(text: &str, input: &HostWeights) -> bool {
    let mut backends = input.rules.iter().flat_map(|rule| &rule.backends);
    backends.any(|backend| match backend.naming {
        Naming::Bare => {
            let service = &backend.service;
            has_word(text, service) || has_word(text, &service.replace('.', "_"))
        }
        // A namespace may follow.
        Naming::Own | Naming::In(_) => text.contains(&backend.service),
    })
}

/// Returns whether `word` stands in `text`, and not only as part of a longer name.
fn has_word(text: &str, word: &str) -> bool {
    let in_name = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    text.match_indices(word).any(|(at, _)| {
        let before = text.as_bytes()[..at].last();
        let after = text.as_bytes().get(at + word.len());
        !before.is_some_and(in_name) && !after.is_some_and(in_name)
    })
}

#[cfg(test)]
mod tests;
