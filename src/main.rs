//! The `crossover` program: arguments in, exit code out.
#![forbid(unsafe_code)]

use std::io::{self, Write};
use std::process::ExitCode;

use crossover::cli::{self, Command};
use crossover::error::{Chain, Error};
use crossover::process::signals::Signals;
use crossover::{app, logging};

fn main() -> ExitCode {
    on_panic(None);
    let args = std::env::args_os().skip(1);
    let command = cli::parse(args, |name| std::env::var(name).ok());
    let printed = match command {
        Ok(Command::Run(config)) => {
            logging::install(config.log_json);
            let commands = config.wrapped.is_some();
            let signals = match Signals::install(commands, config.lingers) {
                Ok(signals) => signals,
                Err(error) => return ExitCode::from(told(&error)),
            };
            on_panic(Some(signals.clone()));
            let code = app::run(*config, signals.clone()).unwrap_or_else(|error| {
                let code = told(&error);
                signals.wait_for_child().unwrap_or(code)
            });
            return ExitCode::from(code);
        }
        Ok(Command::Probe(probe, dir)) => {
            let Err(reason) = crossover::output::probe::ask(probe, &dir) else {
                return ExitCode::SUCCESS;
            };
            let _ = writeln!(io::stderr(), "crossover: {reason}");
            return ExitCode::FAILURE;
        }
        Ok(Command::Help) => io::stdout().write_all(cli::usage().as_bytes()),
        Ok(Command::Version) => writeln!(io::stdout(), "crossover {}", env!("CARGO_PKG_VERSION")),
        Err(error) => {
            let _ = write!(io::stderr(), "crossover: {error}\n\n{}", cli::usage());
            return ExitCode::from(error.exit_code());
        }
    };
    if printed.is_ok() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Errors that end the program, or all of it but the command, are told here, and nowhere else.
fn told(error: &Error) -> u8 {
    log::error!("{}", Chain(error));
    error.exit_code()
}

/// As PID 1 an abort cannot end us: the kernel drops the signal. And a command goes on.
fn on_panic(signals: Option<Signals>) {
    std::panic::set_hook(Box::new(move |panic| {
        let _ = writeln!(
            io::stderr(),
            "crossover: internal error (please report): {panic}"
        );
        let code = signals.as_ref().and_then(Signals::wait_for_child);
        std::process::exit(code.unwrap_or(1).into());
    }));
}
