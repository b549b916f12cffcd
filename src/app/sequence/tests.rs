//! The sequence against a modelled Envoy that reads late, in any order, twice, or never.

use std::rc::Rc;

use super::*;
use crate::snapshot::{Bytes, ObjectName, Origin, ResourceVersion, Snapshot};
use crate::xds::sequence::{Difference, Outline};

const CDS: &str = "cds.yaml";
const RDS: &str = "rds.yaml";

fn name(text: &str) -> FileName {
    FileName::new(text).unwrap()
}

fn file(text: String) -> File {
    let object = ObjectName {
        namespace: "default".to_owned(),
        name: "envoy-xds".to_owned(),
    };
    File {
        bytes: Bytes::from(text.into_bytes()),
        origin: Rc::new(Origin {
            object,
            uid: String::new(),
            resource_version: ResourceVersion("1".to_owned()),
        }),
    }
}

fn cds(clusters: &[String]) -> File {
    let item = |name: &String| {
        format!("- '@type': type.googleapis.com/envoy.config.cluster.v3.Cluster\n  name: {name}\n")
    };
    let items: Vec<String> = clusters.iter().map(item).collect();
    file(format!("resources:\n{}", items.concat()))
}

/// A route to each cluster; the weight is that of a split.
fn rds(clusters: &[String], weight: u32) -> File {
    let kind = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration";
    let route = |name: &String| format!("    - route: {{cluster: {name}}} # weight {weight}\n");
    let routes: Vec<String> = clusters.iter().map(route).collect();
    let routes = routes.concat();
    file(format!(
        "resources:\n- '@type': {kind}\n  name: r\n  virtual_hosts:\n  - routes:\n{routes}"
    ))
}

fn clusters_named(file: &File) -> SortedSet<String> {
    let text = String::from_utf8(file.bytes.to_vec()).unwrap();
    let after = |key: &str| -> Vec<String> {
        let end = ['\n', '}', ',', '"'];
        let parts = text
            .split(key)
            .skip(1)
            .map(|part| part.trim_start_matches('"'));
        let words = parts.filter_map(|part| part.split(end).next());
        words.map(str::to_owned).collect()
    };
    let keys = ["name: ", "\"name\": ", "cluster: "];
    let names = keys.into_iter().flat_map(after);
    names.filter(|name| name.starts_with('c')).collect()
}

/// An Envoy that reads the two files.
#[derive(Default)]
struct Envoy {
    clusters: SortedSet<String>,
    /// The routes' clusters, and until when requests may use them.
    routes: Vec<(SortedSet<String>, Instant)>,
    failures: Vec<String>,
    unread: Vec<FileName>,
}

impl Envoy {
    fn read(&mut self, name: &FileName, disk: &Snapshot, now: Instant) {
        let Some(file) = disk.get(name) else { return };
        match name.as_str() {
            CDS => self.clusters = clusters_named(file),
            RDS => {
                if let Some((_, until)) = self.routes.last_mut() {
                    *until = now + Duration::from_secs(14);
                }
                let far = now + Duration::from_secs(1 << 20);
                self.routes.push((clusters_named(file), far));
            }
            _ => {}
        }
        self.routes.retain(|(_, until)| *until > now);
        for (clusters, _) in &self.routes {
            for missing in clusters.difference(&self.clusters) {
                self.failures.push(missing.clone());
            }
        }
    }
}

/// The loop around a sequence, with a directory in memory.
struct World {
    sequence: Sequence,
    disk: Snapshot,
    now: Instant,
    stages: Vec<Stage>,
    watched: SortedSet<FileName>,
    changed: Vec<FileName>,
    /// The last set could not be announced to its end.
    fails: bool,
    /// The files that the last set is said to remove.
    removed: Vec<FileName>,
}

