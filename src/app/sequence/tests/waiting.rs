//! The routes and listeners that wait for clusters.

use super::*;

#[test]
fn files_that_change_together_wait_together() {
    let kind = "type.googleapis.com/envoy.config.listener.v3.Listener";
    let with_listener = |clusters: &[&str], version: u32| {
        let text = format!("resources: [{{'@type': {kind}, name: l, stat: v{version}}}]\n");
        let mut target = World::target(&names(clusters), 1);
        target.insert(name("lds.yaml"), file(text));
        target
    };
    let mut world = World::new();
    let none = Snapshot::new();
    world.disk = with_listener(&["c1"], 1);
    world.publish(&with_listener(&["c2"], 1), &none, false);
    world.publish(&with_listener(&["c3"], 2), &none, false);
    assert!(shows(&world, RDS, "c1") && shows(&world, "lds.yaml", "v1"));
    world.publish(&with_listener(&["c3"], 2), &none, false);
    assert!(world.read(&[name(CDS)]));
    world.publish(&with_listener(&["c3"], 2), &none, false);
    assert!(shows(&world, RDS, "c3") && shows(&world, "lds.yaml", "v2"));
}

#[test]
fn what_comes_with_something_new_of_its_own_waits_for_that() {
    let mut world = World::new();
    let none = Snapshot::new();
    let mut target = World::target(&names(&["c1"]), 1);
    target.insert(name("lds.yaml"), lds(1));
    world.disk = target.clone();
    target.extend(World::target(&names(&["c2"]), 1));
    world.publish(&target, &none, false);
    // A listener with routes in a file of their own, that lead to what Envoy has not read yet.
    target.insert(name("more.yaml"), rds(&names(&["c2"]), 1));
    target.insert(name("lds.yaml"), lds(2));
    world.publish(&target, &none, false);
    assert!(shows(&world, "lds.yaml", "l1"));
    assert!(world.read(&[name(CDS)]));
    world.publish(&target, &none, false);
    assert!(shows(&world, "lds.yaml", "l2") && shows(&world, RDS, "c2"));
}

#[test]
fn routes_that_are_overtaken_again_and_again_do_not_lead_to_clusters_that_are_unread() {
    let mut world = World::new();
    let none = Snapshot::new();
    world.disk = World::target(&names(&["c0"]), 1);
    let mut known = clusters_named(&world.disk[&name(CDS)]);
    let mut last = Snapshot::new();
    for round in 1..100 {
        // Each comes as Envoy has read the one before, and before the routes to that are out.
        last = World::target(&names(&[&format!("c{round}")]), 1);
        world.publish(&last, &none, false);
        world.now += Duration::from_millis(100);
        if world.sequence.tick(true, world.now).publish {
            world.publish(&last, &none, false);
        }
        let routed = clusters_named(&world.disk[&name(RDS)]);
        assert!(routed.is_subset(&known), "{round}: {routed:?}");
        world.read(&[name(CDS)]);
        known = clusters_named(&world.disk[&name(CDS)]);
    }
    world.publish(&last, &none, false);
    assert!(shows(&world, RDS, "c99"));
}

#[test]
fn routes_of_another_configmap_do_not_wait_for_clusters_that_they_do_not_name() {
    let mut world = World::new();
    let other = |cluster: &str, weight: u32| {
        let mut file = rds(&names(&[cluster]), weight);
        let mut origin = Origin::clone(&file.origin);
        origin.object.name = "other".to_owned();
        file.origin = Rc::new(origin);
        file
    };
    let mut old = World::target(&names(&["c1", "c9"]), 1);
    old.insert(name("other.yaml"), other("c9", 1));
    for (cluster, is_released) in [("c9", true), ("c2", false)] {
        let mut new = World::target(&names(&["c2", "c9"]), 1);
        new.insert(name("other.yaml"), other(cluster, 2));
        world.disk = old.clone();
        world.sequence.reset();
        world.publish(&new, &Snapshot::new(), false);
        assert!(shows(&world, RDS, "c1"), "{cluster}");
        let has = shows(&world, "other.yaml", "weight 2");
        assert_eq!(has, is_released, "{cluster}");
    }
}

