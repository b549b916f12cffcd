//! Discovery decides which version of split.smi-spec.io to use, and whether the group is served at
//! all. Pure.
//!
//! | state | what holds                                 | leaves on                               |
//! |-------|--------------------------------------------|-----------------------------------------|
//! | Ask   | no version is known                        | the group's answer                      |
//! | Try   | asking is refused: one version after another is listed | a list that works, or a last 404 |
//! | Speak | this version was served last               | a 404 for it                            |
//! | Fixed | a flag wants this version                  | never                                   |

use std::time::{Duration, Instant};

/// The versions that we can read, newest first.
pub const VERSIONS: [&str; 4] = ["v1alpha4", "v1alpha3", "v1alpha2", "v1alpha1"];
/// A group that is gone is asked for this often while splits of it still count: they may be back.
pub const WHILE_HOLDING: Duration = Duration::from_secs(2);

#[derive(Debug)]
enum State {
    Ask { from: Instant, wait: Duration },
    Try(usize),
    Speak(String),
    Fixed(String),
}

/// The versions of the group, as far as they are known.
#[derive(Debug)]
pub struct Discovery {
    state: State,
    /// The interval at which to ask while the server does not serve it.
    every: Duration,
    /// The group's last answer named a version that then gave no list.
    belied: bool,
}

impl Discovery {
    /// Makes a discovery. `fixed` is the version that the user wants, whatever the group says.
    pub fn new(fixed: Option<String>, every: Duration, now: Instant) -> Discovery {
        let ask = State::Ask {
            from: now,
            wait: Duration::ZERO,
        };
        Discovery {
            state: fixed.map_or(ask, State::Fixed),
            every,
            belied: false,
        }
    }

    /// Returns the version to use now.
    pub fn version(&self) -> Option<&str> {
        match &self.state {
            State::Ask { .. } => None,
            State::Try(next) => VERSIONS.get(*next).copied(),
            State::Speak(version) | State::Fixed(version) => Some(version),
        }
    }

    /// Returns whether a flag says which version to speak.
    pub fn is_fixed(&self) -> bool {
        matches!(self.state, State::Fixed(_))
    }

    /// Returns when to ask for the group. `holding` says that splits count which the server may not
    /// serve any more.
    pub fn due(&self, holding: bool) -> Option<Instant> {
        match &self.state {
            State::Ask { from, wait } if holding => Some(*from + (*wait).min(WHILE_HOLDING)),
            State::Ask { from, wait } => Some(*from + *wait),
            State::Try(_) | State::Speak(_) | State::Fixed(_) => None,
        }
    }

    fn ask(&mut self, from: Instant, wait: Duration) {
        self.state = State::Ask { from, wait };
    }

    /// Takes in the versions that the group serves. Returns true if we can read one of them.
    pub fn on_group(&mut self, versions: &[String], now: Instant) -> bool {
        let mut known = VERSIONS.iter();
        match known.find(|known| versions.iter().any(|v| v == *known)) {
            Some(version) => self.state = State::Speak((*version).to_owned()),
            None => self.on_group_missing(now),
        }
        self.version().is_some()
    }

    /// Takes in that the group is not served.
    pub fn on_group_missing(&mut self, now: Instant) {
        self.ask(now, self.every);
    }

    /// Takes in an answer that says nothing about the group, which is asked for again at `until`.
    pub fn put_off(&mut self, until: Instant) {
        self.ask(until, Duration::ZERO);
    }

    /// Takes in that we may not ask for the group.
    pub fn refused(&mut self) {
        self.state = State::Try(0);
    }

    /// Takes in that the version in use gave a list.
    pub fn on_list_ok(&mut self) {
        self.belied = false;
        if let (State::Try(_), Some(version)) = (&self.state, self.version()) {
            self.state = State::Speak(version.to_owned());
        }
    }

