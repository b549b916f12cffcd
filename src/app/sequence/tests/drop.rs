//! The clusters and files that are kept after their removal, and for how long.

use super::*;

#[test]
fn nothing_is_dropped_while_a_configmap_is_held_back_or_a_file_names_the_cluster() {
    let none = Snapshot::new();
    let mut world = World::new();
    world.disk = World::target(&names(&["c1"]), 1);
    let mut new = World::target(&names(&["c2"]), 1);
    world.publish(&new, &none, false);
    world.read(&[name(CDS)]);
    world.publish(&new, &none, false);
    world.read(&[name(RDS)]);
    world.now = world.sequence.deadline().unwrap();
    world.sequence.tick(true, world.now);
    world.publish(&new, &none, true);
    assert!(shows(&world, CDS, "c1"));
    assert_eq!(world.sequence.deadline(), None, "without an idle wake-up");
    let other = "resources: [{cluster: c1}]\n".to_owned();
    new.insert(name("other.yaml"), file(other));
    world.publish(&new, &none, false);
    assert!(shows(&world, CDS, "c1"));
    // Until now requests may have gone there.
    new.remove(&name("other.yaml"));
    world.publish(&new, &none, false);
    assert!(shows(&world, CDS, "c1"));
    assert_eq!(world.sequence.deadline(), Some(world.now + kept::GRACE));
    world.now += kept::GRACE;
    assert!(world.sequence.tick(true, world.now).publish);
    world.publish(&new, &none, false);
    assert!(!shows(&world, CDS, "c1"));
}

#[test]
fn a_cluster_whose_listener_follows_in_another_configmap_is_kept_until_that_has_drained() {
    for late in [5, 60_000] {
        let mut world = World::new();
        let none = Snapshot::new();
        let target = |clusters: &[&str], inlined: &str| {
            let mut target = World::target(&names(clusters), 1);
            target.insert(name(RDS), rds(&[], 1));
            target.insert(name("lds.yaml"), inline(inlined));
            target
        };
        world.disk = target(&["c1"], "c1");
        world.publish(&target(&["c2"], "c1"), &none, false);
        world.read(&[name(CDS)]);
        while let Some(at) = world.sequence.deadline() {
            world.now = at.min(world.now + Duration::from_millis(late));
            if world.now < at {
                break;
            }
            if world.sequence.tick(true, world.now).publish {
                world.publish(&target(&["c2"], "c1"), &none, false);
            }
        }
        // The listener moves away from c1 only now.
        world.publish(&target(&["c2"], "c2"), &none, false);
        assert!(shows(&world, CDS, "c1") && shows(&world, "lds.yaml", "cluster: c2"));
        world.read(&[name("lds.yaml")]);
        let due = world.sequence.deadline().unwrap();
        assert_eq!(due - world.now, Duration::from_secs(600), "{late}");
    }
}

#[test]
fn the_last_cluster_of_a_file_outlives_its_route() {
    let mut world = World::new();
    let none = Snapshot::new();
    world.disk = World::target(&names(&["c1"]), 1);
    let mut new = World::target(&[], 1);
    new.insert(name(CDS), file("resources: []\n".to_owned()));
    world.publish(&new, &none, false);
    assert!(shows(&world, CDS, "c1") && !shows(&world, RDS, "c1"));
    world.read(&[name(CDS), name(RDS)]);
    world.now = world.sequence.deadline().unwrap();
    assert!(world.sequence.tick(true, world.now).publish);
    world.publish(&new, &none, false);
    assert!(world.disk == new);
}

#[test]
fn a_file_without_its_last_listener_drains_like_any_other() {
    let mut world = World::new();
    let none = Snapshot::new();
    let mut target = World::target(&names(&["c1", "c2"]), 1);
    target.insert(name("lds.yaml"), inline("c1"));
    world.disk = target.clone();
    let mut target = World::target(&names(&["c2"]), 1);
    target.insert(name("lds.yaml"), file("resources: []\n".to_owned()));
    world.publish(&target, &none, false);
    assert!(shows(&world, CDS, "c1"));
    world.read(&[name(CDS), name(RDS), name("lds.yaml")]);
    let due = world.sequence.deadline().unwrap();
    assert_eq!(due - world.now, Duration::from_secs(600));
}

