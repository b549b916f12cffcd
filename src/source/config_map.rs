//! A source is one named ConfigMap: the cluster's last answer, and the last valid version.

mod reports;
#[cfg(test)]
mod tests;

use std::rc::Rc;
use std::time::Instant;

use log::debug;

use crate::error::{Chain, Error, Target, Verb};
use crate::kube::object::{Body, Object, ObjectKind};
use crate::kube::reflector::Event;
use crate::snapshot::{FileName, ObjectName, Origin, ResourceVersion};
use crate::sorted::{SortedMap, SortedSet};
use crate::source::doubts::Doubts;
use crate::xds::content::{ConfigMapFiles, Examination, Examined, Finding};
use crate::xds::desired::{Observed, SourceView};
use crate::xds::validate::{self, Check, Progress, Text};
use crate::xds::yaml::Form;
use reports::Reports;

/// The size from which a state may be skipped for a newer one: examining 64 KiB takes 2 ms.
const LARGE: usize = 64 << 10;
/// The number of states in a row that may be skipped for a newer one, so that something is
/// published even if they never stop coming.
const MAX_SKIPS_IN_A_ROW: u32 = 3;
/// The number of a text's events that are read before the kernel is asked for a newer state. They
/// take a third of a millisecond.
const STEPS: usize = 1024;

/// The outcome of examining the state that came last.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The state has been judged, now or before.
    Judged,
    /// The state is left unjudged, as a newer one should be taken in first.
    Skipped,
}

/// A named ConfigMap.
#[derive(Debug)]
pub struct ConfigMapSource {
    /// Its namespace and name.
    pub object: ObjectName,
    /// The cluster's last answer.
    pub observed: Observed,
    /// The last valid state, of this run or of a previous one.
    pub content: Option<ConfigMapFiles>,
    /// The time since which the ConfigMap cannot be read, and why: it is missing or forbidden.
    pub denied: Option<(Instant, Error)>,
    /// The faults of the last state, if it was invalid.
    pub refused: Option<String>,
    /// The last event, and when it came, until it has been examined.
    unread: Option<(Event, Instant)>,
    /// The number of states in a row that were skipped.
    skips: u32,
    /// Valid files that the second reader has not been asked about.
    unchecked: SortedSet<FileName>,
    /// Files that are not a configuration. They are invalid if a previous run published a
    /// configuration of their name, which is not known yet.
    foreign: SortedMap<FileName, Finding>,
    /// The published files that Envoy may not accept.
    doubts: Doubts,
    reports: Reports,
    /// True if the files that a previous run published of it are known.
    is_restored: bool,
}

impl ConfigMapSource {
    /// Makes a source that has not been read yet.
    pub fn new(object: ObjectName) -> ConfigMapSource {
        ConfigMapSource {
            object,
            observed: Observed::Pending,
            content: None,
            denied: None,
            refused: None,
            unread: None,
            skips: 0,
            unchecked: SortedSet::new(),
            foreign: SortedMap::new(),
            doubts: Doubts::default(),
            reports: Reports::default(),
            is_restored: false,
        }
    }

