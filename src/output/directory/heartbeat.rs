//! `.life`: what the crossover that holds a directory says of itself, for probes. Owns: that file,
//! for those who write it and those who read it. Must not: wait, or lock anything for a reader.
//!
//! One line: the second of a turn of the loop, how many may pass until the next, and how far it is.
//! The clock starts at boot and cannot be set. The line is written in its place, so it needs no
//! space on a full disk. Its writer has a record lock on it for life, and whether somebody has one
//! can be asked without taking any: unlike the publisher's own lock, probes cannot disturb it.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use rustix::process::{Flock, FlockType, fcntl_getlk};

use super::layout::Layout;
use super::{Inode, OutputDirectory};
use crate::error::Error;
use crate::output::disk::{Fs, failed, reason};

/// It is written this often at most, but when there is something new to say.
const EVERY: u64 = 30;
/// The longest line that is read.
const LINE: usize = 1024;

/// The file as its writer has it. Closing any descriptor of it would give up the lock.
#[derive(Debug)]
pub struct Heartbeat {
    file: fs::File,
    /// Which file it is.
    pub inode: Inode,
    said: String,
    written: u64,
    length: usize,
}

/// What a reader finds.
#[derive(Debug)]
pub struct Beat {
    /// Since the turn of the loop.
    pub age: Duration,
    /// How old it may become.
    pub limit: Duration,
    /// How far it is.
    pub state: String,
}

fn now() -> u64 {
    // This clock is always there.
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |time| time.tv_sec().unsigned_abs())
}

impl OutputDirectory {
    /// Tells probes that the loop has turned, and how far it is.
    pub fn tell(&mut self, state: &str, limit: Duration) -> Result<(), Error> {
        let (now, path) = (now(), &self.at.life);
        let mut life = match self.life.take() {
            Some(life) => life,
            None => {
                // Of an earlier life, or somebody else's.
                self.disk.remove_all(path)?;
                let file = self.disk.create(path)?;
                let inode = self.disk.lock_record(&file, path)?;
                let (said, written, length) = (String::new(), 0, 0);
                Heartbeat {
                    file,
                    inode,
                    said,
                    written,
                    length,
                }
            }
        };
        let mut told = Ok(());
        if life.said != state || now >= life.written + EVERY {
            let line = format!("{now} {} {state}", limit.as_secs());
            // What a longer one leaves is blank.
            life.length = life.length.max(line.len());
            let line = format!("{line:<0$}\n", life.length);
            told = self.disk.write_over(&life.file, path, line.as_bytes());
            (life.said, life.written) = (state.to_owned(), now);
        }
        self.life = Some(life);
        told
    }
}

/// What the crossover that holds `dir` has told last; `None`: none holds it.
pub fn told(dir: &Path) -> Result<Option<Beat>, Error> {
    let path = Layout::new(dir).life;
    let file = match Fs::default().open(&path) {
        Err(error) if reason(&error) == Some(ErrorKind::NotFound) => return Ok(None),
        result => result?,
    };
    let lock = fcntl_getlk(&file, &Flock::from(FlockType::WriteLock));
    if lock
        .map_err(|error| failed("look at", &path, error.into()))?
        .is_none()
    {
        return Ok(None);
    }
    let read = || {
        let mut line = vec![0; LINE];
        let length = file.read_at(&mut line, 0);
        let length = length.map_err(|error| failed("read", &path, error))?;
        line.truncate(length);
        Ok(line)
    };
    // One that is being written may be half of it old.
    let mut line = read()?;
    loop {
        let again = read()?;
        if again == line {
            break;
        }
        line = again;
    }
    let line = String::from_utf8_lossy(&line);
    let mut words = line.lines().next().unwrap_or_default().splitn(3, ' ');
    let mut number = || words.next()?.parse().ok();
    let (Some(turned), Some(limit)) = (number(), number()) else {
        // It has taken the directory this moment.
        return Ok(None);
    };
    Ok(Some(Beat {
        age: Duration::from_secs(now().saturating_sub(turned)),
        limit: Duration::from_secs(limit),
        state: words.next().unwrap_or_default().trim_end().to_owned(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(120);

    fn line(dir: &Path) -> String {
        fs::read_to_string(Layout::new(dir).life).unwrap()
    }

    #[test]
    fn is_written_in_its_place_when_there_is_something_new_or_after_a_while() {
        let temp = tempfile::tempdir().unwrap();
        let mut publisher = OutputDirectory::open(temp.path()).unwrap();
        publisher.tell("waits for much", LIMIT).unwrap();
        let inode = publisher.life.as_ref().unwrap().inode;
        let long = line(temp.path());
        assert!(long.ends_with(" 120 waits for much\n"), "{long}");
        publisher.tell("ready", LIMIT).unwrap();
        let short = line(temp.path());
        assert_eq!(short.len(), long.len());
        assert!(short.trim_end().ends_with(" 120 ready"), "{short}");

        // What another hand writes shows whether ours does.
        fs::write(&publisher.at.life, "x").unwrap();
        publisher.tell("ready", LIMIT).unwrap();
        assert_eq!(line(temp.path()), "x");
        publisher.life.as_mut().unwrap().written -= EVERY - 1;
        publisher.tell("ready", LIMIT).unwrap();
        assert_eq!(line(temp.path()), "x");
        publisher.life.as_mut().unwrap().written -= 1;
        publisher.tell("ready", LIMIT).unwrap();
        assert!(line(temp.path()).trim_end().ends_with(" 120 ready"));
        assert_eq!(publisher.life.as_ref().unwrap().inode, inode);
    }

    #[test]
    fn is_made_again_with_its_directory_and_after_whatever_stood_there() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("x");
        let mut publisher = OutputDirectory::open(&dir).unwrap();
        fs::create_dir(&publisher.at.life).unwrap();
        publisher.tell("ready", LIMIT).unwrap();
        for spoil in [fs::remove_dir_all, |dir: &Path| {
            fs::remove_file(dir.join(".sets/.life"))
        }] {
            spoil(&dir).unwrap();
            publisher.check().unwrap();
            publisher.tell("ready", LIMIT).unwrap();
            assert!(line(&dir).trim_end().ends_with(" ready"));
        }
    }

    #[test]
    fn is_nobody_s_without_its_lock() {
        let temp = tempfile::tempdir().unwrap();
        assert!(told(temp.path()).unwrap().is_none());
        let mut publisher = OutputDirectory::open(temp.path()).unwrap();
        publisher.tell("ready", LIMIT).unwrap();
        // One's own lock is never in one's own way: tests/it/probes.rs asks from outside.
        assert!(told(temp.path()).unwrap().is_none());
    }
}
