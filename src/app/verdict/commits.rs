//! Tells the acceptance of each set that is committed, and makes those that it wants.

use std::rc::Rc;
use std::time::Instant;

use super::super::publish::Candidate;
use super::super::sequence;
use super::contents::Contents;
use super::{AGAIN_AFTER, App, Held, Verdicts, wall_clock};
use crate::envoy::acceptance::{Acceptance, Changed, SetId, Stage, Step};
use crate::envoy::reason::Topic;
use crate::envoy::verdict::{Holdings, Subscription};
use crate::error::Error;
use crate::output::directory::Compared;
use crate::output::step::{self, SetFiles};
use crate::output::{Output, Written};
use crate::snapshot::{File, FileName};
use crate::xds::sequence::{Kind, clusters_of, kind_of, resources_of};

/// Returns the subscriptions that a file's resources are for.
fn subscriptions(name: &FileName, bytes: &[u8]) -> Vec<Subscription> {
    let mut found = Vec::new();
    for (kind, resource) in resources_of(name, bytes) {
        let subscription = match kind {
            Kind::Clusters => Subscription::Clusters,
            Kind::Listeners => Subscription::Listeners,
            Kind::Runtime => Subscription::Runtime,
            Kind::Endpoints => Subscription::Endpoints(resource),
            Kind::Secrets => Subscription::Secret(resource),
            Kind::Routes => Subscription::Routes(resource),
            // It is there as what it may be meant for.
            Kind::Untyped => continue,
        };
        if !found.contains(&subscription) {
            found.push(subscription);
        }
    }
    found
}

/// Returns the names of a file's resources that are not the same in the text before it.
fn changed_names(topic: Topic, name: &FileName, text: &[u8], before: Option<&[u8]>) -> Vec<String> {
    let read = |bytes| clusters_of(name, bytes).unwrap_or_default();
    if topic == Topic::Clusters {
        let known = before.map(read).unwrap_or_default();
        let is_new = |name: &str, hash| !known.iter().any(|it| it.name == name && it.hash == hash);
        let clusters = read(text).into_iter();
        let new = clusters.filter(|it| is_new(&it.name, it.hash));
        return new.map(|cluster| cluster.name).collect();
    }
    let wanted = match topic {
        Topic::Listeners => Kind::Listeners,
        Topic::Clusters => Kind::Clusters,
        Topic::Secrets => Kind::Secrets,
    };
    let resources = resources_of(name, text).into_iter();
    let resources = resources.filter(|(kind, _)| *kind == wanted);
    resources.map(|(_, resource)| resource).collect()
}

impl Verdicts {
    /// Begins a step, before it is committed.
    fn begins(
        &mut self,
        (stage, is_half): (Stage, bool),
        set: SetId,
        files: impl Iterator<Item = (FileName, File)>,
        contents: &Contents,
        output: &mut Output,
    ) {
        if stage == Stage::Back {
            // What is told of the refusal is that of the step that was refused.
            let refused = || (self.held_by.clone(), self.committed);
            self.taken_back.get_or_insert_with(refused);
        }
        let mut earlier = std::mem::take(&mut self.changed);
        self.changed = files.collect();
        self.new = self.changed.len();
        if self.acceptance.as_ref().is_some_and(Acceptance::is_cold) {
            earlier.retain(|(name, _)| self.changed.iter().all(|(new, _)| new != name));
            self.changed.append(&mut earlier);
        }
        let changed = self.changed.iter().take(self.new).map(|(name, file)| {
            let content = contents.of(&file.origin.object);
            Changed {
                file: name.clone(),
                is_new: self.is_new(&content, &contents.held),
                content,
                holdings: Holdings::default(),
            }
        });
        let changed = changed.collect();
        self.committed = wall_clock();
        if let Some(acceptance) = &mut self.acceptance {
            acceptance.commits(Step {
                stage,
                set,
                is_half,
                changed,
            });
        }
        self.remember(output);
    }

    /// Ends the commit of a step.
    fn ends(&mut self, written: &Written, now: Instant) {
        let Some(acceptance) = &mut self.acceptance else {
            return;
        };
        let Written::New(published) = written else {
            self.try_at = Some(now + AGAIN_AFTER);
            return acceptance.commit_failed(now);
        };
        let mut holdings = Vec::new();
        for (name, file) in self.changed.iter().take(self.new) {
            let mut now = subscriptions(name, &file.bytes);
            let before = self.held_by.remove(name).map(|held| held.subscriptions);
            let before = before.unwrap_or_default();
            if kind_of(name, &file.bytes) == Kind::Untyped {
                // Whoever reads it is the one that has read it before.
                now.extend(
                    before
                        .iter()
                        .filter(|it| !now.contains(it))
                        .cloned()
                        .collect::<Vec<_>>(),
                );
            }
            let held = Held {
                subscriptions: now.clone(),
                origin: file.origin.clone(),
            };
            self.held_by.insert(name.clone(), held);
            holdings.push(Holdings { now, before });
        }
        for name in &published.removed {
            self.held_by.remove(name);
        }
        acceptance.removed(&published.removed);
        acceptance.committed(published.number, holdings);
        // An answer on a new connection never comes before what was announced is read.
        acceptance.acknowledged(Instant::now());
    }

    /// Returns the names of the resources that were refused, or may have been.
    pub(super) fn names_of(&mut self, output: &mut Output, topic: Option<Topic>) -> Vec<String> {
        let keeps = self.acceptance.as_ref().map(|it| it.keeps());
        let before = keeps.and_then(|[good, standing]| standing.or(good));
        let before = before.and_then(|set| output.set_files(set));
        let before = before.map(|set| set.files).unwrap_or_default();
        let mut names = Vec::new();
        for (name, file) in topic.iter().flat_map(|_| &self.changed) {
            let before = before.get(name).map(|file| &*file.bytes);
            names.extend(topic.map(|topic| changed_names(topic, name, &file.bytes, before)));
        }
        let names: Vec<String> = names.into_iter().flatten().collect();
        names
    }
}

