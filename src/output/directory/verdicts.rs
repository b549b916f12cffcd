//! Keeps Envoy's verdicts beside the sets: which one it has accepted last, and what it has refused
//! or is being given, in the words of whoever judges. Owns: `.sets/good` and `.sets/.refused`. Must
//! not: change what Envoy sees.
//!
//! A verdict is worth less than a publish: what cannot be written or read here never stops one.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::OutputDirectory;
use super::sets::FoundSet;
use super::stage::is_full;
use crate::error::Error;
use crate::output::disk::{failed, hash_of};

/// The longest memory that is read. It has two lines of some 600 bytes at most for each ConfigMap.
const LONGEST_MEMORY: u64 = 1 << 20;

/// The longest text that the kernel takes at once, whatever happens to us meanwhile.
const PAGE: usize = 4096;

/// The answer to whether anything is kept beside the sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    Nothing,
    Verdicts,
}

/// Envoy's verdicts, as they are kept in memory.
#[derive(Debug, Default)]
pub struct Verdicts {
    /// The last set that Envoy has accepted, and the one that comes back if it refuses the next.
    /// They are not swept.
    kept: [Option<u64>; 2],
    /// The number of the set that the link `good` leads to.
    good: Option<u64>,
    memory: String,
    /// True if `.refused` has the content of the memory.
    is_written: bool,
}

impl Verdicts {
    /// Returns the sets that are not swept.
    pub fn kept(&self) -> impl Iterator<Item = u64> {
        self.kept.into_iter().flatten()
    }
}

/// Envoy's verdicts, as an earlier run has left them on disk.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Recalled {
    /// The text as it was noted; empty if there is none that can be read.
    pub memory: String,
    /// The set on disk.
    pub visible: Option<u64>,
    /// The last set that Envoy has accepted, if all of it is what was written.
    pub good: Option<u64>,
}

impl OutputDirectory {
    /// Finds the last accepted set, before older sets are swept.
    pub(super) fn find_verdicts(&mut self) {
        // A set that cannot be read cannot come back.
        let good = self.on_disk().numbered(&self.at.good).unwrap_or(None);
        let active = self.inventory.visible.active();
        let is_whole = |number: &u64| {
            let found = self.on_disk().files_of(*number, active);
            found.is_ok_and(|found| found.is_some_and(|found: FoundSet| found.is_whole()))
        };
        let kept = good.filter(is_whole);
        // A number stands for one set, also where its set is gone.
        self.inventory.next_set = self.inventory.next_set.max(good.unwrap_or(0) + 1);
        self.verdicts = Some(Verdicts {
            kept: [kept, None],
            good,
            ..Verdicts::default()
        });
    }

    /// Reads what an earlier run has left. The text comes with the reason why there is none, if it
    /// cannot be read. Returns `None` if nothing is kept.
    pub fn recall(&mut self) -> Option<(Recalled, Result<(), Error>)> {
        self.verdicts.as_ref()?;
        let (memory, read) = match self.read_memory() {
            Ok(memory) => (memory, Ok(())),
            Err(error) => (None, Err(error)),
        };
        let visible = self.visible();
        let verdicts = self.verdicts.as_mut()?;
        verdicts.is_written = read.is_ok();
        verdicts.memory = memory.unwrap_or_default();
        let recalled = Recalled {
            memory: verdicts.memory.clone(),
            visible,
            good: verdicts.kept[0],
        };
        Some((recalled, read))
    }

    /// Returns the number of the set that Envoy finds.
    pub fn visible(&self) -> Option<u64> {
        self.inventory.visible.number()
    }

    /// Returns the number of the set that is written next.
    pub fn next_set(&self) -> u64 {
        self.inventory.next_set
    }

    /// Notes which sets may come back, the last accepted one first, and the text that the next run
    /// gets. Does nothing if nothing is kept, or nothing is new.
    pub fn note_verdicts(&mut self, kept: [Option<u64>; 2], memory: &str) -> Result<(), Error> {
        let Some(verdicts) = &mut self.verdicts else {
            return Ok(());
        };
        verdicts.kept = kept;
        if verdicts.memory != memory {
            memory.clone_into(&mut verdicts.memory);
            verdicts.is_written = false;
        }
        self.write_verdicts()
    }

