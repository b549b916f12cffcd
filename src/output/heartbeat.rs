//! Writes and reads the heartbeat: the file in which the crossover that owns an output directory
//! says that its loop turns, and how far it is. `-ready`, `-live` and `-accepted` answer from it.
//! Owns: that file, and what counts as ready and as alive. Must not: wait, or lock anything for a
//! reader.
//!
//! Its first line is the second of a turn of the loop, how many may pass until the next, and the
//! state. If Envoy is asked what it made of the files, a second line says what is known of that.
//! The clock starts at boot and cannot be set. The lines are written in their place, so they need
//! no space on a full disk. Their writer has a record lock on the file until it exits, and whether
//! somebody has one can be asked without taking any: unlike the directory's own lock, probes cannot
//! disturb it.

mod accepted;

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use rustix::process::{Flock, FlockType, fcntl_getlk};

pub use self::accepted::Accepted;
use super::disk::{Fs, Inode, failed, reason};
use crate::error::{Chain, Error};

/// The state in which `-ready` is true.
pub const READY: &str = "ready";

/// The file in the output directory.
const FILE: &str = ".sets/.life";
/// After how many seconds the same state is written again.
const EVERY: u64 = 30;
/// As much as is read.
const MAX_BYTES: usize = 4096;

/// The heartbeat as its writer has it.
#[derive(Debug)]
pub struct Heartbeat {
    path: PathBuf,
    /// Missing until the first beat, and after another program has removed the file.
    file: Option<BeatFile>,
}

/// The open file. Closing any descriptor of it would give up the lock.
#[derive(Debug)]
struct BeatFile {
    file: fs::File,
    inode: Inode,
    state: String,
    accepted: Option<Accepted>,
    /// The second since which it is unknown what Envoy made of the files.
    unknown_since: u64,
    /// The second in which it was written.
    written: u64,
    /// The greatest length so far.
    length: usize,
}

impl Heartbeat {
    /// Returns the heartbeat of the output directory `dir`, not beaten yet.
    pub fn new(dir: &Path) -> Heartbeat {
        let (path, file) = (dir.join(FILE), None);
        Heartbeat { path, file }
    }

    /// Writes that the loop has turned, which state it is in and what Envoy made of the files, if
    /// that is asked; but only if any of it is new or was written a while ago. A reader takes the
    /// loop for dead once `limit` has passed without another beat.
    pub fn beat(
        &mut self,
        disk: &Fs,
        state: &str,
        accepted: Option<&Accepted>,
        limit: Duration,
    ) -> Result<Beaten, Error> {
        let (now, path) = (now(), &self.path);
        let beat = match &mut self.file {
            Some(beat) => beat,
            None => self.file.insert(BeatFile::create(disk, path)?),
        };
        let is_same = beat.state == state && beat.accepted.as_ref() == accepted;
        if is_same && now < beat.written + EVERY {
            return Ok(Beaten::Lately);
        }
        let mut text = format!("{now} {} {state}", limit.as_secs());
        if let Some(accepted) = accepted {
            if !beat.accepted.as_ref().is_some_and(Accepted::is_unknown) {
                beat.unknown_since = now;
            }
            text += &format!("\n{}", accepted.line(beat.unknown_since));
        }
        // Blanks cover what a longer text has left.
        beat.length = beat.length.max(text.len());
        let text = format!("{text:<0$}\n", beat.length);
        (beat.state, beat.written) = (state.to_owned(), now);
        beat.accepted = accepted.cloned();
        disk.write_over(&beat.file, path, text.as_bytes())?;
        Ok(Beaten::Now)
    }

    /// Lets go of a file that is no longer at its path, so that the next beat makes it again.
    pub fn check(&mut self, disk: &Fs) -> Result<(), Error> {
        if let Some(beat) = &self.file
            && !disk.is_same_file(&self.path, beat.inode)?
        {
            self.file = None;
        }
        Ok(())
    }
}

impl BeatFile {
    /// Replaces what an earlier run, or somebody else, has left at `path`.
    fn create(disk: &Fs, path: &Path) -> Result<BeatFile, Error> {
        disk.remove_all(path)?;
        let (file, _) = disk.create(path)?;
        Ok(BeatFile {
            inode: disk.lock_record(&file, path)?,
            file,
            state: String::new(),
            accepted: None,
            unknown_since: 0,
            written: 0,
            length: 0,
        })
    }
}

