//! ConfigMaps become files on disk: the layout, which file wins, which keys are names, and when
//! nothing is done at all.

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use testkit::crossover::{Crossover, until_asleep};
use testkit::objects::{config_map, in_namespace};
use testkit::setup::{Setup, events_with, tree};

fn link(path: impl AsRef<Path>) -> String {
    fs::read_link(path).unwrap().to_str().unwrap().to_string()
}

#[test]
fn the_layout_is_one_chain_of_links_into_one_set() {
    let setup = Setup::new();
    setup.put(
        "a",
        &[("cds.yaml", "resources: []\n"), ("rds.yaml", "{}\n")],
    );
    setup.succeed(&["-onetime", "-configmap=a"]);
    let out = setup.output();
    assert_eq!(link(out.join("current")), ".live");
    assert_eq!(link(out.join(".live/cds.yaml")), "../.sets/active/cds.yaml");
    assert_eq!(link(out.join(".live/rds.yaml")), "../.sets/active/rds.yaml");
    assert_eq!(link(out.join(".sets/active")), "1");
    assert_eq!(link(out.join(".sets/done")), "1");
    let set = out.join(".sets/1");
    assert_eq!(fs::read(set.join("rds.yaml")).unwrap(), b"{}\n");
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
    assert_eq!((mode(&set), mode(&set.join("rds.yaml"))), (0o755, 0o644));
    assert_eq!(fs::read_dir(out.join(".sets/.links")).unwrap().count(), 0);
}

#[test]
fn what_each_file_came_from_is_written_down() {
    let setup = Setup::new();
    let version = setup.put("a", &[("a.yaml", "a: 1\n")]);
    setup.succeed(&["-onetime", "-configmap=a"]);
    let text = fs::read_to_string(setup.output().join(".sets/1.sources")).unwrap();
    let mut sources: Value = serde_json::from_str(&text).unwrap();
    let hash = sources["a.yaml"].as_object_mut().unwrap().remove("hash");
    assert!(hash.is_some_and(|hash| hash.is_u64()), "{text}");
    let uid = &setup.server.get("ConfigMap", "a").unwrap()["metadata"]["uid"];
    let want = json!({"a.yaml": {
        "namespace": "default", "name": "a", "uid": uid, "resourceVersion": version, "size": 5,
    }});
    assert_eq!(sources, want);
}

#[test]
fn of_equal_names_the_later_configmaps_file_wins_with_a_warning() {
    let setup = Setup::new();
    setup.put("a", &[("both", "a"), ("only-a", "a")]);
    setup.put("b", &[("both", "b")]);
    setup.server.create(in_namespace(
        "else",
        config_map("b", &[("only-else", "else")]),
    ));
    let all = [
        "-configmap=b",
        "-configmap=a",
        "-configmap=else/b",
        "-log-format=json",
    ];
    let process = setup.start(&[&["-watch"], &all[..]].concat());
    let want = |both: &'static str| [("both", both), ("only-a", "a"), ("only-else", "else")];
    setup.until_found(&want("a"));
    setup.server.wait_for_watches(3);
    // A change of the loser changes nothing; one of the winner does.
    setup.put("b", &[("both", "b2")]);
    setup.put("a", &[("both", "a2"), ("only-a", "a")]);
    setup.until_found(&want("a2"));
    let stderr = process.stop().stderr;
    assert_eq!(setup.set(), 2);
    let warnings = events_with(&stderr, "two ConfigMaps have the same key");
    assert_eq!(warnings.len(), 1, "{stderr}");
    for (field, want) in [
        ("file", "both"),
        ("configmap", "default/a"),
        ("shadowed", "default/b"),
        ("level", "warn"),
    ] {
        assert_eq!(warnings[0][field], want);
    }
}

#[test]
fn the_loser_s_file_appears_when_the_winner_s_goes() {
    let setup = Setup::new();
    setup.put("a", &[("both", "a"), ("only-a", "a")]);
    setup.put("b", &[("both", "b"), ("only-b", "b")]);
    let process = setup.start(&["-watch", "-configmap=a", "-configmap=b"]);
    setup.until_found(&[("both", "b"), ("only-a", "a"), ("only-b", "b")]);
    setup.put("b", &[("only-b", "b")]);
    setup.until_found(&[("both", "a"), ("only-a", "a"), ("only-b", "b")]);
    let over = "two ConfigMaps no longer have the same key file=both configmap=default/b \
                shadowed=default/a lasted_s=";
    process.wait_for_line(over);
}

#[test]
fn an_exact_repeat_counts_once() {
    let setup = Setup::new();
    setup.put("a", &[("a.yaml", "a: 1\n")]);
    let flags = [
        "-onetime",
        "-configmap=a",
        "-configmap=default/a",
        "-configmap=a",
    ];
    let finished = setup.succeed(&flags);
    assert!(
        !finished.stderr.contains("two ConfigMaps have the same key"),
        "{}",
        finished.stderr
    );
    assert_eq!(setup.server.requests().len(), 1);
}

/// Inode and times of everything in the output directory, `.links` and the lock aside: to open the
/// directory is to try what can be done there.
fn stamps(setup: &Setup) -> BTreeMap<String, (u64, i64, i64, i64, i64)> {
    let stamp = |path: String| {
        let found = fs::symlink_metadata(&path).unwrap();
        let (modified, changed) = (found.mtime(), found.ctime());
        (
            path,
            (
                found.ino(),
                modified,
                found.mtime_nsec(),
                changed,
                found.ctime_nsec(),
            ),
        )
    };
    let mut paths = tree(&setup.output());
    paths.retain(|path| !path.ends_with("/.lock") && !path.ends_with("/.links"));
    paths.into_iter().map(stamp).collect()
}

