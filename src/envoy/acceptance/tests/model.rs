//! Random lives: two owners change what they have, well and badly, and Envoy takes, refuses, dies,
//! is slow and hides.

use std::collections::BTreeMap;

use super::*;

const NAMES: [&str; 2] = ["a", "b"];

/// Each hash is also what Envoy makes of the content.
fn kills(hash: u64) -> bool {
    hash % 17 == 16
}

fn is_bad(hash: u64) -> bool {
    hash % 5 == 4 && !kills(hash)
}

/// An Envoy that reads one file of each owner.
#[derive(Default)]
struct Process {
    attempts: [u64; 2],
    rejected: [u64; 2],
    runs: [Option<u64>; 2],
    is_dead: bool,
    is_starting: bool,
    /// The time for which it has run before it was seen, in seconds.
    older: u64,
}

impl Process {
    fn read(&mut self, owner: usize, hash: u64) {
        if self.is_dead {
            return;
        }
        self.attempts[owner] += 1;
        match hash {
            _ if kills(hash) => self.is_dead = true,
            _ if is_bad(hash) => self.rejected[owner] += 1,
            _ => self.runs[owner] = Some(hash),
        }
    }

    fn stats(&self, (warm_listeners, warm_clusters): (bool, bool), uptime: u64) -> Stats {
        let all = self.attempts.iter().sum::<u64>();
        let [listeners, clusters] = [warm_listeners, warm_clusters].map(|it| u64::from(!it));
        let mut text = format!(
            "cluster_manager.cds.update_attempt: {all}\nserver.state: 0\n\
             server.uptime: {uptime}\n\
             listener_manager.total_listeners_warming: {listeners}\n\
             cluster_manager.warming_clusters: {clusters}\n"
        );
        for (name, owner) in NAMES.into_iter().zip(0..) {
            let [attempts, rejected] = [self.attempts[owner], self.rejected[owner]];
            text += &format!("http.in.rds.{name}.update_attempt: {attempts}\n");
            text += &format!("http.in.rds.{name}.update_rejected: {rejected}\n");
        }
        Stats::parse(text.as_bytes())
    }
}

struct World {
    scene: Scene,
    began: Instant,
    rng: Rng,
    process: Process,
    hides: bool,
    /// No listener takes its time any more.
    is_quick: bool,
    source: [u64; 2],
    sets: BTreeMap<SetId, [u64; 2]>,
    visible: SetId,
    /// Routes are to follow it.
    is_half: bool,
    accepted: [u64; 2],
    /// The owners whose files are read only after the next answer.
    slow: Vec<usize>,
    /// The time at which a listener that warms is warm: until then what is slow is not read.
    warm_at: Option<Instant>,
    /// The time at which new clusters are warm, and until when routes must wait for that.
    clusters_warm_at: Option<Instant>,
    routes_wait_until: Option<Instant>,
    /// The number of changes that were let out while something was cold.
    let_out: u32,
    log: Vec<String>,
}

impl World {
    fn start(seed: u64) -> World {
        let mut process = Process::default();
        (0..2).for_each(|owner| process.read(owner, 0));
        let scene = Scene::start(true, "", (Some(1), Some(1)));
        World {
            began: scene.now,
            scene,
            rng: Rng::with_seed(seed),
            process,
            hides: false,
            is_quick: false,
            source: [0; 2],
            sets: BTreeMap::from([(1, [0; 2])]),
            visible: 1,
            is_half: false,
            accepted: [0; 2],
            slow: Vec::new(),
            warm_at: None,
            clusters_warm_at: None,
            routes_wait_until: None,
            let_out: 0,
            log: Vec::new(),
        }
    }

    fn disk(&self) -> [u64; 2] {
        self.sets[&self.visible]
    }

    /// Commits a set, or announces the one that is there, and has Envoy read it.
    fn publish(&mut self, stage: Stage, target: [u64; 2]) {
        let before = self.disk();
        let poke = stage == Stage::Poke;
        let is_cold = self.scene.it.is_cold();
        self.let_out += u32::from(is_cold);
        if stage == Stage::Routes {
            let waits = self.routes_wait_until.take();
            let waits = waits.filter(|until| *until > self.scene.now);
            let is_early = waits.is_some() && self.clusters_warm_at.is_some();
            assert!(
                !is_early || before[0] == target[0],
                "to cold clusters: {:#?}",
                self.log
            );
        }
        let owners: Vec<usize> = (0..2)
            .filter(|it| poke || before[*it] != target[*it])
            .collect();
        let contents: Vec<Content> = owners
            .iter()
            .map(|it| content(NAMES[*it], target[*it]))
            .collect();
        let set = if poke { self.visible } else { self.visible + 1 };
        self.log.push(format!("{stage:?} {set} {target:?}"));
        let mut step = step(stage, set, &contents);
        step.is_half = poke && self.is_half;
        self.scene.it.commits(step);
        if !poke && self.rng.u8(0..20) == 0 {
            self.log.push("commit failed".into());
            return self.scene.it.commit_failed(self.scene.now);
        }
        self.sets.insert(set, target);
        self.visible = set;
        self.is_half = stage == Stage::Clusters || poke && self.is_half;
        self.warm(!is_cold);
        if stage == Stage::Back {
            // They are gone.
            (self.clusters_warm_at, self.routes_wait_until) = (None, None);
        }
        if stage == Stage::Clusters && !self.hides && !self.is_quick && self.rng.bool() {
            self.chill();
        }
        if self.rng.u8(0..4) == 0 || self.warm_at.is_some() {
            self.slow.extend(owners);
            if stage == Stage::Routes && self.rng.bool() && !self.hides && !self.is_quick {
                let warms = Duration::from_millis(self.rng.u64(0..14_000));
                self.warm_at.get_or_insert(self.scene.now + warms);
            }
        } else {
            owners
                .into_iter()
                .for_each(|owner| self.process.read(owner, target[owner]));
        }
        self.scene.it.acknowledged(self.scene.now);
        let keeps = self.scene.it.keeps();
        let good = self.scene.it.good();
        self.sets
            .retain(|it, _| *it == set || keeps.contains(&Some(*it)) || good == Some(*it));
    }

