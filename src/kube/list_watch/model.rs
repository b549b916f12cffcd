//! The state machine against a model: a cluster whose server behaves at random, seed by seed.
//!
//! The invariant: once the server is well again and quiet, what the state machine knows is what the
//! cluster holds.

use super::checks::BOOKMARKED_WITHIN;
use super::tests::{FOLLOW, INTERVAL, POLL, rv};
use super::*;
use crate::kube::circuit_breaker::CircuitBreaker;
use crate::snapshot::Version;

/// The behaviour of the server towards requests.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mood {
    Well,
    /// No request is answered.
    Away,
    /// Requests are answered with 503; watches are, and lists are not.
    Busy,
    Unwatchable,
    /// Requests are answered with 403, or with nonsense.
    Refuses,
    /// Lists are of an older state, and watches are answered with 410.
    Forgetful,
}

/// The answers of a server besides "not now".
const WISH: Duration = Duration::from_secs(20);

/// The fate of events.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Flow {
    Runs,
    Held,
    Lost,
}

struct OpenStream {
    /// The part of the history that it has sent, or lost.
    reported: usize,
    /// True if it was opened at a version that the server does not know, so that it stays silent.
    deaf: bool,
    /// The time at which the server ends it.
    until: Instant,
    /// The time of its next bookmark, if all is well.
    bookmark: Instant,
}

/// The changes on the server, beside its failures.
#[derive(Clone, Copy, Debug, Default)]
struct Manners {
    /// True if it sends bookmarks, about once a minute.
    bookmarks: bool,
    /// True if it sends them past changes that it has lost, the worst lie.
    lies: bool,
    /// The longest life of a stream, by its own fault or a proxy's.
    lives: Option<Duration>,
    /// True if watches are answered with 503 even when all is well.
    unwatchable: bool,
}

/// The interval of bookmarks, which is about that of a real server.
const BOOKMARKS_EVERY: Duration = Duration::from_secs(61);

/// A cluster, its server, and the list-watch that follows it.
struct World {
    start: Instant,
    now: Instant,
    rng: Rng,
    watch: ListWatch,
    breaker: CircuitBreaker,
    objects: ObjectVersions,
    /// Every state that ever was, with its version; the first that a watch may begin after.
    history: Vec<(ResourceVersion, String, Option<Version>)>,
    snapshots: Vec<ObjectVersions>,
    oldest: usize,
    epoch: u32,
    manners: Manners,
    mood: Mood,
    flow: Flow,
    stream: Option<OpenStream>,
    /// The answer to a check, on its way.
    check: Option<(Instant, ObjectVersions)>,
    lists: usize,
    log: Vec<String>,
}

impl World {
    fn new(seed: u64, mode: SyncMode, manners: Manners) -> World {
        let (start, mut rng) = (Instant::now(), Rng::with_seed(seed));
        let watch = ListWatch::new(mode, rng.fork(), start);
        let mut world = World {
            start,
            now: start,
            watch,
            breaker: CircuitBreaker::new(rng.fork()),
            rng,
            objects: ObjectVersions::new(),
            history: Vec::new(),
            snapshots: Vec::new(),
            oldest: 0,
            epoch: 0,
            manners,
            mood: Mood::Well,
            flow: Flow::Runs,
            stream: None,
            check: None,
            lists: 0,
            log: Vec::new(),
        };
        world.write("a");
        world
    }

    fn below(&mut self, count: u64) -> u64 {
        self.rng.u64(..count)
    }

    /// Opaque, as real ones are to us.
    fn version(&self) -> ResourceVersion {
        rv(&format!("{}-{}", self.epoch, self.history.len()))
    }

    fn write(&mut self, name: &str) {
        let serial = self.history.len();
        let uid = match self.objects.get(name) {
            Some(old) => old.uid.clone(),
            None => format!("u{serial}"),
        };
        let at = rv(&format!("{}-{}", self.epoch, serial + 1));
        let version = Version {
            uid,
            resource_version: at.clone(),
        };
        self.objects.insert(name.to_owned(), version.clone());
        self.record(at, name, Some(version));
    }

