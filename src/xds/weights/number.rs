//! The text of a weight. Owns: which number that is to Envoy. Must not: know where it stands.

/// Returns a weight as Envoy reads it, where that is a whole number: yaml-cpp knows hexadecimal and
/// octal numbers where there are no quotes, or a tag; protobuf, whose turn is next, decimal
/// fractions too.
pub(super) fn number_in(value: &str, by_yaml: bool) -> Option<u32> {
    if let Some(hex) = value.strip_prefix("0x").or(value.strip_prefix("0X")) {
        return u32::from_str_radix(hex, 16).ok();
    }
    if by_yaml
        && value.len() > 1
        && let Some(octal) = value.strip_prefix('0')
        && let Ok(number) = u32::from_str_radix(octal, 8)
    {
        return Some(number);
    }
    let number: f64 = value.parse().ok()?;
    let whole = number as u32;
    (f64::from(whole) == number).then_some(whole)
}

/// Returns a weight that stands there just as we would write it.
pub(super) fn as_written(digits: &str) -> Option<u32> {
    let ours = digits == "0" || digits.starts_with(|c: char| ('1'..='9').contains(&c));
    ours.then(|| digits.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::number_in;

    #[test]
    fn a_weight_is_read_as_envoy_reads_it() {
        for (text, quoted, plain) in [
            ("62", Some(62), Some(62)),
            ("062", Some(62), Some(50)),
            ("0x3e", Some(62), Some(62)),
            ("62.0", Some(62), Some(62)),
            ("6.2e1", Some(62), Some(62)),
            ("-0", Some(0), Some(0)),
            ("4294967295", Some(u32::MAX), Some(u32::MAX)),
        ] {
            assert_eq!(number_in(text, false), quoted, "{text:?}");
            assert_eq!(number_in(text, true), plain, "{text}");
        }
        for text in [
            "",
            "62.5",
            "-1",
            "4294967296",
            "1e400",
            "inf",
            "NaN",
            "1k",
            "6 2",
        ] {
            assert_eq!(number_in(text, true), None, "{text}");
        }
    }
}
