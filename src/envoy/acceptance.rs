//! Whether what was published is what Envoy has taken. Owns: when Envoy is asked, and whether the
//! next set follows or the one before comes back. Pure: steps, answers and the time go in; what is
//! wanted comes out.
//!
//! | phase | event | next phase | what follows |
//! |---|---|---|---|
//! | idle | a step is committed | committing | the contents are noted as being tried |
//! | committing | Envoy has read it | judging | each Envoy is asked |
//! | judging | nothing is refused, but something is not warm | judging | it is asked again, for 15 s; what changes meanwhile is let out |
//! | judging | a step of such a change is committed | committing | both are judged as one |
//! | judging | all are warm, and have accepted | idle | the set is good; the next one may follow |
//! | judging | one has refused | reason | that Envoy is asked why |
//! | reason | an answer, or 500 ms | back | the ConfigMaps' contents are held; the set before comes back |
//! | reason | the same, and nothing to go back to | idle | the set stays |
//! | judging the set before | one has refused it | idle | a poke, as that may be late news |
//! | judging that poke | one has refused it, too | idle | the target is published all the same |
//! | judging | no answer, or nothing to judge by | idle | the next set may follow; a poke, once it is known |
//! | any | Envoy comes up, also at our own start | as it was | a poke of all that is on disk, and its verdict |
//! | any | the second death of Envoy with contents that were never judged | back | they are held |
//! | idle | a held content is due | idle | it is tried, one at a time |

mod answers;
mod envoys;
mod held;
mod machine;
mod step;
mod steps;
mod view;

use std::time::{Duration, Instant};

use fastrand::Rng;

pub use self::envoys::Presence;
use self::envoys::{AWAY, Cold, Envoy};
use self::held::Held;
pub use self::held::{Content, Hold};
use self::step::Patience;
pub use self::step::{Changed, DropGate, Event, RefusedFile, SetId, Stage, Status, Step, Want};
use crate::envoy::error::AdminError;
use crate::envoy::stats::Stats;
use crate::envoy::verdict::Subscription;
use crate::snapshot::FileName;

/// The time that the reason of a refusal may take: what is refused stays on disk meanwhile.
const REASONS_WITHIN: Duration = Duration::from_millis(500);
/// The number of deaths with contents that were never judged which are taken for their doing.
const DEATHS: u32 = 2;

/// The phase of the machine, as in the table.
#[derive(Debug)]
enum Phase {
    Idle,
    Committing(Step),
    Judging(Step, Patience),
    /// Envoy is asked why, until then.
    Reason {
        ask: Option<(usize, Vec<Subscription>)>,
        until: Instant,
        what: Vec<RefusedFile>,
        back: Option<SetId>,
        again: bool,
    },
    Back(SetId),
}

/// Sets that lead to one target.
#[derive(Debug)]
struct Sequence {
    /// The set that comes back: the last that was accepted when it began.
    standing: Option<SetId>,
    /// The last set with new clusters that was accepted, and has the routes of the set before.
    clusters: Option<SetId>,
    /// The contents that it brings.
    contents: Vec<Content>,
    /// It follows a refusal, and has nothing that is new.
    is_remainder: bool,
}

/// Envoy's verdicts on what is published.
#[derive(Debug)]
pub struct Acceptance {
    /// Also takes back, and not only tells.
    restores: bool,
    envoys: Vec<Envoy>,
    phase: Phase,
    sequence: Option<Sequence>,
    /// The step before the one that is committed, if it is judged with that.
    earlier: Option<(Step, Patience)>,
    visible: Option<SetId>,
    /// The set that was visible before the one that is committed.
    before: Option<SetId>,
    good: Option<SetId>,
    held: Held,
    /// Contents that are published whatever Envoy says, as the set before was refused, too.
    pardoned: Vec<Content>,
    /// The contents of a sequence whose way back is gone.
    withdrawn: Vec<Content>,
    /// The set that the step which is committed brings back.
    back: Option<SetId>,
    /// The set that follows it.
    back_next: Option<SetId>,
    /// The time at which a refused set that has nothing to go back to is announced again.
    poke_again: Option<Instant>,
    /// The number of times that this was done.
    pokes: usize,
    deaths: u32,
    /// The files on disk that Envoy has refused, with what says so, until it takes others in their
    /// place.
    refused: Vec<(FileName, String)>,
    was_back: bool,
    /// The set before was refused, too, and is announced once more.
    doubts: bool,
    came_up: bool,
    /// New clusters are accepted, and warm.
    has_warmed: bool,
    replan: bool,
    /// The files on disk that nobody has asked for so far.
    unread: Vec<Changed>,
    /// The contents that an earlier run was trying at its end, and that may have killed Envoy.
    suspects: Vec<Content>,
    events: Vec<Event>,
}

