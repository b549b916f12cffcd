//! Is this a text that Envoy could read at all? Owns: the decision between publish, publish with a
//! warning, and keep the last good one. Must not: check any schema, change a byte, do I/O or log.
//!
//! Envoy reads JSON with protobuf's lenient reader, which `json` follows, and YAML with yaml-cpp,
//! which cannot be had in Rust. So two parsers are asked that err in different ways, and only what
//! both refuse is bad. `tests/data/document` holds texts with what a real Envoy said to each.

mod aliases;

use std::fmt;

use granit_parser::{ErrorKind, Event, ScalarStyle, ScanError, Span};
use serde::Deserialize;
use serde::de::{self, IgnoredAny, MapAccess, Visitor};

use crate::snapshot::FileName;
use crate::xds::yaml::{self, Form, NESTING_MAX};
use aliases::Aliases;

/// Longer texts are judged by the streaming parser alone: yaml_serde holds all events of a document
/// in a vector, measured at 15 bytes for each byte of a usual text and 56 for `[a,a,a,...]`. At 64
/// KiB that is 1 to 3.6 MB; our whole budget while a 1 MiB ConfigMap is read is 8 MB.
pub const SECOND_OPINION_MAX_BYTES: usize = 64 * 1024;

/// Events of a text, of which it takes a third of a millisecond to read so many.
const ASK_EVERY: usize = 1024;

const NOT_A_MAPPING: &str = "the document is not a mapping";

/// What should be done with a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Publish it.
    Valid,
    /// Publish it with a warning: one reader takes it, the other does not.
    Suspect(Fault),
    /// Something else than a configuration of Envoy's: publish it, but not in the place of one.
    Foreign(Fault),
    /// Keep the last good text: Envoy would not load this one.
    Invalid(Fault),
}

/// Why a text is not simply good, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Who found it.
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
    /// What Envoy itself is known to demand.
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

/// Judges the content of file `name`; of what is good, [`cross_check`] may know more.
///
/// `None`: left off, as `is_outdated` said so. It is asked now and then, while that still saves more
/// than it costs.
pub fn check(
    name: &FileName,
    bytes: &[u8],
    is_outdated: &mut dyn FnMut() -> bool,
) -> Option<Verdict> {
    match Form::of(name) {
        Form::Yaml => check_yaml(bytes, is_outdated),
        Form::Json => Some(check_json(bytes)),
        Form::Unnamed => Some(match check_json(bytes) {
            Verdict::Invalid(fault) => Verdict::Foreign(fault),
            verdict => verdict,
        }),
        Form::Protobuf => Some(Verdict::Valid),
    }
}

/// Whether a published text is a configuration of Envoy's: only another one may take its place.
pub fn is_configuration(name: &FileName, bytes: &[u8]) -> bool {
    match Form::of(name) {
        Form::Unnamed => str::from_utf8(bytes).is_ok_and(yaml::is_discovery_response),
        Form::Protobuf => false,
        Form::Yaml | Form::Json => matches!(
            check(name, bytes, &mut || false),
            Some(Verdict::Valid | Verdict::Suspect(_))
        ),
    }
}

fn check_yaml(bytes: &[u8], is_outdated: &mut dyn FnMut() -> bool) -> Option<Verdict> {
    let (text, _) = yaml::decode(bytes);
    let text = yaml::mask(&text);
    let fault = match read_granit(&text, is_outdated) {
        Ok(None) => return Some(Verdict::Valid),
        Ok(Some(fault)) => return Some(Verdict::Foreign(fault)),
        Err(Refusal::LeftOff) => return None,
        Err(Refusal::Unread(fault)) => return Some(Verdict::Suspect(fault)),
        Err(Refusal::Final(fault)) => return Some(Verdict::Invalid(fault)),
        Err(Refusal::Syntax(fault)) => fault,
    };
    // The second reader does not tell what its aliases name.
    let asked = text.len() <= SECOND_OPINION_MAX_BYTES && !is_deep(&text) && !has_aliases(&text);
    Some(if asked && read_yaml_serde(&text).is_ok() {
        Verdict::Suspect(fault)
    } else {
        Verdict::Invalid(fault)
    })
}

/// Whether there may be anchors, and aliases of them. `"*"` is the most usual of domains.
fn has_aliases(text: &str) -> bool {
    let mut pairs = text.as_bytes().windows(2);
    text.contains('&')
        && pairs.any(|pair| matches!(pair, [before, b'*'] if !b"\"'".contains(before)))
}

