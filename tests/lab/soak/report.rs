//! The report of a soak: violations as they happen, a line now and then, a table at the end.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};
use testkit::crossover::Measured;

/// The same violation is told no more often than this.
const TOLD_AT_MOST: usize = 10;

/// Shared by everything that runs.
pub struct Report {
    began: Instant,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Where, and how often.
    violations: BTreeMap<String, usize>,
    rows: Vec<(String, String, String)>,
}

impl Report {
    pub fn new() -> Report {
        Report {
            began: Instant::now(),
            state: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics with it")
    }

    /// A line of progress.
    pub fn say(&self, part: &str, what: impl Display) {
        let seconds = self.began.elapsed().as_secs();
        println!("{:>3}:{:02}  {part:<8}{what}", seconds / 60, seconds % 60);
    }

    /// Something does not hold. `rule`: what, in the same words each time.
    pub fn violated(&self, part: &str, rule: &str, what: impl Display) {
        let count = {
            let mut state = self.lock();
            let count = state
                .violations
                .entry(format!("{part}: {rule}"))
                .or_default();
            *count += 1;
            *count
        };
        if count <= TOLD_AT_MOST {
            self.say(part, format!("VIOLATED: {rule}: {what}"));
        }
    }

    /// A limit that a measured value must keep.
    pub fn limit(&self, part: &str, figure: &str, measured: impl Display, holds: bool, goal: &str) {
        if !holds {
            self.violated(part, figure, format!("{measured}, must be {goal}"));
        }
        self.row(part, figure, measured, goal);
    }

    /// A row of the table.
    pub fn row(&self, part: &str, figure: &str, measured: impl Display, goal: &str) {
        let row = (
            format!("{part}: {figure}"),
            measured.to_string(),
            goal.to_owned(),
        );
        self.lock().rows.push(row);
    }

    /// Prints the table; true: nothing was violated.
    pub fn print(&self) -> bool {
        let state = self.lock();
        println!("\n{:<62}{:>24}  must be", "figure", "measured");
        for (figure, measured, goal) in &state.rows {
            println!("{figure:<62}{measured:>24}  {goal}");
        }
        println!("\nran for {}", minutes(self.began.elapsed()));
        for (rule, count) in &state.violations {
            println!("VIOLATED {count} times: {rule}");
        }
        if state.violations.is_empty() {
            println!("nothing was violated");
        }
        state.violations.is_empty()
    }
}

/// What [`equal`] asks for.
pub const EQUAL: &str = "equal, but for one idle connection";

/// Whether as many descriptors are open; a connection may wait for the next request, which ends it.
pub fn equal(one: &Measured, other: &Measured) -> bool {
    one.descriptors.abs_diff(other.descriptors) <= 1
}

/// 12m34s
pub fn minutes(time: Duration) -> String {
    format!("{}m{:02}s", time.as_secs() / 60, time.as_secs() % 60)
}

/// 12.34 ms
pub fn ms(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}

/// 1.2 s
pub fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

/// Of times in any order.
pub fn percentile(times: &[Duration], percent: usize) -> Duration {
    let mut times = times.to_vec();
    times.sort();
    let at = (times.len() * percent / 100).min(times.len().saturating_sub(1));
    times.get(at).copied().unwrap_or_default()
}
