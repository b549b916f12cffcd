//! The lab: the kit at work outside the tests, for hands and eyes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // The kit fails by a panic.

#[path = "../kit/mod.rs"]
mod kit;
mod serve;

use pico_args::Arguments;
use std::error::Error;
use std::process::ExitCode;

const USAGE: &str = "\
usage: lab COMMAND

  serve [--port N] [--tls-dir DIR]   run the in-memory API server until Ctrl-C; with --tls-dir as
                                     https, its authority in DIR/ca.crt
";

fn main() -> ExitCode {
    match run(Arguments::from_env()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lab: {error}\n\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn run(mut arguments: Arguments) -> Result<(), Box<dyn Error>> {
    match arguments.subcommand()?.as_deref() {
        Some("serve") => serve::run(arguments),
        Some(other) => Err(format!("unknown command {other}").into()),
        None => Err("a command is missing".into()),
    }
}