/// The outcome of a beat.
#[derive(Debug)]
pub enum Beaten {
    Now,
    /// Nothing new had to be written; whether the last attempt failed is known from its error.
    Lately,
}

/// The heartbeat as a reader finds it.
#[derive(Debug)]
struct Beat {
    /// The time since the loop turned.
    age: Duration,
    /// The longest such time in which the loop is alive.
    limit: Duration,
    state: String,
    /// The text about Envoy's verdict.
    accepted: Option<String>,
}

/// A question to the crossover that owns a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// Asks whether an Envoy can start on the directory.
    Ready,
    /// Asks whether the event loop runs.
    Live,
    /// Asks whether Envoy has accepted a whole set since it started.
    Accepted,
}

/// Answers a probe of `dir`. `Ok` is a yes, with a remark if there is one to be made. The error is
/// the reason why the answer is no.
pub fn ask(probe: Probe, dir: &Path) -> Result<Option<String>, String> {
    let beat = last_beat(&dir.join(FILE)).map_err(|error| Chain(&error).to_string())?;
    let Some(beat) = beat else {
        return Err(format!("no crossover holds {}", dir.display()));
    };
    let Beat {
        age, limit, state, ..
    } = beat;
    match probe {
        Probe::Ready if state == READY => Ok(None),
        Probe::Ready => Err(format!("not ready: {state}")),
        Probe::Live if age < limit => Ok(None),
        Probe::Live => Err(format!("not alive: its loop last turned {age:?} ago")),
        Probe::Accepted => {
            let obstacle = (state != READY).then_some(state.as_str());
            accepted::answer(beat.accepted.as_deref(), obstacle, now())
        }
    }
}

/// Reads the last beat in the file at `path`. Returns `None` if no process is writing it.
fn last_beat(path: &Path) -> Result<Option<Beat>, Error> {
    let file = match Fs::default().open(path) {
        Err(error) if reason(&error) == Some(ErrorKind::NotFound) => return Ok(None),
        result => result?,
    };
    let lock = fcntl_getlk(&file, &Flock::from(FlockType::WriteLock));
    if lock
        .map_err(|error| failed("look at", path, error.into()))?
        .is_none()
    {
        return Ok(None);
    }
    let read = || {
        let mut text = vec![0; MAX_BYTES];
        let length = file.read_at(&mut text, 0);
        let length = length.map_err(|error| failed("read", path, error))?;
        text.truncate(length);
        Ok(text)
    };
    // What is just being written may be half an old one: read until two are equal.
    let mut text = read()?;
    loop {
        let again = read()?;
        if again == text {
            break;
        }
        text = again;
    }
    // The writer has just made the file if there is no line yet.
    Ok(parse(&String::from_utf8_lossy(&text), now()))
}

fn parse(text: &str, now: u64) -> Option<Beat> {
    let mut lines = text.lines();
    let mut words = lines.next()?.splitn(3, ' ');
    let mut number = || words.next()?.parse().ok();
    let (turned, limit) = (number()?, number()?);
    Some(Beat {
        age: Duration::from_secs(now.saturating_sub(turned)),
        limit: Duration::from_secs(limit),
        state: words.next().unwrap_or_default().trim_end().to_owned(),
        accepted: lines.next().map(|line| line.trim_end().to_owned()),
    })
}

