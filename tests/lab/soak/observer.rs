//! Reads an output directory as an Envoy would, over and over, and holds what it finds to the
//! promise: at any moment one whole set of states that really were in the cluster.

use super::model::{Origin, Snapshot, World};
use super::report::Report;
use std::collections::HashMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Between two looks.
const GLANCE: Duration = Duration::from_millis(4);

/// What a look has found.
pub enum Found {
    /// A set became visible while it was read, or the first one is yet to come: no verdict.
    Moving,
    /// One whole set.
    Set(Snapshot),
    Wrong(String),
}

/// Looks through `current/`. `merged_alike`: all files of a set have the same weights of a split.
pub struct Looker {
    dir: PathBuf,
    /// `current` was there: it comes last in the first publish, and never goes.
    begun: bool,
    /// The files that were found last, and what they are of.
    known: HashMap<String, (Vec<u8>, Origin)>,
    merged_alike: bool,
}

impl Looker {
    pub fn new(dir: &Path, merged_alike: bool) -> Looker {
        Looker {
            dir: dir.to_path_buf(),
            begun: false,
            known: HashMap::new(),
            merged_alike,
        }
    }

    /// The number of the set that is visible.
    fn active(&self) -> Option<PathBuf> {
        fs::read_link(self.dir.join(".sets/active")).ok()
    }

    /// One look.
    pub fn look(&mut self, world: &Mutex<World>) -> Found {
        let Some(before) = self.active() else {
            return Found::Moving;
        };
        let current = self.dir.join("current");
        let mut files = Vec::new();
        match fs::read_dir(&current) {
            Err(_) if !self.begun => return Found::Moving,
            Err(error) => return self.unless_moved(&before, format!("current: {error}")),
            Ok(entries) => {
                self.begun = true;
                for entry in entries.flatten() {
                    match fs::read(entry.path()) {
                        Ok(bytes) => {
                            files.push((entry.file_name().to_string_lossy().into_owned(), bytes));
                        }
                        // A link to a key that is about to come, or has just gone.
                        Err(error) if error.kind() == ErrorKind::NotFound => {}
                        Err(error) => {
                            return self.unless_moved(&before, format!("{entry:?}: {error}"));
                        }
                    }
                }
            }
        }
        // A single file is whole and right at any moment.
        let mut origins = Vec::new();
        for (name, bytes) in files {
            let known = self.known.get(&name).filter(|(known, _)| *known == bytes);
            let origin = match known {
                Some((_, origin)) => origin.clone(),
                None => match world.lock().expect("no panic").origin(&name, &bytes) {
                    Ok(origin) => origin,
                    Err(wrong) => return Found::Wrong(wrong),
                },
            };
            origins.push(origin.clone());
            self.known.insert(name, (bytes, origin));
        }
        // All of them together, if they were read out of one set.
        if self.active().as_ref() != Some(&before) {
            return Found::Moving;
        }
        let snapshot = world
            .lock()
            .expect("no panic")
            .snapshot(&origins, self.merged_alike);
        match snapshot {
            Ok(snapshot) => Found::Set(snapshot),
            Err(wrong) => Found::Wrong(format!("set {}: {wrong}", before.display())),
        }
    }

    fn unless_moved(&self, before: &Path, wrong: String) -> Found {
        match self.active().as_deref() == Some(before) {
            true => Found::Wrong(wrong),
            false => Found::Moving,
        }
    }
}

/// Looks until this is dropped.
pub struct Observer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    stop: AtomicBool,
    /// Held during a look; true: look away, the directory is being damaged.
    closed: Mutex<bool>,
    sets: AtomicU64,
    moving: AtomicU64,
}

impl Observer {
    /// `rises`: a state is never followed by an earlier one.
    pub fn open(
        part: &'static str,
        mut looker: Looker,
        world: Arc<Mutex<World>>,
        report: Arc<Report>,
        rises: bool,
    ) -> Observer {
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            closed: Mutex::new(false),
            sets: AtomicU64::new(0),
            moving: AtomicU64::new(0),
        });
        let mine = shared.clone();
        let thread = thread::spawn(move || {
            let mut last = Snapshot::default();
            while !mine.stop.load(Ordering::Relaxed) {
                let closed = mine.closed.lock().expect("no panic");
                if !*closed {
                    match looker.look(&world) {
                        Found::Moving => drop(mine.moving.fetch_add(1, Ordering::Relaxed)),
                        Found::Wrong(wrong) => {
                            report.violated(part, "one whole set at any moment", wrong);
                        }
                        Found::Set(found) => {
                            mine.sets.fetch_add(1, Ordering::Relaxed);
                            let mut maps = found.maps.iter().zip(&last.maps);
                            if rises && maps.any(|(new, old)| new < old) {
                                let what = format!("{:?} after {:?}", found.maps, last.maps);
                                report.violated(part, "no state after a later one", what);
                            }
                            last = found;
                        }
                    }
                }
                drop(closed);
                thread::sleep(GLANCE);
            }
        });
        Observer {
            shared,
            thread: Some(thread),
        }
    }

    /// Looks away from now on, and at no moment in between, or looks again.
    pub fn close(&self, closed: bool) {
        *self.shared.closed.lock().expect("no panic") = closed;
    }

    /// How many looks found a whole set, and how many came while one became visible.
    pub fn counts(&self) -> (u64, u64) {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (count(&self.shared.sets), count(&self.shared.moving))
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
