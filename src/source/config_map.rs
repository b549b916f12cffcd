//! One named ConfigMap: what the cluster says of it, what of that is fit to be published, and what
//! the operator hears of it.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::time::Instant;

use log::{debug, warn};

use crate::error::{Chain, Error, Target, Verb};
use crate::kube::object::{Body, Object, ObjectKind};
use crate::kube::reflector::Event;
use crate::logging::WarnOnce;
use crate::snapshot::{FileName, ObjectName, Origin, ResourceVersion};
use crate::xds::content::{self, ConfigMapFiles, Examined, Finding};
use crate::xds::desired::{Observed, SourceView};
use crate::xds::validate;

/// Examining this much takes two milliseconds.
const LARGE: usize = 64 << 10;
/// So often in a row an examination is left off for a later state: something is published even
/// where they never stop coming.
const MAX_SKIPS_IN_A_ROW: u32 = 3;

const MISSING: [&str; 2] = [
    "ConfigMap not found; waiting for it to be created",
    "ConfigMap not found; keeping its published files",
];
const INVALID: [&str; 2] = [
    "ConfigMap is invalid; waiting for a valid version",
    "ConfigMap is invalid; keeping its published files",
];

/// A named ConfigMap.
#[derive(Debug)]
pub struct ConfigMapSource {
    /// Which.
    pub object: ObjectName,
    /// What the cluster said last.
    pub observed: Observed,
    /// The last fit state, of this life or of an earlier one.
    pub content: Option<ConfigMapFiles>,
    /// Why it cannot be had, since when: missing or forbidden.
    pub denied: Option<(Instant, Error)>,
    /// Why its last state was refused.
    pub refused: Option<String>,
    /// A large state that has not been examined yet, and when it came.
    unread: Option<(Event, Instant)>,
    /// How often in a row its examination was left off.
    left_off: u32,
    /// Files that were found good, and that nobody was asked about twice.
    unchecked: BTreeSet<FileName>,
    warned: WarnOnce,
}

impl ConfigMapSource {
    /// Nothing is known of it yet.
    pub fn new(object: ObjectName) -> ConfigMapSource {
        ConfigMapSource {
            object,
            observed: Observed::Pending,
            content: None,
            denied: None,
            refused: None,
            unread: None,
            left_off: 0,
            unchecked: BTreeSet::new(),
            warned: WarnOnce::default(),
        }
    }

