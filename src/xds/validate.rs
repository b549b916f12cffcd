//! Decides whether Envoy could read a text at all. Owns: the decision between publish, publish with
//! a warning, and keep the last known good text. Must not: check any schema, change a byte, do I/O
//! or log.
//!
//! Envoy reads JSON with protobuf's lenient reader, which `json` follows, and YAML with yaml-cpp,
//! which cannot be had in Rust. So two parsers are asked that err in different ways, and only what
//! both refuse is bad. `tests/data/document` holds texts with what a real Envoy said to each.

mod aliases;
mod fault;

use std::borrow::Cow;
use std::fmt;

use granit_parser::{ErrorKind, Event, ScalarStyle, ScanError, Span};
use serde::Deserialize;
use serde::de::{self, IgnoredAny, MapAccess, Visitor};

use crate::snapshot::FileName;
use crate::xds::yaml::{self, Events, Form, NESTING_MAX};
use aliases::Aliases;
pub use fault::{Fault, Reader};

/// The length above which the streaming parser alone judges a text: yaml_serde holds all events of
/// a document in a vector, measured at 15 bytes for each byte of a usual text and 56 for
/// `[a,a,a,...]`. At 64 KiB that is 1 to 3.6 MB; our whole budget while a 1 MiB ConfigMap is read
/// is 8 MB.
pub const SECOND_OPINION_MAX_BYTES: usize = 64 * 1024;

const NOT_A_MAPPING: &str = "the document is not a mapping";

/// The verdict on a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The text is valid: publish it.
    Valid,
    /// One reader takes it, the other does not: publish it with a warning.
    Suspect(Fault),
    /// The text is not a configuration of Envoy's: publish it, but not in the place of one.
    Foreign(Fault),
    /// The text is invalid: Envoy would not load it. Keep the last known good one.
    Invalid(Fault),
}

/// A file's content, as far as it can be read as a text.
pub struct Text<'a> {
    form: Form,
    /// The decoded text; `None` for what is not looked into, and for JSON that is not UTF-8.
    readable: Option<Cow<'a, str>>,
}

impl<'a> Text<'a> {
    /// Takes the content of file `name`.
    pub fn new(name: &FileName, bytes: &'a [u8]) -> Text<'a> {
        let form = Form::of(name);
        let readable = match form {
            Form::Yaml => Some(yaml::readable(bytes)),
            Form::Json | Form::Unnamed => str::from_utf8(bytes).ok().map(Cow::Borrowed),
            Form::Protobuf => None,
        };
        Text { form, readable }
    }
}

/// A check that has not ended. Only that of a YAML text takes more than one step.
pub enum Check<'a> {
    /// The check of a YAML text.
    Yaml(YamlCheck<'a>),
    /// The check of any other text.
    Judged(Verdict),
}

/// The result of a run of some steps.
pub enum Progress<'a> {
    /// The check can go on.
    Pending(Check<'a>),
    /// The check is over.
    Done(Verdict),
}

impl<'a> Check<'a> {
    /// Begins the check of a whole text; of one that is valid, [`cross_check`] may know more.
    pub fn new(text: &'a Text<'_>) -> Check<'a> {
        let readable = text.readable.as_deref();
        match text.form {
            Form::Yaml => Check::Yaml(YamlCheck::new(readable.unwrap_or_default())),
            Form::Json => Check::Judged(check_json(readable)),
            Form::Unnamed => Check::Judged(match check_json(readable) {
                Verdict::Invalid(fault) => Verdict::Foreign(fault),
                verdict => verdict,
            }),
            Form::Protobuf => Check::Judged(Verdict::Valid),
        }
    }

    /// Reads on by so many events.
    pub fn run(self, steps: usize) -> Progress<'a> {
        match self {
            Check::Judged(verdict) => Progress::Done(verdict),
            Check::Yaml(mut check) => match check.run(steps) {
                None => Progress::Pending(Check::Yaml(check)),
                Some(found) => Progress::Done(check.verdict(found)),
            },
        }
    }

    /// Returns true once less than half of the text is left.
    pub fn is_past_half(&self) -> bool {
        match self {
            Check::Judged(_) => true,
            Check::Yaml(check) => check.at >= check.text.len() / 2,
        }
    }
}

/// Judges the content of file `name` in one go.
pub fn check(name: &FileName, bytes: &[u8]) -> Verdict {
    let text = Text::new(name, bytes);
    let mut check = Check::new(&text);
    loop {
        match check.run(usize::MAX) {
            Progress::Done(verdict) => return verdict,
            Progress::Pending(rest) => check = rest,
        }
    }
}

/// Returns whether a published text is a configuration of Envoy's: only another one may take its
/// place.
pub fn is_configuration(name: &FileName, bytes: &[u8]) -> bool {
    match Form::of(name) {
        Form::Unnamed => str::from_utf8(bytes).is_ok_and(yaml::is_discovery_response),
        Form::Protobuf => false,
        Form::Yaml | Form::Json => {
            matches!(check(name, bytes), Verdict::Valid | Verdict::Suspect(_))
        }
    }
}

