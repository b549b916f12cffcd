//! The contents of ConfigMaps that Envoy has refused, and when each is tried again. Owns: the
//! schedule, and how it is written down. Pure.
//!
//! | since the content was refused | it is tried |
//! |---|---|
//! | it stays as it is | after 30 s, 2 minutes, 10 minutes, then hourly, each up to a fifth later |
//! | another ConfigMap's content was accepted, or Envoy has started anew | at once |
//! | the ConfigMap has another content | at once, or 10 s after the last if 4 were refused in a minute |
//! | crossover was killed while it was tried, and Envoy lives | at once |
//! | it killed Envoy | once, after 10 to 20 minutes in which Envoy runs, then never |

use std::fmt;
use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::snapshot::ObjectName;

/// The waits before a refused content is tried again; the last is the one from then on.
const RETRIES: [Duration; 4] = [
    Duration::from_secs(30),
    Duration::from_secs(2 * 60),
    Duration::from_secs(10 * 60),
    Duration::from_secs(60 * 60),
];
/// The least time that an Envoy runs before it is given what has killed it, and the random part on
/// top, so that not all replicas die together.
const AFTER_A_DEATH: Duration = Duration::from_secs(10 * 60);
/// The time in which new contents that are refused are counted, the number of them that are tried
/// at once, and the time between those beyond.
const COUNTED_FOR: Duration = Duration::from_secs(60);
const AT_ONCE: usize = 3;
const BETWEEN: Duration = Duration::from_secs(10);

/// One content of a ConfigMap.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Content {
    pub object: ObjectName,
    /// The hash of its source, without what TrafficSplits change in it.
    pub hash: u64,
}

/// The answer to whether a content may be published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    No,
    /// It is to be asked again then.
    Until(Instant),
    /// Only another content may be.
    ForEver,
}

impl Content {
    /// Reads what its `Display` has written.
    pub fn from_text(text: &str) -> Option<Content> {
        let (object, hash) = text.split_once(' ')?;
        let (namespace, name) = object.split_once('/')?;
        let object = ObjectName {
            namespace: namespace.into(),
            name: name.into(),
        };
        let hash = u64::from_str_radix(hash, 16).ok()?;
        Some(Content { object, hash })
    }
}

impl fmt::Display for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:016x}", self.object, self.hash)
    }
}

#[derive(Clone, Debug)]
struct Refused {
    content: Content,
    /// The number of times that it was refused.
    times: usize,
    /// The number of times that it has killed Envoy.
    deaths: usize,
    /// `None` for never.
    next: Option<Instant>,
    /// The times at which new contents of this ConfigMap were refused: the last ones of the last
    /// minute.
    recent: Vec<Instant>,
}

/// All contents that are held back, at most one of each ConfigMap.
#[derive(Debug)]
pub struct Held {
    all: Vec<Refused>,
    /// The ConfigMap whose held content is being tried.
    trial: Option<ObjectName>,
    rng: Rng,
}

