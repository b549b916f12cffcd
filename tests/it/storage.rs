//! A file system that takes no more: full, read-only, or not ours to write. What Envoy reads stays
//! whole, one warning names the path, and it is tried again until it works.

use crate::kit::crossover::{Crossover, program};
use crate::kit::namespace::Namespace;
use crate::kit::until;
use crate::setup::{Setup, assert_found_in, found_in, until_found_in};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

const FOLLOW: [&str; 3] = ["-watch", "-sync-interval=1h", "-configmap=a"];
const REFUSED: &str = "the output directory cannot be written: trying again";
const AGAIN: &str = "the output directory can be written again";
const GOOD: [(&str, &str); 2] = [("a.yaml", "a: 1\n"), ("b.yaml", "a: 1\n")];
const NEW: [(&str, &str); 2] = [("a.yaml", "a: 2\n"), ("b.yaml", "a: 2\n")];
/// Nobody's uid, but by convention.
const NOBODY: u32 = 65534;

/// An output directory that is a file system of its own, which only the program can see.
struct Volume {
    setup: Setup,
    namespace: Namespace,
}

impl Volume {
    /// Options of a tmpfs.
    fn new(options: &str) -> Volume {
        let (setup, namespace) = (Setup::new(), Namespace::new(&["--mount"]));
        fs::create_dir(setup.output()).unwrap();
        let out = setup.path("out");
        namespace.run(&format!("mount -t tmpfs -o {options} tmpfs {out}"));
        Volume { setup, namespace }
    }

    /// Read-only for whatever is opened from now on; or as it was before.
    fn cover_read_only(&self, covered: bool) {
        let out = self.setup.path("out");
        if covered {
            self.namespace.run(&format!("mount --bind {out} {out}"));
            self.namespace
                .run(&format!("mount -o remount,bind,ro {out}"));
        } else {
            self.namespace.run(&format!("umount {out}"));
        }
    }

    fn remount(&self, options: &str) {
        let out = self.setup.path("out");
        self.namespace
            .run(&format!("mount -o remount,{options} {out}"));
    }

    fn start(&self, flags: &[&str]) -> Crossover {
        Crossover::spawn(self.namespace.command(&self.setup.command(flags)))
    }

    /// Where we see it.
    fn path(&self) -> PathBuf {
        self.namespace.path(&self.setup.output())
    }

    #[track_caller]
    fn until_found(&self, want: &[(&str, &str)]) {
        until_found_in(&self.path(), want);
    }
}

/// Waits for a try to write a set, and until what is left is what was there before.
#[track_caller]
fn until_tried_again(output: &Path, sets: &[&str]) {
    let stamp = || {
        let found = fs::metadata(output.join(".sets")).unwrap();
        (found.ctime(), found.ctime_nsec())
    };
    let before = stamp();
    until("another try", || (stamp() != before).then_some(()));
    let mut want = vec![".life", ".links", ".lock", "active", "done"];
    want.extend(sets);
    want.sort_unstable();
    until("no leftovers", || {
        let entries = fs::read_dir(output.join(".sets")).unwrap();
        let mut names: Vec<_> = entries
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        let links = fs::read_dir(output.join(".sets/.links")).unwrap().count();
        // Four for keys, `active` and `current`: made ahead, and not used yet.
        (names == want && links <= 6).then_some(())
    });
}

/// One warning, with this path and reason; then it works again.
#[track_caller]
fn assert_told_once(process: Crossover, path: &str, reason: &str) {
    process.wait_for_line(AGAIN);
    let stderr = process.stop().stderr;
    let warnings: Vec<&str> = stderr.lines().filter(|l| l.contains(" WARN ")).collect();
    let [warning] = warnings.as_slice() else {
        panic!("not one warning: {stderr}");
    };
    for part in [REFUSED, path, reason] {
        assert!(warning.contains(part), "{part}: {warning}");
    }
}

#[test]
fn a_set_that_does_not_fit_on_the_disk_is_published_when_it_does() {
    let volume = Volume::new("size=256k");
    volume.setup.put("a", &GOOD);
    let process = volume.start(&FOLLOW);
    volume.until_found(&GOOD);
    let large = "x".repeat(300 << 10);
    let large = [NEW[0], NEW[1], ("c.txt", &large)];
    volume.setup.put("a", &large);
    process.wait_for_line(REFUSED);
    for _ in 0..2 {
        until_tried_again(&volume.path(), &["1", "1.sources"]);
        assert_found_in(&volume.path(), &GOOD);
    }
    volume.remount("size=1m");
    volume.until_found(&large);
    let sets = volume.setup.path("out/.sets/");
    assert_told_once(process, &sets, "No space left on device");
}

