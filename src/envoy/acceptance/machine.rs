//! The verdict on a step, given those of all Envoys, and what follows from it.

use std::time::Instant;

use super::envoys::{Presence, Told};
use super::{
    Acceptance, Changed, Content, DEATHS, Event, Phase, REASONS_WITHIN, RefusedFile, SetId, Stage,
    Step,
};
use crate::envoy::verdict::Refusal;
use crate::snapshot::FileName;

impl Acceptance {
    /// Ends the step once every Envoy has told of it, or one has refused it.
    pub(super) fn settle(&mut self, now: Instant) {
        if !matches!(self.phase, Phase::Judging(..)) {
            return;
        }
        let has = |told: &Told| self.envoys.iter().any(|it| it.told.as_ref() == Some(told));
        let refusal = self
            .envoys
            .iter()
            .position(|it| matches!(it.told, Some(Told::Refused(_))));
        if refusal.is_none() && self.envoys.iter().any(|envoy| envoy.told.is_none()) {
            return;
        }
        let is_accepted = has(&Told::Accepted) || has(&Told::NotRead);
        for envoy in &mut self.envoys {
            envoy.baseline = envoy.counted.take().or(envoy.baseline.take());
        }
        let Phase::Judging(step, _) = std::mem::replace(&mut self.phase, Phase::Idle) else {
            return;
        };
        if step.stage == Stage::Back
            && let Some(next) = self.back_next.take()
        {
            self.phase = Phase::Back(next);
            return;
        }
        if let Some(place) = refusal {
            for envoy in self.envoys.iter_mut().filter(|envoy| envoy.told.is_none()) {
                // What it made of this step cannot be told from what it makes of the next.
                envoy.spoil();
                envoy.baseline = None;
            }
            self.refuse(&step, place, now);
        } else if self.needs_poke() {
            // It is judged by a poke.
        } else if is_accepted {
            self.accept(&step, now);
        } else if self
            .envoys
            .iter()
            .all(|envoy| envoy.presence == Presence::Up)
        {
            // Nothing will ever be known of it.
            self.end_sequence();
            self.held.end_trial(now);
        }
        self.replan |= self.is_back(&step) && self.is_idle();
        if self.is_idle() {
            self.doubts = false;
        }
    }

    /// Returns whether a step is the set before, be it announced once more.
    fn is_back(&self, step: &Step) -> bool {
        step.stage == Stage::Back || self.doubts && step.stage == Stage::Poke
    }

    fn end_sequence(&mut self) -> Vec<Content> {
        let sequence = self.sequence.take();
        sequence.map(|it| it.contents).unwrap_or_default()
    }

    fn accept(&mut self, step: &Step, now: Instant) {
        self.deaths = 0;
        self.note_refused(step, &[]);
        // What was refused before may still be there, in files that this step leaves as they are.
        let is_whole = self.refused.is_empty();
        for envoy in &mut self.envoys {
            let accepted = envoy.told == Some(Told::Accepted) && is_whole;
            envoy.taken |= accepted && step.stage != Stage::Clusters;
        }
        if step.brings_clusters() {
            self.has_warmed = true;
            if let Some(sequence) = &mut self.sequence {
                sequence.clusters = Some(step.set);
            }
            return;
        }
        self.good = Some(step.set);
        for unread in &mut self.unread {
            // What is refused from now on is the doing of whatever asks for it.
            unread.is_new = false;
        }
        if is_whole {
            (self.poke_again, self.pokes) = (None, 0);
            self.events.push(Event::Accepted(step.set));
        } else {
            self.events.push(Event::AcceptedInPart);
        }
        let is_remainder = self.sequence.as_ref().is_some_and(|it| it.is_remainder);
        let contents = self.end_sequence();
        if self.is_back(step) {
            self.was_back = true;
            return;
        }
        let again = self.held.forget(&contents);
        if !again.is_empty() {
            self.events.push(Event::AcceptedAgain(again));
        }
        let is_new = step.stage == Stage::Routes && !is_remainder && !contents.is_empty();
        if is_new || std::mem::take(&mut self.came_up) {
            self.held.make_due(&contents, now);
        }
    }

    fn refuse(&mut self, step: &Step, place: usize, now: Instant) {
        let told = self.envoys[place].told.take();
        let Some(Told::Refused(refusals)) = told else {
            return;
        };
        let (what, mut blamed) = named(step, &self.unread, &refusals);
        let sequence = self.sequence.as_ref();
        let contents = sequence.map(|it| it.contents.clone()).unwrap_or_default();
        if self.is_back(step) && self.is_refused_already(&what) {
            // What was refused there before the sequence is not news of it.
            self.end_sequence();
            self.was_back = true;
            return;
        }
        if self.is_back(step) {
            if !std::mem::replace(&mut self.doubts, true) {
                // It may be late news of what was taken back.
                self.poke();
                return;
            }
            self.events.push(Event::NotTheCause);
            self.pardoned = std::mem::take(&mut self.withdrawn);
            self.held.forget(&self.pardoned);
            self.sequence = None;
            return;
        }
        if blamed.iter().all(|content| self.pardoned.contains(content)) && !blamed.is_empty() {
            self.stays_refused(step, &what, now);
            self.end_sequence();
            return;
        }
        if blamed.is_empty() {
            blamed = contents;
        }
        self.deaths = 0;
        // Without anything that is new, the set before would be made again at once.
        let back = self.goes_back_to(step.stage);
        let back = back.filter(|_| !blamed.is_empty());
        let mut again = false;
        if back.is_some() {
            for content in blamed {
                again |= self.held.refuse(content, now);
            }
        } else {
            again = self.stays_refused(step, &what, now);
        }
        let asked = refusals.into_iter().map(|refusal| refusal.subscription);
        self.phase = Phase::Reason {
            ask: Some((place, asked.collect())),
            until: now + REASONS_WITHIN,
            what,
            back,
            again,
        };
    }

