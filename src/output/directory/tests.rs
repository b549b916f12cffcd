//! Each rule of the publisher, then every call of it cut once: killed there, or failed there.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;

use super::publish::is_full;
use super::*;
use crate::snapshot::{ObjectName, Origin, ResourceVersion};

/// What moves a directory; some file systems lack the first, some both.
const MOVES: [&str; 2] = ["exchange", "move"];

const EIO: i32 = 5;
const EXDEV: i32 = 18;
const EACCES: i32 = 13;
const ENOSPC: i32 = 28;

/// What goes wrong.
#[derive(Clone, Copy, Debug, Default)]
enum How {
    #[default]
    Never,
    /// Nothing happens from this call on.
    Kill(u64),
    /// This call alone fails.
    Once(u64, i32),
    /// Nothing happens from the first call of this verb on.
    KillAt(&'static str),
    /// Each call of this verb fails.
    Each(&'static str, i32),
}

/// Counts and records the calls, and makes them fail.
#[derive(Debug, Default)]
pub struct Fault {
    calls: Cell<u64>,
    how: Cell<How>,
    /// So many of [`MOVES`] are not there.
    lacks: Cell<usize>,
    log: RefCell<Vec<(&'static str, PathBuf)>>,
}

impl Fault {
    /// Before each call.
    pub fn pass(&self, verb: &'static str, path: &Path) -> io::Result<()> {
        self.calls.set(self.calls.get() + 1);
        if matches!(self.how.get(), How::KillAt(which) if which == verb) {
            self.how.set(How::Kill(self.calls.get()));
        }
        let errno = match self.how.get() {
            How::Kill(at) if self.calls.get() >= at => EIO,
            How::Once(at, errno) if self.calls.get() == at => errno,
            How::Each(which, errno) if which == verb => errno,
            _ if MOVES[..self.lacks.get()].contains(&verb) => EXDEV,
            _ => {
                self.log.borrow_mut().push((verb, path.to_owned()));
                return Ok(());
            }
        };
        Err(io::Error::from_raw_os_error(errno))
    }

    /// Whether the next call is the first that a kill suppresses.
    pub fn kills_next(&self) -> bool {
        matches!(self.how.get(), How::Kill(at) if self.calls.get() + 1 == at)
    }

    fn arm(&self, how: How) {
        self.calls.set(0);
        self.log.borrow_mut().clear();
        self.how.set(how);
    }

    /// Whether the call that was to fail was reached.
    fn hit(&self) -> bool {
        match self.how.get() {
            How::Kill(at) | How::Once(at, _) => self.calls.get() >= at,
            How::Never | How::KillAt(_) | How::Each(..) => false,
        }
    }
}

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

type Seen = BTreeMap<String, Vec<u8>>;

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

fn names(dir: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(dir).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

/// The layout holds `want`, whole, and nothing that should not be there.
#[track_caller]
fn tidy(dir: &Path, want: &Snapshot) {
    assert_eq!(seen(dir), contents(want));
    let keys: BTreeSet<String> = want.keys().map(FileName::to_string).collect();
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
    assert_eq!(names(&sets.join(".links")), BTreeSet::new());
    let mut entries = names(&sets);
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
    let numbers: BTreeSet<String> = entries
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
fn open_to(fault: &Rc<Fault>, how: How, dir: &Path) -> Result<OutputDirectory, Error> {
    fault.arm(how);
    let fault = fault.clone();
    let group = Default::default();
    OutputDirectory::open_on(Fs { group, fault }, dir)
}

fn open(dir: &Path) -> OutputDirectory {
    free(|| OutputDirectory::open(dir)).unwrap()
}

fn publish(publisher: &mut OutputDirectory, text: &str) -> Option<Published> {
    publisher.publish(&set(text)).unwrap()
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

// ---- The rules ----

#[test]
fn publishes_into_a_directory_that_does_not_exist() {
    let temp = tempdir();
    let dir = temp.path().join("a/b");
    let mut publisher = open(&dir);
    assert!(!dir.join("current").exists());
    let published = publish(&mut publisher, "rds.yaml=1 cds.yaml=2").unwrap();
    assert_eq!(published.number, 1);
    assert_eq!(list(&published.changed), ["cds.yaml", "rds.yaml"]);
    assert!(published.removed.is_empty() && published.unswept.is_none());
    tidy(&dir, &set("rds.yaml=1 cds.yaml=2"));
}

#[test]
fn does_nothing_for_an_equal_set() {
    let temp = tempdir();
    let mut publisher = open(temp.path());
    publish(&mut publisher, "rds.yaml=1 cds.yaml=2 empty.yaml=");
    rearm(&publisher);
    assert!(publish(&mut publisher, "rds.yaml=1 cds.yaml=2 empty.yaml=").is_none());
    let log = publisher.disk.fault.log.borrow();
    assert!(
        log.iter()
            .all(|(verb, _)| ["look at", "open", "read"].contains(verb)),
        "{log:?}"
    );
}

#[test]
fn does_nothing_for_an_equal_set_after_a_restart() {
    let temp = tempdir();
    publish(&mut open(temp.path()), "rds.yaml=1 cds.yaml=2");
    let mut publisher = open(temp.path());
    assert!(publish(&mut publisher, "rds.yaml=1 cds.yaml=2").is_none());
    assert_eq!(pokes(&publisher), [""; 0]);
}

#[test]
fn announces_what_changed_in_order_and_current_last() {
    let temp = tempdir();
    let mut publisher = open(temp.path());
    publish(
        &mut publisher,
        "a=1 cds.yaml=1 eds.yaml=1 lds.yaml=1 rds.yaml=1 sds.yaml=1 same=1",
    );
    let order = [
        "cds.yaml", "eds.yaml", "sds.yaml", "lds.yaml", "rds.yaml", "a", "same", "current",
    ];
    assert_eq!(pokes(&publisher), order);
    rearm(&publisher);
    let text = "a=2 cds.yaml=2 eds.yaml=1 lds.yaml=2 rds.yaml=2 new=2 same=1";
    let published = publish(&mut publisher, text).unwrap();
    assert_eq!(
        list(&published.changed),
        ["a", "cds.yaml", "lds.yaml", "new", "rds.yaml"]
    );
    assert_eq!(list(&published.removed), ["sds.yaml"]);
    assert_eq!(
        pokes(&publisher),
        ["cds.yaml", "lds.yaml", "rds.yaml", "a", "new", "current"]
    );
    assert_eq!(calls(&publisher, "link"), 2);
    tidy(temp.path(), &set(text));
}

#[test]
fn makes_every_link_before_the_commit_and_syncs_after_the_announcement() {
    let temp = tempdir();
    let mut publisher = open(temp.path());
    publish(&mut publisher, "cds.yaml=1 rds.yaml=1");
    rearm(&publisher);
    publish(&mut publisher, "cds.yaml=2 new.yaml=2");
    let log = publisher.disk.fault.log.borrow();
    let at = |path: &Path| {
        log.iter()
            .position(|(verb, on)| *verb == "replace" && on == path)
            .unwrap()
    };
    let (commit, last) = (at(&publisher.at.active), at(&publisher.at.current));
    let made = |(verb, _): &(&str, PathBuf)| ["create", "write", "link"].contains(verb);
    assert!(!log[commit..=last].iter().any(made), "{log:?}");
    assert!(
        !log[..last].iter().any(|(verb, _)| *verb == "sync"),
        "{log:?}"
    );
    assert!(
        log[commit..=last]
            .iter()
            .all(|(verb, _)| *verb == "replace"),
        "{log:?}"
    );
    let synced: Vec<_> = log.iter().filter(|(verb, _)| *verb == "sync").collect();
    assert_eq!(
        synced.len(),
        2 + 1 + 3,
        "two files, sources, the set, .sets twice: {synced:?}"
    );
    let done = at(&publisher.at.done);
    let is_sync = |at: &usize| log[*at].0 == "sync";
    assert_eq!((last..done).filter(is_sync).count(), 5);
    assert!(
        (last + 1..=done + 1).all(|at| at == done || log[at].0 != "replace"),
        "{log:?}"
    );
}

#[test]
fn a_key_that_moves_to_another_configmap_is_a_set_without_pokes() {
    let temp = tempdir();
    let mut publisher = open(temp.path());
    publish(&mut publisher, "rds.yaml=1@a cds.yaml=1@a");
    rearm(&publisher);
    let published = publish(&mut publisher, "rds.yaml=1@b cds.yaml=1@a").unwrap();
    assert_eq!((published.number, list(&published.changed)), (2, vec![]));
    assert_eq!(pokes(&publisher), [""; 0]);
    drop(publisher);
    let whole = open(temp.path()).last_good().unwrap().unwrap();
    assert_eq!(whole, set("rds.yaml=1@b cds.yaml=1@a"));
}

#[test]
fn a_sync_that_fails_is_made_up_for_without_pokes() {
    let temp = tempdir();
    let mut publisher = open(temp.path());
    publish(&mut publisher, "rds.yaml=1 cds.yaml=1");
    publisher.disk.fault.arm(How::Each("sync", EIO));
    publisher.publish(&set("rds.yaml=2")).unwrap_err();
    assert_eq!(pokes(&publisher), ["rds.yaml", "current"]);
    rearm(&publisher);
    assert!(publish(&mut publisher, "rds.yaml=2").is_none());
    assert_eq!(pokes(&publisher), [""; 0]);
    tidy(temp.path(), &set("rds.yaml=2"));
}

#[test]
fn what_waits_to_be_synced_is_carried_over_and_synced_with_what_comes_after() {
    let temp = tempdir();
    let mut publisher = open(temp.path());
    publish(&mut publisher, "rds.yaml=1 cds.yaml=1 lds.yaml=1");
    rearm(&publisher);
    for text in [
        "rds.yaml=2 cds.yaml=1 lds.yaml=1",
        "rds.yaml=2 cds.yaml=2 lds.yaml=1",
    ] {
        publisher.publish_now(&set(text)).unwrap().unwrap();
        assert!(
            publisher.publish_now(&set(text)).unwrap().is_none(),
            "{text}"
        );
        assert_eq!(publisher.last_good().unwrap().unwrap(), set(text));
    }
    assert_eq!(
        (calls(&publisher, "sync"), calls(&publisher, "link")),
        (0, 4)
    );
    publisher.make_durable().unwrap();
    // Both files that are new, sources, the set, .sets twice.
    assert_eq!(calls(&publisher, "sync"), 2 + 1 + 3);
    publisher.make_durable().unwrap();
    assert_eq!(calls(&publisher, "sync"), 2 + 1 + 3);
    tidy(temp.path(), &set("rds.yaml=2 cds.yaml=2 lds.yaml=1"));
}

#[test]
fn a_set_that_was_never_synced_is_written_and_announced_again_by_the_next_life() {
    let temp = tempdir();
    let mut publisher = open(temp.path());
    publish(&mut publisher, "rds.yaml=1 cds.yaml=1");
    publisher
        .publish_now(&set("rds.yaml=2 cds.yaml=1"))
        .unwrap()
        .unwrap();
    drop(publisher);
    let mut next = open(temp.path());
    assert_eq!(
        next.last_good().unwrap().unwrap(),
        set("rds.yaml=2 cds.yaml=1")
    );
    publish(&mut next, "rds.yaml=2 cds.yaml=1").unwrap();
    assert_eq!(pokes(&next), ["cds.yaml", "rds.yaml", "current"]);
    assert_eq!(calls(&next, "link"), 0, "nothing of it is carried over");
    tidy(temp.path(), &set("rds.yaml=2 cds.yaml=1"));
}

#[test]
fn current_alone_is_announced_where_that_is_owed() {
    let temp = tempdir();
    let mut publisher = open(temp.path());
    publish(&mut publisher, "rds.yaml=1 cds.yaml=1");
    rearm(&publisher);
    let published = publish(&mut publisher, "rds.yaml=1").unwrap();
    assert_eq!(
        (list(&published.changed), list(&published.removed)),
        (vec![], vec!["cds.yaml"])
    );
    assert_eq!(pokes(&publisher), ["current"]);
    let log = publisher.disk.fault.log.take();
    let nth = log
        .iter()
        .position(|(_, path)| path == &publisher.at.current)
        .unwrap();
    publish(&mut publisher, "rds.yaml=1 cds.yaml=1");
    publisher.disk.fault.arm(How::Once(nth as u64 + 1, EIO));
    publisher.publish(&set("rds.yaml=1")).unwrap_err();
    assert_eq!(pokes(&publisher), [""; 0]);
    rearm(&publisher);
    let published = publish(&mut publisher, "rds.yaml=1").unwrap();
    assert_eq!(list(&published.removed), ["cds.yaml"]);
    assert_eq!(pokes(&publisher), ["current"]);
    tidy(temp.path(), &set("rds.yaml=1"));
}

#[test]
fn a_directory_with_something_in_it_is_an_error_that_names_it() {
    for path in [".live/rds.yaml", ".sets/active", ".sets/done"] {
        let temp = tempdir();
        let mut publisher = open(temp.path());
        let path = temp.path().join(path);
        fs::create_dir_all(path.join("precious")).unwrap();
        for n in 0..9 {
            let error = publisher
                .publish(&set(&format!("rds.yaml={n}")))
                .unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("failed to remove {}", path.display())
            );
        }
        assert!(path.join("precious").exists());
        assert!(names(&temp.path().join(".sets")).len() < 16);
        fs::remove_dir_all(path).unwrap();
        publish(&mut publisher, "rds.yaml=9");
        tidy(temp.path(), &set("rds.yaml=9"));
    }
}

#[test]
fn another_resource_version_alone_is_no_change() {
    let temp = tempdir();
    let mut publisher = open(temp.path());
    let mut files = set("rds.yaml=1");
    publisher.publish(&files).unwrap();
    for file in files.values_mut() {
        let mut origin = (*file.origin).clone();
        origin.resource_version = ResourceVersion("8".into());
        file.origin = Rc::new(origin);
    }
    assert!(publisher.publish(&files).unwrap().is_none());
}

#[test]
fn keys_named_like_parts_of_the_layout_work() {
    let temp = tempdir();
    let long = "k".repeat(253);
    let keys = [
        "active",
        "current",
        ".lock",
        ".hidden",
        "0000000001",
        "done",
        "42",
        "42.sources",
        ".links",
        ".live",
        ".sets",
        "1",
        "1.sources",
        &long,
    ];
    let text = |value: &str| keys.map(|key| format!("{key}={value}")).join(" ");
    let mut publisher = open(temp.path());
    publish(&mut publisher, &text("1"));
    tidy(temp.path(), &set(&text("1")));
    publish(&mut publisher, &text("2"));
    tidy(temp.path(), &set(&text("2")));
    drop(publisher);
    let mut publisher = open(temp.path());
    assert_eq!(publisher.last_good().unwrap().unwrap(), set(&text("2")));
    assert!(publish(&mut publisher, &text("2")).is_none());
    publish(&mut publisher, "active=3");
    tidy(temp.path(), &set("active=3"));
}

#[test]
fn keeps_three_older_sets() {
    let temp = tempdir();
    let mut publisher = open(temp.path());
    for n in 1..=9 {
        publish(&mut publisher, &format!("rds.yaml={n} cds.yaml=1"));
    }
    let sets = names(&temp.path().join(".sets"));
    let want = [
        "6",
        "6.sources",
        "7",
        "7.sources",
        "8",
        "8.sources",
        "9",
        "9.sources",
    ];
    assert_eq!(
        sets.iter()
            .filter(|name| layout::number(&name[..1]).is_some())
            .count(),
        want.len()
    );
    assert!(want.iter().all(|name| sets.contains(*name)));
    drop(publisher);
    // Another life does not know what is in them.
    publish(&mut open(temp.path()), "rds.yaml=10");
    assert!(!temp.path().join(".sets/6").exists() && temp.path().join(".sets/7").exists());
}

#[test]
fn sources_say_which_configmap_each_file_came_from() {
    let temp = tempdir();
    publish(&mut open(temp.path()), "rds.yaml=one@web cds.yaml=two");
    let text = fs::read_to_string(temp.path().join(".sets/1.sources")).unwrap();
    let want = r#"{
  "cds.yaml": {"namespace":"default","name":"envoy","uid":"1-2-3","resourceVersion":"7","size":3,"hash":9078812844214499945},
  "rds.yaml": {"namespace":"default","name":"web","uid":"1-2-3","resourceVersion":"7","size":3,"hash":9277264822378984321}
}
"#;
    assert_eq!(text, want);
}

#[test]
fn whole_set_is_none_where_anything_is_missing_or_not_ours() {
    let spoil: [fn(&Path); 7] = [
        |sets| fs::write(sets.join("1/rds.yaml"), "2").unwrap(),
        |sets| fs::remove_file(sets.join("1.sources")).unwrap(),
        |sets| fs::write(sets.join("1.sources"), "{").unwrap(),
        |sets| fs::write(sets.join("1/rds.yaml"), "").unwrap(),
        |sets| fs::remove_file(sets.join("1/rds.yaml")).unwrap(),
        |sets| {
            let text = fs::read_to_string(sets.join("1.sources")).unwrap();
            fs::write(
                sets.join("1.sources"),
                text.replace("rds.yaml", "../1/rds.yaml"),
            )
            .unwrap();
        },
        |sets| {
            fs::rename(sets.join("1/rds.yaml"), sets.join("1/x")).unwrap();
            symlink("x", sets.join("1/rds.yaml")).unwrap();
        },
    ];
    for (which, spoil) in spoil.iter().enumerate() {
        let temp = tempdir();
        publish(&mut open(temp.path()), "rds.yaml=1");
        spoil(&temp.path().join(".sets"));
        let mut publisher = open(temp.path());
        assert_eq!(publisher.last_good().unwrap(), None, "{which}");
        publish(&mut publisher, "rds.yaml=1").unwrap();
        assert_eq!(pokes(&publisher), ["rds.yaml", "current"], "{which}");
        tidy(temp.path(), &set("rds.yaml=1"));
    }
}

#[test]
fn whole_set_is_what_a_killed_change_has_made_visible_if_it_is_all_there() {
    for (first, newer) in [
        (Some("rds.yaml=1"), true),
        (None, true),
        (Some("a=1"), false),
    ] {
        let temp = tempdir();
        if let Some(first) = first {
            publish(&mut open(temp.path()), first);
        }
        let mut publisher = open(temp.path());
        publisher.disk.fault.arm(How::Each("sync", EIO));
        publisher.publish(&set("rds.yaml=2")).unwrap_err();
        drop(publisher);
        assert_eq!(seen(temp.path()), contents(&set("rds.yaml=2")));
        if !newer {
            // A version that writes no hash: what was never synced may be torn.
            let sources = temp.path().join(".sets/2.sources");
            let text = fs::read_to_string(&sources).unwrap();
            let (head, _) = text.split_once(",\"hash\"").unwrap();
            fs::write(&sources, format!("{head}}}}}")).unwrap();
        }
        let want = if newer { Some("rds.yaml=2") } else { first };
        let mut next = open(temp.path());
        for _ in 0..2 {
            assert_eq!(next.last_good().unwrap(), want.map(set));
            assert_eq!(seen(temp.path()), contents(&set("rds.yaml=2")));
            next.check().unwrap();
        }
        // It is not known whether Envoy was told.
        rearm(&next);
        publish(&mut next, "rds.yaml=2").unwrap();
        assert_eq!(pokes(&next), ["rds.yaml", "current"]);
    }
}

#[test]
fn whole_set_needs_no_link_done() {
    let temp = tempdir();
    publish(&mut open(temp.path()), "rds.yaml=1");
    fs::remove_file(temp.path().join(".sets/done")).unwrap();
    let mut publisher = open(temp.path());
    assert_eq!(publisher.last_good().unwrap().unwrap(), set("rds.yaml=1"));
    publish(&mut publisher, "rds.yaml=1").unwrap();
    tidy(temp.path(), &set("rds.yaml=1"));
}

#[test]
fn a_second_publisher_is_told_that_the_directory_is_held() {
    let temp = tempdir();
    let first = open(temp.path());
    match OutputDirectory::open(temp.path()) {
        Err(Error::Held { path }) => assert_eq!(path, temp.path().join(".sets/.lock")),
        other => panic!("{other:?}"),
    }
    drop(first);
    open(temp.path());
}

#[test]
fn an_error_names_the_call_and_the_path() {
    let temp = tempdir();
    fs::write(temp.path().join("file"), "").unwrap();
    let error = OutputDirectory::open(&temp.path().join("file")).unwrap_err();
    let text = error.to_string();
    assert!(
        text.starts_with("failed to create ") && text.ends_with("/file/.sets"),
        "{text}"
    );

    let mut publisher = open(temp.path());
    publisher.disk.fault.arm(How::Each("create", EACCES));
    let error = publisher.publish(&set("rds.yaml=1")).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("failed to create {}/.sets/1", temp.path().display())
    );
}

/// The names of the links that were made ahead.
fn prepared_links(publisher: &OutputDirectory) -> BTreeSet<String> {
    let links = publisher.prepared_links.iter().map(|(_, link)| link);
    links
        .map(|link| link.file_name().unwrap().to_str().unwrap().to_owned())
        .collect()
}

#[test]
fn what_is_made_ahead_leaves_envoy_to_wait_for_what_is_new_alone() {
    let temp = tempdir();
    let mut publisher = open(temp.path());
    publish(&mut publisher, "rds.yaml=1 cds.yaml=1");
    for number in ["2", "3", "4"] {
        publisher.prepare();
        rearm(&publisher);
        publisher.prepare();
        assert_eq!(*publisher.disk.fault.log.borrow(), [], "all is there");
        publish(&mut publisher, &format!("rds.yaml={number} cds.yaml=1"));
        let log = publisher.disk.fault.log.borrow();
        let announced = log
            .iter()
            .position(|(verb, on)| *verb == "replace" && *on == publisher.at.current);
        let made = log[..announced.unwrap()].iter();
        let made: Vec<_> = made
            .filter(|(verb, _)| *verb == "create")
            .map(|(_, path)| path.strip_prefix(&publisher.at.sets).unwrap())
            .collect();
        let new = [format!("{number}/rds.yaml"), format!("{number}.sources")];
        assert_eq!(made, [Path::new(&new[0]), Path::new(&new[1])]);
    }
    drop(publisher);
    drop(open(temp.path()));
    tidy(temp.path(), &set("rds.yaml=4 cds.yaml=1"));
}

#[test]
fn what_is_made_ahead_is_kept_by_a_check_and_not_by_the_next_life() {
    let temp = tempdir();
    let mut publisher = open(temp.path());
    publish(&mut publisher, "rds.yaml=1");
    publisher.prepare();
    assert_eq!(prepared_links(&publisher).len(), 3);
    rearm(&publisher);
    assert!(!publisher.check().unwrap());
    publisher.prepare();
    let looks = ["look at", "read link", "list", "open", "read"];
    let log = std::mem::take(&mut *publisher.disk.fault.log.borrow_mut());
    assert!(log.iter().all(|(verb, _)| looks.contains(verb)), "{log:?}");
    assert_eq!(names(&publisher.at.links), prepared_links(&publisher));
    assert!(publisher.at.set(2).exists());
    drop(publisher);
    drop(open(temp.path()));
    tidy(temp.path(), &set("rds.yaml=1"));
}

#[test]
fn what_others_did_to_what_was_made_ahead_is_made_good() {
    let harm: Vec<Harm> = vec![
        (
            "set gone",
            Box::new(|at| fs::remove_dir(at.join("2")).unwrap()),
        ),
        (
            "set closed",
            Box::new(|at| {
                fs::remove_dir(at.join("2")).unwrap();
                fs::write(at.join("2"), "no set").unwrap();
            }),
        ),
        (
            "set used",
            Box::new(|at| fs::write(at.join("2/rds.yaml"), "foreign").unwrap()),
        ),
        (
            "links gone",
            Box::new(|at| {
                fs::remove_dir_all(at.join(".links")).unwrap();
                fs::create_dir(at.join(".links")).unwrap();
            }),
        ),
    ];
    for (what, harm) in harm {
        for checked in [false, true] {
            let temp = tempdir();
            let mut publisher = open(temp.path());
            publish(&mut publisher, "rds.yaml=1");
            publisher.prepare();
            harm(&publisher.at.sets);
            if checked {
                publisher.check().unwrap();
            }
            let want = set("rds.yaml=2");
            let first = publisher.publish(&want);
            assert!(
                first.is_ok() || publisher.publish(&want).unwrap().is_some(),
                "{what}"
            );
            assert_eq!(seen(temp.path()), contents(&want), "{what}");
            publisher.prepare();
            drop(publisher);
            drop(open(temp.path()));
            tidy(temp.path(), &want);
        }
    }
}

#[test]
fn modes_do_not_depend_on_the_umask() {
    const DIR: &str = "crossover_TEST_UMASK_DIR";
    if let Some(dir) = std::env::var_os(DIR) {
        let mut publisher = open(Path::new(&dir));
        publish(&mut publisher, "rds.yaml=1 cds.yaml=1");
        publish(&mut publisher, "rds.yaml=2 cds.yaml=1");
        return;
    }
    let temp = tempdir();
    for mask in ["077", "000", "022", "277"] {
        let top = temp.path().join(mask);
        let dir = top.join("b");
        let status = Command::new("sh")
            .args([
                "-c",
                "umask $1; exec \"$0\" --exact output::directory::tests::modes_do_not_depend_on_the_umask",
            ])
            .arg(std::env::current_exe().unwrap())
            .arg(mask)
            .env(DIR, &dir)
            .output()
            .unwrap();
        assert!(status.status.success(), "{status:?}");
        for path in [
            ".",
            "b",
            "b/.live",
            "b/.sets",
            "b/.sets/.links",
            "b/.sets/2",
        ] {
            assert_eq!(mode(&top.join(path)), 0o755, "{path} under {mask}");
        }
        for path in ["2/rds.yaml", "2/cds.yaml", "2.sources"] {
            assert_eq!(
                mode(&dir.join(".sets").join(path)),
                0o644,
                "{path} under {mask}"
            );
        }
        let linked = fs::metadata(dir.join(".sets/2/cds.yaml")).unwrap();
        assert_eq!(
            linked.ino(),
            fs::metadata(dir.join(".sets/1/cds.yaml")).unwrap().ino()
        );
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

type Harm = (&'static str, Box<dyn Fn(&Path)>);

#[test]
fn heals_what_others_did_to_the_layout() {
    // What was never synced has no link `done`.
    let remove = |path: PathBuf| assert!(fs::remove_file(&path).is_ok() || path.ends_with("done"));
    let harm: Vec<Harm> = vec![
        (
            "link gone",
            Box::new(move |dir| remove(dir.join(".live/rds.yaml"))),
        ),
        (
            "current gone",
            Box::new(move |dir| remove(dir.join("current"))),
        ),
        (
            "active gone",
            Box::new(move |dir| remove(dir.join(".sets/active"))),
        ),
        (
            "done gone",
            Box::new(move |dir| remove(dir.join(".sets/done"))),
        ),
        (
            "file gone",
            Box::new(move |dir| remove(dir.join(".sets/1/rds.yaml"))),
        ),
        (
            "sources gone",
            Box::new(move |dir| remove(dir.join(".sets/1.sources"))),
        ),
        (
            "lock gone",
            Box::new(move |dir| remove(dir.join(".sets/.lock"))),
        ),
        (
            "sets gone",
            Box::new(|dir| fs::remove_dir_all(dir.join(".sets")).unwrap()),
        ),
        (
            "links gone",
            Box::new(|dir| fs::remove_dir_all(dir.join(".sets/.links")).unwrap()),
        ),
        (
            "live gone",
            Box::new(|dir| fs::remove_dir_all(dir.join(".live")).unwrap()),
        ),
        ("all gone", Box::new(|dir| fs::remove_dir_all(dir).unwrap())),
        (
            "all elsewhere",
            Box::new(|dir| fs::rename(dir, dir.with_extension("away")).unwrap()),
        ),
        (
            "unreadable",
            Box::new(|dir| {
                let path = dir.join(".sets/1/rds.yaml");
                fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
            }),
        ),
        (
            "closed",
            Box::new(|dir| {
                fs::set_permissions(dir.join(".live"), fs::Permissions::from_mode(0o700)).unwrap();
            }),
        ),
        (
            "edited link",
            Box::new(move |dir| {
                remove(dir.join(".live/rds.yaml"));
                fs::write(dir.join(".live/rds.yaml"), "edited").unwrap();
            }),
        ),
        (
            "foreign link",
            Box::new(move |dir| {
                remove(dir.join(".live/rds.yaml"));
                symlink("/etc/hostname", dir.join(".live/rds.yaml")).unwrap();
            }),
        ),
        (
            "dangling link",
            Box::new(move |dir| {
                remove(dir.join(".live/rds.yaml"));
                symlink("/nowhere", dir.join(".live/rds.yaml")).unwrap();
            }),
        ),
        (
            "empty directory for a link",
            Box::new(move |dir| {
                remove(dir.join(".live/rds.yaml"));
                fs::create_dir(dir.join(".live/rds.yaml")).unwrap();
            }),
        ),
        (
            "foreign current",
            Box::new(move |dir| {
                remove(dir.join("current"));
                symlink("/etc", dir.join("current")).unwrap();
            }),
        ),
        (
            "current a file",
            Box::new(move |dir| {
                remove(dir.join("current"));
                fs::write(dir.join("current"), "").unwrap();
            }),
        ),
        (
            "current a directory",
            Box::new(move |dir| {
                remove(dir.join("current"));
                fs::create_dir(dir.join("current")).unwrap();
                fs::write(dir.join("current/rds.yaml"), "foreign").unwrap();
            }),
        ),
        (
            "foreign active",
            Box::new(move |dir| {
                remove(dir.join(".sets/active"));
                symlink("/etc", dir.join(".sets/active")).unwrap();
            }),
        ),
        (
            "active a directory",
            Box::new(move |dir| {
                remove(dir.join(".sets/active"));
                fs::create_dir(dir.join(".sets/active")).unwrap();
            }),
        ),
        (
            "live a link",
            Box::new(|dir| {
                fs::rename(dir.join(".live"), dir.with_extension("away")).unwrap();
                symlink(dir.with_extension("away"), dir.join(".live")).unwrap();
            }),
        ),
        (
            "a set's file a directory",
            Box::new(move |dir| {
                remove(dir.join(".sets/1/rds.yaml"));
                fs::create_dir(dir.join(".sets/1/rds.yaml")).unwrap();
            }),
        ),
        (
            "a set a link",
            Box::new(|dir| {
                fs::rename(dir.join(".sets/1"), dir.with_extension("away")).unwrap();
                symlink(dir.with_extension("away"), dir.join(".sets/1")).unwrap();
            }),
        ),
    ];
    for (what, harm) in harm {
        for (synced, restart) in [(true, false), (true, true), (false, false)] {
            let temp = tempdir();
            let dir = temp.path().join("x");
            let want = "rds.yaml=1 cds.yaml=1";
            let mut publisher = open(&dir);
            publisher.publish_now(&set(want)).unwrap();
            if synced {
                assert!(!publisher.check().unwrap());
            }
            harm(&dir);
            if restart {
                drop(publisher);
                publisher = open(&dir);
            } else {
                let is_amiss = publisher.check().unwrap();
                assert!(is_amiss || (what == "done gone" && !synced), "{what}");
            }
            publish(&mut publisher, want);
            tidy(&dir, &set(want));
            assert!(!publisher.check().unwrap(), "{what}");
            assert!(publish(&mut publisher, want).is_none(), "{what}");
            assert!(
                matches!(OutputDirectory::open(&dir), Err(Error::Held { .. })),
                "{what}"
            );
            assert!(Path::new("/etc/hostname").exists());
            for n in 2..9 {
                publish(&mut publisher, &format!("rds.yaml={n}"));
            }
            tidy(&dir, &set("rds.yaml=8"));
        }
    }
}

#[test]
fn heals_a_file_that_somebody_edited_in_place() {
    for edited in ["2", "11", ""] {
        let temp = tempdir();
        let mut publisher = open(temp.path());
        publish(&mut publisher, "rds.yaml=1 cds.yaml=1");
        fs::write(temp.path().join("current/rds.yaml"), edited).unwrap();
        let published = publish(&mut publisher, "rds.yaml=1 cds.yaml=1").unwrap();
        assert_eq!(list(&published.changed), ["rds.yaml"]);
        tidy(temp.path(), &set("rds.yaml=1 cds.yaml=1"));
    }
}

#[test]
fn reads_what_is_held_once_and_again_when_somebody_wrote_to_it() {
    let temp = tempdir();
    let mut publisher = open(temp.path());
    let want = set("rds.yaml=1 cds.yaml=1");
    let held = want.clone();
    let reads = |publisher: &mut OutputDirectory| {
        rearm(publisher);
        assert!(publisher.publish(&want).unwrap().is_none());
        calls(publisher, "read")
    };
    publisher.publish(&want).unwrap();
    assert_eq!([reads(&mut publisher), reads(&mut publisher)], [2, 0]);

    let edited = temp.path().join("current/rds.yaml");
    let written = || fs::metadata(&edited).unwrap().modified().unwrap();
    let before = written();
    // A file system's clock has ticks.
    while written() == before {
        fs::write(&edited, "2").unwrap();
    }
    let healed = publisher.publish(&want).unwrap().unwrap();
    assert_eq!(list(&healed.changed), ["rds.yaml"]);
    tidy(temp.path(), &held);
    // What is known of the other one went with its link.
    assert_eq!([reads(&mut publisher), reads(&mut publisher)], [1, 0]);
}

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

#[test]
fn a_look_finds_an_edit_of_the_same_length_and_heals_that_file_alone() {
    let temp = tempdir();
    let want = "rds.yaml=1 cds.yaml=1 lds.yaml=1";
    let mut publisher = open(temp.path());
    publish(&mut publisher, want);
    for synced in [true, false] {
        for restart in [false, true] {
            if restart {
                drop(publisher);
                publisher = open(temp.path());
            }
            if !synced {
                let other = set("rds.yaml=0 cds.yaml=1 lds.yaml=1");
                publisher.publish(&other).unwrap().unwrap();
                publisher.publish_now(&set(want)).unwrap().unwrap();
                publisher.disk.fault.arm(How::Each("sync", EIO));
            }
            assert!(!publisher.check().unwrap());
            edit(&temp.path().join("current/rds.yaml"), "2");
            assert!(publisher.check().unwrap(), "{synced} {restart}");
            // It is told of once.
            assert!(!publisher.check().unwrap());
            rearm(&publisher);
            let published = publish(&mut publisher, want).unwrap();
            assert_eq!(list(&published.changed), ["rds.yaml"]);
            assert_eq!(pokes(&publisher), ["rds.yaml", "current"]);
            assert_eq!(calls(&publisher, "link"), 2);
            tidy(temp.path(), &set(want));
            assert!(!publisher.check().unwrap());
        }
    }
}

#[test]
fn an_edit_of_the_same_length_between_two_lives_is_not_what_was_published() {
    let temp = tempdir();
    publish(&mut open(temp.path()), "rds.yaml=1 cds.yaml=1");
    edit(&temp.path().join("current/rds.yaml"), "2");
    let mut publisher = open(temp.path());
    assert_eq!(publisher.last_good().unwrap(), None);
    publish(&mut publisher, "rds.yaml=1 cds.yaml=1").unwrap();
    assert_eq!(pokes(&publisher), ["rds.yaml", "current"]);
    tidy(temp.path(), &set("rds.yaml=1 cds.yaml=1"));
}

#[test]
fn a_torn_set_does_not_give_way_to_an_older_one_that_shares_an_edited_file() {
    let temp = tempdir();
    publish(&mut open(temp.path()), "rds.yaml=1 cds.yaml=1 lds.yaml=1");
    let mut publisher = open(temp.path());
    let next = set("rds.yaml=2 cds.yaml=1 lds.yaml=1");
    publisher.publish_now(&next).unwrap().unwrap();
    drop(publisher);
    fs::remove_file(temp.path().join("current/lds.yaml")).unwrap();
    edit(&temp.path().join("current/cds.yaml"), "2");
    let before = seen(temp.path());
    let publisher = open(temp.path());
    assert_eq!(publisher.last_good().unwrap(), None);
    assert_eq!(seen(temp.path()), before);
}

#[test]
fn what_changes_no_byte_is_no_edit() {
    // As a relabelling, an fsGroup, a backup and our own links do.
    let harm: [fn(&Path); 4] = [
        |file| fs::set_permissions(file, fs::Permissions::from_mode(0o664)).unwrap(),
        |file| std::os::unix::fs::chown(file, None, Some(1234)).unwrap(),
        |file| fs::hard_link(file, file.with_extension("link")).unwrap(),
        |file| {
            let file = fs::File::open(file).unwrap();
            file.set_modified(std::time::SystemTime::UNIX_EPOCH)
                .unwrap();
        },
    ];
    let want = set("rds.yaml=1 cds.yaml=1");
    for harm in harm {
        for restart in [false, true] {
            let temp = tempdir();
            let mut publisher = open(temp.path());
            publisher.publish(&want).unwrap();
            assert!(!publisher.check().unwrap());
            for name in ["rds.yaml", "cds.yaml"] {
                harm(&temp.path().join(".sets/1").join(name));
            }
            if restart {
                drop(publisher);
                publisher = open(temp.path());
            }
            assert_eq!(publisher.last_good().unwrap().unwrap(), want);
            rearm(&publisher);
            assert!(!publisher.check().unwrap());
            // N.sources, and each file once: a restart has read it.
            let reads = calls(&publisher, "open");
            assert_eq!(reads, if restart { 1 } else { 3 });
            rearm(&publisher);
            assert!(!publisher.check().unwrap());
            assert_eq!(calls(&publisher, "open"), 1);
            assert!(publisher.publish(&want).unwrap().is_none());
            publish(&mut publisher, "rds.yaml=2 cds.yaml=1").unwrap();
            assert_eq!(calls(&publisher, "link"), 1);
            drop(publisher);
            // What else stands in a set goes with it.
            drop(open(temp.path()));
            tidy(temp.path(), &set("rds.yaml=2 cds.yaml=1"));
        }
    }
}

#[test]
fn sources_may_be_as_long_as_their_set_makes_them_and_no_longer() {
    let temp = tempdir();
    // Two ConfigMaps of as many keys as fit into an object of 1.5 MiB, with names of full length.
    let long = "n".repeat(245);
    let keys = (0..13_000).map(|n| format!("{n}=1@{long}"));
    let keys: Vec<_> = keys.collect();
    let want = set(&keys.join(" "));
    let mut publisher = open(temp.path());
    publisher.publish(&want).unwrap();
    let sources = temp.path().join(".sets/1.sources");
    assert!(fs::metadata(&sources).unwrap().len() > 4 << 20);
    drop(publisher);
    let mut publisher = open(temp.path());
    assert!(publisher.last_good().unwrap().unwrap() == want);
    assert!(!publisher.check().unwrap());
    assert!(publisher.publish(&want).unwrap().is_none());
    drop(publisher);
    // A hole that no memory holds.
    let file = fs::File::options().write(true).open(&sources).unwrap();
    file.set_len(1 << 40).unwrap();
    assert_eq!(open(temp.path()).last_good().unwrap(), None);
}

#[test]
fn foreign_links_that_lead_nowhere_go_and_what_is_no_file_stays() {
    let temp = tempdir();
    let want = set("rds.yaml=1");
    let nowhere = |dir: &Path| {
        symlink("/nowhere", dir.join("a.yaml")).unwrap();
        symlink("b.yaml", dir.join("b.yaml")).unwrap();
        symlink("..2026/c.yaml", dir.join("..data")).unwrap();
        symlink("../.sets/active/x/y", dir.join("c.yaml")).unwrap();
        let socket = dir.join("socket");
        drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
        symlink("/tmp", dir.join("envoy")).unwrap();
    };
    let left = ["envoy", "rds.yaml", "socket"];
    for taken_over in [false, true] {
        let dir = temp.path().join(format!("{taken_over}"));
        fs::create_dir(&dir).unwrap();
        if taken_over {
            fs::create_dir(dir.join("current")).unwrap();
            nowhere(&dir.join("current"));
        }
        let mut publisher = open(&dir);
        publisher.publish(&want).unwrap();
        if !taken_over {
            nowhere(&dir.join(".live"));
            assert!(!publisher.check().unwrap());
        }
        assert!(publisher.publish(&want).unwrap().is_none());
        let names = names(&dir.join("current"));
        assert_eq!(names, left.iter().map(|name| name.to_string()).collect());
    }
}

#[test]
fn compares_files_of_every_size_to_their_last_byte() {
    let temp = tempdir();
    let mut publisher = open(temp.path());
    for size in [
        1,
        16 * 1024 - 1,
        16 * 1024,
        16 * 1024 + 1,
        32 * 1024,
        100_000,
    ] {
        let big = format!("rds.yaml={}", "x".repeat(size));
        assert!(publish(&mut publisher, &big).is_some());
        assert!(publish(&mut publisher, &big).is_none());
        let longer = big.clone() + "y";
        assert!(publish(&mut publisher, &longer).is_some());
        assert!(publish(&mut publisher, &big).is_some());
        let other = big[..big.len() - 1].to_string() + "y";
        assert!(publish(&mut publisher, &other).is_some());
        assert!(publish(&mut publisher, &other).is_none());
    }
}

#[test]
fn a_foreign_pipe_or_socket_stops_nothing() {
    let temp = tempdir();
    let mut publisher = open(temp.path());
    publish(&mut publisher, "rds.yaml=1");
    fs::remove_file(temp.path().join(".sets/1/rds.yaml")).unwrap();
    let path = temp.path().join(".sets/1/rds.yaml");
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
    publish(&mut publisher, "rds.yaml=1").unwrap();
    tidy(temp.path(), &set("rds.yaml=1"));
}

#[test]
fn notices_another_holder_before_it_writes() {
    let temp = tempdir();
    let dir = temp.path().join("x");
    let mut first = open(&dir);
    publish(&mut first, "rds.yaml=1");
    fs::remove_dir_all(&dir).unwrap();
    let mut second = open(&dir);
    publish(&mut second, "rds.yaml=2");
    assert!(matches!(
        first.publish(&set("rds.yaml=3")),
        Err(Error::Held { .. })
    ));
    assert!(matches!(first.check(), Err(Error::Held { .. })));
    tidy(&dir, &set("rds.yaml=2"));
    drop(second);
    publish(&mut first, "rds.yaml=3");
    tidy(&dir, &set("rds.yaml=3"));
}

#[test]
fn a_publish_makes_a_removed_directory_again_at_once() {
    let temp = tempdir();
    let dir = temp.path().join("x");
    let mut publisher = open(&dir);
    publish(&mut publisher, "rds.yaml=1");
    fs::remove_dir_all(&dir).unwrap();
    publish(&mut publisher, "rds.yaml=1").unwrap();
    tidy(&dir, &set("rds.yaml=1"));
}

#[test]
fn files_that_are_not_ours_are_let_alone() {
    let temp = tempdir();
    let dir = temp.path();
    let mut publisher = open(dir);
    publish(&mut publisher, "rds.yaml=1");
    fs::write(dir.join("mine"), "").unwrap();
    fs::write(dir.join(".sets/README"), "").unwrap();
    fs::create_dir(dir.join(".sets/0000000007")).unwrap();
    fs::create_dir(dir.join(".sets/12345678901234567")).unwrap();
    fs::create_dir_all(dir.join("current/envoy/sub")).unwrap();
    assert!(!publisher.check().unwrap());
    publish(&mut publisher, "rds.yaml=2");
    drop(publisher);
    publish(&mut open(dir), "cds.yaml=3");
    for path in [
        "mine",
        ".sets/README",
        ".sets/0000000007",
        "current/envoy/sub",
    ] {
        assert!(dir.join(path).exists(), "{path}");
    }
    assert!(dir.join(".sets/12345678901234567").exists());
}

#[test]
fn a_full_disk_costs_the_old_sets_first() {
    let temp = tempdir();
    let mut publisher = open(temp.path());
    for n in 1..=5 {
        publish(&mut publisher, &format!("rds.yaml={n}"));
    }
    publisher.disk.fault.arm(How::Once(9, ENOSPC));
    publish(&mut publisher, "rds.yaml=6").unwrap();
    assert!(publisher.disk.fault.hit());
    assert!(!temp.path().join(".sets/4").exists() && temp.path().join(".sets/5").exists());
    tidy(temp.path(), &set("rds.yaml=6"));

    publisher.disk.fault.arm(How::Each("write", ENOSPC));
    let error = publisher.publish(&set("rds.yaml=7")).unwrap_err();
    assert!(is_full(&error));
    tidy(temp.path(), &set("rds.yaml=6"));
    rearm(&publisher);
    publish(&mut publisher, "rds.yaml=7").unwrap();
    tidy(temp.path(), &set("rds.yaml=7"));
}

#[test]
fn copies_where_it_cannot_link() {
    let temp = tempdir();
    let mut publisher = open(temp.path());
    publish(&mut publisher, "rds.yaml=1 cds.yaml=1");
    publisher.disk.fault.arm(How::Each("link", 1));
    publish(&mut publisher, "rds.yaml=2 cds.yaml=1").unwrap();
    assert_eq!(pokes(&publisher), ["rds.yaml", "current"]);
    tidy(temp.path(), &set("rds.yaml=2 cds.yaml=1"));
}

#[test]
fn sets_of_more_files_than_stay_open_are_synced_whole() {
    let temp = tempdir();
    let mut publisher = open(temp.path());
    let many: Vec<_> = (0..3 * 16).map(|n| format!("f{n}=1")).collect();
    publish(&mut publisher, &many.join(" "));
    assert_eq!(calls(&publisher, "sync"), 3 * 16 + 1 + 3);
    tidy(temp.path(), &set(&many.join(" ")));
}

#[test]
fn a_sweep_that_fails_is_told_and_made_up_for() {
    let temp = tempdir();
    let mut publisher = open(temp.path());
    for n in 1..=4 {
        publish(&mut publisher, &format!("rds.yaml={n}"));
    }
    publisher.disk.fault.arm(How::Each("remove", EIO));
    assert!(
        publish(&mut publisher, "rds.yaml=5")
            .unwrap()
            .unswept
            .is_some()
    );
    rearm(&publisher);
    assert!(
        publish(&mut publisher, "rds.yaml=6")
            .unwrap()
            .unswept
            .is_none()
    );
    tidy(temp.path(), &set("rds.yaml=6"));
}

#[test]
fn a_set_never_done_is_not_carried_over_nor_announced_before_it_is_rewritten() {
    let temp = tempdir();
    publish(&mut open(temp.path()), "rds.yaml=1 cds.yaml=1 lds.yaml=1");
    let mut publisher = open(temp.path());
    publisher.disk.fault.arm(How::Each("sync", EIO));
    publisher
        .publish(&set("rds.yaml=2 cds.yaml=2 lds.yaml=1"))
        .unwrap_err();
    drop(publisher);
    // Power was lost: the length is there, the bytes are not.
    let torn = fs::canonicalize(temp.path().join("current/rds.yaml")).unwrap();
    fs::write(&torn, "\0").unwrap();

    let mut publisher = open(temp.path());
    assert!(!publisher.check().unwrap());
    assert_eq!(pokes(&publisher), [""; 0]);
    publish(&mut publisher, "rds.yaml=2 cds.yaml=2 lds.yaml=1").unwrap();
    assert_eq!(calls(&publisher, "link"), 0);
    assert_eq!(
        pokes(&publisher),
        ["cds.yaml", "lds.yaml", "rds.yaml", "current"]
    );
    tidy(temp.path(), &set("rds.yaml=2 cds.yaml=2 lds.yaml=1"));
    assert_ne!(
        fs::canonicalize(temp.path().join("current/rds.yaml")).unwrap(),
        torn
    );
}

#[test]
fn a_set_that_is_seen_to_be_torn_gives_way_to_the_whole_one_before_it() {
    let old = "rds.yaml=1 cds.yaml=1 old=1";
    let new = "rds.yaml=22 cds.yaml=22 new=22";
    let torn: [Harm; 4] = [
        ("rds.yaml", Box::new(|path| fs::write(path, "").unwrap())),
        ("new", Box::new(|path| fs::remove_file(path).unwrap())),
        (
            "../2.sources",
            Box::new(|path| fs::write(path, "{\"rd").unwrap()),
        ),
        ("", Box::new(|path| fs::remove_dir_all(path).unwrap())),
    ];
    for (what, tear) in torn {
        let temp = tempdir();
        publish(&mut open(temp.path()), old);
        open(temp.path()).publish_now(&set(new)).unwrap().unwrap();
        assert_eq!(seen(temp.path()), contents(&set(new)));
        tear(&temp.path().join(".sets/2").join(what));

        let mut publisher = open(temp.path());
        assert_eq!(seen(temp.path()), contents(&set(old)), "{what}");
        assert_eq!(publisher.last_good().unwrap().unwrap(), set(old));
        assert_eq!(pokes(&publisher), [""; 0]);
        // Who knows what an Envoy has seen meanwhile: it is told of all.
        publish(&mut publisher, old).unwrap();
        assert_eq!(
            pokes(&publisher),
            ["cds.yaml", "rds.yaml", "old", "current"]
        );
        publish(&mut publisher, new).unwrap();
        tidy(temp.path(), &set(new));
    }
}

#[test]
fn a_kill_at_any_call_of_giving_way_leaves_the_torn_set_or_the_whole_one() {
    for n in 1.. {
        let temp = tempdir();
        publish(&mut open(temp.path()), "rds.yaml=1 old=1");
        let new = "rds.yaml=22 new=22";
        open(temp.path()).publish_now(&set(new)).unwrap().unwrap();
        fs::write(temp.path().join("current/rds.yaml"), "").unwrap();
        let torn = seen(temp.path());
        let old = contents(&set("rds.yaml=1 old=1"));
        let fault = Rc::new(Fault::default());
        drop(free(|| open_to(&fault, How::Kill(n), temp.path())));
        let now = seen(temp.path());
        assert!(now == torn || now == old, "call {n}: {now:?}");
        let mut publisher = open(temp.path());
        assert_eq!(seen(temp.path()), old, "call {n}");
        publish(&mut publisher, new).unwrap();
        tidy(temp.path(), &set(new));
        if !fault.hit() {
            assert!(n > 40, "{n}");
            break;
        }
    }
}

#[test]
fn a_torn_set_is_not_adopted_for_the_sake_of_a_foreign_file() {
    for directory in [false, true] {
        let temp = tempdir();
        publish(&mut open(temp.path()), "rds.yaml=1 cds.yaml=1");
        let mut publisher = open(temp.path());
        publisher.disk.fault.arm(How::Each("sync", EIO));
        publisher
            .publish(&set("rds.yaml=2 cds.yaml=2"))
            .unwrap_err();
        drop(publisher);
        let torn = fs::canonicalize(temp.path().join("current/rds.yaml")).unwrap();
        fs::write(&torn, "\0").unwrap();
        fs::remove_file(temp.path().join(".live/cds.yaml")).unwrap();
        fs::write(temp.path().join(".live/cds.yaml"), "foreign").unwrap();
        if directory {
            fs::remove_file(temp.path().join("current")).unwrap();
            fs::rename(temp.path().join(".live"), temp.path().join("current")).unwrap();
        }
        let mut publisher = open(temp.path());
        rearm(&publisher);
        let published = publish(&mut publisher, "rds.yaml=2 cds.yaml=2").unwrap();
        assert_eq!(published.number, if directory { 4 } else { 3 });
        tidy(temp.path(), &set("rds.yaml=2 cds.yaml=2"));
        for entry in fs::read_dir(temp.path().join(".sets")).unwrap() {
            let copy = entry.unwrap().path().join("rds.yaml");
            assert!(copy == torn || fs::read(copy).ok().as_deref() != Some(b"\0"));
        }
    }
}

#[test]
fn the_done_set_and_the_visible_one_outlive_every_sweep() {
    let temp = tempdir();
    let mut publisher = open(temp.path());
    publish(&mut publisher, "rds.yaml=0");
    for n in 1..12 {
        publisher.disk.fault.arm(How::Each("sync", EIO));
        publisher
            .publish(&set(&format!("rds.yaml={n}")))
            .unwrap_err();
    }
    drop(publisher);
    let mut publisher = open(temp.path());
    assert_eq!(publisher.last_good().unwrap().unwrap(), set("rds.yaml=11"));
    clean(temp.path(), 2 + OLDER);
    publisher.disk.fault.arm(How::Each("write", ENOSPC));
    publisher.publish(&set("rds.yaml=12")).unwrap_err();
    assert_eq!(seen(temp.path()), contents(&set("rds.yaml=11")));
    assert_eq!(publisher.last_good().unwrap().unwrap(), set("rds.yaml=11"));
    clean(temp.path(), 2);
    // The one that is done is what is left if the other turns out to be torn.
    fs::write(temp.path().join("current/rds.yaml"), "").unwrap();
    assert_eq!(publisher.last_good().unwrap().unwrap(), set("rds.yaml=0"));
}

#[test]
fn what_was_not_announced_is_announced_by_the_next_publish_and_no_more() {
    let temp = tempdir();
    let mut publisher = open(temp.path());
    publish(&mut publisher, "cds.yaml=1 lds.yaml=1 rds.yaml=1 z=1");
    rearm(&publisher);
    let text = "cds.yaml=2 lds.yaml=2 rds.yaml=2 z=1";
    publish(&mut publisher, text);
    let at = publisher
        .disk
        .fault
        .log
        .borrow()
        .iter()
        .position(|(_, path)| path.ends_with("lds.yaml") && path.starts_with(&publisher.at.live));
    assert!(at.is_some());
    let nth = at.unwrap() as u64 + 1;
    publisher.disk.fault.arm(How::Once(nth, EIO));
    publisher
        .publish(&set("cds.yaml=3 lds.yaml=3 rds.yaml=3 z=1"))
        .unwrap_err();
    assert!(publisher.disk.fault.hit());
    assert_eq!(pokes(&publisher), ["cds.yaml"]);
    rearm(&publisher);
    let published = publish(&mut publisher, "cds.yaml=3 lds.yaml=3 rds.yaml=3 z=1").unwrap();
    assert_eq!(pokes(&publisher), ["lds.yaml", "rds.yaml", "current"]);
    assert_eq!(list(&published.changed), ["lds.yaml", "rds.yaml"]);
    tidy(temp.path(), &set("cds.yaml=3 lds.yaml=3 rds.yaml=3 z=1"));
}

// ---- Taking over from the Go program ----

#[test]
fn takes_over_a_real_directory_and_keeps_its_inode() {
    let temp = tempdir();
    go(temp.path());
    fs::create_dir(temp.path().join("current/envoy")).unwrap();
    let closed = fs::Permissions::from_mode(0o700);
    fs::set_permissions(temp.path().join("current"), closed).unwrap();
    let before = fs::metadata(temp.path().join("current")).unwrap().ino();
    let mut publisher = open(temp.path());
    assert_eq!(publisher.last_good().unwrap(), None);
    assert!(
        fs::symlink_metadata(temp.path().join("current/rds.yaml"))
            .unwrap()
            .is_file()
    );
    let published = publish(&mut publisher, "rds.yaml=1 cds.yaml=go-c").unwrap();
    assert_eq!(list(&published.changed), ["rds.yaml"]);
    assert_eq!(list(&published.removed), ["old.yaml"]);
    fs::remove_dir(temp.path().join("current/envoy")).unwrap();
    tidy(temp.path(), &set("rds.yaml=1 cds.yaml=go-c"));
    assert_eq!(mode(&temp.path().join("current/")), 0o755);
    assert_eq!(
        fs::metadata(temp.path().join(".live")).unwrap().ino(),
        before
    );
    // Each file was replaced by a link before anything new was published.
    let log = publisher.disk.fault.log.borrow();
    let commits: Vec<_> = (0..log.len())
        .filter(|&n| log[n].1 == publisher.at.active && log[n].0 == "replace")
        .collect();
    assert_eq!(commits.len(), 2);
    let at = |call: &str, path: &Path| {
        log.iter()
            .position(|(verb, on)| *verb == call && on == path)
            .unwrap()
    };
    let done = at("replace", &publisher.at.done);
    for path in [
        "1/cds.yaml",
        "1/rds.yaml",
        "1/old.yaml",
        "1.sources",
        "1",
        "",
    ] {
        assert!(at("sync", &publisher.at.sets.join(path)) < done, "{path}");
    }
    let poked = |path: &str| {
        log[..commits[1]]
            .iter()
            .any(|(verb, on)| *verb == "replace" && on == &publisher.at.link(path))
    };
    assert!(["cds.yaml", "rds.yaml", "old.yaml"].into_iter().all(poked));
}

#[test]
fn takes_over_a_real_directory_that_cannot_be_exchanged_or_moved() {
    for lacks in [1, 2] {
        let temp = tempdir();
        go(temp.path());
        symlink("/nowhere", temp.path().join("current/dangling")).unwrap();
        let before = fs::metadata(temp.path().join("current")).unwrap().ino();
        let mut publisher = open(temp.path());
        publisher.disk.fault.lacks.set(lacks);
        let published = publish(&mut publisher, "rds.yaml=1 cds.yaml=go-c").unwrap();
        assert_eq!(list(&published.changed), ["rds.yaml"]);
        assert_eq!(list(&published.removed), ["old.yaml"]);
        // An Envoy that watches the directory goes on to.
        let now = fs::metadata(temp.path().join(".live")).unwrap().ino();
        assert_eq!(now == before, lacks == 1);
        assert!(!publisher.check().unwrap());
        assert!(!publisher.has_lost_watch());
        drop(publisher);
        drop(open(temp.path()));
        tidy(temp.path(), &set("rds.yaml=1 cds.yaml=go-c"));
    }
}

#[test]
fn a_directory_in_a_directory_that_cannot_be_moved_is_a_clear_error_and_stays() {
    let temp = tempdir();
    go(temp.path());
    fs::create_dir(temp.path().join("current/envoy")).unwrap();
    let before = seen(temp.path());
    let mut publisher = open(temp.path());
    publisher.disk.fault.lacks.set(2);
    for _ in 0..3 {
        let error = publisher.publish(&set("rds.yaml=1")).unwrap_err();
        let text = crate::error::Chain(&error).to_string();
        assert!(
            text.contains("/current: ") && text.contains(" envoy in it is not a file"),
            "{text}"
        );
        assert_eq!(seen(temp.path()), before);
        assert!(names(&temp.path().join(".sets")).len() < 16);
    }
    fs::remove_dir(temp.path().join("current/envoy")).unwrap();
    publish(&mut publisher, "rds.yaml=1").unwrap();
    drop(publisher);
    drop(open(temp.path()));
    tidy(temp.path(), &set("rds.yaml=1"));
}

#[test]
fn a_kill_at_any_call_of_a_takeover_without_exchange_is_made_good_by_the_next_life() {
    let mut points = 0;
    let want = set(NEW);
    for lacks in [1, 2] {
        for n in 1.. {
            let at = format!("call {n}, {lacks} lacking");
            let temp = tempdir();
            go(temp.path());
            let old = seen(temp.path());
            let fault = Rc::new(Fault::default());
            fault.lacks.set(lacks);
            if let Ok(mut publisher) = free(|| open_to(&fault, How::Kill(n), temp.path())) {
                let _ = publisher.publish(&want);
            }
            // Each file is there or, for a moment, is not.
            let killed = seen(temp.path());
            let part = |of: &Seen| killed.iter().all(|(name, text)| of.get(name) == Some(text));
            assert!(part(&old) || part(&contents(&want)), "{at}: {killed:?}");
            let mut next = open(temp.path());
            whole(temp.path(), &old, &want, &at);
            next.disk.fault.lacks.set(lacks);
            publish(&mut next, NEW);
            assert_eq!(seen(temp.path()), contents(&want), "{at}");
            drop(next);
            drop(open(temp.path()));
            tidy(temp.path(), &want);
            if !fault.hit() {
                break;
            }
            points += 1;
        }
    }
    assert!(points > 100, "{points}");
}

#[test]
fn tells_that_the_directory_which_an_envoy_watches_is_gone() {
    let gone: [fn(&Path); 3] = [
        |dir| fs::remove_dir_all(dir.join(".live")).unwrap(),
        |dir| fs::remove_dir_all(dir).unwrap(),
        |dir| {
            fs::remove_file(dir.join("current")).unwrap();
            go(dir);
        },
    ];
    for gone in gone {
        for looked in [true, false] {
            let temp = tempdir();
            let dir = temp.path().join("x");
            let mut publisher = open(&dir);
            publish(&mut publisher, "rds.yaml=1");
            assert!(!publisher.check().unwrap());
            assert!(!publisher.has_lost_watch());
            gone(&dir);
            if looked {
                assert!(publisher.check().unwrap());
            }
            let want = set("rds.yaml=2");
            let published = publisher.publish(&want);
            published.or_else(|_| publisher.publish(&want)).unwrap();
            publisher.check().unwrap();
            publisher.publish(&want).unwrap();
            assert!(publisher.has_lost_watch());
            assert!(!publisher.check().unwrap());
            assert!(!publisher.has_lost_watch());
            tidy(&dir, &want);
        }
    }
}

#[test]
fn replaces_an_old_style_link_to_a_version() {
    let temp = tempdir();
    fs::create_dir(temp.path().join("v1")).unwrap();
    fs::write(temp.path().join("v1/rds.yaml"), "v1").unwrap();
    symlink("v1", temp.path().join("current")).unwrap();
    let mut publisher = open(temp.path());
    assert_eq!(seen(temp.path()), contents(&set("rds.yaml=v1")));
    publish(&mut publisher, "rds.yaml=1").unwrap();
    assert_eq!(seen(temp.path()), contents(&set("rds.yaml=1")));
    assert!(temp.path().join("v1/rds.yaml").exists());
}

#[test]
fn files_written_through_current_since_become_a_set_with_the_origin_of_their_key() {
    let temp = tempdir();
    publish(&mut open(temp.path()), "rds.yaml=1@web cds.yaml=1");
    // The Go program, rolled back to, renames over our links.
    fs::write(temp.path().join("new"), "go").unwrap();
    fs::rename(
        temp.path().join("new"),
        temp.path().join("current/rds.yaml"),
    )
    .unwrap();
    let mut publisher = open(temp.path());
    assert_eq!(publisher.last_good().unwrap(), None);
    rearm(&publisher);
    let published = publish(&mut publisher, "rds.yaml=2@web cds.yaml=2").unwrap();
    assert_eq!(published.number, 3);
    tidy(temp.path(), &set("rds.yaml=2@web cds.yaml=2"));
    let text = fs::read_to_string(temp.path().join(".sets/2.sources")).unwrap();
    assert!(
        text.contains("\"web\"")
            && fs::read(temp.path().join(".sets/2/rds.yaml")).unwrap() == b"go"
    );
}

#[test]
fn what_stands_beside_a_directory_current_is_an_error_and_not_removed() {
    let temp = tempdir();
    go(temp.path());
    fs::create_dir(temp.path().join(".live")).unwrap();
    fs::write(temp.path().join(".live/precious"), "").unwrap();
    let before = seen(temp.path());
    let mut publisher = open(temp.path());
    let error = publisher.publish(&set("rds.yaml=1")).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("failed to remove {}/.live", temp.path().display())
    );
    assert!(temp.path().join(".live/precious").exists());
    assert_eq!(seen(temp.path()), before);
}

// ---- Other versions ----

/// A copy of a directory that a version has left, with the modes that it gave.
fn recorded(version: &str) -> (tempfile::TempDir, PathBuf) {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/directory");
    let temp = tempdir();
    let dir = temp.path().join("x");
    let copied = Command::new("cp")
        .arg("-a")
        .args([&from.join(version), &dir])
        .status();
    assert!(copied.unwrap().success());
    // A checkout follows the umask.
    let opened = Command::new("chmod")
        .args(["-R", "u=rwX,go=rX"])
        .arg(&dir)
        .status();
    assert!(opened.unwrap().success());
    (temp, dir)
}

/// `first` is of the version without hashes, `hashed` of the one that added them.
#[test]
fn goes_on_from_what_another_version_has_published() {
    for version in ["first", "hashed"] {
        let (_temp, dir) = recorded(version);
        let before = seen(&dir);
        let mut publisher = open(&dir);
        let found = publisher.last_good().unwrap().expect(version);
        assert_eq!(contents(&found), before);
        let names: Vec<_> = found.keys().map(FileName::as_str).collect();
        assert_eq!(names, ["b.yaml", "cds.yaml", "rds.yaml"]);
        let origins = found.values().map(|file| {
            let Origin {
                object,
                uid,
                resource_version,
            } = &*file.origin;
            format!("{object} {uid} {resource_version}")
        });
        let want = [
            "default/b 5f2b-b 2",
            "default/a 5f2b-a 2",
            "default/a 5f2b-a 2",
        ];
        assert_eq!(origins.collect::<Vec<_>>(), want);
        rearm(&publisher);
        assert!(!publisher.check().unwrap());
        assert!(publisher.publish(&found).unwrap().is_none());
        assert_eq!(pokes(&publisher), [""; 0]);

        let mut next = found.clone();
        let changed = FileName::new("rds.yaml").unwrap();
        next.get_mut(&changed).unwrap().bytes = b"resources: [3]\n".as_slice().into();
        let published = publisher.publish(&next).unwrap().unwrap();
        assert_eq!(
            (published.number, list(&published.changed)),
            (3, vec!["rds.yaml"])
        );
        assert_eq!(pokes(&publisher), ["rds.yaml", "current"]);
        assert_eq!(calls(&publisher, "link"), 2);
        // An edit of what was carried over is found as well, now that it is known.
        assert!(!publisher.check().unwrap());
        edit(&dir.join("current/b.yaml"), "b: 2\n");
        assert!(publisher.check().unwrap());
        publisher.publish(&next).unwrap().unwrap();
        drop(publisher);
        drop(open(&dir));
        tidy(&dir, &next);
    }
}

/// A line of `N.sources` as the first version reads it: it passes over what it does not know.
#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct FirstLine {
    namespace: String,
    name: String,
    uid: String,
    resource_version: String,
    size: u64,
}

#[test]
fn the_first_version_can_go_on_from_what_is_published() {
    let temp = tempdir();
    fs::set_permissions(temp.path(), fs::Permissions::from_mode(0o2775)).unwrap();
    let want = "rds.yaml=one@web cds.yaml=1";
    let mut publisher = open(temp.path());
    publish(&mut publisher, "rds.yaml=0 cds.yaml=1");
    publish(&mut publisher, want);
    publisher.check().unwrap();
    drop(publisher);
    drop(open(temp.path()));
    // The links, and nothing that it does not know.
    tidy(temp.path(), &set(want));
    let sets = temp.path().join(".sets");
    let text = fs::read(sets.join("2.sources")).unwrap();
    let lines: BTreeMap<String, FirstLine> = serde_json::from_slice(&text).unwrap();
    assert_eq!(lines.len(), 2);
    for (name, line) in lines {
        let object = if name == "rds.yaml" { "web" } else { "envoy" };
        let FirstLine {
            namespace,
            name: found,
            uid,
            resource_version,
            size,
        } = line;
        let read = [&*namespace, &*found, &*uid, &*resource_version];
        assert_eq!(read, ["default", object, "1-2-3", "7"]);
        let file = fs::symlink_metadata(sets.join("2").join(&name)).unwrap();
        assert!(file.is_file() && file.len() == size && file.mode() & 0o644 == 0o644);
    }
    for dir in ["", "2", ".links", "../.live"] {
        assert_eq!(mode(&sets.join(dir)) & 0o755, 0o755, "{dir}");
    }
}

// ---- Every call cut once ----

/// A state of the disk, what is then published, and what Envoy may find meanwhile.
struct Scenario {
    name: &'static str,
    prepare: fn(&Path),
    /// Published before, if the same life is to prepare and publish what is wanted.
    warm: &'static [&'static str],
    want: &'static str,
}

const OLD: &str = "a=1 cds.yaml=1 gone.yaml=1 rds.yaml=1 same.yaml=1";
const NEW: &str = "a=2 cds.yaml=2 rds.yaml=2 same.yaml=1 eds.yaml=2";

const SCENARIOS: [Scenario; 10] = [
    Scenario {
        name: "first",
        prepare: |_| (),
        warm: &[],
        want: NEW,
    },
    Scenario {
        name: "change",
        prepare: |dir| drop(publish(&mut open(dir), OLD)),
        warm: &[],
        want: NEW,
    },
    Scenario {
        name: "warm",
        prepare: |_| (),
        warm: &["a=1", "a=2", "b=3", "c=4", OLD],
        want: NEW,
    },
    Scenario {
        name: "moved",
        prepare: |_| (),
        warm: &["a=1@x"],
        want: "a=1@y",
    },
    Scenario {
        name: "recovery of a set never done",
        prepare: |dir| {
            publish(&mut open(dir), "a=0 stray=1");
            let mut publisher = open(dir);
            publisher.disk.fault.arm(How::Each("sync", EIO));
            publisher.publish(&set(OLD)).unwrap_err();
        },
        warm: &[],
        want: NEW,
    },
    Scenario {
        name: "recovery of a set never committed",
        prepare: |dir| {
            publish(&mut open(dir), OLD);
            let mut publisher = open(dir);
            publisher.disk.fault.arm(How::KillAt("replace"));
            publisher.publish(&set("a=3 z=3")).unwrap_err();
            assert!(dir.join(".live/z").is_symlink() && !dir.join(".live/z").exists());
        },
        warm: &[],
        want: NEW,
    },
    Scenario {
        name: "migration",
        prepare: go,
        warm: &[],
        want: NEW,
    },
    Scenario {
        name: "migration with a directory .live",
        prepare: |dir| {
            go(dir);
            fs::create_dir(dir.join(".live")).unwrap();
            symlink("../.sets/active/x", dir.join(".live/x")).unwrap();
        },
        warm: &[],
        want: NEW,
    },
    Scenario {
        name: "files among the links",
        prepare: |dir| {
            publish(&mut open(dir), OLD);
            for name in ["a", "rds.yaml"] {
                fs::remove_file(dir.join(".live").join(name)).unwrap();
                fs::write(dir.join(".live").join(name), "foreign").unwrap();
            }
        },
        warm: &[],
        want: NEW,
    },
    Scenario {
        name: "links gone",
        prepare: |dir| {
            publish(&mut open(dir), OLD);
            fs::remove_file(dir.join("current")).unwrap();
            fs::remove_file(dir.join(".sets/done")).unwrap();
        },
        warm: &[],
        want: NEW,
    },
];

/// One life that is cut; gives the publisher where it got that far.
fn live(
    scenario: &Scenario,
    dir: &Path,
    how: How,
) -> (
    Rc<Fault>,
    Seen,
    Option<OutputDirectory>,
    Result<Option<Published>, Error>,
) {
    (scenario.prepare)(dir);
    let fault = Rc::new(Fault::default());
    if scenario.warm.is_empty() {
        let old = seen(dir);
        match free(|| open_to(&fault, how, dir)) {
            Ok(mut publisher) => {
                let result = publisher.publish(&set(scenario.want));
                (fault, old, Some(publisher), result)
            }
            Err(error) => (fault, old, None, Err(error)),
        }
    } else {
        let mut publisher = free(|| open_to(&fault, How::Never, dir)).unwrap();
        for text in scenario.warm {
            publish(&mut publisher, text);
        }
        let old = seen(dir);
        fault.arm(how);
        publisher.prepare();
        let result = publisher.publish(&set(scenario.want));
        (fault, old, Some(publisher), result)
    }
}

#[track_caller]
fn whole(dir: &Path, old: &Seen, want: &Snapshot, at: &str) {
    let now = seen(dir);
    assert!(
        now == *old || now == contents(want),
        "mixed at {at}: {now:?}"
    );
}

#[test]
fn a_kill_at_any_call_leaves_one_whole_set_and_the_next_life_converges() {
    let mut points = 0;
    for scenario in &SCENARIOS {
        let want = set(scenario.want);
        for n in 1.. {
            let at = format!("{} call {n}", scenario.name);
            let temp = tempdir();
            let (fault, old, publisher, result) = live(scenario, temp.path(), How::Kill(n));
            drop(publisher);
            if !fault.hit() {
                result.unwrap();
                drop(open(temp.path()));
                tidy(temp.path(), &want);
                break;
            }
            points += 1;
            whole(temp.path(), &old, &want, &at);
            let killed = seen(temp.path());
            let mut next = open(temp.path());
            assert_eq!(
                seen(temp.path()),
                killed,
                "{at}: open touched what Envoy sees"
            );
            assert_eq!(pokes(&next), [""; 0], "{at}");
            // The active, the last done one, and older ones.
            clean(temp.path(), 2 + OLDER);
            publish(&mut next, scenario.want);
            tidy(temp.path(), &want);
            assert!(publish(&mut next, scenario.want).is_none(), "{at}");
            assert!(!next.check().unwrap(), "{at}");
        }
    }
    println!("{points} points");
    assert!(points >= 200, "{points}");
}

#[test]
fn a_kill_at_any_call_of_the_recovery_from_any_kill_converges_too() {
    let mut points = 0;
    for scenario in &SCENARIOS {
        let want = set(scenario.want);
        // Every fifth kill, each with every seventh cut of the life after it.
        for n in (1..).step_by(5) {
            let mut done = false;
            for m in (1 + n % 7..).step_by(7) {
                let at = format!("{} call {n}, then {m}", scenario.name);
                let temp = tempdir();
                let (fault, old, publisher, _) = live(scenario, temp.path(), How::Kill(n));
                drop(publisher);
                if !fault.hit() {
                    done = true;
                    break;
                }
                let fault = Rc::new(Fault::default());
                let second = free(|| open_to(&fault, How::Kill(m), temp.path()));
                if let Ok(mut second) = second {
                    let _ = second.publish(&want);
                }
                whole(temp.path(), &old, &want, &at);
                publish(&mut open(temp.path()), scenario.want);
                tidy(temp.path(), &want);
                if !fault.hit() {
                    break;
                }
                points += 1;
            }
            if done {
                break;
            }
        }
    }
    println!("{points} points");
    assert!(points >= 200, "{points}");
}

#[test]
fn an_error_at_any_call_leaves_one_whole_set_and_a_retry_converges() {
    let mut points = 0;
    for errno in [EIO, ENOSPC] {
        for scenario in &SCENARIOS {
            let want = set(scenario.want);
            for n in 1.. {
                let at = format!("{} call {n} errno {errno}", scenario.name);
                let temp = tempdir();
                let (fault, old, publisher, result) =
                    live(scenario, temp.path(), How::Once(n, errno));
                if !fault.hit() {
                    result.unwrap();
                    break;
                }
                points += 1;
                whole(temp.path(), &old, &want, &at);
                if result.is_ok() {
                    assert_eq!(seen(temp.path()), contents(&want), "{at}");
                }
                if let Some(publisher) = &publisher {
                    assert_eq!(
                        names(&publisher.at.links),
                        prepared_links(publisher),
                        "{at}"
                    );
                    if result.is_err()
                        && publisher.prepared_links.is_empty()
                        && publisher.prepared_set.is_none()
                    {
                        clean(temp.path(), 3 + OLDER);
                    }
                }
                fault.arm(How::Never);
                let mut publisher = publisher.unwrap_or_else(|| open(temp.path()));
                publish(&mut publisher, scenario.want);
                assert_eq!(
                    names(&publisher.at.links),
                    prepared_links(&publisher),
                    "{at}"
                );
                if !scenario.warm.is_empty() {
                    drop(publisher);
                    publisher = open(temp.path());
                }
                tidy(temp.path(), &want);
                assert!(publish(&mut publisher, scenario.want).is_none(), "{at}");
                assert!(!publisher.check().unwrap(), "{at}");
            }
        }
    }
    println!("{points} points");
    assert!(points >= 400, "{points}");
}
