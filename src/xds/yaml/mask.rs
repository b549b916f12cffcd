//! Replaces what yaml-cpp accepts and our parsers do not. Owns: a copy of the text that they can
//! read, in which every byte that matters has its offset. Must not: change what the text says to
//! Envoy.

use std::borrow::Cow;

/// yaml-cpp takes control characters for letters, asks for no `---` behind directives, and for no
/// declaration of a tag's handle. Our parsers refuse all of that, so they are shown other
/// characters instead, of the same length: every offset, line and column stays.
pub(crate) fn mask(text: &str) -> Cow<'_, str> {
    let mut text = match is_usual(text.as_bytes()) {
        true => Cow::Borrowed(text),
        false => without_controls(text),
    };
    let places = directives(&text);
    for at in places {
        text.to_mut().replace_range(at..=at, "#");
    }
    if text.contains('!') {
        let places = handles(&text);
        for at in places {
            text.to_mut().replace_range(at..=at, "-");
        }
    }
    text
}

/// Returns whether a text is lines of printable ASCII, as nearly every one is. Reads eight bytes at
/// a time.
fn is_usual(text: &[u8]) -> bool {
    const ONES: u64 = u64::MAX / 0xff;
    const TOP_BITS: u64 = ONES * 0x80;
    let is_usual = |b: &u8| matches!(b, b' '..=b'~' | b'\n' | b'\r' | b'\t');
    // Without a carry, one more sets the top bit of what is above `~`, and 0x60 more that of what
    // is not below a space.
    let is_printable = |word: &[u8; 8]| {
        let word = u64::from_ne_bytes(*word);
        let is_above = word | word.wrapping_add(ONES);
        let is_not_below = word.wrapping_add(ONES * 0x60);
        !is_above & is_not_below & TOP_BITS == TOP_BITS
    };
    let (words, rest) = text.as_chunks();
    let mut words = words.iter();
    words.all(|word| is_printable(word) || word.iter().all(is_usual)) && rest.iter().all(is_usual)
}

fn without_controls(text: &str) -> Cow<'_, str> {
    let letter = |c: char| match c {
        '\t' | '\n' | '\r' | '\u{85}' => None,
        '\u{fffe}' | '\u{ffff}' => Some('\u{fffd}'),
        // Nothing in Kubernetes is named so.
        _ if c.is_ascii_control() => Some('~'),
        _ => c.is_control().then_some('\u{f8}'),
    };
    match text.contains(|c| letter(c).is_some()) {
        true => text.chars().map(|c| letter(c).unwrap_or(c)).collect(),
        false => text.into(),
    }
}

/// Returns the offsets of the `%` of directives that no `---` follows, and of declarations of
/// handles, which [`handles`] makes needless. None where yaml-cpp would refuse one.
fn directives(text: &str) -> Vec<usize> {
    let (mut places, mut at, mut has_version) = (Vec::new(), 0, false);
    for line in text.split_inclusive(['\n', '\r']) {
        let content = line.trim_start_matches('\u{feff}');
        match content.as_bytes() {
            [b'%', ..] => {
                let is_version = content.starts_with("%YAML");
                if is_version && (has_version || !content.starts_with("%YAML 1.")) {
                    return Vec::new();
                }
                has_version |= is_version;
                places.push(at + line.len() - content.len());
            }
            [b'-', b'-', b'-', ..] => {
                places.retain(|at| text[*at..].starts_with("%TAG"));
                break;
            }
            _ if matches!(content.trim().as_bytes(), [] | [b'#', ..]) => {}
            _ => break,
        }
        at += line.len();
    }
    places
}

/// Returns the offsets of the second `!` of `!handle!suffix`. To Envoy a tag means something only
/// where it is
/// `!` or `!ignore`.
fn handles(text: &str) -> Vec<usize> {
    let in_handle = |b: &u8| b.is_ascii_alphanumeric() || *b == b'-';
    let bytes = text.as_bytes();
    let second = |(at, _)| {
        let is_first = at == 0 || !in_handle(&bytes[at - 1]) && bytes[at - 1] != b'!';
        let handle = &bytes[at + 1..];
        let len = handle.iter().take_while(|b| in_handle(b)).count();
        let is_one = is_first && len > 0 && handle.get(len) == Some(&b'!');
        let has_suffix = handle
            .get(len + 1)
            .is_some_and(|b| !b.is_ascii_whitespace());
        (is_one && has_suffix).then_some(at + 1 + len)
    };
    text.match_indices('!').filter_map(second).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_is_usual_or_not_wherever_and_beside_whatever_it_stands() {
        for byte in 0..=u8::MAX {
            let want = matches!(byte, b' '..=b'~' | b'\t' | b'\n' | b'\r');
            for (at, beside) in (0..17).flat_map(|at| [b' ', b'~', b'\n'].map(|b| (at, b))) {
                let mut text = [beside; 17];
                text[at] = byte;
                assert_eq!(
                    is_usual(&text),
                    want,
                    "{byte:#x} at {at}, beside {beside:#x}"
                );
            }
        }
        assert!(is_usual(b"") && !is_usual(&[0xff; 16]));
    }
}
