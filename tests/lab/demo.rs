//! `lab demo`: a canary by hand. Weights in a ConfigMap are changed through the API; crossover puts
//! the files on disk, a real Envoy follows, and a steady load shows it.

use crate::kit::arrival::Arrivals;
use crate::kit::crossover::Crossover;
use crate::kit::envoy::Envoy;
use crate::kit::load::{Load, Tally, share, total};
use crate::kit::site::{BACKENDS, Site};
use crate::kit::xds::{CONFIG_MAP, Watching};
use crate::screen::{Row, Screen};
use crate::stop::Stop;
use pico_args::Arguments;
use std::error::Error;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// The story: forward step by step, and back at once.
const STEPS: [[u32; 2]; 7] = [
    [100, 0],
    [90, 10],
    [75, 25],
    [50, 50],
    [25, 75],
    [0, 100],
    [100, 0],
];
/// How long each step's traffic is counted.
const STEP_MS: u64 = 2000;
const REQUESTS_PER_SECOND: u32 = 500;
/// A change that takes longer than this to arrive has not arrived.
const GIVE_UP: Duration = Duration::from_secs(10);
/// Between two looks at what has come in.
const FRAME: Duration = Duration::from_millis(60);

/// Plays the story. With `--keep` everything goes on until Ctrl-C, for the user's own changes.
pub fn run(mut arguments: Arguments) -> Result<ExitCode, Box<dyn Error>> {
    let keep = arguments.contains("--keep");
    let lasts = arguments.opt_value_from_str("--step-ms")?;
    let lasts = Duration::from_millis(lasts.unwrap_or(STEP_MS));
    let rest = arguments.finish();
    if !rest.is_empty() {
        return Err(format!("unexpected {rest:?}").into());
    }
    let stop = Stop::install()?;
    let code = stop.guard(|| play(stop, lasts, keep));
    if stop.is_set() {
        Screen::new().say("\n  Stopped: nothing is left running.");
    }
    Ok(code)
}

/// Everything that runs, in the order in which it ends.
struct Stage {
    arrivals: Arrivals,
    load: Load,
    envoy: Envoy,
    crossover: Crossover,
    site: Site,
}

impl Stage {
    /// Everything but the load waits for the one before it.
    fn start() -> Stage {
        let site = Site::start(Watching::PathOnly);
        site.shift(&version(0), STEPS[0]);
        let crossover = site.crossover();
        crossover.wait_for_line("published");
        let envoy = site.envoy();
        Stage {
            arrivals: Arrivals::watch(site.dir(), "rds.yaml"),
            load: site.load(&envoy, REQUESTS_PER_SECOND),
            envoy,
            crossover,
            site,
        }
    }

    fn introduce(&self, screen: &Screen) {
        let url = self.site.server.url();
        screen.title("A real Envoy shifts traffic because a ConfigMap changes");
        screen.say("");
        screen.fact("API server", &format!("{url} (in memory)"));
        screen.fact(
            "",
            &format!("kubectl --server {url} get cm {CONFIG_MAP} -o yaml"),
        );
        screen.fact(
            "crossover",
            &format!(
                "-watch -configmap {CONFIG_MAP}, process {}",
                self.crossover.pid()
            ),
        );
        screen.fact(
            "files",
            &self.site.dir().join("current").display().to_string(),
        );
        screen.fact(
            "Envoy",
            &format!(
                "{} by path only, process {}",
                self.site.url(&self.envoy),
                self.envoy.pid()
            ),
        );
        screen.fact(
            "load",
            &format!("{REQUESTS_PER_SECOND} requests a second through Envoy"),
        );
        screen.heads(BACKENDS);
    }

