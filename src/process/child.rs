//! The child: the command that crossover wraps, such as Envoy. Owns: starting it as if nothing
//! stood between it and its parent, what is forwarded to it, and its exit code. It reaps any other
//! child of this process, too, as PID 1 must.
//!
//! All signals are forwarded at once, but for SIGTERM where an Envoy is to be drained first:
//!
//! ```text
//!              SIGTERM                  forward_sigterm_at             at that time
//! DrainFirst ----------> DrainRequested ------------------> ForwardAt -------------> Forward
//!                              |                                |                       ^
//!                              +--------------------------------+----- SIGTERM again ---+
//! ```
//!
//! Without a drain a child is in `Forward` from its start. It may exit in any of these states.

use std::env;
use std::ffi::{CString, OsString};
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::time::{Duration, Instant};

use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawnp};
use nix::sys::signal::SigSet;
use rustix::process::{
    Pid, Signal, WaitOptions, WaitStatus, getpgid, getpgrp, getpid, getsid, kill_process, wait,
};

use crate::error::Error;

/// A command to start once Envoy can find its files.
#[derive(Debug)]
pub struct ChildSpec {
    /// The program and its arguments.
    pub argv: Vec<CString>,
    /// The drain of the Envoy that the command runs, if there is to be one.
    pub drain: Option<Drain>,
}

/// The drain before SIGTERM is forwarded.
#[derive(Debug)]
pub struct Drain {
    /// The time that listeners drain.
    pub drain_time: Duration,
    /// The base URL of Envoy's admin port.
    pub admin: String,
}

/// A child that is running, as far as is known.
#[derive(Clone, Copy)]
pub struct Child {
    pid: Pid,
    on_sigterm: OnSigterm,
}

/// The state of forwarding SIGTERM, as in the diagram above.
#[derive(Clone, Copy)]
enum OnSigterm {
    Forward,
    DrainFirst,
    DrainRequested,
    ForwardAt(Instant),
}

impl Child {
    /// Starts `argv`, whose program is searched in PATH. It gets the default for every signal, none
    /// of them blocked, and the standard descriptors alone.
    pub fn start(argv: &[CString], drain: Option<&Drain>) -> Result<Child, Error> {
        let name = argv.first().cloned().unwrap_or_default();
        let pid = spawn(&name, argv).map_err(|errno| Error::Command {
            name: name.to_string_lossy().into_owned(),
            source: errno.into(),
        })?;
        let on_sigterm = if drain.is_some() {
            OnSigterm::DrainFirst
        } else {
            OnSigterm::Forward
        };
        Ok(Child { pid, on_sigterm })
    }

    /// Handles a signal, which the child may have got from the terminal, too.
    pub fn on_signal(&mut self, signal: Signal, from_terminal: bool) {
        if from_terminal && self.terminal_reaches(signal) {
            return;
        }
        match self.on_sigterm {
            OnSigterm::DrainFirst if signal == Signal::TERM => {
                self.on_sigterm = OnSigterm::DrainRequested;
            }
            _ => self.forward(signal),
        }
    }

    /// Returns whether a terminal's signal reaches the child by itself. It goes to a whole group of
    /// processes, but a terminal that hangs up tells the leader of its session alone.
    fn terminal_reaches(&self, signal: Signal) -> bool {
        let leader_alone = signal == Signal::HUP && getsid(None) == Ok(getpid());
        !leader_alone && getpgid(Some(self.pid)) == Ok(getpgrp())
    }

    fn forward(&mut self, signal: Signal) {
        if signal == Signal::TERM {
            self.on_sigterm = OnSigterm::Forward;
        }
        // The process exists, dead or alive, until it is reaped.
        let _ = kill_process(self.pid, signal);
    }

    /// Returns whether SIGTERM has come and [`Child::forward_sigterm_at`] has not been called
    /// since.
    pub fn asks_to_drain(&self) -> bool {
        matches!(self.on_sigterm, OnSigterm::DrainRequested)
    }

    /// Forwards SIGTERM at that time, if it has come and has not been forwarded yet.
    pub fn forward_sigterm_at(&mut self, at: Instant) {
        match self.on_sigterm {
            OnSigterm::DrainRequested | OnSigterm::ForwardAt(_) => {
                self.on_sigterm = OnSigterm::ForwardAt(at);
            }
            OnSigterm::Forward | OnSigterm::DrainFirst => {}
        }
    }

    /// Returns when there is something to do without a signal.
    pub fn deadline(&self) -> Option<Instant> {
        match self.on_sigterm {
            OnSigterm::ForwardAt(at) => Some(at),
            OnSigterm::DrainRequested => Some(Instant::now()),
            OnSigterm::Forward | OnSigterm::DrainFirst => None,
        }
    }

    /// Forwards a SIGTERM whose time has come.
    pub fn tick(&mut self, now: Instant) {
        if let OnSigterm::ForwardAt(at) = self.on_sigterm
            && at <= now
        {
            self.forward(Signal::TERM);
        }
    }

    /// Reaps every process that has ended. Returns the child's exit code if it is one of them.
    pub fn reap(&self) -> Option<u8> {
        let mut exited = None;
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            if pid == self.pid {
                exited = Some(exit_code(status));
            }
        }
        exited
    }
}

/// Returns what a shell has in `$?`.
fn exit_code(status: WaitStatus) -> u8 {
    let signal = status.terminating_signal().map(|signal| 128 + signal);
    let code = status.exit_status().or(signal);
    code.and_then(|code| code.try_into().ok())
        .unwrap_or(u8::MAX)
}

/// Starts a process without what this one has inherited: std's `Command` would leave it ignored
/// signals and open descriptors. Signals 32 to 34 stay as they are: they belong to the C library,
/// and musl's functions reject them.
fn spawn(name: &CString, argv: &[CString]) -> nix::Result<Pid> {
    let mut actions = PosixSpawnFileActions::init()?;
    for entry in fs::read_dir("/proc/self/fd")
        .into_iter()
        .flatten()
        .flatten()
    {
        let number = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        if let Some(fd @ 3..) = number {
            actions.add_close(fd)?;
        }
    }
    let mut attributes = PosixSpawnAttr::init()?;
    attributes.set_sigdefault(&SigSet::all())?;
    attributes.set_sigmask(&SigSet::empty())?;
    let flags = PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF | PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK;
    attributes.set_flags(flags)?;
    let variable = |(mut name, value): (OsString, OsString)| {
        name.push("=");
        name.push(value);
        CString::new(name.into_vec()).ok()
    };
    let environment: Vec<CString> = env::vars_os().filter_map(variable).collect();
    let pid = posix_spawnp(name, &actions, &attributes, argv, &environment)?;
    Pid::from_raw(pid.as_raw()).ok_or(nix::errno::Errno::ESRCH)
}