    /// What a publish may rest on.
    pub fn known(&self) -> SourceView<'_> {
        SourceView {
            object: &self.object,
            observed: self.observed,
            content: self.content.as_ref(),
        }
    }

    /// Why its last state cannot be had.
    pub fn trouble(&self) -> Option<String> {
        let denied = self.denied.as_ref();
        let denied = denied.map(|(_, denied)| Chain(denied).to_string());
        let refused = self.refused.as_ref();
        denied.or_else(|| Some(format!("refused ConfigMap {}: {}", self.object, refused?)))
    }

    /// Takes in what the cluster says. Of large states that come together the last one counts.
    pub fn take(&mut self, observation: Event, now: Instant) {
        let is_large = is_large(&observation);
        if !is_large {
            // What is no such state hides none.
            self.examine(&mut || false);
        }
        self.unread = Some((observation, now));
        if !is_large {
            self.examine(&mut || false);
        }
    }

    /// Finds out what a state is worth that was only taken in. False: not yet, as `is_outdated` said
    /// that a later one may be there: take that in first.
    pub fn examine(&mut self, is_outdated: &mut dyn FnMut() -> bool) -> bool {
        let Some((observation, now)) = self.unread.take() else {
            return true;
        };
        match observation {
            Event::Applied(object) => {
                let may = self.left_off < MAX_SKIPS_IN_A_ROW;
                if !self.observe(&object, now, &mut || may && is_outdated()) {
                    self.unread = Some((Event::Applied(object), now));
                    self.left_off += 1;
                    return false;
                }
                self.left_off = 0;
            }
            Event::Replaced(objects) => match objects.first() {
                Some(object) => drop(self.observe(object, now, &mut || false)),
                None => self.miss(now),
            },
            Event::Deleted(_) => self.miss(now),
            Event::Unavailable(error) => {
                self.refuse();
                self.deny(error, now);
            }
            Event::Unusable => self.refuse(),
        }
        true
    }

    /// Asks the second reader about what is published: there is time for it now.
    pub fn run_deferred_checks(&mut self) {
        let unchecked = std::mem::take(&mut self.unchecked);
        let Some(content) = &self.content else { return };
        for name in unchecked {
            let bytes = content.files.get(&name);
            if let Some(fault) = bytes.and_then(|bytes| validate::cross_check(&name, bytes)) {
                let Origin {
                    object,
                    resource_version,
                    ..
                } = &*content.origin;
                doubt(object, resource_version, name.as_str(), &fault.to_string());
            }
        }
    }

    /// It is there, in this state. False: its examination was left off.
    fn observe(
        &mut self,
        object: &Object,
        now: Instant,
        is_outdated: &mut dyn FnMut() -> bool,
    ) -> bool {
        let Body::ConfigMap(files) = &object.body else {
            return true;
        };
        let (name, version) = (&self.object, &object.version);
        let resource_version = version.resource_version.clone();
        let before = self.content.as_ref();
        let Some(Examined {
            content,
            doubts,
            unchecked,
        }) = content::examine(name, version, files, before, is_outdated)
        else {
            return false;
        };
        (self.denied, self.refused) = (None, None);
        for Finding { key, what } in doubts {
            doubt(name, &resource_version, &key, &what);
        }
        match content {
            Ok(content) => {
                debug!(configmap:% = name, resource_version:% = resource_version; "observed");
                self.content = Some(content);
                self.unchecked.extend(unchecked);
                self.observed = Observed::Valid;
                let subject = ("configmap", name as &dyn Display);
                self.warned.clear(subject, "ConfigMap is valid now", now);
            }
            Err(remarks) => {
                let reasons: Vec<String> = remarks.iter().map(Finding::to_string).collect();
                let reasons = reasons.join("; ");
                self.observed = Observed::Invalid;
                let what = format!("{reasons} (resourceVersion {resource_version})");
                self.warn(INVALID, &what, now);
                self.refused = Some(reasons);
            }
        }
        true
    }

    /// It is not there.
    fn miss(&mut self, now: Instant) {
        self.observed = Observed::Missing;
        self.refused = None;
        let kind = ObjectKind::ConfigMap;
        let target = Target {
            verb: Verb::List,
            resource: kind.plural(),
            group: kind.group(),
            namespace: self.object.namespace.clone(),
            name: Some(self.object.name.clone()),
        };
        let error = Error::Missing {
            target: Box::new(target),
        };
        self.warn(MISSING, &error.to_string(), now);
        self.deny(error, now);
    }

    /// It has been answered for: the others go on, if there is something that stands in for this one.
    fn refuse(&mut self) {
        if self.observed == Observed::Pending {
            self.observed = Observed::Invalid;
        }
    }

    fn deny(&mut self, error: Error, now: Instant) {
        let since = self.denied.as_ref().map_or(now, |(since, _)| *since);
        self.denied = Some((since, error));
    }

    /// Warns with the first message if nothing of it is known to be published, else with the second.
    fn warn(&mut self, [waits, stays]: [&'static str; 2], error: &str, now: Instant) {
        let message = if self.content.is_none() { waits } else { stays };
        let subject = ("configmap", &self.object as &dyn Display);
        self.warned.warn(subject, message, error, now);
    }
}

/// Whether it takes so long to examine that another one may be there before that is done.
fn is_large(observation: &Event) -> bool {
    let Event::Applied(Object {
        body: Body::ConfigMap(Ok(files)),
        ..
    }) = observation
    else {
        return false;
    };
    files.values().map(|bytes| bytes.len()).sum::<usize>() > LARGE
}

