//! The slow part of the soak: long silences, long outages and long waits, in real time. Each runs
//! beside the others, with a server and a crossover of its own.

mod outage;
mod silence;

use super::part;
use super::report::Report;
use crate::stop::Stop;
use jiff::Timestamp;
use std::fs;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use testkit::apiserver::request::Request;
use testkit::apiserver::{Dialect, Options, Server};
use testkit::candidate::release;
use testkit::crossover::{Crossover, command_of};
use testkit::objects::config_map;
use testkit::setup::Setup;

/// A deadline's margin on a busy machine.
const LATE: Duration = Duration::from_secs(2);
const MINUTE: Duration = Duration::from_secs(60);
const NAMES: [&str; 3] = ["cds", "lds", "rds"];

/// Starts all of them.
pub fn start(report: &Arc<Report>, stop: Stop) -> Vec<JoinHandle<()>> {
    vec![
        part("frozen", report, move |report| {
            silence::frozen_watch(&report, stop)
        }),
        part("frozen", report, move |report| {
            silence::frozen_change(&report, stop)
        }),
        part("outage", report, move |report| {
            outage::long_outage(&report, stop)
        }),
        part("token", report, move |report| {
            silence::rotated_token(&report, stop)
        }),
        part("retry", report, move |report| {
            outage::retry_after(&report, stop)
        }),
        part("back-off", report, move |report| {
            outage::backoff_reset(&report, stop)
        }),
        part("idle", report, move |report| {
            silence::idle_watches(&report, stop)
        }),
    ]
}

/// Starts a server with these ConfigMaps, and makes a directory with a token.
fn set_up(names: &[&str]) -> Setup {
    // The old format has bookmarks with a difference, which take minutes to come. The storm has both.
    let setup = Setup::with(Options {
        dialect: Dialect::V1_20,
        ..Options::default()
    });
    fs::write(setup.path("token"), "token-1").expect("the directory is ours");
    for name in names {
        setup.server.create(object(name, 0));
    }
    setup
}

/// Starts the release binary, which follows these ConfigMaps.
fn follow(setup: &Setup, url: &str, names: &[&str], interval: &str) -> Crossover {
    let mut command = command_of(&release("crossover"), &["-watch", "-namespace", "default"]);
    command.args(["-apiserver", url, "-sync-interval", interval]);
    command.args(["-token-file", &setup.path("token")]);
    command.arg("-output-dir").arg(setup.output());
    for name in names {
        command.args(["-configmap", name]);
    }
    command.env("RUST_LOG", "debug");
    Crossover::spawn(command)
}

/// Returns whether the file of a ConfigMap has the version of this number.
fn shows(setup: &Setup, name: &str, number: u32) -> bool {
    let path = setup.file(&format!("{name}.yaml"));
    fs::read_to_string(path).is_ok_and(|text| text == format!("number: {number}\n"))
}

fn object(name: &str, number: u32) -> serde_json::Value {
    let text = format!("number: {number}\n");
    config_map(name, &[(&format!("{name}.yaml"), &text)])
}

/// Waits for something that takes longer than the kit would wait. Returns `None` if it does not come.
fn wait<T>(stop: Stop, limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if Instant::now() > deadline || stop.is_set() {
            return None;
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// Returns the watch requests so far, each with the time for which it was asked to last.
fn watches(server: &Server) -> Vec<(Request, Duration)> {
    let requests = server.requests().into_iter().filter(Request::is_watch);
    let asked = |request: &Request| {
        let text = request.query("timeoutSeconds").unwrap_or_default();
        Duration::from_secs(text.parse().unwrap_or_default())
    };
    requests
        .map(|request| (request.clone(), asked(&request)))
        .collect()
}

/// Returns the lines that have this text, each with the time at which it was logged.
fn logged(crossover: &Crossover, text: &str) -> Vec<(Timestamp, String)> {
    let lines = crossover
        .lines()
        .into_iter()
        .filter(|line| line.contains(text));
    let at = |line: &str| line.split(' ').next()?.parse().ok();
    lines.filter_map(|line| Some((at(&line)?, line))).collect()
}

fn between(from: Timestamp, to: Timestamp) -> Duration {
    to.duration_since(from).try_into().unwrap_or_default()
}
