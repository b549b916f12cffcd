//! Signals as a readable descriptor, and what becomes of each: it ends the program or, once a command
//! runs, is passed on. Owns: which are held back, and what is done with them. As PID 1 nobody else
//! would end us: the kernel ignores signals there unless they are held or handled.

use std::ffi::CString;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use log::info;
use nix::sys::signal::{SIGCHLD, SigSet, SigmaskHow};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags};
use rustix::process::Signal;
use signal_hook::flag;

use crate::error::Error;
use crate::poll;
use crate::process::child::Child;

/// What ends the program: without a command the first two alone.
const ENDS: [Signal; 4] = [Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT];
/// What else is for a command.
const PASSED: [Signal; 2] = [Signal::USR1, Signal::USR2];

/// `SI_KERNEL`: no process has sent it, so on a terminal whoever is in its foreground has it.
const BY_KERNEL: i32 = 0x80;

/// Why a wait is to be left off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wakeup {
    /// A signal ends the program.
    Shutdown,
    /// The command has ended, with this exit code.
    ChildExited(u8),
    /// Envoy is to be drained, before the command is told to end.
    DrainRequested,
}

/// All signals that are handled: they wait until they are asked for.
#[derive(Clone)]
pub struct Signals {
    waiting: Arc<SignalFd>,
    ends: &'static [Signal],
    /// How long SIGTERM leaves the program, where there is no command.
    lingers: Option<Duration>,
    /// While true, a signal that is let through ends the program with exit code 0 from its handler:
    /// for the one call that cannot be interrupted, a name look-up. Unset: there is no handler.
    exit_at_once: Arc<OnceLock<Arc<AtomicBool>>>,
    /// The lock is there because ureq's traits ask for `Sync`. It is free whatever is going on, as a
    /// panic's hook needs it again on the same thread.
    stage: Arc<Mutex<Stage>>,
}

#[derive(Clone, Copy)]
enum Stage {
    /// No command runs: a signal ends the program.
    Alone,
    /// SIGTERM has come: the program ends then, or with the next signal.
    Lingering(Instant),
    Stopped,
    Child(Child),
    Ended(u8),
}

/// Readable once a signal has come: every wait includes it, and asks [`Signals::dispatch`] then.
impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.waiting.as_fd()
    }
}

impl fmt::Debug for Signals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signals")
    }
}

impl Signals {
    /// Takes over SIGTERM and SIGINT and, if a command is to be run, all that concern it. `lingers`:
    /// how long SIGTERM leaves the program without one.
    pub fn install(commands: bool, lingers: Option<Duration>) -> Result<Signals, Error> {
        let failed = |source| Error::System {
            what: "handle signals",
            source,
        };
        let ends = if commands { &ENDS[..] } else { &ENDS[..2] };
        let mut held = set_of(ends);
        if commands {
            held.extend(&set_of(&PASSED));
            held.add(SIGCHLD);
            // If it is ignored, as we may have inherited it, nobody learns how a child ended.
            let reaped = Arc::default();
            flag::register(Signal::CHILD.as_raw(), reaped).map_err(failed)?;
        }
        // A mask that we inherited would hold others back for ever.
        held.thread_set_mask().map_err(|e| failed(e.into()))?;
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        let waiting = SignalFd::with_flags(&held, flags).map_err(|e| failed(e.into()))?;
        Ok(Signals {
            waiting: Arc::new(waiting),
            ends,
            lingers,
            exit_at_once: Arc::default(),
            stage: Arc::new(Mutex::new(Stage::Alone)),
        })
    }