impl Held {
    pub fn new(rng: Rng) -> Held {
        Held {
            all: Vec::new(),
            trial: None,
            rng,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    fn find(&mut self, object: &ObjectName) -> Option<&mut Refused> {
        self.all
            .iter_mut()
            .find(|held| held.content.object == *object)
    }

    /// Returns whether a ConfigMap's content is held back.
    pub fn holds(&self, content: &Content, now: Instant) -> Hold {
        let mut all = self.all.iter();
        let Some(held) = all.find(|held| held.content.object == content.object) else {
            return Hold::No;
        };
        if held.content.hash == content.hash {
            return match held.next {
                _ if self.trial.as_ref() == Some(&content.object) => Hold::No,
                Some(next) => Hold::Until(next),
                None => Hold::ForEver,
            };
        }
        let counted = |at: &&Instant| now.saturating_duration_since(**at) < COUNTED_FOR;
        let many = held.recent.iter().filter(counted).count() > AT_ONCE;
        match held.recent.last().map(|last| *last + BETWEEN) {
            Some(next) if many && now < next => Hold::Until(next),
            _ => Hold::No,
        }
    }

    /// Holds a content back that was refused. Returns whether it had been before.
    pub fn refuse(&mut self, content: Content, now: Instant) -> bool {
        let held = self.entry(content, now);
        held.times += 1;
        let times = held.times;
        let next = Some(now + self.wait(times));
        self.trial = None;
        if let Some(held) = self.all.last_mut() {
            held.next = next;
        }
        times > 1
    }

    /// Draws the wait after a refusal, of so many.
    pub fn wait(&mut self, times: usize) -> Duration {
        let wait = RETRIES[times.saturating_sub(1).min(RETRIES.len() - 1)];
        self.spread(wait, wait / 5)
    }

    /// Holds a content back that has killed Envoy. It waits for [`Held::runs`].
    pub fn kill(&mut self, content: Content, now: Instant) {
        let held = self.entry(content, now);
        held.deaths += 1;
        held.next = None;
        self.trial = None;
    }

    /// Makes contents due that have killed nobody, as it turns out.
    pub fn spare(&mut self, contents: &[Content], now: Instant) {
        let is_one = |held: &&mut Refused| contents.contains(&held.content) && held.deaths > 0;
        for held in self.all.iter_mut().filter(is_one) {
            (held.deaths, held.next) = (0, Some(now));
        }
    }

    /// Returns the entry of a content, as the last one.
    fn entry(&mut self, content: Content, now: Instant) -> &mut Refused {
        let at = self
            .all
            .iter()
            .position(|held| held.content.object == content.object);
        let mut held = match at {
            Some(at) => self.all.remove(at),
            None => Refused {
                content: content.clone(),
                times: 0,
                deaths: 0,
                next: None,
                recent: Vec::new(),
            },
        };
        let is_new = held.content.hash != content.hash || held.recent.is_empty();
        if held.content.hash != content.hash {
            (held.content, held.times, held.deaths) = (content, 0, 0);
        }
        if is_new {
            held.recent.push(now);
            if held.recent.len() > AT_ONCE + 1 {
                held.recent.remove(0);
            }
        }
        let at = self.all.len();
        self.all.push(held);
        &mut self.all[at]
    }

    fn spread(&mut self, wait: Duration, by: Duration) -> Duration {
        wait + by.mul_f64(self.rng.f64())
    }

    /// Makes everything due that is held, but for what has killed Envoy and the ConfigMaps `but`.
    pub fn make_due(&mut self, but: &[Content], now: Instant) {
        for held in &mut self.all {
            let is_one = but.iter().any(|it| it.object == held.content.object);
            if held.deaths == 0 && !is_one {
                held.next = Some(now);
            }
        }
    }

    /// Notes that an Envoy has come up, which is given what has killed it once.
    pub fn runs(&mut self, now: Instant) {
        let wait = self.spread(AFTER_A_DEATH, AFTER_A_DEATH);
        for held in self.all.iter_mut().filter(|held| held.deaths == 1) {
            held.next = Some(now + wait);
        }
    }

    /// Returns when a content is due to be tried.
    pub fn deadline(&self) -> Option<Instant> {
        let next = self.all.iter().filter_map(|held| held.next);
        next.filter(|_| self.trial.is_none()).min()
    }

    /// Begins to try a content that is due: from now on it is not held. One is tried at a time.
    pub fn take_due(&mut self, now: Instant) -> Option<ObjectName> {
        if self.trial.is_some() {
            return None;
        }
        let mut due = self
            .all
            .iter()
            .filter(|held| held.next.is_some_and(|at| at <= now));
        self.trial = due.next().map(|held| held.content.object.clone());
        self.trial.clone()
    }

    /// Ends a trial that has come to no verdict: the content has another wait before it.
    pub fn end_trial(&mut self, now: Instant) {
        if let Some(object) = self.trial.take() {
            let wait = self.wait(1);
            if let Some(held) = self.find(&object) {
                held.next = Some(now + wait);
            }
        }
    }

    /// Forgets these ConfigMaps' refused contents. Returns those of which there were any.
    pub fn forget(&mut self, accepted: &[Content]) -> Vec<ObjectName> {
        let is_one = |held: &Refused| accepted.iter().any(|it| it.object == held.content.object);
        let (gone, left): (Vec<Refused>, Vec<Refused>) =
            self.all.drain(..).partition(|held| is_one(held));
        self.all = left;
        let objects: Vec<ObjectName> = gone.into_iter().map(|held| held.content.object).collect();
        if self
            .trial
            .as_ref()
            .is_some_and(|object| objects.contains(object))
        {
            self.trial = None;
        }
        objects
    }

    /// Writes down what must outlive the program: a line for each content.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        for held in &self.all {
            text += &format!("{} {} {}\n", held.content, held.times, held.deaths);
        }
        text
    }

    /// Reads what was written down. Lines that cannot be read are left out.
    pub fn from_text(text: &str, rng: Rng, now: Instant) -> Held {
        let mut held = Held::new(rng);
        for line in text.lines() {
            let Some((content, times, deaths)) = parse(line) else {
                continue;
            };
            let wait = held.wait(times);
            let entry = held.entry(content, now);
            (entry.times, entry.deaths) = (times, deaths);
            entry.next = (deaths == 0).then(|| now + wait);
            entry.recent.clear();
        }
        held
    }
}

fn parse(line: &str) -> Option<(Content, usize, usize)> {
    let (rest, deaths) = line.rsplit_once(' ')?;
    let (content, times) = rest.rsplit_once(' ')?;
    let (times, deaths) = (times.parse().ok()?, deaths.parse().ok()?);
    Some((Content::from_text(content)?, times, deaths))
}