    /// How far a step has come since its change, and since when it is in the traffic. `failed`:
    /// requests that failed before it.
    fn look(&mut self, step: usize, changed: Instant, failed: usize) -> (Row, Option<Instant>) {
        let tally = self.load.tally();
        let served = tally.versions.get(&version(step));
        if served.is_none() && changed.elapsed() > GIVE_UP {
            let said = self.crossover.lines().join("\n");
            panic!("a change has not reached the traffic; crossover says:\n{said}");
        }
        let mut row = Row {
            weights: Some(STEPS[step]),
            failed: tally.failures.len() - failed,
            answers: served.map_or(0, |v| total(&v.answers)),
            shares: served.map(|v| BACKENDS.map(|name| share(&v.answers, name))),
            ..Row::default()
        };
        // The first step was there before the load was.
        if step > 0 {
            let mark = format!("version_info: \"{}\"\n", version(step));
            let file = self
                .arrivals
                .first(|bytes| bytes.starts_with(mark.as_bytes()));
            row.file = file.map(|at| at - changed);
            row.traffic = served.map(|v| v.first - changed);
        }
        let arrived = step == 0 || row.file.is_some();
        (row, served.filter(|_| arrived).map(|v| v.first))
    }
}

/// What a step's routes are marked with.
fn version(step: usize) -> String {
    format!("step-{step}")
}

fn play(stop: Stop, lasts: Duration, keep: bool) -> ExitCode {
    let screen = Screen::new();
    let mut stage = Stage::start();
    stage.introduce(&screen);
    let mut rows = Vec::new();
    let mut failed = 0;
    for (step, weights) in STEPS.into_iter().enumerate() {
        let changed = Instant::now();
        if step > 0 {
            stage.site.put(&version(step), weights);
        }
        let row = loop {
            let (row, since) = stage.look(step, changed, failed);
            screen.draw(&row);
            if since.is_some_and(|since| since.elapsed() > lasts) {
                break row;
            }
            if !stop.pause(FRAME) {
                return stop.code();
            }
        };
        screen.settle(&row);
        failed += row.failed;
        rows.push(row);
    }
    let code = conclude(&screen, &rows, &stage.load.tally());
    if keep {
        follow(&stage, &screen, stop);
    }
    code
}

/// What it all came to. A failure, if a request failed or a share is not what its weights say.
fn conclude(screen: &Screen, rows: &[Row], tally: &Tally) -> ExitCode {
    let failed = tally.failures.len();
    let (changes, requests) = (rows.len() - 1, tally.total() + failed as u64);
    let none = if failed == 0 {
        "none".into()
    } else {
        failed.to_string()
    };
    screen.say(&format!(
        "\n  {changes} changes, {requests} requests, {none} failed."
    ));
    let [file, traffic] = [|row: &Row| row.file, |row: &Row| row.traffic].map(|time| {
        let mut times: Vec<Duration> = rows.iter().filter_map(time).collect();
        times.sort();
        times[times.len() / 2].as_secs_f64() * 1e3
    });
    screen.say(&format!(
        "  From the change to the file {file:.1} ms, to the first answer {traffic:.1} ms (medians)."
    ));
    if let Some(failure) = tally.failures.first() {
        screen.say(&format!("  The first that failed: {failure}"));
    }
    let odd: Vec<&Row> = rows.iter().filter(|row| !row.is_likely()).collect();
    for [one, other] in odd.iter().filter_map(|row| row.weights) {
        screen.say(&format!(
            "  The share at weights {one} {other} is not what they say."
        ));
    }
    match failed == 0 && odd.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// The share of the last second, until Ctrl-C.
fn follow(stage: &Stage, screen: &Screen, stop: Stop) {
    let url = stage.site.server.url();
    screen.say("\n  Your turn, until Ctrl-C:");
    screen.say(&format!(
        "  kubectl --server {url} edit configmap {CONFIG_MAP}"
    ));
    let mut tallies = vec![stage.load.tally()];
    while stop.pause(FRAME) {
        tallies.push(stage.load.tally());
        let oldest = tallies.len().saturating_sub(16);
        tallies.drain(..oldest);
        let new = tallies[tallies.len() - 1].since(&tallies[0]);
        let shares = (total(&new.answers) > 0).then(|| BACKENDS.map(|b| share(&new.answers, b)));
        screen.draw(&Row {
            shares,
            failed: new.failures.len(),
            ..Row::default()
        });
    }
}
