//! Takes snapshots to where they belong: the output directory, or stdout for a dry run. Owns:
//! opening the directory, retries, and what the operator hears of it.

pub mod directory;
mod disk;
mod dry_run;
pub mod heartbeat;
mod layout_check;
pub mod manifest;
pub mod mirror;
mod reads;
mod retry;
mod sink;
pub mod step;
mod verdicts;
mod warnings;

use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::error::Error;
use crate::snapshot::{File, FileName, Snapshot};
use crate::sorted::SortedSet;
use directory::{Compared, Found, Keep, OutputDirectory, Published, Standing, Synced};
use dry_run::DryRun;
use heartbeat::{Accepted, Beaten, READY};
use layout_check::LayoutCheck;
use retry::Retry;
pub use sink::Delivery;
use sink::{Directory, Sink};
use step::{Stage, Step};
use warnings::Warnings;

/// The destination of snapshots.
pub struct Output {
    sink: Sink,
    retry: Retry,
    check: Option<LayoutCheck>,
    warnings: Warnings,
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
        delivery: Delivery,
        rng: Rng,
        now: Instant,
    ) -> Output {
        Output {
            warnings: Warnings::new(path.clone()),
            sink: Sink::Directory(Directory {
                path,
                open: None,
                delivery,
                keep: Keep::Nothing,
            }),
            retry: Retry::new(rng),
            check: Some(LayoutCheck::new(check_every, now)),
        }
    }

    /// Returns when there is something to do without a new snapshot.
    pub fn deadline(&self) -> Option<Instant> {
        let check = self.check.as_ref().map(LayoutCheck::next);
        self.retry.at().into_iter().chain(check).min()
    }

    /// Returns whether snapshots can be written, as far as is known.
    pub fn is_open(&self) -> bool {
        self.sink.is_open()
    }

    /// Takes the time of the next attempt if it has come. Returns whether to write again.
    #[must_use]
    pub fn take_due_retry(&mut self, now: Instant) -> bool {
        self.retry.take_due(now).is_some()
    }

    /// Returns why nothing can be written now.
    pub fn failure(&self) -> Option<&Error> {
        self.retry.error()
    }

    /// Takes the reason why nothing can be written now.
    pub fn take_failure(&mut self) -> Option<Error> {
        self.retry.take_error()
    }

    /// Reads the target of the last whole set on disk, of this run or an earlier one.
    pub fn last_good(&mut self) -> Option<Snapshot> {
        let read = self.sink.opened_mut()?.last_good();
        self.warnings.read(read)
    }

    /// Reads what stands of the target that was published last, by this run or an earlier one.
    pub fn standing(&mut self) -> Option<Standing> {
        let read = self.sink.opened_mut()?.standing();
        self.warnings.read(read)
    }

    /// Reads a file of the visible set, with all that a union holds. Returns `None` if it is not
    /// what was written.
    pub fn visible_file(&mut self, name: &FileName) -> Option<File> {
        let read = self.sink.opened_mut()?.visible_file(name);
        self.warnings.read(read)
    }

    /// Returns whether the visible set is of this stage of a sequence, of this run or an earlier
    /// one.
    pub fn is_at(&self, stage: Stage) -> bool {
        self.sink.opened().is_some_and(|open| open.is_at(stage))
    }

    /// Returns how long ago a listener changed last, in this run or an earlier one; zero if Envoy
    /// may not have been told of it yet.
    pub fn listener_moved_ago(&self) -> Option<Duration> {
        self.sink.opened()?.listener_moved_ago()
    }

    /// Returns what becomes readable when somebody has read a watched file; `None` if none is
    /// watched.
    pub fn reads(&self) -> Option<BorrowedFd<'_>> {
        self.sink.opened()?.reads()
    }

    /// Takes the names of the watched files that somebody has read since the last call.
    pub fn take_read(&mut self) -> SortedSet<FileName> {
        let directory = self.sink.opened_mut();
        directory
            .map(OutputDirectory::take_read)
            .unwrap_or_default()
    }

    /// Ends the watch. Until then no watched file is read or synced by crossover itself.
    pub fn end_watch(&mut self) {
        if let Some(directory) = self.sink.opened_mut() {
            directory.end_watch();
        }
    }

    /// Opens the destination, unless it is open or has just failed to. Returns whether it was
    /// opened. A failure is an error only if no attempt follows.
    pub fn open(&mut self, now: Instant) -> Result<bool, Error> {
        let Sink::Directory(Directory {
            path, open, keep, ..
        }) = &mut self.sink
        else {
            return Ok(false);
        };
        if open.is_some() || self.retry.is_waiting(now) {
            return Ok(false);
        }
        match OutputDirectory::open(path, *keep) {
            Ok(directory) => {
                *open = Some(Box::new(directory));
                self.succeeded(now);
                Ok(true)
            }
            Err(error) => self.failed(error, now).map(|()| false),
        }
    }

    /// Compares a step with the set that is visible. A failure is an error only if no attempt
    /// follows.
    pub fn compare<'a>(&mut self, step: Step<'a>, now: Instant) -> Result<Compared<'a>, Error> {
        let nothing = Compared {
            step,
            found: Found::Nothing,
        };
        if self.retry.is_waiting(now) {
            return Ok(nothing);
        }
        let Some(directory) = self.sink.opened_mut() else {
            return Ok(nothing);
        };
        match directory.compare(step) {
            Ok(compared) => Ok(compared),
            Err(error) => self.failed(error, now).map(|()| nothing),
        }
    }

    /// Makes the set of a step what stands at the destination. A failure is an error only if no
    /// attempt follows.
    pub fn write(&mut self, compared: Compared, now: Instant) -> Result<Written, Error> {
        let is_nothing = matches!(compared.found, Found::Nothing);
        let is_waiting = is_nothing || self.retry.is_waiting(now);
        let published = match &mut self.sink {
            Sink::DryRun(dry_run) => {
                return dry_run
                    .print(compared.step.files)
                    .map(|()| Written::Settled);
            }
            Sink::Directory(Directory {
                open: Some(open),
                delivery,
                ..
            }) if !is_waiting => delivery.write(open, compared),
            Sink::Directory(_) => return Ok(Written::NotYet),
        };
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
        let Some(directory) = self.sink.opened_mut() else {
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

    /// Tells probes that the loop turns, how far it is, and what Envoy made of the files, if that
    /// is asked.
    pub fn beat(&mut self, state: &str, accepted: Option<&Accepted>) {
        let (Some(check), Some(directory)) = (&self.check, self.sink.opened_mut()) else {
            return;
        };
        match directory.beat(state, accepted, check.liveness_timeout()) {
            Ok(Beaten::Lately) => {}
            Ok(Beaten::Now) => self.warnings.beaten(),
            // In any other state the operator hears what is wrong from elsewhere.
            Err(error) if state == READY => self.warnings.not_beaten(&error),
            Err(_) => {}
        }
    }

    /// Makes what the next snapshot will need, once what was written last is on stable storage.
    pub fn prepare(&mut self) {
        if let Some(directory) = self.sink.opened_mut() {
            directory.prepare();
        }
    }

    /// Checks the layout if it is time to. Returns whether to write again, as something was amiss.
    #[must_use]
    pub fn check(&mut self, now: Instant) -> bool {
        let is_due = self.check.as_mut().is_some_and(|check| check.take_due(now));
        // The next attempt checks all of it anyway, and should not wait longer for what is known to
        // fail.
        if !is_due || self.retry.at().is_some() {
            return false;
        }
        match self.sink.opened_mut().map(OutputDirectory::check) {
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
        if self.sink.is_final(&error) {
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
        let lost = self
            .sink
            .opened_mut()
            .is_some_and(OutputDirectory::take_lost_watch);
        if lost {
            self.warnings.lost_watch();
        }
    }
}
