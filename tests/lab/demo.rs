//! `lab demo`: what docs/getting-started.md does with a cluster. A ConfigMap and TrafficSplits are
//! changed through the API; crossover puts the files on disk, a real Envoy follows, and a steady
//! load shows it. Then a backend is replaced, and a slip is refused and taken back.

use crate::screen::{Row, Screen};
use crate::stage::{Part, REQUESTS_PER_SECOND, Stage, mirror};
use crate::stop::Stop;
use crate::writer::Applying;
use crate::{refused, replaced};
use pico_args::Arguments;
use std::error::Error;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use testkit::envoy_config::{CONFIG_MAP, SERVICE};
use testkit::examples;
use testkit::load::{Tally, share, total};

/// How long each step's traffic is counted.
const STEP_MS: u64 = 1800;
/// A change that takes longer than this to arrive has not arrived.
const GIVE_UP: Duration = Duration::from_secs(10);
/// Between two looks at what has come in.
const FRAME: Duration = Duration::from_millis(60);
/// The same while a change is under way.
const GLANCE: Duration = Duration::from_millis(1);
/// So many answers after Envoy has loaded routes, no earlier ones are on their way any more.
const SETTLED: u64 = 3;

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

fn introduce(stage: &Stage, screen: &Screen) {
    let url = stage.server.url();
    screen.title("A real Envoy shifts traffic: a ConfigMap, TrafficSplits, an HTTPRoute change");
    screen.say("");
    screen.fact("API server", &format!("{url} (in memory)"));
    screen.fact("", &format!("kubectl --server {url} get cm,ts -o yaml"));
    screen.fact(
        "crossover",
        &format!("-watch -configmap {CONFIG_MAP} -trafficsplit {SERVICE}"),
    );
    screen.fact(
        "",
        &format!(
            "-httproute {SERVICE} -on-refusal restore, process {}",
            stage.crossover.pid()
        ),
    );
    screen.fact(
        "files",
        &stage.dir.path().join("current").display().to_string(),
    );
    screen.fact(
        "Envoy",
        &format!(
            "{} by path only, process {}",
            stage.url(),
            stage.envoy.pid()
        ),
    );
    screen.fact(
        "load",
        &format!("{REQUESTS_PER_SECOND} requests a second through Envoy"),
    );
    screen.fact("changes", stage.writer.describe());
    screen.heads();
}

fn title(part: Part) -> &'static str {
    match part {
        Part::ConfigMap => "The ConfigMap's own weights: example/envoy-xds.configmap.yaml, edited",
        Part::Splits => "TrafficSplits: example/podinfo-v0.trafficsplit.yaml, then v1 to v4",
        Part::Flagger => "A canary as Flagger steps it: up by 10, then promoted",
        Part::HttpRoute => "An HTTPRoute takes over, and moves no weight; then the next canary",
    }
}

/// A step on its way from the cluster into the traffic.
struct Step {
    part: Part,
    weights: [u32; 2],
    /// When the cluster was told; nothing for the step that was there before the load.
    changed: Option<Instant>,
    applying: Applying,
    /// How often Envoy had loaded routes before.
    loads: u64,
    /// How many answers there were when Envoy had loaded these.
    loaded: Option<u64>,
    file: Option<Instant>,
    traffic: Option<Instant>,
    /// What was answered before the step is alone in the traffic, and since when it is.
    before: Option<(Tally, Instant)>,
    /// Requests that failed before the step.
    failed: usize,
}

impl Step {
    fn take(stage: &Stage, part: Part, number: usize, failed: usize) -> Step {
        let loads = stage.loaded();
        let first = (part, number) == (Part::ConfigMap, 0);
        let change = (!first).then(|| stage.change(part, number));
        let (changed, applying) = change.unzip();
        Step {
            part,
            weights: part.steps()[number],
            changed,
            applying: applying.unwrap_or_default(),
            loads,
            loaded: None,
            file: None,
            traffic: None,
            before: first.then(|| (Tally::default(), Instant::now())),
            failed,
        }
    }

