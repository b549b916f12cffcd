//! The `crossover` program: arguments in, exit code out.
#![forbid(unsafe_code)]

use std::io::{self, Write};
use std::process::ExitCode;

use crossover::args::{self, Command};
use crossover::error::{Chain, Error};
use crossover::signal::Signals;
use crossover::{logging, run};

fn main() -> ExitCode {
    // As PID 1 an abort cannot end us: the kernel drops the signal.
    std::panic::set_hook(Box::new(|panic| {
        let _ = writeln!(io::stderr(), "crossover: a bug ends the program: {panic}");
        std::process::exit(1);
    }));
    let args = std::env::args_os().skip(1);
    let command = args::parse(args, |name| std::env::var(name).ok());
    let printed = match command {
        Ok(Command::Run(config)) => {
            logging::install(config.log_json);
            let result = Signals::install().and_then(|signals| run::run(*config, signals));
            return exit_code(result);
        }
        Ok(Command::Probe(probe, dir)) => {
            let Err(reason) = crossover::probe::ask(probe, &dir) else {
                return ExitCode::SUCCESS;
            };
            let _ = writeln!(io::stderr(), "crossover: {reason}");
            return ExitCode::FAILURE;
        }
        Ok(Command::Help) => io::stdout().write_all(args::usage().as_bytes()),
        Ok(Command::Version) => writeln!(io::stdout(), "crossover {}", env!("CARGO_PKG_VERSION")),
        Err(error) => {
            let _ = write!(io::stderr(), "crossover: {error}\n\n{}", args::usage());
            return ExitCode::from(error.exit_code());
        }
    };
    if printed.is_ok() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Errors that end the program are told here, and nowhere else.
fn exit_code(result: Result<(), Error>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error!("{}", Chain(&error));
            ExitCode::from(error.exit_code())
        }
    }
}
