//! The set-up that most tests begin with: an API server, a directory, and the program between them.

use super::apiserver::{Dialect, Options, Server, Tls};
use super::crossover::{self, Crossover, Finished};
use super::objects::config_map;
use super::{until, until_file};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A server and a directory of one test's own.
pub struct Setup {
    pub server: Server,
    dir: TempDir,
}

impl Default for Setup {
    fn default() -> Setup {
        Setup::new()
    }
}

impl Setup {
    /// Starts a server by http that allows everything.
    pub fn new() -> Setup {
        Setup::with(Options::default())
    }

    /// Starts a server with these options.
    pub fn with(options: Options) -> Setup {
        let dir = TempDir::new().unwrap();
        let server = Server::start(options);
        Setup { server, dir }
    }

    /// Starts a server by https, with `ca.crt` and a `token` (of no meaning to the server) in the
    /// directory.
    pub fn https(only_tls12: bool) -> Setup {
        let dir = TempDir::new().unwrap();
        let tls = Some(Tls {
            dir: dir.path().to_path_buf(),
            only_tls12,
        });
        let server = Server::start(Options {
            tls,
            ..Options::default()
        });
        let setup = Setup { server, dir };
        fs::write(setup.path("token"), "TOKEN").unwrap();
        setup
    }

    /// Starts a server by http, in the wire format that a module is for: the tests of a file that
    /// is a module twice run on both.
    pub fn for_module(module: &str) -> Setup {
        let dialect = match module.ends_with("_old") {
            true => Dialect::V1_20,
            false => Dialect::V1_34,
        };
        Setup::with(Options {
            dialect,
            ..Options::default()
        })
    }

    /// Returns a path in the test's directory.
    pub fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_string()
    }

    /// Returns the output directory, which nobody has made yet.
    pub fn output(&self) -> PathBuf {
        self.dir.path().join("out")
    }

    /// Returns the program on this server and directory, with more flags.
    pub fn command(&self, flags: &[&str]) -> Command {
        self.command_by(&self.server.url(), flags)
    }

    fn command_by(&self, url: &str, flags: &[&str]) -> Command {
        let output = self.path("out");
        let ours = ["-apiserver", url, "-output-dir", &output];
        let ours = ours.into_iter().chain(["-namespace", "default"]);
        let all: Vec<&str> = ours.chain(flags.iter().copied()).collect();
        crossover::command(&all)
    }

    /// Returns the program that watches these ConfigMaps, with more flags. Checks are an hour
    /// apart: a test
    /// that wants them gives a later `-sync-interval`.
    pub fn watch_command(&self, names: &[&str], more: &[&str]) -> Command {
        self.watch_command_by(&self.server.url(), names, more)
    }

    /// Does the same as `watch_command`, by another URL of the server.
    pub fn watch_command_by(&self, url: &str, names: &[&str], more: &[&str]) -> Command {
        let mut command = self.command_by(url, &["-watch", "-sync-interval", "1h"]);
        for name in names {
            command.args(["-configmap", name]);
        }
        if url.starts_with("https:") {
            command.args(["-token-file", &self.path("token")]);
            command.args(["-ca-file", &self.path("ca.crt")]);
        }
        command.args(more);
        command
    }

    /// Starts the program that watches these ConfigMaps.
    #[track_caller]
    pub fn watch(&self, names: &[&str], more: &[&str]) -> Crossover {
        Crossover::spawn(self.watch_command(names, more))
    }

    /// Starts the program with these flags.
    #[track_caller]
    pub fn start(&self, flags: &[&str]) -> Crossover {
        Crossover::spawn(self.command(flags))
    }

    /// Runs the program to its end.
    #[track_caller]
    pub fn run(&self, flags: &[&str]) -> Finished {
        self.start(flags).finish()
    }

    /// Runs the program to its end, with exit code 0.
    #[track_caller]
    pub fn succeed(&self, flags: &[&str]) -> Finished {
        let finished = self.run(flags);
        assert_eq!(finished.code, Some(0), "{}", finished.stderr);
        finished
    }

    /// Runs the program to its end, with exit code 1. Returns its last line.
    #[track_caller]
    pub fn fail(&self, flags: &[&str]) -> String {
        let finished = self.run(flags);
        assert_eq!(finished.code, Some(1), "{}", finished.stderr);
        finished.stderr.lines().last().unwrap().to_string()
    }

    /// Creates or changes a ConfigMap in namespace `default`; returns its resourceVersion.
    #[track_caller]
    pub fn put(&self, name: &str, data: &[(&str, &str)]) -> String {
        self.server.apply(config_map(name, data))
    }

    /// Returns the path at which Envoy finds a file.
    pub fn file(&self, name: &str) -> PathBuf {
        self.output().join("current").join(name)
    }

    /// Waits until a file says this.
    #[track_caller]
    pub fn until_file_says(&self, name: &str, text: &str) {
        until_file(&self.file(name), |bytes| bytes == text.as_bytes());
    }

    /// Returns what Envoy finds under `current/`, or `None` if nothing is published.
    pub fn found(&self) -> Option<BTreeMap<String, Vec<u8>>> {
        found_in(&self.output())
    }

    /// Waits until Envoy finds these files and no others.
    #[track_caller]
    pub fn until_found(&self, want: &[(&str, &str)]) {
        until_found_in(&self.output(), want);
    }

    /// Asserts that Envoy finds these files and no others now.
    #[track_caller]
    pub fn assert_found(&self, want: &[(&str, &str)]) {
        assert_found_in(&self.output(), want);
    }

    /// Returns the number of the set that Envoy finds.
    #[track_caller]
    pub fn set(&self) -> u64 {
        let link = fs::read_link(self.output().join(".sets/active")).unwrap();
        link.to_str().unwrap().parse().unwrap()
    }
}