#[test]
fn what_vanishes_in_one_change_stays_for_its_routes_however_much_it_is() {
    let mut world = World::new();
    let none = Snapshot::new();
    let many: Vec<String> = (0..50).map(|at| format!("c{at}")).collect();
    world.disk = World::target(&many, 1);
    let new = World::target(&names(&["c99"]), 1);
    world.publish(&new, &none, false);
    let there = |world: &World| clusters_named(&world.disk[&name(CDS)]).len();
    assert_eq!(there(&world), 51, "the routes still lead to them");
    world.read(&[name(CDS)]);
    world.publish(&new, &none, false);
    assert_eq!(there(&world), 51, "Envoy has yet to read the routes");
    world.read(&[name(RDS)]);
    assert_eq!(world.sequence.deadline(), Some(world.now));
    assert!(world.sequence.tick(true, world.now).publish);
    world.publish(&new, &none, false);
    assert_eq!(there(&world), 21);
    assert!(!world.sequence.tick(true, world.now).publish);
}

#[test]
fn a_file_that_is_kept_for_an_invalid_configmap_is_told_of() {
    let mut world = World::new();
    let none = Snapshot::new();
    let target = World::target(&names(&["c1"]), 1);
    world.disk = target.clone();
    world.disk.insert(name("old.yaml"), lds(1));
    world.publish(&target, &none, false);
    world.now += Duration::from_secs(700);
    let overlay = world.sequence.overlay(&target, true, world.now);
    assert_eq!(overlay.standing, SortedSet::from([name("old.yaml")]));
    let warnings: Vec<&str> = overlay.warnings().collect();
    assert_eq!(
        warnings,
        [
            "old.yaml: no ConfigMap has this file any more; it is kept while one is invalid or refused"
        ]
    );
    assert_eq!(world.sequence.deadline(), None, "without an idle wake-up");
}

#[test]
fn kept_clusters_are_bounded() {
    let mut world = World::new();
    let none = Snapshot::new();
    world.disk = World::target(&names(&["c0"]), 1);
    for round in 1..200 {
        let new = World::target(&names(&[&format!("c{round}")]), 1);
        world.publish(&new, &none, false);
        world.read(&[name(CDS)]);
        world.publish(&new, &none, false);
        world.read(&[name(RDS)]);
        let there = clusters_named(&world.disk[&name(CDS)]).len();
        assert!(there <= 21, "{round}: {there}");
        world.now += Duration::from_millis(50);
    }
}

#[test]
fn clusters_that_no_route_has_named_are_not_kept() {
    let mut world = World::new();
    let none = Snapshot::new();
    world.disk = World::target(&names(&["c0"]), 1);
    // Envoy reads nothing meanwhile; its requests go to c0.
    for round in 1..100 {
        let new = World::target(&names(&[&format!("c{round}")]), 1);
        world.publish(&new, &none, false);
        world.now += Duration::from_millis(5);
        let there = clusters_named(&world.disk[&name(CDS)]);
        let want = names(&["c0", &format!("c{round}")]);
        assert_eq!(there, want.into_iter().collect(), "{round}");
    }
    assert!(world.read(&[name(CDS)]));
    let new = World::target(&names(&["c99"]), 1);
    world.publish(&new, &none, false);
    assert!(shows(&world, RDS, "c99") && shows(&world, CDS, "c0"));
}

#[test]
fn a_cluster_that_goes_after_its_listener_is_kept_until_that_has_drained() {
    for waits in [false, true] {
        let mut world = World::new();
        let none = Snapshot::new();
        let mut target = World::target(&names(&["c1", "c2"]), 1);
        target.insert(name("lds.yaml"), lds(1));
        world.disk = target.clone();
        // The listener moves away from c1, alone.
        target.insert(name("lds.yaml"), lds(2));
        world.publish(&target, &none, false);
        let moved = world.now;
        world.read(&[name("lds.yaml")]);
        // c1 is not needed by any file from now on, but by old connections.
        world.now += Duration::from_secs(if waits { 700 } else { 60 });
        target.insert(name(CDS), cds(&names(&["c2"])));
        target.insert(name(RDS), rds(&names(&["c2"]), 1));
        world.publish(&target, &none, false);
        world.read(&[name(RDS), name(CDS)]);
        let due = world.sequence.deadline().unwrap();
        match waits {
            false => assert_eq!(due, moved + Duration::from_secs(600) + READING_MAX),
            true => assert_eq!(due, world.now + kept::GRACE),
        }
    }
}