    fn delete(&mut self, name: &str) {
        if self.objects.remove(name).is_some() {
            let at = rv(&format!("{}-{}", self.epoch, self.history.len() + 1));
            self.record(at, name, None);
        }
    }

    fn record(&mut self, at: ResourceVersion, name: &str, version: Option<Version>) {
        self.history.push((at, name.to_owned(), version));
        self.snapshots.push(self.objects.clone());
        self.flow();
    }

    /// Delivers the events that can run.
    fn flow(&mut self) {
        while let Some(stream) = self
            .stream
            .as_mut()
            .filter(|s| s.reported < self.history.len())
        {
            let (at, name, version) = self.history[stream.reported].clone();
            match self.flow {
                Flow::Held => return,
                Flow::Lost => stream.reported += 1,
                Flow::Runs if stream.deaf => stream.reported += 1,
                Flow::Runs => {
                    stream.reported += 1;
                    self.step(match version {
                        Some(version) => Input::Changed(name, version),
                        None => Input::Deleted(name, at),
                    });
                }
            }
        }
    }

    fn step(&mut self, input: Input) {
        self.note(format!("{input:?}"));
        if self.watch.step(input, self.now) == Stream::Closes {
            self.note("closed".to_owned());
            self.stream = None;
        }
    }

    fn note(&mut self, what: String) {
        let at = self.now - self.start;
        self.log.push(format!("{at:9.3?} {what}"));
    }

    /// Something goes wrong, or right.
    fn act(&mut self) {
        let name = ["a", "b"][self.below(2) as usize];
        match self.below(20) {
            0..4 => self.write(name),
            4 => self.delete(name),
            5..8 => {
                self.mood = [
                    Mood::Well,
                    Mood::Well,
                    Mood::Away,
                    Mood::Busy,
                    Mood::Unwatchable,
                    Mood::Refuses,
                    Mood::Forgetful,
                ][self.below(7) as usize];
                self.note(format!("{:?}", self.mood));
            }
            8..11 => {
                // What is lost before a bookmark is a lie.
                let loses = self.manners.lies || !self.manners.bookmarks;
                let flows = [Flow::Runs, Flow::Held, Flow::Lost];
                self.flow = flows[self.below(if loses { 3 } else { 2 }) as usize];
                self.note(format!("{:?}", self.flow));
                self.flow();
            }
            11 => self.end(Input::Ended),
            12 => self.end(Input::Failed(Failure::Gone)),
            13 => self.end(Input::Failed(Failure::Object)),
            14 => self.oldest = self.history.len(),
            15 => self.restore(),
            16 if self.manners.lies && self.stream.is_some() && self.flow != Flow::Held => {
                self.step(Input::Bookmark(self.version()));
            }
            _ => {
                let span = [1, 10, 100][self.below(3) as usize];
                let time = jitter(&mut self.rng, Duration::from_secs(span));
                self.pass(time);
            }
        }
    }

    fn end(&mut self, how: Input) {
        if self.stream.take().is_some() {
            self.step(how);
        }
    }

    /// An older etcd comes back: earlier objects, other versions, and streams that may not know.
    fn restore(&mut self) {
        self.note("restored".to_owned());
        self.epoch += 1;
        let which = self.below(self.snapshots.len() as u64) as usize;
        self.objects = self.snapshots[which].clone();
        self.oldest = self.history.len();
        match (self.below(2), &mut self.stream) {
            (0, Some(stream)) => stream.deaf = true,
            _ => self.end(Input::Ended),
        }
    }

