//! Envoy's verdicts: the set that comes back, what is remembered, and a set that is published once
//! more.

use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::*;
use crate::output::step::{SetFiles, Stage, Transient};

const TRYING: &str = "trying default/envoy 0123456789abcdef\n";
const REFUSED: &str = "default/envoy 0123456789abcdef 1 0\n";

fn open_kept(dir: &Path) -> OutputDirectory {
    free(|| OutputDirectory::open(dir, Keep::Verdicts)).unwrap()
}

fn kept_to(fault: &Fault, how: How, dir: &Path) -> Result<OutputDirectory, Error> {
    fault.arm(how);
    let fault = fault.clone();
    let group = Default::default();
    OutputDirectory::open_on(Fs { group, fault }, dir, Keep::Verdicts)
}

/// What is recalled where nothing stands in the way.
#[track_caller]
fn recalled(publisher: &mut OutputDirectory) -> Recalled {
    let (recalled, read) = publisher.recall().unwrap();
    read.unwrap();
    recalled
}

fn again(publisher: &mut OutputDirectory, set: &SetFiles) -> Result<Published, Error> {
    let mut compared = publisher.compare(set.step())?;
    compared.announce_all();
    Ok(publisher.write(compared)?.unwrap())
}

fn refused(dir: &Path) -> PathBuf {
    dir.join(".sets/.refused")
}

fn good(dir: &Path) -> PathBuf {
    dir.join(".sets/good")
}

// ---- What is kept ----

#[test]
fn what_may_come_back_outlives_the_sweep_and_a_restart() {
    let temp = tempdir();
    let dir = temp.path();
    let mut publisher = open_kept(dir);
    assert_eq!(recalled(&mut publisher), Recalled::default());
    for n in 1..=12 {
        publish(&mut publisher, &format!("cds.yaml=same rds.yaml={n}"));
        if n == 1 {
            publisher.note_verdicts([Some(1), None], "").unwrap();
        }
        if n == 3 {
            publisher.note_verdicts([Some(1), Some(2)], "").unwrap();
        }
    }
    clean(dir, 3 + OLDER);
    assert!(dir.join(".sets/1").exists() && dir.join(".sets/2.sources").exists());
    publisher.disk.fault.arm(How::Each("write", ENOSPC));
    publisher.publish_durably(&set("rds.yaml=x")).unwrap_err();
    clean(dir, 3);
    rearm(&publisher);
    drop(publisher);

    let mut publisher = open_kept(dir);
    let want = Recalled {
        memory: String::new(),
        visible: Some(12),
        good: Some(1),
    };
    assert_eq!(recalled(&mut publisher), want);
    for n in 21..30 {
        publish(&mut publisher, &format!("rds.yaml={n}"));
    }
    let back = publisher.set_files(1).unwrap().unwrap();
    assert_eq!(back.files, set("cds.yaml=same rds.yaml=1"));
    assert_eq!(publisher.read_set(1).unwrap().unwrap(), back.files);
    assert!(!dir.join(".sets/2").exists());

    // Once another is good, it may go.
    let number = publish(&mut publisher, "rds.yaml=30").unwrap().number;
    publisher.note_verdicts([Some(number), None], "").unwrap();
    for n in 31..40 {
        publish(&mut publisher, &format!("rds.yaml={n}"));
    }
    assert!(!dir.join(".sets/1").exists());
    assert_eq!(publisher.set_files(1).unwrap(), None);
    assert_eq!(recalled(&mut publisher).good, Some(number));
    drop(publisher);
    assert_eq!(recalled(&mut open_kept(dir)).good, Some(number));
}

