//! Names in a text. Owns: finding all that could be meant by one. Must not: know what a field
//! means.

use granit_parser::Event;
use memchr::memchr_iter;

use super::flow::Reader;
use super::resources::Text;
use crate::snapshot::FileName;
use crate::xds::yaml::{self, Form};

/// Returns those of `names` that stand as a scalar anywhere in the file `name`, or in quotes within
/// one, as in a script; and those of which that cannot be told.
pub fn mentions<'n>(name: &FileName, text: &[u8], names: &[&'n str]) -> Vec<&'n str> {
    let form = Form::of(name);
    let decoded = match form {
        // A name is a text in there, with other bytes around it.
        Form::Protobuf => String::from_utf8_lossy(text),
        _ => yaml::decode(text).0,
    };
    let mut unsure: Vec<&'n str> = names.to_vec();
    if !has_escapes(decoded.as_bytes()) {
        unsure.retain(|name| !is_bare(name) || decoded.contains(name));
    }
    if unsure.is_empty() || form == Form::Protobuf {
        return unsure;
    }
    let text = match Text::new(form, text) {
        Ok(text) if text.flaw.is_none() => text,
        _ => return unsure,
    };
    let mut found = Vec::new();
    let mut reader = Reader::new(&text.readable, form);
    while !unsure.is_empty() {
        match reader.next() {
            Ok((Event::Scalar(value, ..), _)) => {
                unsure.retain(|name| {
                    let is_meant = is_meant(&value, name);
                    if is_meant {
                        found.push(*name);
                    }
                    !is_meant
                });
            }
            Ok((Event::DocumentEnd, _)) => return found,
            Ok(_) => {}
            Err(_) => break,
        }
    }
    found.extend(unsure);
    found
}

/// Returns whether there are escapes that any character could stand behind, or stand before the
/// end of a line.
fn has_escapes(text: &[u8]) -> bool {
    let mut places = memchr_iter(b'\\', text);
    places.any(|at| matches!(text.get(at + 1), Some(b'x' | b'u' | b'U' | b'\n' | b'\r')))
}

/// Returns whether a name can only be written as it is, such escapes aside: blanks can be folded,
/// quotes doubled, and all these written in another way.
fn is_bare(name: &str) -> bool {
    let is_odd = |c: char| c.is_whitespace() || c.is_control() || "'\"\\/".contains(c);
    !name.contains(is_odd)
}

/// Returns whether a scalar is this name, or holds it in quotes.
fn is_meant(value: &str, name: &str) -> bool {
    value.trim() == name
        || value.match_indices(name).any(|(at, _)| {
            let is_quote = |b: Option<&u8>| matches!(b, Some(b'"' | b'\''));
            let is_end = |b: Option<&u8>| matches!(b, Some(b'"' | b'\'' | b'\\'));
            let bytes = value.as_bytes();
            is_quote(at.checked_sub(1).and_then(|at| bytes.get(at)))
                && is_end(bytes.get(at + name.len()))
        })
}
