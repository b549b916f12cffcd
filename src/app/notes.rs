//! The warnings that stand since the last publish. Owns: that each is given once, and its all-clear
//! once.

use std::time::Instant;

use log::{info, warn};

use crate::error::{Chain, Error};
use crate::logging::WarnOnce;
use crate::sorted::{SortedMap, SortedSet};
use crate::xds::desired::Collision;
use crate::xds::merge::{Subject, Warnings};
use crate::xds::weights::{WeightKind, WeightSource};

const UNSWEPT: &str = "old sets cannot be removed; retrying at the next publish";

/// The warnings that stand.
#[derive(Default)]
pub struct Notes {
    /// Each collision, and the time at which it came up.
    collisions: Vec<(Collision, Instant)>,
    merge: SortedMap<Subject, Note>,
    /// Each warning about what is kept, and the time at which it came up.
    kept: Vec<(String, Instant)>,
    /// The events of the last turn that are logged: another attempt does not log them again.
    events: SortedSet<String>,
    unswept: WarnOnce,
}

/// The warnings about one subject of a merge.
struct Note {
    since: Instant,
    texts: SortedSet<String>,
}

/// The warnings about a snapshot.
pub struct Found {
    pub collisions: Vec<Collision>,
    pub warnings: Warnings,
}

impl Notes {
    /// Logs each warning that the last publish did not have, and the all-clear of what is over.
    pub fn tell(&mut self, found: Found, now: Instant) {
        self.tell_collisions(found.collisions, now);
        self.tell_merge(found.warnings, now);
    }

    fn tell_collisions(&mut self, found: Vec<Collision>, now: Instant) {
        self.collisions.retain(|(known, since)| {
            let stays = found.contains(known);
            if !stays {
                let lasted_s = seconds(*since, now);
                let message = "two ConfigMaps no longer have the same key";
                info!(file:% = known.file, configmap:% = known.published, shadowed:% = known.shadowed,
                    lasted_s; "{message}");
            }
            stays
        });
        for hidden in found {
            if self.collisions.iter().any(|(known, _)| *known == hidden) {
                continue;
            }
            let message = "two ConfigMaps have the same key; publishing the later one's file";
            warn!(file:% = hidden.file, configmap:% = hidden.published, shadowed:% = hidden.shadowed;
                "{message}");
            self.collisions.push((hidden, now));
        }
    }

    fn tell_merge(&mut self, found: Warnings, now: Instant) {
        let Warnings {
            texts,
            are_inputs_judged,
        } = found;
        self.merge.retain(|subject, note| {
            // What is not judged this time may be so still.
            let is_open = !are_inputs_judged && matches!(subject, Subject::Weights(_));
            let stays = is_open || texts.contains_key(subject);
            if !stays {
                all_clear(subject, seconds(note.since, now));
            }
            stays
        });
        for (subject, texts) in texts {
            let note = self.merge.get_or_insert_with(subject, || Note {
                since: now,
                texts: SortedSet::new(),
            });
            for warning in texts.difference(&note.texts) {
                warn!("{warning}");
            }
            note.texts = texts;
        }
    }

    /// Logs each warning about what is kept, and once that none stands any more; and each event,
    /// which has no end.
    pub fn tell_kept(&mut self, found: SortedSet<String>, events: SortedSet<String>, now: Instant) {
        let first = self.kept.iter().map(|(_, since)| *since).min();
        self.kept.retain(|(warning, _)| found.contains(warning));
        if let Some(first) = first.filter(|_| found.is_empty()) {
            let lasted_s = seconds(first, now);
            info!(lasted_s; "warnings about clusters and files that are kept are over");
        }
        for warning in found {
            if !self.kept.iter().any(|(known, _)| *known == warning) {
                warn!("{warning}");
                self.kept.push((warning, now));
            }
        }
        for warning in events.difference(&self.events) {
            warn!("{warning}");
        }
        self.events = events;
    }

