//! A backend's weight. Owns: every way to write one, from v1alpha1's Quantities to v1alpha4's
//! numbers, as thousandths. Must not: know what the weight is for.

use std::fmt;
use std::str::FromStr;

use serde::de::{self, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// A weight from 0 up, in thousandths, rounded up; what is too large for 64 bits stays at their
/// limit, far above anything that Envoy takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Weight {
    thousandths: u64,
}

/// The error of a text that is neither a number from 0 up nor a Quantity that stands for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoWeight;

impl fmt::Display for NoWeight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no number from 0 up")
    }
}

impl Weight {
    /// Returns the weight times 1000.
    pub fn thousandths(self) -> u64 {
        self.thousandths
    }

    /// Returns whether the weight has a fraction: Envoy takes whole numbers only.
    pub fn has_fraction(self) -> bool {
        !self.thousandths.is_multiple_of(1000)
    }
}

/// The limit of a weight. It is a whole number, so that a weight that is too large does not seem to
/// have a fraction.
const THOUSANDTHS_MAX: u64 = u64::MAX / 1000 * 1000;

/// The number of digits that are kept: further ones only make the weight too large, or round it up.
const DIGITS_KEPT: u32 = 19;

impl FromStr for Weight {
    type Err = NoWeight;

    /// Reads a Kubernetes Quantity: a signed decimal, then `n u m k M G T P E`, `Ki` to `Ei`, or a
    /// decimal exponent.
    /// <https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/>
    fn from_str(text: &str) -> Result<Weight, NoWeight> {
        let (negative, unsigned) = match text.as_bytes() {
            [b'-', ..] => (true, &text[1..]),
            [b'+', ..] => (false, &text[1..]),
            _ => (false, text),
        };
        let end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.');
        let (number, suffix) = unsigned.split_at(end.unwrap_or(unsigned.len()));
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.len() + fraction.len() == 0 || fraction.contains('.') {
            return Err(NoWeight);
        }
        let (ten, two) = scale(suffix)?;

        // The weight is (digits and a bit) * 10^exponent * 2^two, in thousandths.
        let (mut digits, mut kept, mut a_bit) = (0_u128, 0, false);
        let mut exponent = ten.saturating_add(3);
        let pairs = whole.bytes().map(|d| (d, 0));
        for (digit, place) in pairs.chain(fraction.bytes().map(|d| (d, 1))) {
            let digit = u128::from(digit - b'0');
            if kept < DIGITS_KEPT {
                digits = digits * 10 + digit;
                kept += u32::from(digits > 0);
                exponent = exponent.saturating_sub(place);
            } else {
                a_bit |= digit > 0;
                exponent = exponent.saturating_add(1 - place);
            }
        }
        if digits == 0 {
            return Ok(Weight::default());
        }
        if negative {
            return Err(NoWeight);
        }
        let thousandths = scaled(digits << two, exponent, a_bit);
        let thousandths = thousandths.min(THOUSANDTHS_MAX.into());
        Ok(Weight {
            thousandths: u64::try_from(thousandths).unwrap_or(THOUSANDTHS_MAX),
        })
    }
}

/// Returns a suffix as powers of ten and of two.
fn scale(suffix: &str) -> Result<(i32, u32), NoWeight> {
    Ok(match suffix {
        "" => (0, 0),
        "n" => (-9, 0),
        "u" => (-6, 0),
        "m" => (-3, 0),
        "k" => (3, 0),
        "M" => (6, 0),
        "G" => (9, 0),
        "T" => (12, 0),
        "P" => (15, 0),
        "E" => (18, 0),
        "Ki" => (0, 10),
        "Mi" => (0, 20),
        "Gi" => (0, 30),
        "Ti" => (0, 40),
        "Pi" => (0, 50),
        "Ei" => (0, 60),
        _ => {
            let exponent = suffix.strip_prefix(['e', 'E']).ok_or(NoWeight)?;
            (exponent.parse().map_err(|_| NoWeight)?, 0)
        }
    })
}

/// Returns `digits * 10^exponent`, rounded up, but no more than the limit.
fn scaled(digits: u128, exponent: i32, a_bit: bool) -> u128 {
    let power = 10_u128.checked_pow(exponent.unsigned_abs());
    match (power, exponent < 0) {
        (Some(power), false) => digits.saturating_mul(power).saturating_add(a_bit.into()),
        (None, false) => u128::MAX,
        (Some(power), true) => {
            digits.div_ceil(power) + u128::from(a_bit && digits.is_multiple_of(power))
        }
        (None, true) => 1,
    }
}

