//! Is this a text that Envoy could read at all? Owns: the decision between publish, publish with a
//! warning, and keep the last good one. Must not: check any schema, change a byte, do I/O or log.
//!
//! Envoy reads YAML with yaml-cpp and JSON with protobuf's lenient reader; neither can be had in
//! Rust. So two parsers are asked that err in different ways, and only what both refuse is bad.
//! `tests/data/document` holds texts with what a real Envoy said to each.

mod aliases;

use std::borrow::Cow;
use std::fmt;

use granit_parser::{ErrorKind, Event, Parser, ScanError, Span, StrInput, StructureStyle};
use serde::Deserialize;
use serde::de::{self, IgnoredAny, MapAccess, Visitor};

use crate::snapshot::FileName;
use aliases::Aliases;

/// Longer texts are judged by the streaming parser alone: yaml_serde holds all events of a document
/// in a vector, measured at 15 bytes for each byte of a usual text and 56 for `[a,a,a,...]`. At 64
/// KiB that is 1 to 3.6 MB; our whole budget while a 1 MiB ConfigMap is read is 8 MB.
pub const SECOND_OPINION_MAX_BYTES: usize = 64 * 1024;

/// yaml-cpp gives up at 500 collections in one another (`DepthGuard<500>`).
const NESTING_MAX: usize = 500;

/// Events of a text, of which it takes a third of a millisecond to read so many.
const ASK_EVERY: usize = 1024;

const NOT_A_MAPPING: &str = "the document is not a mapping";

/// What should be done with a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Publish it.
    Good,
    /// Publish it with a warning: one reader takes it, the other does not.
    Doubtful(Fault),
    /// Keep the last good text: Envoy would not load this one.
    Bad(Fault),
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
    /// serde_json: strict JSON.
    SerdeJson,
    /// What Envoy demands of a text beyond its syntax.
    Envoy,
}

impl fmt::Display for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reader::Granit => "granit-parser",
            Reader::YamlSerde => "yaml_serde",
            Reader::SerdeJson => "serde_json",
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

/// Judges the content of file `name`; of what is good, [`second_opinion`] may know more. Only
/// `.yaml`, `.yml` and `.json` are looked into: Envoy reads its configuration from nothing else that
/// a ConfigMap would hold.
///
/// `None`: left off, as `is_outdated` said so. It is asked now and then, while that still saves more
/// than it costs.
pub fn check(
    name: &FileName,
    bytes: &[u8],
    is_outdated: &mut dyn FnMut() -> bool,
) -> Option<Verdict> {
    match name.extension() {
        "yaml" | "yml" => check_yaml(bytes, is_outdated),
        "json" => Some(check_json(bytes)),
        _ => Some(Verdict::Good),
    }
}

fn check_yaml(bytes: &[u8], is_outdated: &mut dyn FnMut() -> bool) -> Option<Verdict> {
    let Some(text) = decode(bytes) else {
        let fault = Fault::envoy(Span::default(), "UTF-32 is not looked into");
        return Some(Verdict::Doubtful(fault));
    };
    let text = tame(&text);
    let fault = match read_granit(&text, is_outdated) {
        Ok(_) => return Some(Verdict::Good),
        Err(Refusal::LeftOff) => return None,
        Err(Refusal::Harmless(fault)) => return Some(Verdict::Doubtful(fault)),
        Err(Refusal::Final(fault)) => return Some(Verdict::Bad(fault)),
        Err(Refusal::Syntax(fault)) => fault,
    };
    let asked = text.len() <= SECOND_OPINION_MAX_BYTES && !is_deep(&text);
    Some(if asked && read_yaml_serde(&text).is_ok() {
        Verdict::Doubtful(fault)
    } else {
        Verdict::Bad(fault)
    })
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
pub fn second_opinion(name: &FileName, bytes: &[u8]) -> Option<Fault> {
    if !matches!(name.extension(), "yaml" | "yml") {
        return None;
    }
    let text = decode(bytes).filter(|text| text.len() <= SECOND_OPINION_MAX_BYTES)?;
    read_yaml_serde(&tame(&text)).err()
}

/// Envoy's JSON reader also takes single quotes, bare keys, a comma before a bracket, raw tabs in
/// strings: all of it is flow YAML, so the YAML parser's word counts where a flow mapping begins.
fn check_json(bytes: &[u8]) -> Verdict {
    let Err(error) = serde_json::from_slice::<Mapping>(bytes) else {
        return Verdict::Good;
    };
    let reason = if error.is_data() {
        // serde would cite the value.
        NOT_A_MAPPING.to_owned()
    } else {
        strip_position(&error.to_string())
    };
    let column = error.column().max(1);
    let fault = Fault::new(Reader::SerdeJson, error.line(), column, reason);
    if std::str::from_utf8(bytes).is_ok_and(is_flow_mapping) {
        Verdict::Doubtful(fault)
    } else {
        Verdict::Bad(fault)
    }
}

/// One flow mapping, and beside it only what JSON calls white space: no comment, tag or marker.
fn is_flow_mapping(text: &str) -> bool {
    let text = text.trim_matches([' ', '\t', '\r', '\n']);
    read_granit(text, &mut || false).is_ok_and(|root| {
        root.style == StructureStyle::Flow && text.starts_with('{') && root.end == text.len()
    })
}

/// How much the streaming parser's no weighs.
enum Refusal {
    /// A second opinion may overrule it.
    Syntax(Fault),
    /// Envoy itself does not take this, whatever a parser says.
    Final(Fault),
    /// Envoy takes this, whatever a parser says.
    Harmless(Fault),
    /// Nobody wants to know any more.
    LeftOff,
}

/// The mapping that a document is.
struct Root {
    style: StructureStyle,
    /// The byte after its last one.
    end: usize,
}

/// The text's events, each with its place: as lenient as the parser can be made, Envoy is too.
pub(crate) fn events(text: &str) -> Parser<'_, StrInput<'_>> {
    let options = granit_parser::options! {
        flow_nesting_limit: NESTING_MAX,
        block_nesting_limit: NESTING_MAX,
        bom_inside_document_as_content: true,
    };
    Parser::new_from_str_with_options(text, options)
}

/// Reads the first document, as Envoy does. In its first half, it is left off where it is outdated.
fn read_granit(text: &str, is_outdated: &mut dyn FnMut() -> bool) -> Result<Root, Refusal> {
    let mut root = None;
    let mut aliases = Aliases::default();
    for (count, event) in events(text).enumerate() {
        let (event, span) = event.map_err(|error| Refusal::new(&error))?;
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
            let Event::MappingStart(style, ..) = event else {
                return Err(Refusal::Final(Fault::envoy(span, NOT_A_MAPPING)));
            };
            root = Some(Root { style, end: 0 });
        }
        if matches!(event, Event::DocumentEnd) {
            break;
        }
        if let (Event::MappingEnd, Some(root)) = (&event, &mut root) {
            root.end = span.end.byte_offset().unwrap_or(text.len());
        }
        aliases.follow(&event, span).map_err(Refusal::Final)?;
    }
    root.ok_or_else(|| Refusal::Final(Fault::envoy(Span::default(), "the document is empty")))
}