    /// Lets time pass, as the loop does: input first, then time, then requests.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        for turn in 0.. {
            let log = || self.log.join("\n");
            assert!(turn < 10_000, "the loop spins:\n{}", log());
            self.flow();
            if self.mood == Mood::Well && self.stream.as_ref().is_some_and(|s| s.until <= self.now)
            {
                self.end(Input::Ended);
            }
            self.bookmark();
            if let Some((_, found)) = self.check.take_if(|(at, _)| *at <= self.now) {
                self.step(Input::Checked(found));
            }
            if self.watch.expires().is_some_and(|at| at <= self.now) {
                self.step(Input::Tick);
            }
            self.request();
            let own = self.watch.deadline().filter(|_| !self.is_asking());
            let own = own.map(|at| at.max(self.breaker.next_try().unwrap_or(at)));
            let check = self.check.as_ref().map(|(at, _)| *at);
            let ends = self.stream.as_ref().map(|stream| stream.until);
            let ends = ends.filter(|at| *at > self.now);
            let bookmark = self.stream.as_ref().map(|stream| stream.bookmark);
            let bookmark = bookmark.filter(|at| *at > self.now);
            let next = [own, check, ends, bookmark, self.watch.expires()];
            let next = next.into_iter().flatten().min();
            match next.filter(|next| *next < end) {
                Some(next) => self.now = next.max(self.now),
                None => break,
            }
        }
        self.now = end;
    }

    fn bookmark(&mut self) {
        let (now, whole) = (self.now, self.history.len());
        let sends = self.manners.bookmarks && self.mood == Mood::Well && self.flow == Flow::Runs;
        if let Some(stream) = self.stream.as_mut().filter(|s| s.bookmark <= now) {
            stream.bookmark = now + BOOKMARKS_EVERY;
            if sends && !stream.deaf && stream.reported == whole {
                self.step(Input::Bookmark(self.version()));
            }
        }
    }

    fn is_asking(&self) -> bool {
        self.watch.is_settled() && self.check.is_some()
    }

    fn request(&mut self) {
        while !self.is_asking() && self.breaker.allows(self.now) {
            let Some(request) = self.watch.next_request(self.now) else {
                return;
            };
            self.note(format!("{request:?}"));
            self.answer(request);
        }
    }

    fn answer(&mut self, request: Request) {
        assert!(request != Request::Check || self.watch.is_settled());
        let wish = jitter(&mut self.rng, WISH);
        let failed = match self.mood {
            Mood::Away => Some(Failure::Server),
            Mood::Busy => Some(Failure::Busy(wish)),
            Mood::Unwatchable if matches!(request, Request::Watch(..)) => Some(Failure::Busy(wish)),
            Mood::Refuses => Some(Failure::Object),
            Mood::Unwatchable | Mood::Well | Mood::Forgetful => None,
        };
        if self.mood == Mood::Away {
            self.breaker.on_failure(self.now);
        } else {
            self.breaker.on_success(self.now);
        }
        if matches!(failed, Some(Failure::Busy(_))) {
            self.breaker.pace(self.now);
        }
        match (failed, request) {
            (Some(failure), Request::Check) => self.step(Input::CheckFailed(failure)),
            (Some(failure), Request::List | Request::Watch(..)) => {
                self.step(Input::Failed(failure))
            }
            (None, Request::Check) => {
                let late = jitter(&mut self.rng, Duration::from_secs(3));
                self.check = Some((self.now + late, self.objects.clone()));
            }
            (None, Request::List) => {
                self.lists += 1;
                let stale = self.mood == Mood::Forgetful && !self.snapshots.is_empty();
                let at = match stale {
                    true => self.below(self.snapshots.len() as u64) as usize,
                    false => usize::MAX,
                };
                let listed = match self.snapshots.get(at) {
                    Some(found) => Input::Listed(self.history[at].0.clone(), found.clone()),
                    None => Input::Listed(self.version(), self.objects.clone()),
                };
                self.step(listed);
            }
            (None, Request::Watch(from, lasts)) => self.open(&from, lasts),
        }
    }

    fn open(&mut self, from: &ResourceVersion, lasts: Duration) {
        let (epoch, serial) = from.0.split_once('-').unwrap();
        let reported: usize = serial.parse().unwrap();
        let known = epoch == self.epoch.to_string();
        let gone = reported < self.oldest || self.mood == Mood::Forgetful;
        if gone && self.below(2) == 0 {
            return self.step(Input::Failed(Failure::Gone));
        }
        self.step(Input::Opened(lasts));
        if gone && known {
            return self.step(Input::Failed(Failure::Gone));
        }
        // A version of another time is taken for one of the future.
        let reported = reported.min(self.history.len());
        let lives = self.manners.lives.unwrap_or(lasts).min(lasts);
        let (deaf, until) = (!known, self.now + lives);
        let bookmark = self.now + BOOKMARKS_EVERY;
        self.stream = Some(OpenStream {
            reported,
            deaf,
            until,
            bookmark,
        });
        self.flow();
    }

    /// The server is well from now on, or as well as it can be, and nothing changes.
    fn heal(&mut self) {
        (self.mood, self.flow) = (Mood::Well, Flow::Runs);
        if self.manners.unwatchable {
            self.mood = Mood::Unwatchable;
            self.end(Input::Ended);
        }
        self.note("well".to_owned());
        self.flow();
    }

    #[track_caller]
    fn assert_in_step(&self, seed: u64) {
        assert_eq!(
            self.watch.found,
            self.objects,
            "seed {seed}:\n{}",
            self.log.join("\n")
        );
    }
}

