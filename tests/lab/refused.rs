//! The chapter of the demo in which Envoy refuses a slip: it is taken back while traffic flows, the
//! log says why, and an Envoy that starts now starts on what was accepted.

use crate::screen::Screen;
use crate::stage::{SLIPPED, Stage, address};
use crate::stop::Stop;
use std::time::{Duration, Instant};
use testkit::envoy::Envoy;
use testkit::envoy_config::Watching;
use testkit::load::{Load, Tally};

/// A change that takes longer than this to arrive has not arrived.
const GIVE_UP: Duration = Duration::from_secs(10);
const GLANCE: Duration = Duration::from_millis(1);
/// The text is not wider than this.
const WIDTH: usize = 72;
/// Of the second Envoy.
const ANSWERS: u64 = 50;

/// Plays it; `false`: a signal came.
pub fn play(stage: &Stage, screen: &Screen, stop: Stop, lasts: Duration) -> bool {
    let [old, new] = SLIPPED;
    screen.part(
        "A slip that Envoy refuses: weights 10 and \"ninety\", in good YAML",
        SLIPPED,
    );
    let before = stage.load.tally();
    let (told, applying) = stage.slip();
    let line = stage.crossover.wait_for_line("refused by Envoy; restored");
    tell(
        screen,
        told,
        "refused",
        "Envoy took rds.yaml for wrong; it is taken back",
    );
    applying.finish();
    screen.say("\n  What the operator reads, of crossover and of Envoy:");
    say_wrapped(screen, &line);
    if let Some(why) = why(&stage.envoy) {
        say_wrapped(screen, &why);
    }
    if !stop.pause(lasts) {
        return false;
    }
    let second = Envoy::start(&Watching::PathOnly.bootstrap(stage.dir.path()));
    let load = Load::start(&address(&second), 500);
    let tally = load.wait_for("answers", &Tally::default(), |tally| {
        tally.total() + tally.failures.len() as u64 >= ANSWERS
    });
    drop(load);
    let right = tally.answers.get(old).copied().unwrap_or_default();
    let all = tally.total() + tally.failures.len() as u64;
    screen.say(&format!(
        "\n  A second Envoy, started on what is on disk: {right} of {all} answers by {old}"
    ));
    drop(second);
    let (told, applying) = stage.put_right();
    let arrived = || stage.load.tally().since(&before).answers.contains_key(new);
    while !arrived() {
        assert!(told.elapsed() < GIVE_UP, "{new} has not answered");
        if !stop.pause(GLANCE) {
            return false;
        }
    }
    let what = format!("weights 10 and 90: {new} answers");
    tell(screen, told, "put right", &what);
    applying.finish();
    if !stop.pause(lasts) {
        return false;
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

fn tell(screen: &Screen, began: Instant, word: &str, what: &str) {
    let after = format!("{:.1} ms", began.elapsed().as_secs_f64() * 1e3);
    screen.say(&format!("  {after:>10}  {word:<9} {what}"));
}

/// Envoy's own last word on a file.
fn why(envoy: &Envoy) -> Option<String> {
    let log = envoy.log();
    let line = log
        .lines()
        .rfind(|line| line.contains("Filesystem config update"))?;
    // What follows holds the whole file, and what comes before is of Envoy's own sources.
    let end = line.find("): ").map_or(line.len(), |at| at + 1);
    let time = line.split_inclusive(']').next().unwrap_or_default();
    let begin = line.find("Filesystem")?;
    Some(format!("{time} {}", line.get(begin..end)?))
}

/// Says a line of a log over as many lines as it takes.
fn say_wrapped(screen: &Screen, text: &str) {
    let mut line = String::new();
    // Envoy has words that are longer than a line.
    let words = text.split_whitespace();
    let words = words.flat_map(|word| word.as_bytes().chunks(WIDTH));
    for word in words.map(String::from_utf8_lossy) {
        if !line.is_empty() && line.len() + 1 + word.len() > WIDTH {
            screen.say(&format!("    {line}"));
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line += &word;
    }
    screen.say(&format!("    {line}"));
}
