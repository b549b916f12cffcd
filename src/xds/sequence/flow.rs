//! Nodes of a text, each written in one line of flow style. Owns: that the line says to Envoy what
//! the node says, and that the line of a line is the line itself. Must not: know what a node is
//! for.
//!
//! To Envoy a plain scalar can be null, a boolean or a number, and a quoted one cannot. So the
//! first stay plain and all others are quoted; what an alias names is written in its place.

use std::borrow::Cow;
use std::fmt::Write;

use granit_parser::{Event, Marker, ScalarStyle, Span, Tag};

use super::declined::Declined;
use super::facts::Facts;
use crate::xds::yaml::{self, Events, Form};

/// Bytes written in the place of aliases, in one text. A budget, so that a few hundred bytes do not
/// become a line without end: no ConfigMap is larger than 1 MiB.
const ALIASED_MAX_BYTES: usize = 4 << 20;

/// The nodes of a text's first document, in order.
pub(super) struct Reader<'a> {
    text: &'a str,
    events: Events<'a>,
    form: Form,
    /// The number of events that have been read.
    count: usize,
    /// Nodes with an anchor, sorted by it.
    anchored: Vec<Anchored<'a>>,
    aliased_bytes: usize,
}

/// A node with an anchor, once it has ended.
struct Anchored<'a> {
    id: usize,
    scalar: Option<Cow<'a, str>>,
    line: String,
    flaw: Option<Declined>,
}

/// A line that is being written.
#[derive(Default)]
pub(super) struct Line {
    pub(super) text: String,
    /// The first thing that it cannot say, and why.
    pub(super) flaw: Option<Declined>,
    discards: bool,
}

impl Line {
    /// Returns a line that nobody wants to see.
    pub(super) fn unwritten() -> Line {
        Line {
            discards: true,
            ..Line::default()
        }
    }

    pub(super) fn clear(&mut self) {
        self.text.clear();
        self.flaw = None;
    }

    fn push(&mut self, text: &str) {
        if !self.discards {
            self.text.push_str(text);
        }
    }

    fn note_flaw(&mut self, span: Span, reason: &str) {
        self.flaw.get_or_insert_with(|| Declined::at(span, reason));
    }

    fn begin_entry(&mut self, is_first: bool) {
        if !is_first {
            self.push(", ");
        }
    }

    fn quote(&mut self, value: &str) {
        if self.discards {
            return;
        }
        self.text.push('"');
        for c in value.chars() {
            match c {
                '"' => self.text.push_str("\\\""),
                '\\' => self.text.push_str("\\\\"),
                '\n' => self.text.push_str("\\n"),
                '\r' => self.text.push_str("\\r"),
                '\t' => self.text.push_str("\\t"),
                // The escape that YAML and JSON share.
                _ if c.is_control() || is_special(c) => {
                    // Writing to a string does not fail.
                    let _ = write!(self.text, "\\u{:04x}", u32::from(c));
                }
                _ => self.text.push(c),
            }
        }
        self.text.push('"');
    }
}

/// Line ends of Unicode, byte-order marks, and what is not a character.
fn is_special(c: char) -> bool {
    matches!(
        c,
        '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}'
    )
}

impl<'a> Reader<'a> {
    /// `text` is what our parsers can be shown.
    pub(super) fn new(text: &'a str, form: Form) -> Reader<'a> {
        Reader {
            text,
            events: yaml::events(text, form),
            form,
            count: 0,
            anchored: Vec::new(),
            aliased_bytes: 0,
        }
    }

    /// Returns the number of events read so far.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Returns the next event. The text must have one.
    pub(super) fn next(&mut self) -> Result<(Event<'a>, Span), Declined> {
        self.count += 1;
        match self.events.next() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => {
                let line = error.marker().line();
                Err(Declined::on_line(line, &error.info()))
            }
            None => Err(Declined::new("the document is empty")),
        }
    }

