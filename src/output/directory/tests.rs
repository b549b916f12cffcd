//! What the tests of the output directory share: snapshots as text, what Envoy finds, a disk that
//! fails.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod crashes;
mod healing;
mod migration;
mod moved;
mod publishing;
mod sequences;
mod verdicts;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;

use super::stage::is_full;
use super::sweep::OLDER;
use super::*;
use crate::output::disk::{Fault, How};
use crate::output::step::Step;
use crate::snapshot::{File, ObjectName, Origin, ResourceVersion, Snapshot};
use crate::sorted::{SortedMap, SortedSet};

const EIO: i32 = 5;
const EACCES: i32 = 13;
const ENOSPC: i32 = 28;

/// `"rds.yaml=one@web cds.yaml=two"`: files, their contents, and their ConfigMaps.
fn set(text: &str) -> Snapshot {
    let file = |word: &str| {
        let (name, rest) = word.split_once('=').unwrap();
        let (content, object) = rest.split_once('@').unwrap_or((rest, "envoy"));
        let origin = Rc::new(Origin {
            object: ObjectName {
                namespace: "default".into(),
                name: object.into(),
            },
            uid: "1-2-3".into(),
            resource_version: ResourceVersion("7".into()),
        });
        let bytes = content.as_bytes().into();
        (FileName::new(name).unwrap(), File { bytes, origin })
    };
    text.split_whitespace().map(file).collect()
}

type Seen = SortedMap<String, Vec<u8>>;

fn contents(set: &Snapshot) -> Seen {
    let entry = |(name, file): (&FileName, &File)| (name.to_string(), file.bytes.to_vec());
    set.iter().map(entry).collect()
}

/// What Envoy finds; a link that leads nowhere is nothing.
fn seen(dir: &Path) -> Seen {
    let Ok(entries) = fs::read_dir(dir.join("current")) else {
        return Seen::new();
    };
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let read = |name: String| Some((name.clone(), fs::read(dir.join("current").join(name)).ok()?));
    names.filter_map(read).collect()
}

