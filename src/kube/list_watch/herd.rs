//! Many sidecars share one API server that goes away and comes back, in virtual time. Counts the
//! requests meanwhile, and the connections once it is back, and measures how long that takes.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use super::tests::{FOLLOW, rv};
use super::*;
use crate::kube::circuit_breaker::CircuitBreaker;

/// ConfigMaps and TrafficSplits of one sidecar.
const OBJECTS: usize = 4;
/// The time for which the server is away.
const AWAY: Duration = Duration::from_secs(180);
/// The time after which a connection that nobody answers is given up.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// The time of a handshake and an answer.
const ROUND: Duration = Duration::from_millis(20);

/// The behaviour of a server that is away towards a connection.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Absence {
    /// It refuses it, and has reset those that were open.
    Refuses,
    /// It says nothing; what was open is found dead within half a minute.
    Vanishes,
    /// It takes it, and answers 503.
    Answers,
}

struct Sidecar {
    breaker: CircuitBreaker,
    watches: Vec<ListWatch>,
    first: usize,
    /// True if it has just listed: the request that follows takes the same connection.
    listed: bool,
}

impl Sidecar {
    /// Makes a sidecar with all its watches open.
    fn new(seed: u64, now: Instant) -> Sidecar {
        let mut rng = Rng::with_seed(seed);
        let watches = (0..OBJECTS).map(|_| {
            let mut watch = ListWatch::new(FOLLOW, rng.fork(), now);
            watch.step(Input::Listed(rv("1"), ObjectVersions::new()), now);
            let lasts = WATCH_TIMEOUT + jitter(&mut rng, WATCH_TIMEOUT_JITTER);
            watch.step(Input::Opened(lasts), now);
            watch
        });
        let watches = watches.collect();
        Sidecar {
            breaker: CircuitBreaker::new(rng),
            watches,
            first: 0,
            listed: false,
        }
    }

    fn is_whole(&self) -> bool {
        self.watches.iter().all(ListWatch::is_settled)
    }

    /// All its streams are over.
    fn cut(&mut self, now: Instant) {
        for watch in &mut self.watches {
            watch.step(Input::Ended, now);
        }
    }

    /// Makes a request, if one is due; `absence`: the server is away. Until when that keeps it
    /// busy, and whether it takes a connection of its own.
    fn request(&mut self, absence: Option<Absence>, now: Instant) -> Option<(Instant, bool)> {
        if !self.breaker.allows(now) {
            return None;
        }
        let order = (0..OBJECTS).map(|i| (self.first + i) % OBJECTS);
        let wanted = order
            .filter_map(|i| Some((i, self.watches[i].next_request(now)?)))
            .next();
        let (i, request) = wanted?;
        self.first = i + 1;
        let (takes, failure) = match absence {
            None => (ROUND, None),
            Some(Absence::Refuses) => (Duration::ZERO, Some(Failure::Server)),
            Some(Absence::Vanishes) => (CONNECT_WITHIN, Some(Failure::Server)),
            Some(Absence::Answers) => (ROUND, Some(Failure::Busy(Duration::ZERO))),
        };
        let now = now + takes;
        match failure {
            Some(Failure::Server) => {
                let _ = self.breaker.on_failure(now);
            }
            _ => {
                let _ = self.breaker.on_success(now);
            }
        }
        if matches!(failure, Some(Failure::Busy(_))) {
            self.breaker.pace(now);
        }
        let connects = !std::mem::replace(&mut self.listed, request == Request::List);
        let input = match (failure, request) {
            (Some(failure), Request::Check) => Input::CheckFailed(failure),
            (Some(failure), Request::List | Request::Watch(..)) => Input::Failed(failure),
            (None, Request::List) => Input::Listed(rv("1"), ObjectVersions::new()),
            (None, Request::Check) => Input::Checked(ObjectVersions::new()),
            (None, Request::Watch(_, lasts)) => Input::Opened(lasts),
        };
        self.watches[i].step(input, now);
        self.listed &= failure.is_none();
        Some((now, connects || failure.is_some()))
    }