/// Whether brackets alone go deeper than the first reader would have followed them: libyaml's time is
/// quadratic in that, several seconds for 64 KiB.
fn is_deep(text: &str) -> bool {
    let mut depth = 0_usize;
    text.bytes().any(|byte| {
        match byte {
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth > NESTING_MAX
    })
}

/// What the second reader has against a text that the first one takes. It cannot make the text bad
/// and takes longer than all else on the way to Envoy, so there is time for it afterwards.
pub fn cross_check(name: &FileName, bytes: &[u8]) -> Option<Fault> {
    if Form::of(name) != Form::Yaml {
        return None;
    }
    let (text, _) = yaml::decode(bytes);
    let asked = (text.len() <= SECOND_OPINION_MAX_BYTES).then(|| yaml::mask(&text))?;
    read_yaml_serde(&asked).err()
}

fn check_json(bytes: &[u8]) -> Verdict {
    let Ok(text) = str::from_utf8(bytes) else {
        return Verdict::Invalid(Fault::envoy(Span::default(), "it is not UTF-8"));
    };
    let mut is_mapping = None;
    for event in yaml::events(text, Form::Json) {
        match event {
            Ok((event, _)) => {
                is_mapping.get_or_insert(matches!(event, Event::MappingStart(..)));
            }
            Err(error) => return Verdict::Invalid(Fault::scan(Reader::Envoy, &error)),
        }
    }
    match is_mapping {
        Some(true) => Verdict::Valid,
        _ => Verdict::Foreign(Fault::envoy(Span::default(), NOT_A_MAPPING)),
    }
}

/// How much the streaming parser's no weighs.
enum Refusal {
    /// A second opinion may overrule it.
    Syntax(Fault),
    /// Envoy itself does not take this, whatever a parser says.
    Final(Fault),
    /// It is about what follows the document, which Envoy does not read.
    Unread(Fault),
    /// Nobody wants to know any more.
    LeftOff,
}

/// Reads the first document, as Envoy does, and says what speaks against it being a mapping. In its
/// first half, it is left off where it is outdated.
fn read_granit(
    text: &str,
    is_outdated: &mut dyn FnMut() -> bool,
) -> Result<Option<Fault>, Refusal> {
    let mut root = None;
    let mut aliases = Aliases::default();
    for (count, event) in yaml::events(text, Form::Yaml).enumerate() {
        let (event, span) = match event {
            Ok(event) => event,
            Err(error)
                if matches!(error.kind(), ErrorKind::ExpectedDocumentStart)
                    && matches!(root, Some(None))
                    && aliases.depth() == 0 =>
            {
                return Err(Refusal::Unread(Fault::scan(Reader::Granit, &error)));
            }
            Err(error) => return Err(Refusal::new(&error)),
        };
        if count % ASK_EVERY == ASK_EVERY - 1
            && span
                .start
                .byte_offset()
                .is_some_and(|at| at < text.len() / 2)
            && is_outdated()
        {
            return Err(Refusal::LeftOff);
        }
        if root.is_none() && event.is_node() {
            root = Some(match &event {
                Event::MappingStart(..) => None,
                Event::Scalar(_, ScalarStyle::Plain, ..) if span.start == span.end => break,
                _ => Some(Fault::envoy(span, NOT_A_MAPPING)),
            });
        }
        if matches!(event, Event::DocumentEnd) {
            break;
        }
        aliases.follow(&event, span).map_err(Refusal::Final)?;
    }
    root.ok_or_else(|| Refusal::Final(Fault::envoy(Span::default(), "the document is empty")))
}

impl Refusal {
    fn new(error: &ScanError) -> Refusal {
        let fault = Fault::scan(Reader::Granit, error);
        match error.kind() {
            ErrorKind::RecursionLimitExceeded => Refusal::Final(fault),
            // The enum is open, and what it may grow is syntax.
            _ => Refusal::Syntax(fault),
        }
    }
}

fn read_yaml_serde(text: &str) -> Result<(), Fault> {
    let Some(document) = serde_yaml::Deserializer::from_str(text).next() else {
        return Err(Fault::new(
            Reader::YamlSerde,
            0,
            0,
            "the document is empty".into(),
        ));
    };
    Mapping::deserialize(document).map(drop).map_err(|error| {
        let (line, column) = error
            .location()
            .map_or((0, 0), |at| (at.line(), at.column()));
        let mut reason = strip_position(&error.to_string());
        // serde goes on with the value: a key that is too long for libyaml is a text of its own.
        if reason.starts_with("invalid type") {
            reason = NOT_A_MAPPING.to_owned();
        }
        Fault::new(Reader::YamlSerde, line, column, reason)
    })
}

/// Takes a mapping and looks at nothing in it: both serde readers skip ignored values with a loop,
/// so the text's depth is never the depth of our stack.
struct Mapping;

impl<'de> Deserialize<'de> for Mapping {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Mapping, D::Error> {
        deserializer.deserialize_any(Mapping)
    }
}

impl<'de> Visitor<'de> for Mapping {
    type Value = Mapping;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a mapping")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Mapping, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Mapping)
    }
}

/// serde's messages say ` at line 3 column 5`, which [`Fault`] says itself.
fn strip_position(message: &str) -> String {
    let end = message.find(" at line ").unwrap_or(message.len());
    message[..end].to_owned()
}

impl Fault {
    fn new(reader: Reader, line: usize, column: usize, reason: String) -> Fault {
        Fault {
            reader,
            line,
            column,
            reason,
        }
    }

    fn scan(reader: Reader, error: &ScanError) -> Fault {
        let at = error.marker();
        Fault::new(reader, at.line(), at.col() + 1, error.info())
    }

    fn envoy(span: Span, reason: &str) -> Fault {
        let line = span.start.line().max(1);
        Fault::new(Reader::Envoy, line, span.start.col() + 1, reason.to_owned())
    }
}

#[cfg(test)]
mod tests;