#[test]
fn nothing_is_made_read_or_spared_where_nobody_asks_for_verdicts() {
    let temp = tempdir();
    let dir = temp.path();
    let mut publisher = open_kept(dir);
    publish(&mut publisher, "rds.yaml=1");
    publisher.note_verdicts([Some(1), None], REFUSED).unwrap();
    drop(publisher);

    let fault = Fault::default();
    let mut publisher = free(|| open_to(&fault, How::Never, dir)).unwrap();
    assert!(publisher.recall().is_none());
    for n in 2..8 {
        publish(&mut publisher, &format!("rds.yaml={n}"));
        publisher.note_verdicts([Some(n), None], TRYING).unwrap();
        publisher.prepare();
        publisher.check().unwrap();
    }
    let touched = |(_, path): &&(&str, PathBuf)| *path == refused(dir) || *path == good(dir);
    assert_eq!(fault.log.borrow().iter().find(touched), None);
    drop(publisher);
    drop(open(dir));
    clean(dir, 1 + OLDER);
    assert_eq!(fs::read_link(good(dir)).unwrap(), Path::new("1"));

    // The next one that asks finds what it knew, and that its set is gone.
    let mut publisher = open_kept(dir);
    let found = recalled(&mut publisher);
    assert_eq!((&*found.memory, found.good), (REFUSED, None));
    assert_eq!(publish(&mut publisher, "rds.yaml=9").unwrap().number, 8);
    drop(publisher);

    let other = tempdir();
    let mut publisher = open(other.path());
    publish(&mut publisher, "rds.yaml=1");
    publisher.note_verdicts([Some(1), None], REFUSED).unwrap();
    assert!(!good(other.path()).exists() && !refused(other.path()).exists());
}

#[test]
fn what_is_known_costs_no_call_and_what_is_new_comes_text_first() {
    let temp = tempdir();
    let dir = temp.path();
    let mut publisher = open_kept(dir);
    recalled(&mut publisher);
    publish(&mut publisher, "rds.yaml=1");
    let mut note = |kept, memory: &str| -> Vec<PathBuf> {
        rearm(&publisher);
        publisher.note_verdicts(kept, memory).unwrap();
        let log = publisher.disk.fault.log.take();
        log.into_iter().map(|(_, path)| path).collect()
    };
    assert!(note([None, None], "").is_empty());
    let calls = note([Some(1), None], REFUSED);
    let at = |path| calls.iter().position(|it| *it == path);
    assert!(at(refused(dir)).unwrap() < at(good(dir)).unwrap());
    assert!(note([Some(1), Some(1)], REFUSED).is_empty());
    assert!(!note([Some(1), None], TRYING).contains(&good(dir)));
    assert!(!note([None, None], "").contains(&good(dir)));
    assert!(!refused(dir).exists());
    assert!(note([None, None], "").is_empty());
    assert_eq!(names(&dir.join(".sets/.links")), SortedSet::new());
}

#[test]
fn a_number_stands_for_one_set_also_where_that_is_gone() {
    let temp = tempdir();
    let dir = temp.path();
    let mut publisher = open_kept(dir);
    for n in 1..=3 {
        publish(&mut publisher, &format!("rds.yaml={n}"));
    }
    publisher.note_verdicts([Some(3), None], "").unwrap();
    drop(publisher);
    for name in ["active", "done", "3.sources", "2.sources", "1.sources"] {
        fs::remove_file(dir.join(".sets").join(name)).unwrap();
    }
    for name in ["3", "2", "1"] {
        fs::remove_dir_all(dir.join(".sets").join(name)).unwrap();
    }
    let mut publisher = open_kept(dir);
    assert_eq!(recalled(&mut publisher), Recalled::default());
    assert_eq!(publish(&mut publisher, "rds.yaml=4").unwrap().number, 4);
}

// ---- What is found ----

