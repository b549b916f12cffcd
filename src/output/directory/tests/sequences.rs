//! Sequences: sets that stand between two targets, and who reads them.

use std::ops::Range;

use fastrand::Rng;

use super::super::provenance::Mark;
use super::*;
use crate::output::step::{Difference, Stage, Transient};

const ENFILE: i32 = 23;
const EMFILE: i32 = 24;

/// A step as the tests keep it.
#[derive(Clone)]
struct Made {
    files: Snapshot,
    standing: SortedSet<FileName>,
    transient: Option<Transient>,
    /// What the directory then holds, and what of it counts as its target.
    all: Snapshot,
    target: Snapshot,
}

impl Made {
    fn step(&self) -> Step<'_> {
        Step {
            files: &self.files,
            standing: &self.standing,
            transient: self.transient.as_ref(),
            watch: self.transient.is_some(),
            moves_listener: false,
        }
    }

    fn target(files: Snapshot) -> Made {
        Made {
            standing: SortedSet::new(),
            transient: None,
            all: files.clone(),
            target: files.clone(),
            files,
        }
    }
}

fn name(text: &str) -> FileName {
    FileName::new(text).unwrap()
}

fn file_names(text: &str) -> SortedSet<FileName> {
    text.split_whitespace().map(name).collect()
}

/// A step of `files` in which `cds.yaml` has `inserted` bytes too many, and `standing` files of
/// `before`.
fn made(
    files: &str,
    (before, standing): (&Snapshot, &str),
    stage: Stage,
    inserted: Range<u64>,
    vanishing: &str,
) -> Made {
    let files = set(files);
    let standing = file_names(standing);
    let mut all = files.clone();
    all.extend(
        standing
            .iter()
            .map(|name| (name.clone(), before[name].clone())),
    );
    let vanishing = file_names(vanishing);
    let mut target = all.clone();
    if stage == Stage::Routes {
        target.retain(|name, _| !vanishing.contains(name));
        let union = target.get_mut(&name("cds.yaml")).unwrap();
        let mut bytes = union.bytes.to_vec();
        bytes.drain(inserted.start as usize..inserted.end as usize);
        union.bytes = bytes.into();
    }
    let transient = Some(Transient {
        stage,
        inserted: [(name("cds.yaml"), inserted)].into_iter().collect(),
        vanishing,
    });
    Made {
        files,
        standing,
        transient,
        all,
        target,
    }
}

const FROM: &str = "cds.yaml=c1 old.yaml=o1 rds.yaml=r1 same.yaml=s1";
const TO: &str = "cds.yaml=c2 new.yaml=n2 rds.yaml=r2 same.yaml=s1";

/// The steps from [`FROM`] to [`TO`].
fn sequence() -> [Made; 3] {
    let from = set(FROM);
    let clusters = made(
        "cds.yaml=[c1]c2 new.yaml=n2",
        (&from, "old.yaml rds.yaml same.yaml"),
        Stage::Clusters,
        0..4,
        "",
    );
    let routes = made(
        "cds.yaml=[c1]c2 new.yaml=n2 rds.yaml=r2 same.yaml=s1",
        (&from, "old.yaml"),
        Stage::Routes,
        0..4,
        "old.yaml",
    );
    [clusters, routes, Made::target(set(TO))]
}

fn take(publisher: &mut OutputDirectory, made: &Made) -> Result<Option<Published>, Error> {
    let compared = publisher.compare(made.step())?;
    publisher.write(compared)
}

fn difference(publisher: &mut OutputDirectory, made: &Made) -> Option<Difference> {
    publisher.compare(made.step()).unwrap().difference()
}

fn read(dir: &Path, name: &str) {
    fs::read(dir.join("current").join(name)).unwrap();
}

