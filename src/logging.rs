//! Log lines on stderr. Owns: their format and level, and that a lasting state is reported once. A
//! message is a constant; what varies is in its fields, and an event is one line whatever they
//! hold.
//!
//! A message reads `<what happened>; <what crossover does now>`. A field's key names its unit
//! (`latency_us`), and one thing has one key: `error` is why something failed, `request` what was
//! asked of the API server, `lasted_s` and `lasts_s` are how long a state lasted or has lasted so
//! far.

use std::fmt;
use std::io::{self, Write};
use std::time::Instant;

use env_logger::fmt::Formatter;
use log::kv::{self, Key, Value, VisitSource};
use log::{Level, LevelFilter, Record};

/// The subject of a warning: a field's key, and its value.
pub type Subject<'a> = (&'static str, &'a dyn fmt::Display);

/// Reports one state that can go wrong: each warning about it once, and once that it is over.
#[derive(Debug, Default)]
pub struct WarnOnce {
    /// The warning given last, until the state is over.
    given: Option<Given>,
}

#[derive(Debug)]
struct Given {
    message: &'static str,
    reason: String,
    /// The time at which the state began, whatever has been said about it since.
    since: Instant,
}

impl WarnOnce {
    /// Warns, unless it has just been said with the same words.
    pub fn warn(
        &mut self,
        (key, subject): Subject<'_>,
        message: &'static str,
        error: &str,
        now: Instant,
    ) {
        if self.is_news(message, error, now) {
            let fields = [
                (key, Value::from_dyn_display(subject)),
                ("error", error.into()),
            ];
            event(Level::Warn, message, &fields);
        }
    }

    /// Gives the all-clear with how long the state lasted, if there was a warning about it.
    pub fn clear(&mut self, (key, subject): Subject<'_>, message: &'static str, now: Instant) {
        if let Some(seconds) = self.ended(now) {
            let fields = [
                (key, Value::from_dyn_display(subject)),
                ("lasted_s", seconds.into()),
            ];
            event(Level::Info, message, &fields);
        }
    }

    /// Takes note of a warning, for a caller that logs it with fields of its own. Returns true if
    /// it is not the one that was given last: another message is news even if its reason is the
    /// same.
    #[must_use]
    pub fn is_news(&mut self, message: &'static str, reason: &str, now: Instant) -> bool {
        let given = self.given.as_ref();
        let is_news = given.is_none_or(|last| last.message != message || last.reason != reason);
        if is_news {
            self.given = Some(Given {
                message,
                reason: reason.to_owned(),
                since: given.map_or(now, |last| last.since),
            });
        }
        is_news
    }

    /// Ends the state. Returns for how many seconds it lasted, if there was a warning about it.
    #[must_use]
    pub fn ended(&mut self, now: Instant) -> Option<u64> {
        let since = self.given.take()?.since;
        Some(now.saturating_duration_since(since).as_secs())
    }
}

/// Logs an event whose message or keys are values, which the macros cannot take.
pub fn event(level: Level, message: &'static str, fields: &[(&str, Value)]) {
    if level <= log::max_level() {
        let mut record = Record::builder();
        record.level(level).target("crossover").key_values(&fields);
        log::logger().log(&record.args(format_args!("{message}")).build());
    }
}

/// Sends what is logged from now on to stderr, one event a line.
pub fn install(json: bool) {
    let mut builder = env_logger::Builder::new();
    builder
        .filter_level(LevelFilter::Info)
        .parse_env("RUST_LOG");
    // The libraries that make requests would print them with their headers.
    for library in ["ureq", "ureq_proto", "rustls"] {
        builder.filter_module(library, LevelFilter::Off);
    }
    builder.format(if json { write_json } else { write_text });
    // This fails only if there is a logger already, which then serves.
    let _ = builder.try_init();
}

fn write_text(out: &mut Formatter, record: &Record) -> io::Result<()> {
    let time = out.timestamp_millis();
    write!(
        out,
        "{time} {:5} {}",
        record.level(),
        OneLine(record.args())
    )?;
    let _ = record.key_values().visit(&mut TextFields(&mut *out));
    writeln!(out)
}

fn write_json(out: &mut Formatter, record: &Record) -> io::Result<()> {
    let time = out.timestamp_millis();
    let level = record.level().as_str().to_ascii_lowercase();
    write!(
        out,
        "{{\"time\":\"{time}\",\"level\":\"{level}\",\"message\":"
    )?;
    serde_json::to_writer(&mut *out, &record.args().to_string())?;
    let _ = record.key_values().visit(&mut JsonFields(&mut *out));
    writeln!(out, "}}")
}