fn names(dir: &Path) -> SortedSet<String> {
    let entries = fs::read_dir(dir).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

/// The layout holds `want`, whole, and nothing that should not be there.
#[track_caller]
fn tidy(dir: &Path, want: &Snapshot) {
    assert_eq!(seen(dir), contents(want));
    let keys: SortedSet<String> = want.keys().map(FileName::to_string).collect();
    assert_eq!(names(&dir.join(".live")), keys);
    assert_eq!(
        names(dir),
        [".live", ".sets", "current"].map(String::from).into()
    );
    clean(dir, 1 + OLDER);
    let sets = dir.join(".sets");
    assert_eq!(
        fs::read_link(sets.join("active")).unwrap(),
        fs::read_link(sets.join("done")).unwrap()
    );
    assert_eq!(
        fs::read_link(dir.join("current")).unwrap(),
        Path::new(".live")
    );
    for key in keys {
        let link = fs::read_link(dir.join(".live").join(&key)).unwrap();
        assert_eq!(link, Path::new("../.sets/active").join(key));
    }
}

/// No temporary links, no half sets, no more than `sets`.
#[track_caller]
fn clean(dir: &Path, sets_kept: usize) {
    let sets = dir.join(".sets");
    assert_eq!(names(&sets.join(".links")), SortedSet::new());
    let mut entries = names(&sets);
    for more in ["good", "moved", ".refused"] {
        entries.remove(more);
    }
    for fixed in [".links", ".lock"] {
        assert!(entries.remove(fixed), "no {fixed}");
    }
    let mut last = 0;
    for name in ["active", "done"] {
        if let Ok(link) = fs::read_link(sets.join(name)) {
            last = last.max(layout::number(link.to_str().unwrap()).unwrap());
        }
        entries.remove(name);
    }
    let numbers: SortedSet<String> = entries
        .iter()
        .map(|name| name.trim_end_matches(".sources").to_string())
        .collect();
    assert!(numbers.len() <= sets_kept, "{entries:?}");
    assert!(
        numbers
            .iter()
            .all(|number| layout::number(number).unwrap() <= last),
        "{entries:?}"
    );
}

/// A program that another test is starting holds a copy of every lock for a moment.
fn free(
    mut open: impl FnMut() -> Result<OutputDirectory, Error>,
) -> Result<OutputDirectory, Error> {
    for _ in 0..1000 {
        match open() {
            Err(Error::Held { .. }) => std::thread::sleep(std::time::Duration::from_millis(1)),
            result => return result,
        }
    }
    open()
}

/// Opened, and disturbed from then on.
fn open_to(fault: &Fault, how: How, dir: &Path) -> Result<OutputDirectory, Error> {
    fault.arm(how);
    let fault = fault.clone();
    let group = Default::default();
    OutputDirectory::open_on(Fs { group, fault }, dir, Keep::Nothing)
}

fn open(dir: &Path) -> OutputDirectory {
    free(|| OutputDirectory::open(dir, Keep::Nothing)).unwrap()
}

fn publish(publisher: &mut OutputDirectory, text: &str) -> Option<Published> {
    publisher.publish_durably(&set(text)).unwrap()
}

/// Links that were renamed into place since the fault was armed, in order.
fn pokes(publisher: &OutputDirectory) -> Vec<String> {
    let log = publisher.disk.fault.log.borrow();
    let poked = log.iter().filter(|(verb, path)| {
        *verb == "replace"
            && (path == &publisher.at.current || path.starts_with(&publisher.at.live))
    });
    poked
        .map(|(_, path)| path.file_name().unwrap().to_str().unwrap().to_string())
        .collect()
}

fn calls(publisher: &OutputDirectory, verb: &str) -> usize {
    publisher
        .disk
        .fault
        .log
        .borrow()
        .iter()
        .filter(|(called, _)| *called == verb)
        .count()
}

fn rearm(publisher: &OutputDirectory) {
    publisher.disk.fault.arm(How::Never);
}

fn list(names: &[FileName]) -> Vec<&str> {
    names.iter().map(FileName::as_str).collect()
}

/// A directory as the Go program leaves it.
fn go(dir: &Path) {
    fs::create_dir(dir.join("current")).unwrap();
    for (name, content) in [
        ("cds.yaml", "go-c"),
        ("rds.yaml", "go-r"),
        ("old.yaml", "go-o"),
    ] {
        fs::write(dir.join("current").join(name), content).unwrap();
    }
}

fn tempdir() -> tempfile::TempDir {
    // Thousands of directories are made: in memory, where there is a place.
    tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

/// The names of the links that were made ahead.
fn prepared_links(publisher: &OutputDirectory) -> SortedSet<String> {
    publisher
        .prepared
        .links()
        .map(|link| link.file_name().unwrap().to_str().unwrap().to_owned())
        .collect()
}

#[track_caller]
fn whole(dir: &Path, old: &Seen, want: &Snapshot, at: &str) {
    let now = seen(dir);
    assert!(
        now == *old || now == contents(want),
        "mixed at {at}: {now:?}"
    );
}

const OLD: &str = "a=1 cds.yaml=1 gone.yaml=1 rds.yaml=1 same.yaml=1";
const NEW: &str = "a=2 cds.yaml=2 rds.yaml=2 same.yaml=1 eds.yaml=2";

/// Writes as many bytes as there are, with all that `cp -p` keeps as it was.
fn edit(path: &Path, content: &str) {
    let before = fs::metadata(path).unwrap();
    assert_eq!(before.len(), content.len() as u64);
    // A file system's clock has ticks.
    while fs::metadata(path).unwrap().ctime_nsec() == before.ctime_nsec() {
        fs::write(path, content).unwrap();
    }
    let file = fs::File::open(path).unwrap();
    file.set_modified(before.modified().unwrap()).unwrap();
}

type Harm = (&'static str, Box<dyn Fn(&Path)>);

impl OutputDirectory {
    /// Publishes the target, in one step.
    pub fn publish(&mut self, desired: &Snapshot) -> Result<Option<Published>, Error> {
        let compared = self.compare(Step::target(desired))?;
        self.write(compared)
    }

    /// Publishes the target and syncs it, as a run does that ends right after this.
    pub fn publish_durably(&mut self, desired: &Snapshot) -> Result<Option<Published>, Error> {
        let published = self.publish(desired)?;
        self.make_durable()?;
        Ok(published)
    }
}