#[test]
fn each_step_is_a_whole_set_and_counts_as_its_target() {
    let temp = tempdir();
    let dir = temp.path();
    let mut publisher = open(dir);
    publish(&mut publisher, FROM);
    let [clusters, routes, target] = sequence();
    let told = [
        (&clusters, vec!["cds.yaml", "new.yaml"], vec![], 3),
        (&routes, vec!["rds.yaml"], vec![], 4),
        (&target, vec!["cds.yaml"], vec!["old.yaml"], 3),
    ];
    for (made, changed, removed, links) in told {
        rearm(&publisher);
        let found = difference(&mut publisher, made).unwrap();
        let published = take(&mut publisher, made).unwrap().unwrap();
        assert_eq!(list(&published.changed), changed);
        assert_eq!(list(&published.removed), removed);
        assert!(published.unwatched.is_none());
        let mut announced = found.changed.clone();
        announced.extend(found.added.iter().cloned());
        assert_eq!(announced, published.changed.into_iter().collect());
        assert_eq!(found.removed, published.removed.into_iter().collect());
        assert_eq!(calls(&publisher, "link"), links);
        assert_eq!(seen(dir), contents(&made.all));
        assert_eq!(publisher.last_good().unwrap().unwrap(), made.target);
        let standing = publisher.standing().unwrap().unwrap();
        assert!(standing.set == made.target && standing.complete);
        assert_eq!(publisher.visible_transient(), made.transient);
        for (name, file) in &made.all {
            assert_eq!(publisher.visible_file(name).unwrap().as_ref(), Some(file));
        }
        assert_eq!(publisher.visible_file(&name("x")).unwrap(), None);
        assert!(take(&mut publisher, made).unwrap().is_none());
        publisher.end_watch();
    }
    publisher.make_durable().unwrap();
    tidy(dir, &target.all);
}

#[test]
fn sources_say_what_is_not_of_the_target() {
    let temp = tempdir();
    let mut publisher = open(temp.path());
    publish(&mut publisher, FROM);
    for (made, number) in sequence().iter().take(2).zip(2..) {
        take(&mut publisher, made).unwrap().unwrap();
        let text = fs::read(temp.path().join(format!(".sets/{number}.sources"))).unwrap();
        let lines: serde_json::Value = serde_json::from_slice(&text).unwrap();
        let stage = made.transient.as_ref().unwrap().stage;
        for (name, line) in lines.as_object().unwrap() {
            let stage_name = ["clusters", "routes"][usize::from(stage == Stage::Routes)];
            assert_eq!(line["transient"], stage_name);
            let union = name == "cds.yaml";
            assert_eq!(line.get("insertedAt").is_some(), union, "{line}");
            assert_eq!(line.get("insertedLen").is_some_and(|len| *len == 4), union);
            let vanishes = stage == Stage::Routes && name == "old.yaml";
            assert_eq!(line.get("vanishing").is_some(), vanishes, "{line}");
        }
    }
}

/// What a run finds in a directory that another has left in mid-sequence.
#[track_caller]
fn goes_on(dir: &Path, at: usize) {
    let steps = sequence();
    let made = &steps[at];
    let mut next = open(dir);
    assert_eq!(seen(dir), contents(&made.all));
    assert_eq!(next.visible_transient(), made.transient);
    assert_eq!(next.last_good().unwrap().unwrap(), made.target);
    assert!(next.standing().unwrap().unwrap().complete);
    assert_eq!(difference(&mut next, made), Some(Difference::default()));
    for made in &steps[at..] {
        take(&mut next, made).unwrap();
        assert_eq!(seen(dir), contents(&made.all));
        next.end_watch();
        next.make_durable().unwrap();
    }
    drop(next);
    drop(open(dir));
    tidy(dir, &steps[2].all);
}

#[test]
fn another_run_goes_on_from_each_stage_synced_or_not() {
    for at in 0..2 {
        for synced in [false, true] {
            let temp = tempdir();
            let mut publisher = open(temp.path());
            publish(&mut publisher, FROM);
            for made in &sequence()[..=at] {
                take(&mut publisher, made).unwrap();
            }
            if synced {
                publisher.end_watch();
                publisher.make_durable().unwrap();
            }
            drop(publisher);
            goes_on(temp.path(), at);
        }
    }
}

