//! Programs that are measured side by side, each in a namespace of its own on one server: the
//! release binary, another crossover, and the floor under both.

use super::apiserver::{Options, Server};
use super::crossover::{Crossover, command_of, until_asleep};
use super::objects::in_namespace;
use super::until;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// Returns a program of the release profile.
pub fn release(name: &str) -> PathBuf {
    let path = super::root().join("target/x86_64-unknown-linux-musl/release");
    let path = path.join(name);
    assert!(path.exists(), "there is no {name}; run: make build floor");
    path
}

/// The command line that a program understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Speaks {
    /// Crossover's flags. The first ones know neither `-ca-file` nor TrafficSplits.
    Flags { ca_file: bool, splits: bool },
    /// `floor-loop`'s arguments.
    Paths,
}

/// A program, and the namespace that it has for itself.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Also the namespace.
    pub name: &'static str,
    /// The file.
    pub program: PathBuf,
    speaks: Speaks,
}

/// The task of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// One publish.
    Once,
    /// Follows changes.
    Watch,
}

impl Candidate {
    /// Returns the release binary.
    pub fn ours() -> Candidate {
        Candidate::crossover("crossover", &release("crossover"))
    }

    /// Returns the same program in another namespace.
    pub fn within(self, name: &'static str) -> Candidate {
        Candidate { name, ..self }
    }

    /// Returns another crossover, of any version.
    pub fn crossover(name: &'static str, program: &Path) -> Candidate {
        let mut help = command_of(program, &["-h"]);
        let told = help.stdin(Stdio::null()).output();
        let told = told.unwrap_or_else(|error| panic!("{}: {error}", program.display()));
        let told = [told.stdout, told.stderr].concat();
        let told = String::from_utf8_lossy(&told).into_owned();
        let speaks = Speaks::Flags {
            ca_file: told.contains("-ca-file"),
            splits: told.contains("-trafficsplit"),
        };
        Candidate {
            name,
            program: program.to_path_buf(),
            speaks,
        }
    }

    /// Returns the loop that does no more than read and rename.
    pub fn floor() -> Candidate {
        Candidate {
            name: "loop",
            program: release("floor-loop"),
            speaks: Speaks::Paths,
        }
    }

    /// Returns whether it can follow TrafficSplits.
    pub fn knows_splits(&self) -> bool {
        self.speaks == Speaks::Paths || self.shows_splits()
    }

    /// Returns whether it shows in the cluster what it has merged.
    pub fn shows_splits(&self) -> bool {
        matches!(self.speaks, Speaks::Flags { splits: true, .. })
    }
}

/// A server, and what programs on it need.
pub struct Bench {
    /// https.
    pub server: Server,
    dir: TempDir,
}

impl Bench {
    /// Starts a server.
    pub fn start() -> Bench {
        Bench::with_bookmarks(Duration::from_secs(60))
    }

    /// Starts a server that tells of bookmarks so often, and else nothing of itself.
    pub fn with_bookmarks(interval: Duration) -> Bench {
        let dir = TempDir::new().expect("a directory can be made");
        fs::write(dir.path().join("token"), "none").expect("the directory is ours");
        let server = Server::start(Options {
            bookmark_interval: interval,
            ..Options::tls(dir.path())
        });
        Bench { server, dir }
    }

    /// Returns a program's output directory.
    pub fn output(&self, who: &Candidate) -> PathBuf {
        self.dir.path().join(who.name)
    }

    /// Creates or replaces an object in a program's namespace; returns its resourceVersion.
    pub fn apply(&self, who: &Candidate, object: Value) -> String {
        self.server.apply(in_namespace(who.name, object))
    }

    /// Returns a ConfigMap in a program's namespace.
    pub fn config_map(&self, who: &Candidate, name: &str) -> Option<Value> {
        self.server
            .change(|cluster| cluster.get("ConfigMap", who.name, name))
    }

