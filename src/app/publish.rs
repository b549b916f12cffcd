//! One publish: from what was observed to the output, and what comes after it. Owns: when there is
//! enough to publish, and the log line of a publish.

use std::rc::Rc;
use std::time::Instant;

use super::App;
use super::notes::Found;
use super::report::Report;
use super::sequence::{Dropped, Planned, Stage};
use super::split_gate::SplitGate;
use super::task::{ConfigMap, ConfigMapInput};
use super::verdict::Contents;
use crate::error::Error;
use crate::output::Written;
use crate::output::directory::Synced;
use crate::snapshot::{FileName, ObjectName, Origin, Snapshot};
use crate::sorted::SortedSet;
use crate::source::config_map::{ConfigMapSource, Outcome};
use crate::xds::content::ConfigMapFiles;
use crate::xds::desired::{self, Desired, Observed, SourceView};
use crate::xds::merge::{self, Done, Merge, WeightTable};
use crate::xds::weights::WeightSource;

/// The inputs of the last publish.
#[derive(Default)]
pub struct LastPublish {
    /// The texts that weights were merged into.
    pub good: Snapshot,
    /// The versions of the ConfigMaps.
    origins: Vec<Rc<Origin>>,
    /// The routes that follow an object.
    weights: WeightTable,
}

/// A snapshot to be published.
pub struct Candidate {
    pub set: Snapshot,
    /// The texts that weights were merged into.
    good: Snapshot,
    /// The ConfigMaps that are not published as the cluster has them.
    pub behind: Vec<ObjectName>,
    weights: WeightTable,
    /// The objects whose weights were merged.
    inputs: Vec<WeightSource>,
    /// The contents that it is made of; `None` if Envoy is not asked about it.
    pub contents: Option<Rc<Contents>>,
}

impl App {
    /// Publishes what was observed, if that is enough for a snapshot.
    pub(super) fn publish(&mut self, since: Instant, now: Instant) -> Result<(), Error> {
        if !self.examine_sources() {
            // A newer state is on its way in.
            self.pending.mark(Instant::now());
            return Ok(());
        }
        self.restore_last_known_good(now);
        if self
            .verdicts
            .as_mut()
            .is_some_and(|it| !it.may_publish(since))
        {
            return Ok(());
        }
        if self.tasks.unknown_weights().is_none() {
            self.open_split_gate(now);
        } else if !matches!(self.split_gate, SplitGate::PublishWithout(_)) {
            return Ok(());
        }
        let Some((candidate, found)) = self.collect(now) else {
            self.readiness.on_blocked(now);
            return Ok(());
        };
        self.readiness.on_unblocked(now);
        let interim = self.interim();
        let none = Snapshot::new();
        let texts = interim.as_ref().map_or(&none, |interim| &interim.set);
        let (planned, written) = self.write_next(&candidate, texts, now)?;
        self.pending.doubt_input();
        self.notes.tell(found, now);
        let Planned {
            stage,
            dropped,
            held,
            removed,
            warnings,
            events,
            ..
        } = planned;
        self.notes.tell_kept(warnings, events, now);
        self.warn_unwatched(&written);
        if matches!(written, Written::NotYet) {
            self.readiness.on_write_failed();
        } else if stage == Stage::Clusters {
            let held: SortedSet<FileName> = held.into_keys().collect();
            self.report_released(&candidate, interim, &held, &written, since);
            self.note_progress(&written, (removed, dropped), since, now);
            if self.sequence.has_opened() {
                self.pending.mark(now);
            }
        } else {
            if matches!(written, Written::Settled) {
                self.note_in_sync(&candidate, now);
            }
            let was_in_sync = self.readiness.is_in_sync();
            self.readiness.on_published();
            self.after_publish(candidate, &written, (removed, dropped), since, now);
            if !was_in_sync || matches!(written, Written::New(_)) {
                self.update_mirrors(now);
            }
        }
        Ok(())
    }

    /// Judges what the ConfigMaps' events have brought. Returns false if a newer state should be
    /// read first.
    fn examine_sources(&mut self) -> bool {
        let mut is_done = true;
        for ConfigMapInput { reflector, source } in self.tasks.inputs_mut() {
            let outcome = source.examine(&mut || reflector.has_input());
            is_done &= outcome == Outcome::Judged;
        }
        is_done
    }