    /// How far it has come.
    fn look(&mut self, stage: &mut Stage) -> Row {
        let tally = stage.load.tally();
        if let (None, Some(changed)) = (&self.before, self.changed) {
            self.follow(stage, &tally, changed);
            if self.before.is_none() && changed.elapsed() > GIVE_UP {
                let said = stage.crossover.lines().join("\n");
                panic!("a change has not reached the traffic; crossover says:\n{said}");
            }
        }
        // Who tells of the file may be late; what Envoy has loaded was there.
        let file = self.file.map(|at| self.traffic.map_or(at, |t| at.min(t)));
        let since = |at: Option<Instant>| Some(at? - self.changed?);
        let new = self.before.as_ref().map(|(before, _)| tally.since(before));
        let answers = new.map(|new| new.answers).unwrap_or_default();
        let backends = self.part.backends();
        Row {
            weights: Some(self.weights),
            shares: (total(&answers) > 0).then(|| backends.map(|name| share(&answers, name))),
            answers: total(&answers),
            file: since(file),
            traffic: since(self.traffic),
            failed: tally.failures.len() - self.failed,
        }
    }

    fn follow(&mut self, stage: &mut Stage, tally: &Tally, changed: Instant) {
        let pairs = self.part.backends().into_iter().zip(self.weights);
        let want: Vec<(String, u64)> = pairs.map(|(b, w)| (b.into(), w.into())).collect();
        let arrived = |bytes: &[u8]| examples::weights(bytes).as_ref() == Some(&want);
        self.file = self.file.or_else(|| stage.arrivals.first(changed, arrived));
        let Some(loaded) = self.loaded else {
            // The answers are counted first: none of them is taken for one by the new routes.
            self.loaded = (stage.loaded() > self.loads).then(|| stage.load.tally().total());
            return;
        };
        let new = tally.total() - loaded;
        if new > 0 && self.traffic.is_none() {
            self.traffic = Some(Instant::now());
        }
        if new >= SETTLED && self.file.is_some() {
            self.before = Some((tally.clone(), Instant::now()));
        }
    }

    /// Whether its traffic has been counted for so long.
    fn has_lasted(&self, lasts: Duration) -> bool {
        let before = self.before.as_ref();
        before.is_some_and(|(_, since)| since.elapsed() > lasts)
    }
}

fn play(stop: Stop, lasts: Duration, keep: bool) -> ExitCode {
    let screen = Screen::new();
    let mut stage = Stage::start();
    introduce(&stage, &screen);
    let mut rows = Vec::new();
    let mut failed = 0;
    for part in Part::ALL {
        screen.part(title(part), part.backends());
        stage.prepare(part);
        for number in 0..part.steps().len() {
            let mut step = Step::take(&stage, part, number, failed);
            let row = loop {
                let row = step.look(&mut stage);
                screen.draw(&row);
                if row.shares.is_some() && step.has_lasted(lasts) {
                    break row;
                }
                let wait = if step.before.is_some() { FRAME } else { GLANCE };
                if !stop.pause(wait) {
                    return stop.code();
                }
            };
            step.applying.finish();
            screen.settle(&row);
            failed += row.failed;
            rows.push(row);
        }
    }
    let mirrored = stage.mirrored();
    for chapter in [replaced::play, refused::play] {
        if !chapter(&stage, &screen, stop, lasts) {
            return stop.code();
        }
    }
    let code = conclude(&screen, &rows, &stage, mirrored);
    if keep {
        follow(&stage, &screen, stop);
    }
    code
}

/// What it all came to. A failure, if a request failed or a share is not what its weights say.
fn conclude(screen: &Screen, rows: &[Row], stage: &Stage, mirrored: usize) -> ExitCode {
    let tally = stage.load.tally();
    let failed = tally.failures.len();
    // The first row was there before, and the backend was replaced.
    let (changes, requests) = (rows.len(), tally.total() + failed as u64);
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
    screen.say(&format!(
        "  In the cluster, ConfigMap {} shows the {mirrored} files, byte for byte.",
        mirror(),
    ));
    match failed == 0 && odd.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// The share of the last second, until Ctrl-C.
fn follow(stage: &Stage, screen: &Screen, stop: Stop) {
    let url = stage.server.url();
    screen.say("\n  Your turn, until Ctrl-C:");
    screen.say(&format!(
        "  kubectl --server {url} edit httproute {SERVICE}"
    ));
    let backends = Part::Flagger.backends();
    let mut tallies = vec![stage.load.tally()];
    while stop.pause(FRAME) {
        tallies.push(stage.load.tally());
        let oldest = tallies.len().saturating_sub(16);
        tallies.drain(..oldest);
        let new = tallies[tallies.len() - 1].since(&tallies[0]);
        let shares = (total(&new.answers) > 0).then(|| backends.map(|b| share(&new.answers, b)));
        screen.draw(&Row {
            shares,
            failed: new.failures.len(),
            ..Row::default()
        });
    }
}