#[test]
fn a_file_that_a_kept_cluster_names_is_kept_with_it() {
    let mut world = World::new();
    let none = Snapshot::new();
    let eds = "- '@type': type.googleapis.com/envoy.config.cluster.v3.Cluster\n  name: c1\n  \
               eds_cluster_config: {eds_config: {path: /x/eds1.yaml}}\n";
    let kind = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";
    let mut old = World::target(&names(&["c2"]), 1);
    let text = String::from_utf8(cds(&names(&["c2"])).bytes.to_vec()).unwrap();
    old.insert(name(CDS), file(text + eds));
    let endpoints = format!("resources:\n- '@type': {kind}\n");
    old.insert(name("eds1.yaml"), file(endpoints));
    world.disk = old;
    // Another file names the cluster for longer than it would be kept.
    let mut new = World::target(&names(&["c2"]), 1);
    let other = file("resources: [{cluster: c1}]\n".to_owned());
    new.insert(name("other.yaml"), other.clone());
    world.disk.insert(name("other.yaml"), other);
    world.publish(&new, &none, false);
    world.read(&[name(CDS)]);
    while let Some(at) = world.sequence.deadline() {
        world.now = at;
        if world.sequence.tick(true, at).publish {
            world.publish(&new, &none, false);
        }
    }
    assert!(shows(&world, CDS, "c1") && world.disk.contains_key(&name("eds1.yaml")));
    new.remove(&name("other.yaml"));
    world.publish(&new, &none, false);
    while let Some(at) = world.sequence.deadline() {
        world.now = at;
        if world.sequence.tick(true, at).publish {
            world.publish(&new, &none, false);
        }
    }
    assert!(world.disk == new, "{:?}", world.disk);
}

/// Lets time pass to whatever is due, with this as the target.
fn pass(world: &mut World, target: &Snapshot) {
    while let Some(at) = world.sequence.deadline() {
        world.now = world.now.max(at);
        if world.sequence.tick(true, world.now).publish {
            world.publish(target, &Snapshot::new(), false);
        }
    }
}

#[test]
fn a_file_of_clusters_is_kept_while_another_file_names_one_of_them() {
    let mut world = World::new();
    let none = Snapshot::new();
    let more = name("more.yaml");
    let mut new = World::target(&names(&["c2"]), 1);
    let other = file("resources: [{cluster: c1}]\n".to_owned());
    new.insert(name("other.yaml"), other);
    world.disk = new.clone();
    world.disk.insert(more.clone(), cds(&names(&["c0", "c1"])));
    world.publish(&new, &none, false);
    pass(&mut world, &new);
    assert!(world.disk.contains_key(&more));
    let overlay = world.sequence.overlay(&new, false, world.now);
    let warnings: Vec<&str> = overlay.warnings().collect();
    let want = "more.yaml: no ConfigMap has this file any more; it is kept, as other.yaml names its \
                cluster c1";
    assert_eq!(warnings, [want]);
    // Until now requests may have gone there.
    new.remove(&name("other.yaml"));
    world.publish(&new, &none, false);
    let due = world.sequence.deadline().unwrap();
    assert_eq!(due - world.now, kept::GRACE);
    assert!(world.disk.contains_key(&more));
    pass(&mut world, &new);
    assert!(world.disk == new);
}

/// A cluster with a text of so many bytes.
fn large(cluster: &str, bytes: usize) -> File {
    let text = String::from_utf8(cds(&names(&[cluster])).bytes.to_vec()).unwrap();
    file(format!("{text}  alt_stat_name: {}\n", "x".repeat(bytes)))
}

