//! `lab bench`: what the release binary takes of a machine, beside the floors under it and, where
//! one is named, beside another crossover; and what it is to reach.

use crate::order;
use crate::stop::Stop;
use crate::table::Goal::{AtMost, TimesOf};
use crate::table::Unit::{Bytes, Kib, Ms, Number};
use crate::table::{BASELINE, HELLO, LOOP, OURS, Row, Table};
use crate::timing::{self, Lane, Runner, changes, in_turn, ms};
use crate::verdict;
use pico_args::Arguments;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};
use std::{fs, thread};
use tempfile::TempDir;
use testkit::budgets::{BINARY_GOAL, IDLE_GOAL, LARGEST, follow_small, merge_into, since};
use testkit::candidate::{Bench, Candidate, release};
use testkit::crossover::{Crossover, Measured};
use testkit::elf::Elf;

/// How much is measured.
struct Effort {
    /// Changes, and runs of whole processes.
    rounds: u32,
    /// The same where many objects are watched, and under strace.
    few: u32,
    /// A change of an object comes no sooner than this after its last.
    pace: Duration,
    /// How long nothing is asked of processes that should do nothing.
    idle: Duration,
    /// How many objects are watched.
    objects: &'static [u32],
    /// How large a ConfigMap is merged into.
    large: usize,
    order: order::Effort,
    verdict: verdict::Effort,
}

/// Some five minutes, and seven with a baseline.
const FULL: Effort = Effort {
    rounds: 100,
    few: 30,
    // By then what a change leaves to be done later is done.
    pace: Duration::from_millis(300),
    idle: Duration::from_secs(30),
    objects: &[1, 10, 100],
    large: LARGEST,
    order: order::Effort {
        worlds: usize::MAX,
        times: 30,
        row: 200,
    },
    verdict: verdict::Effort {
        rounds: 100,
        pace: Duration::from_millis(300),
        idle: Duration::from_secs(30),
    },
};
/// That it can be measured, no more.
const QUICK: Effort = Effort {
    rounds: 2,
    few: 1,
    pace: Duration::ZERO,
    idle: Duration::from_millis(100),
    objects: &[1, 4],
    large: LARGEST / 16,
    order: order::Effort {
        worlds: 2,
        times: 1,
        row: 4,
    },
    verdict: verdict::Effort {
        rounds: 2,
        pace: Duration::ZERO,
        idle: Duration::from_millis(100),
    },
};

