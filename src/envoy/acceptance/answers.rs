//! Takes in the answer of one Envoy.

use std::time::{Duration, Instant};

use super::envoys::{AWAY, Cold, Presence, STARTING, STARTS_WITHIN, Told};
use super::{Acceptance, Event, Phase, Stage};
use crate::envoy::error::AdminError;
use crate::envoy::stats::Stats;
use crate::envoy::verdict::{self, Holdings, Outcome};

/// The time for which an Envoy may be away until that is told: it may just be starting.
const UNTOLD_FOR: Duration = Duration::from_secs(60);
const HIDDEN: &str =
    "it shows no counters of its subscriptions; see stats_matcher in its bootstrap";

impl Acceptance {
    pub(super) fn take_error(&mut self, place: usize, error: AdminError, now: Instant) {
        let envoy = &mut self.envoys[place];
        let was_there = envoy.is_there();
        let is_away = matches!(error, AdminError::Away(_));
        let answers = !matches!(error, AdminError::Away(_) | AdminError::NoAnswer(_));
        envoy.told = Some(Told::Unknown);
        (envoy.baseline, envoy.counted) = (None, None);
        envoy.calm = None;
        let why = error.to_string();
        let is_new = envoy.is_unclear(&why, now);
        if answers {
            self.note_up(place, now);
            let envoy = &mut self.envoys[place];
            // It is asked again around the next change.
            (envoy.presence, envoy.ask_at) = (Presence::Up, None);
            if is_new {
                envoy.is_told = true;
                self.events.push(Event::Unknown { envoy: place, why });
            }
            return;
        }
        (envoy.presence, envoy.ask_at) = (Presence::Away, Some(now + AWAY));
        if !envoy.is_told && envoy.unclear_for(now) >= UNTOLD_FOR {
            envoy.is_told = true;
            self.events.push(Event::Unknown { envoy: place, why });
        }
        envoy.is_gone = is_away && !envoy.is_told;
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
            (Phase::Judging(..), Some(_)) if envoy.told.is_none() => self.judge(place, stats, now),
            _ => {
                envoy.calm = Some((now, stats.draining() == 0));
                match &mut envoy.counted {
                    Some(counted) => *counted = stats,
                    None => envoy.baseline = Some(stats),
                }
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
        self.note_up(place, now);
        let envoy = &mut self.envoys[place];
        envoy.presence = Presence::Up;
        if stats.has_subscriptions() {
            let was_told = envoy.clear_up();
            self.events
                .extend(was_told.then_some(Event::KnownAgain { envoy: place }));
        }
        envoy.calm = Some((now, stats.draining() == 0));
        envoy.baseline = Some(stats);
        envoy.ask_at = None;
        envoy.needs_poke = self.visible.is_some();
        envoy.told = Some(Told::Unknown);
    }

    /// Notes that an Envoy has come up, if that is new.
    fn note_up(&mut self, place: usize, now: Instant) {
        if self.envoys[place].presence != Presence::Up {
            self.held.runs(now);
            self.came_up = true;
        }
    }

    fn judge(&mut self, place: usize, stats: Stats, now: Instant) {
        let envoy = &mut self.envoys[place];
        let (Phase::Judging(step, patience), Some(before)) = (&self.phase, &envoy.baseline) else {
            return;
        };
        let holdings = step.changed.iter().map(|it| it.holdings.clone());
        let holdings: Vec<Holdings> = holdings.collect();
        let mut verdict = verdict::judge(before, &stats, &holdings);
        let late: Vec<&Holdings> = self.unread.iter().map(|it| &it.holdings).collect();
        let read = verdict.judge_late((before, &stats), holdings.len(), &late);
        let is_refused = matches!(verdict.outcome, Outcome::Refused(_));
        let are_warming =
            verdict.is_warming || patience.for_all_clusters && stats.warming_clusters() > 0;
        let cold = if step.brings_clusters() && are_warming {
            Some(Cold::Clusters)
        } else {
            let is_waited_for = patience.for_listeners && verdict.has_warming_listeners;
            is_waited_for.then_some(Cold::Listeners)
        };
        let may_wait = cold.is_some() && now < patience.until;
        // A file that was not read yet is, by the next answer.
        let may_be_unread = !verdict.unread.is_empty() || patience.is_joined;
        let is_first = !envoy.has_looked && may_be_unread;
        if !is_refused && (may_wait || is_first) {
            let wait = if is_first {
                Duration::ZERO
            } else {
                patience.next_look(now)
            };
            (envoy.has_looked, envoy.cold) = (true, cold.filter(|_| !is_first));
            envoy.ask_at = Some(now + wait);
            return;
        }
        envoy.calm = Some((now, !verdict.is_draining));
        (envoy.counted, envoy.cold) = (Some(stats), None);
        let told = match &verdict.outcome {
            Outcome::Refused(what) => Told::Refused(what.clone()),
            Outcome::NotRead => Told::NotRead,
            Outcome::Accepted => Told::Accepted,
            // A restart was noticed before.
            Outcome::Hidden | Outcome::Restarted => {
                if envoy.is_unclear(HIDDEN, now) {
                    envoy.is_told = true;
                    let why = HIDDEN.into();
                    self.events.push(Event::Unknown { envoy: place, why });
                }
                Told::Unknown
            }
        };
        let envoy = &mut self.envoys[place];
        if told != Told::Unknown {
            let was_told = envoy.clear_up();
            self.events
                .extend(was_told.then_some(Event::KnownAgain { envoy: place }));
        }
        envoy.told = Some(told);
        if !is_refused {
            self.note_unread(&verdict, &read);
        }
        self.report(&verdict, cold.filter(|_| !is_refused));
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
    fn report(&mut self, verdict: &verdict::Verdict, cold: Option<Cold>) {
        let Phase::Judging(step, _) = &self.phase else {
            return;
        };
        self.events.extend(cold.map(|cold| match cold {
            Cold::Clusters => Event::StillWarming(step.set),
            Cold::Listeners => Event::ListenersStillWarming(step.set),
        }));
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
