//! The measuring of times: each program in its turn, round by round, so that what else happens on
//! the machine happens to all of them.

use crate::table::HELLO;
use rustix::process::Signal;
use serde_json::Value;
use std::fs;
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use testkit::budgets::{holds, split_of_a_service};
use testkit::candidate::{Bench, Candidate, Mode};
use testkit::crossover::{Crossover, Measured, command_of, measure, until_asleep, wrapped};
use testkit::envoy_config::{self, CONFIG_MAP};
use testkit::file_watch::FileWatch;
use testkit::objects::config_map;
use testkit::testbed::BACKENDS;

/// So many rounds are not counted: connections, caches and allocators settle.
const WARM_UP: u32 = 3;

/// A program that follows an object, and what its changes took so far.
pub struct Lane<'a> {
    bench: &'a Bench,
    pub who: &'a Candidate,
    pub process: Crossover,
    arrivals: FileWatch,
    /// The object after a change, and what a file that shows it holds.
    object: fn(u32) -> (Value, String),
    changes: u32,
    latencies: Vec<Duration>,
    before: Measured,
    /// On a processor, over all that counted.
    cpu: Duration,
}

impl<'a> Lane<'a> {
    fn new(
        bench: &'a Bench,
        who: &'a Candidate,
        process: Crossover,
        object: fn(u32) -> (Value, String),
    ) -> Lane<'a> {
        Lane {
            arrivals: FileWatch::watch(&bench.output(who), "rds.yaml"),
            before: process.measure(),
            changes: 0,
            latencies: Vec::new(),
            cpu: Duration::ZERO,
            bench,
            who,
            process,
            object,
        }
    }

    /// A ConfigMap of usual size, of which a change changes the routes.
    pub fn of_config_map(bench: &'a Bench, who: &'a Candidate) -> Lane<'a> {
        bench.apply(who, set(0).0);
        let process = bench.follow(who, &[CONFIG_MAP], None);
        Lane::new(bench, who, process, set)
    }

    /// A TrafficSplit, whose weights are merged into a ConfigMap of usual size.
    pub fn of_split(bench: &'a Bench, who: &'a Candidate) -> Lane<'a> {
        let text = envoy_config::large_routes(1 << 10, 0);
        bench.apply(who, config_map(CONFIG_MAP, &[("rds.yaml", &text)]));
        bench.apply(who, split_of_a_service(0).0);
        let process = bench.follow(who, &[CONFIG_MAP], Some("service-0"));
        Lane::new(bench, who, process, split_of_a_service)
    }

    /// The first of the small ConfigMaps that a program follows.
    pub fn of_small(bench: &'a Bench, who: &'a Candidate, process: Crossover) -> Lane<'a> {
        Lane::new(bench, who, process, |change| {
            let mark = format!("change-{change}.");
            let text = envoy_config::large_routes(1 << 10, 0);
            let text = format!("# {mark}\n{text}");
            (config_map("small-0", &[("rds.yaml", &text)]), mark)
        })
    }

    /// The next change, from just before the cluster has it until the file can be read.
    fn change(&mut self, counts: bool) {
        self.changes += 1;
        let (object, mark) = (self.object)(self.changes);
        let start = Instant::now();
        self.bench.apply(self.who, object);
        let seen = self.arrivals.wait_for(|bytes| holds(bytes, &mark));
        until_asleep(self.process.pid());
        if counts {
            self.latencies.push(seen - start);
        }
    }

    pub fn latency(&self, percent: usize) -> f64 {
        percentile(&self.latencies, percent)
    }

    /// Milliseconds on a processor for one change.
    pub fn cpu(&self) -> f64 {
        ms(self.cpu) / self.latencies.len() as f64
    }

    /// System calls for one change.
    pub fn system_calls(&mut self, count: u32, pace: Duration) -> f64 {
        let dir = TempDir::new().expect("a directory can be made");
        let summary = dir.path().join("summary");
        let mut strace = Command::new("strace");
        let pid = self.process.pid().to_string();
        strace.args(["-f", "-c", "-p", &pid, "-o"]).arg(&summary);
        let strace = Crossover::spawn(strace);
        strace.wait_for_line("attached");
        for _ in 0..count {
            self.change(false);
            thread::sleep(pace);
        }
        strace.signal(Signal::INT);
        strace.finish();
        let table = fs::read_to_string(&summary).expect("strace leaves its summary");
        // % time, seconds, usecs/call, calls, total
        let total = table.lines().find(|line| line.ends_with(" total"));
        let calls = total.and_then(|line| line.split_whitespace().nth(3)?.parse::<f64>().ok());
        calls.expect("strace counts") / f64::from(count)
    }
}

/// A set of usual size: only its routes differ from change to change.
fn set(change: u32) -> (Value, String) {
    let mark = format!("change-{change}.");
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 8080));
    let weights = [change % 101, 100 - change % 101];
    let weights: Vec<_> = BACKENDS.into_iter().zip(weights).collect();
    let set = envoy_config::set(
        &envoy_config::listeners(
            "first",
            Path::new("/srv/runtime"),
            envoy_config::Watching::PathOnly,
        ),
        &envoy_config::clusters("first", &BACKENDS.map(|name| (name, address))),
        &envoy_config::routes(&mark, &weights),
    );
    (set, mark)
}