#[test]
fn the_bytes_and_files_that_are_kept_are_bounded() {
    let mut world = World::new();
    let none = Snapshot::new();
    let target = |round: u32| {
        let cluster = format!("c{round}");
        let mut target = World::target(&names(&[&cluster]), 1);
        target.insert(name(CDS), large(&cluster, 25_000));
        // One that the cluster does not name, so that it does not go with it.
        target.insert(name(&format!("e{round}.yaml")), file("a: 1\n".to_owned()));
        target
    };
    let bytes = |set: &Snapshot| set.values().map(|file| file.bytes.len()).sum::<usize>();
    world.disk = target(0);
    for round in 1..30 {
        let new = target(round);
        world.publish(&new, &none, false);
        world.read(&[name(CDS)]);
        world.publish(&new, &none, false);
        world.read(&[name(RDS)]);
        let (most, there) = (2 * bytes(&new) + (256 << 10), bytes(&world.disk));
        // What vanished last stays until the next turn.
        assert!(there <= most + 25_000, "{round}: {there}");
        assert!(world.disk.len() <= 3 + 21, "{round}: {}", world.disk.len());
        world.now += Duration::from_millis(50);
    }
    let last = target(29);
    pass(&mut world, &last);
    assert!(world.disk == last);
}

/// The world after a restart that came so long after a listener had changed.
fn restarted(ago: u64) -> World {
    let mut world = World::new();
    let ago = Duration::from_secs(ago);
    world.sequence.recall_listener(ago, world.now);
    world
}

#[test]
fn a_restart_does_not_forget_a_listener_whose_connections_may_go_on() {
    let none = Snapshot::new();
    let mut new = World::target(&names(&["c2"]), 1);
    new.insert(name("lds.yaml"), lds(1));
    let drains = Duration::from_secs(600) + READING_MAX;
    for (ago, kept) in [
        (0, drains),
        (100, drains - Duration::from_secs(100)),
        (595, kept::GRACE),
        (5000, kept::GRACE),
    ] {
        // In the middle of a drain.
        let mut before = World::new();
        before.disk = World::target(&names(&["c1"]), 1);
        before.disk.insert(name("lds.yaml"), lds(1));
        before.publish(&new, &none, false);
        before.read(&[name(CDS)]);
        before.publish(&new, &none, false);
        assert_eq!(before.stages.last(), Some(&Stage::Routes));
        let mut world = restarted(ago);
        world.disk = before.disk;
        let began = world.now;
        world.publish(&new, &none, false);
        assert!(shows(&world, CDS, "c1"));
        assert_eq!(world.sequence.deadline(), Some(began + kept), "{ago}");
        pass(&mut world, &new);
        assert!(world.disk == new && world.now == began + kept, "{ago}");

        // Between the listener's change and that of the clusters.
        let mut world = restarted(ago);
        let mut old = World::target(&names(&["c1"]), 1);
        old.insert(name("lds.yaml"), lds(1));
        world.disk = old;
        let began = world.now;
        world.publish(&new, &none, false);
        world.read(&[name(CDS)]);
        world.publish(&new, &none, false);
        world.read(&[name(RDS)]);
        assert_eq!(world.sequence.deadline(), Some(began + kept), "{ago}");
    }
}

#[test]
fn a_listener_is_said_to_change_with_the_set_that_has_it() {
    let none = Snapshot::new();
    let target = |cluster: &str| {
        let mut target = World::target(&names(&[cluster]), 1);
        target.insert(name(RDS), rds(&[], 1));
        target.insert(name("lds.yaml"), inline(cluster));
        target
    };
    let mut world = World::new();
    world.disk = target("c1");
    world.publish(&target("c2"), &none, false);
    assert_eq!(
        (world.stages.last(), world.moves),
        (Some(&Stage::Clusters), 0)
    );
    world.read(&[name(CDS)]);
    world.publish(&target("c2"), &none, false);
    assert_eq!(
        (world.stages.last(), world.moves),
        (Some(&Stage::Routes), 1)
    );
    pass(&mut world, &target("c2"));
    assert_eq!(
        (world.stages.last(), world.moves),
        (Some(&Stage::Target), 1)
    );
}