impl World {
    fn new() -> World {
        World {
            sequence: Sequence::new(Duration::from_secs(600)),
            disk: Snapshot::new(),
            now: Instant::now(),
            stages: Vec::new(),
            watched: SortedSet::new(),
            changed: Vec::new(),
            fails: false,
            removed: Vec::new(),
        }
    }

    fn difference(&self, files: &Snapshot, standing: &SortedSet<FileName>) -> Difference {
        let mut difference = Difference::default();
        for (name, file) in files {
            match self.disk.get(name) {
                None => difference.added.push(name.clone()),
                Some(old) if old.bytes != file.bytes => difference.changed.push(name.clone()),
                Some(_) => {}
            }
        }
        for name in self.disk.keys() {
            if !files.contains_key(name) && !standing.contains(name) {
                difference.removed.push(name.clone());
            }
        }
        difference
    }

    /// Makes the next set visible; repeats where another is due at once.
    fn publish(&mut self, target: &Snapshot, interim: &Snapshot, held_back: bool) {
        for _ in 0..4 {
            let mut overlay = self.sequence.overlay(target, held_back, self.now);
            let is_at_clusters = self.stages.last() == Some(&Stage::Clusters);
            overlay.resumes = self.sequence.may_resume() && is_at_clusters;
            let difference = self.difference(&overlay.files, &overlay.standing);
            let mut visible = Snapshot::new();
            for name in Outline::new(target, &difference).wanted {
                visible.extend(self.disk.get(&name).map(|file| (name, file.clone())));
            }
            let planned = self
                .sequence
                .plan(overlay, target, &difference, &visible, interim);
            let difference = self.difference(&planned.files, &planned.standing);
            let mut disk = planned.files.clone().into_owned();
            for name in &planned.standing {
                disk.insert(name.clone(), self.disk[name].clone());
            }
            // Kept clusters are cut out again by where they are said to stand.
            for (name, range) in planned.inserted.iter() {
                let mut bytes = disk[name].bytes.to_vec();
                bytes.drain(range.start as usize..range.end as usize);
                assert_eq!(bytes, target[name].bytes.to_vec());
            }
            self.disk = disk;
            self.stages.push(planned.stage);
            self.removed.clone_from(&planned.removed);
            if planned.is_watched {
                self.watched.extend(difference.changed.iter().cloned());
            }
            self.changed.extend(difference.added.iter().cloned());
            self.changed.extend(difference.changed.iter().cloned());
            if self.fails {
                self.sequence.on_failed();
                return;
            }
            self.sequence
                .on_committed(&planned, &difference.changed, self.now);
            if !self.sequence.has_opened() {
                return;
            }
        }
        panic!("the sequence goes round in circles");
    }

    fn read(&mut self, names: &[FileName]) -> bool {
        self.sequence.on_read(names, self.now).publish
    }

    fn target(clusters: &[String], weight: u32) -> Snapshot {
        let files = [
            (name(CDS), cds(clusters)),
            (name(RDS), rds(clusters, weight)),
        ];
        Snapshot::from(files)
    }
}

fn names(all: &[&str]) -> Vec<String> {
    all.iter().map(ToString::to_string).collect()
}

fn shows(world: &World, file: &str, text: &str) -> bool {
    let bytes = world.disk[&name(file)].bytes.to_vec();
    String::from_utf8(bytes).unwrap().contains(text)
}

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

/// A listener whose inline routes lead to a cluster.
fn inline(cluster: &str) -> File {
    let kind = "type.googleapis.com/envoy.config.listener.v3.Listener";
    file(format!(
        "resources:\n- '@type': {kind}\n  name: l\n  inline: {{cluster: {cluster}}}\n"
    ))
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
        ["old.yaml: no ConfigMap has this file any more; it is kept while one is invalid"]
    );
    assert_eq!(world.sequence.deadline(), None, "without an idle wake-up");
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