#[test]
fn a_listener_waits_for_the_clusters_of_the_new_file_of_routes_that_it_refers_to() {
    let mut world = World::new();
    let none = Snapshot::new();
    let listener = |routes: &str| {
        let lds = lds(1);
        let text = String::from_utf8(lds.bytes.to_vec()).unwrap();
        file(format!("{text}  path: /srv/current/{routes}\n"))
    };
    let mut target = World::target(&names(&["c1"]), 1);
    target.insert(name("lds.yaml"), listener(RDS));
    world.disk = target.clone();
    // Routes wait for c2; then they move into another file.
    let mut next = World::target(&names(&["c2"]), 1);
    next.insert(name("lds.yaml"), listener(RDS));
    world.publish(&next, &none, false);
    let routes = next.remove(&name(RDS)).unwrap();
    next.insert(name("rds2.yaml"), routes);
    for weight in 1..4 {
        next.insert(name("lds.yaml"), listener(&format!("rds2.yaml # {weight}")));
        world.publish(&next, &none, false);
        assert!(shows(&world, "lds.yaml", RDS) && shows(&world, RDS, "c1"));
        assert!(clusters_named(&world.disk[&name(CDS)]).contains("c1"));
    }
    assert!(world.read(&[name(CDS)]));
    world.publish(&next, &none, false);
    assert!(shows(&world, "lds.yaml", "rds2.yaml # 3"));
}

/// Clusters whose names are looked up.
fn dns(clusters: &[String]) -> File {
    let text = String::from_utf8(cds(clusters).bytes.to_vec()).unwrap();
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    for line in lines.iter_mut().filter(|line| line.contains("name: ")) {
        line.push_str("\n  type: STRICT_DNS");
    }
    file(lines.join("\n") + "\n")
}

#[test]
fn routes_that_are_overtaken_by_clusters_to_warm_wait_until_the_last_of_them_is_read() {
    let mut world = World::new();
    let none = Snapshot::new();
    let target = |clusters: &[String]| {
        let mut target = World::target(clusters, 1);
        target.insert(name(CDS), dns(clusters));
        target
    };
    world.disk = target(&names(&["c0"]));
    let mut known = clusters_named(&world.disk[&name(CDS)]);
    let mut released = 0;
    let mut routed = clusters_named(&world.disk[&name(RDS)]);
    for round in 1..100 {
        let next = target(&names(&[&format!("c{round}")]));
        world.publish(&next, &none, false);
        // Envoy reads late, and the next change comes before the clusters are warm.
        let reads_at = world.now + Duration::from_millis(250);
        let changes_at = world.now + Duration::from_millis(400);
        for until in [reads_at, changes_at] {
            while let Some(at) = world.sequence.deadline().filter(|at| *at < until) {
                world.now = world.now.max(at);
                if world.sequence.tick(true, world.now).publish {
                    world.publish(&next, &none, false);
                }
                let shown = clusters_named(&world.disk[&name(RDS)]);
                assert!(shown.is_subset(&known), "{round}: {shown:?}");
                released += u32::from(shown != routed);
                routed = shown;
            }
            world.now = until;
            if until == reads_at {
                known = clusters_named(&world.disk[&name(CDS)]);
                if world.read(&[name(CDS), name(RDS)]) {
                    world.publish(&next, &none, false);
                }
                let shown = clusters_named(&world.disk[&name(RDS)]);
                assert!(shown.is_subset(&known), "{round}: {shown:?}");
                released += u32::from(shown != routed);
                routed = shown;
            }
        }
    }
    // They do not wait for good: there are 40 s, and each wait is bounded.
    assert!(released >= 3, "{released}");
}