    /// Logs once that old sets cannot be removed, and once that they can be again.
    pub fn tell_unswept(&mut self, unswept: Option<&Error>, now: Instant) {
        match unswept {
            Some(error) => {
                // The paths are others each time.
                if self.unswept.is_news(UNSWEPT, "", now) {
                    warn!(error:% = Chain(error); "{UNSWEPT}");
                }
            }
            None => {
                if let Some(lasted_s) = self.unswept.ended(now) {
                    info!(lasted_s; "old sets are removed again");
                }
            }
        }
    }
}

fn all_clear(subject: &Subject, lasted_s: u64) {
    match subject {
        Subject::File { object, file } => {
            info!(configmap:% = object, file:% = file, lasted_s;
                "warnings about the weights of this file are over");
        }
        Subject::Weights(WeightSource { kind, name }) => match kind {
            WeightKind::TrafficSplit => {
                info!(trafficsplit:% = name, lasted_s; "warnings about this TrafficSplit are over");
            }
            WeightKind::HttpRoute => {
                info!(httproute:% = name, lasted_s; "warnings about this HTTPRoute are over");
            }
        },
    }
}

fn seconds(since: Instant, now: Instant) -> u64 {
    now.saturating_duration_since(since).as_secs()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::snapshot::{FileName, ObjectName};

    fn object(name: &str) -> ObjectName {
        ObjectName {
            namespace: "default".to_owned(),
            name: name.to_owned(),
        }
    }

    fn warnings(subjects: &[&Subject], are_inputs_judged: bool) -> Warnings {
        let texts = subjects
            .iter()
            .map(|subject| ((*subject).clone(), SortedSet::from(["x".to_owned()])));
        Warnings {
            texts: texts.collect(),
            are_inputs_judged,
        }
    }

    #[test]
    fn a_warning_stands_from_its_first_publish_until_one_that_does_not_have_it() {
        let (mut notes, start) = (Notes::default(), Instant::now());
        let later = start + Duration::from_secs(5);
        let file = Subject::File {
            object: object("a"),
            file: FileName::new("rds.yaml").unwrap(),
        };
        let split = Subject::Weights(WeightSource {
            kind: WeightKind::TrafficSplit,
            name: object("podinfo"),
        });
        notes.tell_merge(warnings(&[&file, &split], true), start);
        notes.tell_merge(warnings(&[&file, &split], true), later);
        assert!(notes.merge.values().all(|note| note.since == start));
        // Nothing was found out about the split: no all-clear.
        notes.tell_merge(warnings(&[&file], false), later);
        assert_eq!(notes.merge.len(), 2);
        notes.tell_merge(warnings(&[], false), later);
        assert_eq!(notes.merge.keys().collect::<Vec<_>>(), [&split]);
        notes.tell_merge(warnings(&[], true), later);
        assert!(notes.merge.is_empty());
    }

    #[test]
    fn an_event_without_an_end_is_reported_once_for_all_attempts() {
        let (mut notes, now) = (Notes::default(), Instant::now());
        let set = |texts: &[&str]| texts.iter().map(ToString::to_string).collect();
        notes.tell_kept(set(&["kept"]), set(&["early"]), now);
        assert_eq!((notes.kept.len(), notes.events.len()), (1, 1));
        notes.tell_kept(set(&[]), set(&["early"]), now);
        assert_eq!((notes.kept.len(), notes.events.len()), (0, 1));
        notes.tell_kept(set(&[]), set(&[]), now);
        assert!(
            notes.kept.is_empty() && notes.events.is_empty(),
            "the next one is news"
        );
    }

    #[test]
    fn old_sets_that_stay_are_reported_once_until_they_are_gone() {
        let (mut notes, now) = (Notes::default(), Instant::now());
        let error = Error::Usage("as good as any".to_owned());
        notes.tell_unswept(Some(&error), now);
        assert!(
            !notes.unswept.is_news(UNSWEPT, "", now),
            "it would be said again"
        );
        notes.tell_unswept(None, now);
        assert!(notes.unswept.is_news(UNSWEPT, "", now));
    }
}
