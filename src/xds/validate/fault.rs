//! A fault of a text. Owns: its words, which never cite a value.

use std::fmt;

use granit_parser::{ScanError, Span};

/// A fault of a text, and its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The reader that found it.
    pub reader: Reader,
    /// From 1. 0 where the reader cannot say.
    pub line: usize,
    /// From 1, in characters. 0 where the reader cannot say.
    pub column: usize,
    /// Lower case, no full stop; never a value of the text.
    pub reason: String,
}

/// The parsers we ask, and ourselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// granit-parser: YAML 1.2, streaming.
    Granit,
    /// yaml_serde: libyaml, YAML 1.1.
    YamlSerde,
    /// A rule of Envoy's own.
    Envoy,
}

impl fmt::Display for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reader::Granit => "granit-parser",
            Reader::YamlSerde => "yaml_serde",
            Reader::Envoy => "Envoy",
        })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "line {} column {}: {} (refused by {})",
            self.line, self.column, self.reason, self.reader
        )
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