    /// Has Envoy read what waits for its listener, once that is warm.
    fn warm(&mut self, at_once: bool) {
        let now = self.scene.now;
        if self.warm_at.take_if(|at| at_once || *at <= now).is_some() {
            self.read_slowly();
        }
        let is_over = |at: &mut Instant| *at <= now || self.hides || self.process.is_dead;
        self.clusters_warm_at.take_if(is_over);
    }

    /// Has Envoy read what it has not read yet, as it is by now.
    fn read_slowly(&mut self) {
        for owner in std::mem::take(&mut self.slow) {
            self.process.read(owner, self.disk()[owner]);
        }
    }

    /// Has new clusters take their time, unless others do already.
    fn chill(&mut self) {
        let now = self.scene.now;
        if self.clusters_warm_at.is_none() {
            let warms = Duration::from_millis(self.rng.u64(1..20_000));
            self.clusters_warm_at = Some(now + warms);
            self.routes_wait_until = Some(now + SECOND * 15);
        }
    }

    /// Does what there is to do, until only time brings more.
    fn settle(&mut self) {
        self.warm(false);
        for _ in 0..300 {
            let now = self.scene.now;
            self.scene.it.tick(now);
            let asks = self.scene.it.asks(now);
            for place in &asks {
                self.warm(self.hides);
                let answer = match (self.process.is_dead, self.hides) {
                    _ if std::mem::take(&mut self.process.is_starting) => {
                        Ok(Stats::parse(b"server.state: 2"))
                    }
                    (true, _) => Err(away()),
                    (_, true) => Err(AdminError::Status(403)),
                    _ => {
                        let warm = (self.warm_at.is_none(), self.clusters_warm_at.is_none());
                        let up = (now - self.began).as_secs() + self.process.older;
                        Ok(self.process.stats(warm, up).read_at(now))
                    }
                };
                self.log.push(format!("answer {:?}", answer.as_ref().err()));
                self.scene.it.answer(*place, answer, now);
                if self.warm_at.is_none() {
                    self.read_slowly();
                }
            }
            let events = self.scene.it.take_events();
            for event in events {
                self.log.push(format!("{event:?}"));
                self.check(&event);
            }
            let replan = self.scene.it.take_replan();
            let may_publish = self.scene.it.may_publish();
            match self.scene.it.wants() {
                Want::Nothing | Want::Wait if may_publish && (self.plan() || replan) => {}
                Want::Nothing | Want::Wait if asks.is_empty() => return,
                Want::Nothing | Want::Wait => {}
                Want::Poke => self.publish(Stage::Poke, self.disk()),
                Want::Reason(..) => self.scene.it.reason(None),
                Want::Back(set) => {
                    let Some(target) = self.sets.get(&set).copied() else {
                        // Only that is not kept for it.
                        assert!(
                            self.is_of_clusters(set),
                            "set {set} is gone: {:#?}",
                            self.log
                        );
                        self.scene.it.cannot_go_back();
                        continue;
                    };
                    self.publish(Stage::Back, target);
                }
            }
        }
        panic!(
            "it goes round in circles: {:#?}",
            &self.log[self.log.len() - 40..]
        );
    }

    fn is_of_clusters(&self, set: SetId) -> bool {
        let keeps = self.scene.it.keeps();
        !keeps.contains(&Some(set))
    }

    fn check(&mut self, event: &Event) {
        match event {
            Event::Accepted(set) => self.accepted = self.sets[set],
            Event::Refused { what, .. } => {
                for object in what.iter().flat_map(|it| &it.objects) {
                    let owner = NAMES.iter().position(|name| *name == object.name).unwrap();
                    assert!(
                        is_bad(self.disk()[owner]),
                        "{object} is good: {:#?}",
                        self.log
                    );
                }
            }
            Event::NotTheCause => panic!("what was accepted is refused: {:#?}", self.log),
            _ => {}
        }
    }

