//! A file with clusters put before its own. Owns: where they go in, and the proof that the text
//! says the same as before but for them. Must not: decide which ones.

use std::ops::{ControlFlow, Range};

use granit_parser::{Event, Span, StructureStyle};

use super::declined::Declined;
use super::flow::{Line, Reader};
use super::resources::{self, List, Text};
use crate::snapshot::{Bytes, FileName};
use crate::xds::yaml::{self, Form};

/// A text with clusters put in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Union {
    /// The whole of it.
    pub bytes: Bytes,
    /// The bytes put in: what is left without them is the text as it was.
    pub inserted: Range<u64>,
}

/// Puts clusters, each as [`super::Cluster::line`] has it, at the head of the resources of the file
/// `name`. `target` is a text without any that were put in before.
pub fn union(name: &FileName, target: &Bytes, kept: &[&str]) -> Result<Union, Declined> {
    if kept.is_empty() {
        return Ok(Union {
            bytes: target.clone(),
            inserted: 0..0,
        });
    }
    let form = Form::of(name);
    let old = Text::new(form, target)?;
    let list = resources::read(&old, Line::unwritten(), |_| Ok(ControlFlow::Continue(())))?;
    let list = list.ok_or_else(|| Declined::new("there is no list of resources"))?;
    let (at, inserted) = insert(&old.readable, &list, kept)?;
    let (before, after) = old.readable.split_at(at);
    let bytes: Bytes = [before, &inserted, after].concat().into_bytes().into();
    let new = Text::new(form, &bytes)?;
    // What is kept could not be read back out of such a text.
    if let Some(why) = old.flaw.as_ref().or(new.flaw.as_ref()) {
        return Err(why.clone());
    }
    verify(&old, &new, &list, kept)?;
    let at = at as u64;
    Ok(Union {
        inserted: at..at + inserted.len() as u64,
        bytes,
    })
}

/// Returns what to insert at which offset.
fn insert(text: &str, list: &List, kept: &[&str]) -> Result<(usize, String), Declined> {
    let declined = |reason| Err(Declined::at(list.span, reason));
    if list.is_marked {
        return declined("the list of resources has an anchor or a tag");
    }
    let (at, rest) = (list.at, text.get(list.at..).unwrap_or_default());
    if list.style == StructureStyle::Flow {
        if !rest.starts_with('[') {
            return declined("the list of resources does not begin with a bracket");
        }
        let mut inserted = kept.join(", ");
        if !list.is_empty {
            inserted.push_str(", ");
        }
        return Ok((at + 1, inserted));
    }
    // The parser says where the first dash is, or what is behind it on the same line.
    let line_start = text[..at].rfind(['\n', '\r']).map_or(0, |at| at + 1);
    let line = &text[line_start..];
    let lead = &line[..line.len() - line.trim_start_matches(' ').len()];
    let at = line_start + lead.len();
    if !text[at..].starts_with('-') {
        return declined("the list of resources does not begin a line");
    }
    let line_end = yaml::line_end(text);
    if line_end == "\r" {
        // Envoy 1.36 does not take them for line ends.
        return Err(Declined::new("its lines end in lone carriage returns"));
    }
    let mut inserted = String::new();
    for line in kept {
        for part in ["- ", line, line_end, lead] {
            inserted.push_str(part);
        }
    }
    Ok((at, inserted))
}

/// Reads both texts in step: the same events up to the end of the first document, but for the
/// resources put in. Envoy reads no further, and the bytes behind it are copied.
fn verify(old: &Text<'_>, new: &Text<'_>, list: &List, kept: &[&str]) -> Result<(), Declined> {
    let mut olds = Reader::new(&old.readable, old.form);
    let mut news = Reader::new(&new.readable, new.form);
    let changed = |span: Span| Declined::at(span, "more would change than the resources put in");
    loop {
        if olds.count() == list.before {
            let mut out = Line::default();
            for line in kept {
                out.clear();
                let (event, span) = news.next()?;
                news.node((event, span), &mut out, None)?;
                if out.flaw.is_some() || out.text != *line {
                    return Err(changed(span));
                }
            }
        }
        let ((was, span), (is, _)) = (olds.next()?, news.next()?);
        if was != is {
            return Err(changed(span));
        }
        if was == Event::DocumentEnd {
            return Ok(());
        }
    }
}
