//! The steps of a change, and what ends each of them.

use super::*;

#[test]
fn a_replaced_cluster_comes_before_its_route_and_goes_after_it() {
    let mut world = World::new();
    let none = Snapshot::new();
    let old = World::target(&names(&["c1"]), 1);
    world.disk = old.clone();
    let new = World::target(&names(&["c2"]), 1);
    world.publish(&new, &none, false);
    assert!(shows(&world, CDS, "c1") && shows(&world, CDS, "c2") && shows(&world, RDS, "c1"));
    assert!(world.read(&[name(CDS)]));
    world.publish(&new, &none, false);
    assert!(shows(&world, CDS, "c1") && shows(&world, RDS, "c2"));
    assert!(!world.read(&[name(RDS)]));
    let due = world.sequence.deadline().unwrap();
    assert_eq!(due - world.now, kept::GRACE);
    world.now = due;
    assert!(world.sequence.tick(true, world.now).publish);
    world.publish(&new, &none, false);
    assert_eq!(
        world.stages,
        [Stage::Clusters, Stage::Routes, Stage::Target]
    );
    assert!(world.disk == new && world.sequence.is_idle());
    assert_eq!(world.sequence.deadline(), None);
}

#[test]
fn weights_that_change_while_routes_wait_are_visible_at_once() {
    let mut world = World::new();
    world.disk = World::target(&names(&["c1"]), 1);
    let new = World::target(&names(&["c2"]), 1);
    world.publish(&new, &Snapshot::new(), false);
    let weighted = World::target(&names(&["c2"]), 7);
    let interim = World::target(&names(&["c1"]), 7);
    world.publish(&weighted, &interim, false);
    assert!(shows(&world, RDS, "c1") && shows(&world, RDS, "weight 7"));
    assert!(world.read(&[name(CDS)]));
    world.publish(&weighted, &interim, false);
    assert!(shows(&world, RDS, "c2") && shows(&world, RDS, "weight 7"));
}

#[test]
fn a_rollback_is_visible_at_once_in_every_state() {
    let none = Snapshot::new();
    let (old, new) = (
        World::target(&names(&["c1"]), 1),
        World::target(&names(&["c2"]), 2),
    );
    for reads in 0..3 {
        let mut world = World::new();
        world.disk = old.clone();
        world.publish(&new, &none, false);
        for file in [CDS, RDS].iter().take(reads) {
            world.read(&[name(file)]);
            world.publish(&new, &none, false);
        }
        world.publish(&old, &none, false);
        assert!(!world.sequence.holds_routes(), "{reads}");
        assert!(shows(&world, RDS, "weight 1"), "{reads}");
    }
}

#[test]
fn what_nobody_reads_is_waited_for_twice() {
    let mut world = World::new();
    let none = Snapshot::new();
    world.disk = World::target(&names(&["c0"]), 1);
    let mut told = 0;
    for round in 1..5 {
        let new = World::target(&names(&[&format!("c{round}")]), 1);
        world.publish(&new, &none, false);
        let begun = world.now;
        while let Some(at) = world
            .sequence
            .deadline()
            .filter(|_| world.sequence.is_waiting())
        {
            world.now = at;
            let turn = world.sequence.tick(true, world.now);
            told += turn.unread.len();
            if turn.publish {
                world.publish(&new, &none, false);
            }
        }
        let waited = world.now - begun;
        // Each step of the first two changes may take a second.
        let most = Duration::from_secs(if round <= 2 { 2 } else { 0 });
        assert!(waited <= most, "{round}: {waited:?}");
    }
    assert_eq!(told, 2, "one line for each file");
    // It is not waited for, but a reader that is late still shows that there is one.
    let late = World::target(&names(&["late"]), 1);
    world.publish(&late, &none, false);
    assert!(shows(&world, RDS, "late") && world.sequence.is_listening());
    world.now += Duration::from_millis(900);
    world.sequence.tick(true, world.now);
    assert!(world.sequence.is_listening());
    world.read(&[name(CDS)]);
    let next = World::target(&names(&["next"]), 1);
    world.publish(&next, &none, false);
    assert!(shows(&world, RDS, "late"), "the routes wait");
}