#[test]
fn a_memory_that_cannot_be_read_is_empty_and_made_again() {
    let hashed = |text: &[u8]| {
        let mut all = format!("{:016x}\n", crate::output::disk::hash_of(text)).into_bytes();
        all.extend_from_slice(text);
        all
    };
    let whole = hashed(REFUSED.as_bytes());
    let write = |bytes: Vec<u8>| -> Box<dyn Fn(&Path)> {
        Box::new(move |path| fs::write(path, &bytes).unwrap())
    };
    let mut zeros = whole.clone();
    zeros[20..].fill(0);
    let mut upper = whole.clone();
    upper[17] = b'D';
    let cases: [Harm; 12] = [
        ("empty", write(Vec::new())),
        ("torn in its first line", write(whole[..9].to_vec())),
        ("torn after its first line", write(whole[..17].to_vec())),
        ("torn", write(whole[..40].to_vec())),
        ("zeros", write(zeros)),
        ("edited", write(upper)),
        ("longer", write([&whole[..], b"x"].concat())),
        ("foreign", write(b"hello\nworld\n".to_vec())),
        ("binary", write(hashed(&[0xff, 0xfe]))),
        ("oversized", write(hashed(&[b'x'; 1 << 20]))),
        (
            "a link",
            Box::new(|path| symlink("/etc/passwd", path).unwrap()),
        ),
        (
            "a pipe",
            Box::new(|path| mknodat(CWD, path, FileType::Fifo, Mode::RUSR, 0).unwrap()),
        ),
    ];
    for (what, harm) in cases {
        for memory in ["", TRYING] {
            let temp = tempdir();
            let dir = temp.path();
            publish(&mut open_kept(dir), "rds.yaml=1");
            harm(&refused(dir));
            let mut publisher = open_kept(dir);
            let (found, read) = publisher.recall().unwrap();
            assert_eq!((&*found.memory, found.visible), ("", Some(1)), "{what}");
            let error = crate::error::Chain(&read.expect_err(what)).to_string();
            assert!(error.ends_with(".sets/.refused: it is not what was written"));
            publish(&mut publisher, "rds.yaml=2").unwrap();
            publisher.note_verdicts([None, None], memory).unwrap();
            drop(publisher);
            assert_eq!(recalled(&mut open_kept(dir)).memory, memory, "{what}");
            tidy(dir, &set("rds.yaml=2"));
        }
    }
}

#[test]
fn a_directory_in_the_way_stops_nothing() {
    for name in [".refused", "good"] {
        let temp = tempdir();
        let dir = temp.path();
        fs::create_dir_all(dir.join(".sets").join(name).join("sub")).unwrap();
        let mut publisher = open_kept(dir);
        let (found, read) = publisher.recall().unwrap();
        assert_eq!(found, Recalled::default());
        assert_eq!(read.is_err(), name == ".refused");
        for n in 1..3 {
            publish(&mut publisher, &format!("rds.yaml={n}")).unwrap();
            let noted = publisher.note_verdicts([Some(1), None], REFUSED);
            noted.expect_err(name);
            assert_eq!(names(&publisher.at.links), SortedSet::new());
            publisher.check().unwrap();
        }
        // The other one is there.
        assert_eq!(good(dir).is_symlink(), name == ".refused");
        assert_eq!(refused(dir).is_file(), name == "good");
        fs::remove_dir_all(dir.join(".sets").join(name)).unwrap();
        publisher.note_verdicts([Some(1), None], REFUSED).unwrap();
        let found = recalled(&mut publisher);
        assert_eq!((&*found.memory, found.good), (REFUSED, Some(1)));
    }
}

#[test]
fn a_set_that_is_not_what_was_written_cannot_come_back() {
    let harms: [Harm; 6] = [
        ("gone", Box::new(|set| fs::remove_dir_all(set).unwrap())),
        (
            "a file gone",
            Box::new(|set| fs::remove_file(set.join("cds.yaml")).unwrap()),
        ),
        ("edited", Box::new(|set| edit(&set.join("cds.yaml"), "x"))),
        (
            "longer",
            Box::new(|set| fs::write(set.join("cds.yaml"), "11").unwrap()),
        ),
        (
            "without sources",
            Box::new(|set| fs::remove_file(set.with_extension("sources")).unwrap()),
        ),
        (
            "with torn sources",
            Box::new(|set| fs::write(set.with_extension("sources"), "{").unwrap()),
        ),
    ];
    for (what, harm) in harms {
        let temp = tempdir();
        let dir = temp.path();
        let mut publisher = open_kept(dir);
        publish(&mut publisher, "cds.yaml=1 rds.yaml=1");
        publish(&mut publisher, "cds.yaml=2 rds.yaml=1");
        publisher.note_verdicts([Some(1), None], TRYING).unwrap();
        harm(&dir.join(".sets/1"));
        assert_eq!(publisher.set_files(1).unwrap(), None, "{what}");
        assert_eq!(publisher.read_set(1).unwrap(), None, "{what}");
        drop(publisher);
        let mut publisher = open_kept(dir);
        let found = recalled(&mut publisher);
        assert_eq!((&*found.memory, found.good), (TRYING, None), "{what}");
        publisher.note_verdicts([Some(2), None], "").unwrap();
        assert_eq!(recalled(&mut publisher).good, Some(2), "{what}");
    }
}

