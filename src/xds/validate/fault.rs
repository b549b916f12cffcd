//! A fault of a text. Owns: its words, which never cite a value.

use std::fmt;

use granit_parser::{ScanError, Span};

/// A fault of a text, and its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The reader that found it.
    pub reader: Reader,
    /// The line, from 1; 0 where the reader cannot say.
    pub line: usize,
    /// The column, from 1, in characters; 0 where the reader cannot say.
    pub column: usize,
    /// The fault in words, without a full stop; never a value of the text.
    pub reason: String,
}

/// The parsers that are asked, and our own rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// granit-parser, which streams; it follows YAML 1.2.
    Granit,
    /// yaml_serde, which is libyaml; it follows YAML 1.1.
    YamlSerde,
    /// A rule of Envoy's own.
    Envoy,
}

impl Reader {
    /// Returns the rules that a checker must go by to find the same fault; `None` for Envoy's own,
    /// which everybody means.
    fn rules(self) -> Option<&'static str> {
        match self {
            Reader::Granit => Some("YAML 1.2"),
            Reader::YamlSerde => Some("YAML 1.1"),
            Reader::Envoy => None,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "line {} column {}: ", self.line, self.column)?;
        }
        f.write_str(&self.reason)?;
        match self.reader.rules() {
            Some(rules) => write!(f, " (by the rules of {rules})"),
            None => Ok(()),
        }
    }
}

impl Fault {
    pub(super) fn new(reader: Reader, line: usize, column: usize, reason: String) -> Fault {
        Fault {
            reader,
            line,
            column,
            reason,
        }
    }

    pub(super) fn scan(reader: Reader, error: &ScanError) -> Fault {
        let at = error.marker();
        Fault::new(reader, at.line(), at.col() + 1, error.info())
    }

    pub(super) fn envoy(span: Span, reason: &str) -> Fault {
        let line = span.start.line().max(1);
        Fault::new(Reader::Envoy, line, span.start.col() + 1, reason.to_owned())
    }
}
