//! The chapter of the demo in which a backend is replaced, its cluster and the route to it in one
//! change, and Envoy is told of it step by step.

use crate::screen::Screen;
use crate::stage::{REPLACED, Stage};
use crate::stop::Stop;
use std::time::{Duration, Instant};

/// A change that takes longer than this to arrive has not arrived.
const GIVE_UP: Duration = Duration::from_secs(10);
const GLANCE: Duration = Duration::from_millis(1);

/// Plays it; `false`: a signal came.
pub fn play(stage: &Stage, screen: &Screen, stop: Stop, lasts: Duration) -> bool {
    let [old, new] = REPLACED;
    screen.part(
        "A backend replaced: its cluster and its route in one kubectl apply",
        REPLACED,
    );
    stage.without_weights();
    let before = stage.load.tally();
    stage.replace().finish();
    let began = Instant::now();
    let arrived = || {
        let tally = stage.load.tally().since(&before);
        tally.answers.contains_key(new)
    };
    while !arrived() {
        assert!(began.elapsed() < GIVE_UP, "{new} has not answered");
        if !stop.pause(GLANCE) {
            return false;
        }
    }
    let line = stage.crossover.wait_for_line("steps=");
    if !stop.pause(lasts) {
        return false;
    }
    let (clusters, all) = (ms(&line, "clusters_us"), ms(&line, "latency_us"));
    let steps = [
        (
            all - clusters,
            format!("clusters  Envoy gets {new}, and keeps {old}"),
        ),
        (all, format!("routes    {new} takes the traffic")),
        (
            15_000.0,
            format!("drop      {old} goes: no request can need it any more"),
        ),
    ];
    for (after, what) in steps {
        screen.say(&format!("  {:>10}  {what}", format!("{after:.1} ms")));
    }
    let tally = stage.load.tally().since(&before);
    let failed = match tally.failures.len() {
        0 => "none".to_string(),
        some => some.to_string(),
    };
    let requests = tally.total() + tally.failures.len() as u64;
    screen.say(&format!("  {requests} requests meanwhile, {failed} failed"));
    true
}

/// A number of microseconds that crossover's line tells, in milliseconds.
fn ms(line: &str, field: &str) -> f64 {
    let value = line
        .split_once(&format!(" {field}="))
        .map_or("", |(_, rest)| rest);
    let value = value.split(' ').next().unwrap_or_default();
    value.parse::<f64>().unwrap_or_default() / 1e3
}
