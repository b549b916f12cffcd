//! The program under test, as a process: started, listened to, measured, ended.

use super::stopwatch::{self, Stopwatch};
use super::{PATIENCE, nap, processes, root, until};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// A running crossover; it is killed when this is dropped, and what it has started.
pub struct Crossover {
    child: Child,
    stderr: Arc<Lines>,
    stdout: Arc<Lines>,
    readers: Vec<JoinHandle<()>>,
}

/// The output and exit code of a finished crossover.
#[derive(Debug)]
pub struct Finished {
    /// The exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// The status as the kernel reports it.
    pub status: ExitStatus,
    /// All of it.
    pub stdout: String,
    /// All of it.
    pub stderr: String,
}

/// The measurements of a process, from `/proc/PID/status` and the files beside it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Measured {
    /// Resident memory now.
    pub rss_kib: u64,
    /// Resident memory at its highest.
    pub peak_rss_kib: u64,
    /// Threads now.
    pub threads: u64,
    /// Context switches so far, of both sorts.
    pub context_switches: u64,
    /// Open descriptors now.
    pub descriptors: usize,
    /// Time on a processor so far.
    pub cpu_ns: u64,
}

/// Returns the path of the program: cargo builds it for the tests, beside which it stands, and says
/// so; in the lab it is `$CROSSOVER`, or the release build.
pub fn program() -> PathBuf {
    let named = ["CARGO_BIN_EXE_crossover", "CROSSOVER"].map(env::var_os);
    if let Some(named) = named.into_iter().flatten().next() {
        return named.into();
    }
    let test = env::current_exe().expect("the path of the running program");
    let folder = test.parent().filter(|folder| folder.ends_with("deps"));
    match folder.and_then(Path::parent) {
        Some(profile) => profile.join("crossover"),
        None => root().join("target/x86_64-unknown-linux-musl/release/crossover"),
    }
}

/// Returns the program with these arguments, without what the environment would tell it of a
/// cluster.
pub fn command(arguments: &[&str]) -> Command {
    command_of(&program(), arguments)
}

/// Returns the same for another build of the program.
pub fn command_of(program: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments);
    for (name, _) in env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        let known = ["NS", "POD_NAMESPACE", "RUST_LOG"].contains(&name.as_str());
        if known || name.starts_with("KUBERNETES_") {
            command.env_remove(name);
        }
    }
    command
}

/// Returns a command behind another one that runs it, such as `unshare`.
pub fn wrapped(mut outer: Command, inner: &Command) -> Command {
    outer.arg(inner.get_program()).args(inner.get_args());
    for (name, value) in inner.get_envs() {
        match value {
            Some(value) => outer.env(name, value),
            None => outer.env_remove(name),
        };
    }
    outer
}

impl Crossover {
    /// Starts the program with these arguments.
    #[track_caller]
    pub fn start(arguments: &[&str]) -> Crossover {
        Crossover::spawn(command(arguments))
    }

    /// Starts a command made with [`command`].
    #[track_caller]
    pub fn spawn(mut command: Command) -> Crossover {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}; run: make build", program().display()));
        stopwatch::count_program(child.id());
        let (stdout, stderr) = (Arc::new(Lines::default()), Arc::new(Lines::default()));
        let readers = vec![
            read(child.stdout.take().expect("it is piped"), stdout.clone()),
            read(child.stderr.take().expect("it is piped"), stderr.clone()),
        ];
        Crossover {
            child,
            stderr,
            stdout,
            readers,
        }
    }

    /// Runs the program to its end.
    #[track_caller]
    pub fn run(arguments: &[&str]) -> Finished {
        Crossover::start(arguments).finish()
    }

    /// Returns the process's id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a line on stderr, now or before, that holds this text.
    #[track_caller]
    pub fn wait_for_line(&self, text: &str) -> String {
        self.stderr
            .wait_for(&format!("a line with {text:?}"), |lines| {
                lines.iter().find(|line| line.contains(text)).cloned()
            })
    }

    /// Waits until so many lines on stderr hold this text.
    #[track_caller]
    pub fn wait_for_lines(&self, count: usize, text: &str) {
        self.stderr
            .wait_for(&format!("{count} lines with {text:?}"), |lines| {
                (lines.iter().filter(|line| line.contains(text)).count() >= count).then_some(())
            });
    }

    /// Returns the lines on stderr so far.
    pub fn lines(&self) -> Vec<String> {
        self.stderr.now()
    }

    /// Waits until stdout so far is such as is wanted.
    #[track_caller]
    pub fn wait_for_stdout(&self, what: &str, want: impl Fn(&str) -> bool) -> String {
        self.stdout
            .wait_for(what, |lines| Some(text(lines)).filter(|text| want(text)))
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).expect("the process is ours, and not waited for");
    }

    /// Sends SIGKILL, and waits for the end.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits for its end; returns also how long that took since the watch was started, on which the
    /// test has not waited yet.
    #[track_caller]
    pub fn finish_timed(self, watch: &Stopwatch) -> (Finished, Duration) {
        self.wait_for_end();
        let took = watch.took_at_once();
        (self.finish(), took)
    }

    /// Waits for its end; returns also what it took of the machine in its life.
    #[track_caller]
    pub fn finish_measured(self) -> (Finished, Measured) {
        self.wait_for_end();
        let measured = self.measure();
        (self.finish(), measured)
    }

    /// Waits until it has ended, in one wait, and leaves it to be reaped.
    #[track_caller]
    fn wait_for_end(&self) {
        let pid = Pid::from_child(&self.child);
        let process = pidfd_open(pid, PidfdFlags::empty()).expect("it is ours, and not waited for");
        let patience = Timespec::try_from(PATIENCE).expect("a minute");
        let mut ended = [PollFd::new(&process, PollFlags::IN)];
        let ended = poll(&mut ended, Some(&patience));
        assert_eq!(
            ended,
            Ok(1),
            "waited for its end; stderr:\n{}",
            text(&self.lines())
        );
    }

    /// Waits for its end.
    #[track_caller]
    pub fn finish(mut self) -> Finished {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("the process is ours") {
                break status;
            }
            if nap(deadline).is_none() {
                panic!("waited for its end; stderr:\n{}", text(&self.lines()));
            }
            thread::sleep(Duration::from_millis(1));
        };
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
        let (stdout, stderr) = (text(&self.stdout.now()), text(&self.stderr.now()));
        Finished {
            code: status.code(),
            status,
            stdout,
            stderr,
        }
    }

    /// Sends SIGTERM, and waits for the end.
    #[track_caller]
    pub fn stop(self) -> Finished {
        self.signal(Signal::TERM);
        self.finish()
    }

    /// Returns what it takes of the machine.
    pub fn measure(&self) -> Measured {
        measure(self.pid())
    }
}