#[test]
fn routes_are_acknowledged_when_all_of_their_files_are_read() {
    let mut world = World::new();
    let none = Snapshot::new();
    let mut target = World::target(&names(&["c1", "c2"]), 1);
    target.insert(name("more.yaml"), rds(&names(&["c2"]), 1));
    world.disk = target.clone();
    target.insert(name(CDS), cds(&names(&["c2"])));
    target.insert(name(RDS), rds(&names(&["c2"]), 1));
    world.publish(&target, &none, false);
    // Others change before Envoy has read the first.
    target.insert(name("more.yaml"), rds(&names(&["c2"]), 2));
    world.publish(&target, &none, false);
    world.publish(&target, &none, false);
    world.read(&[name(CDS), name("more.yaml")]);
    world.now += Duration::from_millis(500);
    world.read(&[name(RDS)]);
    assert_eq!(world.sequence.deadline(), Some(world.now + kept::GRACE));
}

#[test]
fn a_restart_between_clusters_and_routes_waits_for_the_clusters() {
    for is_late in [false, true] {
        let mut world = World::new();
        let none = Snapshot::new();
        world.disk = World::target(&names(&["c1"]), 1);
        let new = World::target(&names(&["c2"]), 1);
        world.publish(&new, &none, false);
        world.sequence = Sequence::new(Duration::from_secs(600));
        world.publish(&new, &none, false);
        assert!(shows(&world, CDS, "c2") && shows(&world, RDS, "c1"));
        // Routes that change meanwhile lead there, too.
        let new = World::target(&names(&["c2"]), 2);
        world.publish(&new, &none, false);
        assert!(shows(&world, RDS, "c1"));
        if is_late {
            world.now = world.sequence.deadline().unwrap();
            assert!(world.sequence.tick(true, world.now).publish);
        } else {
            assert!(world.read(&[name(CDS)]));
        }
        world.publish(&new, &none, false);
        assert!(shows(&world, CDS, "c1") && shows(&world, RDS, "c2"));
        assert!(!world.sequence.holds_routes());
    }
}

#[test]
fn a_failure_after_the_commit_of_clusters_does_not_let_the_routes_through() {
    let mut world = World::new();
    let none = Snapshot::new();
    world.disk = World::target(&names(&["c1"]), 1);
    let mut new = World::target(&names(&["c2"]), 1);
    let gone = world.disk[&name(RDS)].clone();
    world.disk.insert(name("gone.yaml"), gone);
    world.fails = true;
    world.publish(&new, &none, false);
    world.fails = false;
    world.publish(&new, &none, false);
    assert!(shows(&world, CDS, "c2") && shows(&world, RDS, "c1"));
    assert_eq!(world.removed, [name("gone.yaml")], "it is still to be told");
    // Once it is known, another failure does not hold what has waited for long enough.
    assert!(world.read(&[name(CDS)]));
    world.fails = true;
    world.publish(&new, &none, false);
    world.fails = false;
    new.insert(name("other.yaml"), rds(&names(&["c2"]), 1));
    world.publish(&new, &none, false);
    assert!(shows(&world, RDS, "c2"));
}

#[test]
fn no_text_is_held_in_memory_when_nothing_is_kept() {
    let mut world = World::new();
    let none = Snapshot::new();
    world.disk = World::target(&names(&["c1"]), 1);
    let new = World::target(&names(&["c2"]), 1);
    let text = Rc::downgrade(&new[&name(CDS)].bytes);
    world.publish(&new, &none, false);
    while let Some(at) = world.sequence.deadline() {
        world.now = at;
        if world.sequence.tick(true, at).publish {
            world.publish(&new, &none, false);
        }
    }
    assert!(world.sequence.is_idle());
    drop(new);
    world.disk = none;
    assert_eq!(text.strong_count(), 0);
}
