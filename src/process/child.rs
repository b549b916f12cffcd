//! The command that runs beside us, such as Envoy. Owns: starting it as if nobody stood between,
//! what is passed on to it, its exit code; also reaping whoever else is our child, as PID 1 must.

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
    /// How the Envoy that it runs is drained, if it is.
    pub drain: Option<Drain>,
}

/// What happens before SIGTERM is passed on.
#[derive(Debug)]
pub struct Drain {
    /// How long listeners drain.
    pub drain_time: Duration,
    /// The base URL of Envoy's admin port.
    pub admin: String,
}

/// A command that has been started and not ended.
#[derive(Clone, Copy)]
pub struct Child {
    pid: Pid,
    term: OnSigterm,
}

/// What SIGTERM does.
#[derive(Clone, Copy)]
enum OnSigterm {
    /// It is passed on at once.
    Forward,
    /// It begins the drain.
    DrainFirst,
    /// It has come, and nobody has begun the drain yet.
    DrainRequested,
    /// It is passed on then, or when it comes again.
    ForwardAt(Instant),
}

impl Child {
    /// Starts it: with the default for every signal, none blocked, and no descriptor but the
    /// standard three. The path is searched.
    pub fn start(words: &[CString], drains: bool) -> Result<Child, Error> {
        let name = words.first().cloned().unwrap_or_default();
        let pid = spawn(&name, words).map_err(|errno| Error::Command {
            name: name.to_string_lossy().into_owned(),
            source: errno.into(),
        })?;
        let term = if drains {
            OnSigterm::DrainFirst
        } else {
            OnSigterm::Forward
        };
        Ok(Child { pid, term })
    }

    /// A signal has come. `by_kernel`: from a terminal.
    pub fn on_signal(&mut self, signal: Signal, by_kernel: bool) {
        match self.term {
            _ if by_kernel && self.has_it_too(signal) => {}
            OnSigterm::DrainFirst if signal == Signal::TERM => {
                self.term = OnSigterm::DrainRequested
            }
            _ => self.pass(signal),
        }
    }

    /// Whether a terminal's signal reaches the command by itself: it goes to a whole group of
    /// processes, but one that is hung up tells its session's leader alone.
    fn has_it_too(&self, signal: Signal) -> bool {
        let alone = signal == Signal::HUP && getsid(None) == Ok(getpid());
        !alone && getpgid(Some(self.pid)) == Ok(getpgrp())
    }

    fn pass(&mut self, signal: Signal) {
        if signal == Signal::TERM {
            self.term = OnSigterm::Forward;
        }
        // It is there, if dead, until it is waited for.
        let _ = kill_process(self.pid, signal);
    }

    /// Whether SIGTERM has come, and [`Child::pass_at`] is to be said.
    pub fn asks_to_drain(&self) -> bool {
        matches!(self.term, OnSigterm::DrainRequested)
    }

    /// When to pass SIGTERM on, if it has come and has not been passed on yet.
    pub fn forward_sigterm_at(&mut self, at: Instant) {
        if matches!(
            self.term,
            OnSigterm::DrainRequested | OnSigterm::ForwardAt(_)
        ) {
            self.term = OnSigterm::ForwardAt(at);
        }
    }

    /// When there is something to do without a signal.
    pub fn deadline(&self) -> Option<Instant> {
        match self.term {
            OnSigterm::ForwardAt(at) => Some(at),
            OnSigterm::DrainRequested => Some(Instant::now()),
            OnSigterm::Forward | OnSigterm::DrainFirst => None,
        }
    }

    /// Passes on what is due, and reaps. Its exit code, once it has ended.
    pub fn dispatch(&mut self, now: Instant) -> Option<u8> {
        match self.term {
            OnSigterm::ForwardAt(at) if at <= now => self.pass(Signal::TERM),
            OnSigterm::ForwardAt(_)
            | OnSigterm::Forward
            | OnSigterm::DrainFirst
            | OnSigterm::DrainRequested => {}
        }
        let mut ended = None;
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            if pid == self.pid {
                ended = Some(exit_code(status));
            }
        }
        ended
    }
}

/// As a shell has it.
fn exit_code(status: WaitStatus) -> u8 {
    let signal = status.terminating_signal().map(|signal| 128 + signal);
    let code = status.exit_status().or(signal);
    code.and_then(|code| code.try_into().ok())
        .unwrap_or(u8::MAX)
}

// std's own would leave what we inherited: ignored signals and open descriptors.
// 32 to 34 stay as they were: they are the C library's own, and musl's calls refuse them.
fn spawn(name: &CString, words: &[CString]) -> nix::Result<Pid> {
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
    let pid = posix_spawnp(name, &actions, &attributes, words, &environment)?;
    Pid::from_raw(pid.as_raw()).ok_or(nix::errno::Errno::ESRCH)
}