    /// Returns what a publish needs to know of it.
    pub fn known(&self) -> SourceView<'_> {
        SourceView {
            object: &self.object,
            observed: self.observed,
            content: self.content.as_ref(),
        }
    }

    /// Returns why its last state cannot be published.
    pub fn trouble(&self) -> Option<String> {
        let denied = self.denied.as_ref();
        let denied = denied.map(|(_, denied)| Chain(denied).to_string());
        let refused = self.refused.as_ref();
        denied.or_else(|| Some(format!("invalid ConfigMap {}: {}", self.object, refused?)))
    }

    /// Takes in an event. Of large states that come together, only the last may be examined.
    pub fn take(&mut self, event: Event, now: Instant) {
        let is_large = is_large(&event);
        if !is_large {
            // Only a newer large state may replace a large one that waits.
            let _ = self.examine(&mut || false);
        }
        self.unread = Some((event, now));
        if !is_large {
            let _ = self.examine(&mut || false);
        }
    }

    /// Judges the state that came last, unless `is_newer_pending` reports another one early enough.
    pub fn examine(&mut self, is_newer_pending: &mut dyn FnMut() -> bool) -> Outcome {
        let Some((event, now)) = self.unread.take() else {
            return Outcome::Judged;
        };
        match event {
            Event::Applied(object) => {
                let may = self.skips < MAX_SKIPS_IN_A_ROW;
                let outcome = self.observe(&object, now, &mut || may && is_newer_pending());
                if outcome == Outcome::Skipped {
                    self.unread = Some((Event::Applied(object), now));
                    self.skips += 1;
                    return outcome;
                }
                self.skips = 0;
            }
            Event::Replaced(objects) => match objects.first() {
                Some(object) => {
                    let _ = self.observe(object, now, &mut || false);
                }
                None => self.miss(now),
            },
            Event::Deleted(_) => self.miss(now),
            Event::Unavailable(error) => {
                self.refuse();
                self.deny(error, now);
            }
            Event::Unusable => self.refuse(),
        }
        Outcome::Judged
    }

    /// Returns whether files of a previous run may have to stand in for this ConfigMap.
    pub fn needs_last_run(&self) -> bool {
        !self.foreign.is_empty() || self.is_lacking()
    }

    fn is_lacking(&self) -> bool {
        let is_lost = matches!(self.observed, Observed::Missing | Observed::Invalid);
        is_lost && self.content.is_none()
    }

    /// Takes in the files of this ConfigMap that a previous run published. They stay while the
    /// cluster has no valid version, until this run has published something.
    pub fn restore(&mut self, last_run: Option<ConfigMapFiles>, now: Instant) {
        self.is_restored = true;
        let foreign = std::mem::take(&mut self.foreign);
        let stood = |name: &FileName| {
            let bytes = last_run.as_ref().and_then(|last| last.files.get(name));
            bytes.is_some_and(|bytes| validate::is_configuration(name, bytes))
        };
        let (refusals, others): (Vec<_>, Vec<_>) =
            foreign.into_iter().partition(|(name, _)| stood(name));
        let is_held_back = !refusals.is_empty();
        if let Some(content) = self.content.take_if(|_| is_held_back) {
            self.content = last_run;
            // Otherwise a later state has been reported already.
            if self.observed == Observed::Valid {
                let findings = refusals.into_iter().map(|(_, finding)| finding).collect();
                self.reject(findings, &content.origin.resource_version, now);
            }
            return;
        }
        if let Some(content) = &self.content {
            for (name, Finding { key, what }) in others {
                if Form::of(&name).is_named() {
                    self.doubts.add(&content.origin, &key, &what, now);
                }
            }
        }
        if self.is_lacking() {
            self.content = last_run;
        }
        self.tell_warning(now);
    }

    /// Checks the published files with the second reader, which would have delayed the publish.
    pub fn run_deferred_checks(&mut self, now: Instant) {
        let unchecked = std::mem::take(&mut self.unchecked);
        let Some(content) = &self.content else { return };
        for name in unchecked {
            let bytes = content.files.get(&name);
            match bytes.and_then(|bytes| validate::cross_check(&name, bytes)) {
                Some(fault) => {
                    let error = fault.to_string();
                    self.doubts.add(&content.origin, name.as_str(), &error, now);
                }
                None => self
                    .doubts
                    .clear(&content.origin, |file| *file == name, now),
            }
        }
    }

    /// Examines a state of the ConfigMap.
    fn observe(
        &mut self,
        object: &Object,
        now: Instant,
        may_skip: &mut dyn FnMut() -> bool,
    ) -> Outcome {
        let Body::ConfigMap(raw) = &object.body else {
            return Outcome::Judged;
        };
        let mut examination = Examination::new(raw, self.content.as_ref());
        while let Some((name, bytes)) = examination.next_unread() {
            let text = Text::new(&name, &bytes);
            let mut check = Check::new(&text);
            let verdict = loop {
                match check.run(STEPS) {
                    Progress::Done(verdict) => break verdict,
                    // Skipping must save more than it costs.
                    Progress::Pending(rest) if !rest.is_past_half() && may_skip() => {
                        return Outcome::Skipped;
                    }
                    Progress::Pending(rest) => check = rest,
                }
            };
            examination.judge(name, verdict);
        }
        self.settle(object, examination.finish(), now);
        Outcome::Judged
    }

    /// Takes in the result of an examination.
    fn settle(&mut self, object: &Object, examined: Examined, now: Instant) {
        let version = &object.version;
        let resource_version = &version.resource_version;
        self.denied = None;
        self.refused = None;
        self.reports.withdraw();
        match examined.content {
            Ok(files) => {
                debug!(configmap:% = self.object, resource_version:% = resource_version; "observed");
                let before = self.content.as_ref();
                let is_same = |name: &FileName| {
                    before.is_some_and(|before| before.files.get(name) == files.get(name))
                };
                self.foreign.retain(|name, _| is_same(name));
                self.foreign.extend(examined.foreign);
                let origin = Rc::new(Origin {
                    object: self.object.clone(),
                    uid: version.uid.clone(),
                    resource_version: resource_version.clone(),
                });
                self.doubts
                    .clear(&origin, |file| !files.contains_key(file), now);
                for Finding { key, what } in examined.warnings {
                    self.doubts.add(&origin, &key, &what, now);
                    self.unchecked.retain(|file| file.as_str() != key);
                }
                self.unchecked.extend(examined.unchecked);
                self.content = Some(ConfigMapFiles { origin, files });
                self.observed = Observed::Valid;
                self.reports.valid(&self.object, now);
            }
            Err(findings) => self.reject(findings, resource_version, now),
        }
    }

    /// Notes that a state is invalid.
    fn reject(&mut self, findings: Vec<Finding>, resource_version: &ResourceVersion, now: Instant) {
        let reasons: Vec<String> = findings.iter().map(Finding::to_string).collect();
        let reasons = reasons.join("; ");
        self.observed = Observed::Invalid;
        self.reports.invalid(&reasons, resource_version);
        self.warn_if_known(now);
        self.refused = Some(reasons);
    }

    /// Notes that the ConfigMap does not exist.
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
        self.reports.missing(&error);
        self.warn_if_known(now);
        self.deny(error, now);
    }

    /// Notes a failed answer. The other ConfigMaps go on if this one has a version to publish.
    fn refuse(&mut self) {
        if self.observed == Observed::Pending {
            self.observed = Observed::Invalid;
        }
    }

    fn deny(&mut self, error: Error, now: Instant) {
        let since = self.denied.as_ref().map_or(now, |(since, _)| *since);
        self.denied = Some((since, error));
    }

    /// Gives the warning that is owed, if it is known whether anything of the ConfigMap is
    /// published.
    fn warn_if_known(&mut self, now: Instant) {
        if self.content.is_some() || self.is_restored {
            self.tell_warning(now);
        }
    }

    /// Gives the warning that is owed, if there is one.
    pub fn tell_warning(&mut self, now: Instant) {
        self.reports.give(&self.object, self.content.is_some(), now);
    }
}

/// Returns whether the event's state takes so long to examine that a newer one may arrive
/// meanwhile.
fn is_large(event: &Event) -> bool {
    let Event::Applied(Object {
        body: Body::ConfigMap(Ok(files)),
        ..
    }) = event
    else {
        return false;
    };
    files.values().map(|bytes| bytes.len()).sum::<usize>() > LARGE
}