impl Refusal {
    fn new(error: &ScanError) -> Refusal {
        let at = error.marker();
        let fault = Fault::new(Reader::Granit, at.line(), at.col() + 1, error.info());
        match error.kind() {
            // yaml-cpp has the same limit; and libyaml's time is quadratic in the depth.
            ErrorKind::RecursionLimitExceeded => Refusal::Final(fault),
            // yaml-cpp asks for no declaration of a handle, and for no `---` after a directive.
            ErrorKind::UndeclaredTagHandle | ErrorKind::ExpectedDocumentStart => {
                Refusal::Harmless(fault)
            }
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

/// The text as yaml-cpp would see it: UTF-16 by its mark or by its first zero byte, else UTF-8 with
/// whatever bytes it does not know. `None`: UTF-32.
fn decode(bytes: &[u8]) -> Option<Cow<'_, str>> {
    let little = match bytes {
        [0xff, 0xfe, 0, 0, ..] | [0, 0, 0xfe, 0xff, ..] | [0, 0, 0, _, ..] | [_, 0, 0, 0, ..] => {
            return None;
        }
        [0xff, 0xfe, ..] | [1..=0x7f, 0, ..] => true,
        [0xfe, 0xff, ..] | [0, 1..=0x7f, ..] => false,
        // The lossy reader is many times slower, and needed once in a lifetime.
        _ => match str::from_utf8(bytes) {
            Ok(text) => return Some(text.into()),
            Err(_) => return Some(String::from_utf8_lossy(bytes)),
        },
    };
    let units = bytes.chunks_exact(2).map(|pair| match (pair, little) {
        (&[low, high], true) | (&[high, low], false) => u16::from_be_bytes([high, low]),
        _ => 0,
    });
    let text = char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER));
    Some(text.collect())
}

/// yaml-cpp takes control characters for letters, and U+0004 for the end of the stream. Both our
/// parsers refuse them, so they are shown other letters instead, of the same length: every offset,
/// line and column stays.
pub(crate) fn tame(text: &str) -> Cow<'_, str> {
    // Nearly every text, at a few instructions a byte.
    if text
        .bytes()
        .all(|b| matches!(b, b' '..=b'~' | b'\n' | b'\r' | b'\t'))
    {
        return text.into();
    }
    let text = text.split_once('\u{4}').map_or(text, |(before, _)| before);
    let letter = |c: char| match c {
        '\t' | '\n' | '\r' | '\u{85}' => None,
        '\u{fffe}' | '\u{ffff}' => Some('\u{fffd}'),
        // Nothing in Kubernetes is named so.
        _ if c.is_ascii_control() => Some('~'),
        _ => c.is_control().then_some('\u{f8}'),
    };
    if text.contains(|c| letter(c).is_some()) {
        text.chars().map(|c| letter(c).unwrap_or(c)).collect()
    } else {
        text.into()
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

    fn envoy(span: Span, reason: &str) -> Fault {
        let line = span.start.line().max(1);
        Fault::new(Reader::Envoy, line, span.start.col() + 1, reason.to_owned())
    }
}

#[cfg(test)]
mod tests;