impl Drop for Crossover {
    fn drop(&mut self) {
        // Once it is waited for, its number may be another's.
        if matches!(self.child.try_wait(), Ok(None)) {
            let started = processes::children(self.pid());
            let _ = self.child.kill();
            for pid in started {
                // It may be gone, and nobody's any more; nothing else gets its number so soon.
                let pid = Pid::from_raw(pid as i32).expect("it is no 0");
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        let _ = self.child.wait();
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
    }
}

/// Returns what a process takes of the machine.
pub fn measure(pid: u32) -> Measured {
    let proc = PathBuf::from(format!("/proc/{pid}"));
    let status = fs::read_to_string(proc.join("status")).expect("the process runs");
    let tasks = fs::read_dir(proc.join("task")).expect("the process runs");
    let tasks: Vec<PathBuf> = tasks.flatten().map(|task| task.path()).collect();
    Measured {
        rss_kib: number(&status, "VmRSS"),
        peak_rss_kib: number(&status, "VmHWM"),
        threads: number(&status, "Threads"),
        context_switches: tasks
            .iter()
            .map(|task| waits(task) + interruptions(task))
            .sum(),
        descriptors: fs::read_dir(proc.join("fd")).map_or(0, Iterator::count),
        cpu_ns: tasks.iter().map(|task| cpu_ns(task)).sum(),
    }
}

/// Returns how often a thread waited.
fn waits(task: &Path) -> u64 {
    let status = fs::read_to_string(task.join("status")).unwrap_or_default();
    number(&status, "voluntary_ctxt_switches")
}

/// Returns how often a thread was interrupted.
fn interruptions(task: &Path) -> u64 {
    let status = fs::read_to_string(task.join("status")).unwrap_or_default();
    number(&status, "nonvoluntary_ctxt_switches")
}

/// Returns the CPU time of a thread.
fn cpu_ns(task: &Path) -> u64 {
    let schedule = fs::read_to_string(task.join("schedstat")).unwrap_or_default();
    let ns = schedule.split(' ').next();
    ns.and_then(|ns| ns.parse().ok()).unwrap_or_default()
}

/// Returns the number in a line of `/proc/PID/status`.
fn number(status: &str, key: &str) -> u64 {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    let word = line.and_then(|line| line.split_whitespace().next());
    word.and_then(|word| word.parse().ok()).unwrap_or_default()
}

/// Waits until a process sleeps: it has done what it had to do.
#[track_caller]
pub fn until_asleep(pid: u32) {
    until(&format!("process {pid} to sleep"), || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(") ")?.1.starts_with('S').then_some(())
    });
}

/// Lines that arrive.
#[derive(Default)]
struct Lines {
    lines: Mutex<Vec<String>>,
    arrived: Condvar,
}

impl Lines {
    fn now(&self) -> Vec<String> {
        self.lines.lock().expect("no panic").clone()
    }

    #[track_caller]
    fn wait_for<T>(&self, what: &str, look: impl Fn(&[String]) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        let mut lines = self.lines.lock().expect("no panic");
        loop {
            if let Some(found) = look(&lines) {
                return found;
            }
            let Some(nap) = nap(deadline) else {
                let all = text(&lines);
                drop(lines);
                panic!("waited for {what}; there is:\n{all}");
            };
            lines = self.arrived.wait_timeout(lines, nap).expect("no panic").0;
        }
    }
}

fn read(pipe: impl Read + Send + 'static, lines: Arc<Lines>) -> JoinHandle<()> {
    stopwatch::spawn(move || {
        for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            lines.lines.lock().expect("no panic").push(line);
            lines.arrived.notify_all();
        }
    })
}

fn text(lines: &[String]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}
