//! What ConfigMaps become on disk: the layout, whose file wins, which keys are names, and when
//! nothing is done at all.

use crate::kit::apiserver::faults::{Fault, Misbehaviour};
use crate::kit::crossover::{Crossover, until_asleep};
use crate::kit::objects::{config_map, in_namespace};
use crate::kit::until;
use crate::setup::{Setup, events_with};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

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
    let sources: Value = serde_json::from_str(&text).unwrap();
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
    let warnings = events_with(&stderr, "the later one wins");
    assert_eq!(warnings.len(), 1, "{stderr}");
    for (field, want) in [
        ("file", "both"),
        ("configmap", "default/a"),
        ("hidden", "default/b"),
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
    drop(process);
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
    assert!(!finished.stderr.contains("wins"), "{}", finished.stderr);
    assert_eq!(setup.server.requests().len(), 1);
}

#[test]
fn binary_data_are_files_too() {
    let setup = Setup::new();
    let mut object = config_map("a", &[("text", "\u{e4}\0\r\n")]);
    object["binaryData"] = json!({"bytes": "AP8KgA==", "empty": "", "text.bin": "aGk="});
    setup.server.create(object);
    setup.succeed(&["-onetime", "-configmap=a"]);
    let want: BTreeMap<String, Vec<u8>> = [
        ("text", "\u{e4}\0\r\n".as_bytes().to_vec()),
        ("bytes", vec![0, 0xff, b'\n', 0x80]),
        ("empty", Vec::new()),
        ("text.bin", b"hi".to_vec()),
    ]
    .map(|(name, bytes)| (name.to_string(), bytes))
    .into();
    assert_eq!(setup.found(), Some(want));
}

#[test]
fn every_key_that_kubernetes_takes_is_a_file() {
    let long = "k".repeat(253);
    let keys = [
        "active",
        "current",
        "done",
        ".lock",
        ".hidden",
        ".live",
        ".sets",
        ".links",
        "0000000001",
        "1",
        "2",
        "1.sources",
        "-",
        "--",
        "_",
        "a.",
        "-rf",
        "A.yaml.tmp",
        &long,
    ];
    let setup = Setup::new();
    let put = |text: &str| {
        let data: Vec<(&str, &str)> = keys.iter().map(|key| (*key, text)).collect();
        setup.put("a", &data);
    };
    let want = |text: &str| -> BTreeMap<String, Vec<u8>> {
        keys.iter()
            .map(|key| (key.to_string(), text.as_bytes().to_vec()))
            .collect()
    };
    put("one");
    let process = setup.start(&["-watch", "-configmap=a"]);
    until("the first", || {
        (setup.found()? == want("one")).then_some(())
    });
    setup.server.wait_for_watches(1);
    for text in ["two", "three", "four", "five", "six"] {
        put(text);
        until(text, || (setup.found()? == want(text)).then_some(()));
    }
    setup.put("a", &[("left", "")]);
    setup.until_found(&[("left", "")]);
    drop(process);
}

/// Everything below a directory.
fn tree(dir: &Path) -> Vec<String> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        paths.push(path.to_str().unwrap().to_string());
        if path.is_dir() && !path.is_symlink() {
            paths.extend(tree(&path));
        }
    }
    paths.sort();
    paths
}

/// A server that lies: its one ConfigMap has this key.
fn lying(key: &str) -> Setup {
    let setup = Setup::new();
    let mut item = config_map("a", &[("a.yaml", "a: 1\n"), (key, "evil")]);
    item["metadata"]["resourceVersion"] = json!("7");
    let list = json!({
        "kind": "ConfigMapList", "apiVersion": "v1", "metadata": {"resourceVersion": "7"}, "items": [item],
    });
    setup
        .server
        .misbehave(Misbehaviour::new(Fault::json(list.to_string()), |_| true));
    setup
}

#[test]
fn a_key_that_is_no_plain_file_name_is_refused_however_it_got_there() {
    let long = "k".repeat(254);
    for key in [
        "../evil",
        "..",
        ".",
        "",
        "/etc/evil",
        "a/b",
        "..data",
        "a\0b",
        "a\nb",
        "\u{e4}",
        "a b",
        "a\\b",
        "~",
        &long,
    ] {
        let setup = lying(key);
        let before = tree(Path::new(&setup.path(".")));
        let line = setup.fail(&["-onetime", "-configmap=a"]);
        assert!(
            line.contains("default/a") && line.contains("no plain file name"),
            "{key:?}: {line}"
        );
        let ours = |path: &String| path.contains("/./out");
        let after: Vec<String> = tree(Path::new(&setup.path(".")))
            .into_iter()
            .filter(|p| !ours(p))
            .collect();
        assert_eq!(after, before, "{key:?}");
        assert!(
            setup.found().is_none_or(|found| found.is_empty()),
            "{key:?}"
        );
    }
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
    process.wait_for_line(" published ");
    setup.server.wait_for_watches(1);
    let before = stamps(&setup);
    for note in ["1", "2", "3"] {
        object["metadata"]["annotations"] = json!({"note": note});
        setup.server.replace(object.clone());
    }
    process.wait_for_lines(4, " observed ");
    until_asleep(process.pid());
    assert_eq!(stamps(&setup), before);
    // The next set is the second one, and what is equal in it is the same file behind the same link.
    object["data"]["a.yaml"] = json!("a: 2\n");
    setup.server.replace(object);
    process.wait_for_lines(2, " published ");
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
fn equal_content_in_a_new_life_does_nothing_at_all() {
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
    process.wait_for_line("a file is gone: an Envoy restarted now would not start");
    setup.assert_found(&[("a.yaml", "a: 1\n")]);
    let stderr = process.stop().stderr;
    let warnings = events_with(&stderr, "a file is gone");
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
        finished.stderr.contains("a file is gone"),
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
    process.wait_for_lines(2, "repaired the output directory's layout");
    setup.put("a", &[("a.yaml", "a: 2\n")]);
    setup.until_found(&[("a.yaml", "a: 2\n")]);
    drop(process);
}
