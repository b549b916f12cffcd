//! Reads the published files that can stand in for a ConfigMap that is missing, invalid or not
//! known yet. Owns: which copy of each file is trusted. Must not: change anything.

use std::time::Duration;

use super::OutputDirectory;
use super::provenance::Source;
use crate::error::Error;
use crate::output::disk::age_of;
use crate::snapshot::{Bytes, File, FileName, Snapshot};

/// The files that are left of the set that was published last.
#[derive(Debug)]
pub struct Standing {
    /// Its target's files of which one of the last two sets has a copy that is trusted.
    pub set: Snapshot,
    /// True if all of its files are there, so that an Envoy can start on them.
    pub complete: bool,
    /// The time since it was written.
    pub age: Duration,
}

impl OutputDirectory {
    /// Reads what is left of the set that was published last, by this run or an earlier one. Unlike
    /// [`OutputDirectory::last_good`], this judges each file on its own: that another file was
    /// edited, or that the set was never synced, does not count against it. Returns `None` if no
    /// set was ever published.
    pub fn standing(&self) -> Result<Option<Standing>, Error> {
        // The set that Envoy sees comes first; the one that `done` names was synced.
        let mut sets = Vec::new();
        for number in self.inventory.named() {
            if let Some(files) = self.on_disk().sources_of(number)? {
                sets.push((number, files));
            }
        }
        let Some((last, names)) = sets.first() else {
            return Ok(None);
        };
        let (mut set, mut complete) = (Snapshot::new(), true);
        for (name, _) in names.iter().filter(|(_, source)| !source.is_extra()) {
            let mut found = None;
            for (number, files) in &sets {
                if let Some(source) = files.get(name) {
                    found = self.copy_in(*number, name, source)?;
                }
                if found.is_some() {
                    break;
                }
            }
            complete &= found.is_some();
            set.extend(found.map(|file| (name.clone(), file)));
        }
        let written = self.disk.lstat(&self.at.sources(*last))?;
        let age = written.map_or(Duration::ZERO, |found| age_of(&found));
        Ok(Some(Standing { set, complete, age }))
    }

    /// Reads a file of a set, if it can be trusted: it is what was written, or it was edited in a
    /// set that is done, where Envoy reads it, too. In a set that is not done it may be torn.
    fn copy_in(
        &self,
        number: u64,
        name: &FileName,
        source: &Source,
    ) -> Result<Option<File>, Error> {
        let path = self.at.set(number).join(name.as_str());
        let file = |bytes: Bytes| File {
            bytes,
            origin: source.origin.clone(),
        };
        if let Some(bytes) = self.intact(number, name, source)? {
            return Ok(source.cut(bytes).map(file));
        }
        match self.disk.lstat(&path)? {
            // Where the target's part of an edited union is, nobody knows.
            Some(found)
                if found.is_file()
                    && self.inventory.is_durable(number)
                    && source.extra().is_none() =>
            {
                Ok(self.on_disk().content(&path, found.len())?.map(file))
            }
            _ => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Keep;
    use super::*;
    use crate::snapshot::{ObjectName, Origin, ResourceVersion};
    use std::fs;
    use std::path::Path;
    use std::rc::Rc;

    fn set(files: &[(&str, &str)]) -> Snapshot {
        let origin = Rc::new(Origin {
            object: ObjectName {
                namespace: "default".to_owned(),
                name: "a".to_owned(),
            },
            uid: "u".to_owned(),
            resource_version: ResourceVersion("1".to_owned()),
        });
        let file = |(name, text): &(&str, &str)| {
            let bytes = Bytes::from(text.as_bytes());
            let origin = origin.clone();
            (FileName::new(name).unwrap(), File { bytes, origin })
        };
        files.iter().map(file).collect()
    }

    const FILES: [(&str, &str); 2] = [("cds.yaml", "a: 1\n"), ("rds.yaml", "a: 1\n")];

    /// Checks what the next run finds after something has happened to a whole set.
    #[track_caller]
    fn check(spoil: fn(&Path), want: &[(&str, &str)], complete: bool) {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path();
        let mut publisher = OutputDirectory::open(dir, Keep::Nothing).unwrap();
        assert!(publisher.standing().unwrap().is_none());
        publisher.publish_durably(&set(&FILES)).unwrap();
        drop(publisher);
        spoil(dir);
        let publisher = OutputDirectory::open(dir, Keep::Nothing).unwrap();
        let standing = publisher.standing().unwrap().unwrap();
        assert_eq!((standing.set, standing.complete), (set(want), complete));
        assert!(standing.age < Duration::from_secs(600));
    }

    #[test]
    fn each_file_is_judged_for_itself() {
        check(|_| {}, &FILES, true);
        // Somebody's editor has put a file in the place of a link.
        let replaced = |dir: &Path| {
            let link = dir.join("current/rds.yaml");
            fs::remove_file(&link).unwrap();
            fs::write(link, "a: 2 # longer\n").unwrap();
        };
        check(replaced, &FILES, true);
        // Or has written through it.
        let written = |dir: &Path| fs::write(dir.join("current/rds.yaml"), "b: 22\n").unwrap();
        check(written, &[FILES[0], ("rds.yaml", "b: 22\n")], true);
        let as_long = |dir: &Path| fs::write(dir.join("current/rds.yaml"), "a: 2\n").unwrap();
        check(as_long, &[FILES[0], ("rds.yaml", "a: 2\n")], true);
        let undone = |dir: &Path| fs::remove_file(dir.join(".sets/done")).unwrap();
        check(undone, &FILES, true);
        let torn = |dir: &Path| {
            fs::write(dir.join("current/rds.yaml"), [0; 5]).unwrap();
            fs::remove_file(dir.join(".sets/done")).unwrap();
        };
        check(torn, &FILES[..1], false);
        let missing = |dir: &Path| fs::remove_file(dir.join(".sets/1/rds.yaml")).unwrap();
        check(missing, &FILES[..1], false);
    }
}
