//! Directories that the Go program or another version of crossover has left.

use super::*;

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
        assert!(!publisher.take_lost_watch());
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
        let error = publisher.publish_durably(&set("rds.yaml=1")).unwrap_err();
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
fn a_kill_at_any_call_of_a_takeover_without_exchange_is_repaired_by_the_next_run() {
    let mut points = 0;
    let want = set(NEW);
    for lacks in [1, 2] {
        for n in 1.. {
            let at = format!("call {n}, {lacks} lacking");
            let temp = tempdir();
            go(temp.path());
            let old = seen(temp.path());
            let fault = Fault::default();
            fault.lacks.set(lacks);
            if let Ok(mut publisher) = free(|| open_to(&fault, How::Kill(n), temp.path())) {
                let _ = publisher.publish_durably(&want);
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
            assert!(!publisher.take_lost_watch());
            gone(&dir);
            if looked {
                assert!(publisher.check().unwrap());
            }
            let want = set("rds.yaml=2");
            let published = publisher.publish_durably(&want);
            published
                .or_else(|_| publisher.publish_durably(&want))
                .unwrap();
            publisher.check().unwrap();
            publisher.publish_durably(&want).unwrap();
            assert!(publisher.take_lost_watch());
            assert!(!publisher.check().unwrap());
            assert!(!publisher.take_lost_watch());
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
    let error = publisher.publish_durably(&set("rds.yaml=1")).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("failed to remove {}/.live", temp.path().display())
    );
    assert!(temp.path().join(".live/precious").exists());
    assert_eq!(seen(temp.path()), before);
}

/// A copy of a directory that a version has left, with the modes that it gave.
pub fn recorded(version: &str) -> (tempfile::TempDir, PathBuf) {
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
        assert!(publisher.publish_durably(&found).unwrap().is_none());
        assert_eq!(pokes(&publisher), [""; 0]);

        let mut next = found.clone();
        let changed = FileName::new("rds.yaml").unwrap();
        next.get_mut(&changed).unwrap().bytes = b"resources: [3]\n".as_slice().into();
        let published = publisher.publish_durably(&next).unwrap().unwrap();
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
        publisher.publish_durably(&next).unwrap().unwrap();
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

/// A line as the version reads it that had hashes and knew no sequence.
#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct HashedLine {
    #[serde(flatten)]
    first: FirstLine,
    hash: Option<u64>,
}

#[test]
fn the_versions_before_can_go_on_from_what_is_left_in_mid_sequence() {
    for stage in ["clusters", "routes"] {
        let (_temp, dir) = recorded(stage);
        let sets = dir.join(".sets");
        let number = fs::read_link(sets.join("active")).unwrap();
        let text = fs::read(sets.join(number.with_extension("sources"))).unwrap();
        let lines: SortedMap<String, HashedLine> = serde_json::from_slice(&text).unwrap();
        let names: SortedSet<String> = lines.keys().cloned().collect();
        assert_eq!(names, super::names(&sets.join(&number)));
        for (name, line) in lines {
            let bytes = fs::read(sets.join(&number).join(name)).unwrap();
            assert_eq!(line.first.size, bytes.len() as u64);
            let hash = crate::output::disk::hash_of(&bytes);
            assert_eq!(line.hash, Some(hash));
        }
    }
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
    let lines: SortedMap<String, FirstLine> = serde_json::from_slice(&text).unwrap();
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