#[test]
fn equal_content_does_nothing_at_all() {
    let setup = Setup::new();
    let mut object = config_map("a", &[("a.yaml", "a: 1\n"), ("b.yaml", "b: 1\n")]);
    setup.server.create(object.clone());
    let mut command = setup.command(&["-watch", "-configmap=a"]);
    command.env("RUST_LOG", "debug");
    let process = Crossover::spawn(command);
    process.wait_for_line("INFO  published ");
    setup.server.wait_for_watches(1);
    let before = stamps(&setup);
    for note in ["1", "2", "3"] {
        object["metadata"]["annotations"] = json!({"note": note});
        setup.server.replace(object.clone());
    }
    process.wait_for_lines(4, " observed ");
    until_asleep(process.pid());
    assert_eq!(stamps(&setup), before);
    // The next set is the second one, and what is equal in it is the same file behind the same
    // link.
    object["data"]["a.yaml"] = json!("a: 2\n");
    setup.server.replace(object);
    process.wait_for_lines(2, "INFO  published ");
    setup.assert_found(&[("a.yaml", "a: 2\n"), ("b.yaml", "b: 1\n")]);
    assert_eq!(setup.set(), 2);
    let inode = |path: &str| {
        fs::symlink_metadata(setup.output().join(path))
            .unwrap()
            .ino()
    };
    assert_eq!(inode(".sets/1/b.yaml"), inode(".sets/2/b.yaml"));
    let link = setup.path("out/.live/b.yaml");
    assert_eq!(stamps(&setup)[&link], before[&link]);
}

#[test]
fn equal_content_in_a_new_run_does_nothing_at_all() {
    let setup = Setup::new();
    setup.put("a", &[("a.yaml", "a: 1\n"), ("b.yaml", "b: 1\n")]);
    setup.succeed(&["-onetime", "-configmap=a"]);
    let before = stamps(&setup);
    let finished = setup.succeed(&["-onetime", "-configmap=a"]);
    assert!(
        !finished.stderr.contains("published"),
        "{}",
        finished.stderr
    );
    assert_eq!(stamps(&setup), before);
}

#[test]
fn a_dropped_key_s_file_goes_away_with_a_warning() {
    let setup = Setup::new();
    setup.put("a", &[("a.yaml", "a: 1\n"), ("b.yaml", "b: 1\n")]);
    let process = setup.start(&["-watch", "-configmap=a", "-log-format=json"]);
    setup.until_found(&[("a.yaml", "a: 1\n"), ("b.yaml", "b: 1\n")]);
    setup.server.wait_for_watches(1);
    setup.put("a", &[("a.yaml", "a: 1\n")]);
    process.wait_for_line("file removed; Envoy will fail to start");
    // Requests under way may need what is in it for a while.
    setup.assert_found(&[("a.yaml", "a: 1\n"), ("b.yaml", "b: 1\n")]);
    setup.until_found(&[("a.yaml", "a: 1\n")]);
    let stderr = process.stop().stderr;
    let warnings = events_with(&stderr, "file removed");
    assert_eq!(
        (warnings.len(), &warnings[0]["file"]),
        (1, &json!("b.yaml")),
        "{stderr}"
    );
}

#[test]
fn a_directory_of_the_go_program_is_taken_over() {
    let setup = Setup::new();
    let current = setup.output().join("current");
    fs::create_dir_all(&current).unwrap();
    fs::write(current.join("rds.yaml"), "old: 1\n").unwrap();
    fs::write(current.join("gone.yaml"), "old: 1\n").unwrap();
    // A running Envoy watches this inode.
    let watched = fs::metadata(&current).unwrap().ino();
    setup.put("a", &[("rds.yaml", "new: 1\n"), ("cds.yaml", "new: 1\n")]);
    let finished = setup.succeed(&["-onetime", "-configmap=a"]);
    setup.assert_found(&[("cds.yaml", "new: 1\n"), ("rds.yaml", "new: 1\n")]);
    assert_eq!(link(&current), ".live");
    assert_eq!(fs::metadata(&current).unwrap().ino(), watched);
    assert!(
        finished.stderr.contains("file removed"),
        "{}",
        finished.stderr
    );
}

#[test]
fn an_output_directory_that_was_removed_is_made_again() {
    let setup = Setup::new();
    setup.put("a", &[("a.yaml", "a: 1\n")]);
    let process = setup.start(&["-watch", "-sync-interval=200ms", "-configmap=a"]);
    setup.until_found(&[("a.yaml", "a: 1\n")]);
    setup.server.wait_for_watches(1);
    // In one step, or the program might be at work in the middle of it.
    fs::rename(setup.output(), setup.path("removed")).unwrap();
    setup.until_found(&[("a.yaml", "a: 1\n")]);
    fs::remove_file(setup.output().join(".live/a.yaml")).unwrap();
    setup.until_found(&[("a.yaml", "a: 1\n")]);
    process.wait_for_lines(2, "output directory's layout was damaged; repaired it");
    setup.put("a", &[("a.yaml", "a: 2\n")]);
    setup.until_found(&[("a.yaml", "a: 2\n")]);
    drop(process);
}