#[test]
fn goes_on_from_what_a_run_has_left_in_mid_sequence() {
    for (at, stage) in ["clusters", "routes"].iter().enumerate() {
        let (_temp, dir) = super::migration::recorded(stage);
        goes_on(&dir, at);
    }
}

/// The steps that are left, the last one that was taken included.
fn left(dir: &Path) -> Vec<Made> {
    let (found, mut left) = (seen(dir), sequence().to_vec());
    let at = left.iter().position(|made| contents(&made.all) == found);
    left.drain(..at.unwrap_or(0));
    left
}

/// A life that takes the steps as the loop does, up to where it is cut.
fn run(publisher: &mut OutputDirectory) -> Result<(), Error> {
    for made in left(&publisher.at.dir) {
        take(publisher, &made)?;
        if made
            .transient
            .is_none_or(|transient| transient.stage == Stage::Routes)
        {
            publisher.end_watch();
            publisher.make_durable()?;
            publisher.prepare();
        }
    }
    Ok(())
}

/// What Envoy finds is one of the sets, and what counts as published one of the targets.
#[track_caller]
fn one_of_them(dir: &Path, at: &str) {
    let steps = sequence();
    let from = Made::target(set(FROM));
    let found = seen(dir);
    let all = || [&from].into_iter().chain(&steps);
    let now = all().find(|made| found == contents(&made.all));
    let now = now.unwrap_or_else(|| panic!("mixed at {at}: {found:?}"));
    let next = open(dir);
    assert_eq!(seen(dir), found, "{at}: open touched what Envoy sees");
    assert_eq!(next.last_good().unwrap(), Some(now.target.clone()), "{at}");
    let standing = next.standing().unwrap().unwrap();
    assert!(standing.complete && standing.set == now.target, "{at}");
    assert_eq!(next.visible_transient(), now.transient, "{at}");
}

/// The next life converges, be it by steps or at once.
#[track_caller]
fn converges(dir: &Path, by_steps: bool, at: &str) {
    let mut next = open(dir);
    if by_steps {
        run(&mut next).unwrap();
    } else {
        publish(&mut next, TO);
    }
    drop(next);
    drop(open(dir));
    tidy(dir, &set(TO));
    assert!(publish(&mut open(dir), TO).is_none(), "{at}");
}

#[test]
fn a_kill_at_any_call_of_a_sequence_leaves_one_of_its_sets() {
    for n in 1.. {
        let at = format!("call {n}");
        let temp = tempdir();
        let mut publisher = open(temp.path());
        publish(&mut publisher, FROM);
        publisher.prepare();
        publisher.disk.fault.arm(How::Kill(n));
        let result = run(&mut publisher);
        let hit = publisher.disk.fault.hit();
        drop(publisher);
        one_of_them(temp.path(), &at);
        converges(temp.path(), n % 2 == 0, &at);
        if !hit {
            result.unwrap();
            assert!(n > 100, "{n}");
            break;
        }
    }
}