impl App {
    /// Makes a compared set visible, as a step that Envoy will be asked about.
    pub(in crate::app) fn commit(
        &mut self,
        compared: Compared,
        stage: sequence::Stage,
        drops: bool,
        candidate: &Candidate,
        now: Instant,
    ) -> Result<Written, Error> {
        let verdicts = self.verdicts.as_mut().zip(candidate.contents.as_ref());
        let Some((verdicts, contents)) = verdicts else {
            return self.output.write(compared, now);
        };
        if !compared.is_different() {
            return self.output.write(compared, now);
        }
        let all = compared.step.files;
        let files = compared
            .changed()
            .filter_map(|name| Some((name.clone(), all.get(name)?.clone())));
        let files: Vec<(FileName, File)> = files.collect();
        let is_new = |(_, file): &(FileName, File)| {
            let content = contents.of(&file.origin.object);
            verdicts.is_new(&content, &contents.held)
        };
        let stage = match stage {
            sequence::Stage::Clusters => Stage::Clusters,
            _ if drops && !files.iter().any(is_new) => Stage::Drop,
            sequence::Stage::Routes | sequence::Stage::Target => Stage::Routes,
        };
        let set = self.output.next_set().unwrap_or_default();
        verdicts.begins(
            (stage, false),
            set,
            files.into_iter(),
            contents,
            &mut self.output,
        );
        let written = self.output.write(compared, now)?;
        if let Some(verdicts) = &mut self.verdicts {
            verdicts.ends(&written, now);
            if stage != Stage::Clusters && matches!(written, Written::New(_)) {
                verdicts.visible = Some(contents.clone());
            }
        }
        Ok(written)
    }

    /// Notes what the cluster has, where it is on disk already.
    pub(in crate::app) fn note_in_sync(&mut self, candidate: &Candidate, now: Instant) {
        let verdicts = self.verdicts.as_mut().zip(candidate.contents.as_ref());
        let Some((verdicts, contents)) = verdicts else {
            return;
        };
        verdicts.visible.get_or_insert_with(|| contents.clone());
        if let Some(acceptance) = &mut verdicts.acceptance {
            acceptance.in_sync(&contents.observed, now);
        }
    }

    /// Announces each visible file again. Returns whether there may be more to do.
    pub(super) fn poke(&mut self, now: Instant) -> Result<bool, Error> {
        let visible = self.output.visible();
        let Some(found) = visible.and_then(|set| self.output.set_files(set)) else {
            if let Some(acceptance) = self.acceptance() {
                acceptance.cannot_poke();
            }
            // What somebody has edited is written again, and judged with that.
            self.pending.mark(now);
            return Ok(true);
        };
        let of_disk = visible.and_then(|set| self.output.set_target(set));
        let Some(verdicts) = &mut self.verdicts else {
            return Ok(false);
        };
        let of_disk = || Rc::new(of_disk.map(Contents::of_set).unwrap_or_default());
        let contents = verdicts.visible.take().unwrap_or_else(of_disk);
        let is_made = self.republish(Stage::Poke, &found, &contents, now)?;
        if let Some(verdicts) = &mut self.verdicts {
            verdicts.visible = Some(contents);
        }
        Ok(is_made)
    }

    /// Makes an earlier set visible again. Returns whether there may be more to do.
    pub(super) fn go_back(&mut self, set: SetId, now: Instant) -> Result<bool, Error> {
        let Some(found) = self.output.set_files(set) else {
            if let Some(acceptance) = self.acceptance() {
                acceptance.cannot_go_back();
            }
            return Ok(true);
        };
        let accepted = self.verdicts.as_ref().and_then(|it| it.accepted.clone());
        let contents = accepted.unwrap_or_default();
        if !self.republish(Stage::Back, &found, &contents, now)? {
            return Ok(false);
        }
        // What follows is planned from what is on disk.
        self.sequence.reset();
        self.sequence.on_failed();
        self.progress = None;
        self.last.good.clone_from(&contents.texts);
        if let Some(verdicts) = &mut self.verdicts {
            verdicts.visible = Some(contents);
        }
        Ok(true)
    }

    /// Makes a set visible, and has Envoy told of all of it. Returns whether that could be done.
    fn republish(
        &mut self,
        stage: Stage,
        set: &SetFiles,
        contents: &Contents,
        now: Instant,
    ) -> Result<bool, Error> {
        let Some(verdicts) = &mut self.verdicts else {
            return Ok(false);
        };
        let files = set.files.iter();
        let files = files.map(|(name, file)| (name.clone(), file.clone()));
        let next = self.output.next_set().unwrap_or_default();
        let transient = set.transient.as_ref();
        let is_half = transient.is_some_and(|it| it.stage == step::Stage::Clusters);
        let begins = (stage, is_half);
        verdicts.begins(begins, next, files, contents, &mut self.output);
        let written = self.output.republish(set, now)?;
        if !self.sequence.is_listening() {
            self.output.end_watch();
        }
        let is_made = !matches!(written, Written::NotYet);
        if let Some(verdicts) = &mut self.verdicts {
            verdicts.ends(&written, now);
        }
        Ok(is_made)
    }

    fn acceptance(&mut self) -> Option<&mut Acceptance> {
        self.verdicts.as_mut()?.acceptance.as_mut()
    }
}