    fn stage(&self) -> Stage {
        *self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_stage(&self, stage: Stage) {
        *self.stage.lock().unwrap_or_else(PoisonError::into_inner) = stage;
    }

    /// Does what the signals ask for that have come, and what is due: every wait calls this when it
    /// ends, for whatever reason. Something, again and again: leave off what is being done.
    pub fn dispatch(&self) -> Option<Wakeup> {
        let next = || self.waiting.read_signal().ok().flatten();
        let mut came = std::iter::from_fn(next).filter_map(|told| {
            let signal = Signal::from_named_raw(told.ssi_signo.try_into().ok()?)?;
            Some((signal, told.ssi_code == BY_KERNEL))
        });
        let mut stage = self.stage();
        let now = Instant::now();
        match &mut stage {
            Stage::Alone => {
                let ended = came.find(|(signal, _)| self.ends.contains(signal));
                let ended = ended.map(|(signal, _)| signal);
                let lingers = self.lingers.filter(|_| ended == Some(Signal::TERM));
                if let Some(lasts) = lingers {
                    info!(wait:? = lasts; "told to stop: going on for an Envoy that drains");
                    stage = Stage::Lingering(now + lasts);
                } else if ended.is_some() {
                    stage = Stage::Stopped;
                }
            }
            Stage::Lingering(until) => {
                if now >= *until || came.any(|(signal, _)| self.ends.contains(&signal)) {
                    stage = Stage::Stopped;
                }
            }
            Stage::Child(command) => {
                let passed = came.filter(|(signal, _)| *signal != Signal::CHILD);
                passed.for_each(|(signal, by_kernel)| command.on_signal(signal, by_kernel));
                if let Some(code) = command.dispatch(now) {
                    stage = Stage::Ended(code);
                }
            }
            Stage::Stopped | Stage::Ended(_) => {}
        }
        self.set_stage(stage);
        match stage {
            Stage::Alone | Stage::Lingering(_) => None,
            Stage::Stopped => Some(Wakeup::Shutdown),
            Stage::Child(command) => command.asks_to_drain().then_some(Wakeup::DrainRequested),
            Stage::Ended(code) => Some(Wakeup::ChildExited(code)),
        }
    }

    /// When to attend though no signal comes any more.
    pub fn deadline(&self) -> Option<Instant> {
        match self.stage() {
            Stage::Alone => None,
            Stage::Lingering(until) => Some(until),
            Stage::Child(command) => command.deadline(),
            Stage::Stopped | Stage::Ended(_) => Some(Instant::now()),
        }
    }

    /// Starts the command, which signals are passed on to from now on. `drains`: not SIGTERM, until
    /// [`Signals::pass_at`] says so.
    pub fn start(&self, words: &[CString], drains: bool) -> Result<(), Error> {
        self.set_stage(Stage::Child(Child::start(words, drains)?));
        Ok(())
    }

    /// When SIGTERM is passed on to the command, if it has not been.
    pub fn forward_sigterm_at(&self, at: Instant) {
        if let Stage::Child(mut command) = self.stage() {
            command.forward_sigterm_at(at);
            self.set_stage(Stage::Child(command));
        }
    }

    /// Nothing else goes on: passes signals on until the command has ended. Its exit code, if there
    /// is a command.
    pub fn wait_for_child(&self) -> Option<u8> {
        loop {
            match self.dispatch() {
                Some(Wakeup::ChildExited(code)) => return Some(code),
                Some(Wakeup::Shutdown) => return None,
                Some(Wakeup::DrainRequested) => self.forward_sigterm_at(Instant::now()),
                None if !self.is_running() => return None,
                None => {
                    let mut fds = [PollFd::new(self, PollFlags::IN)];
                    let _ = poll::wait(&mut fds, self.deadline());
                }
            }
        }
    }

    fn is_running(&self) -> bool {
        matches!(self.stage(), Stage::Child(_))
    }

    /// Runs a call that cannot be interrupted; a signal during it ends the program, unless that has
    /// a command or a drain to outlive.
    pub fn run_blocking<T>(&self, call: impl FnOnce() -> T) -> T {
        if self.is_running() || self.lingers.is_some() {
            return call();
        }
        let exit_at_once = self.exit_at_once.get_or_init(|| {
            let exit = Arc::new(AtomicBool::new(false));
            for signal in self.ends {
                // It is none of those that cannot be handled.
                let _ = flag::register_conditional_shutdown(signal.as_raw(), 0, exit.clone());
            }
            exit
        });
        exit_at_once.store(true, SeqCst);
        let held = set_of(self.ends).thread_swap_mask(SigmaskHow::SIG_UNBLOCK);
        let result = call();
        let _ = held.and_then(|held| held.thread_set_mask());
        exit_at_once.store(false, SeqCst);
        result
    }
}

fn set_of(signals: &[Signal]) -> SigSet {
    let named = |signal: &Signal| nix::sys::signal::Signal::try_from(signal.as_raw()).ok();
    signals.iter().filter_map(named).collect()
}