#[test]
fn a_kill_in_the_run_after_a_kill_leaves_one_of_its_sets() {
    let mut points = 0;
    for n in (1..).step_by(4) {
        let mut hit = false;
        for m in (1 + n % 9..).step_by(9) {
            let at = format!("call {n}, then {m}");
            let temp = tempdir();
            let mut publisher = open(temp.path());
            publish(&mut publisher, FROM);
            publisher.disk.fault.arm(How::Kill(n));
            let _ = run(&mut publisher);
            hit = publisher.disk.fault.hit();
            drop(publisher);
            let fault = Fault::default();
            if let Ok(mut second) = free(|| open_to(&fault, How::Kill(m), temp.path())) {
                let _ = run(&mut second);
            }
            one_of_them(temp.path(), &at);
            converges(temp.path(), m % 2 == 0, &at);
            if !fault.hit() {
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
fn an_error_at_any_call_of_a_sequence_leaves_one_of_its_sets_and_a_retry_goes_on() {
    for errno in [EIO, ENOSPC] {
        for n in 1.. {
            let at = format!("call {n} errno {errno}");
            let temp = tempdir();
            let mut publisher = open(temp.path());
            publish(&mut publisher, FROM);
            publisher.disk.fault.arm(How::Once(n, errno));
            let _ = run(&mut publisher);
            let hit = publisher.disk.fault.hit();
            rearm(&publisher);
            let found = seen(temp.path());
            let mut sets = sequence().map(|made| contents(&made.all)).to_vec();
            sets.push(contents(&set(FROM)));
            assert!(sets.contains(&found), "mixed at {at}: {found:?}");
            // Whatever the state is, all of the sequence can be taken again.
            for made in &left(temp.path()) {
                take(&mut publisher, made).unwrap();
                assert_eq!(seen(temp.path()), contents(&made.all), "{at}");
                assert_eq!(publisher.last_good().unwrap().unwrap(), made.target, "{at}");
            }
            publisher.end_watch();
            publisher.make_durable().unwrap();
            drop(publisher);
            drop(open(temp.path()));
            tidy(temp.path(), &set(TO));
            if !hit {
                break;
            }
        }
    }
}

#[test]
fn what_a_file_standing_was_edited_to_is_not_carried_over() {
    let temp = tempdir();
    let mut publisher = open(temp.path());
    publish(&mut publisher, FROM);
    edit(&temp.path().join("current/rds.yaml"), "xx");
    assert!(publisher.check().unwrap());
    let [clusters, routes, _] = sequence();
    assert_eq!(difference(&mut publisher, &clusters), None);
    assert!(take(&mut publisher, &clusters).unwrap().is_none());
    assert_eq!(seen(temp.path())["cds.yaml"], b"c1");
    // A step that brings the file itself is as good as ever.
    let found = difference(&mut publisher, &routes).unwrap();
    assert_eq!(found.changed, file_names("cds.yaml rds.yaml"));
    assert_eq!(found.added, file_names("new.yaml"));
}

#[test]
fn what_cannot_be_linked_is_copied() {
    let temp = tempdir();
    let mut publisher = open(temp.path());
    publish(&mut publisher, FROM);
    publisher.disk.fault.arm(How::Each("link", EACCES));
    run(&mut publisher).unwrap();
    drop(publisher);
    drop(open(temp.path()));
    tidy(temp.path(), &set(TO));
}

#[test]
fn the_first_set_of_all_has_nothing_to_be_compared_with() {
    let temp = tempdir();
    let mut publisher = open(temp.path());
    let [clusters, _, target] = sequence();
    assert_eq!(difference(&mut publisher, &clusters), None);
    assert!(take(&mut publisher, &clusters).unwrap().is_none());
    assert_eq!(difference(&mut publisher, &target), None);
    take(&mut publisher, &target).unwrap().unwrap();
}

// ---- Who reads ----

#[test]
fn only_readers_of_a_watched_file_are_reported() {
    let temp = tempdir();
    let dir = temp.path();
    let mut publisher = open(dir);
    publish(&mut publisher, FROM);
    assert!(publisher.reads().is_none() && publisher.take_read().is_empty());
    let [clusters, ..] = sequence();
    take(&mut publisher, &clusters).unwrap();
    assert!(publisher.reads().is_some());
    assert_eq!(publisher.take_read(), file_names(""));
    read(dir, "rds.yaml");
    assert_eq!(publisher.take_read(), file_names(""));
    read(dir, "cds.yaml");
    read(dir, "cds.yaml");
    assert_eq!(publisher.take_read(), file_names("cds.yaml"));
    read(dir, "cds.yaml");
    assert_eq!(publisher.take_read(), file_names(""));
    read(dir, "new.yaml");
    assert_eq!(publisher.take_read(), file_names("new.yaml"));
    publisher.end_watch();
    assert!(publisher.reads().is_none());
}

#[test]
fn a_watch_goes_on_with_a_file_that_is_carried_over_and_ends_with_one_that_is_replaced() {
    let temp = tempdir();
    let dir = temp.path();
    let mut publisher = open(dir);
    publish(&mut publisher, FROM);
    let [clusters, routes, target] = sequence();
    take(&mut publisher, &clusters).unwrap();
    let mut late = fs::File::open(dir.join("current/cds.yaml")).unwrap();
    take(&mut publisher, &routes).unwrap();
    read(dir, "new.yaml");
    assert_eq!(publisher.take_read(), file_names("new.yaml"));
    let mut target = target.step();
    target.watch = true;
    let compared = publisher.compare(target).unwrap();
    publisher.write(compared).unwrap().unwrap();
    // This was opened two sets ago.
    std::io::Read::read(&mut late, &mut [0; 9]).unwrap();
    drop(late);
    read(dir, "rds.yaml");
    assert_eq!(publisher.take_read(), file_names("rds.yaml"));
    read(dir, "cds.yaml");
    assert_eq!(publisher.take_read(), file_names("cds.yaml"));
}

#[test]
fn a_watch_of_no_file_is_none() {
    let temp = tempdir();
    let mut publisher = open(temp.path());
    publish(&mut publisher, FROM);
    let [clusters, ..] = sequence();
    take(&mut publisher, &clusters).unwrap();
    publisher.publish(&set("rds.yaml=1")).unwrap().unwrap();
    assert!(publisher.reads().is_none());
    assert_eq!(publisher.make_durable().unwrap(), Synced::Done);
}

#[test]
fn nothing_of_ours_reads_what_is_watched() {
    let temp = tempdir();
    let dir = temp.path();
    let mut publisher = open(dir);
    publish(&mut publisher, FROM);
    for (made, watched) in sequence().iter().zip(["cds.yaml new.yaml", "rds.yaml"]) {
        // Bytes that are equal and not the same.
        let copy = |file: &File| File {
            bytes: file.bytes.to_vec().into(),
            origin: file.origin.clone(),
        };
        let mut again = made.clone();
        again.files.values_mut().for_each(|file| *file = copy(file));
        take(&mut publisher, made).unwrap().unwrap();
        rearm(&publisher);
        for _ in 0..2 {
            assert_eq!(publisher.make_durable().unwrap(), Synced::AfterWatch);
            publisher.prepare();
            assert!(!publisher.check().unwrap());
            assert!(take(&mut publisher, &again).unwrap().is_none());
            assert_eq!(publisher.last_good().unwrap().unwrap(), made.target);
            assert_eq!(publisher.standing().unwrap().unwrap().set, made.target);
            for (name, file) in &made.all {
                assert_eq!(publisher.visible_file(name).unwrap().as_ref(), Some(file));
            }
            publisher.needs_recheck = true;
        }
        assert_eq!(publisher.take_read(), file_names(""), "{watched}");
        let log = publisher.disk.fault.log.take();
        for name in watched.split_whitespace() {
            let opened = |(verb, path): &&(&str, PathBuf)| *verb == "open" && path.ends_with(name);
            assert_eq!(log.iter().find(opened), None);
            read(dir, name);
        }
        assert_eq!(publisher.take_read(), file_names(watched));
    }
    publisher.end_watch();
    assert_eq!(publisher.make_durable().unwrap(), Synced::Done);
}

#[test]
fn foreign_files_are_taken_over_in_mid_sequence() {
    let temp = tempdir();
    let dir = temp.path();
    let mut publisher = open(dir);
    publish(&mut publisher, FROM);
    let [clusters, _, target] = sequence();
    take(&mut publisher, &clusters).unwrap();
    publisher.end_watch();
    publisher.make_durable().unwrap();
    take(&mut publisher, &target).unwrap().unwrap();
    fs::remove_file(dir.join("current")).unwrap();
    fs::create_dir(dir.join("current")).unwrap();
    for (name, file) in &target.all {
        fs::write(dir.join("current").join(name.as_str()), &file.bytes).unwrap();
    }
    assert!(publisher.check().unwrap());
    publisher.publish_durably(&set(TO)).unwrap();
    drop(publisher);
    drop(open(dir));
    assert_eq!(seen(dir), contents(&set(TO)));
}

#[test]
fn an_edit_of_a_watched_file_is_found_without_reading_it() {
    let temp = tempdir();
    let dir = temp.path();
    let mut publisher = open(dir);
    publish(&mut publisher, FROM);
    let [clusters, ..] = sequence();
    take(&mut publisher, &clusters).unwrap();
    let file = dir.join("current/cds.yaml");
    let written = || fs::metadata(&file).unwrap().modified().unwrap();
    let before = written();
    while written() == before {
        fs::write(&file, "edited").unwrap();
    }
    assert!(publisher.check().unwrap());
    let [again, ..] = sequence();
    let published = take(&mut publisher, &again).unwrap().unwrap();
    assert_eq!(list(&published.changed), ["cds.yaml"]);
    assert_eq!(publisher.take_read(), file_names(""));
    assert_eq!(seen(dir), contents(&again.all));
}

#[test]
fn where_nothing_can_be_watched_the_set_is_published_and_synced_all_the_same() {
    for errno in [EMFILE, ENFILE] {
        let temp = tempdir();
        let mut publisher = open(temp.path());
        publish(&mut publisher, FROM);
        let [clusters, routes, _] = sequence();
        publisher.disk.fault.arm(How::Each("watch", errno));
        let published = take(&mut publisher, &clusters).unwrap().unwrap();
        let error = published.unwatched.unwrap().to_string();
        assert!(error.starts_with("failed to watch "), "{error}");
        assert!(publisher.reads().is_none());
        assert_eq!(seen(temp.path()), contents(&clusters.all));
        assert_eq!(publisher.make_durable().unwrap(), Synced::Done);
        rearm(&publisher);
        let published = take(&mut publisher, &routes).unwrap().unwrap();
        assert!(published.unwatched.is_none() && publisher.reads().is_some());
    }
}

#[test]
fn where_not_all_can_be_watched_none_is() {
    let mut unwatched = 0;
    for call in 1.. {
        let temp = tempdir();
        let mut publisher = open(temp.path());
        publish(&mut publisher, FROM);
        let [clusters, ..] = sequence();
        publisher.disk.fault.arm(How::Once(call, ENOSPC));
        let published = take(&mut publisher, &clusters);
        if !publisher.disk.fault.hit() {
            break;
        }
        // Elsewhere it fails, or is tried again.
        if let Ok(Some(published)) = published
            && published.unwatched.is_some()
        {
            unwatched += 1;
            assert!(publisher.reads().is_none(), "{call}");
        }
    }
    assert!(unwatched >= 2, "{unwatched}: the watch, and each file");
}

// ---- How much of the disk it takes ----

/// The space that all sets take, by what the file system says.
fn used(dir: &Path) -> u64 {
    let mut inodes = SortedMap::new();
    let mut todo = vec![dir.join(".sets")];
    while let Some(path) = todo.pop() {
        let found = fs::symlink_metadata(&path).unwrap();
        inodes.insert(found.ino(), found.blocks() * 512);
        if found.is_dir() {
            todo.extend(
                fs::read_dir(path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
        }
    }
    inodes.values().sum()
}

/// A file of so many bytes that no other has.
fn large(seed: u64, size: usize) -> File {
    let mut rng = Rng::with_seed(seed);
    let mut file = set("x=").remove(&name("x")).unwrap();
    file.bytes = std::iter::repeat_with(|| rng.u8(..)).take(size).collect();
    file
}

#[test]
fn all_sets_together_stay_below_eight_times_the_target_and_a_mebibyte() {
    stay_below(Keep::Nothing);
    stay_below(Keep::Verdicts);
}

#[track_caller]
fn stay_below(keep: Keep) {
    const SIZE: usize = 1 << 20;
    let limit = 8 * 2 * SIZE as u64 + (1 << 20);
    let temp = tempdir();
    let dir = temp.path();
    let open = || free(|| OutputDirectory::open(dir, keep)).unwrap();
    let mut publisher = open();
    let target = |n: u64| -> Snapshot {
        let files = [
            ("cds.yaml", large(n, SIZE)),
            ("rds.yaml", large(n + 1000, SIZE)),
        ];
        files.map(|(text, file)| (name(text), file)).into()
    };
    publisher.publish_durably(&target(0)).unwrap();
    let mut good = None;
    let mut most = 0;
    for n in 1..12 {
        // Envoy has accepted one; of those that follow, it has said nothing.
        if n % 5 == 1 {
            good = publisher.visible();
        }
        let memory = n.to_string();
        publisher.note_verdicts([good, good], &memory).unwrap();
        // Each change comes before the drop of the last, and keeps as much as the target has.
        let mut files = target(n);
        let mut union = large(n + 2000, SIZE).bytes.to_vec();
        union.extend_from_slice(&files[&name("cds.yaml")].bytes);
        files.get_mut(&name("cds.yaml")).unwrap().bytes = union.into();
        let extra = name("old.yaml");
        files.insert(extra.clone(), large(n + 3000, SIZE));
        let transient = Transient {
            stage: Stage::Routes,
            inserted: [(name("cds.yaml"), 0..SIZE as u64)].into_iter().collect(),
            vanishing: [extra].into(),
        };
        let mut step = Step::target(&files);
        (step.transient, step.watch) = (Some(&transient), true);
        let compared = publisher.compare(step).unwrap();
        publisher.write(compared).unwrap().unwrap();
        most = most.max(used(dir));
        assert!(used(dir) < limit, "{} at {n}", used(dir));
        assert_eq!(publisher.last_good().unwrap().unwrap(), target(n));
        if n % 3 == 0 {
            publisher.end_watch();
            publisher.make_durable().unwrap();
        }
        if n == 8 {
            drop(publisher);
            publisher = open();
            assert!(used(dir) < limit);
        }
        if keep == Keep::Verdicts {
            assert!(publisher.set_files(good.unwrap()).unwrap().is_some());
        }
    }
    // There is no need to keep less than that.
    assert!(most > limit / 2, "{most}");
    publisher.publish_durably(&target(99)).unwrap();
    assert!(used(dir) < limit);
}

#[test]
fn a_target_that_has_become_small_takes_little() {
    let temp = tempdir();
    let mut publisher = open(temp.path());
    for n in 0..4 {
        let files = [(name("cds.yaml"), large(n, 4 << 20))].into();
        publisher.publish_durably(&files).unwrap();
    }
    publish(&mut publisher, "cds.yaml=1");
    assert!(used(temp.path()) < 1 << 20, "{}", used(temp.path()));
    tidy(temp.path(), &set("cds.yaml=1"));
}

// ---- Whatever comes ----

/// A step from what is visible: any of its files may change, vanish or stay, and be watched.
fn any_step(rng: &mut Rng, visible: &Snapshot, count: &mut u32) -> Made {
    let names = ["cds.yaml", "eds.yaml", "lds.yaml", "rds.yaml"].map(name);
    let stage = [Stage::Clusters, Stage::Routes][rng.usize(..2)];
    let is_target = rng.bool();
    let mut made = Made::target(Snapshot::new());
    let mut marks = SortedMap::new();
    for name in names {
        let old = visible.get(&name);
        let mut mark = Mark {
            stage,
            inserted: None,
            vanishing: !is_target && rng.u8(..4) == 0,
        };
        let file = match (rng.u8(..6), old) {
            (0, _) => continue,
            (1 | 2, Some(old)) if !is_target => {
                made.standing.insert(name.clone());
                old.clone()
            }
            (3, Some(old)) => old.clone(),
            (_, _) => {
                *count += 1;
                set(&format!("x={count}."))
                    .remove(&FileName::new("x").unwrap())
                    .unwrap()
            }
        };
        if !is_target && rng.bool() {
            mark.inserted = Some(0..rng.u64(..2));
        }
        if !made.standing.contains(&name) {
            made.files.insert(name.clone(), file.clone());
        }
        made.all.insert(name.clone(), file.clone());
        let mut file = file;
        if stage == Stage::Routes && !is_target {
            let cut = mark.inserted.as_ref().map_or(0, |inserted| inserted.end) as usize;
            file.bytes = file.bytes[cut..].into();
        }
        if stage == Stage::Clusters || !mark.vanishing {
            made.target.insert(name.clone(), file);
        }
        marks.insert(name, mark);
    }
    if !is_target && !marks.is_empty() {
        let inserted = marks
            .iter()
            .filter_map(|(n, m)| Some((n.clone(), m.inserted.clone()?)));
        let vanishing = marks.iter().filter(|(_, mark)| mark.vanishing);
        made.transient = Some(Transient {
            stage,
            inserted: inserted.collect(),
            vanishing: vanishing.map(|(name, _)| name.clone()).collect(),
        });
    }
    made
}

#[test]
fn whatever_comes_between_steps_each_is_what_envoy_finds_and_only_others_read_it() {
    let (mut restarts, mut retries) = (0, 0);
    for seed in 0..150 {
        let mut rng = Rng::with_seed(seed);
        let temp = tempdir();
        let dir = temp.path();
        let mut publisher = open(dir);
        let mut visible = Made::target(set(FROM));
        take(&mut publisher, &visible).unwrap();
        let mut count = 0;
        for _ in 0..20 {
            let at = format!("seed {seed}, file {count}");
            match rng.u8(..8) {
                0 => assert!(!publisher.check().unwrap(), "{at}"),
                1 => publisher.prepare(),
                2 => {
                    publisher.end_watch();
                    publisher.make_durable().unwrap();
                }
                3 => {
                    drop(publisher);
                    publisher = open(dir);
                    restarts += 1;
                }
                4 => drop(publisher.make_durable().unwrap()),
                _ => {}
            }
            let next = any_step(&mut rng, &visible.all, &mut count);
            if rng.u8(..4) == 0 {
                publisher.disk.fault.arm(How::Once(rng.u64(1..40), EIO));
                let failed = take(&mut publisher, &next).is_err();
                let now = seen(dir);
                let known = [contents(&visible.all), contents(&next.all)];
                assert!(known.contains(&now), "{at}: mixed");
                publisher.take_read();
                retries += u32::from(failed);
                rearm(&publisher);
            }
            if difference(&mut publisher, &next).is_none() {
                assert!(!next.standing.is_empty(), "{at}");
                continue;
            }
            take(&mut publisher, &next).unwrap();
            assert_eq!(
                seen_without_reading(dir),
                contents(&next.all).into_keys().collect()
            );
            assert_eq!(
                publisher.last_good().unwrap(),
                Some(next.target.clone()),
                "{at}"
            );
            assert_eq!(publisher.visible_transient(), next.transient, "{at}");
            assert_eq!(publisher.take_read(), file_names(""), "{at}");
            // All of a set can be read through its links, and is not reported twice.
            if rng.bool() {
                assert_eq!(seen(dir), contents(&next.all), "{at}");
                publisher.take_read();
                assert_eq!(seen(dir), contents(&next.all), "{at}");
                assert_eq!(publisher.take_read(), file_names(""), "{at}");
            }
            visible = next;
        }
        publisher.end_watch();
        publisher.publish_durably(&set(TO)).unwrap();
        drop(publisher);
        drop(open(dir));
        tidy(dir, &set(TO));
    }
    assert!(restarts > 100 && retries > 100, "{restarts} {retries}");
}

/// The names that Envoy finds.
fn seen_without_reading(dir: &Path) -> SortedSet<String> {
    let current = dir.join("current");
    let found = names(&current).into_iter();
    found.filter(|name| current.join(name).exists()).collect()
}
