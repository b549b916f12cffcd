//! Go's flag syntax: `-x`, `--x`, `-x=v`, `-x v`, up to a `--`. Owns: how flags and the command
//! are told apart, and that of a flag given twice the last one counts.

use std::ffi::{CString, OsString};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use pico_args::Arguments;

use super::flags::{self, Flag};
use crate::error::Error;

/// A command line, taken apart.
pub struct Args {
    /// True if help is asked for; nothing after that was read.
    pub help: bool,
    /// The flags that are left, as pairs of a name and a value.
    pairs: Arguments,
    /// The command after `--`, if there is one.
    pub command: Option<Vec<CString>>,
}

impl Args {
    /// Takes a command line apart (without the program's name).
    pub fn read(args: impl IntoIterator<Item = OsString>) -> Result<Args, Error> {
        let mut args = args.into_iter();
        let (mut pairs, mut help, mut command) = (Vec::new(), false, None);
        while let Some(arg) = args.next() {
            if arg == "--" {
                let word = |word: OsString| CString::new(word.into_vec()).ok();
                command = Some(args.by_ref().filter_map(word).collect());
                break;
            }
            match read_flag(arg, &mut args)? {
                Some((flag, value)) => pairs.extend([flag.name.into(), value.into()]),
                None => {
                    help = true;
                    break;
                }
            }
        }
        let pairs = Arguments::from_vec(pairs);
        Ok(Args {
            help,
            pairs,
            command,
        })
    }

    /// Takes every value of a flag, in order.
    pub fn all(&mut self, flag: &Flag) -> Vec<String> {
        // Every pair is complete and UTF-8, so nothing can fail here.
        self.pairs.values_from_str(flag.name).unwrap_or_default()
    }

    /// Takes the last value of a flag.
    pub fn given(&mut self, flag: &Flag) -> Option<String> {
        self.all(flag).pop()
    }

    /// Takes the last value of a flag, or else its default.
    pub fn value(&mut self, flag: &Flag) -> String {
        let given = self.given(flag);
        given.unwrap_or_else(|| flag.default.unwrap_or_default().to_owned())
    }

    /// Takes every value of a flag, in order, or else its default.
    pub fn all_or_default(&mut self, flag: &Flag) -> Vec<String> {
        let given = self.all(flag);
        match given.is_empty() {
            true => vec![flag.default.unwrap_or_default().to_owned()],
            false => given,
        }
    }

    /// Takes a switch.
    pub fn switch(&mut self, flag: &Flag) -> bool {
        self.value(flag) == "true"
    }

    /// Takes a path. An empty one means the default, as in the Go program.
    pub fn path(&mut self, flag: &Flag) -> Option<PathBuf> {
        let given = self.given(flag).filter(|text| !text.is_empty());
        given.map(PathBuf::from)
    }
}

/// Reads one flag, and its value from `rest` where it is an argument of its own. Returns `None` if
/// it asks for help.
fn read_flag(
    arg: OsString,
    rest: &mut impl Iterator<Item = OsString>,
) -> Result<Option<(&'static Flag, String)>, Error> {
    let usage = |what: String| Err(Error::Usage(what));
    let Some(arg) = arg.to_str() else {
        return usage(format!("argument is not valid UTF-8: {arg:?}"));
    };
    let dashed = arg.strip_prefix("--").or_else(|| arg.strip_prefix('-'));
    let Some(body) = dashed.filter(|body| !body.is_empty()) else {
        return usage(format!("unexpected argument: {arg:?}"));
    };
    let (name, value) = match body.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (body, None),
    };
    if matches!(name, "h" | "help") {
        return Ok(None);
    }
    let Some(flag) = flags::find(name) else {
        let given = format!("-{name}");
        return usage(format!("flag provided but not defined: {given:?}"));
    };
    let value = match (flag.value, value) {
        (None, None) => "true".to_owned(),
        (None, Some(value)) => boolean(flag, &value)?.to_string(),
        (Some(_), Some(value)) => value,
        (Some(_), None) => match rest.next().map(OsString::into_string) {
            Some(Ok(value)) => value,
            _ => return usage(format!("flag needs an argument: {flag}")),
        },
    };
    if value.starts_with("--") {
        // Almost surely a forgotten value; pico-args would take it for a flag.
        return usage(format!("flag needs an argument: {flag} (got {value:?})"));
    }
    Ok(Some((flag, value)))
}

/// Reads a switch's value as Go's `strconv.ParseBool` does.
fn boolean(flag: &Flag, value: &str) -> Result<bool, Error> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(invalid(flag, value, "must be true or false")),
    }
}

/// Returns the error for a flag's value.
pub fn invalid(flag: &Flag, value: &str, why: &str) -> Error {
    Error::Usage(format!("invalid value {value:?} for flag {flag}: {why}"))
}