fn lds(number: u32) -> File {
    let kind = "type.googleapis.com/envoy.config.listener.v3.Listener";
    file(format!(
        "resources:\n- '@type': {kind}\n  name: l{number}\n"
    ))
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

/// Runs one random world: changes at random moments, and an Envoy that reads within a second.
fn run(seed: u64) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut world = World::new();
    let mut clusters = names(&["c0"]);
    let mut target = World::target(&clusters, 1);
    world.disk = target.clone();
    let mut envoy = Envoy::default();
    let start = world.now;
    envoy.read(&name(CDS), &world.disk, start);
    envoy.read(&name(RDS), &world.disk, start);
    let mut behind_since = start;
    let (mut next, mut weight, mut seen) = (1, 1, clusters.clone());
    for _ in 0..rng.usize(5..60) {
        world.now += Duration::from_millis(rng.u64(0..400));
        let mut publish = std::mem::take(&mut world.fails);
        match rng.u32(0..12) {
            0..3 => {
                if rng.bool() && clusters.len() > 1 {
                    clusters.remove(rng.usize(0..clusters.len()));
                }
                if rng.bool() {
                    clusters.push(format!("c{next}"));
                    next += 1;
                }
                if rng.u32(0..4) == 0 {
                    clusters = vec![format!("c{next}")];
                    next += 1;
                }
                publish = true;
            }
            3..5 => {
                weight += 1;
                publish = true;
            }
            5 => {
                std::mem::swap(&mut clusters, &mut seen);
                publish = true;
            }
            // Another run goes on.
            6 => {
                world.sequence = Sequence::new(Duration::from_secs(600));
                publish = true;
            }
            // The set is visible, and that is not known.
            7 => (world.fails, publish) = (true, true),
            // Much time passes, up to the next thing that is due.
            8 if envoy.unread.is_empty() => {
                let due = world.sequence.deadline();
                world.now = due.map_or(world.now, |due| due.max(world.now));
            }
            _ => {}
        }
        target = World::target(&clusters, weight);
        publish |= world.sequence.tick(true, world.now).publish;
        if publish {
            // The texts that are visible, with today's weights.
            let routes: Vec<String> = clusters_named(&world.disk[&name(RDS)])
                .into_iter()
                .collect();
            let interim = Snapshot::from([(name(RDS), rds(&routes, weight))]);
            world.publish(&target, &interim, false);
            assert!(
                shows(&world, RDS, &format!("weight {weight}\n")),
                "seed {seed}: weights wait"
            );
        }
        // Envoy may read now or later, in any order, and twice.
        envoy.unread.append(&mut world.changed);
        if envoy.unread.is_empty() {
            behind_since = world.now;
        }
        let stalls = rng.u32(0..3) == 0 && world.now - behind_since < Duration::from_millis(500);
        while !envoy.unread.is_empty() && !stalls {
            let at = rng.usize(0..envoy.unread.len());
            let read = envoy.unread.swap_remove(at);
            envoy.read(&read, &world.disk, world.now);
            if world.read(&[read]) {
                let routes: Vec<String> = clusters_named(&world.disk[&name(RDS)])
                    .into_iter()
                    .collect();
                let interim = Snapshot::from([(name(RDS), rds(&routes, weight))]);
                world.publish(&target, &interim, false);
                envoy.unread.append(&mut world.changed);
            }
        }
        assert_eq!(envoy.failures, Vec::<String>::new(), "seed {seed}");
    }
    world.fails = false;
    world.publish(&target, &Snapshot::new(), false);
    for _ in 0..100 {
        let Some(at) = world.sequence.deadline() else {
            break;
        };
        world.now = world.now.max(at);
        if world.sequence.tick(true, world.now).publish {
            world.publish(&target, &Snapshot::new(), false);
        }
    }
    assert!(world.disk == target, "seed {seed}: the end is the target");
    assert!(world.sequence.is_idle(), "seed {seed}");
}

#[test]
fn no_route_of_a_random_history_is_without_its_cluster() {
    for seed in 0..300 {
        run(seed);
    }
}