    /// Takes in a 404 for the version in use. Returns true if no other version is left to try.
    pub fn on_resource_missing(&mut self, now: Instant) -> bool {
        match self.state {
            State::Speak(_) => {
                // Asked at once the first time; a group that contradicts itself gets time for it.
                let wait = if self.belied {
                    WHILE_HOLDING
                } else {
                    Duration::ZERO
                };
                self.belied = true;
                self.ask(now, wait);
                false
            }
            State::Try(next) if next + 1 < VERSIONS.len() => {
                self.state = State::Try(next + 1);
                false
            }
            State::Try(_) => {
                self.on_group_missing(now);
                true
            }
            State::Fixed(_) => true,
            // The group itself will tell.
            State::Ask { .. } => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Duration = Duration::from_secs(60);

    fn strings(versions: &[&str]) -> Vec<String> {
        versions.iter().map(ToString::to_string).collect()
    }

    #[track_caller]
    fn check_chosen(served: &[&str], want: Option<&str>) {
        let now = Instant::now();
        let mut discovery = Discovery::new(None, EVERY, now);
        assert_eq!(
            (discovery.version(), discovery.due(false)),
            (None, Some(now))
        );
        let known = discovery.on_group(&strings(served), now);
        assert_eq!((discovery.version(), known), (want, want.is_some()));
    }

    #[test]
    fn speaks_the_newest_version_that_both_know() {
        check_chosen(&["v1alpha1", "v1alpha4", "v1alpha2"], Some("v1alpha4"));
        check_chosen(&["v1alpha1"], Some("v1alpha1"));
        check_chosen(&["v2"], None);
        check_chosen(&[], None);
    }

    #[test]
    fn asks_again_while_nobody_serves_the_group_and_more_often_while_splits_count() {
        let now = Instant::now();
        let mut discovery = Discovery::new(None, EVERY, now);
        discovery.on_group_missing(now);
        assert_eq!(discovery.due(false), Some(now + EVERY));
        assert_eq!(discovery.due(true), Some(now + WHILE_HOLDING));
        assert!(discovery.on_group(&strings(&["v1alpha2"]), now));
        assert_eq!(
            (discovery.version(), discovery.due(true)),
            (Some("v1alpha2"), None)
        );
    }

    #[test]
    fn a_404_for_a_version_makes_it_ask_at_once() {
        let now = Instant::now();
        let mut discovery = Discovery::new(None, EVERY, now);
        discovery.on_group(&strings(&["v1alpha2"]), now);
        assert!(!discovery.on_resource_missing(now));
        assert_eq!(discovery.due(false), Some(now));
        assert!(!discovery.on_resource_missing(now), "the group will tell");
    }

    #[test]
    fn a_group_that_wants_to_be_left_alone_is_left_alone() {
        let now = Instant::now();
        let mut discovery = Discovery::new(None, EVERY, now);
        discovery.put_off(now + EVERY);
        assert_eq!(discovery.due(true), Some(now + EVERY));
        assert_eq!(discovery.due(false), Some(now + EVERY));
    }

    #[test]
    fn tries_one_version_after_another_where_asking_is_refused() {
        let now = Instant::now();
        let mut discovery = Discovery::new(None, EVERY, now);
        discovery.refused();
        for version in ["v1alpha4", "v1alpha3"] {
            assert_eq!(discovery.version(), Some(version));
            assert!(!discovery.on_resource_missing(now));
        }
        discovery.on_list_ok();
        assert_eq!(discovery.version(), Some("v1alpha2"));
        discovery.refused();
        for last in [false, false, false, true] {
            assert_eq!(discovery.on_resource_missing(now), last);
        }
        assert_eq!(discovery.due(false), Some(now + EVERY));
    }

    #[test]
    fn a_group_that_contradicts_itself_is_not_asked_in_a_circle() {
        let now = Instant::now();
        let mut discovery = Discovery::new(None, EVERY, now);
        for wait in [Duration::ZERO, WHILE_HOLDING, WHILE_HOLDING] {
            discovery.on_group(&strings(&["v1alpha4"]), now);
            discovery.on_resource_missing(now);
            assert_eq!(discovery.due(false), Some(now + wait));
        }
        discovery.on_group(&strings(&["v1alpha4"]), now);
        discovery.on_list_ok();
        discovery.on_resource_missing(now);
        assert_eq!(discovery.due(false), Some(now), "it worked meanwhile");
    }

    #[test]
    fn a_version_fixed_by_a_flag_stays() {
        let now = Instant::now();
        let mut discovery = Discovery::new(Some("v1alpha2".into()), EVERY, now);
        assert!(discovery.is_fixed() && discovery.on_resource_missing(now));
        assert_eq!(
            (discovery.version(), discovery.due(true)),
            (Some("v1alpha2"), None)
        );
    }
}