/// Prints the table.
pub fn run(mut arguments: Arguments) -> Result<ExitCode, Box<dyn Error>> {
    let baseline: Option<PathBuf> = arguments.opt_value_from_str("--baseline")?;
    let json: Option<PathBuf> = arguments.opt_value_from_str("--json")?;
    let effort = match arguments.contains("--quick") {
        true => QUICK,
        false => FULL,
    };
    let only_order = arguments.contains("--order");
    let only_verdict = arguments.contains("--verdict");
    let rest = arguments.finish();
    if !rest.is_empty() {
        return Err(format!("unexpected {rest:?}").into());
    }
    let stop = Stop::install()?;
    Ok(stop.guard(|| {
        let programs = Programs::copy(baseline.as_deref());
        let table = match (only_order, only_verdict) {
            (true, _) => measure_order(&programs, &effort),
            (false, true) => measure_verdict(&programs, &effort),
            (false, false) => measure(&programs, &effort),
        };
        if let Some(path) = json {
            let text = format!("{:#}\n", table.json());
            fs::write(&path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        }
        ExitCode::SUCCESS
    }))
}

/// All that is measured. A linker leaves a file in small pieces of the page cache, which costs time
/// at each exec; these are copies, each written in one go, as images are unpacked.
struct Programs {
    /// The release binary first.
    candidates: Vec<Candidate>,
    hello: PathBuf,
    _dir: TempDir,
}

impl Programs {
    fn copy(baseline: Option<&Path>) -> Programs {
        let mut candidates = vec![Candidate::ours(), Candidate::floor()];
        candidates.extend(baseline.map(|program| Candidate::crossover(BASELINE, program)));
        let dir = TempDir::new().expect("a directory can be made");
        let copy = |name: &str, from: &Path| {
            let to = dir.path().join(name);
            fs::copy(from, &to).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
            to
        };
        for candidate in &mut candidates {
            candidate.program = copy(candidate.name, &candidate.program);
        }
        Programs {
            candidates,
            hello: copy(HELLO, &release("floor-hello")),
            _dir: dir,
        }
    }
}

/// Measures only what becomes of requests while clusters are replaced.
fn measure_order(programs: &Programs, effort: &Effort) -> Table {
    let all = &programs.candidates;
    let mut table = Table::new(all.iter().map(|who| who.name).collect());
    order::measure(all, &effort.order, &mut table);
    table
}

/// Measures only what Envoy's verdicts take.
fn measure_verdict(programs: &Programs, effort: &Effort) -> Table {
    let mut table = Table::new(vec![OURS]);
    verdict::measure(&programs.candidates[0], &effort.verdict, &mut table);
    table
}

fn measure(programs: &Programs, effort: &Effort) -> Table {
    let (all, hello) = (&programs.candidates, &programs.hello);
    let mut columns = vec![OURS, HELLO];
    columns.extend(all[1..].iter().map(|who| who.name));
    let mut table = Table::new(columns);
    sizes(all, hello, &mut table);
    let idle = Idle::start(all, hello, &mut table);
    large(all, effort, &mut table);
    processes(all, hello, effort, &mut table);
    single_changes(all, effort, &mut table);
    for count in effort.objects {
        objects(all, *count, effort, &mut table);
    }
    idle.finish(effort, &mut table);
    verdict::measure(&all[0], &effort.verdict, &mut table);
    order::measure(all, &effort.order, &mut table);
    table
}

fn row<'a, T: 'a>(
    what: impl IntoIterator<Item = &'a T>,
    value: impl Fn(&'a T) -> (&'static str, f64),
) -> Vec<(&'static str, f64)> {
    what.into_iter().map(value).collect()
}

fn sizes(all: &[Candidate], hello: &Path, table: &mut Table) {
    let size = |path: &Path| Elf::read(path).size as f64;
    let mut sizes = row(all, |who| (who.name, size(&who.program)));
    sizes.push((HELLO, size(hello)));
    let binary = sizes[0].1;
    table.push(Row::new("binary, bytes", Bytes, sizes).goal(AtMost(BINARY_GOAL as f64)));
    let (image, what) = match image(&all[0]) {
        Some(bytes) => (bytes, "image, bytes"),
        None => (binary, "image, bytes (no Docker here: the binary)"),
    };
    table.push(Row::new(what, Bytes, vec![(OURS, image)]));
}

/// Has Docker make the image, asks it for the size, and removes it.
fn image(ours: &Candidate) -> Option<f64> {
    let context = TempDir::new().expect("a directory can be made");
    fs::copy(&ours.program, context.path().join("crossover")).expect("the directory is ours");
    let docker = |arguments: &[&str]| {
        let output = Command::new("docker").args(arguments).output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout).trim().to_string();
        output.status.success().then_some(text)
    };
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/Dockerfile.scratch");
    let context = context.path().to_string_lossy();
    let id = docker(&["build", "--quiet", "-f", file, &context])?;
    let size = docker(&["image", "inspect", "--format", "{{.Size}}", &id]);
    docker(&["image", "rm", &id]);
    size?.parse().ok()
}

/// Programs with three TLS watches, which nobody asks anything.
struct Idle {
    _bench: Bench,
    followers: Vec<(&'static str, Crossover)>,
    settled: Instant,
    before: Vec<Measured>,
}

impl Idle {
    fn start(all: &[Candidate], hello: &Path, table: &mut Table) -> Idle {
        let bench = Bench::with_bookmarks(Duration::from_secs(3600));
        let follow = |who: &Candidate| (who.name, follow_small(&bench, who, 3));
        let followers: Vec<_> = all.iter().map(follow).collect();
        let measured = followers.iter().map(|(name, p)| (*name, p.measure()));
        let mut measured: Vec<_> = measured.collect();
        measured.push((HELLO, timing::at_rest(hello)));
        let rss = row(&measured, |(name, m)| (*name, m.rss_kib as f64));
        let peak = row(&measured, |(name, m)| (*name, m.peak_rss_kib as f64));
        let threads = row(&measured, |(name, m)| (*name, m.threads as f64));
        table.push(Row::new("RSS, 3 idle TLS watches", Kib, rss).goal(AtMost(IDLE_GOAL as f64)));
        table.push(Row::new("  peak", Kib, peak));
        table.push(Row::new("  threads", Number, threads));
        // What a start leaves to be done later is done by then.
        thread::sleep(Duration::from_secs(1));
        let before = followers.iter().map(|(_, p)| p.measure()).collect();
        Idle {
            _bench: bench,
            followers,
            settled: Instant::now(),
            before,
        }
    }

