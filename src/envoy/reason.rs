//! Says why Envoy has refused a file, in words that may be logged. Owns: what of Envoy's own text
//! is left out. Pure.
//!
//! Envoy's messages hold whole resources, with private keys in them. So its text is taken word by
//! word as long as it is plain English or the name of a resource, and is cut before the first thing
//! that could be a value: a number, a path, anything in quotes that is not a name, what follows a
//! colon, a line's end.

use std::time::{Duration, SystemTime};

use serde_json::Value;

use super::verdict::Subscription;

/// The length of the longest answer that is read: one with a listener of 1,000 virtual hosts in it,
/// several times.
pub const MAX_DUMP: usize = 1 << 20;
/// The length of the longest reason.
const MAX_LENGTH: usize = 300;
/// The number of names that are listed.
const MAX_NAMES: usize = 5;

/// A question to Envoy about a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic {
    /// Its own text.
    Listeners,
    /// The names of those that it has now.
    Clusters,
    /// The names of those that it has now.
    Secrets,
}

impl Topic {
    /// Returns what to ask about the first of these that anything can be asked about.
    pub fn of(refused: &[Subscription]) -> Option<Topic> {
        refused.iter().find_map(|it| match it {
            Subscription::Listeners => Some(Topic::Listeners),
            Subscription::Clusters => Some(Topic::Clusters),
            Subscription::Secret(_) => Some(Topic::Secrets),
            Subscription::Routes(_) | Subscription::Endpoints(_) | Subscription::Runtime => None,
        })
    }

    /// Returns the request.
    pub fn path(self) -> &'static str {
        match self {
            Topic::Listeners => {
                "/config_dump?resource=dynamic_listeners&mask=name,error_state.details,\
                 error_state.last_update_attempt"
            }
            Topic::Clusters => {
                "/config_dump?resource=dynamic_active_clusters&mask=cluster.name,last_updated"
            }
            Topic::Secrets => "/config_dump?resource=dynamic_active_secrets&mask=name,last_updated",
        }
    }
}

/// Returns why something was refused since then, from the answer to a topic's request. `since` is
/// the time of a link or file that was written for it, which is by the same clock as Envoy's.
/// `names` are those of the resources in the files that were refused and have changed.
pub fn reason(topic: Topic, answer: &[u8], since: SystemTime, names: &[&str]) -> Option<String> {
    let dump: Value = serde_json::from_slice(answer).ok()?;
    let configs = dump.get("configs").and_then(Value::as_array)?;
    let since = timestamp(since);
    let is_new = |of: &Value, at: &str| {
        let at = text_of(of, at).map(|at| at.trim_end_matches('Z'));
        at.is_some_and(|at| at >= since.as_str())
    };
    if topic == Topic::Listeners {
        let states = configs
            .iter()
            .filter_map(|config| config.get("error_state"));
        let mut states = states.filter(|state| is_new(state, "last_update_attempt"));
        return states.find_map(|state| cut(text_of(state, "details")?, names));
    }
    let mut left: Vec<&str> = names.to_vec();
    for config in configs {
        if is_new(config, "last_updated") {
            let name = text_of(config.get("cluster").unwrap_or(config), "name");
            left.retain(|it| Some(*it) != name);
        }
    }
    (!left.is_empty()).then(|| not_taken(&left))
}

fn text_of<'v>(of: &'v Value, key: &str) -> Option<&'v str> {
    of.get(key).and_then(Value::as_str)
}

fn not_taken(names: &[&str]) -> String {
    let mut text = String::from("not taken: ");
    for (at, name) in names.iter().enumerate() {
        if at == MAX_NAMES || text.len() + name.len() > MAX_LENGTH - 20 {
            text += &format!(" and {} more", names.len() - at);
            break;
        }
        text += if at == 0 { "" } else { ", " };
        text += name;
    }
    text
}

/// Writes a time as Envoy does, without the `Z`, so that the texts compare as the times do.
pub fn timestamp(time: SystemTime) -> String {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    let since = since.unwrap_or(Duration::ZERO);
    let (seconds, millis) = (since.as_secs(), since.subsec_millis());
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Years begin in March here, so that the odd day is the last of one.
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3_600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}")
}

