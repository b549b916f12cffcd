//! Envoy's verdicts, as the output keeps them, and the return to an accepted set.

use std::time::Instant;

use super::directory::{Keep, Recalled};
use super::sink::{Directory, Sink};
use super::step::SetFiles;
use super::{Output, Written};
use crate::error::Error;
use crate::snapshot::Snapshot;

impl Output {
    /// Keeps Envoy's verdicts in the output directory, which is not open yet.
    pub fn with_verdicts(mut self) -> Output {
        if let Sink::Directory(Directory { keep, .. }) = &mut self.sink {
            *keep = Keep::Verdicts;
        }
        self
    }

    /// Reads what an earlier run has left, once the directory is open. Returns `None` if verdicts
    /// are not kept.
    pub fn recall(&mut self) -> Option<Recalled> {
        let (recalled, read) = self.sink.opened_mut()?.recall()?;
        if let Err(error) = read {
            self.warnings.not_recalled(&error);
        }
        Some(recalled)
    }

    /// Returns the number of the set that Envoy finds.
    pub fn visible(&self) -> Option<u64> {
        self.sink.opened()?.visible()
    }

    /// Returns the number of the set that is written next. A write that meets a full disk may take
    /// a later one.
    pub fn next_set(&self) -> Option<u64> {
        self.sink.opened().map(|open| open.next_set())
    }

    /// Notes which sets may come back, the last accepted one first, and the text that the next run
    /// gets: before each commit, and after each verdict. A failure stops nothing.
    pub fn note_verdicts(&mut self, kept: [Option<u64>; 2], memory: &str) {
        if let Some(directory) = self.sink.opened_mut() {
            let noted = directory.note_verdicts(kept, memory);
            self.warnings.noted(noted);
        }
    }

    /// Reads all that is in a set. Returns `None` if any of it is not what was written.
    pub fn set_files(&mut self, number: u64) -> Option<SetFiles> {
        let read = self.sink.opened_mut()?.set_files(number);
        self.warnings.read(read)
    }

    /// Reads the target of a set. Returns `None` if any of it is not what was written.
    pub fn set_target(&mut self, number: u64) -> Option<Snapshot> {
        let read = self.sink.opened_mut()?.read_set(number);
        self.warnings.read(read)
    }

    /// Makes a set visible again under a new number, has Envoy told of each of its files, and
    /// watches their readers. The visible set itself is announced once more like this.
    pub fn republish(&mut self, set: &SetFiles, now: Instant) -> Result<Written, Error> {
        let mut compared = self.compare(set.step(), now)?;
        compared.announce_all();
        self.write(compared, now)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::rc::Rc;
    use std::time::Duration;

    use fastrand::Rng;

    use super::*;
    use crate::output::Delivery;
    use crate::output::step::Step;
    use crate::snapshot::{File, FileName, ObjectName, Origin, ResourceVersion};

    fn files(text: &str) -> Snapshot {
        let origin = Rc::new(Origin {
            object: ObjectName {
                namespace: "default".into(),
                name: "envoy".into(),
            },
            uid: "u".into(),
            resource_version: ResourceVersion("1".into()),
        });
        let file = |name: &str| {
            let bytes = text.as_bytes().into();
            let origin = origin.clone();
            (FileName::new(name).unwrap(), File { bytes, origin })
        };
        ["cds.yaml", "rds.yaml"].map(file).into()
    }

    fn output(dir: &Path, now: Instant) -> Output {
        let every = Duration::from_secs(30);
        let rng = Rng::with_seed(1);
        Output::directory(dir.to_owned(), every, Delivery::Continuous, rng, now)
    }

    fn publish(output: &mut Output, files: &Snapshot, now: Instant) -> Written {
        let compared = output.compare(Step::target(files), now).unwrap();
        output.write(compared, now).unwrap()
    }

    #[test]
    fn the_next_run_gets_what_was_noted_and_brings_the_last_good_set_back() {
        let temp = tempfile::tempdir().unwrap();
        let now = Instant::now();
        let mut first = output(temp.path(), now).with_verdicts();
        assert_eq!((first.recall(), first.visible()), (None, None));
        first.note_verdicts([Some(1), None], "lost");
        assert!(first.open(now).unwrap());
        assert_eq!(first.recall(), Some(Recalled::default()));
        assert_eq!((first.visible(), first.next_set()), (None, Some(1)));
        publish(&mut first, &files("1"), now);
        first.note_verdicts([Some(1), Some(1)], "trying\n");
        publish(&mut first, &files("2"), now);
        drop(first);

        let mut second = output(temp.path(), now).with_verdicts();
        assert!(second.open(now).unwrap());
        let want = Recalled {
            memory: "trying\n".into(),
            visible: Some(2),
            good: Some(1),
        };
        assert_eq!(second.recall(), Some(want));
        assert_eq!(second.set_target(1), Some(files("1")));
        let back = second.set_files(1).unwrap();
        let Written::New(published) = second.republish(&back, now).unwrap() else {
            panic!("not new");
        };
        assert_eq!((published.number, second.visible()), (3, Some(3)));
        assert!(second.reads().is_some());
        let found = fs::read(temp.path().join("current/cds.yaml")).unwrap();
        assert_eq!(found, b"1");
        drop(second);

        let mut without = output(temp.path(), now);
        assert!(without.open(now).unwrap());
        assert_eq!(without.recall(), None);
    }

    #[test]
    fn a_set_that_cannot_come_back_now_comes_back_when_the_disk_is_tried_again() {
        let temp = tempfile::tempdir().unwrap();
        let now = Instant::now();
        let mut output = output(temp.path(), now).with_verdicts();
        assert!(output.open(now).unwrap());
        publish(&mut output, &files("1"), now);
        let set = output.set_files(1).unwrap();
        // Nothing gives way to a directory that is not empty.
        let active = temp.path().join(".sets/active");
        fs::remove_file(&active).unwrap();
        fs::create_dir_all(active.join("sub")).unwrap();
        assert!(matches!(output.republish(&set, now), Ok(Written::NotYet)));
        let due = output.deadline().unwrap();
        assert!(due > now && output.failure().is_some());
        fs::remove_dir_all(&active).unwrap();
        assert!(matches!(output.republish(&set, now), Ok(Written::NotYet)));
        assert!(output.take_due_retry(due));
        assert!(matches!(output.republish(&set, due), Ok(Written::New(_))));
    }

    #[test]
    fn a_dry_run_has_no_verdicts() {
        let now = Instant::now();
        let mut output = Output::stdout(false).with_verdicts();
        assert!(!output.open(now).unwrap());
        output.note_verdicts([Some(1), None], "x");
        assert_eq!((output.recall(), output.next_set()), (None, None));
        assert!(output.set_files(1).is_none() && output.set_target(1).is_none());
    }
}
