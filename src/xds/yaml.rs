//! Envoy's configuration as its readers take it apart: YAML as yaml-cpp does, JSON as protobuf
//! does. Owns: the options, copies and encodings that make our parsers as lenient as Envoy's. Must
//! not: judge a text, or know a field of it beyond `resources`.

mod encoding;
mod form;
mod json;
mod mask;

use std::borrow::Cow;

use granit_parser::{Event, ParseResult, Parser, StrInput};

pub(crate) use encoding::{Encoding, decode};
pub use form::Form;
pub(crate) use mask::mask;

/// protobuf's JSON reader, by which YAML goes too, gives up at more collections in one another
/// (`ParseOptions::kDefaultDepth`).
pub(crate) const NESTING_MAX: usize = 100;

/// Returns a YAML text in a form that our parsers can read.
pub(crate) fn readable(bytes: &[u8]) -> Cow<'_, str> {
    match decode(bytes).0 {
        Cow::Borrowed(text) => mask(text),
        Cow::Owned(text) => mask(&text).into_owned().into(),
    }
}

/// Returns the feature that Envoy reads in another way than we do, if the text has one.
pub(crate) fn obstacle(form: Form, text: &str) -> Option<&'static str> {
    if form == Form::Protobuf {
        return Some("a protobuf cannot be edited");
    }
    // To yaml-cpp the first line end of a text is that of all lines.
    let mut pairs = text.as_bytes().windows(2);
    let mut lone =
        || pairs.any(|pair| pair[0] == b'\r' && pair[1] != b'\n') || text.ends_with('\r');
    if form == Form::Yaml && text.contains('\r') && text.contains('\n') && lone() {
        return Some("lone carriage returns stand beside other line ends");
    }
    // A handle may stand for the `!` of `!ignore`, which makes Envoy drop a key.
    let declares = text.starts_with("%TAG") || text.contains("\n%TAG");
    (form == Form::Yaml && declares).then_some("a tag handle is declared")
}

/// Returns the line end of a text's first line. To yaml-cpp it is that of all lines.
pub(crate) fn line_end(text: &str) -> &'static str {
    match text.find(['\n', '\r']).map_or("", |at| &text[at..]) {
        end if end.starts_with("\r\n") => "\r\n",
        end if end.starts_with('\r') => "\r",
        _ => "\n",
    }
}

/// A text's events, of either form.
pub(crate) enum Events<'a> {
    Yaml(Box<Parser<'a, StrInput<'a>>>),
    Json(json::Reader<'a>),
}

impl<'a> Iterator for Events<'a> {
    type Item = ParseResult<'a>;

    fn next(&mut self) -> Option<ParseResult<'a>> {
        match self {
            Events::Yaml(parser) => parser.next(),
            Events::Json(reader) => reader.next(),
        }
    }
}

/// Returns the text's events, each with its place. The parser is made as lenient as it can be,
/// which Envoy is too.
pub(crate) fn events(text: &str, form: Form) -> Events<'_> {
    if form != Form::Yaml {
        return Events::Json(json::Reader::new(text));
    }
    let options = granit_parser::options! {
        flow_nesting_limit: NESTING_MAX,
        block_nesting_limit: NESTING_MAX,
        bom_inside_document_as_content: true,
    };
    Events::Yaml(Box::new(Parser::new_from_str_with_options(text, options)))
}

/// Returns whether a text is JSON and has `resources` of which one has an `@type`.
pub(crate) fn is_discovery_response(text: &str) -> bool {
    let (mut in_resources, mut found) = (false, false);
    let mut events = json::Reader::new(text);
    while let Some(event) = events.next() {
        match event {
            Ok((Event::Scalar(key, ..), _)) if events.is_key() => match events.depth() {
                1 => in_resources = key == "resources",
                2 | 3 => found |= in_resources && key == "@type",
                _ => {}
            },
            Ok(_) => {}
            Err(_) => return false,
        }
    }
    found
}
