//! Writes weights into a text. Owns: how an edited text is put together, and the proof that it says
//! the same as before but for the weights. Must not: decide what the weights are.

use std::borrow::Cow;
use std::fmt::Write;

use granit_parser::{Event, ParseResult};

use super::outcome::Refused;
use crate::xds::yaml::{self, Form};

/// The number of digits of 4294967295.
const MAX_DIGITS: usize = 10;

/// One weight to write. Offsets fit into 32 bits: no object of Kubernetes is larger than a few MiB.
#[derive(Debug)]
pub(super) struct Edit {
    /// The ordinal of the scalar event that it replaces, or after which it is inserted.
    pub(super) event: u32,
    /// The offset of the first byte that it replaces, or before which it is inserted.
    pub(super) at: u32,
    /// The number of bytes that it replaces.
    pub(super) len: u32,
    /// The line, from 1.
    pub(super) line: u32,
    /// The ordinal of the route that it is part of.
    pub(super) route: u32,
    /// The weight to write.
    pub(super) weight: u32,
    /// The text around a weight that was missing.
    pub(super) insert: Option<Box<Insert>>,
}

/// The text to write around a weight that was missing.
#[derive(Debug)]
pub(super) struct Insert {
    /// The text up to the number, with the key.
    pub(super) before: String,
    /// The text behind the number.
    pub(super) after: String,
}

/// Makes `edits`, which are sorted, in `text`.
pub(super) fn apply(text: &str, edits: &[Edit]) -> String {
    let longest = |edit: &Edit| {
        let insert = edit.insert.as_ref();
        MAX_DIGITS + insert.map_or(0, |insert| insert.before.len() + insert.after.len())
    };
    let grows: usize = edits.iter().map(longest).sum();
    let mut out = String::with_capacity(text.len() + grows);
    let mut done = 0;
    for edit in edits {
        let at = edit.at as usize;
        out.push_str(&text[done..at]);
        if let Some(insert) = &edit.insert {
            out.push_str(&insert.before);
        }
        // Writing to a string does not fail.
        let _ = write!(out, "{}", edit.weight);
        if let Some(insert) = &edit.insert {
            out.push_str(&insert.after);
        }
        done = at + edit.len as usize;
    }
    out.push_str(&text[done..]);
    out
}

/// Proves that both texts have the same events up to the end of the first document, but for the
/// edited weights, by reading them in step. Envoy reads no further, and the bytes behind it are
/// copied. An error comes with the ordinal of the route whose edits are to blame, where one is.
pub(super) fn verify(
    old: &str,
    new: &str,
    form: Form,
    edits: &[Edit],
) -> Result<(), (Option<u32>, Refused)> {
    let (mut olds, mut news) = (yaml::events(old, form), yaml::events(new, form));
    let mut edits = edits.iter().peekable();
    let (mut ordinal, mut last) = (0, None);
    loop {
        let Some(Ok((was, span))) = olds.next() else {
            return Err((None, Refused::new(0, "the text cannot be read twice")));
        };
        let edit = edits.next_if(|edit| edit.event == ordinal);
        last = edit.map(|edit| edit.route).or(last);
        let changed = || {
            let line = span.start.line() as u32;
            (last, Refused::new(line, "an edit here would change more"))
        };
        let is = event(news.next()).ok_or_else(changed)?;
        let same = match edit {
            Some(edit) if edit.insert.is_none() => is_reweighted(&was, &is, edit.weight),
            _ => was == is,
        };
        if !same {
            return Err(changed());
        }
        if let Some(edit) = edit.filter(|edit| edit.insert.is_some()) {
            let key = scalar(news.next()).ok_or_else(changed)?;
            let value = scalar(news.next()).ok_or_else(changed)?;
            if key != "weight" || value.parse() != Ok(edit.weight) {
                return Err(changed());
            }
        }
        if was == Event::DocumentEnd {
            break;
        }
        ordinal += 1;
    }
    match edits.next() {
        None => Ok(()),
        Some(edit) => {
            let refused = Refused::new(edit.line, "an edit here is lost");
            Err((Some(edit.route), refused))
        }
    }
}

fn event<'a>(next: Option<ParseResult<'a>>) -> Option<Event<'a>> {
    next?.ok().map(|(event, _)| event)
}

fn scalar<'a>(next: Option<ParseResult<'a>>) -> Option<Cow<'a, str>> {
    match event(next)? {
        Event::Scalar(value, _, 0, None) => Some(value),
        _ => None,
    }
}

/// Returns whether both are the same scalar, but for its value, which is `weight`.
fn is_reweighted(was: &Event<'_>, is: &Event<'_>, weight: u32) -> bool {
    match (was, is) {
        (Event::Scalar(_, style, anchor, tag), Event::Scalar(value, new_style, new, new_tag)) => {
            (style, anchor, tag) == (new_style, new, new_tag) && value.parse() == Ok(weight)
        }
        _ => false,
    }
}