/// Returns whether there may be anchors, and aliases of them. `"*"` is the most usual of domains.
fn has_aliases(text: &str) -> bool {
    let mut pairs = text.as_bytes().windows(2);
    text.contains('&')
        && pairs.any(|pair| matches!(pair, [before, b'*'] if !b"\"'".contains(before)))
}

/// Returns whether brackets alone go deeper than the first reader would have followed them:
/// libyaml's time is quadratic in that, several seconds for 64 KiB.
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

/// Returns the fault that the second reader finds in a text that the first one takes. It cannot
/// make the text bad and takes longer than all else on the way to Envoy, so there is time for it
/// afterwards.
pub fn cross_check(name: &FileName, bytes: &[u8]) -> Option<Fault> {
    if Form::of(name) != Form::Yaml {
        return None;
    }
    let (text, _) = yaml::decode(bytes);
    (text.len() <= SECOND_OPINION_MAX_BYTES).then(|| read_yaml_serde(&yaml::mask(&text)).err())?
}

fn check_json(text: Option<&str>) -> Verdict {
    let Some(text) = text else {
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

/// The reason why the streaming parser refuses a text.
enum Refusal {
    /// Its syntax is wrong; a second opinion may overrule that.
    Syntax(Fault),
    /// Envoy itself does not take it, whatever a parser says.
    Final(Fault),
    /// The fault is behind the document, where Envoy does not read.
    Unread(Fault),
}

/// The kind of a document's root, as far as it is known.
enum Root {
    Unread,
    Mapping,
    Other(Fault),
}

/// Reads the first document, as Envoy does, and says what speaks against it being a mapping.
pub struct YamlCheck<'a> {
    text: &'a str,
    events: Events<'a>,
    /// The offset of the event that was read last.
    at: usize,
    root: Root,
    aliases: Aliases,
}

impl<'a> YamlCheck<'a> {
    fn new(text: &'a str) -> YamlCheck<'a> {
        YamlCheck {
            text,
            events: yaml::events(text, Form::Yaml),
            at: 0,
            root: Root::Unread,
            aliases: Aliases::default(),
        }
    }

    /// Returns `None` while there is more to read, and after the last event whether it was refused.
    fn run(&mut self, steps: usize) -> Option<Result<(), Refusal>> {
        for _ in 0..steps {
            let Some(event) = self.events.next() else {
                return Some(Ok(()));
            };
            let (event, span) = match event {
                Ok(event) => event,
                Err(error) => return Some(Err(self.refusal(&error))),
            };
            self.at = span.start.byte_offset().unwrap_or(self.text.len());
            if matches!(self.root, Root::Unread) && event.is_node() {
                self.root = match &event {
                    Event::MappingStart(..) => Root::Mapping,
                    Event::Scalar(_, ScalarStyle::Plain, ..) if span.start == span.end => {
                        return Some(Ok(()));
                    }
                    _ => Root::Other(Fault::envoy(span, NOT_A_MAPPING)),
                };
            }
            if matches!(event, Event::DocumentEnd) {
                return Some(Ok(()));
            }
            if let Err(fault) = self.aliases.follow(&event, span) {
                return Some(Err(Refusal::Final(fault)));
            }
        }
        None
    }

    fn refusal(&self, error: &ScanError) -> Refusal {
        let fault = Fault::scan(Reader::Granit, error);
        let is_over = matches!(self.root, Root::Mapping) && self.aliases.depth() == 0;
        match error.kind() {
            ErrorKind::ExpectedDocumentStart if is_over => Refusal::Unread(fault),
            ErrorKind::RecursionLimitExceeded => Refusal::Final(fault),
            // The enum is open, and what it may grow is syntax.
            _ => Refusal::Syntax(fault),
        }
    }

    /// Returns the verdict on a text that has been read as far as it can be.
    fn verdict(self, found: Result<(), Refusal>) -> Verdict {
        match (found, self.root) {
            (Ok(()), Root::Mapping) => Verdict::Valid,
            (Ok(()), Root::Other(fault)) => Verdict::Foreign(fault),
            (Ok(()), Root::Unread) => {
                Verdict::Invalid(Fault::envoy(Span::default(), "the document is empty"))
            }
            (Err(Refusal::Unread(fault)), _) => Verdict::Suspect(fault),
            (Err(Refusal::Final(fault)), _) => Verdict::Invalid(fault),
            (Err(Refusal::Syntax(fault)), _) if is_overruled(self.text) => Verdict::Suspect(fault),
            (Err(Refusal::Syntax(fault)), _) => Verdict::Invalid(fault),
        }
    }
}

/// Returns whether the second reader takes a text that the first one refuses. It is not asked about
/// what it cannot tell, which is what aliases name.
fn is_overruled(text: &str) -> bool {
    let asked = text.len() <= SECOND_OPINION_MAX_BYTES && !is_deep(text) && !has_aliases(text);
    asked && read_yaml_serde(text).is_ok()
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

#[cfg(test)]
mod tests;