/// Back-offs that earlier faults have left, before a stream and after a check that ends it.
const BACKED_OFF: Duration = Duration::from_secs(2 * 30);
/// The answer to a check takes its time, too, and then the stream has its own.
const ANSWERED: Duration = Duration::from_secs(5);
/// The greatest age of a stream.
const STREAM: Duration = Duration::from_secs(720 + 10);

/// Whatever the server did: it knows what the cluster holds `within` this of its being well.
#[track_caller]
fn catches_up(mode: SyncMode, manners: Manners, within: Duration, runs: u64) {
    let within = within + BACKED_OFF + ANSWERED;
    // Lists take the place of checks where no stream can be opened, or lives.
    let lists = manners.unwatchable
        || manners
            .lives
            .is_some_and(|lives| lives < MIN_WATCH_LIFETIME);
    for seed in 0..runs {
        let mut world = World::new(seed, mode, manners);
        for _ in 0..50 {
            world.act();
        }
        world.heal();
        world.pass(within);
        world.assert_in_step(seed);
        // A stream that is deaf by the server's fault gets a 410 when it is reopened.
        let before = world.lists;
        world.pass(20 * INTERVAL);
        assert!(
            lists || world.lists <= before + 1,
            "seed {seed}:\n{}",
            world.log.join("\n")
        );
        world.write("b");
        world.pass(within);
        world.assert_in_step(seed);
    }
}

#[test]
fn a_watch_catches_up_within_65_seconds_whatever_the_server_did() {
    for bookmarks in [false, true] {
        let manners = Manners {
            bookmarks,
            ..Manners::default()
        };
        catches_up(FOLLOW, manners, BOOKMARKED_WITHIN, 3000);
    }
}

#[test]
fn a_change_that_only_bookmarks_hide_is_found_before_the_stream_ends() {
    for bookmarks in [false, true] {
        let manners = Manners {
            bookmarks,
            lies: true,
            ..Manners::default()
        };
        catches_up(FOLLOW, manners, STREAM, 1000);
    }
}

#[test]
fn streams_that_never_last_long_catch_up_in_the_same_time() {
    for seconds in [1, 4, 20, 50, 100] {
        let manners = Manners {
            bookmarks: true,
            lives: Some(Duration::from_secs(seconds)),
            ..Manners::default()
        };
        catches_up(FOLLOW, manners, BOOKMARKED_WITHIN, 200);
    }
}

#[test]
fn a_watch_that_cannot_be_opened_catches_up_in_the_same_time_and_what_it_is_put_off() {
    let manners = Manners {
        unwatchable: true,
        ..Manners::default()
    };
    catches_up(FOLLOW, manners, BOOKMARKED_WITHIN + WISH, 1000);
}

#[test]
fn checks_alone_catch_up_within_an_interval_whatever_the_server_did() {
    catches_up(POLL, Manners::default(), INTERVAL, 1000);
}
