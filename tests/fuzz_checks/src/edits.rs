//! A ConfigMap's text: what is said of it, and what weights make of it.

use granit_parser::{Event, Parser};
use serde::Deserialize;

use super::oracle::DOMAIN;
use super::{FileName, HostWeights, SECRET, compare, merge, name, usual_splits};
use crossover::testing::validate::{self, Fault, Verdict};
use crossover::testing::{TrafficSplitSpec, resolve_conflicts, traffic_split};

#[derive(Deserialize)]
struct Object {
    metadata: Metadata,
    spec: TrafficSplitSpec,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
}

/// The names that a text may have: Envoy reads it by its name. The first stands for unnamed texts.
pub const NAMES: [&str; 8] = [
    "a.yaml",
    "a.json",
    "a.conf",
    "a",
    "a.YAML",
    "a.yml",
    "a.JSON",
    "a.pb_text",
];

/// Checks a text. A first byte that no text begins with is the number of its name; then its first
/// line may be a JSON list of the TrafficSplits to be merged into the rest.
pub fn check(bytes: &[u8]) {
    let (file, bytes) = match bytes {
        [number, rest @ ..] if usize::from(*number) < NAMES.len() => {
            (NAMES[usize::from(*number)], rest)
        }
        _ => (NAMES[0], bytes),
    };
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(0);
    let (splits, text) = match serde_json::from_slice::<Vec<Object>>(&bytes[..end]) {
        Ok(objects) => (usable(&objects), &bytes[end + 1..]),
        Err(_) => (usual_splits(), bytes),
    };
    let before = verdict(file, text);
    let Ok(text) = std::str::from_utf8(text) else {
        return;
    };
    let (splits, _) = resolve_conflicts(&splits.iter().collect::<Vec<_>>(), DOMAIN);
    check_merge(file, text, &splits, &before);
}

fn usable(objects: &[Object]) -> Vec<HostWeights> {
    let split =
        |object: &Object| traffic_split::to_weights(name(&object.metadata.name), &object.spec).ok();
    objects.iter().filter_map(split).collect()
}

/// Returns the verdict on a text, which is the same each time and never cites a value.
fn verdict(file: &str, text: &[u8]) -> Verdict {
    let file = FileName::new(file).unwrap();
    let check = || validate::check(&file, text);
    let verdict = check();
    assert_eq!(verdict, check());
    match &verdict {
        Verdict::Valid => {
            let fault = validate::cross_check(&file, text);
            fault.iter().for_each(silent);
        }
        Verdict::Suspect(fault) | Verdict::Foreign(fault) | Verdict::Invalid(fault) => {
            silent(fault);
        }
    }
    verdict
}

fn silent(fault: &Fault) {
    assert!(!fault.to_string().contains(SECRET), "{fault}");
}

fn is_bad(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Invalid(_))
}

/// Merges into a text, and holds the result against the oracle, the bytes and the verdict.
fn check_merge(file: &str, text: &str, splits: &[&HostWeights], before: &Verdict) {
    let name = FileName::new(file).unwrap();
    if is_bad(before) {
        // It is never merged; and the oracle's time is quadratic in the depth.
        let _ = merge(&name, text, splits, DOMAIN);
        return;
    }
    if compare(file, text, splits).is_err() {
        return;
    }
    let merged = merge(&name, text, splits, DOMAIN).unwrap();
    let Some(found) = merged.text else { return };
    assert_ne!(text, found, "an unchanged text was copied");
    untouched(text, &found);
    let after = verdict(file, found.as_bytes());
    assert_eq!(is_bad(before), is_bad(&after), "{text}\n{found}");
}

/// Keys whose values are numbers of ours.
const KEYS: [&str; 4] = ["weight", "total_weight", "totalWeight", "value"];

/// Every byte of `old` stands in `new`, in order, but for the values of weights; what `new` has
/// beyond it are weights, and what sets them apart.
fn untouched(old: &str, new: &str) {
    let (Some(old), Some(new)) = (bones(old), bones(new)) else {
        return;
    };
    let mut left = old.chars().peekable();
    let is_new = |c: &char| left.next_if_eq(c).is_none();
    let mut extra: Vec<char> = new.chars().filter(is_new).collect();
    assert_eq!(left.next(), None, "something is lost:\n{old}\n{new}");
    // Where an insertion begins cannot be told from what follows it: so in no order.
    extra.retain(|c| !" \t\r\n,\"'".contains(*c));
    extra.sort_unstable();
    let mut want: Vec<char> = "weight:".repeat(extra.len() / 7).chars().collect();
    want.sort_unstable();
    assert_eq!(extra, want, "something came in:\n{old}\n{new}");
}

/// A text without the values of weights' keys, and without any digit; `None` where the parser wants
/// to be told more about it.
fn bones(text: &str) -> Option<String> {
    let (mut out, mut done, mut after_key) = (String::new(), 0, false);
    for event in Parser::new_from_str(text) {
        let (event, span) = event.ok()?;
        if let (Event::Scalar(..), true) = (&event, after_key) {
            out += &text[done..span.start.byte_offset()?];
            done = span.end.byte_offset()?;
        }
        after_key = matches!(&event, Event::Scalar(value, ..) if KEYS.contains(&value.as_ref()));
        if matches!(event, Event::DocumentEnd) {
            break;
        }
    }
    out += &text[done..];
    out.retain(|c| !c.is_ascii_digit());
    Some(out)
}
