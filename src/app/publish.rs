//! From what is known to the output: one publish, and what comes after it. Owns: when there is
//! enough to publish, and what the operator hears of it.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::{Duration, Instant};

use log::{info, warn};

use super::App;
use crate::error::{Chain, Error};
use crate::gather;
use crate::kube::circuit_breaker::ReminderSchedule;
use crate::output::Written;
use crate::output::directory::Published;
use crate::snapshot::{Origin, Snapshot};
use crate::source::config_map::{ConfigMapSource, Outcome};
use crate::source::smi::Smi;
use crate::xds::content::ConfigMapFiles;
use crate::xds::desired::{self, Collision, Desired, Observed, SourceView};
use crate::xds::merge::{self, Done, Merge};

/// What is not on the way to Envoy waits until nothing has changed for so long.
const SETTLED_AFTER: Duration = Duration::from_millis(200);
/// One change is synced at once; of many, one after the other, only so often.
const SYNC_EVERY: Duration = Duration::from_millis(250);
/// What holds everything up is told of after so long: at a start, answers come one after another.
const HELD_UP_FOR: Duration = Duration::from_secs(10);
/// Where syncing failed.
const SETTLE_AGAIN: Duration = Duration::from_secs(10);

impl App {
    /// Brings the output in step with what is known, if enough is.
    pub(super) fn publish(&mut self, since: Instant, now: Instant) -> Result<(), Error> {
        let mut is_skipped = false;
        for (source, followed) in self.sources.iter_mut().zip(&self.followed) {
            is_skipped |= source.examine(&mut || followed.has_input()) == Outcome::Skipped;
        }
        if is_skipped {
            // A newer state is on its way in.
            self.dirty_since = Some(Instant::now());
            return Ok(());
        }
        self.restore_last_known_good(now);
        if self.smi.as_ref().is_some_and(|smi| !smi.is_known()) && !self.goes_without_splits {
            return Ok(());
        }
        let splits = self.smi.as_ref().map(Smi::usable).unwrap_or_default();
        let known: Vec<SourceView> = self.sources.iter().map(ConfigMapSource::known).collect();
        let Some(Desired { set, overrides }) = desired::desired(&known, self.stands) else {
            let notices = || ReminderSchedule::new(now, HELD_UP_FOR);
            self.held_up.get_or_insert_with(notices);
            return Ok(());
        };
        self.held_up = None;
        let merge = Merge::new(&splits, &self.cluster_domain, set);
        let on_disk = match merge.is_undecided() {
            true => self.output.standing().map(|standing| standing.set),
            false => None,
        };
        let Done {
            set,
            good,
            behind,
            changes: weights,
            warnings,
            ..
        } = merge.finish(&self.good, on_disk.as_ref());
        drop(on_disk);
        let names: Vec<_> = splits.iter().map(|split| split.name.clone()).collect();
        let written = self.output.write(&set, self.once, now)?;
        // Nobody has looked for input meanwhile.
        self.input_drained = false;
        self.say(overrides, warnings);
        let first = !self.in_sync;
        self.in_sync = !matches!(written, Written::NotYet);
        if !self.in_sync {
            return Ok(());
        }
        self.stands = true;
        self.good = good;
        self.deferred_at = Some(now + SETTLED_AFTER);
        if self.last_fsync.is_none_or(|at| now > at + SYNC_EVERY) {
            self.sync(now);
        }
        let contents = self
            .sources
            .iter()
            .filter_map(|source| source.content.as_ref());
        let origins = contents.map(|content| content.origin.clone()).collect();
        let shown = std::mem::replace(&mut self.shown, origins);
        if let Written::New(published) = &written {
            let new = self.shown.iter().filter(|origin| !shown.contains(origin));
            report(
                published,
                &set,
                new,
                since,
                &merge::describe(&self.weights, &weights, &names),
            );
        }
        self.weights = weights;
        let known = self.smi.as_ref().is_some_and(Smi::is_known);
        let is_shown = |source: &ConfigMapSource| {
            source.observed == Observed::Valid && !behind.contains(&source.object)
        };
        for (mirror, shown) in self
            .mirrors
            .iter_mut()
            .zip(self.sources.iter().map(is_shown))
        {
            mirror.allow(known && shown);
            if first || matches!(written, Written::New(_)) {
                mirror.changed(now);
            }
        }
        Ok(())
    }

