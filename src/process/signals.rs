//! Signals as a readable descriptor, and what each does: it ends the program or, once there is a
//! child, is forwarded to it. As PID 1 the program has to see to both: there the kernel drops every
//! signal that is neither blocked nor handled.

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
use crate::process::child::{Child, Drain};

/// The signals that end the program; if it is to run no child, the first two alone.
const ENDING: [Signal; 4] = [Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT];
/// The signals that are forwarded beside those.
const FORWARDED: [Signal; 2] = [Signal::USR1, Signal::USR2];

/// The code of a signal that no process has sent. It comes from a terminal, which sends it to
/// everything in its foreground.
const SI_KERNEL: i32 = 0x80;

/// The reason why a wait was interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wakeup {
    /// A signal ends the program.
    Shutdown,
    /// The child has exited, with this code.
    ChildExited(u8),
    /// SIGTERM has come, before which the child's Envoy is to be drained.
    DrainRequested,
}

/// All signals that are handled. They stay blocked, and [`Signals::dispatch`] reads them.
#[derive(Clone)]
pub struct Signals {
    fd: Arc<SignalFd>,
    ending: &'static [Signal],
    /// The time that the program runs on after SIGTERM, if it has no child.
    drain_time: Option<Duration>,
    /// While this is true, a signal that is let through ends the program with exit code 0 from its
    /// handler: for name look-ups, the one call that cannot be interrupted. The handler is
    /// installed with the first of them.
    exit_at_once: Arc<OnceLock<Arc<AtomicBool>>>,
    /// The lock is there because ureq's traits ask for `Sync`. It is never held across a call, as a
    /// panic's hook needs it on the same thread.
    stage: Arc<Mutex<Stage>>,
}

/// The effect of a signal.
#[derive(Clone, Copy)]
enum Stage {
    /// A signal ends the program: no child has been started, or none will be.
    Alone,
    /// SIGTERM has come: the program ends at that time, or with the next signal.
    Lingering(Instant),
    Stopped,
    /// Signals are forwarded.
    Child(Child),
    ChildExited(u8),
}

/// The descriptor is readable once a signal has come. Every wait includes it, and calls
/// [`Signals::dispatch`] then.
impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl fmt::Debug for Signals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signals")
    }
}