    /// Publishes what there is to publish. Returns whether there was anything.
    fn plan(&mut self) -> bool {
        let now = self.scene.now;
        let current = [0, 1].map(|owner| content(NAMES[owner], self.source[owner]));
        let held = current
            .clone()
            .map(|it| self.scene.it.holds(&it, now) != Hold::No);
        let target = [0, 1].map(|owner| match held[owner] {
            true => self.accepted[owner],
            false => self.source[owner],
        });
        let disk = self.disk();
        if disk == target {
            self.scene.it.in_sync(&current, now);
            return false;
        }
        let both = disk[0] != target[0] && disk[1] != target[1];
        if self.scene.it.awaits_clusters() && disk[0] != target[0] {
            // Its routes wait; those of the other do not.
            if both {
                self.publish(Stage::Clusters, [disk[0], target[1]]);
            }
            return both;
        }
        match both && !self.scene.it.is_down() {
            true => self.publish(Stage::Clusters, [disk[0], target[1]]),
            false => self.publish(Stage::Routes, target),
        }
        true
    }

    fn live(&mut self) {
        match self.rng.u8(0..10) {
            0..=3 => {
                let first = self.rng.usize(0..2);
                let both = [first, 1 - first];
                for owner in both.into_iter().take(self.rng.usize(1..3)) {
                    self.source[owner] = self.rng.u64(0..60);
                    self.log
                        .push(format!("{} becomes {}", NAMES[owner], self.source[owner]));
                }
            }
            4 => {
                self.process.is_dead = true;
                self.log.push("killed".into());
                if self.rng.bool() {
                    self.scene.it.went(0, self.scene.now);
                }
            }
            5 => self.revive(),
            6 => self.hides = self.rng.u8(0..4) == 0,
            7 => self.replace(),
            _ => {}
        }
        self.settle();
        let most = [100, 5_000, 100_000][self.rng.usize(0..3)];
        self.scene.now += Duration::from_millis(self.rng.u64(0..most));
        self.settle();
    }

    /// Has another Envoy answer, which has run for longer and counted more.
    fn replace(&mut self) {
        if self.process.is_dead {
            return;
        }
        self.log.push("replaced".into());
        let Process {
            attempts,
            rejected,
            older,
            ..
        } = self.process;
        self.process = Process {
            attempts: attempts.map(|it| it + 5),
            rejected: rejected.map(|it| it + self.rng.u64(0..3)),
            older: older + 1_000,
            ..Process::default()
        };
        self.slow.clear();
        (self.warm_at, self.clusters_warm_at) = (None, None);
        let disk = self.disk();
        (0..2).for_each(|owner| self.process.read(owner, disk[owner]));
    }

    /// Starts Envoy anew if it is dead, on what is on disk.
    fn revive(&mut self) {
        if self.process.is_dead {
            self.log.push(format!("starts on {:?}", self.disk()));
            self.process = Process::default();
            self.slow.clear();
            (self.warm_at, self.clusters_warm_at) = (None, None);
            let disk = self.disk();
            (0..2).for_each(|owner| self.process.read(owner, disk[owner]));
            // Some that die at once are seen before.
            self.process.is_starting = self.process.is_dead && self.rng.bool();
            self.scene.it.went(0, self.scene.now);
        }
    }
}

#[test]
fn what_is_good_is_live_in_the_end_and_what_is_bad_is_not_on_disk() {
    let mut let_out = 0;
    for seed in 0..200 {
        let mut world = World::start(seed);
        for _ in 0..world.rng.u8(1..40) {
            world.live();
        }
        // All is well from now on, and one owner changes something, so that Envoy is asked.
        (world.hides, world.is_quick) = (false, true);
        world.source[1] = 60 + 3 * (seed % 2);
        for _ in 0..400 {
            world.revive();
            world.settle();
            let next = world
                .scene
                .it
                .deadline()
                .map_or(SECOND, |at| at - world.scene.now);
            world.scene.now += next.max(Duration::from_millis(1));
        }
        let_out += world.let_out;
        world.revive();
        world.settle();
        let (source, disk) = (world.source, world.disk());
        for owner in 0..2 {
            let is_good = !is_bad(source[owner]) && !kills(source[owner]);
            let told = format!(
                "seed {seed}: {source:?}, on disk {disk:?}: {:#?}",
                world.log
            );
            assert!(
                !is_good || disk[owner] == source[owner],
                "held for ever: {told}"
            );
            assert!(
                !is_bad(disk[owner]) && !kills(disk[owner]),
                "bad on disk: {told}"
            );
            assert_eq!(
                world.process.runs[owner],
                Some(disk[owner]),
                "not live: {told}"
            );
        }
        assert_eq!(
            world.scene.it.status(),
            Status::Taken,
            "seed {seed}: {:#?}",
            world.log
        );
    }
    assert!(let_out > 50, "{let_out}");
}
