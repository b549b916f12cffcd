//! Takes in the answer of one Envoy.

use std::time::{Duration, Instant};

use super::envoys::{AWAY, Presence, STARTING, STARTS_WITHIN, Told};
use super::{Acceptance, Event, Phase, Stage};
use crate::envoy::error::AdminError;
use crate::envoy::stats::Stats;
use crate::envoy::verdict::{self, Holdings, Outcome};

/// The time that new clusters and listeners have to become warm before the next set follows anyway.
const WARMS_WITHIN: Duration = Duration::from_secs(15);
const HIDDEN: &str =
    "it shows no counters of its subscriptions; see stats_matcher in its bootstrap";

/// Returns the wait before an Envoy is asked again whether all is warm: most are within
/// milliseconds.
fn patience(looks: u32) -> Duration {
    Duration::from_millis(match looks {
        0..10 => 5,
        10..30 => 50,
        _ => 500,
    })
}

impl Acceptance {
    pub(super) fn take_error(&mut self, place: usize, error: AdminError, now: Instant) {
        let envoy = &mut self.envoys[place];
        let was_there = envoy.is_there();
        let is_away = matches!(error, AdminError::Away(_));
        let answers = !matches!(error, AdminError::Away(_) | AdminError::NoAnswer(_));
        envoy.told = Some(Told::Unknown);
        envoy.baseline = None;
        envoy.calm = None;
        let why = error.to_string();
        let is_new = envoy.is_unclear(&why, now);
        if answers {
            // It is asked again around the next change.
            (envoy.presence, envoy.ask_at) = (Presence::Up, None);
            if is_new {
                self.events.push(Event::Unknown { envoy: place, why });
            }
            return;
        }
        (envoy.presence, envoy.ask_at) = (Presence::Away, Some(now + AWAY));
        if is_away {
            envoy.lose();
            if was_there {
                self.died(now);
            }
        }
    }

    pub(super) fn take_stats(&mut self, place: usize, stats: Stats, now: Instant) {
        let envoy = &mut self.envoys[place];
        if envoy
            .baseline
            .as_ref()
            .is_some_and(|before| stats.restarted_since(before))
        {
            envoy.lose();
            envoy.presence = Presence::Unknown;
            self.died(now);
        }
        let envoy = &mut self.envoys[place];
        match (&self.phase, &envoy.baseline) {
            (_, None) => self.comes_up(place, stats, now),
            (Phase::Judging(step, since), Some(_)) if envoy.told.is_none() => {
                let (stage, since) = (step.stage, *since);
                let holdings = step.changed.iter().map(|it| it.holdings.clone());
                let holdings: Vec<Holdings> = holdings.collect();
                self.judge(place, stats, &holdings, stage, since, now);
            }
            _ => {
                envoy.calm = Some((now, stats.draining() == 0));
                envoy.baseline = Some(stats);
            }
        }
    }

    /// Takes the first answer of an Envoy, or the first after it was not known what it did.
    fn comes_up(&mut self, place: usize, stats: Stats, now: Instant) {
        let envoy = &mut self.envoys[place];
        let since = match envoy.presence {
            Presence::Starting(since) => since,
            _ => now,
        };
        if !stats.is_started() && now < since + STARTS_WITHIN {
            envoy.presence = Presence::Starting(since);
            envoy.told = Some(Told::Unknown);
            envoy.ask_at = Some(now + STARTING);
            return;
        }
        if envoy.presence != Presence::Up {
            self.held.runs(now);
            self.came_up = true;
        }
        envoy.presence = Presence::Up;
        if stats.has_subscriptions() {
            envoy.unclear = None;
        }
        envoy.calm = Some((now, stats.draining() == 0));
        envoy.baseline = Some(stats);
        envoy.ask_at = None;
        envoy.needs_poke = self.visible.is_some();
        envoy.told = Some(Told::Unknown);
    }