    /// Has a program follow or fetch these ConfigMaps, and merge this TrafficSplit into them.
    pub fn command<S: AsRef<str>>(
        &self,
        who: &Candidate,
        mode: Mode,
        config_maps: &[S],
        split: Option<&str>,
    ) -> Command {
        let url = self.server.url();
        let mut command = self.command_to(who, mode, &url, config_maps);
        match (who.speaks, split) {
            (_, None) => {}
            (Speaks::Flags { .. }, Some(name)) => {
                command.args([
                    "-trafficsplit",
                    name,
                    "-trafficsplit-api-version",
                    "v1alpha2",
                ]);
            }
            (Speaks::Paths, Some(name)) => {
                // It follows the first path that it is told of.
                let address = self.server.address().to_string();
                let group = "apis/split.smi-spec.io/v1alpha2";
                let paths = [path(who, mode, group, "trafficsplits", name)];
                command = self.floor(who, mode, &address, paths);
                command.args(config_map_paths(who, mode, config_maps));
            }
        }
        command
    }

    /// Returns the same for any address, without TrafficSplits.
    pub fn command_to<S: AsRef<str>>(
        &self,
        who: &Candidate,
        mode: Mode,
        url: &str,
        config_maps: &[S],
    ) -> Command {
        let Speaks::Flags { ca_file, .. } = who.speaks else {
            let address = url.trim_start_matches("https://");
            return self.floor(who, mode, address, config_map_paths(who, mode, config_maps));
        };
        let mode = match mode {
            Mode::Once => "-onetime",
            Mode::Watch => "-watch",
        };
        let mut command = command_of(&who.program, &["-apiserver", url, mode]);
        command.args(["-namespace", who.name, "-sync-interval", "1h"]);
        command.arg("-output-dir").arg(self.output(who));
        command
            .arg("-token-file")
            .arg(self.dir.path().join("token"));
        match ca_file {
            true => command.arg("-ca-file").arg(self.server.ca_file()),
            false => command.arg("-insecure"),
        };
        for name in config_maps {
            command.args(["-configmap", name.as_ref()]);
        }
        command
    }

    fn floor(
        &self,
        who: &Candidate,
        mode: Mode,
        address: &str,
        paths: impl IntoIterator<Item = String>,
    ) -> Command {
        let current = self.output(who).join("current");
        fs::create_dir_all(&current).expect("the directory is ours");
        let mode = match mode {
            Mode::Once => "once",
            Mode::Watch => "watch",
        };
        let mut command = command_of(&who.program, &[mode, address]);
        command.arg(self.server.ca_file());
        command.arg(current.join("rds.yaml")).args(paths);
        command
    }

    /// Starts a program, and waits until it follows all of them and rests.
    pub fn follow<S: AsRef<str>>(
        &self,
        who: &Candidate,
        config_maps: &[S],
        split: Option<&str>,
    ) -> Crossover {
        let watches = self.server.watch_count() + config_maps.len() + split.iter().len();
        let process = Crossover::spawn(self.command(who, Mode::Watch, config_maps, split));
        self.server.wait_for_watches(watches);
        let files = match who.speaks {
            Speaks::Flags { .. } => config_maps.len(),
            Speaks::Paths => 1,
        };
        let current = self.output(who).join("current");
        until(&format!("{} to publish", who.name), || {
            (fs::read_dir(&current).ok()?.count() >= files).then_some(())
        });
        until_asleep(process.pid());
        process
    }
}

fn config_map_paths<S: AsRef<str>>(who: &Candidate, mode: Mode, names: &[S]) -> Vec<String> {
    let paths = names.iter().map(S::as_ref);
    paths
        .map(|name| path(who, mode, "api/v1", "configmaps", name))
        .collect()
}

fn path(who: &Candidate, mode: Mode, group: &str, plural: &str, name: &str) -> String {
    let watch = match mode {
        Mode::Once => "",
        Mode::Watch => "&watch=true",
    };
    let namespace = who.name;
    format!("/{group}/namespaces/{namespace}/{plural}?fieldSelector=metadata.name%3D{name}{watch}")
}
