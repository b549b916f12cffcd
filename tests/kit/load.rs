//! A steady load: keep-alive GETs at a given rate, tallied by what was answered.

use super::PATIENCE;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use ureq::Agent;

/// What was answered so far.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// The body of a 200, and how often it came.
    pub answers: BTreeMap<String, u64>,
    /// What came instead of a 200.
    pub failures: Vec<String>,
}

impl Tally {
    /// All answers.
    pub fn total(&self) -> u64 {
        self.answers.values().sum()
    }

    /// The part of the answers that one backend gave, 0 to 1.
    pub fn share(&self, name: &str) -> f64 {
        let count = self.answers.get(name).copied().unwrap_or(0);
        count as f64 / self.total().max(1) as f64
    }

    /// What came after an earlier tally.
    pub fn since(&self, earlier: &Tally) -> Tally {
        let before = |name: &str| earlier.answers.get(name).copied().unwrap_or(0);
        let answers = self
            .answers
            .iter()
            .map(|(name, count)| (name.clone(), count - before(name)));
        Tally {
            answers: answers.collect(),
            failures: self.failures[earlier.failures.len()..].to_vec(),
        }
    }
}

/// A load that runs until this is dropped.
pub struct Load {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    stop: AtomicBool,
    tally: Mutex<Tally>,
    changed: Condvar,
}

impl Load {
    /// Asks for `url` so many times a second, over one connection. Where answers take longer than
    /// that, it asks less often.
    pub fn start(url: &str, per_second: u32) -> Load {
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            tally: Mutex::default(),
            changed: Condvar::new(),
        });
        let (mine, url) = (shared.clone(), url.to_string());
        let thread = thread::spawn(move || run(&mine, &url, Duration::from_secs(1) / per_second));
        Load {
            shared,
            thread: Some(thread),
        }
    }

    /// What was answered so far.
    pub fn tally(&self) -> Tally {
        self.shared.tally.lock().expect("no panic").clone()
    }

    /// Waits until the tally since an earlier one is such as is wanted.
    #[track_caller]
    pub fn wait_for(&self, what: &str, since: &Tally, want: impl Fn(&Tally) -> bool) -> Tally {
        let deadline = Instant::now() + PATIENCE;
        let mut tally = self.shared.tally.lock().expect("no panic");
        loop {
            let new = tally.since(since);
            if want(&new) {
                return new;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                drop(tally);
                panic!("waited for {what}; there was {new:?}");
            }
            tally = self
                .shared
                .changed
                .wait_timeout(tally, left)
                .expect("no panic")
                .0;
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(shared: &Shared, url: &str, interval: Duration) {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .proxy(None)
        .build();
    let agent = Agent::new_with_config(config);
    let mut next = Instant::now();
    while !shared.stop.load(Ordering::Relaxed) {
        let answer = ask(&agent, url);
        {
            let mut tally = shared.tally.lock().expect("no panic");
            match answer {
                Ok(name) => *tally.answers.entry(name).or_default() += 1,
                Err(failure) => tally.failures.push(failure),
            }
        }
        shared.changed.notify_all();
        next = (next + interval).max(Instant::now());
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
}

fn ask(agent: &Agent, url: &str) -> Result<String, String> {
    let mut response = agent.get(url).call().map_err(|error| error.to_string())?;
    let body = response
        .body_mut()
        .read_to_string()
        .map_err(|error| error.to_string())?;
    match response.status().as_u16() {
        200 => Ok(body),
        other => Err(format!("{other} {body}")),
    }
}