    /// Writes down what is not on disk. The text comes first: a set that is good and still being
    /// tried would be taken back.
    fn write_verdicts(&mut self) -> Result<(), Error> {
        let memory = match self.write_memory() {
            // The older sets make room, as they do for a publish.
            Err(error) if is_full(&error) => self.sweep(0).and_then(|()| self.write_memory()),
            result => result,
        };
        memory.and(self.link_good())
    }

    fn link_good(&mut self) -> Result<(), Error> {
        let Some(verdicts) = &self.verdicts else {
            return Ok(());
        };
        let [Some(good), _] = verdicts.kept else {
            return Ok(());
        };
        if verdicts.good == Some(good) {
            return Ok(());
        }
        let link = self.at.good.clone();
        self.replace_with_link(&good.to_string(), &link)?;
        if let Some(verdicts) = &mut self.verdicts {
            verdicts.good = Some(good);
        }
        Ok(())
    }

    fn write_memory(&mut self) -> Result<(), Error> {
        let Some(verdicts) = self.verdicts.as_ref().filter(|it| !it.is_written) else {
            return Ok(());
        };
        let onto = &self.at.refused;
        let text = encode(&verdicts.memory);
        if verdicts.memory.is_empty() {
            self.disk.unlink(onto)?;
        } else if !self.has_overwritten(onto, &text) {
            self.next_link += 1;
            let path = self.at.links.join(self.next_link.to_string());
            let written = self.write_file(&path, text.as_bytes());
            let put = written.and_then(|_| self.disk.rename(&path, onto));
            if put.is_err() {
                let _ = self.disk.unlink(&path);
            }
            put?;
        }
        if let Some(verdicts) = &mut self.verdicts {
            verdicts.is_written = true;
        }
        Ok(())
    }

    /// Writes over a text that is there, if both are short: a kill leaves the one or the other, and it
    /// takes a tenth of what a new file does, at each change. Line ends fill up a longer one.
    fn has_overwritten(&self, path: &Path, text: &str) -> bool {
        let Ok(file) = self.disk.open_over(path) else {
            return false;
        };
        let Ok(found) = self.disk.stat(&file, path) else {
            return false;
        };
        let Ok(len) = usize::try_from(found.len()) else {
            return false;
        };
        if !found.is_file() || found.nlink() > 1 || len.max(text.len()) > PAGE {
            return false;
        }
        let fill = "\n".repeat(len.saturating_sub(text.len()));
        let text = [text, &fill].concat();
        self.disk.write_over(&file, path, text.as_bytes()).is_ok()
    }

    /// Reads `.refused`. Returns `None` if there is none.
    fn read_memory(&self) -> Result<Option<String>, Error> {
        let path = &self.at.refused;
        let Some(found) = self.disk.lstat(path)? else {
            return Ok(None);
        };
        let text = match found.len() <= LONGEST_MEMORY {
            true => self.on_disk().content(path, found.len())?,
            false => None,
        };
        let text = text.as_deref().and_then(decode);
        text.map_or_else(|| Err(foreign(path)), |text| Ok(Some(text.to_owned())))
    }

    /// Writes down again what others have removed or changed.
    pub(super) fn check_verdicts(&mut self) {
        if self.verdicts.is_none() {
            return;
        }
        let good = self.on_disk().numbered(&self.at.good).unwrap_or(None);
        let memory = self.read_memory();
        if let Some(verdicts) = &mut self.verdicts {
            let found = memory.map(Option::unwrap_or_default);
            verdicts.is_written = found.is_ok_and(|found| found == verdicts.memory);
            verdicts.good = good;
        }
        // What fails is tried again, and reported, with the next verdict.
        let _ = self.write_verdicts();
    }
}

/// Returns the text of `.refused`: a hash of what follows, as a file that was torn may be of any
/// length. More line ends may follow.
fn encode(memory: &str) -> String {
    format!("{:016x}\n{memory}", hash_of(memory.trim_end().as_bytes()))
}

fn decode(text: &[u8]) -> Option<&str> {
    let (hash, memory) = str::from_utf8(text).ok()?.split_once('\n')?;
    let hash = u64::from_str_radix(hash, 16).ok()?;
    let filled = memory.trim_end();
    (hash == hash_of(filled.as_bytes())).then(|| memory.get(..=filled.len()).unwrap_or(memory))
}

fn foreign(path: &Path) -> Error {
    failed("read", path, io::Error::other("it is not what was written"))
}
