//! Takes snapshots to where they belong: the output directory, or stdout for a dry run. Owns: opening
//! the directory, retries, and what the operator hears of it.

pub mod directory;
mod disk;
mod dry_run;
pub mod heartbeat;
pub mod manifest;
pub mod mirror;
mod reads;
pub mod step;
mod warnings;

use std::collections::BTreeSet;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::backoff::Backoff;
use crate::error::{Error, Kind};
use crate::snapshot::{File, FileName, Snapshot};
use directory::{Compared, Found, OutputDirectory, Published, Standing, Synced};
use dry_run::DryRun;
use heartbeat::{Beaten, READY};
use step::Step;
use warnings::Warnings;

/// A loop that has not turned for this long, or for three layout checks if that is longer, is dead.
const LIVENESS_TIMEOUT: Duration = Duration::from_secs(120);
/// The delay between attempts to lock a directory that another crossover holds.
const LOCK_RETRY: Duration = Duration::from_secs(1);

/// The destination of snapshots.
pub struct Output {
    sink: Sink,
    /// `-onetime`: a failure is final, unless another crossover holds the directory.
    once: bool,
    retry: Retry,
    check: Option<LayoutCheck>,
    warnings: Warnings,
}

enum Sink {
    DryRun(DryRun),
    /// The directory at `path`, once it is open.
    Directory {
        path: PathBuf,
        open: Option<Box<OutputDirectory>>,
    },
}

/// What has failed, and when it is tried again.
struct Retry {
    /// When to try again; none once that is due, or if nothing has failed.
    at: Option<Instant>,
    backoff: Backoff,
    /// Why the last attempt failed, until one succeeds.
    error: Option<Error>,
}

struct LayoutCheck {
    every: Duration,
    next: Instant,
}

/// The outcome of writing a snapshot.
#[derive(Debug)]
pub enum Written {
    /// It was published just now.
    New(Box<Published>),
    /// It was published already, or is printed.
    Settled,
    /// It could not be published; another attempt follows at the deadline.
    NotYet,
}

impl Output {
    /// Prints manifests of the ConfigMaps, or if `mirrored` of their mirrors.
    pub fn stdout(mirrored: bool) -> Output {
        Output {
            sink: Sink::DryRun(DryRun::new(mirrored)),
            once: false,
            // Nothing is ever tried again.
            retry: Retry::new(Rng::with_seed(0)),
            check: None,
            warnings: Warnings::new(PathBuf::new()),
        }
    }

    /// Writes files to the directory at `path`, whose layout is checked every `check_every`.
    pub fn directory(
        path: PathBuf,
        check_every: Duration,
        once: bool,
        rng: Rng,
        now: Instant,
    ) -> Output {
        Output {
            warnings: Warnings::new(path.clone()),
            sink: Sink::Directory { path, open: None },
            once,
            retry: Retry::new(rng),
            check: Some(LayoutCheck {
                every: check_every,
                next: now + check_every,
            }),
        }
    }

    fn opened(&mut self) -> Option<&mut OutputDirectory> {
        match &mut self.sink {
            Sink::DryRun(_) | Sink::Directory { open: None, .. } => None,
            Sink::Directory {
                open: Some(open), ..
            } => Some(open),
        }
    }

    /// Returns when there is something to do without a new snapshot.
    pub fn deadline(&self) -> Option<Instant> {
        let check = self.check.as_ref().map(|check| check.next);
        self.retry.at.into_iter().chain(check).min()
    }

    /// Returns whether snapshots can be written, as far as is known.
    pub fn is_open(&self) -> bool {
        !matches!(self.sink, Sink::Directory { open: None, .. })
    }

    /// Takes the time of the next attempt if it has come. Returns whether to write again.
    #[must_use]
    pub fn take_due_retry(&mut self, now: Instant) -> bool {
        self.retry.at.take_if(|at| *at <= now).is_some()
    }

    /// Returns why nothing can be written now.
    pub fn failure(&self) -> Option<&Error> {
        self.retry.error.as_ref()
    }

    /// Takes the reason why nothing can be written now.
    pub fn take_failure(&mut self) -> Option<Error> {
        self.retry.error.take()
    }

    /// Reads the target of the last whole set on disk, of this run or an earlier one.
    pub fn last_good(&mut self) -> Option<Snapshot> {
        let read = self.opened()?.last_good();
        self.warnings.read(read)
    }

    /// Reads what stands of the target that was published last, by this run or an earlier one.
    pub fn standing(&mut self) -> Option<Standing> {
        let read = self.opened()?.standing();
        self.warnings.read(read)
    }

    /// Reads a file of the visible set, with all that a union holds. Returns `None` if it is not what
    /// was written.
    pub fn visible_file(&mut self, name: &FileName) -> Option<File> {
        let read = self.opened()?.visible_file(name);
        self.warnings.read(read)
    }