#[test]
fn what_others_remove_or_change_is_written_again() {
    let harms: [Harm; 4] = [
        (
            "gone",
            Box::new(|dir| {
                fs::remove_file(refused(dir)).unwrap();
                fs::remove_file(good(dir)).unwrap();
            }),
        ),
        (
            "edited",
            Box::new(|dir| fs::write(refused(dir), "x").unwrap()),
        ),
        (
            "another",
            Box::new(|dir| {
                fs::remove_file(good(dir)).unwrap();
                symlink("77", good(dir)).unwrap();
            }),
        ),
        (
            "all",
            Box::new(|dir| fs::remove_dir_all(dir.join(".sets")).unwrap()),
        ),
    ];
    for (what, harm) in harms {
        let temp = tempdir();
        let dir = temp.path();
        let mut publisher = open_kept(dir);
        publish(&mut publisher, "rds.yaml=1");
        publisher.note_verdicts([Some(1), None], REFUSED).unwrap();
        rearm(&publisher);
        assert!(!publisher.check().unwrap());
        assert_eq!(calls(&publisher, "replace"), 0);
        harm(dir);
        publisher.check().unwrap();
        assert_eq!(fs::read_link(good(dir)).unwrap(), Path::new("1"), "{what}");
        let found = recalled(&mut publisher);
        assert_eq!((&*found.memory, found.good), (REFUSED, Some(1)), "{what}");
    }
}

#[test]
fn a_full_disk_costs_old_sets_before_the_memory() {
    let temp = tempdir();
    let dir = temp.path();
    let mut publisher = open_kept(dir);
    for n in 1..=5 {
        publish(&mut publisher, &format!("rds.yaml={n}"));
    }
    publisher.disk.fault.arm(How::Once(2, ENOSPC));
    publisher.note_verdicts([Some(3), None], REFUSED).unwrap();
    assert!(publisher.disk.fault.hit());
    clean(dir, 2);
    assert_eq!(recalled(&mut publisher).memory, REFUSED);
    // A short text that is there is written over, so that it takes no room.
    let note = |publisher: &mut OutputDirectory, text: &str| {
        publisher.note_verdicts([Some(3), None], text)?;
        assert_eq!(recalled(publisher).memory, text);
        Ok::<(), Error>(())
    };
    publisher.disk.fault.arm(How::Each("create", ENOSPC));
    for text in [TRYING, REFUSED, &REFUSED.repeat(3), TRYING] {
        note(&mut publisher, text).unwrap();
    }
    let long = TRYING.repeat(200);
    assert!(is_full(&note(&mut publisher, &long).unwrap_err()));
    rearm(&publisher);
    for text in [&long, TRYING] {
        note(&mut publisher, text).unwrap();
    }
}

// ---- What comes back ----

/// A set in mid-sequence: clusters and a file that the target does not have.
fn unfinished(publisher: &mut OutputDirectory) -> (Snapshot, Transient) {
    let files = set("cds.yaml=[c0]c1 old.yaml=o1 rds.yaml=r1");
    let name = |text| FileName::new(text).unwrap();
    let transient = Transient {
        stage: Stage::Routes,
        inserted: [(name("cds.yaml"), 0..4)].into_iter().collect(),
        vanishing: [name("old.yaml")].into(),
    };
    let mut step = Step::target(&files);
    step.transient = Some(&transient);
    let compared = publisher.compare(step).unwrap();
    publisher.write(compared).unwrap().unwrap();
    publisher.make_durable().unwrap();
    (files, transient)
}