/// Returns the weight of a backend without one, for serde: 0, in all versions. It is the field's
/// zero value, in v1alpha1 that of a Quantity, and Flagger before 1.12 leaves out a 0.
pub fn absent() -> Option<Weight> {
    Some(Weight::default())
}

/// Reads a weight, for serde, and returns `None` for anything else. Never fails for what JSON can
/// hold, so that a split with a bad weight still has a name to warn about.
pub(crate) fn written<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Weight>, D::Error> {
    deserializer.deserialize_any(WeightVisitor)
}

struct WeightVisitor;

impl<'de> Visitor<'de> for WeightVisitor {
    type Value = Option<Weight>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a weight")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Option<Weight>, E> {
        Ok(text.parse().ok())
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Option<Weight>, E> {
        Ok(Some(Weight {
            thousandths: number.saturating_mul(1000).min(THOUSANDTHS_MAX),
        }))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Option<Weight>, E> {
        u64::try_from(number).map_or(Ok(None), |number| self.visit_u64(number))
    }

    /// Reads the number by its shortest decimal: 16.1 is meant, not the binary fraction just above
    /// it.
    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Option<Weight>, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<Option<Weight>, E> {
        Ok(None)
    }

    fn visit_unit<E: de::Error>(self) -> Result<Option<Weight>, E> {
        Ok(absent())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Option<Weight>, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(None)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Option<Weight>, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, want: Option<u64>) {
        let found = text.parse::<Weight>().ok().map(Weight::thousandths);
        assert_eq!(found, want, "{text}");
    }

    #[test]
    fn every_form_of_a_quantity_is_read_and_rounded_up() {
        for (text, want) in [
            ("0", 0),
            ("1", 1000),
            ("+1", 1000),
            ("1.", 1000),
            (".5", 500),
            ("0.5", 500),
            ("-0", 0),
            ("-0.000m", 0),
            ("1n", 1),
            ("1000000n", 1),
            ("1000001n", 2),
            ("1u", 1),
            ("1500u", 2),
            ("10m", 10),
            ("1500m", 1500),
            ("1500.0001m", 1501),
            ("1k", 1_000_000),
            ("1M", 1_000_000_000),
            ("1G", 1_000_000_000_000),
            ("1T", 1_000_000_000_000_000),
            ("1P", 1_000_000_000_000_000_000),
            ("1E", THOUSANDTHS_MAX),
            ("0.001E", 1_000_000_000_000_000_000),
            ("1Ki", 1_024_000),
            ("1.5Ki", 1_536_000),
            ("0.0001Ki", 103),
            ("1Mi", 1_048_576_000),
            ("1Gi", 1_073_741_824_000),
            ("1Ti", 1_099_511_627_776_000),
            ("1Pi", 1_125_899_906_842_624_000),
            ("1Ei", THOUSANDTHS_MAX),
            ("1e3", 1_000_000),
            ("1E3", 1_000_000),
            ("1e+3", 1_000_000),
            ("1e-3", 1),
            ("1e-4", 1),
            ("12.345e1", 123_450),
            ("0e999999999", 0),
            ("1e999999999", THOUSANDTHS_MAX),
            ("1e-999999999", 1),
            ("0.0000000000000000000000000000000001", 1),
            ("1.0000000000000000000000000000000001", 1001),
            ("1.0000000000000000000000000000000000", 1000),
            ("99999999999999999999999999999999999999999", THOUSANDTHS_MAX),
            ("000000000000000000000000000000000000000001", 1000),
            ("16.1", 16_100),
            ("33.3", 33_300),
        ] {
            check(text, Some(want));
        }
    }

    #[test]
    fn a_weight_is_a_number_from_0_up() {
        for text in [
            "",
            "-",
            "+",
            ".",
            "1.2.3",
            "-1",
            "-5m",
            "-1e-9",
            "K",
            "5K",
            "5ki",
            "5mi",
            "1e",
            "1e1.5",
            "1e99999999999",
            "1 ",
            " 1",
            "1,5",
            "0x10",
            "NaN",
            "inf",
            "5%",
            "--1",
            "1KiB",
            "\u{661}",
        ] {
            check(text, None);
        }
    }
}
