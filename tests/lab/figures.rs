//! `lab figures`: what the release binary takes of a machine, with the goal beside each figure.

use crate::bench;
use crate::kit::elf::Elf;
use crate::kit::figures::{
    Broken, idle_for, largest_config_map, largest_merge, release, three_tls_watches,
};
use crate::stop::Stop;
use pico_args::Arguments;
use std::error::Error;
use std::fmt::Display;
use std::process::ExitCode;
use std::time::Duration;

/// The Go original, as it was measured on a machine like this one (not here, not now).
mod original {
    pub const SIZE: &str = "7,401,632";
    pub const RSS: &str = "9,328 for one";
    pub const THREADS: &str = "7";
    pub const LATENCY: &str = "1.7 ms";
    pub const CPU: &str = "0.8 ms";
    pub const ONETIME: &str = "11 ms";
    pub const SPLIT_LATENCY: &str = "9.6 ms";
    pub const SPLIT_CPU: &str = "2.8 ms";
}

/// How long nothing is asked of a process that should do nothing.
const IDLE: Duration = Duration::from_secs(30);
const CHANGES: u32 = 300;
const RUNS: u32 = 100;

/// Prints the table.
pub fn run(arguments: Arguments) -> Result<ExitCode, Box<dyn Error>> {
    let rest = arguments.finish();
    if !rest.is_empty() {
        return Err(format!("unexpected {rest:?}").into());
    }
    let stop = Stop::install()?;
    Ok(stop.guard(|| {
        print();
        ExitCode::SUCCESS
    }))
}

fn print() {
    row("figure", "measured", "goal", "Go original");
    size();
    memory();
    for https in [false, true] {
        changes(https);
    }
    splits();
    onetime();
    floors();
}

fn splits() {
    let changes = bench::split_changes(CHANGES);
    let [median, worst] =
        [50, 99].map(|percent| ms(bench::percentile(&changes.latencies, percent)));
    row(
        "TrafficSplit -> file, http, median",
        median,
        "0.15x",
        original::SPLIT_LATENCY,
    );
    row("  99th percentile", worst, "", "");
    row(
        "CPU per TrafficSplit change, http",
        ms(changes.cpu),
        "0.25x",
        original::SPLIT_CPU,
    );
    let measured = largest_merge();
    row(
        "peak RSS, 1 MiB merged, KiB",
        grouped(measured.peak_rss_kib),
        "9,000",
        "",
    );
    row("  RSS afterwards, KiB", grouped(measured.rss_kib), "", "");
}

fn row(figure: &str, measured: impl Display, goal: &str, original: &str) {
    println!("{figure:<44}{measured:>18}  {goal:<12}{original}");
}

fn size() {
    let elf = Elf::read(&release());
    let kind = match (elf.position_independent, elf.interpreter) {
        (true, false) => "static PIE",
        (true, true) => "dynamic PIE",
        (false, _) => "no PIE",
    };
    row(
        "stripped binary, bytes",
        grouped(elf.size),
        "2,000,000",
        original::SIZE,
    );
    row("", kind, "static PIE", "");
}

fn memory() {
    let (_bench, crossover) = three_tls_watches();
    let idle = idle_for(IDLE, &crossover);
    row(
        "RSS, three TLS watches idle, KiB",
        grouped(idle.rss_kib),
        "2,300",
        original::RSS,
    );
    row("threads", idle.threads, "1", original::THREADS);
    row(
        "context switches in 30 s idle",
        idle.context_switches,
        "5",
        "",
    );
    row(
        "CPU in 30 s idle",
        us(Duration::from_nanos(idle.cpu_ns)),
        "",
        "",
    );
    for (broken, what) in [
        (Broken::AtItsEnd, "bad at its end"),
        (Broken::AtItsBeginning, "bad at its beginning"),
    ] {
        let measured = largest_config_map(broken);
        let figure = format!("peak RSS, 1 MiB, {what}, KiB");
        row(&figure, grouped(measured.peak_rss_kib), "8,000", "");
        row("  RSS afterwards, KiB", grouped(measured.rss_kib), "", "");
    }
}

fn changes(https: bool) {
    let scheme = if https { "https" } else { "http" };
    let changes = bench::changes(https, CHANGES);
    let [median, worst] =
        [50, 99].map(|percent| ms(bench::percentile(&changes.latencies, percent)));
    let goal = if https { "" } else { "0.6x" };
    let original = |text| if https { "" } else { text };
    row(
        &format!("ConfigMap -> file, {scheme}, median"),
        median,
        goal,
        original(original::LATENCY),
    );
    row("  99th percentile", worst, "", "");
    let goal = if https { "" } else { "0.4x" };
    row(
        &format!("CPU per change, {scheme}"),
        ms(changes.cpu),
        goal,
        original(original::CPU),
    );
    row(
        &format!("system calls per change, {scheme}"),
        bench::system_calls(https, 50),
        "",
        "",
    );
}

fn onetime() {
    for https in [false, true] {
        let scheme = if https { "https" } else { "http" };
        let times = bench::onetime(https, RUNS);
        let (goal, original) = if https {
            ("0.4x", original::ONETIME)
        } else {
            ("", "")
        };
        let median = ms(bench::percentile(&times, 50));
        row(
            &format!("-onetime, whole process, {scheme}, median"),
            median,
            goal,
            original,
        );
    }
}

fn floors() {
    let median = |times: &[Duration]| ms(bench::percentile(times, 50));
    println!("\nfor scale, here and now");
    row(
        "crossover -version, whole process, median",
        median(&bench::version(RUNS)),
        "",
        "",
    );
    for (sync, what) in [
        (false, "write and rename a file"),
        (true, "the same, synced"),
    ] {
        row(what, median(&bench::rename(CHANGES, sync)), "", "");
    }
}

fn ms(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1e3)
}

fn us(time: Duration) -> String {
    format!("{:.0} us", time.as_secs_f64() * 1e6)
}

/// 1,234,567
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<&[u8]> = digits.as_bytes().rchunks(3).rev().collect();
    let groups: Vec<_> = groups.into_iter().map(String::from_utf8_lossy).collect();
    groups.join(",")
}
