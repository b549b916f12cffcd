//! One crossover of the storm with everything of its own: a way to the API server on which the
//! network's faults happen, an output directory, its observer, and what all its lives have said.

use super::manifests::{MAPS, SPLITS, file_name};
use super::model::{Snapshot, World};
use super::observer::{Found, Looker, Observer};
use super::report::Report;
use proptest::prelude::RngExt;
use proptest::test_runner::TestRng;
use rustix::process::Signal;
use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use testkit::apiserver::Server;
use testkit::candidate::release;
use testkit::crossover::{Crossover, command_of};
use testkit::proxy::Proxy;
use testkit::stalling_proxy::StallingProxy;

/// A sync interval of the storm: short, or its pauses would take most of the time.
pub const SYNC: Duration = Duration::from_secs(3);
/// SIGTERM ends the program within 0.1 s; the machine is busy.
const ENDS_WITHIN: Duration = Duration::from_secs(1);

pub struct Follower {
    pub name: &'static str,
    pub proxy: Proxy,
    pub tear: StallingProxy,
    pub dir: PathBuf,
    pub lives: usize,
    pub damages: usize,
    crossover: Option<Crossover>,
    observer: Observer,
    looker: Looker,
    files: PathBuf,
    mortal: bool,
    report: Arc<Report>,
    /// What earlier lives have said.
    said: Vec<String>,
    /// It was damaged, and is not repaired yet.
    damaged: bool,
}

impl Follower {
    /// `mortal`: it is killed and its directory is damaged; it writes no mirrors.
    pub fn start(
        name: &'static str,
        mortal: bool,
        server: &Server,
        files: &Path,
        world: Arc<Mutex<World>>,
        report: Arc<Report>,
    ) -> Follower {
        let dir = files.join(name);
        let tear = StallingProxy::start(server.address());
        let proxy = Proxy::start(tear.address());
        let looker = || Looker::new(&dir, !mortal);
        let observer = Observer::open(name, looker(), world, report.clone(), !mortal);
        let mut follower = Follower {
            name,
            proxy,
            tear,
            lives: 0,
            damages: 0,
            crossover: None,
            observer,
            looker: looker(),
            dir,
            files: files.to_path_buf(),
            mortal,
            report,
            said: Vec::new(),
            damaged: false,
        };
        follower.live();
        follower
    }

    fn live(&mut self) {
        let mut command = command_of(&release("crossover"), &["-watch", "-namespace", "default"]);
        command.args(["-apiserver", &self.proxy.url("https")]);
        command.args(["-sync-interval", &format!("{}s", SYNC.as_secs())]);
        command.arg("-ca-file").arg(self.files.join("ca.crt"));
        command.arg("-token-file").arg(self.files.join("token"));
        command.arg("-output-dir").arg(&self.dir);
        for shape in &MAPS {
            command.args(["-configmap", shape.name]);
        }
        for split in SPLITS {
            command.args(["-trafficsplit", split]);
        }
        if self.mortal {
            command.arg("-publish=false");
        }
        if let Some(level) = std::env::var_os("RUST_LOG") {
            command.env("RUST_LOG", level);
        }
        self.crossover = Some(Crossover::spawn(command));
        self.lives += 1;
    }

    pub fn crossover(&self) -> &Crossover {
        self.crossover.as_ref().expect("it lives")
    }

    /// Ends it, by SIGKILL or by SIGTERM, and starts it again. A damaged directory has to be
    /// repaired first: what a ConfigMap that is bad or gone held is nowhere else.
    pub fn die(&mut self, signal: Signal) -> bool {
        if !self.mortal || self.damaged {
            return false;
        }
        let Some(crossover) = self.crossover.take() else {
            return false;
        };
        crossover.signal(signal);
        let began = Instant::now();
        let finished = crossover.finish();
        let gentle = signal == Signal::TERM;
        if gentle && (finished.code != Some(0) || began.elapsed() > ENDS_WITHIN) {
            let what = format!("{} after {:?}", finished.status, began.elapsed());
            self.report
                .violated(self.name, "SIGTERM ends it at once with 0", what);
        }
        self.said.extend(finished.stderr.lines().map(str::to_owned));
        self.live();
        true
    }

    /// Damages the output directory in one of many ways.
    pub fn damage(&mut self, rng: &mut TestRng) -> bool {
        if !self.mortal {
            return false;
        }
        self.observer.close(true);
        (self.damaged, self.damages) = (true, self.damages + 1);
        let (live, sets) = (self.dir.join(".live"), self.dir.join(".sets"));
        let current = self.dir.join("current");
        let link = live.join(file_name(rng.random_range(0..MAPS.len()), 0));
        // The program works meanwhile: what is gone already is damaged enough.
        let _ = match rng.random_range(0..10) {
            0 => fs::remove_file(&current),
            1 => fs::remove_file(&link),
            2 => fs::remove_dir_all(&live),
            3 => fs::remove_dir_all(&self.dir),
            4 => fs::remove_dir_all(&sets),
            5 => fs::remove_file(sets.join("active")),
            6 => fs::remove_file(sets.join("done")),
            7 => fs::remove_file(&current).and_then(|()| symlink("elsewhere", &current)),
            8 => fs::read_link(sets.join("active"))
                .and_then(|number| fs::remove_dir_all(sets.join(number))),
            _ => fs::remove_file(&link).and_then(|()| fs::write(&link, "foreign: true\n")),
        };
        true
    }

