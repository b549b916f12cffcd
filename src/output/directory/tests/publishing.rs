//! The steps of a publish, their order, and the files that it keeps.

use super::*;

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
    publisher.publish_durably(&set("rds.yaml=2")).unwrap_err();
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
        publisher.publish(&set(text)).unwrap().unwrap();
        assert!(publisher.publish(&set(text)).unwrap().is_none(), "{text}");
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
fn a_set_that_was_never_synced_is_written_and_announced_again_by_the_next_run() {
    let temp = tempdir();
    let mut publisher = open(temp.path());
    publish(&mut publisher, "rds.yaml=1 cds.yaml=1");
    publisher
        .publish(&set("rds.yaml=2 cds.yaml=1"))
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
    publisher.publish_durably(&set("rds.yaml=1")).unwrap_err();
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
                .publish_durably(&set(&format!("rds.yaml={n}")))
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
fn another_resource_version_alone_is_not_a_change() {
    let temp = tempdir();
    let mut publisher = open(temp.path());
    let mut files = set("rds.yaml=1");
    publisher.publish_durably(&files).unwrap();
    for file in files.values_mut() {
        let mut origin = (*file.origin).clone();
        origin.resource_version = ResourceVersion("8".into());
        file.origin = Rc::new(origin);
    }
    assert!(publisher.publish_durably(&files).unwrap().is_none());
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
        publisher.publish_durably(&set("rds.yaml=2")).unwrap_err();
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
    match OutputDirectory::open(temp.path(), Keep::Nothing) {
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
    let error = OutputDirectory::open(&temp.path().join("file"), Keep::Nothing).unwrap_err();
    let text = error.to_string();
    assert!(
        text.starts_with("failed to create ") && text.ends_with("/file/.sets"),
        "{text}"
    );

    let mut publisher = open(temp.path());
    publisher.disk.fault.arm(How::Each("create", EACCES));
    let error = publisher.publish_durably(&set("rds.yaml=1")).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("failed to create {}/.sets/1", temp.path().display())
    );
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
fn a_set_made_in_advance_is_kept_by_a_check_and_not_by_the_next_run() {
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
            let first = publisher.publish_durably(&want);
            assert!(
                first.is_ok() || publisher.publish_durably(&want).unwrap().is_some(),
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
                "umask $1; exec \"$0\" --exact output::directory::tests::publishing::modes_do_not_depend_on_the_umask",
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
