//! The time of a listener's last change, as the next run finds it.

use std::time::Duration;

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};

use super::*;

const MOMENT: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// Publishes a set with which a listener changes.
fn move_listener(publisher: &mut OutputDirectory, text: &str) {
    let files = set(text);
    let mut step = Step::target(&files);
    step.moves_listener = true;
    let compared = publisher.compare(step).unwrap();
    assert!(publisher.write(compared).unwrap().is_some());
}

/// Makes a link older by so much.
fn age(link: &Path, by_secs: i64) {
    let found = fs::symlink_metadata(link).unwrap();
    let then = Timespec {
        tv_sec: found.mtime() - by_secs,
        tv_nsec: found.mtime_nsec(),
    };
    let both = Timestamps {
        last_access: then,
        last_modification: then,
    };
    utimensat(CWD, link, &both, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

#[track_caller]
fn is_about(found: Option<Duration>, want: Duration) {
    let found = found.expect("it is not known");
    assert!(found >= want && found < want + MOMENT, "{found:?}");
}

#[test]
fn the_next_run_knows_how_long_ago_a_listener_changed() {
    let temp = tempdir();
    let dir = temp.path();
    let moved = dir.join(".sets/moved");
    let mut publisher = open(dir);
    publish(&mut publisher, "lds.yaml=1 rds.yaml=1");
    assert_eq!(publisher.listener_moved_ago(), None);
    assert!(fs::symlink_metadata(&moved).is_err());
    // What was made ahead long ago does not tell of the change.
    publisher.prepare();
    for link in prepared_links(&publisher) {
        age(&dir.join(".sets/.links").join(link), 3600);
    }
    move_listener(&mut publisher, "lds.yaml=2 rds.yaml=1");
    assert_eq!(fs::read_link(&moved).unwrap(), Path::new("2"));
    is_about(publisher.listener_moved_ago(), Duration::ZERO);
    publisher.make_durable().unwrap();
    age(&moved, 2 * 3600);
    publish(&mut publisher, "lds.yaml=2 rds.yaml=2");
    drop(publisher);
    let mut publisher = open(dir);
    is_about(publisher.listener_moved_ago(), 2 * HOUR);
    // Its set goes, and the link stays.
    for n in 3..12 {
        publish(&mut publisher, &format!("lds.yaml=2 rds.yaml={n}"));
    }
    drop(publisher);
    assert!(!dir.join(".sets/2").exists());
    is_about(open(dir).listener_moved_ago(), 2 * HOUR);
    // The clock was set back.
    age(&moved, -5 * 3600);
    assert_eq!(open(dir).listener_moved_ago(), Some(Duration::ZERO));
}

#[test]
fn a_change_that_envoy_may_not_have_been_told_of_begins_with_the_next_run() {
    let temp = tempdir();
    let dir = temp.path();
    let mut publisher = open(dir);
    publish(&mut publisher, "lds.yaml=1");
    move_listener(&mut publisher, "lds.yaml=2");
    age(&dir.join(".sets/moved"), 3600);
    drop(publisher);
    let mut publisher = open(dir);
    assert_eq!(publisher.listener_moved_ago(), Some(Duration::ZERO));
    publish(&mut publisher, "lds.yaml=2");
    drop(publisher);
    is_about(open(dir).listener_moved_ago(), HOUR);
}

#[test]
fn what_stands_in_the_place_of_the_link_keeps_nothing_from_being_published() {
    let temp = tempdir();
    let dir = temp.path();
    let mut publisher = open(dir);
    publish(&mut publisher, "lds.yaml=1");
    fs::create_dir_all(dir.join(".sets/moved/x")).unwrap();
    move_listener(&mut publisher, "lds.yaml=2");
    assert_eq!(publisher.listener_moved_ago(), None);
    assert_eq!(seen(dir), contents(&set("lds.yaml=2")));
    assert_eq!(names(&dir.join(".sets/.links")), SortedSet::new());
    fs::remove_dir_all(dir.join(".sets/moved")).unwrap();
    move_listener(&mut publisher, "lds.yaml=3");
    publisher.make_durable().unwrap();
    is_about(publisher.listener_moved_ago(), Duration::ZERO);
}

#[test]
fn a_kill_at_any_call_of_a_change_of_listeners_leaves_a_time_that_is_not_too_early() {
    for n in 1.. {
        let temp = tempdir();
        let dir = temp.path();
        let mut publisher = open(dir);
        publish(&mut publisher, "lds.yaml=1");
        publisher.disk.fault.arm(How::Kill(n));
        let files = set("lds.yaml=2");
        let mut step = Step::target(&files);
        step.moves_listener = true;
        let done = publisher
            .compare(step)
            .and_then(|compared| publisher.write(compared));
        let is_done = done.is_ok();
        drop(publisher);
        let has_moved = seen(dir) == contents(&files);
        let next = open(dir);
        if has_moved {
            assert_eq!(next.listener_moved_ago(), Some(Duration::ZERO), "{n}");
        }
        if is_done {
            return;
        }
    }
}