    /// Takes note of what is refused of the files that the step has changed.
    fn note_refused(&mut self, step: &Step, what: &[RefusedFile]) {
        let is_judged = |known: &FileName| step.changed.iter().any(|it| it.file == *known);
        self.refused.retain(|(known, _)| !is_judged(known));
        for refused in what {
            let files = refused.files.iter().cloned();
            let files = files.map(|file| (file, refused.counter.clone()));
            self.refused.extend(files);
        }
    }

    fn is_refused_already(&self, what: &[RefusedFile]) -> bool {
        let mut files = what.iter().flat_map(|it| &it.files);
        files.all(|file| self.refused.iter().any(|(known, _)| known == file))
    }

    /// Has what is refused stay, and be announced again later. Returns whether it had been before.
    fn stays_refused(&mut self, step: &Step, what: &[RefusedFile], now: Instant) -> bool {
        let again = step.stage == Stage::Poke && self.is_refused_already(what);
        self.note_refused(step, what);
        self.pokes += 1;
        let wait = self.held.wait(self.pokes);
        self.poke_again = self.restores.then(|| now + wait);
        again
    }

    /// Returns the set that comes back if a step of this stage is refused: never one that is
    /// further back than the sequence's begin.
    fn goes_back_to(&self, stage: Stage) -> Option<u64> {
        let back = match (&self.sequence, stage) {
            _ if !self.restores => None,
            (_, Stage::Back | Stage::Drop) => None,
            (Some(sequence), _) => sequence.standing,
            (None, _) => self.good,
        };
        back.filter(|set| Some(*set) != self.visible)
    }

    /// Goes back in the order of a change: the routes of the set before come back while the new
    /// clusters are still there.
    pub(super) fn go_back(&mut self, set: SetId) {
        let clusters = self.sequence.as_ref().and_then(|it| it.clusters);
        let clusters = clusters.filter(|it| Some(*it) != self.visible);
        self.back_next = clusters.map(|_| set);
        self.phase = Phase::Back(clusters.unwrap_or(set));
    }

    /// Notes the death of an Envoy, which may be the doing of what was never judged.
    pub(super) fn died(&mut self, now: Instant) {
        let Some(sequence) = self.sequence.as_ref().filter(|_| self.restores) else {
            return;
        };
        let contents = sequence.contents.clone();
        self.deaths += 1;
        if self.deaths >= DEATHS && !matches!(self.phase, Phase::Committing(_)) {
            self.kill(contents, now);
        }
    }

    /// Holds contents back that have killed Envoy, and goes back.
    pub(super) fn kill(&mut self, contents: Vec<Content>, now: Instant) {
        self.deaths = 0;
        let restores = self.goes_back_to(Stage::Routes);
        let objects = contents.iter().map(|it| it.object.clone()).collect();
        self.events.push(Event::Killed { objects, restores });
        // Without a set to go back to there is nothing that could stand in for them.
        if let Some(set) = restores {
            for content in contents {
                self.held.kill(content, now);
            }
            (self.phase, self.back_next) = (Phase::Back(set), None);
        }
    }

    /// Forgets what is published whatever Envoy says, once something else is.
    pub(super) fn pardon_only(&mut self, step: &Step) {
        let is_known = |it: &Changed| self.pardoned.contains(&it.content);
        if !step.changed.iter().all(is_known) {
            self.pardoned.clear();
        }
    }
}

/// Returns what was refused by files and ConfigMaps, and the contents that it is in. The places are
/// those of the step's files, and then of the ones that were unread before it.
fn named(
    step: &Step,
    unread: &[Changed],
    refusals: &[Refusal],
) -> (Vec<RefusedFile>, Vec<Content>) {
    let mut blamed: Vec<Content> = Vec::new();
    let mut what = Vec::new();
    for refusal in refusals {
        let changed = refusal
            .files
            .iter()
            .filter_map(|place| step.changed.iter().chain(unread).nth(*place));
        let mut files: Vec<FileName> = Vec::new();
        let mut objects = Vec::new();
        for it in changed {
            files.push(it.file.clone());
            if !objects.contains(&it.content.object) {
                objects.push(it.content.object.clone());
            }
            if it.is_new && !blamed.contains(&it.content) {
                blamed.push(it.content.clone());
            }
        }
        what.push(RefusedFile {
            files,
            objects,
            subscription: refusal.subscription.clone(),
            counter: refusal.counter.clone(),
        });
    }
    (what, blamed)
}