    /// Returns the value of a scalar, or of the scalar that an alias names, unless it is null.
    pub(super) fn scalar_of(&self, event: &Event<'a>) -> Option<Cow<'a, str>> {
        match event {
            Event::Scalar(value, ScalarStyle::Plain, ..) if is_null(value, self.form) => None,
            Event::Scalar(value, ..) => Some(value.clone()),
            Event::Alias(id) => self.find(*id)?.scalar.clone(),
            _ => None,
        }
    }

    fn find(&self, id: usize) -> Option<&Anchored<'a>> {
        let at = self.anchored.binary_search_by_key(&id, |node| node.id);
        self.anchored.get(at.ok()?)
    }

    /// Reads a node to its end, given the event that it begins with, and writes it.
    pub(super) fn node(
        &mut self,
        (event, span): (Event<'a>, Span),
        out: &mut Line,
        facts: Option<&mut Facts<'a>>,
    ) -> Result<(), Declined> {
        let (from, before) = (out.text.len(), out.flaw.take());
        match &event {
            Event::Alias(id) => self.alias(*id, span, out)?,
            Event::Scalar(value, style, _, tag) => {
                mark_tag(tag.as_deref(), span, out);
                self.check_reading(value, *style, span, out);
                self.scalar(value, *style, out);
            }
            Event::SequenceStart(_, _, tag) => {
                mark_tag(tag.as_deref(), span, out);
                self.sequence(out)?;
            }
            Event::MappingStart(_, _, tag) => {
                mark_tag(tag.as_deref(), span, out);
                self.mapping(out, facts)?;
            }
            _ => return Err(Declined::at(span, "a value is missing")),
        }
        if let Some(id) = event.anchor_id() {
            let scalar = self.scalar_of(&event);
            self.remember(id, scalar, &out.text[from..], out.flaw.clone());
        }
        out.flaw = before.or(out.flaw.take());
        Ok(())
    }

    /// Collections end in another order than they begin in, so this is an insertion.
    fn remember(
        &mut self,
        id: usize,
        scalar: Option<Cow<'a, str>>,
        line: &str,
        flaw: Option<Declined>,
    ) {
        let line = line.to_owned();
        let at = self.anchored.partition_point(|node| node.id < id);
        self.anchored.insert(
            at,
            Anchored {
                id,
                scalar,
                line,
                flaw,
            },
        );
    }

    fn alias(&mut self, id: usize, span: Span, out: &mut Line) -> Result<(), Declined> {
        let Some(named) = self.find(id) else {
            return Err(Declined::at(span, "an alias stands inside what it names"));
        };
        out.push(&named.line);
        out.flaw.clone_from(&named.flaw);
        self.aliased_bytes += named.line.len();
        match self.aliased_bytes > ALIASED_MAX_BYTES {
            true => Err(Declined::at(span, "there is too much behind aliases")),
            false => Ok(()),
        }
    }

    fn scalar(&self, value: &str, style: ScalarStyle, out: &mut Line) {
        let is_plain = style == ScalarStyle::Plain;
        match self.form {
            _ if is_plain && is_null(value, self.form) => out.push("null"),
            Form::Yaml if is_plain && may_be_typed(value) => out.push(value),
            Form::Yaml => out.quote(value),
            _ if is_plain => out.push(value),
            _ => out.quote(value),
        }
    }

    /// Notes where yaml-cpp does not read what our parser does. Of `\N` and `\_` it makes half a
    /// character, and Envoy something else of that; of `>+` it drops a line end.
    fn check_reading(&self, value: &str, style: ScalarStyle, span: Span, out: &mut Line) {
        if style == ScalarStyle::Folded && (value.ends_with("\n\n") || value == "\n") {
            out.note_flaw(span, "a folded text ends with empty lines");
        }
        let is_quoted = self.form == Form::Yaml && style == ScalarStyle::DoubleQuoted;
        if !is_quoted || !value.contains(['\u{85}', '\u{a0}']) {
            return;
        }
        let offset = |at: Marker| at.byte_offset().unwrap_or(0);
        let raw = self.text.get(offset(span.start)..offset(span.end));
        let mut bytes = raw.unwrap_or("\\N").bytes();
        while let Some(byte) = bytes.next() {
            if byte == b'\\' && matches!(bytes.next(), Some(b'N' | b'_')) {
                out.note_flaw(span, "an escape that Envoy does not know stands here");
            }
        }
    }

    fn sequence(&mut self, out: &mut Line) -> Result<(), Declined> {
        out.push("[");
        let mut is_first = true;
        loop {
            let item = self.next()?;
            if item.0 == Event::SequenceEnd {
                break;
            }
            out.begin_entry(is_first);
            is_first = false;
            self.node(item, out, None)?;
        }
        out.push("]");
        Ok(())
    }

    fn mapping(
        &mut self,
        out: &mut Line,
        mut facts: Option<&mut Facts<'a>>,
    ) -> Result<(), Declined> {
        out.push("{");
        let mut is_first = true;
        loop {
            let (event, span) = self.next()?;
            if event == Event::MappingEnd {
                break;
            }
            out.begin_entry(is_first);
            is_first = false;
            let mut is_tagged = has_tag(&event);
            let key = self.key((event, span), out)?;
            out.push(": ");
            let value = self.next()?;
            is_tagged |= has_tag(&value.0);
            let (from, scalar) = (out.text.len(), self.scalar_of(&value.0));
            let of_value = facts.as_mut().and_then(|facts| facts.of_value(&key));
            self.node(value, out, of_value)?;
            if let Some(facts) = &mut facts {
                facts.note(&key, (span, is_tagged), scalar, &out.text[from..]);
            }
        }
        out.push("}");
        Ok(())
    }

    /// To Envoy each key is a text.
    fn key(
        &mut self,
        (event, span): (Event<'a>, Span),
        out: &mut Line,
    ) -> Result<Cow<'a, str>, Declined> {
        let key = match &event {
            Event::Scalar(value, ScalarStyle::Plain, ..) if is_null(value, self.form) => {
                Some("null".into())
            }
            _ => self.scalar_of(&event),
        };
        let Some(key) = key else {
            out.note_flaw(span, "a key is not a text");
            let mut key = Line::default();
            self.node((event, span), &mut key, None)?;
            out.quote(&key.text);
            return Ok(key.text.into());
        };
        match &event {
            Event::Scalar(_, style, anchor, tag) => {
                mark_tag(tag.as_deref(), span, out);
                self.check_reading(&key, *style, span, out);
                if *anchor != 0 {
                    let mut line = Line::default();
                    self.scalar(&key, *style, &mut line);
                    let scalar = self.scalar_of(&event);
                    self.remember(*anchor, scalar, &line.text, out.flaw.clone());
                }
            }
            _ => out.note_flaw(span, "a key is an alias"),
        }
        if key == "<<" {
            out.note_flaw(span, "a key merges another mapping");
        }
        out.quote(&key);
        Ok(key)
    }
}

pub(super) fn has_tag(event: &Event<'_>) -> bool {
    match event {
        Event::Scalar(_, _, _, tag)
        | Event::SequenceStart(_, _, tag)
        | Event::MappingStart(_, _, tag) => tag.is_some(),
        _ => false,
    }
}

/// Writes down the tag all the same: the line of the node tells it from one without.
fn mark_tag(tag: Option<&Tag>, span: Span, out: &mut Line) {
    if let Some(tag) = tag {
        out.note_flaw(span, "a tag stands here");
        out.push("!");
        out.push(tag.handle());
        out.push(tag.suffix());
        out.push(" ");
    }
}

/// Returns whether Envoy takes a plain scalar for none at all.
pub(super) fn is_null(value: &str, form: Form) -> bool {
    value == "null" || form == Form::Yaml && matches!(value, "" | "~" | "Null" | "NULL")
}

/// Returns whether some reader of YAML could take a plain scalar for a boolean or a number. Each of
/// these can stand in flow style as it is.
fn may_be_typed(value: &str) -> bool {
    const WORDS: [&str; 8] = ["y", "n", "yes", "no", "true", "false", "on", "off"];
    let is_safe = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'+' | b'-');
    let number = value.strip_prefix(['+', '-']).unwrap_or(value);
    let first = |text: &str, is: fn(&u8) -> bool| text.as_bytes().first().is_some_and(is);
    let begins = first(number, u8::is_ascii_digit)
        || number
            .strip_prefix('.')
            .is_some_and(|rest| first(rest, u8::is_ascii_alphanumeric));
    begins && value.bytes().all(is_safe)
        || WORDS.iter().any(|word| value.eq_ignore_ascii_case(word))
}
