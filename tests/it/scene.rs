//! A cluster, an output directory and what the program is told of both: the set-up that the tests
//! of list-watch, wire, signals and crashes share.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use tempfile::TempDir;
use testkit::apiserver::{Dialect, Options, Server};
use testkit::crossover::{self, Crossover};
use testkit::until_file;

/// The server, and a directory that goes away with it.
pub struct Scene {
    pub server: Server,
    dir: TempDir,
}

impl Scene {
    pub fn http() -> Scene {
        Scene::with(Options::default())
    }

    /// http, in the wire format that `module` is for: the tests of a file that is a module twice
    /// run on both.
    pub fn http_for(module: &str) -> Scene {
        let dialect = match module.ends_with("_old") {
            true => Dialect::V1_20,
            false => Dialect::V1_34,
        };
        Scene::with(Options {
            dialect,
            ..Options::default()
        })
    }

    pub fn with(options: Options) -> Scene {
        let dir = TempDir::new().unwrap();
        let server = Server::start(options);
        Scene { server, dir }
    }

    pub fn https() -> Scene {
        let dir = TempDir::new().unwrap();
        let server = Server::start(Options::tls(dir.path()));
        Scene { server, dir }
    }

    /// The program with this scene's server and directory, watching these ConfigMaps of namespace
    /// `default`. Looks are an hour apart: a test that wants them gives a later `-sync-interval`.
    pub fn command(&self, names: &[&str], more: &[&str]) -> Command {
        self.command_to(&self.server.url(), names, more)
    }

    /// The same, with another way to the server.
    pub fn command_to(&self, url: &str, names: &[&str], more: &[&str]) -> Command {
        let mut command = crossover::command(&["-apiserver", url, "-namespace", "default"]);
        command.args(["-watch", "-sync-interval", "1h", "-output-dir"]);
        command.arg(self.dir.path().join("out"));
        for name in names {
            command.args(["-configmap", name]);
        }
        if url.starts_with("https:") {
            let token = self.dir.path().join("token");
            fs::write(&token, "secret\n").unwrap();
            command.arg("-token-file").arg(token);
            command.arg("-ca-file").arg(self.dir.path().join("ca.crt"));
        }
        command.args(more);
        command
    }

    #[track_caller]
    pub fn follow(&self, names: &[&str], more: &[&str]) -> Crossover {
        Crossover::spawn(self.command(names, more))
    }

    /// Returns the path at which Envoy finds a key.
    pub fn file(&self, key: &str) -> PathBuf {
        self.dir.path().join("out/current").join(key)
    }

    /// Waits until a key's file says this.
    #[track_caller]
    pub fn until_file_says(&self, key: &str, text: &str) {
        until_file(&self.file(key), |bytes| bytes == text.as_bytes());
    }
}
