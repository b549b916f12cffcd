//! The reason why something cannot be done with a text. Owns: its words, which never cite a value.

use std::fmt;

use granit_parser::Span;

/// The reason why a text is left as it is: lower case, no full stop, never a value of the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declined(pub String);

impl Declined {
    pub(super) fn new(reason: &str) -> Declined {
        Declined(reason.to_owned())
    }

    /// With the line that it is about.
    pub(super) fn at(span: Span, reason: &str) -> Declined {
        Declined::on_line(span.start.line(), reason)
    }

    pub(super) fn on_line(line: usize, reason: &str) -> Declined {
        Declined(format!("line {line}: {reason}"))
    }
}

impl fmt::Display for Declined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
