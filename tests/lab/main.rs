//! The lab: the kit at work outside the tests, to be tried and looked at.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // The kit fails by a panic.

mod bench;
mod demo;
mod order;
mod refused;
mod replaced;
mod screen;
mod serve;
mod soak;
mod stage;
mod stop;
mod table;
mod timing;
mod verdict;
mod writer;

use pico_args::Arguments;
use std::error::Error;
use std::process::ExitCode;

const USAGE: &str = "\
usage: lab COMMAND

  bench [--baseline PROGRAM] [--json FILE] [--quick] [--order]
                                     measure the release binary, the floors and another crossover
                                     side by side; --quick: only that it can be done; --order: only
                                     the requests that fail while clusters are replaced
  demo [--keep] [--step-ms N]        show a real Envoy shift traffic; with --keep go on until
                                     Ctrl-C; N: how long each step lasts
  soak [-seed N] [-changes N] [-minutes N] [-requests N] [-only PART]
                                     many changes, faults, and much time; N minutes: of each rate;
                                     N requests: through an Envoy whose clusters are replaced, and
                                     2 N where it also refuses some; PART: storm, rate, slow, order
                                     or verdict
  serve [--port N] [--tls-dir DIR]   run the in-memory API server until Ctrl-C; with --tls-dir as
                                     https, its authority in DIR/ca.crt
";

fn main() -> ExitCode {
    match run(Arguments::from_env()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("lab: {error}\n\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn run(mut arguments: Arguments) -> Result<ExitCode, Box<dyn Error>> {
    match arguments.subcommand()?.as_deref() {
        Some("bench") => bench::run(arguments),
        Some("demo") => demo::run(arguments),
        Some("soak") => soak::run(arguments),
        Some("serve") => serve::run(arguments).map(|()| ExitCode::SUCCESS),
        Some(other) => Err(format!("unknown command {other}").into()),
        None => Err("a command is missing".into()),
    }
}