    /// At least so long; given for 30 s. The time is the measure here; nothing is waited for.
    fn finish(self, effort: &Effort, table: &mut Table) {
        thread::sleep(effort.idle.saturating_sub(self.settled.elapsed()));
        let share = 30.0 / self.settled.elapsed().as_secs_f64();
        let idle = self.followers.iter().zip(&self.before);
        let idle = idle.map(|((name, process), before)| (*name, since(*before, process)));
        let idle: Vec<_> = idle.collect();
        let switches = row(&idle, |(name, m)| {
            (*name, m.context_switches as f64 * share)
        });
        let cpu = row(&idle, |(name, m)| {
            (*name, ms(Duration::from_nanos(m.cpu_ns)) * share)
        });
        table.push(Row::new("wake-ups in 30 s idle", Number, switches).goal(AtMost(0.0)));
        table.push(Row::new("  CPU", Ms, cpu));
    }
}

fn large(all: &[Candidate], effort: &Effort, table: &mut Table) {
    let able = all.iter().filter(|who| who.knows_splits());
    let measured = able.filter_map(|who| Some((who.name, merge_into(who, effort.large, 10)?)));
    let measured: Vec<_> = measured.collect();
    let peak = row(&measured, |(name, m)| (*name, m.peak_rss_kib as f64));
    let rss = row(&measured, |(name, m)| (*name, m.rss_kib as f64));
    let figure = format!("peak RSS, {} KiB merged", effort.large >> 10);
    table.push(Row::new(&figure, Kib, peak));
    table.push(Row::new("  RSS afterwards", Kib, rss));
}

/// From exec to somewhere, beside hello world.
fn processes(all: &[Candidate], hello: &Path, effort: &Effort, table: &mut Table) {
    let bench = Bench::start();
    for who in all {
        drop(Lane::of_config_map(&bench, who));
    }
    let all = all.iter().map(Runner::Client);
    let all: Vec<Runner> = all.chain([Runner::Hello(hello)]).collect();
    let names: Vec<_> = all.iter().map(Runner::name).collect();
    let named = |values: Vec<f64>| names.iter().copied().zip(values).collect();
    let times = in_turn(&all, effort.rounds, |who| who.first_byte(&bench));
    let goal = TimesOf(HELLO, 2.5);
    table.push(Row::new("exec to first byte sent, median", Ms, named(times)).goal(goal));
    let times = in_turn(&all, effort.rounds, |who| who.onetime(&bench));
    table.push(Row::new(
        "-onetime, whole process, median",
        Ms,
        named(times),
    ));
    let counts = all.iter().zip(&names);
    let counts = counts.filter_map(|(who, name)| Some((*name, who.instructions(&bench)?)));
    let counts: Vec<_> = counts.collect();
    if !counts.is_empty() {
        table.push(Row::new("  instructions", Number, counts));
    }
}

/// One object, changed now and then.
fn single_changes(all: &[Candidate], effort: &Effort, table: &mut Table) {
    let (config_maps, splits) = (Bench::start(), Bench::start());
    let mut lanes: Vec<Lane> = all
        .iter()
        .map(|who| Lane::of_config_map(&config_maps, who))
        .collect();
    let able = all.iter().filter(|who| who.knows_splits());
    lanes.extend(able.map(|who| Lane::of_split(&splits, who)));
    changes(&mut lanes, effort.rounds, effort.pace);
    let (config_maps, splits) = lanes.split_at_mut(all.len());
    for (what, lanes) in [("ConfigMap", config_maps), ("TrafficSplit", splits)] {
        let figure = format!("{what} changed -> file, median");
        let latencies = |percent| row(&*lanes, |lane| (lane.who.name, lane.latency(percent)));
        table.push(Row::new(&figure, Ms, latencies(50)).goal(TimesOf(LOOP, 2.0)));
        table.push(Row::new("  99th percentile", Ms, latencies(99)));
        let cpu = row(&*lanes, |lane| (lane.who.name, lane.cpu()));
        table.push(Row::new("  CPU for one change", Ms, cpu));
        let calls = lanes.iter_mut();
        let calls = calls.map(|lane| {
            let calls = lane.system_calls(effort.few.min(5), effort.pace);
            (lane.who.name, calls)
        });
        table.push(Row::new(
            "  system calls for one change",
            Number,
            calls.collect(),
        ));
    }
}

/// Many small objects, of which one changes now and then.
fn objects(all: &[Candidate], count: u32, effort: &Effort, table: &mut Table) {
    let bench = Bench::start();
    let follow = |who| Lane::of_small(&bench, who, follow_small(&bench, who, count));
    let mut lanes: Vec<Lane> = all.iter().map(follow).collect();
    let rss = row(&lanes, |lane| {
        (lane.who.name, lane.process.measure().rss_kib as f64)
    });
    let figure = format!("RSS, {count} watched");
    table.push(Row::new(&figure, Kib, rss));
    changes(&mut lanes, effort.few, effort.pace);
    let latencies = row(&lanes, |lane| (lane.who.name, lane.latency(50)));
    table.push(Row::new("  changed -> file, median", Ms, latencies));
    let cpu = row(&lanes, |lane| (lane.who.name, lane.cpu()));
    table.push(Row::new("  CPU for one change", Ms, cpu));
}
