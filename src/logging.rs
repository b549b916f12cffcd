//! Log lines on stderr. Owns: their format and level. A line is a constant message and its fields;
//! whatever a field holds, an event is one line.

use std::fmt;
use std::io::{self, Write};

use env_logger::fmt::Formatter;
use log::kv::{self, Key, Value, VisitSource};
use log::{LevelFilter, Record};

/// Sends what is logged from now on to stderr, one event a line.
pub fn install(json: bool) {
    let mut builder = env_logger::Builder::new();
    builder
        .filter_level(LevelFilter::Info)
        .parse_env("RUST_LOG");
    // The libraries below us would print requests and their headers.
    for library in ["ureq", "ureq_proto", "rustls"] {
        builder.filter_module(library, LevelFilter::Off);
    }
    builder.format(if json { write_json } else { write_text });
    // Fails only where a logger is installed already, which then does.
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
    let _ = record.key_values().visit(&mut Fields { out, json: false });
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
    let _ = record.key_values().visit(&mut Fields { out, json: true });
    writeln!(out, "}}")
}

struct Fields<'a> {
    out: &'a mut Formatter,
    json: bool,
}

impl VisitSource<'_> for Fields<'_> {
    fn visit_pair(&mut self, key: Key<'_>, value: Value<'_>) -> Result<(), kv::Error> {
        let text = value.to_string();
        if self.json {
            write!(self.out, ",\"{key}\":")?;
            match value.to_u64() {
                Some(number) => write!(self.out, "{number}")?,
                None => serde_json::to_writer(&mut *self.out, &text).map_err(io::Error::from)?,
            }
        } else if text.is_empty() || text.contains(|c: char| c == '"' || c.is_whitespace()) {
            write!(self.out, " {key}={text:?}")?;
        } else {
            write!(self.out, " {key}={}", OneLine(&text))?;
        }
        Ok(())
    }
}

/// Control characters escaped, so that nothing can forge a line or speak to a terminal.
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
