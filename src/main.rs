//! The `crossover` program: arguments in, exit code out.
#![forbid(unsafe_code)]

use std::io::{self, Write};
use std::process::ExitCode;

use crossover::{Chain, Command, Error, Signals};
use no_backtrace as _;

fn main() -> ExitCode {
    set_panic_hook(None);
    let args = std::env::args_os().skip(1);
    let command = crossover::parse(args, |name| std::env::var(name).ok());
    let printed = match command {
        Ok(Command::Run(config)) => {
            crossover::install_logger(config.log_json);
            let has_child = config.wrapped.is_some();
            let signals = match Signals::install(has_child, config.lingers) {
                Ok(signals) => signals,
                Err(error) => return ExitCode::from(fatal(&error)),
            };
            set_panic_hook(Some(signals.clone()));
            let code = crossover::run(*config, signals.clone()).unwrap_or_else(|error| {
                let code = fatal(&error);
                signals.wait_for_child().unwrap_or(code)
            });
            return ExitCode::from(code);
        }
        Ok(Command::Probe(probe, dir)) => {
            let (code, said) = match crossover::ask_probe(probe, &dir) {
                Ok(remark) => (ExitCode::SUCCESS, remark),
                Err(reason) => (ExitCode::FAILURE, Some(reason)),
            };
            if let Some(said) = said {
                let _ = writeln!(io::stderr(), "crossover: {said}");
            }
            return code;
        }
        Ok(Command::Help) => io::stdout().write_all(crossover::usage().as_bytes()),
        Ok(Command::Version) => writeln!(io::stdout(), "crossover {}", env!("CARGO_PKG_VERSION")),
        Err(error) => {
            let _ = write!(io::stderr(), "crossover: {error}\n\n{}", crossover::usage());
            return ExitCode::from(error.exit_code());
        }
    };
    if printed.is_ok() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Logs an error that ends the program, or all of it but the child, and returns its exit code.
fn fatal(error: &Error) -> u8 {
    log::error!("{}", Chain(error));
    error.exit_code()
}

/// Prints a panic and exits: as PID 1 an abort cannot end us, since the kernel drops the signal.
/// A child that runs goes on to its own end first.
fn set_panic_hook(signals: Option<Signals>) {
    std::panic::set_hook(Box::new(move |panic| {
        let _ = writeln!(
            io::stderr(),
            "crossover: internal error (please report): {panic}"
        );
        let code = signals.as_ref().and_then(Signals::wait_for_child);
        std::process::exit(code.unwrap_or(1).into());
    }));
}
