//! Signals as a readable pipe, and what becomes of each: it ends the program or, once a command
//! runs, is passed on. Owns: signal dispositions. As PID 1 nobody else would end us: the kernel
//! ignores signals there unless they are handled.

use std::ffi::CString;
use std::fmt;
use std::io::{self, PipeReader, Read};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use nix::sys::signal::SigSet;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::Signal;
use signal_hook::{flag, low_level};

use crate::command::Running;
use crate::error::Error;
use crate::kube::transport::timespec;

/// What may end the program; the rest is for a command.
const SIGNALS: [Signal; 6] = [
    Signal::TERM,
    Signal::INT,
    Signal::HUP,
    Signal::QUIT,
    Signal::USR1,
    Signal::USR2,
];

/// Why a wait is to be left off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// A signal ends the program.
    Stop,
    /// The command has ended, with this exit code.
    Ended(u8),
    /// Envoy is to be drained, before the command is told to end.
    Drain,
}

/// All signals that are handled.
#[derive(Clone)]
pub struct Signals {
    /// Readable once a signal has come; every wait includes it, and then asks [`Signals::attend`].
    pub pipe: Arc<PipeReader>,
    /// While true, a signal ends the program with exit code 0 from its handler: for the one call
    /// that cannot be interrupted, a name look-up.
    exit_at_once: Arc<AtomicBool>,
    /// Which have come, and wait to be attended to.
    came: Arc<Vec<(Signal, Arc<AtomicBool>)>>,
    /// The lock is there because ureq's traits ask for `Sync`.
    stage: Arc<Mutex<Stage>>,
}

enum Stage {
    /// No command runs: a signal ends the program.
    Alone,
    Stopped,
    Running(Running),
    Ended(u8),
}

impl fmt::Debug for Signals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signals")
    }
}

impl Signals {
    /// Takes over SIGTERM and SIGINT and, if a command is to be run, all that concern it.
    pub fn install(commands: bool) -> Result<Signals, Error> {
        let failed = |source| Error::System {
            what: "handle signals",
            source,
        };
        let exit_at_once = Arc::new(AtomicBool::new(false));
        let (read, write) = io::pipe().map_err(failed)?;
        rustix::io::ioctl_fionbio(&read, true).map_err(|errno| failed(errno.into()))?;
        // A mask that we inherited would hold them back for ever.
        let _ = SigSet::all().thread_unblock();
        let mut came = Vec::new();
        let handled = if commands {
            &SIGNALS[..]
        } else {
            &SIGNALS[..2]
        };
        for signal in handled.iter().copied() {
            let this: Arc<AtomicBool> = Arc::default();
            // Handlers run in this order: the pipe must be the last.
            if !is_for_command(signal) {
                let exit = exit_at_once.clone();
                flag::register_conditional_shutdown(signal.as_raw(), 0, exit).map_err(failed)?;
            }
            flag::register(signal.as_raw(), this.clone()).map_err(failed)?;
            came.push((signal, this));
        }
        let woken = handled.iter().chain(commands.then_some(&Signal::CHILD));
        for signal in woken {
            let write = write.try_clone().map_err(failed)?;
            low_level::pipe::register(signal.as_raw(), write).map_err(failed)?;
        }
        Ok(Signals {
            pipe: Arc::new(read),
            exit_at_once,
            came: Arc::new(came),
            stage: Arc::new(Mutex::new(Stage::Alone)),
        })
    }

    fn stage(&self) -> MutexGuard<'_, Stage> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does what the signals ask for that have come, and what is due: every wait calls this when it
    /// ends, for whatever reason. Something, again and again: leave off what is being done.
    pub fn attend(&self) -> Option<Call> {
        while matches!((&*self.pipe).read(&mut [0; 64]), Ok(1..)) {}
        let came = self
            .came
            .iter()
            .filter(|(_, came)| came.swap(false, SeqCst));
        let mut came = came.map(|(signal, _)| *signal);
        let mut stage = self.stage();
        match &mut *stage {
            Stage::Alone if came.any(|signal| !is_for_command(signal)) => *stage = Stage::Stopped,
            Stage::Running(command) => {
                came.for_each(|signal| command.take(signal));
                if let Some(code) = command.attend(Instant::now()) {
                    *stage = Stage::Ended(code);
                }
            }
            Stage::Alone | Stage::Stopped | Stage::Ended(_) => {}
        }
        match &*stage {
            Stage::Alone => None,
            Stage::Stopped => Some(Call::Stop),
            Stage::Running(command) => command.asks_to_drain().then_some(Call::Drain),
            Stage::Ended(code) => Some(Call::Ended(*code)),
        }
    }

    /// When to attend though no signal comes any more.
    pub fn due(&self) -> Option<Instant> {
        match &*self.stage() {
            Stage::Alone => None,
            Stage::Running(command) => command.due(),
            Stage::Stopped | Stage::Ended(_) => Some(Instant::now()),
        }
    }

    /// Starts the command, which signals are passed on to from now on. `drains`: not SIGTERM, until
    /// [`Signals::pass_at`] says so.
    pub fn start(&self, words: &[CString], drains: bool) -> Result<(), Error> {
        *self.stage() = Stage::Running(Running::start(words, drains)?);
        Ok(())
    }

    /// When SIGTERM is passed on to the command, if it has not been.
    pub fn pass_at(&self, at: Instant) {
        if let Stage::Running(command) = &mut *self.stage() {
            command.pass_at(at);
        }
    }

    /// Nothing else goes on: passes signals on until the command has ended. Its exit code, if there
    /// is a command.
    pub fn outlive(&self) -> Option<u8> {
        loop {
            match self.attend() {
                Some(Call::Ended(code)) => return Some(code),
                Some(Call::Stop) => return None,
                Some(Call::Drain) => self.pass_at(Instant::now()),
                None if !self.is_running() => return None,
                None => {
                    let left = self
                        .due()
                        .map(|at| at.saturating_duration_since(Instant::now()));
                    let mut fds = [PollFd::new(&*self.pipe, PollFlags::IN)];
                    let _ = poll(&mut fds, left.map(timespec).as_ref());
                }
            }
        }
    }

    fn is_running(&self) -> bool {
        matches!(&*self.stage(), Stage::Running(_))
    }

    /// Runs a call that cannot be interrupted; a signal during it ends the program, unless that has
    /// a command to outlive.
    pub fn uninterrupted<T>(&self, call: impl FnOnce() -> T) -> T {
        self.exit_at_once.store(!self.is_running(), SeqCst);
        let result = call();
        self.exit_at_once.store(false, SeqCst);
        result
    }
}

fn is_for_command(signal: Signal) -> bool {
    [Signal::USR1, Signal::USR2].contains(&signal)
}