    fn judge(
        &mut self,
        place: usize,
        stats: Stats,
        holdings: &[Holdings],
        stage: Stage,
        since: Instant,
        now: Instant,
    ) {
        let envoy = &mut self.envoys[place];
        let Some(before) = &envoy.baseline else {
            return;
        };
        let mut verdict = verdict::judge(before, &stats, holdings);
        let late: Vec<&Holdings> = self.unread.iter().map(|it| &it.holdings).collect();
        let read = verdict.judge_late((before, &stats), holdings.len(), &late);
        let is_refused = matches!(verdict.outcome, Outcome::Refused(_));
        let is_cold = match stage {
            Stage::Clusters => verdict.is_warming,
            // It may not have asked for its routes yet.
            Stage::Routes => verdict.has_warming_listeners,
            Stage::Drop | Stage::Back | Stage::Poke => false,
        };
        let may_wait = is_cold && now < since + WARMS_WITHIN;
        // A file that was not read yet is, by the next answer.
        let is_first = envoy.looks == 0 && !verdict.unread.is_empty();
        if !is_refused && (may_wait || is_first) {
            let wait = if is_first {
                Duration::ZERO
            } else {
                patience(envoy.looks)
            };
            envoy.looks += 1;
            envoy.ask_at = Some(now + wait);
            return;
        }
        envoy.calm = Some((now, !verdict.is_draining));
        envoy.baseline = Some(stats);
        let told = match &verdict.outcome {
            Outcome::Refused(what) => Told::Refused(what.clone()),
            Outcome::NotRead => Told::NotRead,
            Outcome::Accepted => Told::Accepted,
            // A restart was noticed before.
            Outcome::Hidden | Outcome::Restarted => {
                if envoy.is_unclear(HIDDEN, now) {
                    let why = HIDDEN.into();
                    self.events.push(Event::Unknown { envoy: place, why });
                }
                Told::Unknown
            }
        };
        let envoy = &mut self.envoys[place];
        if told != Told::Unknown {
            envoy.unclear = None;
        }
        envoy.told = Some(told);
        if !is_refused {
            self.note_unread(&verdict, &read);
        }
        self.report(&verdict, is_cold);
    }

    /// Remembers the files that nobody has asked for, without those of them that were `read` by
    /// now.
    fn note_unread(&mut self, verdict: &verdict::Verdict, read: &[usize]) {
        let Phase::Judging(step, _) = &self.phase else {
            return;
        };
        let mut place = 0;
        self.unread.retain(|_| {
            place += 1;
            !read.contains(&(place - 1))
        });
        for unread in verdict.unread.iter().map(|place| &step.changed[*place]) {
            if !self.unread.iter().any(|known| known.file == unread.file) {
                self.unread.push(unread.clone());
            }
        }
    }

    /// Reports what a verdict tells beside its outcome.
    fn report(&mut self, verdict: &verdict::Verdict, is_cold: bool) {
        let Phase::Judging(step, _) = &self.phase else {
            return;
        };
        if is_cold {
            self.events.push(match step.stage {
                Stage::Clusters => Event::StillWarming(step.set),
                _ => Event::ListenersStillWarming(step.set),
            });
        }
        // A poke announces what was reported when it was new.
        if step.stage == Stage::Poke || step.stage == Stage::Back {
            return;
        }
        // Whoever asks for it may come with the next step. What is refused is told as that.
        let is_told =
            step.stage == Stage::Clusters || matches!(verdict.outcome, Outcome::Refused(_));
        if !is_told && !self.unread.is_empty() {
            let files = self.unread.iter().map(|unread| unread.file.clone());
            self.events.push(Event::NotRead(files.collect()));
        }
        if verdict.unknown_fields > 0 {
            let files = step.changed.iter().map(|changed| changed.file.clone());
            self.events.push(Event::UnknownFields {
                count: verdict.unknown_fields,
                files: files.collect(),
            });
        }
    }
}