    fn next(&self, now: Instant) -> Option<Instant> {
        let due = self.watches.iter().filter_map(ListWatch::deadline).min()?;
        let due = due.max(self.breaker.next_try().unwrap_or(due));
        Some(due.max(now + Duration::from_millis(1)))
    }
}

/// The load that a herd puts on its server.
#[derive(Debug)]
struct Figures {
    /// Requests in the busiest of the first ten seconds of the absence, and of those after it.
    first: usize,
    away: usize,
    /// Connections in the busiest second of those after its return.
    back: usize,
    /// The time from its return until all watches of all are open.
    whole: Duration,
}

fn figures(sidecars: u64, absence: Absence) -> Figures {
    let start = Instant::now();
    let gone = start + Duration::from_secs(10);
    let back = gone + AWAY;
    let mut herd: Vec<Sidecar> = (0..sidecars).map(|i| Sidecar::new(i, start)).collect();
    let mut rng = Rng::with_seed(sidecars);
    let found_dead: Vec<Instant> = (0..sidecars)
        .map(|_| match absence {
            Absence::Refuses | Absence::Answers => gone,
            Absence::Vanishes => gone + CONNECT_WITHIN * 3 + jitter(&mut rng, CONNECT_WITHIN * 3),
        })
        .collect();
    let mut cut = vec![false; herd.len()];
    let woken = found_dead.iter().enumerate();
    let mut wakes: BinaryHeap<Reverse<(Instant, usize)>> =
        woken.map(|(i, at)| Reverse((*at, i))).collect();
    let (mut seconds, mut whole) = (BTreeMap::<u64, usize>::new(), back);
    while let Some(Reverse((now, i))) = wakes.pop() {
        let sidecar = &mut herd[i];
        if !std::mem::replace(&mut cut[i], true) {
            sidecar.cut(now);
        }
        let mut free = now;
        if let Some((until, connects)) = sidecar.request((now < back).then_some(absence), now) {
            *seconds.entry((now - gone).as_secs()).or_default() += usize::from(connects);
            free = until;
        }
        if now >= back && sidecar.is_whole() {
            whole = whole.max(free);
        } else {
            let next = sidecar.next(free);
            wakes.extend(next.map(|at| Reverse((at, i))));
        }
    }
    let busiest = |from, to| seconds.range(from..to).map(|(_, n)| *n).max().unwrap_or(0);
    Figures {
        first: busiest(0, 10),
        away: busiest(10, AWAY.as_secs()),
        back: busiest(AWAY.as_secs(), u64::MAX),
        whole: whole - back,
    }
}

#[test]
fn a_herd_leaves_a_server_that_is_away_alone_and_is_back_in_time() {
    for (absence, most, within) in [
        (Absence::Refuses, 250, 10),
        (Absence::Vanishes, 250, 15),
        // Each object has its own back-off, but no sidecar asks more often than once a second.
        (Absence::Answers, 1000, 30),
    ] {
        for sidecars in [1_000, 10_000] {
            let Figures {
                first,
                away,
                back,
                whole,
            } = figures(sidecars, absence);
            println!(
                "{sidecars} sidecars, {OBJECTS} objects each, {absence:?}: busiest second of the \
                 first ten {first}, later {away}; back: {back}, all within {whole:.1?}"
            );
            let thousands = sidecars as usize / 1000;
            assert!(away <= most * thousands, "{absence:?}: {away}");
            // A list and a watch of each.
            let within = Duration::from_secs(within) + 2 * OBJECTS as u32 * ROUND;
            assert!(whole <= within, "{absence:?}: {whole:?}");
            assert!(first <= 3 * sidecars as usize, "{absence:?}: {first}");
            assert!(back <= OBJECTS * most * thousands, "{absence:?}: {back}");
        }
    }
}
