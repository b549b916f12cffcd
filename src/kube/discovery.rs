//! Discovery decides which version of an API group to use for a kind, and whether the kind is
//! served at all. Pure.
//!
//! | state   | what holds                                        | leaves on                           |
//! |---------|---------------------------------------------------|-------------------------------------|
//! | Unknown | no version is known; the group is asked for       | the group's answer                  |
//! | Probing | the group is forbidden: versions are tried in turn | a list that works, or the last 404 |
//! | Served  | this version was served last                      | a 404 for it                        |
//! | Fixed   | a flag names this version                         | never                               |

use std::time::{Duration, Instant};

/// The longest interval at which to ask for a group that is gone while objects of it still count,
/// as they may be back.
pub const RETRY_IN_USE: Duration = Duration::from_secs(2);

/// The longest interval at which to ask for a group that names versions in which the kind is not
/// served: it may be of other kinds, or its server may not know the kind yet.
const RETRY_CONTRADICTED: Duration = Duration::from_secs(10);

#[derive(Debug)]
enum State {
    Unknown {
        since: Instant,
        /// The time after which to ask.
        wait: Duration,
    },
    /// The index of the version that is tried.
    Probing(usize),
    Served(String),
    Fixed(String),
}

/// The versions of the group, as far as they are known.
#[derive(Debug)]
pub struct Discovery {
    state: State,
    /// The interval at which to ask while no server serves the group.
    interval: Duration,
    /// The versions that we can read, newest first.
    readable: &'static [&'static str],
    /// The versions that gave a 404 since the last list that worked: a group is served as soon as
    /// one of its kinds is.
    missing: Vec<String>,
    /// True if each version that the group named has given a 404 since.
    contradicted: bool,
}

/// The meaning of the group's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupAnswer {
    /// We can read a version of it.
    Served,
    /// It names versions that have just given a 404, and is asked once more.
    Unclear,
    /// The kind is not served in a version that we can read.
    Missing,
}

