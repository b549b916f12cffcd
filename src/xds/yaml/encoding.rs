//! The encodings that yaml-cpp takes a file to be in. Owns: which one that is, and the way into a
//! string and back. Must not: look at what the text says.

use std::borrow::Cow;

/// The encoding of a text's characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    Utf8,
    /// Latin-1, which is what yaml-cpp takes for anything else: each byte is a character.
    Latin1,
    Utf16 {
        little: bool,
    },
    Utf32 {
        little: bool,
    },
}

/// Decodes a text as yaml-cpp does: by its byte-order mark or its first zero bytes UTF-16 or
/// UTF-32, else UTF-8.
pub fn decode(bytes: &[u8]) -> (Cow<'_, str>, Encoding) {
    let encoding = match bytes {
        [0xff, 0xfe, 0, 0, ..] | [_, 0, 0, 0, ..] => Encoding::Utf32 { little: true },
        [0, 0, 0xfe, 0xff, ..] | [0, 0, 0, _, ..] => Encoding::Utf32 { little: false },
        [0xff, 0xfe, ..] | [1..=0x7f, 0, ..] => Encoding::Utf16 { little: true },
        [0xfe, 0xff, ..] | [0, 1..=0x7f, ..] => Encoding::Utf16 { little: false },
        _ => match str::from_utf8(bytes) {
            Ok(text) => return (text.into(), Encoding::Utf8),
            Err(_) => Encoding::Latin1,
        },
    };
    let known = |c: Option<char>| c.unwrap_or(char::REPLACEMENT_CHARACTER);
    let text: String = match encoding {
        Encoding::Utf16 { little } => {
            let units = bytes.as_chunks().0.iter().map(|unit| match little {
                true => u16::from_le_bytes(*unit),
                false => u16::from_be_bytes(*unit),
            });
            char::decode_utf16(units).map(|c| known(c.ok())).collect()
        }
        Encoding::Utf32 { little } => {
            let units = bytes.as_chunks().0.iter().map(|unit| match little {
                true => u32::from_le_bytes(*unit),
                false => u32::from_be_bytes(*unit),
            });
            units.map(|unit| known(char::from_u32(unit))).collect()
        }
        Encoding::Utf8 | Encoding::Latin1 => bytes.iter().copied().map(char::from).collect(),
    };
    (text.into(), encoding)
}

impl Encoding {
    /// Encodes a text again. A text that was decoded with a loss does not become the same bytes.
    pub fn encode(self, text: String) -> Vec<u8> {
        match self {
            Encoding::Utf8 => text.into_bytes(),
            Encoding::Latin1 => {
                let byte = |c| u8::try_from(c).unwrap_or(b'?');
                text.chars().map(byte).collect()
            }
            Encoding::Utf16 { little } => {
                let bytes = |unit: u16| match little {
                    true => unit.to_le_bytes(),
                    false => unit.to_be_bytes(),
                };
                text.encode_utf16().flat_map(bytes).collect()
            }
            Encoding::Utf32 { little } => {
                let bytes = |c| match little {
                    true => u32::from(c).to_le_bytes(),
                    false => u32::from(c).to_be_bytes(),
                };
                text.chars().flat_map(bytes).collect()
            }
        }
    }
}
