//! The loop around a sequence, in memory.

use super::*;

/// The loop around a sequence, with a directory in memory.
pub struct World {
    pub sequence: Sequence,
    pub disk: Snapshot,
    pub now: Instant,
    pub stages: Vec<Stage>,
    pub watched: SortedSet<FileName>,
    pub changed: Vec<FileName>,
    /// The last set could not be announced to its end.
    pub fails: bool,
    /// The files that the last set is said to remove.
    pub removed: Vec<FileName>,
    /// The number of sets with which a listener was said to change.
    pub moves: usize,
    /// The events that were reported.
    pub events: Vec<String>,
}

impl World {
    pub fn new() -> World {
        World {
            sequence: Sequence::new(Duration::from_secs(600)),
            disk: Snapshot::new(),
            now: Instant::now(),
            stages: Vec::new(),
            watched: SortedSet::new(),
            changed: Vec::new(),
            fails: false,
            removed: Vec::new(),
            moves: 0,
            events: Vec::new(),
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
    pub fn publish(&mut self, target: &Snapshot, interim: &Snapshot, held_back: bool) {
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
            self.moves += usize::from(planned.moves_listener);
            self.events.extend(planned.events.iter().cloned());
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

    pub fn read(&mut self, names: &[FileName]) -> bool {
        self.sequence.on_read(names, self.now).publish
    }

    pub fn target(clusters: &[String], weight: u32) -> Snapshot {
        let files = [
            (name(CDS), cds(clusters)),
            (name(RDS), rds(clusters, weight)),
        ];
        Snapshot::from(files)
    }
}

pub fn shows(world: &World, file: &str, text: &str) -> bool {
    let bytes = world.disk[&name(file)].bytes.to_vec();
    String::from_utf8(bytes).unwrap().contains(text)
}