fn doubt(object: &ObjectName, version: &ResourceVersion, key: &str, error: &str) {
    let message = "Envoy may not accept a file; publishing it";
    warn!(configmap:% = object, resource_version:% = version, key, error; "{message}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::{Bytes, Version};
    use std::collections::BTreeMap;

    /// A state with this text, small or large.
    fn changed(at: &str, text: &str) -> Event {
        file("a.yaml", at, text)
    }

    fn file(name: &str, at: &str, text: &str) -> Event {
        let files = BTreeMap::from([(name.to_owned(), Bytes::from(text.as_bytes()))]);
        Event::Applied(Object {
            name: "a".to_owned(),
            version: Version {
                uid: "u".to_owned(),
                resource_version: ResourceVersion(at.to_owned()),
            },
            body: Body::ConfigMap(Ok(files)),
        })
    }

    fn large(at: &str, text: &str) -> Event {
        changed(at, &format!("{text}{}", "\n# and so on".repeat(LARGE / 10)))
    }

    fn refusal() -> Event {
        Event::Unavailable(Error::Usage("as good as any".to_owned()))
    }

    /// What is known after these have come together.
    #[track_caller]
    fn check(observations: Vec<Event>, observed: Observed, at: Option<&str>, denied: bool) {
        let object = ObjectName {
            namespace: "default".to_owned(),
            name: "a".to_owned(),
        };
        let (mut source, now) = (ConfigMapSource::new(object), Instant::now());
        for observation in observations {
            source.take(observation, now);
        }
        source.examine(&mut || false);
        let content = source.content.as_ref();
        let version = content.map(|content| content.origin.resource_version.0.as_str());
        assert_eq!((source.observed, version), (observed, at));
        assert_eq!(source.denied.is_some(), denied);
    }

    #[test]
    fn of_large_states_that_come_together_the_last_one_counts() {
        let bad_between = vec![large("1", "a: ]"), large("2", "a: 2")];
        check(bad_between, Observed::Valid, Some("2"), false);
        let bad_last = vec![large("1", "a: 1"), large("2", "a: ]")];
        check(bad_last, Observed::Invalid, None, false);
    }

    #[test]
    fn an_examination_is_left_off_for_a_later_state_but_not_for_ever() {
        let object = ObjectName {
            namespace: "default".to_owned(),
            name: "a".to_owned(),
        };
        let (mut source, now) = (ConfigMapSource::new(object), Instant::now());
        let text: String = (0..20_000).map(|n| format!("key-{n}: {n}\n")).collect();
        for round in 0..2 {
            for at in 1..=MAX_SKIPS_IN_A_ROW {
                source.take(changed(&at.to_string(), &text), now);
                assert!(!source.examine(&mut || true), "{round} {at}");
            }
            // Something has to be published.
            source.take(changed("last", &text), now);
            assert!(source.examine(&mut || true));
            let content = source.content.take().unwrap();
            assert_eq!(content.origin.resource_version.0, "last");
        }
        // What had come was no later state.
        source.take(changed("1", &text), now);
        assert!(!source.examine(&mut || true));
        assert!(source.content.is_none());
        assert!(source.examine(&mut || false));
        let content = source.content.as_ref().unwrap();
        assert_eq!(content.origin.resource_version.0, "1");
    }

    #[test]
    fn what_is_small_or_no_state_hides_none() {
        let gone = || Event::Deleted("a".to_owned());
        check(vec![], Observed::Pending, None, false);
        let bad_last = vec![changed("1", "a: 1"), changed("2", "a: ]")];
        check(bad_last, Observed::Invalid, Some("1"), false);
        for state in [changed, large] {
            check(
                vec![state("1", "a: 1"), gone()],
                Observed::Missing,
                Some("1"),
                true,
            );
            let anew = vec![state("1", "a: 1"), gone(), state("3", "a: 3")];
            check(anew, Observed::Valid, Some("3"), false);
            check(
                vec![state("1", "a: 1"), refusal()],
                Observed::Valid,
                Some("1"),
                true,
            );
            check(
                vec![refusal(), state("1", "a: 1")],
                Observed::Valid,
                Some("1"),
                false,
            );
            let bad = vec![state("1", "a: 1"), changed("2", "a: ]")];
            check(bad, Observed::Invalid, Some("1"), false);
        }
    }

    #[test]
    fn only_another_configuration_takes_the_place_of_one() {
        let xds = r#"{"resources": [{"@type": "x"}]}"#;
        for (name, first, then, observed) in [
            // What is no configuration and never was one goes through.
            ("a.yaml", "- a", "- b", Observed::Valid),
            ("a.json", "[1]", "2", Observed::Valid),
            ("a.conf", "x: ]", "", Observed::Valid),
            ("a", "{}", "}", Observed::Valid),
            ("a.pb", xds, "\u{1}", Observed::Valid),
            ("a.yaml", "- a", "a: 1", Observed::Valid),
            // What takes the place of one does not.
            ("a.yaml", "a: 1", "- a", Observed::Invalid),
            ("A.YML", "a: 1", "a", Observed::Invalid),
            ("a.json", "{}", "[]", Observed::Invalid),
            ("a.conf", xds, "[]", Observed::Invalid),
            ("a.conf", xds, "x: ]", Observed::Invalid),
            ("a", xds, "", Observed::Invalid),
            ("a", xds, "{}", Observed::Valid),
            // What is broken or empty never does, where the name says what it should be.
            ("a.Yaml", "- a", "- ]", Observed::Invalid),
            ("a.YML", "- a", "", Observed::Invalid),
            ("a.JSON", "[1]", "[", Observed::Invalid),
        ] {
            let observations = vec![file(name, "1", first), file(name, "2", then)];
            let at = if observed == Observed::Valid {
                "2"
            } else {
                "1"
            };
            check(observations, observed, Some(at), false);
        }
    }
}