impl Acceptance {
    /// Begins with what an earlier run has left: `memory` as written by [`Acceptance::memory`], the
    /// set on disk and the last that was accepted.
    pub fn new(
        restores: bool,
        envoys: usize,
        (memory, visible, good): (&str, Option<SetId>, Option<SetId>),
        rng: Rng,
        now: Instant,
    ) -> Acceptance {
        let mut acceptance = Acceptance {
            restores,
            envoys: (0..envoys).map(|_| Envoy::new(now)).collect(),
            phase: Phase::Idle,
            sequence: None,
            earlier: None,
            visible,
            before: None,
            good,
            held: Held::from_text(if restores { memory } else { "" }, rng, now),
            pardoned: Vec::new(),
            withdrawn: Vec::new(),
            back: None,
            back_next: None,
            poke_again: None,
            pokes: 0,
            deaths: 0,
            refused: Vec::new(),
            was_back: false,
            doubts: false,
            came_up: false,
            has_warmed: false,
            replan: false,
            unread: Vec::new(),
            suspects: Vec::new(),
            events: Vec::new(),
        };
        let lines = memory
            .lines()
            .filter_map(|line| line.strip_prefix(view::TRYING));
        let tried: Vec<Content> = lines.filter_map(Content::from_text).collect();
        if restores && !tried.is_empty() {
            // Whoever was trying it has died with it, unless Envoy turns out to be the same.
            acceptance.suspects.clone_from(&tried);
            acceptance.kill(tried, now);
        }
        acceptance
    }

    /// Returns the Envoys that are to be asked now, each of which gets an answer or an error by
    /// [`Acceptance::answer`].
    pub fn asks(&mut self, now: Instant) -> Vec<usize> {
        let due = |envoy: &Envoy| envoy.asked.is_none() && envoy.ask_at.is_some_and(|at| at <= now);
        let places: Vec<usize> = (0..self.envoys.len())
            .filter(|place| due(&self.envoys[*place]))
            .collect();
        for place in &places {
            let envoy = &mut self.envoys[*place];
            (envoy.asked, envoy.ask_at) = (Some(false), None);
        }
        places
    }

    /// Returns when [`Acceptance::tick`] and [`Acceptance::asks`] are due.
    pub fn deadline(&self) -> Option<Instant> {
        let free = self.envoys.iter().filter(|envoy| envoy.asked.is_none());
        let asks = free.filter_map(|envoy| envoy.ask_at);
        let phase = match &self.phase {
            Phase::Reason { until, .. } => Some(*until),
            Phase::Idle if self.is_idle() && !self.is_down() => {
                let held = self.held.deadline();
                let held = held.filter(|_| self.sequence.is_none());
                held.into_iter().chain(self.poke_again).min()
            }
            _ => None,
        };
        asks.chain(phase).min()
    }

    /// Handles what is due.
    pub fn tick(&mut self, now: Instant) {
        if matches!(&self.phase, Phase::Reason { until, .. } if *until <= now) {
            self.reason(None);
        }
        let is_due = self.poke_again.is_some_and(|at| at <= now);
        if is_due && self.is_idle() && !self.is_down() {
            self.poke_again = None;
            self.poke();
        }
        let may_try = self.is_idle() && self.sequence.is_none() && !self.is_down();
        if may_try && self.held.take_due(now).is_some() {
            self.replan = true;
        }
    }

    /// Has what is on disk announced again.
    fn poke(&mut self) {
        for envoy in self
            .envoys
            .iter_mut()
            .filter(|envoy| envoy.baseline.is_some())
        {
            envoy.needs_poke = true;
        }
    }

    /// Returns, once, that the target is to be made anew, as what is held has changed.
    pub fn take_replan(&mut self) -> bool {
        std::mem::take(&mut self.replan)
    }

    /// Returns, once, that the clusters which routes wait for are accepted and warm.
    pub fn take_warmed(&mut self) -> bool {
        std::mem::take(&mut self.has_warmed)
    }