/// The words that Envoy writes after all of a resource and before the rule that it breaks.
const VALIDATION: &str = "Proto constraint validation failed (";
/// The texts with a colon that Envoy's own words follow.
const PREFIXES: [&str; 2] = ["route:", "error adding listener:"];
/// Words that a value follows.
const BEFORE_A_VALUE: [&str; 16] = [
    "address",
    "domain",
    "field",
    "from",
    "header",
    "host",
    "id",
    "key",
    "named",
    "parameter",
    "password",
    "path",
    "regex",
    "token",
    "type",
    "value",
];
/// Words that a resource's name follows, in quotes.
const BEFORE_A_NAME: [&str; 4] = ["cluster", "listener", "secret", "listener:"];
/// The system's own texts, which Envoy writes at the end.
const SYSTEM: [&str; 4] = [
    "Address already in use",
    "Cannot assign requested address",
    "No such file or directory",
    "Permission denied",
];

/// Returns what may be logged of Envoy's text, if that says anything.
fn cut(text: &str, names: &[&str]) -> Option<String> {
    let mut kept = match text.rfind(VALIDATION) {
        Some(at) => rules(&text[at + VALIDATION.len()..]),
        None => words(text.lines().next().unwrap_or_default(), names),
    };
    let mut system = SYSTEM.iter().filter(|system| text.ends_with(**system));
    if let Some(system) = system.next().filter(|system| !kept.ends_with(**system)) {
        kept = format!("{kept}: {system}");
    }
    if kept.len() > MAX_LENGTH {
        let end = kept.floor_char_boundary(MAX_LENGTH);
        kept.truncate(end);
    }
    kept.contains(' ').then_some(kept)
}

/// Keeps words as long as they are English or names.
fn words(line: &str, names: &[&str]) -> String {
    let mut kept = String::new();
    let mut before = "";
    for word in line.split(' ') {
        let bare = word
            .trim_start_matches('(')
            .trim_end_matches(['.', ',', ';', ')']);
        let is_named = match bare
            .strip_prefix('\'')
            .and_then(|rest| rest.strip_suffix('\''))
        {
            Some(name) => names.contains(&name) || BEFORE_A_NAME.contains(&before) && is_name(name),
            None => names.contains(&bare) || bare == "<inline>",
        };
        let is_prefix = bare.ends_with(':') && PREFIXES.contains(&&*format!("{kept}{bare}"));
        if BEFORE_A_VALUE.contains(&before) && !is_named
            || !is_named && !is_prefix && !is_word(bare)
        {
            break;
        }
        kept += word;
        kept.push(' ');
        before = bare;
    }
    kept.trim_end_matches([' ', ',', ';', ':']).into()
}

fn is_word(word: &str) -> bool {
    let rest = word
        .strip_prefix(|first: char| first.is_ascii_uppercase())
        .unwrap_or(word);
    let short = word.len() <= 4 && word.bytes().all(|byte| byte.is_ascii_uppercase());
    let plain = rest
        .bytes()
        .all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    !word.is_empty() && word.len() <= 20 && (plain || short)
}

fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:|/".contains(&byte);
    (1..=100).contains(&name.len()) && name.bytes().all(plain)
}

/// Keeps the rules that a resource breaks, which Envoy's own schema has: paths of fields, words and
/// numbers.
fn rules(text: &str) -> String {
    let mut kept = String::new();
    for word in text.split(' ') {
        let bare = word.trim_end_matches([')', ':', ',']);
        let is_number = bare.len() <= 10 && bare.bytes().all(|byte| byte.is_ascii_digit());
        if bare != "|" && !is_number && !is_word(bare) && !is_field(bare) {
            break;
        }
        kept += word.trim_end_matches(')');
        kept.push(' ');
    }
    kept.trim_end_matches([' ', ',', ':', '|']).into()
}

/// Returns whether this is the path of a field in the schema. The key of a map in it is a value.
fn is_field(word: &str) -> bool {
    let plain = |part: &str| {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._".contains(&byte);
        part.bytes().all(is_plain)
    };
    let mut parts = word.split('[');
    let first = parts.next().unwrap_or_default();
    let is_place = |part: &str| {
        let place = part.split_once(']');
        place.is_some_and(|(at, rest)| at.bytes().all(|b| b.is_ascii_digit()) && plain(rest))
    };
    first.contains("ValidationError.") && word.len() <= 100 && plain(first) && parts.all(is_place)
}

#[cfg(test)]
mod tests;
