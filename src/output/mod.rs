//! Where the result goes: an output directory, or stdout for a dry run. Owns: getting hold of the
//! directory, trying again, and what the operator hears of it.

pub mod directory;
mod disk;
pub mod heartbeat;
pub mod manifest;
pub mod mirror;

use std::error::Error as _;
use std::fmt;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use fastrand::Rng;
use log::{info, warn};

use crate::backoff::Backoff;
use crate::error::{Chain, Error, Kind};
use crate::output::directory::{OutputDirectory, Published, Standing};
use crate::output::heartbeat::READY;
use crate::snapshot::Snapshot;

/// A loop that has not turned for so long, or for three checks if that is longer, is dead.
const LIVENESS_TIMEOUT: Duration = Duration::from_secs(120);
/// Another crossover's directory is asked for this often.
const LOCK_EVERY: Duration = Duration::from_secs(1);

/// The destination of file sets.
pub enum Output {
    /// Manifests on stdout.
    Stdout {
        /// As the mirrors that they would become.
        mirrored: bool,
        /// What was printed last.
        printed: String,
    },
    /// Files for Envoy.
    Directory(Box<Directory>),
}

/// An output directory, held or not yet.
pub struct Directory {
    path: PathBuf,
    publisher: Option<OutputDirectory>,
    /// Not before this after a failure.
    retry: Option<Instant>,
    backoff: Backoff,
    /// Why it cannot be written now, and the cause that the operator was told.
    failure: Option<Error>,
    said: String,
    check_every: Duration,
    next_check: Instant,
}

/// What became of a set.
#[derive(Debug)]
pub enum Written {
    /// It stands there now.
    New(Published),
    /// It stood there already, or is printed.
    Settled,
    /// Not yet: it is tried again at the deadline.
    NotYet,
}

impl Output {
    /// Prints manifests of the ConfigMaps, or of their mirrors.
    pub fn stdout(mirrored: bool) -> Output {
        let printed = String::new();
        Output::Stdout { mirrored, printed }
    }

    /// Writes files; the layout is checked every so often.
    pub fn directory(path: PathBuf, check_every: Duration, rng: Rng, now: Instant) -> Output {
        let next_check = now + check_every;
        let (publisher, retry, backoff) = (None, None, Backoff::new(rng));
        let (failure, said) = (None, String::new());
        Output::Directory(Box::new(Directory {
            path,
            publisher,
            retry,
            backoff,
            failure,
            said,
            check_every,
            next_check,
        }))
    }

    /// When there is something to do without a new set.
    pub fn deadline(&self) -> Option<Instant> {
        match self {
            Output::Stdout { .. } => None,
            Output::Directory(directory) => Some(
                directory
                    .retry
                    .map_or(directory.next_check, |at| at.min(directory.next_check)),
            ),
        }
    }

    /// Whether sets can be written to it, as far as is known.
    pub fn is_open(&self) -> bool {
        match self {
            Output::Stdout { .. } => true,
            Output::Directory(directory) => directory.publisher.is_some(),
        }
    }

    /// True, once, when a failed write should be tried again.
    pub fn is_due(&mut self, now: Instant) -> bool {
        match self {
            Output::Stdout { .. } => false,
            Output::Directory(directory) => directory.retry.take_if(|at| *at <= now).is_some(),
        }
    }

    /// Why it cannot be written now.
    pub fn failure(&self) -> Option<&Error> {
        match self {
            Output::Stdout { .. } => None,
            Output::Directory(directory) => directory.failure.as_ref(),
        }
    }

    /// The same, given away.
    pub fn take_failure(&mut self) -> Option<Error> {
        match self {
            Output::Stdout { .. } => None,
            Output::Directory(directory) => directory.failure.take(),
        }
    }

    /// The whole set on disk, of this life or an earlier one, if there is one.
    pub fn last_good(&mut self) -> Option<Snapshot> {
        let Output::Directory(directory) = self else {
            return None;
        };
        let publisher = directory.publisher.as_ref()?;
        match publisher.last_good() {
            Ok(set) => set,
            Err(error) => {
                warn!(error:% = Chain(&error); "the published files cannot be read");
                None
            }
        }
    }

    /// What stands of the set that was published last, by this life or an earlier one.
    pub fn standing(&mut self) -> Option<Standing> {
        let Output::Directory(directory) = self else {
            return None;
        };
        let standing = directory.publisher.as_ref()?.standing();
        standing.unwrap_or_else(|error| {
            warn!(error:% = Chain(&error); "the published files cannot be read");
            None
        })
    }

    /// Gets hold of the destination. True: it is held for the first time now.
    ///
    /// A failure is an error only where `once` leaves no time to try again.
    pub fn open(&mut self, once: bool, now: Instant) -> Result<bool, Error> {
        let Output::Directory(directory) = self else {
            return Ok(false);
        };
        if directory.publisher.is_some() || directory.retry.is_some_and(|at| now < at) {
            return Ok(false);
        }
        match OutputDirectory::open(&directory.path) {
            Ok(publisher) => {
                directory.publisher = Some(publisher);
                directory.recovered();
                Ok(true)
            }
            Err(error) => directory.failed(error, once, now).map(|()| false),
        }
    }

