//! Names everything in the output directory. Owns: paths, numbers of sets, targets of links, the
//! order in which changed keys are announced. Must not: touch the disk.
//!
//! ```text
//! DIR/current -> .live                               what Envoy is told; renamed last
//! DIR/.live/rds.yaml -> ../.sets/active/rds.yaml     one link per key; never a new directory
//! DIR/.sets/42/rds.yaml                              one set; never changed once committed
//! DIR/.sets/43/                                      empty, made ahead for the next
//! DIR/.sets/42.sources                               which ConfigMap each file came from
//! DIR/.sets/active -> 42                             the commit point
//! DIR/.sets/done -> 42                               committed, announced and synced: whole
//! DIR/.sets/good -> 41                               the last that Envoy has accepted
//! DIR/.sets/moved -> 40                              the last with which a listener changed; its age
//! DIR/.sets/.refused                                 what Envoy has refused, or is being given
//! DIR/.sets/.links/7                                 temporary links, under names no key can take
//! DIR/.sets/.lock                                    held by the publisher until it exits
//! DIR/.sets/.life                                    the heartbeat: what probes read
//! ```

use std::path::{Path, PathBuf};

use crate::snapshot::FileName;

/// The target of `current`. All our links are relative: DIR may be mounted elsewhere for Envoy.
pub const CURRENT: &str = ".live";

/// The paths that never change.
#[derive(Debug)]
pub struct Layout {
    pub dir: PathBuf,
    pub current: PathBuf,
    pub live: PathBuf,
    pub sets: PathBuf,
    pub links: PathBuf,
    pub lock: PathBuf,
    pub active: PathBuf,
    pub done: PathBuf,
    pub good: PathBuf,
    pub moved: PathBuf,
    pub refused: PathBuf,
}

impl Layout {
    pub fn new(dir: &Path) -> Layout {
        let sets = dir.join(".sets");
        Layout {
            dir: dir.to_owned(),
            current: dir.join("current"),
            live: dir.join(CURRENT),
            links: sets.join(".links"),
            lock: sets.join(".lock"),
            active: sets.join("active"),
            done: sets.join("done"),
            good: sets.join("good"),
            moved: sets.join("moved"),
            refused: sets.join(".refused"),
            sets,
        }
    }

    /// Returns the directory of a set.
    pub fn set(&self, number: u64) -> PathBuf {
        self.sets.join(number.to_string())
    }

    /// Returns the file with the origin of a set's files.
    pub fn sources(&self, number: u64) -> PathBuf {
        self.sets.join(number.to_string() + ".sources")
    }

    /// Returns the link that Envoy opens.
    pub fn link(&self, name: &str) -> PathBuf {
        self.live.join(name)
    }
}

/// Returns the target of a key's link, which is the same for every set.
pub fn target(name: &str) -> String {
    ["../.sets/active/", name].concat()
}

/// Returns the number of a set from its name: plain digits, and no more of them than could ever be
/// counted to.
pub fn number(name: &str) -> Option<u64> {
    let plain = name.len() <= 15 && !name.starts_with('0') && !name.starts_with('+');
    name.parse().ok().filter(|_| plain)
}

/// The kinds of files, those that others refer to first.
const ORDER: [&str; 5] = ["cds", "eds", "sds", "lds", "rds"];
/// The rank of files of any other kind.
pub const LAST_RANK: usize = ORDER.len();

/// Returns a file's place in the order of announcing: files that others refer to come first. Envoy
/// may load them in another order.
pub fn rank(name: &FileName) -> usize {
    let first = ORDER
        .iter()
        .position(|kind| name.as_str().starts_with(kind));
    first.unwrap_or(LAST_RANK)
}
