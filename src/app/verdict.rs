//! Envoy's verdicts on what is published, as the loop drives them: asks Envoy, tells the
//! [`Acceptance`] of each set, and does what that wants. Owns: the questions that are under way,
//! and what the last accepted set was made of.

mod asking;
mod commits;
mod contents;
mod status;
mod telling;

use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use fastrand::Rng;
use nix::time::{ClockId, clock_gettime};

use super::App;
use crate::cli;
use crate::envoy::acceptance::{Acceptance, DropGate, Want};
use crate::envoy::verdict::Subscription;
use crate::error::Error;
use crate::output::Output;
use crate::snapshot::{File, FileName, Origin};
use crate::sorted::SortedMap;
use asking::Port;
pub use contents::Contents;
use contents::Hashes;
use telling::Told;

/// The time until something that could not be done is tried again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// The number of things that are done in a row for the acceptance.
const AT_ONCE: usize = 8;

/// The known facts about a visible file.
#[derive(Clone)]
struct Held {
    subscriptions: Vec<Subscription>,
    origin: Rc<Origin>,
}

/// The verdicts of all Envoys.
pub struct Verdicts {
    /// Also takes back what is refused.
    restores: bool,
    envoys: Vec<Port>,
    rng: Rng,
    /// Missing until the output is open.
    acceptance: Option<Acceptance>,
    /// A change that waits for a verdict, since then.
    waiting: Option<Instant>,
    /// The contents of the last accepted set; `None` if an earlier run has written it.
    accepted: Option<Rc<Contents>>,
    /// The contents of the visible set; `None` if an earlier run has written it.
    visible: Option<Rc<Contents>>,
    hashes: Hashes,
    /// The known facts about each visible file.
    held_by: SortedMap<FileName, Held>,
    /// The files that are judged, for the reason of a refusal: those of the last step come first.
    changed: Vec<(FileName, File)>,
    /// The number of files that the last step has changed.
    new: usize,
    /// The time at which that step became visible.
    committed: SystemTime,
    /// The same of the files and the step that are taken back, until that is told.
    taken_back: Option<(SortedMap<FileName, Held>, SystemTime)>,
    /// The names of resources that the reason of a refusal may have.
    names: Vec<String>,
    /// A content may be published then.
    hold_ends: Option<Instant>,
    /// Something that could not be done is tried again then.
    try_at: Option<Instant>,
    /// The time at which it is asked again whether something may be dropped.
    drop_at: Option<Instant>,
    told: Told,
}

impl Verdicts {
    /// Begins without an answer. Returns `None` if the command line does not ask for verdicts.
    pub fn new(config: Option<cli::Verdict>, rng: Rng) -> Option<Box<Verdicts>> {
        let cli::Verdict { admins, restores } = config?;
        Some(Box::new(Verdicts {
            restores,
            envoys: admins.into_iter().map(Port::new).collect(),
            rng,
            acceptance: None,
            waiting: None,
            accepted: None,
            visible: None,
            hashes: Hashes::default(),
            held_by: SortedMap::new(),
            changed: Vec::new(),
            new: 0,
            committed: SystemTime::UNIX_EPOCH,
            taken_back: None,
            names: Vec::new(),
            hold_ends: None,
            try_at: None,
            drop_at: None,
            told: Told::default(),
        }))
    }

    /// Returns whether a change may be published now. If not, it waits, since then.
    pub fn may_publish(&mut self, since: Instant) -> bool {
        let is_free = self.acceptance.as_ref().is_none_or(Acceptance::may_publish);
        if !is_free {
            self.waiting = Some(self.waiting.map_or(since, |at| at.min(since)));
        }
        is_free
    }

    /// Returns whether no Envoy runs that could be given one set after the other.
    pub fn is_alone(&self) -> bool {
        self.acceptance.as_ref().is_some_and(Acceptance::is_alone)
    }

    /// Returns when something is due without an answer.
    pub fn deadline(&self) -> Option<Instant> {
        let asked = self.envoys.iter().filter_map(Port::deadline);
        let wanted = self.acceptance.as_ref().and_then(Acceptance::deadline);
        let others = [wanted, self.hold_ends, self.try_at, self.drop_at];
        asked.chain(others.into_iter().flatten()).min()
    }

    /// Begins with what an earlier run has left, once the output is open.
    fn begin(&mut self, output: &mut Output, now: Instant) {
        if self.acceptance.is_some() || !output.is_open() {
            return;
        }
        let recalled = output.recall().unwrap_or_default();
        let good = recalled.good.and_then(|good| output.set_target(good));
        self.accepted = good.map(|good| Rc::new(Contents::of_set(good)));
        let visible = recalled.visible.or_else(|| output.visible());
        let left = (recalled.memory.as_str(), visible, recalled.good);
        let rng = self.rng.fork();
        let acceptance = Acceptance::new(self.restores, self.envoys.len(), left, rng, now);
        for port in &mut self.envoys {
            port.recall(&recalled.memory);
        }
        self.acceptance = Some(acceptance);
    }

