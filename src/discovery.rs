//! Which version of split.smi-spec.io to speak, and whether anyone serves the group at all. Pure.
//!
//! | state | what holds                                 | leaves on                               |
//! |-------|--------------------------------------------|-----------------------------------------|
//! | Ask   | no version is known                        | the group's answer                      |
//! | Try   | asking is refused: one version after another is listed | a list that works, or a last 404 |
//! | Speak | this version was served last               | a list's 404, unless fixed by a flag    |

use std::time::{Duration, Instant};

/// The versions that we can read, newest first.
pub const VERSIONS: [&str; 4] = ["v1alpha4", "v1alpha3", "v1alpha2", "v1alpha1"];
/// A group that served splits and is gone is asked for once more after this, before it is believed.
const SECOND_LOOK: Duration = Duration::from_secs(2);

#[derive(Debug)]
enum State {
    Ask { due: Instant },
    Try(usize),
    Speak(String),
}

/// What is known of the group.
#[derive(Debug)]
pub struct Discovery {
    state: State,
    fixed: bool,
    /// How often to ask while no version is known.
    every: Duration,
    /// It was found gone once while splits were held.
    doubted: bool,
    /// The group's last answer named a version that then gave no list.
    belied: bool,
}

impl Discovery {
    /// `fixed`: the version that the user wants, whatever the group says.
    pub fn new(fixed: Option<String>, every: Duration, now: Instant) -> Discovery {
        let state = State::Ask { due: now };
        let (fixed, state) = match fixed {
            Some(version) => (true, State::Speak(version)),
            None => (false, state),
        };
        Discovery {
            state,
            fixed,
            every,
            doubted: false,
            belied: false,
        }
    }

    /// The version to speak now.
    pub fn version(&self) -> Option<&str> {
        match &self.state {
            State::Ask { .. } => None,
            State::Try(next) => VERSIONS.get(*next).copied(),
            State::Speak(version) => Some(version),
        }
    }

    /// When to ask the group.
    pub fn due(&self) -> Option<Instant> {
        match &self.state {
            State::Ask { due } => Some(*due),
            State::Try(_) | State::Speak(_) => None,
        }
    }

    /// The group serves these versions.
    pub fn served(&mut self, versions: &[String], holding: bool, now: Instant) -> bool {
        let known = VERSIONS
            .iter()
            .find(|known| versions.iter().any(|v| v == *known));
        match known {
            Some(version) => {
                (self.state, self.doubted) = (State::Speak((*version).to_owned()), false);
                false
            }
            None => self.not_served(holding, now),
        }
    }

    /// Nobody serves the group. True: it is believed, so every split is absent.
    pub fn not_served(&mut self, holding: bool, now: Instant) -> bool {
        let believed = !holding || self.doubted;
        self.doubted = !believed;
        let wait = if believed { self.every } else { SECOND_LOOK };
        if !self.fixed {
            self.state = State::Ask { due: now + wait };
        }
        believed
    }

    /// We may not ask.
    pub fn refused(&mut self) {
        self.state = State::Try(0);
    }

    /// The version that is spoken gave a list.
    pub fn works(&mut self) {
        (self.doubted, self.belied) = (false, false);
        if let (State::Try(_), Some(version)) = (&self.state, self.version()) {
            self.state = State::Speak(version.to_owned());
        }
    }