    /// Makes `set` what stands there.
    pub fn write(&mut self, set: &Snapshot, once: bool, now: Instant) -> Result<Written, Error> {
        match self {
            Output::Stdout { mirrored, printed } => {
                let text = manifest::manifests(set, *mirrored);
                // A change of an object may be none of what is printed.
                if text == *printed {
                    return Ok(Written::Settled);
                }
                let printing = |source| Error::System {
                    what: "write to stdout",
                    source,
                };
                let mut stdout = io::stdout().lock();
                stdout.write_all(text.as_bytes()).map_err(printing)?;
                stdout.flush().map_err(printing)?;
                *printed = text;
                Ok(Written::Settled)
            }
            Output::Directory(directory) => {
                let Some(publisher) = &mut directory.publisher else {
                    return Ok(Written::NotYet);
                };
                if directory.retry.is_some_and(|at| now < at) {
                    return Ok(Written::NotYet);
                }
                // `-onetime` ends right after this.
                let published = match once {
                    true => publisher.publish_durably(set),
                    false => publisher.publish(set),
                };
                match published {
                    Ok(published) => {
                        directory.recovered();
                        directory.warn_of_lost_watch();
                        Ok(published.map_or(Written::Settled, Written::New))
                    }
                    Err(error) => {
                        directory.failed(error, once, now)?;
                        Ok(Written::NotYet)
                    }
                }
            }
        }
    }

    /// Puts what was written last on stable storage. False: not yet, so call again.
    pub fn make_durable(&mut self) -> bool {
        let Output::Directory(directory) = self else {
            return true;
        };
        match directory
            .publisher
            .as_mut()
            .map(OutputDirectory::make_durable)
        {
            None | Some(Ok(())) => true,
            Some(Err(error)) => {
                directory.say(&error, "what is published cannot be synced: trying again");
                false
            }
        }
    }

    /// Tells probes that the loop turns, and how far it is.
    pub fn tell(&mut self, state: &str) {
        let Output::Directory(directory) = self else {
            return;
        };
        let limit = LIVENESS_TIMEOUT.max(3 * directory.check_every);
        let told = directory.publisher.as_mut().map(|p| p.beat(state, limit));
        // Where nothing can be published either, that is what is said.
        if let (Some(Err(error)), READY) = (told, state) {
            directory.say(&error, "probes get no answer: trying again");
        }
    }

    /// Makes what the next set will need, once what was written last is on stable storage.
    pub fn prepare(&mut self) {
        if let Output::Directory(directory) = self
            && let Some(publisher) = &mut directory.publisher
        {
            publisher.prepare();
        }
    }

    /// Checks the layout, when it is time to. True: something was amiss, so write again.
    pub fn check(&mut self, now: Instant) -> bool {
        let Output::Directory(directory) = self else {
            return false;
        };
        if now < directory.next_check {
            return false;
        }
        directory.next_check = now + directory.check_every;
        // The next try sees it all anyway, and is not to be put off by what is known to fail.
        if directory.retry.is_some() {
            return false;
        }
        let Some(publisher) = &mut directory.publisher else {
            return false;
        };
        match publisher.check() {
            Ok(false) => false,
            Ok(true) => {
                warn!(dir:% = directory.path.display(); "repaired the output directory's layout");
                directory.warn_of_lost_watch();
                true
            }
            Err(error) => directory.failed(error, false, now).is_ok(),
        }
    }
}

impl Directory {
    fn failed(&mut self, error: Error, once: bool, now: Instant) -> Result<(), Error> {
        let held = error.kind() == Kind::Held;
        if once && !held {
            return Err(error);
        }
        let wait = if held {
            LOCK_EVERY
        } else {
            self.backoff.failed(now)
        };
        self.retry = Some(now + wait);
        self.say(
            &error,
            "the output directory cannot be written: trying again",
        );
        self.failure = Some(error);
        Ok(())
    }

    fn say(&mut self, error: &Error, message: &'static str) {
        // Each try makes a set under a number of its own: another path alone is no news.
        let cause = error
            .source()
            .map_or_else(|| error.to_string(), ToString::to_string);
        if self.said != cause {
            warn!(error:% = Chain(error); "{message}");
            self.said = cause;
        }
    }

    fn warn_of_lost_watch(&mut self) {
        if self
            .publisher
            .as_mut()
            .is_some_and(OutputDirectory::has_lost_watch)
        {
            warn!(dir:% = self.path.display(); "an Envoy that started before this watches a directory that is gone, and sees no change any more: restart it");
        }
    }

    fn recovered(&mut self) {
        (self.retry, self.failure) = (None, None);
        if !self.said.is_empty() {
            info!(dir:% = self.path.display(); "the output directory can be written again");
            self.said.clear();
        }
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Output::Stdout { .. } => f.write_str("stdout"),
            Output::Directory(directory) => write!(f, "{}", directory.path.display()),
        }
    }
}
