//! Random histories against a modelled Envoy that reads late, in any order, twice, or never.

use super::*;

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