#[test]
fn a_set_comes_back_as_it_was_with_every_file_announced_and_watched() {
    let temp = tempdir();
    let dir = temp.path();
    let mut publisher = open_kept(dir);
    publish(&mut publisher, "rds.yaml=r0");
    let (files, transient) = unfinished(&mut publisher);
    let target = set("cds.yaml=c1 rds.yaml=r1");
    publish(&mut publisher, "cds.yaml=c2 new.yaml=n rds.yaml=r1");
    let back = publisher.set_files(2).unwrap().unwrap();
    assert_eq!(publisher.read_set(2).unwrap().unwrap(), target);
    assert_eq!(
        back,
        SetFiles {
            files: files.clone(),
            transient: Some(transient.clone()),
        }
    );
    rearm(&publisher);
    let next = publisher.next_set();
    let published = again(&mut publisher, &back).unwrap();
    assert_eq!((published.number, publisher.visible()), (next, Some(next)));
    let all = ["cds.yaml", "old.yaml", "rds.yaml"];
    assert_eq!(list(&published.changed), all);
    assert_eq!(list(&published.removed), ["new.yaml"]);
    let announced = ["cds.yaml", "rds.yaml", "old.yaml", "current"];
    assert_eq!(pokes(&publisher), announced);
    assert_eq!(calls(&publisher, "link"), 1, "only rds.yaml is the same");
    assert_eq!(publisher.visible_transient(), Some(transient));
    assert_eq!(publisher.last_good().unwrap().unwrap(), target);
    assert!(publisher.take_read().is_empty());
    for name in all {
        fs::read(dir.join("current").join(name)).unwrap();
        let read: Vec<_> = publisher.take_read().into_iter().collect();
        assert_eq!(list(&read), [name]);
    }
    assert_eq!(seen(dir), contents(&files));
    publisher.end_watch();
    publisher.make_durable().unwrap();
    publish(&mut publisher, "cds.yaml=c1 rds.yaml=r1");
    drop(publisher);
    drop(open(dir));
    tidy(dir, &target);
}

#[test]
fn what_is_visible_is_announced_once_more_without_writing_a_byte_of_it() {
    let temp = tempdir();
    let dir = temp.path();
    let mut publisher = open_kept(dir);
    publish(&mut publisher, OLD);
    let inode = |name| {
        let file = fs::metadata(dir.join("current").join(name));
        file.unwrap().ino()
    };
    let before = ["a", "rds.yaml"].map(inode);
    for n in 2..9 {
        let visible = publisher.visible().unwrap();
        let all = publisher.set_files(visible).unwrap().unwrap();
        rearm(&publisher);
        let published = again(&mut publisher, &all).unwrap();
        assert_eq!(published.number, n);
        assert_eq!(calls(&publisher, "link"), 5);
        assert_eq!(calls(&publisher, "write"), 1, "its sources");
        let announced = [
            "cds.yaml",
            "rds.yaml",
            "a",
            "gone.yaml",
            "same.yaml",
            "current",
        ];
        assert_eq!(pokes(&publisher), announced);
        assert_eq!(["a", "rds.yaml"].map(inode), before);
        // What is still watched is known without being opened.
        let log = publisher.disk.fault.log.borrow();
        let opened = |(verb, path): &&(&str, PathBuf)| *verb == "open" && path.ends_with("a");
        assert!(log.iter().find(opened).is_none() || n == 2);
    }
    fs::read(dir.join("current/a")).unwrap();
    assert_eq!(
        list(&publisher.take_read().into_iter().collect::<Vec<_>>()),
        ["a"]
    );
    publisher.end_watch();
    publisher.make_durable().unwrap();
    assert!(publish(&mut publisher, OLD).is_none());
    tidy(dir, &set(OLD));
}