/// Does the same as [`Setup::found`], for any output directory.
pub fn found_in(output: &Path) -> Option<BTreeMap<String, Vec<u8>>> {
    let entries = fs::read_dir(output.join("current")).ok()?;
    let mut found = BTreeMap::new();
    for entry in entries {
        let path = entry.ok()?.path();
        let name = path.file_name()?.to_str()?.to_string();
        found.insert(name, fs::read(path).ok()?);
    }
    Some(found)
}

/// Does the same as [`Setup::until_found`], for any output directory.
#[track_caller]
pub fn until_found_in(output: &Path, want: &[(&str, &str)]) {
    let want: BTreeMap<String, Vec<u8>> = want
        .iter()
        .map(|(name, text)| (name.to_string(), text.as_bytes().to_vec()))
        .collect();
    until(&format!("{want:?} to be published"), || {
        (found_in(output)? == want).then_some(())
    });
}

/// Does the same as [`Setup::assert_found`], for any output directory.
#[track_caller]
pub fn assert_found_in(output: &Path, want: &[(&str, &str)]) {
    let found = found_in(output).expect("something is published");
    let found: Vec<(&str, &str)> = found
        .iter()
        .map(|(name, bytes)| (name.as_str(), std::str::from_utf8(bytes).unwrap()))
        .collect();
    assert_eq!(found, want);
}

/// Returns the lines of `-log-format=json` as objects.
#[track_caller]
pub fn events(stderr: &str) -> Vec<Value> {
    let parse = |line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
    stderr.lines().map(parse).collect()
}

/// Returns the events that say this.
#[track_caller]
pub fn events_with(stderr: &str, message: &str) -> Vec<Value> {
    let mut events = events(stderr);
    events.retain(|event| event["message"].as_str().unwrap().contains(message));
    events
}

/// Waits longer than the kit would for a process to end; returns what it left and how long it ran.
#[track_caller]
pub fn finish_within(process: Crossover, limit: Duration) -> (Finished, Duration) {
    let started = Instant::now();
    let stat = format!("/proc/{}/stat", process.pid());
    // It is a zombie until the kit reaps it.
    while !fs::read_to_string(&stat).unwrap().contains(") Z ") {
        assert!(started.elapsed() < limit, "{}", process.lines().join("\n"));
        std::thread::sleep(Duration::from_millis(10));
    }
    (process.finish(), started.elapsed())
}

/// Returns the path of everything below a directory.
pub fn tree(dir: &Path) -> Vec<String> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        paths.push(path.to_str().unwrap().to_string());
        if path.is_dir() && !path.is_symlink() {
            paths.extend(tree(&path));
        }
    }
    paths.sort();
    paths
}
