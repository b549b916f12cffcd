//! Tells the operator of trouble with the output directory: once, and once that it is over. Owns:
//! the messages.

use std::error::Error as _;
use std::path::PathBuf;
use std::time::Instant;

use log::{info, warn};

use crate::error::{Chain, Error};
use crate::logging::WarnOnce;
use crate::output::directory::Synced;

/// The troubles of one output directory. Each is reported for itself, even if they have one cause.
pub struct Warnings {
    dir: PathBuf,
    write: WarnOnce,
    sync: WarnOnce,
    read: WarnOnce,
    heartbeat: WarnOnce,
    verdicts: WarnOnce,
}

impl Warnings {
    pub fn new(dir: PathBuf) -> Warnings {
        Warnings {
            dir,
            write: WarnOnce::default(),
            sync: WarnOnce::default(),
            read: WarnOnce::default(),
            heartbeat: WarnOnce::default(),
            verdicts: WarnOnce::default(),
        }
    }

    pub fn failed(&mut self, error: &Error, now: Instant) {
        let message = "output directory cannot be written; retrying";
        warn_of(&mut self.write, message, error, now);
    }

    pub fn succeeded(&mut self, now: Instant) {
        let message = "output directory can be written again";
        self.over(|warnings| &mut warnings.write, message, now);
    }

    pub fn synced(&mut self, synced: Result<Synced, Error>) -> Synced {
        let now = Instant::now();
        match synced {
            Ok(Synced::Done) => {
                let message = "published files are synced again";
                self.over(|warnings| &mut warnings.sync, message, now);
                Synced::Done
            }
            Ok(synced) => synced,
            Err(error) => {
                let message = "published files cannot be synced; retrying";
                warn_of(&mut self.sync, message, &error, now);
                Synced::Failed
            }
        }
    }

    /// Returns what was read, if anything.
    pub fn read<T>(&mut self, read: Result<Option<T>, Error>) -> Option<T> {
        let now = Instant::now();
        match read {
            Ok(read) => {
                let message = "published files can be read again";
                self.over(|warnings| &mut warnings.read, message, now);
                read
            }
            Err(error) => {
                let message = "published files cannot be read; going on without them";
                warn_of(&mut self.read, message, &error, now);
                None
            }
        }
    }

    pub fn beaten(&mut self) {
        let message = "heartbeat is written again";
        self.over(|warnings| &mut warnings.heartbeat, message, Instant::now());
    }

    pub fn not_beaten(&mut self, error: &Error) {
        let message = "heartbeat cannot be written, so probes fail; retrying";
        warn_of(&mut self.heartbeat, message, error, Instant::now());
    }

    pub fn noted(&mut self, noted: Result<(), Error>) {
        match noted {
            Ok(()) => {
                let message = "Envoy's verdicts are written down again";
                self.over(|warnings| &mut warnings.verdicts, message, Instant::now());
            }
            Err(error) => {
                let message = "Envoy's verdicts cannot be written down; a restart forgets them";
                warn_of(&mut self.verdicts, message, &error, Instant::now());
            }
        }
    }

    pub fn not_recalled(&self, error: &Error) {
        warn!(error:% = Chain(error);
            "what Envoy has refused before cannot be read; it is published once more");
    }

    pub fn repaired(&self) {
        warn!(dir:% = self.dir.display(); "output directory's layout was damaged; repaired it");
    }

    pub fn lost_watch(&self) {
        warn!(dir:% = self.dir.display(); "directory watched by Envoy was removed; an Envoy that started before this sees no change until it is restarted");
    }

    fn over(
        &mut self,
        of: fn(&mut Warnings) -> &mut WarnOnce,
        message: &'static str,
        now: Instant,
    ) {
        if let Some(lasted_s) = of(self).ended(now) {
            info!(dir:% = self.dir.display(), lasted_s; "{message}");
        }
    }
}

fn warn_of(once: &mut WarnOnce, message: &'static str, error: &Error, now: Instant) {
    // Each attempt makes a set under a number of its own: another path alone is not news.
    let cause = error
        .source()
        .map_or_else(|| error.to_string(), ToString::to_string);
    if once.is_news(message, &cause, now) {
        warn!(error:% = Chain(error); "{message}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> Error {
        Error::Disk {
            verb: "write",
            path: PathBuf::from("x"),
            source: std::io::ErrorKind::StorageFull.into(),
        }
    }

    #[test]
    fn one_cause_of_two_troubles_is_reported_for_each_of_them() {
        let mut warnings = Warnings::new(PathBuf::new());
        assert_eq!(warnings.synced(Err(full())), Synced::Failed);
        warnings.not_beaten(&full());
        let now = Instant::now();
        assert_eq!(warnings.heartbeat.ended(now), Some(0));
        assert_eq!(warnings.sync.ended(now), Some(0));
        assert_eq!(warnings.write.ended(now), None);
    }
}