/// Returns the seconds since boot.
fn now() -> u64 {
    // This clock is always there.
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |time| time.tv_sec().unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(120);

    /// A directory with a place for a heartbeat, and one that was never beaten.
    fn fresh() -> (tempfile::TempDir, Heartbeat) {
        let temp = tempfile::tempdir().unwrap();
        let heartbeat = Heartbeat::new(temp.path());
        fs::create_dir(heartbeat.path.parent().unwrap()).unwrap();
        (temp, heartbeat)
    }

    fn beat(heartbeat: &mut Heartbeat, state: &str) -> String {
        beat_with(heartbeat, state, None)
    }

    fn beat_with(heartbeat: &mut Heartbeat, state: &str, accepted: Option<&Accepted>) -> String {
        let beaten = heartbeat.beat(&Fs::default(), state, accepted, LIMIT);
        beaten.unwrap();
        fs::read_to_string(&heartbeat.path).unwrap()
    }

    #[test]
    fn is_written_in_its_place_when_there_is_something_new_or_after_a_while() {
        let (_temp, mut heartbeat) = fresh();
        let long = beat(&mut heartbeat, "waits for much");
        assert!(long.ends_with(" 120 waits for much\n"), "{long}");
        let inode = heartbeat.file.as_ref().unwrap().inode;
        let short = beat(&mut heartbeat, READY);
        assert_eq!(short.len(), long.len());
        assert!(short.trim_end().ends_with(" 120 ready"), "{short}");

        // What another hand writes shows whether ours does.
        fs::write(&heartbeat.path, "x").unwrap();
        assert_eq!(beat(&mut heartbeat, READY), "x");
        heartbeat.file.as_mut().unwrap().written -= EVERY - 1;
        assert_eq!(beat(&mut heartbeat, READY), "x");
        heartbeat.file.as_mut().unwrap().written -= 1;
        let again = beat(&mut heartbeat, READY);
        assert!(again.trim_end().ends_with(" 120 ready"), "{again}");
        assert_eq!(heartbeat.file.as_ref().unwrap().inode, inode);
    }

    #[test]
    fn is_made_again_after_any_damage_to_its_file() {
        let (_temp, mut heartbeat) = fresh();
        fs::create_dir(&heartbeat.path).unwrap();
        beat(&mut heartbeat, READY);
        fs::remove_file(&heartbeat.path).unwrap();
        heartbeat.check(&Fs::default()).unwrap();
        let again = beat(&mut heartbeat, READY);
        assert!(again.trim_end().ends_with(" ready"), "{again}");
    }

    #[test]
    fn is_read_as_it_was_written() {
        let (_temp, mut heartbeat) = fresh();
        beat(&mut heartbeat, "waits for very much");
        let line = beat(&mut heartbeat, "waits for a");
        let turned = heartbeat.file.as_ref().unwrap().written;
        let beat = parse(&line, turned + 7).unwrap();
        assert_eq!((beat.age, beat.limit), (Duration::from_secs(7), LIMIT));
        assert_eq!((beat.state.as_str(), beat.accepted), ("waits for a", None));
        assert!(parse("", turned).is_none());
        assert!(parse("12 x ready\n", turned).is_none());
    }

    #[test]
    fn tells_of_envoy_in_a_second_line_and_since_when_nothing_is_known() {
        let (_temp, mut heartbeat) = fresh();
        let mut tell = |accepted: &Accepted| {
            let text = beat_with(&mut heartbeat, READY, Some(accepted));
            let beat = parse(&text, 0).unwrap();
            assert_eq!(beat.state, READY);
            beat.accepted.unwrap()
        };
        let refused = tell(&Accepted::Refused("rds.yaml".into()));
        assert_eq!(refused, "accepted refused rds.yaml");
        assert_eq!(tell(&Accepted::Taken), "accepted taken");
        let unknown = |why: &str| Accepted::Unknown(why.into());
        let first = tell(&unknown("answered 403"));
        let (_, since) = first.split_once("unknown ").unwrap();
        let since: u64 = since.split_once(' ').unwrap().0.parse().unwrap();
        assert!(now() - since < 60, "{first}");
        let beat = heartbeat.file.as_mut().unwrap();
        beat.unknown_since -= 50;
        let text = beat_with(&mut heartbeat, READY, Some(&unknown("answered 401")));
        let later = format!("\naccepted unknown {} answered 401", since - 50);
        assert!(text.trim_end().ends_with(&later), "{text}");
        // What is known in between ends it.
        beat_with(&mut heartbeat, READY, Some(&Accepted::Nothing));
        let text = beat_with(&mut heartbeat, READY, Some(&unknown("answered 401")));
        assert!(!text.contains(&later), "{text}");
    }

    #[test]
    fn does_not_count_without_its_writer_s_lock() {
        let (temp, mut heartbeat) = fresh();
        assert!(last_beat(&heartbeat.path).unwrap().is_none());
        beat(&mut heartbeat, READY);
        // Locks of this process are never in its own way, so nothing seems to hold the file;
        // tests/it/process/probes.rs asks from outside.
        let answer = ask(Probe::Live, temp.path()).unwrap_err();
        assert!(answer.starts_with("no crossover holds "), "{answer}");
    }
}