    /// Returns what becomes readable when somebody has read a watched file; `None` if none is watched.
    pub fn reads(&self) -> Option<BorrowedFd<'_>> {
        match &self.sink {
            Sink::DryRun(_) | Sink::Directory { open: None, .. } => None,
            Sink::Directory {
                open: Some(open), ..
            } => open.reads(),
        }
    }

    /// Takes the names of the watched files that somebody has read since the last call.
    pub fn take_read(&mut self) -> BTreeSet<FileName> {
        let directory = self.opened();
        directory
            .map(OutputDirectory::take_read)
            .unwrap_or_default()
    }

    /// Ends the watch. Until then no watched file is read or synced by crossover itself.
    pub fn end_watch(&mut self) {
        if let Some(directory) = self.opened() {
            directory.end_watch();
        }
    }

    /// Opens the destination, unless it is open or has just failed to. Returns whether it was opened.
    /// A failure is an error only if no attempt follows.
    pub fn open(&mut self, now: Instant) -> Result<bool, Error> {
        let Sink::Directory { path, open } = &mut self.sink else {
            return Ok(false);
        };
        if open.is_some() || self.retry.is_waiting(now) {
            return Ok(false);
        }
        match OutputDirectory::open(path) {
            Ok(directory) => {
                *open = Some(Box::new(directory));
                self.succeeded(now);
                Ok(true)
            }
            Err(error) => self.failed(error, now).map(|()| false),
        }
    }

    /// Compares a step with the set that is visible. A failure is an error only if no attempt follows.
    pub fn compare<'a>(&mut self, step: Step<'a>, now: Instant) -> Result<Compared<'a>, Error> {
        let nothing = Compared {
            step,
            found: Found::Nothing,
        };
        if self.retry.is_waiting(now) {
            return Ok(nothing);
        }
        let Some(directory) = self.opened() else {
            return Ok(nothing);
        };
        match directory.compare(step) {
            Ok(compared) => Ok(compared),
            Err(error) => self.failed(error, now).map(|()| nothing),
        }
    }

    /// Makes the set of a step what stands at the destination. A failure is an error only if no attempt
    /// follows.
    pub fn write(&mut self, compared: Compared, now: Instant) -> Result<Written, Error> {
        let is_nothing = matches!(compared.found, Found::Nothing);
        let is_waiting = is_nothing || self.retry.is_waiting(now);
        let directory = match &mut self.sink {
            Sink::DryRun(dry_run) => {
                return dry_run
                    .print(compared.step.files)
                    .map(|()| Written::Settled);
            }
            Sink::Directory {
                open: Some(open), ..
            } if !is_waiting => open,
            Sink::Directory { .. } => return Ok(Written::NotYet),
        };
        let mut published = directory.write(compared);
        if self.once && published.is_ok() {
            published = directory.make_durable().and(published);
        }
        match published {
            Ok(published) => {
                self.succeeded(now);
                self.warn_of_lost_watch();
                Ok(published.map_or(Written::Settled, |new| Written::New(Box::new(new))))
            }
            Err(error) => self.failed(error, now).map(|()| Written::NotYet),
        }
    }

    /// Puts what was written last on stable storage, unless its readers are still watched.
    pub fn make_durable(&mut self) -> Synced {
        let Some(directory) = self.opened() else {
            return Synced::Done;
        };
        let synced = directory.make_durable();
        self.warnings.synced(synced)
    }

    /// Ends the watch, and puts what was written last on stable storage, for a process that ends.
    pub fn shut_down(&mut self) {
        self.end_watch();
        self.make_durable();
    }

    /// Tells probes that the loop turns, and how far it is.
    pub fn beat(&mut self, state: &str) {
        let every = self
            .check
            .as_ref()
            .map_or(Duration::ZERO, |check| check.every);
        let limit = LIVENESS_TIMEOUT.max(3 * every);
        match self.opened().map(|directory| directory.beat(state, limit)) {
            None | Some(Ok(Beaten::Lately)) => {}
            Some(Ok(Beaten::Now)) => self.warnings.beaten(),
            // In any other state the operator hears what is wrong from elsewhere.
            Some(Err(error)) if state == READY => self.warnings.not_beaten(&error),
            Some(Err(_)) => {}
        }
    }

    /// Makes what the next snapshot will need, once what was written last is on stable storage.
    pub fn prepare(&mut self) {
        if let Some(directory) = self.opened() {
            directory.prepare();
        }
    }

    /// Checks the layout if it is time to. Returns whether to write again, as something was amiss.
    #[must_use]
    pub fn check(&mut self, now: Instant) -> bool {
        let Some(check) = self.check.as_mut().filter(|check| check.next <= now) else {
            return false;
        };
        check.next = now + check.every;
        // The next attempt checks all of it anyway, and should not wait longer for what is known to fail.
        if self.retry.at.is_some() {
            return false;
        }
        match self.opened().map(OutputDirectory::check) {
            None | Some(Ok(false)) => false,
            Some(Ok(true)) => {
                self.warnings.repaired();
                self.warn_of_lost_watch();
                true
            }
            Some(Err(error)) => {
                self.fail(error, now);
                true
            }
        }
    }

    fn failed(&mut self, error: Error, now: Instant) -> Result<(), Error> {
        if self.once && error.kind() != Kind::Held {
            return Err(error);
        }
        self.fail(error, now);
        Ok(())
    }

    fn fail(&mut self, error: Error, now: Instant) {
        self.warnings.failed(&error, now);
        self.retry.failed(error, now);
    }

    fn succeeded(&mut self, now: Instant) {
        self.retry.succeeded();
        self.warnings.succeeded(now);
    }

    fn warn_of_lost_watch(&mut self) {
        let lost = self.opened().is_some_and(OutputDirectory::take_lost_watch);
        if lost {
            self.warnings.lost_watch();
        }
    }
}

impl Retry {
    fn new(rng: Rng) -> Retry {
        Retry {
            at: None,
            backoff: Backoff::new(rng),
            error: None,
        }
    }

    fn is_waiting(&self, now: Instant) -> bool {
        self.at.is_some_and(|at| now < at)
    }

    fn failed(&mut self, error: Error, now: Instant) {
        let wait = match error.kind() {
            Kind::Held => LOCK_RETRY,
            _ => self.backoff.failed(now),
        };
        (self.at, self.error) = (Some(now + wait), Some(error));
    }

    /// The back-off stays: it forgets by itself, after a quiet while.
    fn succeeded(&mut self) {
        (self.at, self.error) = (None, None);
    }
}
