//! The resources of a file. Owns: where their list stands, and reading them one after the other.
//! Must not: know what is done with them.

use std::borrow::Cow;
use std::ops::ControlFlow;

use granit_parser::{Event, ScalarStyle, Span, StructureStyle};

use super::declined::Declined;
use super::facts::Facts;
use super::flow::{Line, Reader, has_tag, is_null};
use crate::xds::yaml::{self, Encoding, Form};

/// A file's content, as our parsers can be shown it.
pub(super) struct Text<'a> {
    pub(super) form: Form,
    pub(super) readable: Cow<'a, str>,
    /// The reason why its values may be others than they seem.
    pub(super) flaw: Option<Declined>,
}

impl<'a> Text<'a> {
    pub(super) fn new(form: Form, bytes: &'a [u8]) -> Result<Text<'a>, Declined> {
        let (decoded, encoding) = yaml::decode(bytes);
        if let Some(why) = yaml::obstacle(form, &decoded) {
            return Err(Declined::new(why));
        }
        let is_utf8 = encoding == Encoding::Utf8;
        let (readable, is_masked) = match (form, decoded) {
            (Form::Yaml, Cow::Borrowed(text)) => {
                let masked = yaml::mask(text);
                let is_masked = matches!(masked, Cow::Owned(_));
                (masked, is_masked)
            }
            (Form::Yaml, Cow::Owned(text)) => (yaml::mask(&text).into_owned().into(), false),
            (_, decoded) if is_utf8 => (decoded, false),
            _ => return Err(Declined::new("it is not UTF-8")),
        };
        let flaw = match (is_utf8, is_masked) {
            (false, _) => Some("it is not UTF-8"),
            (true, true) => Some("it has control characters, directives or named tags"),
            (true, false) => None,
        };
        let flaw = flaw.map(Declined::new);
        Ok(Text {
            form,
            readable,
            flaw,
        })
    }
}

/// The place of the list of resources in a text.
pub(super) struct List {
    /// The number of events before its first resource.
    pub(super) before: usize,
    /// The offset of its first byte.
    pub(super) at: usize,
    pub(super) span: Span,
    pub(super) style: StructureStyle,
    /// It has an anchor or a tag.
    pub(super) is_marked: bool,
    pub(super) is_empty: bool,
}

/// A resource of the list.
pub(super) struct Resource<'r, 'a> {
    pub(super) span: Span,
    pub(super) facts: &'r Facts<'a>,
    pub(super) line: &'r Line,
}

/// Reads the resources of a text, and gives each to `take`, until that says to stop. Returns where
/// their list stands, if they stand in one.
pub(super) fn read<'a>(
    text: &'a Text<'_>,
    mut line: Line,
    mut take: impl FnMut(Resource<'_, 'a>) -> Result<ControlFlow<()>, Declined>,
) -> Result<Option<List>, Declined> {
    let mut reader = Reader::new(&text.readable, text.form);
    let (root, span) = loop {
        let (event, span) = reader.next()?;
        if event.is_node() {
            break (event, span);
        }
    };
    if !matches!(root, Event::MappingStart(..)) {
        return Err(Declined::at(span, "the document is not a mapping"));
    }
    let (mut seen, mut list) = (false, None);
    loop {
        let (event, span) = reader.next()?;
        if event == Event::MappingEnd {
            return Ok(list);
        }
        let is_key = reader.scalar_of(&event).as_deref() == Some("resources");
        let is_plain = matches!(event, Event::Scalar(_, _, _, None));
        line.clear();
        reader.node((event, span), &mut line, None)?;
        let (event, span) = reader.next()?;
        if !is_key {
            reader.node((event, span), &mut line, None)?;
            continue;
        }
        if !is_plain {
            return Err(Declined::at(span, "the key of the resources is not plain"));
        }
        if std::mem::replace(&mut seen, true) {
            return Err(Declined::at(span, "there are two lists of resources"));
        }
        let mut item = |reader: &mut Reader<'a>, event: Event<'a>, span| {
            if !matches!(event, Event::MappingStart(..)) {
                return Err(Declined::at(span, "a resource is not a mapping"));
            }
            let mut facts = Facts::default();
            line.clear();
            reader.node((event, span), &mut line, Some(&mut facts))?;
            take(Resource {
                span,
                facts: &facts,
                line: &line,
            })
        };
        match &event {
            Event::SequenceStart(style, anchor, _) => {
                let mut found = List {
                    before: reader.count(),
                    at: span.start.byte_offset().unwrap_or(0),
                    span,
                    style: *style,
                    is_marked: *anchor != 0 || has_tag(&event),
                    is_empty: true,
                };
                loop {
                    let (event, span) = reader.next()?;
                    if event == Event::SequenceEnd {
                        break;
                    }
                    found.is_empty = false;
                    if item(&mut reader, event, span)?.is_break() {
                        return Ok(None);
                    }
                }
                list = Some(found);
            }
            // Envoy takes it for a list of one.
            Event::MappingStart(..) => {
                if item(&mut reader, event, span)?.is_break() {
                    return Ok(None);
                }
            }
            Event::Scalar(value, ScalarStyle::Plain, 0, None) if is_null(value, text.form) => {}
            _ => return Err(Declined::at(span, "the resources are not a list")),
        }
    }
}