    /// Ends the way back, as that set is not there any more. What is held is published without it.
    pub fn cannot_go_back(&mut self) {
        if let Phase::Back(_) = self.phase {
            if let Some(next) = self.back_next.take() {
                self.phase = Phase::Back(next);
                return;
            }
            self.phase = Phase::Idle;
            self.sequence = None;
            self.replan = true;
        }
    }

    /// Forgets that what is on disk is to be announced, as that cannot be done with it.
    pub fn cannot_poke(&mut self) {
        for envoy in &mut self.envoys {
            envoy.needs_poke = false;
        }
    }

    /// Returns what has happened since the last call.
    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// Returns what is to be done now.
    pub fn wants(&self) -> Want {
        match &self.phase {
            Phase::Judging(..) if self.is_cold() && self.needs_poke() => Want::Poke,
            Phase::Committing(_) | Phase::Judging(..) => Want::Wait,
            Phase::Reason { ask, .. } => match ask {
                Some((envoy, what)) => Want::Reason(*envoy, what.clone()),
                None => Want::Wait,
            },
            Phase::Back(set) => Want::Back(*set),
            Phase::Idle if self.needs_poke() => Want::Poke,
            Phase::Idle => Want::Nothing,
        }
    }

    fn needs_poke(&self) -> bool {
        self.envoys.iter().any(|envoy| envoy.needs_poke)
    }

    /// Returns whether the way back is not at its end.
    pub fn goes_back(&self) -> bool {
        self.back_next.is_some() || matches!(self.phase, Phase::Back(_))
    }

    /// Returns whether a change may be published. While clusters warm, their routes may not:
    /// [`Acceptance::awaits_clusters`].
    pub fn may_publish(&self) -> bool {
        self.is_idle() || self.is_cold() && !self.needs_poke()
    }

    fn is_idle(&self) -> bool {
        matches!(self.phase, Phase::Idle) && !self.needs_poke()
    }

    /// Returns whether a step is judged but for what is not warm.
    pub fn is_cold(&self) -> bool {
        let is_read = |envoy: &Envoy| envoy.told.is_some() || envoy.cold.is_some();
        matches!(self.phase, Phase::Judging(..)) && self.envoys.iter().all(is_read)
    }

    /// Returns whether clusters are not warm, so that routes to them are to wait.
    pub fn awaits_clusters(&self) -> bool {
        let mut envoys = self.envoys.iter();
        self.is_cold() && envoys.any(|envoy| envoy.cold == Some(Cold::Clusters))
    }

    /// Takes the answer to a question.
    pub fn answer(&mut self, place: usize, answer: Result<Stats, AdminError>, now: Instant) {
        let Some(envoy) = self.envoys.get_mut(place) else {
            return;
        };
        let is_spoilt = envoy.asked.take() == Some(true);
        // That there is none stays true.
        let is_lost = matches!(answer, Err(AdminError::Away(_) | AdminError::NoAnswer(_)));
        if is_spoilt && !is_lost {
            // What has come meanwhile is asked for anew.
            envoy.ask_at = match self.phase {
                Phase::Judging(..) if envoy.told.is_none() => Some(now),
                Phase::Committing(_) => None,
                _ if envoy.presence == Presence::Up => None,
                _ => Some(now + AWAY),
            };
            return;
        }
        match answer {
            Ok(stats) => self.take_stats(place, stats, now),
            Err(error) => self.take_error(place, error, now),
        }
        self.settle(now);
    }

    /// Takes note that the idle connection to an Envoy has ended.
    pub fn went(&mut self, place: usize, now: Instant) {
        let Some(envoy) = self.envoys.get_mut(place) else {
            return;
        };
        let was_there = envoy.is_there();
        envoy.lose();
        envoy.spoil();
        envoy.presence = Presence::Unknown;
        envoy.told = None;
        envoy.ask_at = Some(now);
        if was_there {
            self.died(now);
        }
    }

    /// Takes Envoy's own words on what it has refused, if there are any.
    pub fn reason(&mut self, reason: Option<String>) {
        let phase = std::mem::replace(&mut self.phase, Phase::Idle);
        if let Phase::Reason {
            what, back, again, ..
        } = phase
        {
            self.events.push(Event::Refused {
                what,
                reason,
                restores: back,
                again,
            });
            match back {
                Some(set) => self.go_back(set),
                None => self.sequence = None,
            }
        } else {
            self.phase = phase;
        }
    }
}

#[cfg(test)]
mod tests;