impl Discovery {
    /// Makes a discovery that asks at once, or uses the `fixed` version whatever the group says.
    pub fn new(
        readable: &'static [&'static str],
        fixed: Option<String>,
        interval: Duration,
        now: Instant,
    ) -> Discovery {
        let unknown = State::Unknown {
            since: now,
            wait: Duration::ZERO,
        };
        Discovery {
            state: fixed.map_or(unknown, State::Fixed),
            interval,
            readable,
            missing: Vec::new(),
            contradicted: false,
        }
    }

    /// Returns the version to use now.
    pub fn version(&self) -> Option<&str> {
        match &self.state {
            State::Unknown { .. } => None,
            State::Probing(next) => self.readable.get(*next).copied(),
            State::Served(version) | State::Fixed(version) => Some(version),
        }
    }

    /// Returns whether a flag names the version.
    pub fn is_fixed(&self) -> bool {
        matches!(self.state, State::Fixed(_))
    }

    /// Returns when to ask for the group: sooner while it is `in_use`, as objects count that no
    /// server may serve any more.
    pub fn due(&self, in_use: bool) -> Option<Instant> {
        match &self.state {
            State::Unknown { since, wait } if in_use => Some(*since + (*wait).min(RETRY_IN_USE)),
            State::Unknown { since, wait } => Some(*since + *wait),
            State::Probing(_) | State::Served(_) | State::Fixed(_) => None,
        }
    }

    fn ask_after(&mut self, since: Instant, wait: Duration) {
        self.state = State::Unknown { since, wait };
    }

    /// Takes in the versions of the group that are served.
    pub fn on_group(&mut self, versions: &[String], now: Instant) -> GroupAnswer {
        let named = self.readable.iter();
        let mut named = named.filter(|known| versions.iter().any(|v| v == *known));
        let is_missing = |version: &str| self.missing.iter().any(|missing| missing == version);
        let is_named = named.clone().next().is_some();
        if let Some(version) = named.find(|version| !is_missing(version)) {
            self.state = State::Served((*version).to_owned());
            return GroupAnswer::Served;
        }
        self.missing.clear();
        if is_named && !self.contradicted {
            // Servers may learn of a kind one after another.
            self.contradicted = true;
            self.ask_after(now, RETRY_IN_USE);
            return GroupAnswer::Unclear;
        }
        self.contradicted = is_named;
        let wait = match is_named {
            true => self.interval.min(RETRY_CONTRADICTED),
            false => self.interval,
        };
        self.ask_after(now, wait);
        GroupAnswer::Missing
    }

    /// Takes in that the group is not served.
    pub fn on_group_missing(&mut self, now: Instant) {
        self.ask_after(now, self.interval);
    }

    /// Takes in an answer that says nothing about the group, which is asked for again at `until`.
    pub fn on_busy(&mut self, until: Instant) {
        self.ask_after(until, Duration::ZERO);
    }

    /// Takes in that we may not ask for the group.
    pub fn on_group_forbidden(&mut self) {
        self.state = State::Probing(0);
    }

    /// Takes in that the version in use gave a list.
    pub fn on_list_ok(&mut self) {
        self.contradicted = false;
        self.missing.clear();
        if let (State::Probing(_), Some(version)) = (&self.state, self.version()) {
            self.state = State::Served(version.to_owned());
        }
    }

    /// Takes in a 404 for the version in use. Returns true if no other version is left to try, so
    /// that no server serves the group.
    pub fn on_resource_missing(&mut self, now: Instant) -> bool {
        match self.state {
            State::Served(ref version) => {
                self.missing.push(version.clone());
                self.ask_after(now, Duration::ZERO);
                false
            }
            State::Probing(next) if next + 1 < self.readable.len() => {
                self.state = State::Probing(next + 1);
                false
            }
            State::Probing(_) => {
                self.on_group_missing(now);
                true
            }
            State::Fixed(_) => true,
            // The group's answer will say.
            State::Unknown { .. } => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Duration = Duration::from_secs(60);
    const VERSIONS: &[&str] = &["v1alpha4", "v1alpha3", "v1alpha2", "v1alpha1"];

    fn strings(versions: &[&str]) -> Vec<String> {
        versions.iter().map(ToString::to_string).collect()
    }

    #[track_caller]
    fn check_chosen(served: &[&str], want: Option<&str>) {
        let now = Instant::now();
        let mut discovery = Discovery::new(VERSIONS, None, EVERY, now);
        assert_eq!(
            (discovery.version(), discovery.due(false)),
            (None, Some(now))
        );
        let is_known = discovery.on_group(&strings(served), now) == GroupAnswer::Served;
        assert_eq!((discovery.version(), is_known), (want, want.is_some()));
    }

    #[test]
    fn uses_the_newest_version_that_both_know() {
        check_chosen(&["v1alpha1", "v1alpha4", "v1alpha2"], Some("v1alpha4"));
        check_chosen(&["v1alpha1"], Some("v1alpha1"));
        check_chosen(&["v2"], None);
        check_chosen(&[], None);
    }

    #[test]
    fn asks_again_while_nobody_serves_the_group_and_more_often_while_splits_count() {
        let now = Instant::now();
        let mut discovery = Discovery::new(VERSIONS, None, EVERY, now);
        discovery.on_group_missing(now);
        assert_eq!(discovery.due(false), Some(now + EVERY));
        assert_eq!(discovery.due(true), Some(now + RETRY_IN_USE));
        let answer = discovery.on_group(&strings(&["v1alpha2"]), now);
        assert_eq!(answer, GroupAnswer::Served);
        assert_eq!(
            (discovery.version(), discovery.due(true)),
            (Some("v1alpha2"), None)
        );
    }

    #[test]
    fn a_404_for_a_version_makes_it_ask_at_once() {
        let now = Instant::now();
        let mut discovery = Discovery::new(VERSIONS, None, EVERY, now);
        discovery.on_group(&strings(&["v1alpha2"]), now);
        assert!(!discovery.on_resource_missing(now));
        assert_eq!(discovery.due(false), Some(now));
        assert!(!discovery.on_resource_missing(now), "the group will tell");
    }

    #[test]
    fn a_group_that_asks_for_a_pause_gets_it() {
        let now = Instant::now();
        let mut discovery = Discovery::new(VERSIONS, None, EVERY, now);
        discovery.on_busy(now + EVERY);
        assert_eq!(discovery.due(true), Some(now + EVERY));
        assert_eq!(discovery.due(false), Some(now + EVERY));
    }

    #[test]
    fn tries_one_version_after_another_where_asking_is_refused() {
        let now = Instant::now();
        let mut discovery = Discovery::new(VERSIONS, None, EVERY, now);
        discovery.on_group_forbidden();
        for version in ["v1alpha4", "v1alpha3"] {
            assert_eq!(discovery.version(), Some(version));
            assert!(!discovery.on_resource_missing(now));
        }
        discovery.on_list_ok();
        assert_eq!(discovery.version(), Some("v1alpha2"));
        discovery.on_group_forbidden();
        for last in [false, false, false, true] {
            assert_eq!(discovery.on_resource_missing(now), last);
        }
        assert_eq!(discovery.due(false), Some(now + EVERY));
    }

    #[test]
    fn a_group_that_contradicts_itself_is_asked_once_more_and_then_believed_to_lack_the_kind() {
        let now = Instant::now();
        let mut discovery = Discovery::new(VERSIONS, None, EVERY, now);
        let served = strings(&["v1alpha4", "v1alpha2"]);
        let mut round = |want, wait| {
            for version in ["v1alpha4", "v1alpha2"] {
                assert_eq!(discovery.on_group(&served, now), GroupAnswer::Served);
                assert_eq!(discovery.version(), Some(version));
                assert!(!discovery.on_resource_missing(now));
                assert_eq!(discovery.due(false), Some(now));
            }
            assert_eq!(discovery.on_group(&served, now), want);
            assert_eq!(discovery.due(false), Some(now + wait));
        };
        round(GroupAnswer::Unclear, RETRY_IN_USE);
        round(GroupAnswer::Missing, RETRY_CONTRADICTED);
        round(GroupAnswer::Missing, RETRY_CONTRADICTED);
        discovery.on_group(&served, now);
        discovery.on_list_ok();
        assert!(!discovery.on_resource_missing(now));
        assert_eq!(discovery.due(false), Some(now));
        let answer = discovery.on_group(&strings(&["v1alpha4"]), now);
        assert_eq!(answer, GroupAnswer::Unclear, "it worked meanwhile");
    }

    #[test]
    fn a_version_fixed_by_a_flag_stays() {
        let now = Instant::now();
        let mut discovery = Discovery::new(VERSIONS, Some("v1alpha2".into()), EVERY, now);
        assert!(discovery.is_fixed() && discovery.on_resource_missing(now));
        assert_eq!(
            (discovery.version(), discovery.due(true)),
            (Some("v1alpha2"), None)
        );
    }
}