#[test]
fn a_set_comes_back_where_nothing_may_be_compared_with() {
    let harms: [Harm; 3] = [
        (
            "torn",
            Box::new(|dir| {
                fs::remove_file(dir.join(".sets/done")).unwrap();
                fs::write(dir.join("current/rds.yaml"), "").unwrap();
            }),
        ),
        (
            "foreign",
            Box::new(|dir| {
                fs::remove_file(dir.join(".live/rds.yaml")).unwrap();
                fs::write(dir.join(".live/rds.yaml"), "foreign").unwrap();
            }),
        ),
        (
            "without links",
            Box::new(|dir| fs::remove_file(dir.join("current")).unwrap()),
        ),
    ];
    for (what, harm) in harms {
        let temp = tempdir();
        let dir = temp.path();
        let mut publisher = open_kept(dir);
        publish(&mut publisher, OLD);
        publisher.note_verdicts([Some(1), None], TRYING).unwrap();
        publish(&mut publisher, NEW);
        drop(publisher);
        harm(dir);
        let mut publisher = open_kept(dir);
        let found = recalled(&mut publisher);
        assert_eq!((&*found.memory, found.good), (TRYING, Some(1)), "{what}");
        let back = publisher.set_files(1).unwrap().unwrap();
        let published = again(&mut publisher, &back).unwrap();
        assert_eq!(published.changed.len(), 5, "{what}");
        publisher.end_watch();
        publisher.make_durable().unwrap();
        drop(publisher);
        drop(open(dir));
        tidy(dir, &set(OLD));
    }
}

// ---- Every call cut ----

/// A life that publishes [`NEW`], which Envoy accepts, or refuses so that [`OLD`] comes back.
fn judged(publisher: &mut OutputDirectory, accepted: bool) -> Result<(), Error> {
    let kept = recalled_or_none(publisher).good;
    // A failure to write a verdict down stops nothing.
    let _ = publisher.note_verdicts([kept, kept], TRYING);
    let published = publisher.publish(&set(NEW))?;
    let new = publisher.visible();
    if accepted || published.is_none() {
        let _ = publisher.note_verdicts([new, None], "");
    } else {
        let _ = publisher.note_verdicts([kept, kept], REFUSED);
        if let Some(back) = publisher.set_files(kept.unwrap())? {
            let back = again(publisher, &back)?.number;
            let _ = publisher.note_verdicts([Some(back), None], REFUSED);
        }
    }
    publisher.end_watch();
    publisher.make_durable()?;
    publisher.prepare();
    Ok(())
}

fn recalled_or_none(publisher: &mut OutputDirectory) -> Recalled {
    publisher.recall().unwrap().0
}

/// A directory whose set 1 was accepted.
fn begun(dir: &Path) {
    let mut publisher = open_kept(dir);
    publish(&mut publisher, OLD);
    publisher.note_verdicts([Some(1), None], "").unwrap();
}

/// What the next life finds: one whole set, another to go back to, and whether the former was
/// judged.
#[track_caller]
fn is_known(dir: &Path, accepted: bool, may_forget: bool, at: &str) {
    let found = seen(dir);
    let [old, new] = [OLD, NEW].map(|text| contents(&set(text)));
    assert!(found == old || found == new, "mixed at {at}: {found:?}");
    let mut next = open_kept(dir);
    assert_eq!(seen(dir), found, "{at}");
    let recalled = recalled(&mut next);
    let good = recalled
        .good
        .unwrap_or_else(|| panic!("{at}: none is good"));
    let good = contents(&next.set_files(good).unwrap().unwrap().files);
    assert!(good == old || accepted && good == new, "{at}");
    let is_judged = good == found || !recalled.memory.is_empty();
    assert!(
        is_judged || accepted || may_forget,
        "{at}: it is taken for good"
    );
    if !accepted && good == found && recalled.memory == TRYING {
        assert_eq!(found, old, "{at}");
    }
    // It goes back, whatever it was.
    let back = next.set_files(recalled.good.unwrap()).unwrap().unwrap();
    let number = again(&mut next, &back).unwrap().number;
    next.note_verdicts([Some(number), None], REFUSED).unwrap();
    next.end_watch();
    next.make_durable().unwrap();
    drop(next);
    let mut next = open_kept(dir);
    let want = Recalled {
        memory: REFUSED.into(),
        visible: Some(number),
        good: Some(number),
    };
    assert_eq!(super::verdicts::recalled(&mut next), want, "{at}");
    drop(next);
    tidy(dir, &back.files);
}