    /// The version that is spoken is not served. True: the group is gone, and believed to be.
    pub fn unserved(&mut self, holding: bool, now: Instant) -> bool {
        match self.state {
            State::Speak(_) if !self.fixed => {
                // Asked at once the first time; a group that contradicts itself gets time for it.
                let wait = if self.belied {
                    SECOND_LOOK
                } else {
                    Duration::ZERO
                };
                self.belied = true;
                self.state = State::Ask { due: now + wait };
                false
            }
            State::Try(next) if next + 1 < VERSIONS.len() => {
                self.state = State::Try(next + 1);
                false
            }
            State::Speak(_) | State::Try(_) | State::Ask { .. } => self.not_served(holding, now),
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
        assert_eq!((discovery.version(), discovery.due()), (None, Some(now)));
        let absent = discovery.served(&strings(served), false, now);
        assert_eq!((discovery.version(), absent), (want, want.is_none()));
    }

    #[test]
    fn speaks_the_newest_version_that_both_know() {
        check_chosen(&["v1alpha1", "v1alpha4", "v1alpha2"], Some("v1alpha4"));
        check_chosen(&["v1alpha1"], Some("v1alpha1"));
        check_chosen(&["v2"], None);
        check_chosen(&[], None);
    }

    #[test]
    fn asks_again_while_nobody_serves_the_group() {
        let now = Instant::now();
        let mut discovery = Discovery::new(None, EVERY, now);
        assert!(
            discovery.not_served(false, now),
            "nothing is held, so it is believed"
        );
        assert_eq!(discovery.due(), Some(now + EVERY));
        assert!(!discovery.served(&strings(&["v1alpha2"]), false, now));
        assert_eq!(
            (discovery.version(), discovery.due()),
            (Some("v1alpha2"), None)
        );
    }

    #[test]
    fn a_group_that_vanishes_is_believed_at_the_second_look() {
        let now = Instant::now();
        let mut discovery = Discovery::new(None, EVERY, now);
        discovery.served(&strings(&["v1alpha2"]), false, now);
        assert!(
            !discovery.unserved(true, now),
            "a list's 404 only makes it ask"
        );
        assert_eq!(discovery.due(), Some(now));
        assert!(
            !discovery.not_served(true, now),
            "the first look is not believed"
        );
        assert_eq!(discovery.due(), Some(now + SECOND_LOOK));
        assert!(discovery.not_served(true, now), "the second is");
    }

    #[test]
    fn a_doubt_ends_with_a_good_answer() {
        let now = Instant::now();
        let mut discovery = Discovery::new(None, EVERY, now);
        assert!(!discovery.not_served(true, now));
        discovery.served(&strings(&["v1alpha2"]), true, now);
        discovery.unserved(true, now);
        assert!(
            !discovery.not_served(true, now),
            "it is the first look again"
        );
    }

    #[test]
    fn tries_one_version_after_another_where_asking_is_refused() {
        let now = Instant::now();
        let mut discovery = Discovery::new(None, EVERY, now);
        discovery.refused();
        for version in ["v1alpha4", "v1alpha3"] {
            assert_eq!(discovery.version(), Some(version));
            assert!(!discovery.unserved(false, now));
        }
        discovery.works();
        assert_eq!(discovery.version(), Some("v1alpha2"));
    }

    #[test]
    fn a_group_that_contradicts_itself_is_not_asked_in_a_circle() {
        let now = Instant::now();
        let mut discovery = Discovery::new(None, EVERY, now);
        for wait in [Duration::ZERO, SECOND_LOOK, SECOND_LOOK] {
            discovery.served(&strings(&["v1alpha4"]), false, now);
            discovery.unserved(false, now);
            assert_eq!(discovery.due(), Some(now + wait));
        }
        discovery.served(&strings(&["v1alpha4"]), false, now);
        discovery.works();
        discovery.unserved(false, now);
        assert_eq!(discovery.due(), Some(now), "it worked meanwhile");
    }

    #[test]
    fn a_version_fixed_by_a_flag_stays() {
        let now = Instant::now();
        let mut discovery = Discovery::new(Some("v1alpha2".into()), EVERY, now);
        assert_eq!(
            (discovery.version(), discovery.due()),
            (Some("v1alpha2"), None)
        );
        assert!(!discovery.unserved(true, now) && discovery.unserved(true, now));
        assert_eq!(
            (discovery.version(), discovery.due()),
            (Some("v1alpha2"), None)
        );
    }
}
