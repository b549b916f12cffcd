//! Takes note of each step, from before its commit until Envoy can be asked about it.

use std::time::Instant;

use super::envoys::Told;
use super::{Acceptance, Changed, Patience, Phase, Sequence, SetId, Stage, Step};
use crate::envoy::verdict::Holdings;
use crate::snapshot::FileName;

impl Acceptance {
    /// Begins a step, before it is committed or announced.
    pub fn commits(&mut self, step: Step) {
        for envoy in &mut self.envoys {
            envoy.begin_step();
            if step.stage == Stage::Poke {
                envoy.needs_poke = false;
            }
        }
        if matches!(step.stage, Stage::Clusters | Stage::Routes) {
            self.pardon_only(&step);
            let sequence = self.sequence.get_or_insert_with(|| Sequence {
                // What stands there may never have been judged; what was accepted is the set
                // before.
                standing: self
                    .good
                    .or(self.visible.filter(|_| self.refused.is_empty())),
                clusters: None,
                contents: Vec::new(),
                is_remainder: self.was_back,
            });
            self.was_back = false;
            for Changed {
                content, is_new, ..
            } in &step.changed
            {
                sequence
                    .contents
                    .retain(|known| known.object != content.object);
                sequence.contents.extend(is_new.then(|| content.clone()));
            }
        }
        (self.back, self.earlier) = match std::mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Back(set) => (Some(set), None),
            Phase::Judging(earlier, patience) => (None, Some((earlier, patience))),
            Phase::Idle | Phase::Committing(_) | Phase::Reason { .. } => (None, None),
        };
        let sequence = self.sequence.as_mut();
        let sequence = sequence.filter(|it| !it.contents.is_empty());
        if let (Stage::Back, Some(sequence)) = (step.stage, sequence) {
            self.withdrawn = std::mem::take(&mut sequence.contents);
        }
        (self.before, self.visible) = (self.visible, Some(step.set));
        self.phase = Phase::Committing(step);
    }

    /// Ends a step that could not be committed: the set on disk is the one before.
    pub fn commit_failed(&mut self, now: Instant) {
        if let Phase::Committing(step) = std::mem::replace(&mut self.phase, Phase::Idle) {
            self.visible = self.before;
            if let Some((earlier, patience)) = self.earlier.take() {
                self.ask_about(earlier, patience, now);
            }
            match step.stage {
                Stage::Back => self.phase = self.back.map_or(Phase::Idle, Phase::Back),
                Stage::Poke => self.poke(),
                _ => {}
            }
        }
    }

    /// Takes note of the set that the commit has made, and of what its changed files hold.
    pub fn committed(&mut self, set: SetId, holdings: Vec<Holdings>) {
        if let Phase::Committing(step) = &mut self.phase {
            step.set = set;
            for (changed, holdings) in step.changed.iter_mut().zip(holdings) {
                changed.holdings = holdings;
                if step.stage == Stage::Clusters {
                    changed.holdings.expect_renamed_secrets();
                }
            }
            self.visible = Some(set);
        }
    }

    /// Forgets files that are not on disk any more.
    pub fn removed(&mut self, files: &[FileName]) {
        let earlier = self.earlier.iter_mut().map(|(step, _)| &mut step.changed);
        for changed in earlier.chain([&mut self.unread]) {
            changed.retain(|known| !files.contains(&known.file));
        }
        self.refused.retain(|(known, _)| !files.contains(known));
    }

    /// Goes on once Envoy has read the step's files, or has had the time for it.
    pub fn acknowledged(&mut self, now: Instant) {
        if let Phase::Committing(mut step) = std::mem::replace(&mut self.phase, Phase::Idle) {
            let is_all = matches!(step.stage, Stage::Back | Stage::Poke);
            let is_anew = |known: &Changed| step.changed.iter().any(|it| it.file == known.file);
            self.unread.retain(|known| !is_all && !is_anew(known));
            let mut patience = Patience::new(&step, now);
            if let Some((earlier, known)) = self.earlier.take() {
                patience = known;
                patience.join(&step, &earlier, now);
                step.join(earlier);
            }
            self.ask_about(step, patience, now);
        }
    }

    fn ask_about(&mut self, step: Step, patience: Patience, now: Instant) {
        self.phase = Phase::Judging(step, patience);
        for envoy in &mut self.envoys {
            match envoy.is_away() {
                true => envoy.told = Some(Told::Unknown),
                false => envoy.ask_at = Some(now),
            }
        }
        self.settle(now);
    }
}