    /// Puts what is published on stable storage.
    pub(super) fn sync(&mut self, now: Instant) {
        self.last_fsync = Some(now);
        if !self.output.make_durable() {
            self.deferred_at = Some(now + SETTLE_AGAIN);
        } else if !self.once {
            self.output.prepare();
        }
    }

    /// Warns of what was not so before.
    fn say(&mut self, overrides: Vec<Collision>, warnings: BTreeSet<String>) {
        for hidden in overrides
            .iter()
            .filter(|hidden| !self.overrides.contains(hidden))
        {
            let Collision {
                file,
                published,
                shadowed,
            } = hidden;
            let message = "two ConfigMaps have the same file: the later one wins";
            warn!(file:% = file, configmap:% = published, hidden:% = shadowed; "{message}");
        }
        for warning in warnings.difference(&self.warnings) {
            warn!("{warning}");
        }
        (self.overrides, self.warnings) = (overrides, warnings);
    }

    /// No word of the splits for so long: what is on disk stays, or else the own weights go out.
    pub(super) fn give_up_splits(&mut self) {
        self.gave_up_splits = true;
        self.goes_without_splits = self.output.standing().is_none();
        match self.goes_without_splits {
            true => warn!("no word of the TrafficSplits yet: the ConfigMaps' own weights go out"),
            false => warn!("no word of the TrafficSplits yet: what is published stays"),
        }
    }

    /// Lets files of a previous run stand in for what is missing or invalid now, until this run has
    /// published something.
    fn restore_last_known_good(&mut self, now: Instant) {
        if !self.output.is_open() || !self.sources.iter().any(ConfigMapSource::needs_last_run) {
            return;
        }
        let standing = match self.shown.is_empty() {
            true => self.output.standing(),
            false => None,
        };
        self.stands |= standing.is_some();
        for source in self
            .sources
            .iter_mut()
            .filter(|source| source.needs_last_run())
        {
            let set = standing.as_ref().map(|standing| &standing.set);
            let last_run = set.and_then(|set| ConfigMapFiles::from_last_run(&source.object, set));
            source.restore(last_run, now);
        }
    }

    /// Says what nothing can be published for, once that has gone on for a while.
    pub(super) fn tell_what_holds_up(&mut self, now: Instant) {
        let due = |notices: &mut ReminderSchedule| notices.due(now);
        let lasts = self.held_up.as_mut().and_then(due);
        // Others tell of an outage, and of a command that waits.
        if let (Some(lasts), None, None) = (lasts, self.server.failure(), &self.waiting) {
            let (seconds, reason) = (lasts.as_secs(), self.obstacle());
            warn!(seconds, reason; "no change is published");
        }
    }
}

/// One line for each set, and a warning for what an Envoy may miss.
/// A file that is gone has no origin any more: the line names every state that is `new` then.
fn report<'a>(
    published: &Published,
    set: &'a Snapshot,
    new: impl Iterator<Item = &'a Rc<Origin>>,
    since: Instant,
    weights: &str,
) {
    let Published {
        number,
        changed,
        removed,
        committed,
        unswept,
    } = published;
    let of_changed = changed
        .iter()
        .filter_map(|name| Some(&set.get(name)?.origin));
    let origins = new.filter(|_| !removed.is_empty()).chain(of_changed);
    let origins: BTreeMap<_, _> =
        gather(origins.map(|origin| (&origin.object, &origin.resource_version)));
    let join = |texts: Vec<String>| texts.join(",");
    let gone = removed.iter().map(|name| format!("-{name}"));
    let files = changed.iter().map(ToString::to_string).chain(gone);
    let micros = committed.saturating_duration_since(since).as_micros();
    let configmap = join(origins.keys().map(ToString::to_string).collect());
    let resource_version = join(origins.values().map(ToString::to_string).collect());
    let (files, ms) = (
        join(files.collect()),
        format!("{}.{:03}", micros / 1000, micros % 1000),
    );
    if weights.is_empty() {
        info!(configmap, resource_version, files, set = *number, ms; "published");
    } else {
        info!(configmap, resource_version, files, weights, set = *number, ms; "published");
    }
    if let Some(error) = unswept {
        warn!(error:% = Chain(error); "old sets cannot be removed: trying again");
    }
    for name in removed {
        warn!(file:% = name;
            "a file is gone: an Envoy restarted now would not start, if its bootstrap names it");
    }
}
