//! A steady load: keep-alive GETs at a given rate, tallied by what was answered.

use super::envoy_config::VERSION_HEADER;
use super::{PATIENCE, nap};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use ureq::Agent;

/// The body of a 200, and how often it came.
pub type Answers = BTreeMap<String, u64>;

/// The answers so far.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// The answers of all routes.
    pub answers: Answers,
    /// The answers by the version of the routes that was in them.
    pub versions: BTreeMap<String, Version>,
    /// The results that came instead of a 200.
    pub failures: Vec<String>,
}

/// The answers of one version of the routes.
#[derive(Clone, Debug)]
pub struct Version {
    /// The time of the first answer.
    pub first: Instant,
    /// All of them.
    pub answers: Answers,
}

/// Returns the number of all answers.
pub fn total(answers: &Answers) -> u64 {
    answers.values().sum()
}

/// Returns the part of the answers that one backend gave, 0 to 1.
pub fn share(answers: &Answers, name: &str) -> f64 {
    let count = answers.get(name).copied().unwrap_or(0);
    count as f64 / total(answers).max(1) as f64
}

impl Tally {
    /// Returns the number of all answers.
    pub fn total(&self) -> u64 {
        total(&self.answers)
    }

    /// Returns what came after an earlier tally.
    pub fn since(&self, earlier: &Tally) -> Tally {
        let nothing = Answers::new();
        let answers = difference(&self.answers, &earlier.answers);
        let versions = self.versions.iter().map(|(name, version)| {
            let before = earlier.versions.get(name).map_or(&nothing, |v| &v.answers);
            let answers = difference(&version.answers, before);
            let first = version.first;
            (name.clone(), Version { first, answers })
        });
        Tally {
            answers,
            versions: versions.filter(|(_, v)| !v.answers.is_empty()).collect(),
            failures: self.failures[earlier.failures.len()..].to_vec(),
        }
    }

    fn add(&mut self, Answer { version, name }: Answer) {
        *self.answers.entry(name.clone()).or_default() += 1;
        let version = self.versions.entry(version).or_insert_with(|| Version {
            first: Instant::now(),
            answers: Answers::new(),
        });
        *version.answers.entry(name).or_default() += 1;
    }
}

fn difference(now: &Answers, before: &Answers) -> Answers {
    let grown = now.iter().map(|(name, count)| {
        let old = before.get(name).copied().unwrap_or(0);
        (name.clone(), count - old)
    });
    grown.filter(|(_, count)| *count > 0).collect()
}

/// A 200.
struct Answer {
    /// Empty where the answer does not tell.
    version: String,
    /// The body.
    name: String,
}

/// A load that runs until this is dropped.
pub struct Load {
    shared: Arc<Shared>,
    per_second: u32,
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
            per_second,
            thread: Some(thread),
        }
    }

    /// Returns the answers so far.
    pub fn tally(&self) -> Tally {
        self.shared.tally.lock().expect("no panic").clone()
    }

    /// Waits until the tally since an earlier one is such as is wanted: as long as answers come,
    /// for as many as there are in [`PATIENCE`] where nothing is slow.
    #[track_caller]
    pub fn wait_for(&self, what: &str, since: &Tally, want: impl Fn(&Tally) -> bool) -> Tally {
        let enough = u64::from(self.per_second) * PATIENCE.as_secs();
        let (mut deadline, mut known) = (Instant::now() + PATIENCE, 0);
        let mut tally = self.shared.tally.lock().expect("no panic");
        loop {
            let new = tally.since(since);
            if want(&new) {
                return new;
            }
            let count = new.total() + new.failures.len() as u64;
            if count > known && count < enough {
                (deadline, known) = (Instant::now() + PATIENCE, count);
            }
            let Some(nap) = nap(deadline) else {
                drop(tally);
                panic!("waited for {what}; there was {new:?}");
            };
            tally = self
                .shared
                .changed
                .wait_timeout(tally, nap)
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
                Ok(answer) => tally.add(answer),
                Err(failure) => tally.failures.push(failure),
            }
        }
        shared.changed.notify_all();
        next = (next + interval).max(Instant::now());
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
}

fn ask(agent: &Agent, url: &str) -> Result<Answer, String> {
    let mut response = agent.get(url).call().map_err(|error| error.to_string())?;
    let body = response
        .body_mut()
        .read_to_string()
        .map_err(|error| error.to_string())?;
    let version = response.headers().get(VERSION_HEADER);
    let version = version.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    match response.status().as_u16() {
        200 => Ok(Answer {
            version: version.unwrap_or_default(),
            name: body,
        }),
        other => Err(format!("{other} {body}")),
    }
}