struct TextFields<W>(W);

impl<W: Write> VisitSource<'_> for TextFields<W> {
    fn visit_pair(&mut self, key: Key<'_>, value: Value<'_>) -> Result<(), kv::Error> {
        let text = value.to_string();
        if text.is_empty() || text.contains(|c: char| c == '"' || c.is_whitespace()) {
            write!(self.0, " {key}={text:?}")?;
        } else {
            write!(self.0, " {key}={}", OneLine(&text))?;
        }
        Ok(())
    }
}

struct JsonFields<W>(W);

impl<W: Write> VisitSource<'_> for JsonFields<W> {
    fn visit_pair(&mut self, key: Key<'_>, value: Value<'_>) -> Result<(), kv::Error> {
        write!(self.0, ",\"{key}\":")?;
        if let Some(number) = value.to_u64() {
            write!(self.0, "{number}")?;
        } else if let Some(number) = value.to_i64() {
            write!(self.0, "{number}")?;
        } else if let Some(yes) = value.to_bool() {
            write!(self.0, "{yes}")?;
        } else {
            let text = value.to_string();
            serde_json::to_writer(&mut self.0, &text).map_err(io::Error::from)?;
        }
        Ok(())
    }
}

/// Escapes control characters, so that a value can neither forge a line nor steer a terminal.
struct OneLine<T>(T);

impl<T: fmt::Display> fmt::Display for OneLine<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.to_string().chars() {
            if c.is_control() {
                write!(f, "{}", c.escape_default())?
            } else {
                fmt::Write::write_char(f, c)?
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const DENIED: &str = "the API server denies a request; retrying";
    const INVALID: &str = "a ConfigMap is invalid; keeping the published files";

    #[test]
    fn a_warning_is_given_once_until_it_says_something_else() {
        let (mut once, now) = (WarnOnce::default(), Instant::now());
        assert!(once.is_news(DENIED, "403", now));
        assert!(!once.is_news(DENIED, "403", now));
        assert!(once.is_news(DENIED, "401", now), "another reason");
        assert!(once.is_news(INVALID, "401", now), "another message");
        assert!(once.is_news(DENIED, "401", now), "the first one again");
        assert!(!once.is_news(DENIED, "401", now));
    }

    #[test]
    fn an_all_clear_is_given_once_with_how_long_the_whole_state_lasted() {
        let (mut once, begun) = (WarnOnce::default(), Instant::now());
        let after = |seconds| begun + Duration::from_secs(seconds);
        assert_eq!(once.ended(begun), None, "nothing was amiss");
        assert!(once.is_news(DENIED, "403", begun));
        assert!(once.is_news(INVALID, "a.yaml", after(60)));
        assert_eq!(once.ended(after(90)), Some(90), "both are one state");
        assert_eq!(once.ended(after(91)), None, "it was given");
        assert!(once.is_news(INVALID, "a.yaml", after(100)), "a new state");
        assert_eq!(once.ended(after(105)), Some(5));
    }

    #[track_caller]
    fn check(value: Value, text: &str, json: &str) {
        let (mut plain, mut object) = (Vec::new(), Vec::new());
        let key = || Key::from_str("k");
        TextFields(&mut plain)
            .visit_pair(key(), value.clone())
            .unwrap();
        JsonFields(&mut object).visit_pair(key(), value).unwrap();
        assert_eq!(String::from_utf8(plain).unwrap(), format!(" k={text}"));
        assert_eq!(String::from_utf8(object).unwrap(), format!(",\"k\":{json}"));
    }

    #[test]
    fn numbers_are_numbers_and_text_is_text() {
        check(
            Value::from(u64::MAX),
            "18446744073709551615",
            "18446744073709551615",
        );
        check(Value::from(412u128), "412", "412");
        check(Value::from(-3i64), "-3", "-3");
        check(Value::from(true), "true", "true");
        check(Value::from("3897"), "3897", "\"3897\"");
        check(Value::from_dyn_display(&"3897"), "3897", "\"3897\"");
    }

    #[test]
    fn a_field_stays_within_its_line() {
        check(Value::from(""), "\"\"", "\"\"");
        check(Value::from("a b"), "\"a b\"", "\"a b\"");
        check(Value::from("a\nb"), r#""a\nb""#, r#""a\nb""#);
        check(Value::from("a\u{1b}b"), r"a\u{1b}b", r#""a\u001bb""#);
    }
}
