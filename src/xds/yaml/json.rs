//! Reads JSON as protobuf's reader does, which is Envoy's: with single quotes, bare keys, a comma
//! before a bracket, and control characters in strings. Owns: the events of such a text, which are
//! those of YAML. Must not: know a schema.
//!
//! It follows `google/protobuf/json/internal/lexer.cc` with `allow_legacy_nonconformant_behavior`.

use std::borrow::Cow;

use granit_parser::{Event, Marker, ParseResult, ScalarStyle, ScanError, Span, StructureStyle};

use super::NESTING_MAX;

/// The token that is expected next.
#[derive(Clone, Copy)]
enum Next {
    Value,
    /// The first of a collection, or its end.
    First,
    /// A comma, or the end of the collection.
    After,
    Over,
}

/// A text, read event by event. It ends at the end of the document, or with an error.
pub(crate) struct Reader<'a> {
    text: &'a str,
    at: usize,
    /// The line, from 1.
    line: usize,
    /// The offset of the first byte of the line.
    line_at: usize,
    next: Next,
    /// The bracket that closes each collection that is open.
    open: Vec<u8>,
    /// True if the last event was a key.
    is_key: bool,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(text: &'a str) -> Reader<'a> {
        Reader {
            text,
            at: 0,
            line: 1,
            line_at: 0,
            next: Next::Value,
            open: Vec::new(),
            is_key: false,
        }
    }

    /// Returns the number of open collections.
    pub(crate) fn depth(&self) -> usize {
        self.open.len()
    }

    /// Returns whether the last event was a key.
    pub(crate) fn is_key(&self) -> bool {
        self.is_key
    }

    fn read(&mut self) -> ParseResult<'a> {
        self.is_key = false;
        self.skip();
        match self.next {
            Next::Value => self.value(),
            Next::First => match self.peek() {
                Some(b) if self.open.last() == Some(&b) => Ok(self.close()),
                _ => self.entry(),
            },
            Next::After => {
                let comma = self.take(b',');
                self.skip();
                match (self.open.last().copied(), self.peek()) {
                    (None, None) if !comma => {
                        self.next = Next::Over;
                        Ok((Event::DocumentEnd, Span::empty(self.mark(self.at))))
                    }
                    (Some(end), Some(b)) if end == b => Ok(self.close()),
                    (Some(_), _) if comma => self.entry(),
                    _ => Err(self.error("a comma or a closing bracket is missing")),
                }
            }
            // Never asked.
            Next::Over => Err(self.error("the document is over")),
        }
    }

    fn entry(&mut self) -> ParseResult<'a> {
        if self.open.last() != Some(&b'}') {
            return self.value();
        }
        let from = self.at;
        let (key, style) = match self.peek() {
            Some(quote @ (b'"' | b'\'')) => self.string(quote)?,
            _ => {
                let in_word = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_';
                let word = self.word(in_word);
                let is_digit = word.as_bytes().first().is_none_or(u8::is_ascii_digit);
                if is_digit || matches!(word, "null" | "true" | "false") {
                    return Err(self.error("a key is missing"));
                }
                (word.into(), ScalarStyle::Plain)
            }
        };
        let span = self.span(from);
        self.skip();
        if !self.take(b':') {
            return Err(self.error("a colon is missing"));
        }
        (self.next, self.is_key) = (Next::Value, true);
        Ok((Event::Scalar(key, style, 0, None), span))
    }

    fn value(&mut self) -> ParseResult<'a> {
        let from = self.at;
        self.next = Next::After;
        let (value, style) = match self.peek() {
            Some(b'{') => return self.start(b'}'),
            Some(b'[') => return self.start(b']'),
            Some(quote @ (b'"' | b'\'')) => self.string(quote)?,
            Some(b'-' | b'0'..=b'9') => (self.number()?.into(), ScalarStyle::Plain),
            _ => {
                let word = self.word(u8::is_ascii_alphabetic);
                if !matches!(word, "null" | "true" | "false") {
                    self.at = from;
                    return Err(self.error("a value is missing"));
                }
                (word.into(), ScalarStyle::Plain)
            }
        };
        Ok((Event::Scalar(value, style, 0, None), self.span(from)))
    }

    fn start(&mut self, end: u8) -> ParseResult<'a> {
        if self.open.len() == NESTING_MAX {
            return Err(self.error("it is nested too deeply"));
        }
        let from = self.at;
        self.at += 1;
        self.open.push(end);
        self.next = Next::First;
        let event = match end {
            b'}' => Event::MappingStart(StructureStyle::Flow, 0, None),
            _ => Event::SequenceStart(StructureStyle::Flow, 0, None),
        };
        Ok((event, self.span(from)))
    }

    fn close(&mut self) -> (Event<'a>, Span) {
        let from = self.at;
        self.at += 1;
        self.next = Next::After;
        let event = match self.open.pop() {
            Some(b'}') => Event::MappingEnd,
            _ => Event::SequenceEnd,
        };
        (event, self.span(from))
    }

    fn string(&mut self, quote: u8) -> Result<(Cow<'a, str>, ScalarStyle), ScanError> {
        let style = match quote {
            b'"' => ScalarStyle::DoubleQuoted,
            _ => ScalarStyle::SingleQuoted,
        };
        self.at += 1;
        let (mut value, mut from) = (Cow::Borrowed(""), self.at);
        loop {
            let Some(b) = self.peek() else {
                return Err(self.error("a string has no end"));
            };
            if b == quote || b == b'\\' {
                value += &self.text[from..self.at];
            }
            self.at += 1;
            match b {
                b'\n' => self.new_line(),
                b'\\' => {
                    let c = self.escape()?;
                    value.to_mut().push(c);
                    from = self.at;
                }
                _ if b == quote => return Ok((value, style)),
                _ => {}
            }
        }
    }

    /// Reads what follows a backslash.
    fn escape(&mut self) -> Result<char, ScanError> {
        let b = self.peek();
        self.at += usize::from(b.is_some());
        Ok(match b {
            Some(b @ (b'"' | b'\'' | b'\\' | b'/')) => char::from(b),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u' | b'U') => {
                let mut units = [self.unit()?, 0];
                if matches!(units[0], 0xd800..0xdc00) {
                    // As protobuf does.
                    self.skip();
                    if !(self.take(b'\\') && self.take(b'u')) {
                        return Err(self.error("half of a surrogate pair is missing"));
                    }
                    units[1] = self.unit()?;
                }
                let c = char::decode_utf16(units).next();
                c.and_then(Result::ok)
                    .ok_or_else(|| self.error("half of a surrogate pair is missing"))?
            }
            _ => return Err(self.error("no such escape")),
        })
    }

    fn unit(&mut self) -> Result<u16, ScanError> {
        let digits = self.text.get(self.at..self.at + 4);
        let digits = digits.filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
        let unit = digits.and_then(|digits| u16::from_str_radix(digits, 16).ok());
        self.at += 4 * usize::from(unit.is_some());
        unit.ok_or_else(|| self.error("no such escape"))
    }

    fn number(&mut self) -> Result<&'a str, ScanError> {
        let from = self.at;
        let in_number =
            |b: &u8| b.is_ascii_digit() || matches!(b, b'-' | b'+' | b'.' | b'e' | b'E');
        let number = self.word(in_number);
        let digits = number.strip_prefix('-').unwrap_or(number);
        let well_formed = match digits.as_bytes() {
            [b'0', b'0'..=b'9', ..] => false,
            [b'0'..=b'9', ..] => {
                !digits.ends_with('.') && !digits.contains(".e") && !digits.contains(".E")
            }
            _ => false,
        };
        if well_formed && number.parse().is_ok_and(f64::is_finite) {
            return Ok(number);
        }
        self.at = from;
        Err(self.error("no such number"))
    }

    fn word(&mut self, is_in: impl Fn(&u8) -> bool) -> &'a str {
        let from = self.at;
        let len = self.text.as_bytes()[from..].iter().take_while(|b| is_in(b));
        self.at += len.count();
        &self.text[from..self.at]
    }

    fn skip(&mut self) {
        while let Some(b @ (b' ' | b'\t' | b'\r' | b'\n')) = self.peek() {
            self.at += 1;
            if b == b'\n' {
                self.new_line();
            }
        }
    }

    fn new_line(&mut self) {
        self.line += 1;
        self.line_at = self.at;
    }

    fn take(&mut self, wanted: u8) -> bool {
        let found = self.peek() == Some(wanted);
        self.at += usize::from(found);
        found
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn mark(&self, at: usize) -> Marker {
        Marker::new(at, self.line, 0).with_byte_offset(Some(at))
    }

    fn span(&self, from: usize) -> Span {
        Span::new(self.mark(from), self.mark(self.at))
    }

    fn error(&self, what: &str) -> ScanError {
        let before = self.text.get(self.line_at..self.at).unwrap_or("");
        let column = before.chars().count();
        ScanError::new(Marker::new(self.at, self.line, column), what)
    }
}

impl<'a> Iterator for Reader<'a> {
    type Item = ParseResult<'a>;

    fn next(&mut self) -> Option<ParseResult<'a>> {
        if let Next::Over = self.next {
            return None;
        }
        let event = self.read();
        if event.is_err() {
            self.next = Next::Over;
        }
        Some(event)
    }
}
