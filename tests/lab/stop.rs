//! Ctrl-C, and whatever else ends the lab from outside: noticed, so that everything that was
//! started is ended too.

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;
use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};
use testkit::STOPPED;

/// As a shell reports a program that SIGINT has ended.
const INTERRUPTED: u8 = 130;
/// A signal is noticed within this.
const NOTICED_WITHIN: Duration = Duration::from_millis(20);

/// Whether a signal has come.
#[derive(Clone, Copy)]
pub struct Stop;

impl Stop {
    /// Takes over the signals.
    pub fn install() -> io::Result<Stop> {
        for signal in [SIGHUP, SIGINT, SIGTERM] {
            flag::register(signal, STOPPED.clone())?;
        }
        Ok(Stop)
    }

    /// A signal has come.
    pub fn is_set(self) -> bool {
        STOPPED.load(Ordering::Relaxed)
    }

    /// Lets time pass, as long as no signal comes. True: none came.
    pub fn pause(self, time: Duration) -> bool {
        let end = Instant::now() + time;
        while !self.is_set() {
            match end.saturating_duration_since(Instant::now()) {
                Duration::ZERO => return true,
                left => thread::sleep(left.min(NOTICED_WITHIN)),
            }
        }
        false
    }

    /// Runs `work` to its end or a signal's. What it holds is dropped either way: processes are
    /// ended, files removed. The kit fails by a panic; one that the signal has caused (a terminal
    /// sends it to Envoy, too) is none.
    pub fn guard(self, work: impl FnOnce() -> ExitCode) -> ExitCode {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !self.is_set() {
                usual(info);
            }
        }));
        let result = panic::catch_unwind(AssertUnwindSafe(work));
        match result {
            Ok(code) => code,
            Err(_) if self.is_set() => ExitCode::from(INTERRUPTED),
            Err(_) => ExitCode::FAILURE,
        }
    }

    /// What to exit with after a signal.
    pub fn code(self) -> ExitCode {
        ExitCode::from(INTERRUPTED)
    }
}