    /// Makes the snapshot that should stand on disk, with weights. Returns `None` while a ConfigMap
    /// holds it up.
    fn collect(&mut self, now: Instant) -> Option<(Candidate, Found)> {
        let inputs = self.tasks.usable_weights();
        let mut known: Vec<SourceView> = self.tasks.sources().map(ConfigMapSource::known).collect();
        let verdicts = self.verdicts.as_mut();
        let mut contents = verdicts.map(|verdicts| verdicts.contents(&known, now));
        for (place, files) in contents.iter().flat_map(|(_, stand_ins)| stand_ins) {
            known[*place].content = files.as_ref();
        }
        let Desired { set, overrides } = desired::desired(&known, self.readiness.has_files())?;
        if let Some((contents, _)) = &mut contents {
            contents.texts = set.clone();
        }
        let merge = Merge::new(&inputs, &self.cluster_domain, set);
        let on_disk = if merge.is_undecided() {
            self.output.standing().map(|standing| standing.set)
        } else {
            None
        };
        let mut merged = merge.finish(&self.last.good, on_disk.as_ref());
        let contents = contents.map(|(mut contents, _)| {
            contents.texts.extend(
                merged
                    .good
                    .iter()
                    .map(|(name, file)| (name.clone(), file.clone())),
            );
            merged.behind.extend(contents.held.iter().cloned());
            Rc::new(contents)
        });
        let found = Found {
            collisions: overrides,
            warnings: merged.warnings,
        };
        let candidate = Candidate {
            set: merged.set,
            good: merged.good,
            behind: merged.behind,
            weights: merged.changes,
            inputs: inputs.iter().map(|input| input.source.clone()).collect(),
            contents,
        };
        Some((candidate, found))
    }

    /// Remembers what stands on disk now, and lets the mirrors of current ConfigMaps show it.
    fn after_publish(
        &mut self,
        new: Candidate,
        written: &Written,
        gone: (Vec<FileName>, Dropped),
        since: Instant,
        now: Instant,
    ) {
        if self.deferred.published(now) && !self.sequence.is_listening() {
            self.sync(now);
        }
        let contents = self
            .tasks
            .sources()
            .filter_map(|source| source.content.as_ref());
        let origins: Vec<Rc<Origin>> = contents.map(|content| content.origin.clone()).collect();
        let progress = self.progress.take();
        if let Written::New(published) = written {
            let is_news = |origin: &&Rc<Origin>| !self.last.origins.contains(origin);
            let weights = merge::describe(&self.last.weights, &new.weights, &new.inputs);
            let origins = origins.iter().filter(is_news);
            let went_along = |name: &FileName| self.sequence.went_along(name);
            let report = Report::new(published, progress, gone, since);
            report.log(&new.set, origins, &weights, went_along);
            self.notes.tell_unswept(published.unswept.as_ref(), now);
        }
        self.last = LastPublish {
            good: new.good,
            origins,
            weights: new.weights,
        };
        let is_known = self.tasks.unknown_weights().is_none();
        for ConfigMap { input, mirror } in &mut self.tasks.configmaps {
            let ConfigMapInput { source, .. } = input;
            let is_current =
                source.observed == Observed::Valid && !new.behind.contains(&source.object);
            if let Some(mirror) = mirror {
                mirror.allow(is_known && is_current);
            }
        }
    }

    /// Logs the routes that have become visible while others wait for their clusters, and remembers
    /// their texts.
    fn report_released(
        &mut self,
        new: &Candidate,
        interim: Option<Done>,
        held: &SortedSet<FileName>,
        written: &Written,
        since: Instant,
    ) {
        let Some(interim) = interim else { return };
        let weights = merge::describe(&self.last.weights, &interim.changes, &new.inputs);
        for (name, file) in &new.good {
            if !held.contains(name) {
                self.last.good.insert(name.clone(), file.clone());
            }
        }
        self.last.weights = interim.changes;
        if let Written::New(published) = written {
            let none = (Vec::new(), Dropped::default());
            let report = Report::new(published, None, none, since);
            report.log_released(&self.last.good, &weights);
        }
    }

    fn update_mirrors(&mut self, now: Instant) {
        for ConfigMap { mirror, .. } in &mut self.tasks.configmaps {
            if let Some(mirror) = mirror {
                mirror.changed(now);
            }
        }
    }

    /// Syncs what is published to stable storage.
    pub(super) fn sync(&mut self, now: Instant) {
        let synced = self.output.make_durable();
        self.deferred.synced(synced != Synced::Failed, now);
        if synced == Synced::Done && self.once.is_none() {
            self.output.prepare();
        }
    }

    /// Lets files of a previous run stand in for what is missing or invalid now, until this run has
    /// published something.
    fn restore_last_known_good(&mut self, now: Instant) {
        let needed = self.tasks.sources().any(ConfigMapSource::needs_last_run);
        if !needed {
            return;
        }
        if !self.output.is_open() {
            self.tasks.sources_mut().for_each(|s| s.tell_warning(now));
            return;
        }
        let standing = if self.last.origins.is_empty() {
            self.output.standing()
        } else {
            None
        };
        if standing.is_some() {
            self.readiness.on_files_found();
        }
        let set = standing.as_ref().map(|standing| &standing.set);
        for source in self.tasks.sources_mut().filter(|s| s.needs_last_run()) {
            let last_run = set.and_then(|set| ConfigMapFiles::from_last_run(&source.object, set));
            source.restore(last_run, now);
        }
    }
}