#[test]
fn a_disk_that_is_full_from_the_beginning_is_written_when_there_is_room() {
    // There is no page for a file; there is not even an inode for a directory.
    for (full, room) in [("size=64k", "size=256k"), ("nr_inodes=1", "nr_inodes=1000")] {
        let volume = Volume::new(full);
        if full.starts_with("size") {
            fs::write(volume.path().join("other"), [0; 64 << 10]).unwrap();
        }
        volume.setup.put("a", &GOOD);
        let process = volume.start(&FOLLOW);
        process.wait_for_line(REFUSED);
        assert_eq!(
            found_in(&volume.path()).unwrap_or_default(),
            BTreeMap::new()
        );
        volume.remount(room);
        volume.until_found(&GOOD);
        let sets = volume.setup.path("out/.sets");
        assert_told_once(process, &sets, "No space left on device");
    }
}

#[test]
fn a_disk_that_is_full_of_old_sets_takes_every_new_one() {
    // Room for four sets of four pages; as many are kept where there is room for more.
    let volume = Volume::new("size=64k");
    let text = |number: usize| format!("{number:0>10000}\n");
    volume.setup.put("a", &[("a.txt", &text(0))]);
    let process = volume.start(&FOLLOW);
    for number in 0..8 {
        volume.setup.put("a", &[("a.txt", &text(number))]);
        volume.until_found(&[("a.txt", &text(number))]);
    }
    process.wait_for_lines(8, "INFO  published ");
    let stderr = process.stop().stderr;
    assert!(!stderr.contains(" WARN "), "{stderr}");
}

#[test]
fn a_file_system_that_was_read_only_for_a_while_is_written_when_it_is_not() {
    let volume = Volume::new("size=256k");
    volume.setup.put("a", &GOOD);
    // Looks find nothing wrong with what is there.
    let process = volume.start(&["-watch", "-sync-interval=100ms", "-configmap=a"]);
    process.wait_for_line("INFO  published ");
    until("the set to be synced", || {
        volume.path().join(".sets/done").is_symlink().then_some(())
    });
    volume.cover_read_only(true);
    volume.setup.put("a", &NEW);
    process.wait_for_line(REFUSED);
    let looks = volume.setup.server.requests().len();
    let server = &volume.setup.server;
    server.wait_for_requests("looks", looks + 10, |_| true);
    assert_found_in(&volume.path(), &GOOD);
    volume.cover_read_only(false);
    volume.until_found(&NEW);
    let sets = volume.setup.path("out/.sets/");
    assert_told_once(process, &sets, "Read-only file system");
}

/// The program where it and its directory can be reached by anybody, run by nobody.
fn start_as_nobody(setup: &Setup) -> Crossover {
    let copy = setup.path("crossover");
    fs::copy(program(), &copy).unwrap();
    let below = PathBuf::from(setup.path(""));
    fs::set_permissions(below, fs::Permissions::from_mode(0o755)).unwrap();
    let ours = setup.command(&FOLLOW);
    let mut command = Command::new(copy);
    command.args(ours.get_args()).uid(NOBODY).gid(NOBODY);
    Crossover::spawn(command)
}

#[test]
fn a_directory_that_it_may_not_write_is_written_when_it_may() {
    let setup = Setup::new();
    setup.put("a", &GOOD);
    fs::create_dir(setup.output()).unwrap();
    let process = start_as_nobody(&setup);
    process.wait_for_line(REFUSED);
    chown(setup.output(), Some(NOBODY), None).unwrap();
    setup.until_found(&GOOD);
    assert_told_once(process, &setup.path("out/.sets"), "Permission denied");
}

#[test]
fn a_right_to_write_that_is_taken_away_is_waited_for() {
    let setup = Setup::new();
    setup.put("a", &GOOD);
    fs::create_dir(setup.output()).unwrap();
    chown(setup.output(), Some(NOBODY), None).unwrap();
    let process = start_as_nobody(&setup);
    setup.until_found(&GOOD);
    process.wait_for_line("INFO  published ");
    let sets = setup.output().join(".sets");
    chown(&sets, Some(0), None).unwrap();
    setup.put("a", &NEW);
    process.wait_for_line(REFUSED);
    setup.assert_found(&GOOD);
    chown(&sets, Some(NOBODY), None).unwrap();
    setup.until_found(&NEW);
    assert_told_once(process, &setup.path("out/.sets/"), "Permission denied");
}

#[test]
fn a_file_in_the_place_of_the_output_directory_is_let_alone_and_said() {
    let setup = Setup::new();
    setup.put("a", &GOOD);
    let process = setup.start(&["-watch", "-sync-interval=100ms", "-configmap=a"]);
    setup.until_found(&GOOD);
    process.wait_for_line("INFO  published ");
    fs::rename(setup.output(), setup.path("removed")).unwrap();
    fs::write(setup.output(), "foreign").unwrap();
    let warning = process.wait_for_line(REFUSED);
    let sets = setup.path("out/.sets");
    assert!(warning.contains(&sets), "{warning}");
    assert_eq!(fs::read(setup.output()).unwrap(), b"foreign");
    fs::remove_file(setup.output()).unwrap();
    setup.until_found(&GOOD);
    process.wait_for_line(AGAIN);
}
