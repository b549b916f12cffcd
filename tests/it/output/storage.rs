//! A file system that takes no more: full, read-only, or not ours to write. What Envoy reads stays
//! whole, one warning names the path, and it is tried again until it works.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use testkit::crossover::{Crossover, program};
use testkit::namespace::Namespace;
use testkit::setup::{Setup, assert_found_in, found_in, until_found_in};
use testkit::until;

const FOLLOW: [&str; 3] = ["-watch", "-sync-interval=1h", "-configmap=a"];
const REFUSED: &str = "output directory cannot be written; retrying";
const AGAIN: &str = "output directory can be written again";
const GOOD: [(&str, &str); 2] = [("a.yaml", "a: 1\n"), ("b.yaml", "a: 1\n")];
const NEW: [(&str, &str); 2] = [("a.yaml", "a: 2\n"), ("b.yaml", "a: 2\n")];
/// The uid that belongs to nobody, by convention.
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

    /// Returns its path as this process sees it.
    fn path(&self) -> PathBuf {
        self.namespace.path(&self.setup.output())
    }

    #[track_caller]
    fn until_found(&self, want: &[(&str, &str)]) {
        until_found_in(&self.path(), want);
    }
}

/// An output directory with a `current/` of an image layer, as a container has it.
fn image(prepare: fn(&Path)) -> Volume {
    // What overlayfs writes to cannot be on overlayfs.
    let volume = Volume::new("size=1m");
    for name in ["image/current", "upper", "work"] {
        fs::create_dir_all(volume.path().join(name)).unwrap();
    }
    let current = volume.path().join("image/current");
    fs::write(current.join("a.yaml"), "a: 0\n").unwrap();
    prepare(&current);
    let out = volume.setup.path("out");
    let layers = format!("lowerdir={out}/image,upperdir={out}/upper,workdir={out}/work");
    let mount = format!("mount -t overlay -o {layers} overlay {out}");
    volume.namespace.run(&mount);
    volume
}

#[test]
fn a_directory_current_of_an_image_layer_is_taken_over() {
    let volume = image(|current| symlink("/nowhere", current.join("c.yaml")).unwrap());
    volume.setup.put("a", &GOOD);
    let process = volume.start(&["-watch", "-sync-interval=100ms", "-configmap=a"]);
    volume.until_found(&GOOD);
    process.wait_for_line("INFO  published ");
    assert_eq!(
        fs::read_link(volume.path().join("current")).unwrap(),
        Path::new(".live")
    );
    volume.setup.put("a", &NEW);
    volume.until_found(&NEW);
    process.wait_for_lines(2, "INFO  published ");
    let stderr = process.stop().stderr;
    assert!(!stderr.contains(" WARN "), "{stderr}");
}

#[test]
fn files_of_an_image_layer_that_cannot_be_taken_over_stay_and_are_reported() {
    let volume = image(|current| fs::create_dir(current.join("envoy")).unwrap());
    volume.setup.put("a", &GOOD);
    let warning = volume.start(&FOLLOW).wait_for_line(REFUSED);
    let want =
        "out/current: a part of an image layer cannot be moved, and envoy in it is not a file";
    assert!(warning.contains(want), "{warning}");
    let finished = volume.start(&ONCE).finish();
    assert_eq!(finished.code, Some(1), "{}", finished.stderr);
    assert!(finished.stderr.contains(want), "{}", finished.stderr);
    let current = volume.path().join("current");
    assert_eq!(fs::read(current.join("a.yaml")).unwrap(), b"a: 0\n");
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
    start_as(setup, NOBODY, NOBODY, &FOLLOW)
}

/// The same, run by another uid and gid.
fn start_as(setup: &Setup, uid: u32, gid: u32, flags: &[&str]) -> Crossover {
    let copy = setup.path("crossover");
    if !Path::new(&copy).exists() {
        // By another process: a child that is forked meanwhile would hold the copy open for
        // writing.
        let copied = Command::new("cp").arg(program()).arg(&copy).status();
        assert!(copied.unwrap().success());
    }
    let below = PathBuf::from(setup.path(""));
    fs::set_permissions(below, fs::Permissions::from_mode(0o755)).unwrap();
    let ours = setup.command(flags);
    let mut command = Command::new(copy);
    command.args(ours.get_args()).uid(uid).gid(gid);
    Crossover::spawn(command)
}