#[test]
fn what_vanishes_after_a_listener_has_changed_outlives_a_request_though_no_connection_drains() {
    let mut world = World::new();
    let none = Snapshot::new();
    let mut target = World::target(&names(&["c1", "c2"]), 1);
    target.insert(name("lds.yaml"), lds(1));
    world.disk = target.clone();
    target.insert(name("lds.yaml"), lds(2));
    world.publish(&target, &none, false);
    world.read(&[name("lds.yaml")]);
    world.now += Duration::from_secs(100);
    target.insert(name(CDS), cds(&names(&["c2"])));
    target.insert(name(RDS), rds(&names(&["c2"]), 1));
    world.publish(&target, &none, false);
    world.read(&[name(RDS), name(CDS)]);
    let settled = world.now;
    assert!(world.sequence.drains_since().is_some());
    // Envoy says that the listener has drained: other connections have the routes only now.
    world.now += Duration::from_millis(5);
    world.sequence.on_drained(world.now);
    assert_eq!(world.sequence.deadline(), Some(settled + kept::GRACE));
    // One that has had its time goes at once.
    let mut world = World::new();
    let mut old = World::target(&names(&["c1"]), 1);
    old.insert(name("lds.yaml"), inline("c1"));
    world.disk = old;
    let mut new = World::target(&names(&["c2"]), 1);
    new.insert(name("lds.yaml"), inline("c2"));
    world.publish(&new, &none, false);
    world.read(&[name(CDS)]);
    world.publish(&new, &none, false);
    world.read(&[name(RDS), name("lds.yaml")]);
    world.now += kept::GRACE + Duration::from_secs(1);
    assert!(!world.sequence.tick(true, world.now).publish);
    world.sequence.on_drained(world.now);
    assert!(world.sequence.tick(true, world.now).publish);
}

#[test]
fn a_change_whose_clusters_cannot_be_kept_is_one_set() {
    let none = Snapshot::new();
    let edits: [fn(String) -> String; 2] = [
        |text| text.replace("resources:", "resources: &all"),
        |text| text.replace('\n', "\r"),
    ];
    for edit in edits {
        let target = |cluster: &str| {
            let mut target = World::target(&names(&[cluster]), 1);
            let text = String::from_utf8(target[&name(CDS)].bytes.to_vec()).unwrap();
            target.insert(name(CDS), file(edit(text)));
            target
        };
        let mut world = World::new();
        world.disk = target("c1");
        world.publish(&target("c2"), &none, false);
        assert!(world.disk == target("c2"), "{:?}", world.disk);
        let [event] = &world.events[..] else {
            panic!("{:?}", world.events);
        };
        assert!(event.starts_with("cds.yaml: clusters that are removed cannot be kept"));
    }
}

#[test]
fn a_removed_file_went_along_with_what_referred_to_it_or_may_be_missed() {
    let none = Snapshot::new();
    let cluster = |number: u32| {
        let text = String::from_utf8(cds(&names(&["c1"])).bytes.to_vec()).unwrap();
        file(format!(
            "{text}  eds_config: {{path: /x/eds{number}.yaml}}\n"
        ))
    };
    let listener = |file_name: &str| {
        let text = String::from_utf8(lds(1).bytes.to_vec()).unwrap();
        file(format!("{text}  rds: {{path: \"/x/{file_name}\"}}\n"))
    };
    let target = |number: u32, routes: &str| {
        let mut target = Snapshot::from([(name(CDS), cluster(number))]);
        target.insert(name(&format!("eds{number}.yaml")), file("a: 1\n".into()));
        target.insert(name("lds.yaml"), listener(routes));
        target.insert(name(routes), rds(&names(&["c1"]), 1));
        target
    };
    let mut world = World::new();
    world.disk = target(1, "rds1.yaml");
    world
        .disk
        .insert(name("of-bootstrap.yaml"), file("a: 1\n".into()));
    world.publish(&target(2, "rds2.yaml"), &none, false);
    let went = |world: &World, file: &str| world.sequence.went_along(&name(file));
    assert!(went(&world, "eds1.yaml") && went(&world, "rds1.yaml"));
    assert!(!went(&world, "of-bootstrap.yaml"));
    // A file that is published still refers to it.
    let mut world = World::new();
    world.disk = target(1, "rds1.yaml");
    let mut less = target(1, "rds1.yaml");
    less.remove(&name("rds1.yaml"));
    less.insert(name(CDS), cluster(2));
    world.publish(&less, &none, false);
    assert!(!went(&world, "rds1.yaml"));
}
