//! A wall clock that jumps, for one program: by ptrace(2), on x86-64. As the program begins, the
//! vDSO is hidden from it, which would tell the time without a system call; and whatever a call
//! tells of the wall clock is moved. The machine's own clock, and the monotonic one, stay.

use super::crossover::{self, Crossover};
use super::{stopwatch, until};
use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::ffi::c_void;
use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering::Relaxed};
use std::thread::JoinHandle;

/// The number of the call on x86-64 Linux.
const CLOCK_GETTIME: u64 = 228;
const CLOCK_REALTIME: u64 = 0;
const AT_NULL: i64 = 0;
const AT_IGNORE: i64 = 1;
const AT_SYSINFO_EHDR: i64 = 33;
const WORD: u64 = 8;

#[derive(Default)]
struct Shared {
    seconds: AtomicI64,
    reads: AtomicUsize,
    stop: AtomicBool,
}

/// The wall clock of one program; drop it before that ends.
pub struct Clock {
    pid: Pid,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Clock {
    /// Starts a command made with [`crossover::command`]. Its clock is right at first.
    #[track_caller]
    pub fn start(inner: &Command) -> (Crossover, Clock) {
        let mut shell = Command::new("sh");
        shell.args(["-c", "kill -STOP $$; exec \"$@\"", "sh"]);
        let program = Crossover::spawn(crossover::wrapped(shell, inner));
        let pid = program.pid();
        until("the program to be stopped", || {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            stat.rsplit_once(") ")?.1.starts_with('T').then_some(())
        });
        let pid = Pid::from_raw(pid as i32);
        let shared = Arc::new(Shared::default());
        let traced = shared.clone();
        let thread = stopwatch::spawn(move || {
            let traced = trace(pid, &traced);
            traced.expect("the program can be traced: run this as root");
        });
        let thread = Some(thread);
        (
            program,
            Clock {
                pid,
                shared,
                thread,
            },
        )
    }

    /// Sets the clock so many seconds ahead, or behind, from now on.
    pub fn set(&self, seconds: i64) {
        self.shared.seconds.store(seconds, Relaxed);
    }

    /// Counts how often it was read.
    pub fn reads(&self) -> usize {
        self.shared.reads.load(Relaxed)
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        self.shared.stop.store(true, Relaxed);
        // It stops for a signal even where it ignores it, and that ends the tracer's wait.
        let _ = kill(self.pid, Signal::SIGWINCH);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Follows a stopped process from one system call to the next; all on one thread, as it must be. It
/// sleeps until there is a stop to see, so that a busy machine does not make each call a slow one.
fn trace(pid: Pid, shared: &Shared) -> Result<(), Errno> {
    let options =
        Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_TRACEEXEC | Options::PTRACE_O_EXITKILL;
    ptrace::seize(pid, options)?;
    kill(pid, Signal::SIGCONT)?;
    loop {
        let signal = match waitpid(pid, Some(WaitPidFlag::__WALL))? {
            WaitStatus::Exited(..) | WaitStatus::Signaled(..) => return Ok(()),
            WaitStatus::PtraceSyscall(_) => {
                move_time(pid, shared)?;
                None
            }
            WaitStatus::PtraceEvent(_, _, event) => {
                if event == ptrace::Event::PTRACE_EVENT_EXEC as i32 {
                    hide_vdso(pid)?;
                }
                None
            }
            WaitStatus::Stopped(_, signal) => Some(signal),
            WaitStatus::Continued(_) | WaitStatus::StillAlive => continue,
        };
        if shared.stop.load(Relaxed) {
            return ptrace::detach(pid, signal);
        }
        ptrace::syscall(pid, signal)?;
    }
}

/// Changes the time as a call returns that has read the wall clock.
fn move_time(pid: Pid, shared: &Shared) -> Result<(), Errno> {
    let registers = ptrace::getregs(pid)?;
    // As it begins, there is an error in the place of the result.
    let is_read = registers.orig_rax == CLOCK_GETTIME && registers.rax == 0;
    if is_read && registers.rdi == CLOCK_REALTIME {
        let seconds = ptrace::read(pid, address(registers.rsi))?;
        let moved = seconds + shared.seconds.load(Relaxed);
        ptrace::write(pid, address(registers.rsi), moved)?;
        shared.reads.fetch_add(1, Relaxed);
    }
    Ok(())
}

/// Hides the vDSO from a new program, whose stack holds the arguments' count, arguments, 0,
/// environment, 0, pairs.
fn hide_vdso(pid: Pid) -> Result<(), Errno> {
    let mut at = ptrace::getregs(pid)?.rsp;
    let count = ptrace::read(pid, address(at))?;
    at += WORD * (count as u64 + 2);
    while ptrace::read(pid, address(at))? != 0 {
        at += WORD;
    }
    at += WORD;
    loop {
        match ptrace::read(pid, address(at))? {
            AT_NULL => return Ok(()),
            AT_SYSINFO_EHDR => ptrace::write(pid, address(at), AT_IGNORE)?,
            _ => {}
        }
        at += 2 * WORD;
    }
}

fn address(at: u64) -> *mut c_void {
    at as *mut c_void
}