/// An output directory of root with this group and mode.
fn shared(setup: &Setup, gid: u32, mode: u32) {
    fs::create_dir(setup.output()).unwrap();
    chown(setup.output(), Some(0), Some(gid)).unwrap();
    fs::set_permissions(setup.output(), fs::Permissions::from_mode(mode)).unwrap();
}

/// Gid of the pod, as an fsGroup.
const COMMON: u32 = 1234;
const ONCE: [&str; 2] = ["-onetime", "-configmap=a"];

#[track_caller]
fn assert_mode(setup: &Setup, path: &str, mode: u32) {
    let found = fs::symlink_metadata(setup.output().join(path)).unwrap();
    assert_eq!(
        format!("{:04o}", found.mode() & 0o7777),
        format!("{mode:04o}"),
        "{path}"
    );
}

#[test]
fn two_uids_with_a_common_group_write_one_directory_in_turn() {
    for (mode, dirs) in [(0o2770, 0o2775), (0o2777, 0o2775), (0o775, 0o775)] {
        let setup = Setup::new();
        shared(&setup, COMMON, mode);
        for (number, uid) in [1001, 1002, 1001, 1002, 1001, 1002].into_iter().enumerate() {
            let text = format!("a: {number}\n");
            setup.put("a", &[("a.yaml", &text), ("b.yaml", "b: 1\n")]);
            let finished = start_as(&setup, uid, COMMON, &ONCE).finish();
            assert_eq!(finished.code, Some(0), "{}", finished.stderr);
            assert!(!finished.stderr.contains(" WARN "), "{}", finished.stderr);
            setup.assert_found(&[("a.yaml", &text), ("b.yaml", "b: 1\n")]);
        }
        // The sidecar, which is the other one, too.
        let process = start_as(&setup, 1001, COMMON, &FOLLOW);
        setup.put("a", &NEW);
        setup.until_found(&NEW);
        process.wait_for_line("INFO  published ");
        assert!(!process.stop().stderr.contains(" WARN "));
        for path in [".live", ".sets", ".sets/.links", ".sets/7"] {
            assert_mode(&setup, path, dirs);
        }
        for path in [
            ".sets/7/a.yaml",
            ".sets/7.sources",
            ".sets/.life",
            ".sets/.lock",
        ] {
            assert_mode(&setup, path, 0o664);
        }
        assert_mode(&setup, "", mode);
    }
}

#[test]
fn no_other_group_gets_a_right_that_it_has_not_in_the_directory() {
    // Everybody may write there; the group is another's than the program's, or may not.
    for (owner, mode, gid) in [
        (0, 0o777, COMMON),
        (COMMON, 0o1777, 1001),
        (COMMON, 0o707, 1001),
    ] {
        let setup = Setup::new();
        setup.put("a", &GOOD);
        shared(&setup, owner, mode);
        let process = start_as(&setup, 1001, gid, &ONCE);
        assert_eq!(process.finish().code, Some(0));
        for path in [".live", ".sets", ".sets/1"] {
            assert_mode(&setup, path, 0o755);
        }
        assert_mode(&setup, ".sets/1/a.yaml", 0o644);
    }
}

#[test]
fn where_two_uids_cannot_share_a_directory_it_says_who_made_what_and_what_to_set() {
    let two = "and this is uid 1002: give both one runAsUser, or ";
    let cases = [
        (
            0o777,
            1002,
            ".sets (mode 0755, group 1234), ",
            "the pod an fsGroup",
        ),
        (
            0o3777,
            COMMON,
            "current (mode 0777, group 1234), ",
            "take the sticky bit from its directory",
        ),
    ];
    for (mode, gid, made, cure) in cases {
        let setup = Setup::new();
        shared(&setup, if mode == 0o777 { 0 } else { COMMON }, mode);
        setup.put("a", &GOOD);
        assert_eq!(start_as(&setup, 1001, COMMON, &ONCE).finish().code, Some(0));
        setup.put("a", &NEW);
        let process = start_as(&setup, 1002, gid, &FOLLOW);
        let warning = process.wait_for_line(REFUSED);
        let want = format!(": uid 1001 made {}/{made}{two}{cure}", setup.path("out"));
        assert!(warning.contains(&want), "{warning}\n{want}");
        drop(process);
    }
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
fn a_file_in_the_place_of_the_output_directory_stays_and_is_reported() {
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