/// Changes each lane's object so often, each in its turn, and none sooner than `pace` after its
/// last: what comes alone is what comes in real life.
pub fn changes(lanes: &mut [Lane], rounds: u32, pace: Duration) {
    let pause = pace / lanes.len() as u32;
    for round in 0..WARM_UP + rounds {
        let first = round as usize % lanes.len();
        for lane in 0..lanes.len() {
            thread::sleep(pause);
            let at = (first + lane) % lanes.len();
            if round == WARM_UP {
                lanes[at].before = lanes[at].process.measure();
            }
            lanes[at].change(round >= WARM_UP);
        }
    }
    // What a change leaves to be done has been done by then.
    thread::sleep(pace);
    for lane in lanes {
        let cpu = lane.process.measure().cpu_ns - lane.before.cpu_ns;
        lane.cpu = Duration::from_nanos(cpu);
    }
}

/// Runs each of these so often, in turn; the median of each, in milliseconds.
pub fn in_turn<'a, T>(all: &'a [T], runs: u32, mut run: impl FnMut(&'a T) -> Duration) -> Vec<f64> {
    let mut times = vec![Vec::new(); all.len()];
    for _ in 0..WARM_UP {
        for one in all {
            run(one);
        }
    }
    for _ in 0..runs {
        for (one, times) in all.iter().zip(&mut times) {
            times.push(run(one));
        }
    }
    times.iter().map(|times| percentile(times, 50)).collect()
}

/// A program that is timed from its exec.
#[derive(Clone, Copy)]
pub enum Runner<'a> {
    /// It talks to a server.
    Client(&'a Candidate),
    /// It does nothing else than say hello.
    Hello(&'a Path),
}

impl Runner<'_> {
    /// The column.
    pub fn name(&self) -> &'static str {
        match self {
            Runner::Client(who) => who.name,
            Runner::Hello(_) => HELLO,
        }
    }

    /// From just before the start until the first byte is there: of what a TLS client sends, or of
    /// what hello world prints.
    pub fn first_byte(&self, bench: &Bench) -> Duration {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
        let url = format!("https://{}", listener.local_addr().expect("it is bound"));
        let mut command = match self {
            Runner::Hello(program) => hello(program),
            Runner::Client(who) => {
                let _ = fs::remove_dir_all(bench.output(who));
                bench.command_to(who, Mode::Watch, &url, &["none"])
            }
        };
        command.stdin(Stdio::null()).stderr(Stdio::null());
        let start = Instant::now();
        let mut child = command.spawn().expect("it can be run");
        let mut said: Box<dyn Read> = match child.stdout.take() {
            Some(stdout) => Box::new(stdout),
            None => Box::new(listener.accept().expect("it connects").0),
        };
        said.read_exact(&mut [0]).expect("it says hello");
        let time = start.elapsed();
        child.kill().expect("it is ours");
        child.wait().expect("it is ours");
        time
    }

    /// A whole process that publishes once, or says hello.
    pub fn onetime(&self, bench: &Bench) -> Duration {
        let mut command = self.onetime_command(bench);
        command.stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let start = Instant::now();
        let status = command.status().expect("it can be run");
        let time = start.elapsed();
        assert!(status.success(), "{command:?}: {status}");
        time
    }

    fn onetime_command(&self, bench: &Bench) -> Command {
        match self {
            Runner::Hello(program) => hello(program),
            Runner::Client(who) => {
                let _ = fs::remove_dir_all(bench.output(who));
                bench.command(who, Mode::Once, &[CONFIG_MAP], None)
            }
        }
    }

    /// The instructions of that, as callgrind counts them: noise has no part in it. Nothing where
    /// valgrind is missing, or cannot run the program.
    pub fn instructions(&self, bench: &Bench) -> Option<f64> {
        let mut valgrind = Command::new("valgrind");
        valgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]);
        let mut command = wrapped(valgrind, &self.onetime_command(bench));
        let told = command.stdin(Stdio::null()).output().ok()?;
        let told = String::from_utf8_lossy(&told.stderr).into_owned();
        // ==1== Collected : 1234
        let line = told.lines().find(|line| line.contains(" Collected : "))?;
        line.split_whitespace().last()?.parse().ok()
    }
}

/// What hello world takes while it runs.
pub fn at_rest(program: &Path) -> Measured {
    let mut command = hello(program);
    let mut child = command
        .stdin(Stdio::piped())
        .spawn()
        .expect("it can be run");
    let mut stdout = child.stdout.take().expect("it is piped");
    stdout.read_exact(&mut [0]).expect("it says hello");
    until_asleep(child.id());
    let measured = measure(child.id());
    drop(child.stdin.take());
    child.wait().expect("it ends with its stdin");
    measured
}

fn hello(program: &Path) -> Command {
    let mut command = command_of(program, &[]);
    command.stdout(Stdio::piped());
    command
}

/// Milliseconds.
pub fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn percentile(times: &[Duration], percent: usize) -> f64 {
    let mut times = times.to_vec();
    times.sort_unstable();
    ms(times[(times.len() * percent / 100).min(times.len() - 1)])
}
