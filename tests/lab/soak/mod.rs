//! `lab soak`: what only shows in many changes or in much time, of the release binary. Five parts:
//! the storm, a steady rate for ten minutes, the faults that take minutes to be over, the order of
//! changes under load, and Envoy's verdict on good ones and bad ones. They run side by side where
//! they leave each other alone.

mod checks;
mod faults;
mod follower;
mod kind;
mod manifests;
mod model;
mod observer;
mod order;
mod pause;
mod rate;
mod report;
mod slow;
mod storm;

use crate::stop::Stop;
use order::Part;
use pico_args::Arguments;
use report::Report;
use std::any::Any;
use std::error::Error;
use std::ffi::OsString;
use std::panic::{self, AssertUnwindSafe};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;
use testkit::candidate::release;

/// What was asked for.
#[derive(Clone, Copy)]
struct Scale {
    seed: u64,
    changes: usize,
    /// Of each steady rate.
    minutes: u64,
    /// Through an Envoy; of the part of the verdict twice as many.
    requests: u64,
}

/// Runs it all; exit 1: something was violated.
pub fn run(arguments: Arguments) -> Result<ExitCode, Box<dyn Error>> {
    // Flags may have one dash, as the program's own.
    let double = |argument: OsString| match argument.to_str() {
        Some(text) if text.starts_with('-') && !text.starts_with("--") => format!("-{text}").into(),
        Some(_) | None => argument,
    };
    let mut arguments = Arguments::from_vec(arguments.finish().into_iter().map(double).collect());
    let seed = arguments.opt_value_from_str("--seed")?;
    let scale = Scale {
        seed: seed.unwrap_or_else(|| u64::from(std::process::id())),
        changes: arguments
            .opt_value_from_str("--changes")?
            .unwrap_or(100_000),
        minutes: arguments.opt_value_from_str("--minutes")?.unwrap_or(10),
        requests: arguments
            .opt_value_from_str("--requests")?
            .unwrap_or(500_000),
    };
    let only: Option<String> = arguments.opt_value_from_str("--only")?;
    let rest = arguments.finish();
    if !rest.is_empty() {
        return Err(format!("unexpected {rest:?}").into());
    }
    let parts = ["storm", "rate", "slow", "order", "verdict"];
    if let Some(only) = only.as_deref().filter(|only| !parts.contains(only)) {
        return Err(format!("{only:?} is none of {parts:?}").into());
    }
    let wanted = |part: &str| only.as_deref().is_none_or(|only| only == part);
    let stop = Stop::install()?;
    let code = stop.guard(|| {
        println!("{}, seed {}", release("crossover").display(), scale.seed);
        let report = Arc::new(Report::new());
        let mut threads = Vec::new();
        if wanted("slow") {
            threads.extend(slow::start(&report, stop));
        }
        if wanted("storm") {
            threads.push(part("storm", &report, move |report| {
                // The rate's latency is measured meanwhile.
                let _ = rustix::process::setpriority_process(None, 5);
                storm::Storm::start(scale.seed, report, stop).run(scale.changes);
            }));
        }
        if wanted("rate") {
            let lasts = Duration::from_secs(60 * scale.minutes);
            threads.push(part("rate", &report, move |report| {
                rate::many_small(&report, stop, lasts);
                rate::one_large(&report, stop, lasts);
            }));
        }
        for thread in threads {
            let _ = thread.join();
        }
        // Alone: an Envoy that is starved by others measures nothing.
        for (which, requests) in [
            (Part::Order, scale.requests),
            (Part::Verdict, 2 * scale.requests),
        ] {
            if wanted(which.name()) && !stop.is_set() {
                let work = move |report| order::run(which, scale.seed, requests, &report, stop);
                let _ = part(which.name(), &report, work).join();
            }
        }
        match report.print() && !stop.is_set() {
            true => ExitCode::SUCCESS,
            false => ExitCode::FAILURE,
        }
    });
    Ok(if stop.is_set() { stop.code() } else { code })
}

/// Runs a part on a thread; the kit fails by a panic.
fn part(
    name: &'static str,
    report: &Arc<Report>,
    work: impl FnOnce(Arc<Report>) + Send + 'static,
) -> JoinHandle<()> {
    let report = report.clone();
    thread::spawn(move || {
        let mine = report.clone();
        let result = panic::catch_unwind(AssertUnwindSafe(|| work(mine)));
        if let Err(panic) = result {
            report.violated(name, "it comes to its end", reason(&*panic));
        }
    })
}

fn reason(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| text.to_string()));
    text.unwrap_or_default()
}
