//! Damage to the directory, by other programs or by a failure, and its repair.

use super::*;

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
            publisher.publish(&set(want)).unwrap();
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
                matches!(
                    OutputDirectory::open(&dir, Keep::Nothing),
                    Err(Error::Held { .. })
                ),
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
        assert!(publisher.publish_durably(&want).unwrap().is_none());
        calls(publisher, "read")
    };
    publisher.publish_durably(&want).unwrap();
    assert_eq!([reads(&mut publisher), reads(&mut publisher)], [2, 0]);

    let edited = temp.path().join("current/rds.yaml");
    let written = || fs::metadata(&edited).unwrap().modified().unwrap();
    let before = written();
    // A file system's clock has ticks.
    while written() == before {
        fs::write(&edited, "2").unwrap();
    }
    let healed = publisher.publish_durably(&want).unwrap().unwrap();
    assert_eq!(list(&healed.changed), ["rds.yaml"]);
    tidy(temp.path(), &held);
    // What is known of the other one went with its link.
    assert_eq!([reads(&mut publisher), reads(&mut publisher)], [1, 0]);
}

#[test]
fn a_check_finds_an_edit_of_the_same_length_and_repairs_that_file_alone() {
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
                publisher.publish_durably(&other).unwrap().unwrap();
                publisher.publish(&set(want)).unwrap().unwrap();
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
fn an_edit_of_the_same_length_between_two_runs_does_not_count_as_published() {
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
    publisher.publish(&next).unwrap().unwrap();
    drop(publisher);
    fs::remove_file(temp.path().join("current/lds.yaml")).unwrap();
    edit(&temp.path().join("current/cds.yaml"), "2");
    let before = seen(temp.path());
    let publisher = open(temp.path());
    assert_eq!(publisher.last_good().unwrap(), None);
    assert_eq!(seen(temp.path()), before);
}

/// Waits for the kernel's next tick: the times of files are counted in ticks, so that a second change
/// in the same one does not show.
fn until_next_tick() {
    let tick = || {
        let found = tempfile::tempfile().unwrap().metadata().unwrap();
        (found.ctime(), found.ctime_nsec())
    };
    let begin = tick();
    while tick() == begin {}
}

#[test]
fn an_edit_that_changes_no_byte_is_left_out() {
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
            publisher.publish_durably(&want).unwrap();
            assert!(!publisher.check().unwrap());
            until_next_tick();
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
            assert!(publisher.publish_durably(&want).unwrap().is_none());
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
    publisher.publish_durably(&want).unwrap();
    let sources = temp.path().join(".sets/1.sources");
    assert!(fs::metadata(&sources).unwrap().len() > 4 << 20);
    drop(publisher);
    let mut publisher = open(temp.path());
    assert!(publisher.last_good().unwrap().unwrap() == want);
    assert!(!publisher.check().unwrap());
    assert!(publisher.publish_durably(&want).unwrap().is_none());
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
        publisher.publish_durably(&want).unwrap();
        if !taken_over {
            nowhere(&dir.join(".live"));
            assert!(!publisher.check().unwrap());
        }
        assert!(publisher.publish_durably(&want).unwrap().is_none());
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
        first.publish_durably(&set("rds.yaml=3")),
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
fn files_that_are_not_ours_stay() {
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
    let error = publisher.publish_durably(&set("rds.yaml=7")).unwrap_err();
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
fn a_sweep_that_fails_is_reported_and_repeated() {
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
        .publish_durably(&set("rds.yaml=2 cds.yaml=2 lds.yaml=1"))
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
        open(temp.path()).publish(&set(new)).unwrap().unwrap();
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
        open(temp.path()).publish(&set(new)).unwrap().unwrap();
        fs::write(temp.path().join("current/rds.yaml"), "").unwrap();
        let torn = seen(temp.path());
        let old = contents(&set("rds.yaml=1 old=1"));
        let fault = Fault::default();
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
            .publish_durably(&set("rds.yaml=2 cds.yaml=2"))
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
            .publish_durably(&set(&format!("rds.yaml={n}")))
            .unwrap_err();
    }
    drop(publisher);
    let mut publisher = open(temp.path());
    assert_eq!(publisher.last_good().unwrap().unwrap(), set("rds.yaml=11"));
    clean(temp.path(), 2 + OLDER);
    publisher.disk.fault.arm(How::Each("write", ENOSPC));
    publisher.publish_durably(&set("rds.yaml=12")).unwrap_err();
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
        .publish_durably(&set("cds.yaml=3 lds.yaml=3 rds.yaml=3 z=1"))
        .unwrap_err();
    assert!(publisher.disk.fault.hit());
    assert_eq!(pokes(&publisher), ["cds.yaml"]);
    rearm(&publisher);
    let published = publish(&mut publisher, "cds.yaml=3 lds.yaml=3 rds.yaml=3 z=1").unwrap();
    assert_eq!(pokes(&publisher), ["lds.yaml", "rds.yaml", "current"]);
    assert_eq!(list(&published.changed), ["lds.yaml", "rds.yaml"]);
    tidy(temp.path(), &set("cds.yaml=3 lds.yaml=3 rds.yaml=3 z=1"));
}

#[test]
fn a_removed_directory_gets_a_heartbeat_again() {
    let temp = tempdir();
    let dir = temp.path().join("x");
    let mut publisher = open(&dir);
    for _ in 0..2 {
        publisher
            .beat("ready", None, std::time::Duration::from_secs(120))
            .unwrap();
        assert!(dir.join(".sets/.life").exists());
        fs::remove_dir_all(&dir).unwrap();
        publisher.check().unwrap();
    }
}
