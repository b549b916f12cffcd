//! What `lab figures` times: changes, whole processes, and the floors under them.

use crate::kit::arrival::Arrivals;
use crate::kit::crossover::{Crossover, command_of, until_asleep};
use crate::kit::figures::{Bench, release, split_of_a_service};
use crate::kit::objects::config_map;
use crate::kit::site::BACKENDS;
use crate::kit::xds::{self, CONFIG_MAP};
use rustix::process::Signal;
use serde_json::Value;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// What a number of changes took.
pub struct Changes {
    /// Each, from just before the cluster has it until the file can be read, sorted.
    pub latencies: Vec<Duration>,
    /// On a processor, for one.
    pub cpu: Duration,
}

/// A set of usual size: only its routes differ from change to change.
fn set(change: u32) -> Value {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 8080));
    let weights = [change % 101, 100 - change % 101];
    let weights: Vec<_> = BACKENDS.into_iter().zip(weights).collect();
    xds::set(
        &xds::listeners("first", Path::new("/srv/runtime"), xds::Watching::PathOnly),
        &xds::clusters("first", &BACKENDS.map(|name| (name, address))),
        &xds::routes(&format!("change-{change}"), &weights),
    )
}

fn follow(https: bool) -> (Bench, Crossover) {
    let bench = Bench::start(https);
    bench.server.create(set(0));
    let crossover = bench.follow(&[CONFIG_MAP]);
    (bench, crossover)
}

/// Changes the ConfigMap so often, each time when the one before is done.
pub fn changes(https: bool, count: u32) -> Changes {
    let (bench, crossover) = follow(https);
    time(&bench, &crossover, count, set, |change, bytes| {
        bytes.starts_with(format!("version_info: \"change-{change}\"\n").as_bytes())
    })
}

/// The same of a TrafficSplit, whose weights are merged into a ConfigMap of usual size.
pub fn split_changes(count: u32) -> Changes {
    let bench = Bench::start(false);
    let text = xds::large_routes(1 << 10, 0);
    let template = config_map(CONFIG_MAP, &[("rds.yaml", &text)]);
    bench.server.create(template);
    bench.server.create(split_of_a_service(0));
    let mut command = bench.command("-watch", &[CONFIG_MAP]);
    command.args(["-trafficsplit", "service-0"]);
    let crossover = Crossover::spawn(command);
    bench.server.wait_for_watches(2);
    crossover.wait_for_line("mirrored");
    until_asleep(crossover.pid());
    let split = |change| split_of_a_service(u64::from(change));
    time(&bench, &crossover, count, split, |change, bytes| {
        let mark = format!("weight: {}\n", 1000 - change).into_bytes();
        bytes.windows(mark.len()).any(|part| part == mark)
    })
}

/// Puts one object after the other into the cluster, each when the file shows the one before.
fn time(
    bench: &Bench,
    crossover: &Crossover,
    count: u32,
    object: impl Fn(u32) -> Value,
    shows: impl Fn(u32, &[u8]) -> bool,
) -> Changes {
    let mut arrivals = Arrivals::watch(&bench.output(), "rds.yaml");
    let mut latencies = Vec::new();
    let before = crossover.measure().cpu_ns;
    for change in 1..=count {
        let object = object(change);
        let start = Instant::now();
        bench.server.replace(object);
        latencies.push(arrivals.wait_for(|bytes| shows(change, bytes)) - start);
        until_asleep(crossover.pid());
    }
    let cpu = crossover.measure().cpu_ns - before;
    latencies.sort();
    Changes {
        latencies,
        cpu: Duration::from_nanos(cpu / u64::from(count)),
    }
}

/// System calls for one change, by strace's count over so many.
pub fn system_calls(https: bool, count: u32) -> u64 {
    let (bench, crossover) = follow(https);
    let mut arrivals = Arrivals::watch(&bench.output(), "rds.yaml");
    let summary = TempDir::new().expect("a directory can be made");
    let summary = summary.path().join("summary");
    let mut strace = Command::new("strace");
    strace
        .args(["-c", "-p", &crossover.pid().to_string(), "-o"])
        .arg(&summary);
    let strace = Crossover::spawn(strace);
    strace.wait_for_line("attached");
    for change in 1..=count {
        let mark = format!("version_info: \"change-{change}\"\n").into_bytes();
        bench.server.replace(set(change));
        arrivals.wait_for(|bytes| bytes.starts_with(&mark));
        until_asleep(crossover.pid());
    }
    strace.signal(Signal::INT);
    strace.finish();
    let table = fs::read_to_string(&summary).expect("strace leaves its summary");
    // % time, seconds, usecs/call, calls, total
    let total = table.lines().find(|line| line.ends_with(" total"));
    let calls = total.and_then(|line| line.split_whitespace().nth(3)?.parse::<u64>().ok());
    calls.expect("strace counts") / u64::from(count)
}

/// `-onetime` into a new directory, from before its start until after its end, sorted.
pub fn onetime(https: bool, count: u32) -> Vec<Duration> {
    let bench = Bench::start(https);
    bench.server.create(set(0));
    sorted(count, || {
        let _ = fs::remove_dir_all(bench.output());
        run(bench.command("-onetime", &[CONFIG_MAP]))
    })
}

/// The same of a program that does nothing.
pub fn version(count: u32) -> Vec<Duration> {
    sorted(count, || run(command_of(&release(), &["-version"])))
}

fn run(mut command: Command) -> Duration {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let start = Instant::now();
    let status = command.status().expect("it can be run");
    let time = start.elapsed();
    assert!(status.success(), "{status}");
    time
}

/// A file of usual size written aside and renamed; `sync`: made to last before that.
pub fn rename(count: u32, sync: bool) -> Vec<Duration> {
    let dir = TempDir::new().expect("a directory can be made");
    let (aside, name) = (dir.path().join("aside"), dir.path().join("rds.yaml"));
    let text = set(0)["data"]["rds.yaml"].to_string();
    sorted(count, || {
        let start = Instant::now();
        fs::write(&aside, &text).expect("the directory is ours");
        if sync {
            let file = fs::File::open(&aside).expect("it was just written");
            file.sync_all().expect("the disk takes it");
        }
        fs::rename(&aside, &name).expect("the directory is ours");
        start.elapsed()
    })
}

fn sorted(count: u32, mut measure: impl FnMut() -> Duration) -> Vec<Duration> {
    let mut times: Vec<Duration> = (0..count).map(|_| measure()).collect();
    times.sort();
    times
}

/// Of sorted times.
pub fn percentile(times: &[Duration], percent: usize) -> Duration {
    times[(times.len() * percent / 100).min(times.len() - 1)]
}
