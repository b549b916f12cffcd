//! Takes a change to Envoy in the order in which it can take it: asks the [`Sequence`] for the next
//! set, writes it, and hears who has read it. Owns: what the operator reads of that.

use std::time::Instant;

use log::{debug, info, warn};

use super::App;
use super::publish::Candidate;
use super::report::{Clusters, Progress};
use super::sequence::{Dropped, Overlay, Planned, Stage, Turn};
use crate::error::{Chain, Error};
use crate::output::Written;
use crate::output::step::{self, Step, Transient};
use crate::snapshot::{FileName, Snapshot};
use crate::sorted::SortedSet;
use crate::source::config_map::ConfigMapSource;
use crate::xds::desired::Observed;
use crate::xds::merge::{Done, Merge};
use crate::xds::sequence::{Difference, Outline};

impl Overlay<'_> {
    fn transient(&self) -> Option<Transient> {
        let is_target = self.standing.is_empty() && self.inserted.is_empty();
        (!is_target).then(|| Transient {
            stage: step::Stage::Routes,
            inserted: self.inserted.clone(),
            vanishing: self.standing.clone(),
        })
    }
}

impl Planned<'_> {
    fn transient(&self) -> Option<Transient> {
        let stage = match self.stage {
            Stage::Target => return None,
            Stage::Clusters => step::Stage::Clusters,
            Stage::Routes => step::Stage::Routes,
        };
        Some(Transient {
            stage,
            inserted: self.inserted.clone(),
            vanishing: self.vanishing.clone(),
        })
    }
}