impl Signals {
    /// Blocks SIGTERM and SIGINT and, if a child is to be run, all signals that concern it. Without
    /// a child the program runs on for `drain_time` after SIGTERM.
    pub fn install(has_child: bool, drain_time: Option<Duration>) -> Result<Signals, Error> {
        let failed = |source| Error::System {
            what: "handle signals",
            source,
        };
        let ending = if has_child { &ENDING[..] } else { &ENDING[..2] };
        let mut mask = set_of(ending);
        if has_child {
            mask.extend(&set_of(&FORWARDED));
            mask.add(SIGCHLD);
            // If it is ignored, which may be inherited, no exit code can be had.
            flag::register(Signal::CHILD.as_raw(), Arc::default()).map_err(failed)?;
        }
        // This replaces the mask, which may be inherited, too, and would block others for ever.
        mask.thread_set_mask().map_err(|e| failed(e.into()))?;
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        let fd = SignalFd::with_flags(&mask, flags).map_err(|e| failed(e.into()))?;
        Ok(Signals {
            fd: Arc::new(fd),
            ending,
            drain_time,
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

    /// Handles the signals that have come and what is due. Every wait calls this when it ends, for
    /// whatever reason. It returns the same wakeup until that has been dealt with.
    pub fn dispatch(&self) -> Option<Wakeup> {
        let mut stage = self.stage();
        while let Ok(Some(info)) = self.fd.read_signal() {
            let number = info.ssi_signo.try_into().ok();
            if let Some(signal) = number.and_then(Signal::from_named_raw) {
                self.on_signal(&mut stage, signal, info.ssi_code == SI_KERNEL);
            }
        }
        stage.tick(Instant::now());
        self.set_stage(stage);
        stage.wakeup()
    }

    fn on_signal(&self, stage: &mut Stage, signal: Signal, from_terminal: bool) {
        match (&mut *stage, self.drain_time) {
            (Stage::Child(_), _) if signal == Signal::CHILD => {}
            (Stage::Child(child), _) => child.on_signal(signal, from_terminal),
            (Stage::Alone, Some(drain_time)) if signal == Signal::TERM => {
                let drain_ms = drain_time.as_millis() as u64;
                info!(drain_ms; "SIGTERM received; running on while Envoy drains");
                *stage = Stage::Lingering(Instant::now() + drain_time);
            }
            (Stage::Alone | Stage::Lingering(_), _) if self.ending.contains(&signal) => {
                *stage = Stage::Stopped;
            }
            _ => {}
        }
    }

    /// Returns when to call [`Signals::dispatch`] though no signal has come.
    pub fn deadline(&self) -> Option<Instant> {
        match self.stage() {
            Stage::Alone => None,
            Stage::Lingering(until) => Some(until),
            Stage::Child(child) => child.deadline(),
            Stage::Stopped | Stage::ChildExited(_) => Some(Instant::now()),
        }
    }

    /// Starts the child that signals are forwarded to from now on. With a drain, SIGTERM is not
    /// before [`Signals::forward_sigterm_at`] has been called.
    pub fn start(&self, argv: &[CString], drain: Option<&Drain>) -> Result<(), Error> {
        self.set_stage(Stage::Child(Child::start(argv, drain)?));
        Ok(())
    }

    /// Forwards SIGTERM to the child at that time, if it has come and has not been forwarded yet.
    pub fn forward_sigterm_at(&self, at: Instant) {
        if let Stage::Child(mut child) = self.stage() {
            child.forward_sigterm_at(at);
            self.set_stage(Stage::Child(child));
        }
    }

    /// Blocks until the child exits, forwarding signals to it. Returns its exit code, or `None` if
    /// there is no child.
    pub fn wait_for_child(&self) -> Option<u8> {
        loop {
            match self.dispatch() {
                Some(Wakeup::ChildExited(code)) => return Some(code),
                Some(Wakeup::Shutdown) => return None,
                Some(Wakeup::DrainRequested) => self.forward_sigterm_at(Instant::now()),
                None if !self.has_child() => return None,
                None => {
                    let mut fds = [PollFd::new(self, PollFlags::IN)];
                    let _ = poll::wait(&mut fds, self.deadline());
                }
            }
        }
    }

    fn has_child(&self) -> bool {
        matches!(self.stage(), Stage::Child(_))
    }

    /// Runs a call that cannot be interrupted. A signal during it ends the program, unless that has
    /// a child or a drain to wait for.
    pub fn run_blocking<T>(&self, call: impl FnOnce() -> T) -> T {
        if self.has_child() || self.drain_time.is_some() {
            return call();
        }
        let exit_at_once = self.exit_at_once.get_or_init(|| {
            let exit = Arc::new(AtomicBool::new(false));
            for signal in self.ending {
                // This fails only for signals that cannot be handled.
                let _ = flag::register_conditional_shutdown(signal.as_raw(), 0, exit.clone());
            }
            exit
        });
        exit_at_once.store(true, SeqCst);
        let held = set_of(self.ending).thread_swap_mask(SigmaskHow::SIG_UNBLOCK);
        let result = call();
        let _ = held.and_then(|held| held.thread_set_mask());
        exit_at_once.store(false, SeqCst);
        result
    }
}

impl Stage {
    fn tick(&mut self, now: Instant) {
        match self {
            Stage::Lingering(until) if now >= *until => *self = Stage::Stopped,
            Stage::Child(child) => {
                child.tick(now);
                if let Some(code) = child.reap() {
                    *self = Stage::ChildExited(code);
                }
            }
            Stage::Alone | Stage::Lingering(_) | Stage::Stopped | Stage::ChildExited(_) => {}
        }
    }

    fn wakeup(&self) -> Option<Wakeup> {
        match self {
            Stage::Alone | Stage::Lingering(_) => None,
            Stage::Stopped => Some(Wakeup::Shutdown),
            Stage::Child(child) => child.asks_to_drain().then_some(Wakeup::DrainRequested),
            Stage::ChildExited(code) => Some(Wakeup::ChildExited(*code)),
        }
    }
}

fn set_of(signals: &[Signal]) -> SigSet {
    let named = |signal: &Signal| nix::sys::signal::Signal::try_from(signal.as_raw()).ok();
    signals.iter().filter_map(named).collect()
}
