//! Is this a text that Envoy could read at all? Owns: the decision between publish, publish with a
//! warning, and keep the last good one. Must not: check any schema, change a byte, do I/O or log.
//!
//! Envoy reads YAML with yaml-cpp and JSON with protobuf's lenient reader; neither can be had in
//! Rust. So two parsers are asked that err in different ways, and only what both refuse is bad.
//! `tests/data/document` holds texts with what a real Envoy said to each.

use std::borrow::Cow;
use std::fmt;

use granit_parser::{Event, Parser, ScanError, Span, StructureStyle};
use serde::Deserialize;
use serde::de::{self, IgnoredAny, MapAccess, Visitor};

use crate::resource::FileName;

/// Longer texts are judged by the streaming parser alone: yaml_serde holds all events of a document
/// in a vector, 20 to 40 bytes for each byte of a usual text and 130 at worst. At 64 KiB that is
/// 1.4 to 8 MB; our whole budget while a 1 MiB ConfigMap is read is 8 MB.
pub const SECOND_OPINION_MAX_BYTES: usize = 64 * 1024;

/// yaml-cpp gives up at 500 collections in one another (`DepthGuard<500>`).
const NESTING_MAX: usize = 500;

/// Envoy copies what an alias names, and copies of copies: a few hundred bytes can become more
/// nodes than any machine holds. It needs about 0.5 KB and 1.2 us for each.
const EXPANDED_NODES_MAX: u64 = 10_000_000;

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

/// Judges the content of file `name`. Only `.yaml`, `.yml` and `.json` are looked into: Envoy reads
/// its configuration from nothing else that a ConfigMap would hold.
pub fn check(name: &FileName, bytes: &[u8]) -> Verdict {
    match name.extension() {
        "yaml" | "yml" => check_yaml(bytes),
        "json" => check_json(bytes),
        _ => Verdict::Good,
    }
}

fn check_yaml(bytes: &[u8]) -> Verdict {
    let Some(text) = decode(bytes) else {
        return Verdict::Doubtful(Fault::envoy(Span::default(), "UTF-32 is not looked into"));
    };
    let first = match read_granit(&text) {
        Ok(_) => None,
        // No other reader's opinion makes Envoy take these.
        Err(fault) if fault.reader == Reader::Envoy => return Verdict::Bad(fault),
        Err(fault) => Some(fault),
    };
    if text.len() > SECOND_OPINION_MAX_BYTES {
        return first.map_or(Verdict::Good, Verdict::Bad);
    }
    let second = read_yaml_serde(&text);
    match (first, second) {
        (None, Ok(())) => Verdict::Good,
        (Some(fault), Ok(())) | (None, Err(fault)) => Verdict::Doubtful(fault),
        (Some(fault), Err(_)) => Verdict::Bad(fault),
    }
}

/// Envoy's JSON reader also takes single quotes, bare keys, a comma before a bracket, raw tabs in
/// strings: all of it is flow YAML, so the YAML parser's word counts where a flow mapping begins.
fn check_json(bytes: &[u8]) -> Verdict {
    let Err(error) = serde_json::from_slice::<Mapping>(bytes) else {
        return Verdict::Good;
    };
    let reason = strip_position(&error.to_string());
    let fault = Fault::new(Reader::SerdeJson, error.line(), error.column(), reason);
    let lenient = std::str::from_utf8(bytes)
        .is_ok_and(|text| read_granit(text) == Ok(StructureStyle::Flow) && begins_as_json(text));
    if lenient {
        Verdict::Doubtful(fault)
    } else {
        Verdict::Bad(fault)
    }
}

/// A comment, a tag or a document marker may stand before a flow mapping, but not before JSON.
fn begins_as_json(text: &str) -> bool {
    text.trim_start_matches([' ', '\t', '\r', '\n'])
        .starts_with('{')
}

/// Reads the first document, as Envoy does, and says how its mapping is written.
fn read_granit(text: &str) -> Result<StructureStyle, Fault> {
    let options = granit_parser::options! {
        flow_nesting_limit: NESTING_MAX,
        block_nesting_limit: NESTING_MAX,
        bom_inside_document_as_content: true,
    };
    let mut root = None;
    let mut aliases = Aliases::default();
    for event in Parser::new_from_str_with_options(text, options) {
        let (event, span) = event.map_err(|error| Fault::granit(&error))?;
        if root.is_none() && event.is_node() {
            let Event::MappingStart(style, ..) = event else {
                return Err(Fault::envoy(span, "the document is not a mapping"));
            };
            root = Some(style);
        }
        if matches!(event, Event::DocumentEnd) {
            break;
        }
        aliases.follow(&event, span)?;
    }
    root.ok_or_else(|| Fault::envoy(Span::default(), "the document is empty"))
}

/// Counts the nodes that are left when every alias is replaced by what it names.
#[derive(Default)]
struct Aliases {
    /// Nodes so far, with every alias expanded.
    nodes: u64,
    /// Anchor (0: none) and `nodes` at the start of each collection that is open.
    open: Vec<(usize, u64)>,
    /// Anchor and expanded size of what it names; the last of an anchor holds.
    named: Vec<(usize, u64)>,
}

impl Aliases {
    fn follow(&mut self, event: &Event<'_>, span: Span) -> Result<(), Fault> {
        match event {
            Event::Scalar(_, _, anchor, _) => {
                self.nodes += 1;
                self.name(*anchor, 1);
            }
            Event::SequenceStart(_, anchor, _) | Event::MappingStart(_, anchor, _) => {
                self.open.push((*anchor, self.nodes));
                self.nodes += 1;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some((anchor, before)) = self.open.pop() {
                    self.name(anchor, self.nodes - before);
                }
            }
            Event::Alias(anchor) => {
                if self.open.iter().any(|(open, _)| open == anchor) {
                    // Measured: Envoy 1.40 dies of a stack overflow.
                    return Err(Fault::envoy(span, "an alias stands inside what it names"));
                }
                let at = self.named.binary_search_by_key(anchor, |(named, _)| *named);
                let size = at.ok().and_then(|at| self.named.get(at)).map_or(1, |n| n.1);
                self.nodes = self.nodes.saturating_add(size);
            }
            // Anchors and unresolved aliases are only told to those who ask; the rest is no node.
            _ => {}
        }
        if self.nodes > EXPANDED_NODES_MAX {
            return Err(Fault::envoy(span, "its aliases expand beyond all bounds"));
        }
        Ok(())
    }

    /// Collections end in another order than they begin in, so this is an insertion.
    fn name(&mut self, anchor: usize, size: u64) {
        if anchor != 0 {
            let at = self.named.partition_point(|(named, _)| *named < anchor);
            self.named.insert(at, (anchor, size));
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
        let reason = strip_position(&error.to_string());
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
        _ => return Some(String::from_utf8_lossy(bytes)),
    };
    let units = bytes.chunks_exact(2).map(|pair| match (pair, little) {
        (&[low, high], true) | (&[high, low], false) => u16::from_be_bytes([high, low]),
        _ => 0,
    });
    let text = char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER));
    Some(text.collect())
}

/// serde's messages end in ` at line 3 column 5`, which [`Fault`] says itself.
fn strip_position(message: &str) -> String {
    let end = message.rfind(" at line ").unwrap_or(message.len());
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

    fn granit(error: &ScanError) -> Fault {
        let at = error.marker();
        Fault::new(Reader::Granit, at.line(), at.col() + 1, error.info())
    }

    fn envoy(span: Span, reason: &str) -> Fault {
        let line = span.start.line().max(1);
        Fault::new(Reader::Envoy, line, span.start.col() + 1, reason.to_owned())
    }
}