    /// Writes down what must outlive the program.
    fn remember(&self, output: &mut Output) {
        if let Some(acceptance) = &self.acceptance {
            self.write_down(acceptance.memory(), acceptance, output);
        }
    }

    fn write_down(&self, mut memory: String, acceptance: &Acceptance, output: &mut Output) {
        for (place, port) in self.envoys.iter().enumerate() {
            if acceptance.has_taken(place) {
                memory += &port.memory();
            }
        }
        output.note_verdicts(acceptance.keeps(), &memory);
    }

    /// Returns whether the time of what could not be done has come.
    fn may_try(&mut self, now: Instant) -> bool {
        self.try_at.take_if(|at| *at <= now);
        self.try_at.is_none()
    }
}

impl App {
    /// Does what Envoy's verdicts want, and what is due for them.
    pub(super) fn drive_verdicts(&mut self, now: Instant) -> Result<(), Error> {
        let Some(verdicts) = &mut self.verdicts else {
            return Ok(());
        };
        verdicts.begin(&mut self.output, now);
        for _ in 0..AT_ONCE {
            let Some(want) = self.want_of_verdicts(now) else {
                break;
            };
            let is_done = match want {
                Want::Nothing | Want::Wait => false,
                Want::Reason(envoy, refused) => self.ask_why(envoy, &refused, now),
                Want::Poke => self.poke(now)?,
                Want::Back(set) => self.go_back(set, now)?,
            };
            if !is_done {
                break;
            }
        }
        self.hear_warmed(now);
        self.tell_verdicts();
        let Some(verdicts) = &mut self.verdicts else {
            return Ok(());
        };
        verdicts.remember(&mut self.output);
        let Some(acceptance) = &mut verdicts.acceptance else {
            return Ok(());
        };
        let is_due = verdicts.hold_ends.take_if(|at| *at <= now).is_some();
        if acceptance.take_replan() || is_due {
            self.pending.mark(now);
        }
        if acceptance.may_publish()
            && let Some(since) = verdicts.waiting.take()
        {
            self.pending.mark(since);
        }
        Ok(())
    }

    /// Asks the Envoys that are to be asked, and returns what is to be done. `None`: nothing can
    /// be, for now.
    fn want_of_verdicts(&mut self, now: Instant) -> Option<Want> {
        let verdicts = self.verdicts.as_mut()?;
        let acceptance = verdicts.acceptance.as_mut()?;
        acceptance.tick(now);
        for place in acceptance.asks(now) {
            if let Some(port) = verdicts.envoys.get_mut(place)
                && let Err(error) = port.ask(&self.signals, now)
            {
                acceptance.answer(place, Err(error), now);
            }
        }
        let want = acceptance.wants();
        let may_try = verdicts.may_try(now);
        may_try.then_some(want)
    }

    /// Lets routes follow whose clusters are accepted and warm, and only those.
    fn hear_warmed(&mut self, now: Instant) {
        let acceptance = self.verdicts.as_mut().and_then(|it| it.acceptance.as_mut());
        let Some(acceptance) = acceptance else {
            return;
        };
        if acceptance.awaits_clusters() {
            self.sequence.on_cold(now);
        }
        if acceptance.take_warmed() {
            let turn = self.sequence.on_accepted();
            self.take_turn(turn, now);
        }
    }

    /// Lets go of what is kept for connections that drain, once Envoy says that none do.
    pub(super) fn hear_drained(&mut self, now: Instant) {
        let Some(verdicts) = &mut self.verdicts else {
            return;
        };
        verdicts.drop_at = None;
        if let Some(acceptance) = &mut verdicts.acceptance
            && let Some(since) = self.sequence.drains_since()
        {
            match acceptance.may_drop(since, now) {
                DropGate::Open => self.sequence.on_drained(now),
                // One that is due already is asked for with the others.
                DropGate::Closed(at) => verdicts.drop_at = at.filter(|at| *at > now),
                DropGate::ByTime => {}
            }
        }
    }

    /// Reads Envoy's answers.
    pub(super) fn hear_envoys(&mut self, now: Instant) {
        if let Some(verdicts) = &mut self.verdicts {
            verdicts.hear(&self.signals, now);
        }
    }

    /// Forgets what is being tried, as nobody has died of it.
    pub(super) fn end_verdicts(&mut self) {
        if let Some(verdicts) = &self.verdicts
            && let Some(acceptance) = verdicts.acceptance.as_ref().filter(|_| verdicts.restores)
        {
            verdicts.write_down(acceptance.memory_at_end(), acceptance, &mut self.output);
        }
    }
}

/// Returns the time by the clock that Envoy's is: its answers have times.
fn wall_clock() -> SystemTime {
    let since = clock_gettime(ClockId::CLOCK_REALTIME).map_or(Duration::ZERO, Duration::from);
    SystemTime::UNIX_EPOCH + since
}
