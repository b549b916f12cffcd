//! Questions to Envoys that are under way, and an idle connection to each. Owns: their sockets.

use std::time::{Instant, SystemTime};

use rustix::event::{PollFd, PollFlags};

use super::{App, Verdicts, wall_clock};
use crate::envoy::address::Address;
use crate::envoy::admin::Exchange;
use crate::envoy::connect::IdleConnection;
use crate::envoy::error::AdminError;
use crate::envoy::reason::{MAX_DUMP, Topic, reason};
use crate::envoy::stats::{MAX_ANSWER, PATH, Stats};
use crate::envoy::verdict::Subscription;
use crate::process::signals::Signals;

/// An Envoy's admin interface.
pub struct Port {
    /// The address as it was given.
    pub text: String,
    address: Result<Address, AdminError>,
    /// The question what it has counted.
    stats: Option<Exchange>,
    /// The question why it has refused something.
    why: Option<(Exchange, Topic)>,
    /// Ends when Envoy does.
    idle: Option<IdleConnection>,
    /// The second in which this Envoy has started, as far as can be told.
    started: Option<u64>,
    /// The same of one that has taken a whole set before crossover's start.
    took: Option<u64>,
}

/// The beginning of the line of an Envoy that has taken a whole set.
const TAKEN: &str = "taken ";
/// The longest time by which two readings of one Envoy's start differ: its uptime is some seconds
/// old.
const SAME_START: u64 = 10;

impl Port {
    pub fn new(text: String) -> Port {
        Port {
            address: Address::new(&text),
            text,
            stats: None,
            why: None,
            idle: None,
            started: None,
            took: None,
        }
    }

    /// Writes down that this Envoy has taken a whole set.
    pub fn memory(&self) -> String {
        let started = self.started.iter();
        let line = started.map(|started| format!("{TAKEN}{started} {}\n", self.text));
        line.collect()
    }

    /// Reads what an earlier run has written down.
    pub fn recall(&mut self, memory: &str) {
        let lines = memory.lines().filter_map(|line| line.strip_prefix(TAKEN));
        let mut lines = lines.filter_map(|line| line.split_once(' '));
        let mine = lines.find(|(_, text)| *text == self.text);
        self.took = mine.and_then(|(started, _)| started.parse().ok());
    }

    /// Takes note of when Envoy has started. Returns whether it is the one that took a whole set
    /// before.
    fn note_start(&mut self, stats: &Stats) -> bool {
        let now = wall_clock().duration_since(SystemTime::UNIX_EPOCH);
        let now = now.map_or(0, |since| since.as_secs());
        let started = now.saturating_sub(stats.uptime());
        let is_same =
            |known: Option<u64>| known.is_some_and(|it| it.abs_diff(started) <= SAME_START);
        if !is_same(self.started) {
            self.started = Some(started);
        }
        // A new one has read its files once.
        is_same(self.took.take()) && stats.has_been_told()
    }

    /// Starts the question what it has counted.
    pub fn ask(&mut self, signals: &Signals, now: Instant) -> Result<(), AdminError> {
        let address = self.address.as_mut().map_err(|error| error.clone())?;
        self.stats = Some(Exchange::get(address, PATH, MAX_ANSWER, signals, now)?);
        Ok(())
    }

    pub fn deadline(&self) -> Option<Instant> {
        let why = self.why.as_ref().map(|(exchange, _)| exchange);
        let exchanges = self.stats.iter().chain(why);
        exchanges.map(Exchange::deadline).min()
    }

    fn fds(&self) -> impl Iterator<Item = PollFd<'_>> {
        let why = self.why.as_ref().map(|(exchange, _)| exchange);
        let exchanges = self.stats.iter().chain(why);
        let exchanges = exchanges.map(|exchange| PollFd::new(exchange, exchange.interest()));
        let idle = self.idle.iter();
        exchanges.chain(idle.map(|idle| PollFd::new(idle, PollFlags::IN)))
    }

    /// Keeps a connection to an Envoy that has answered.
    fn stay(&mut self, signals: &Signals, now: Instant) {
        if self.idle.is_none()
            && let Ok(address) = &mut self.address
        {
            self.idle = IdleConnection::start(address, signals, now).ok();
        }
    }
}

impl Verdicts {
    /// Returns what to poll.
    pub fn fds(&self) -> impl Iterator<Item = PollFd<'_>> {
        self.envoys.iter().flat_map(Port::fds)
    }

    /// Reads what has arrived.
    pub fn hear(&mut self, signals: &Signals, now: Instant) {
        let Some(acceptance) = &mut self.acceptance else {
            return;
        };
        for (place, port) in self.envoys.iter_mut().enumerate() {
            if port.idle.take_if(|idle| idle.has_ended()).is_some() {
                acceptance.went(place, now);
            }
            if let Some(answer) = port.stats.as_mut().and_then(|it| it.on_ready(now)) {
                port.stats = None;
                match &answer {
                    Err(AdminError::Away(_) | AdminError::NoAnswer(_)) => port.idle = None,
                    _ => port.stay(signals, now),
                }
                let answer = answer.map(|body| Stats::parse(&body).read_at(now));
                let has_taken = answer.as_ref().is_ok_and(|stats| port.note_start(stats));
                acceptance.answer(place, answer, now);
                if has_taken {
                    acceptance.recall_taken(place, now);
                }
            }
            let why = port.why.as_mut();
            if let Some((answer, topic)) =
                why.and_then(|(it, topic)| Some((it.on_ready(now)?, *topic)))
            {
                port.why = None;
                let names: Vec<&str> = self.names.iter().map(String::as_str).collect();
                let body = answer.unwrap_or_default();
                acceptance.reason(reason(topic, &body, self.committed, &names));
            }
        }
    }
}

impl App {
    /// Asks an Envoy why it has refused something. Returns whether there is something else to do.
    pub(super) fn ask_why(&mut self, envoy: usize, refused: &[Subscription], now: Instant) -> bool {
        let Some(verdicts) = &mut self.verdicts else {
            return false;
        };
        let Some(port) = verdicts.envoys.get_mut(envoy) else {
            return false;
        };
        if port.why.is_some() {
            return false;
        }
        let topic = Topic::of(refused);
        let asked = topic
            .zip(port.address.as_mut().ok())
            .and_then(|(topic, address)| {
                let exchange = Exchange::get(address, topic.path(), MAX_DUMP, &self.signals, now);
                Some((exchange.ok()?, topic))
            });
        if asked.is_some() {
            port.why = asked;
            verdicts.names = verdicts.names_of(&mut self.output, topic);
            return false;
        }
        if let Some(acceptance) = &mut verdicts.acceptance {
            acceptance.reason(None);
        }
        true
    }
}