#[test]
fn a_kill_at_any_call_leaves_what_was_accepted_and_what_was_tried() {
    let mut points = 0;
    for accepted in [true, false] {
        for n in 1.. {
            let at = format!("call {n}, accepted: {accepted}");
            let temp = tempdir();
            begun(temp.path());
            let fault = Fault::default();
            let life = free(|| kept_to(&fault, How::Kill(n), temp.path()));
            let result = life.and_then(|mut life| judged(&mut life, accepted));
            is_known(temp.path(), accepted, false, &at);
            if !fault.hit() {
                result.unwrap();
                break;
            }
            points += 1;
        }
    }
    assert!(points > 200, "{points}");
}

#[test]
fn a_kill_in_the_run_after_a_kill_leaves_a_whole_set_too() {
    let mut points = 0;
    for n in (1..).step_by(4) {
        let mut hit = false;
        for m in (1 + n % 7..).step_by(7) {
            let at = format!("call {n}, then {m}");
            let temp = tempdir();
            begun(temp.path());
            let fault = Fault::default();
            let first = free(|| kept_to(&fault, How::Kill(n), temp.path()));
            let _ = first.and_then(|mut life| judged(&mut life, false));
            hit = fault.hit();
            let second = Fault::default();
            let life = free(|| kept_to(&second, How::Kill(m), temp.path()));
            let _ = life.and_then(|mut life| judged(&mut life, false));
            is_known(temp.path(), false, false, &at);
            if !second.hit() {
                break;
            }
            points += 1;
        }
        if !hit {
            break;
        }
    }
    assert!(points >= 200, "{points}");
}

#[test]
fn an_error_at_any_call_stops_no_publish_and_a_retry_converges() {
    let mut points = 0;
    for errno in [EIO, ENOSPC] {
        for accepted in [true, false] {
            for n in 1.. {
                let at = format!("call {n} errno {errno}, accepted: {accepted}");
                let temp = tempdir();
                begun(temp.path());
                let mut life = open_kept(temp.path());
                life.disk.fault.arm(How::Once(n, errno));
                let result = judged(&mut life, accepted);
                let hit = life.disk.fault.hit();
                rearm(&life);
                let found = seen(temp.path());
                let sets = [OLD, NEW].map(|text| contents(&set(text)));
                assert!(sets.contains(&found), "mixed at {at}: {found:?}");
                // What was noted last is on disk after the next note.
                let kept = life.visible();
                life.note_verdicts([kept, None], REFUSED).unwrap();
                publish(&mut life, OLD);
                assert_eq!(names(&life.at.links), prepared_links(&life), "{at}");
                life.end_watch();
                life.make_durable().unwrap();
                drop(life);
                let found = recalled(&mut open_kept(temp.path()));
                assert_eq!((&*found.memory, found.good), (REFUSED, kept), "{at}");
                tidy(temp.path(), &set(OLD));
                if !hit {
                    result.unwrap();
                    break;
                }
                points += 1;
            }
        }
    }
    assert!(points > 200, "{points}");
}

#[test]
fn a_verdict_that_cannot_be_written_down_stops_nothing() {
    for verb in ["create", "write", "replace", "remove"] {
        let temp = tempdir();
        let dir = temp.path();
        begun(dir);
        let mut life = open_kept(dir);
        recalled(&mut life);
        life.disk.fault.arm(How::Each(verb, ENOSPC));
        let noted = life.note_verdicts([Some(1), Some(1)], TRYING);
        // A leftover of it cannot be removed, either.
        assert_eq!(noted.is_err(), verb != "remove", "{verb}");
        rearm(&life);
        publish(&mut life, NEW).unwrap();
        life.note_verdicts([Some(2), None], "").unwrap();
        drop(life);
        assert_eq!(recalled(&mut open_kept(dir)).good, Some(2));
        tidy(dir, &set(NEW));
    }
}
