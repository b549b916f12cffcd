//! TrafficSplits into route configurations: the weights of the routes that a split applies to are
//! replaced in the text's own bytes. Owns: which routes those are and what each text becomes. Must
//! not: do I/O or log; every warning is handed back.
//!
//! 1. A text that cannot concern any split is let through unread.
//! 2. `walk` reads the events once and gathers each virtual host's weighted clusters (`role` says
//!    where those stand); at its end `plan` decides its weights.
//! 3. `edit` writes them, and reads old and new in step to prove that nothing else changed.

mod edit;
mod plan;
mod report;
mod role;
mod split;
mod walk;
mod weight;

use std::borrow::Cow;
use std::fmt;

pub use report::{Applied, CHANGES_KEPT, Change, ClusterChange, Merged, WARNINGS_KEPT, Warning};
pub use split::{Backend, BackendSpec, Spec, Split, Unusable, first_for_each_service};
pub use weight::{NoWeight, Weight};

use crate::document;
use crate::resource::FileName;
use plan::Plan;
use walk::{Stop, Walk};

/// A split applies to this file, but not without risk to what else it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// From 1; 0 where it cannot be told.
    pub line: usize,
    /// Lower case, no full stop, no value of the file.
    pub reason: Cow<'static, str>,
}

impl Refused {
    fn new(line: u32, reason: impl Into<Cow<'static, str>>) -> Refused {
        Refused {
            line: line as usize,
            reason: reason.into(),
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.reason)
    }
}

/// Merges `splits` into the text of file `name`; of two that want a route the earlier gets it.
/// Merging the result again changes nothing.
pub fn merge(name: &FileName, text: &str, splits: &[&Split]) -> Result<Merged, Refused> {
    if !matches!(name.extension(), "yaml" | "yml" | "json") || !may_concern(text, splits) {
        return Ok(Merged::untouched(Plan::new(splits)));
    }
    let tame = document::tame(text);
    let mut plan = match Walk::new(&tame, Plan::new(splits)).run() {
        Ok(plan) => plan,
        Err(Stop::Refused(refused)) => return Err(refused),
        Err(Stop::Unreadable(refused)) if names_all_of_any(text, splits) => return Err(refused),
        Err(Stop::Unreadable(_)) => return Ok(Merged::untouched(Plan::new(splits))),
    };
    if plan.edits.is_empty() {
        return Ok(Merged::untouched(plan));
    }
    plan.edits.sort_unstable_by_key(|edit| edit.at);
    let merged = edit::apply(text, &plan.edits);
    edit::verify(&tame, &document::tame(&merged), &plan.edits)?;
    Ok(Merged {
        text: Some(merged),
        ..Merged::untouched(plan)
    })
}

/// Whether the words that a split needs are there at all, or could be, behind escapes.
fn may_concern(text: &str, splits: &[&Split]) -> bool {
    if splits.is_empty() {
        return false;
    }
    let escaped = text
        .as_bytes()
        .windows(2)
        .any(|pair| matches!(pair, [b'\\', b'x' | b'u' | b'U' | b'\n' | b'\r']));
    escaped
        // `weighted_clusters` or `weightedClusters`
        || text.contains("weighted") && splits.iter().any(|split| text.contains(&split.service))
}

/// Whether a text that cannot be read looks as if a split applied to it: the words stand there.
fn names_all_of_any(text: &str, splits: &[&Split]) -> bool {
    text.contains("weighted")
        && splits.iter().any(|split| {
            has_word(text, &split.service)
                && split.backends.iter().any(|backend| {
                    has_word(text, &backend.service)
                        || has_word(text, &backend.service.replace('.', "_"))
                })
        })
}

/// Whether `word` stands in `text`, and not only as part of a longer name.
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