impl App {
    /// Writes the next set on the way to the candidate's.
    pub(super) fn write_next<'c>(
        &mut self,
        candidate: &'c Candidate,
        interim: &Snapshot,
        now: Instant,
    ) -> Result<(Planned<'c>, Written), Error> {
        let target = &candidate.set;
        // Without an Envoy that runs there is not an order to keep.
        let is_alone =
            self.child.is_waiting() || self.verdicts.as_ref().is_some_and(|it| it.is_alone());
        if self.once.is_some() || is_alone {
            return self.write_target(candidate, now);
        }
        let mut overlay = self
            .sequence
            .overlay(target, self.holds_back(candidate), now);
        let transient = overlay.transient();
        let step = Step {
            files: &overlay.files,
            standing: &overlay.standing,
            transient: transient.as_ref(),
            watch: false,
            moves_listener: false,
        };
        let mut compared = self.output.compare(step, now)?;
        let Some(found) = compared.difference() else {
            return self.write_target(candidate, now);
        };
        let difference = Difference {
            added: found.added.into_iter().collect(),
            changed: found.changed.into_iter().collect(),
            removed: found.removed.into_iter().collect(),
        };
        overlay.resumes = self.sequence.may_resume() && self.output.is_at(step::Stage::Clusters);
        let outline = Outline::new(target, &difference);
        let is_ordered = outline.is_plain && self.sequence.is_idle() && overlay.is_target();
        if is_ordered && !overlay.resumes {
            compared.step.moves_listener = outline.moves_listener;
            let written = self.commit(compared, Stage::Target, false, candidate, now)?;
            match written {
                Written::NotYet => self.sequence.on_failed(),
                _ if outline.moves_listener => self.sequence.on_listener_moved(now),
                _ => {}
            }
            return Ok((Planned::target(target), written));
        }
        let mut visible = Snapshot::new();
        for name in outline.wanted {
            let file = self.output.visible_file(&name);
            visible.extend(file.map(|file| (name, file)));
        }
        let planned = self
            .sequence
            .plan(overlay, target, &difference, &visible, interim);
        let transient = planned.transient();
        let step = Step {
            files: &planned.files,
            standing: &planned.standing,
            transient: transient.as_ref(),
            watch: planned.is_watched,
            moves_listener: planned.moves_listener,
        };
        let compared = self.output.compare(step, now)?;
        if compared.difference().is_none() {
            return self.write_target(candidate, now);
        }
        let changed: Vec<FileName> = compared.announced().cloned().collect();
        let drops = !planned.dropped.is_empty();
        let written = self.commit(compared, planned.stage, drops, candidate, now)?;
        match written {
            Written::NotYet => self.sequence.on_failed(),
            _ => self.sequence.on_committed(&planned, &changed, now),
        }
        Ok((planned, written))
    }

    fn write_target<'c>(
        &mut self,
        candidate: &'c Candidate,
        now: Instant,
    ) -> Result<(Planned<'c>, Written), Error> {
        let target = &candidate.set;
        let compared = self.output.compare(Step::target(target), now)?;
        let written = self.commit(compared, Stage::Target, false, candidate, now)?;
        match written {
            Written::NotYet => self.sequence.on_failed(),
            _ => self.sequence.reset(),
        }
        Ok((Planned::target(target), written))
    }

    /// Returns whether a ConfigMap is not published as the cluster has it, so that an older text
    /// may need what has vanished.
    fn holds_back(&self, candidate: &Candidate) -> bool {
        let is_invalid = |source: &ConfigMapSource| source.observed == Observed::Invalid;
        !candidate.behind.is_empty() || self.tasks.sources().any(is_invalid)
    }

    /// Merges today's weights into the texts that are visible, while newer ones wait for their
    /// clusters.
    pub(super) fn interim(&self) -> Option<Done> {
        if !self.sequence.holds_routes() {
            return None;
        }
        let inputs = self.tasks.usable_weights();
        let good = &self.last.good;
        Some(Merge::new(&inputs, &self.cluster_domain, good.clone()).finish(good, None))
    }

    /// Notes which files somebody has read.
    pub(super) fn hear_readers(&mut self, now: Instant) {
        let read = self.output.take_read();
        if !read.is_empty() {
            let turn = self.sequence.on_read(&Vec::from_iter(read), now);
            self.take_turn(turn, now);
        }
    }

    /// Does what is due in the sequence.
    pub(super) fn tick_sequence(&mut self, now: Instant) {
        self.hear_drained(now);
        let is_watched = self.output.reads().is_some();
        let turn = self.sequence.tick(is_watched, now);
        self.take_turn(turn, now);
    }

    pub(super) fn take_turn(&mut self, turn: Turn, now: Instant) {
        for file in turn.unread {
            info!(file:% = file; "no one reads this file; later changes of it do not wait for a reader");
        }
        if turn.publish {
            if let Some(progress) = &mut self.progress
                && let Clusters::Waiting(since) = progress.clusters
            {
                progress.clusters = Clusters::Waited(now.saturating_duration_since(since));
            }
            self.pending.mark(now);
        }
        if !self.sequence.is_listening() {
            self.output.end_watch();
        }
    }

    /// Notes that clusters are visible and routes wait for them.
    pub(super) fn note_progress(
        &mut self,
        written: &Written,
        gone: (Vec<FileName>, Dropped),
        since: Instant,
        now: Instant,
    ) {
        let Written::New(published) = written else {
            return;
        };
        let progress = self.progress.get_or_insert_with(|| Progress {
            since,
            clusters: Clusters::Waiting(now),
            changed: SortedSet::new(),
            removed: SortedSet::new(),
            dropped: Dropped::default(),
        });
        let (removed, dropped) = gone;
        progress.removed.extend(removed);
        progress.dropped.clusters.extend(dropped.clusters);
        progress.dropped.files.extend(dropped.files);
        progress.clusters = Clusters::Waiting(published.committed);
        progress.changed.extend(published.changed.iter().cloned());
        debug!(set = published.number; "clusters published; routes follow once they are read");
    }

    /// Says once that reading cannot be seen.
    pub(super) fn warn_unwatched(&mut self, written: &Written) {
        if let Written::New(published) = written
            && let Some(error) = &published.unwatched
            && !std::mem::replace(&mut self.told_unwatched, true)
        {
            warn!(error:% = Chain(error);
                "cannot see when files are read; each step waits a second instead");
        }
    }
}