    /// The set that is visible.
    pub fn visible(&self) -> Option<PathBuf> {
        fs::read_link(self.dir.join(".sets/active")).ok()
    }

    /// What stands on disk now, if that is a whole set.
    pub fn snapshot(&mut self, world: &Mutex<World>) -> Result<Snapshot, String> {
        match self.looker.look(world) {
            Found::Set(snapshot) => Ok(snapshot),
            Found::Moving => Err("it is being written".into()),
            Found::Wrong(wrong) => Err(wrong),
        }
    }

    /// Whether own weights are restored when a split goes: what an earlier life left merged of a
    /// ConfigMap that is gone stays merged.
    pub fn knows_own_weights(&self) -> bool {
        !self.mortal
    }

    /// Looks again once a damaged directory is repaired: a whole set is visible, and done, so that
    /// a next life finds it.
    pub fn look_again(&mut self, world: &Mutex<World>) {
        let link = |name: &str| fs::read_link(self.dir.join(".sets").join(name)).ok();
        let done = link("done").is_some() && link("done") == link("active");
        if self.damaged && done && self.snapshot(world).is_ok() {
            self.damaged = false;
            self.observer.close(false);
        }
    }

    /// How many looks found a whole set, and how many came while one became visible.
    pub fn looks(&self) -> (u64, u64) {
        self.observer.counts()
    }

    /// Everything that it has said in all its lives.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = self.said.clone();
        lines.extend(self.crossover.iter().flat_map(Crossover::lines));
        lines
    }

    /// What is in the directory besides what is published: names, without the numbers of sets.
    pub fn leftovers(&self) -> Vec<String> {
        leftovers(&self.dir)
    }
}

/// Links that are made ahead: for four keys, `active` and `current`.
const AHEAD: usize = 6;

/// What should not be in an output directory that is at rest: more than the active set, three older
/// ones and an empty one made ahead, more links than those made ahead, names of nobody's.
pub fn leftovers(dir: &Path) -> Vec<String> {
    let names = |dir: &Path| -> Vec<String> {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        entries
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect()
    };
    let mut left = Vec::new();
    let sets = dir.join(".sets");
    let of = |where_: &str, names: Vec<String>| -> Vec<String> {
        names.iter().map(|name| format!("{where_}{name}")).collect()
    };
    let known = |names: Vec<String>, known: &[&str]| -> Vec<String> {
        names
            .into_iter()
            .filter(|n| !known.contains(&n.as_str()))
            .collect()
    };
    left.extend(of("", known(names(dir), &["current", ".live", ".sets"])));
    let links = names(&sets.join(".links"));
    if links.len() > AHEAD {
        left.extend(of(".sets/.links/", links));
    }
    let is_ahead = |name: &String| fs::read_dir(sets.join(name)).is_ok_and(|d| d.count() == 0);
    let numbered = known(
        names(&sets),
        &[".life", ".links", ".lock", "active", "done"],
    );
    let (mut sets, other): (Vec<String>, Vec<String>) = numbered
        .into_iter()
        .partition(|name| name.bytes().all(|b| b.is_ascii_digit()));
    if let Some(at) = sets.iter().position(is_ahead) {
        sets.swap_remove(at);
    }
    let sources = other.iter().filter(|name| {
        let number = name.strip_suffix(".sources");
        number.is_some_and(|number| sets.iter().any(|set| set == number))
    });
    if sets.len() > 4 || sources.count() != sets.len() || other.len() != sets.len() {
        left.extend(of(".sets/", sets));
        left.extend(of(".sets/", other));
    }
    left
}

/// The bytes that a directory takes, links and directories aside (a file with two names counts
/// once), and the most that they may be: four sets and what stands beside them.
pub fn disk_use(dir: &Path) -> [u64; 2] {
    let mut known = HashSet::new();
    let (mut waiting, mut bytes) = (vec![dir.to_path_buf()], 0);
    while let Some(dir) = waiting.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let Ok(found) = fs::symlink_metadata(entry.path()) else {
                continue;
            };
            if found.is_dir() {
                waiting.push(entry.path());
            } else if found.is_file() && known.insert(found.ino()) {
                bytes += found.len();
            }
        }
    }
    let visible = fs::read_dir(dir.join("current")).into_iter().flatten();
    let sizes = visible
        .flatten()
        .filter_map(|entry| fs::metadata(entry.path()).ok());
    // Each file of a set takes a line of some 200 bytes in its list.
    let set: u64 = sizes.map(|about| about.len() + 300).sum();
    [bytes, 4 * set]
}
