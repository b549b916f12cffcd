//! The writer changes the cluster in the demo: by kubectl, or by requests of its own where kubectl
//! is missing.

use serde_json::Value;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;
use testkit::apiserver::Server;
use testkit::crossover::Crossover;
use testkit::examples;
use ureq::Agent;

/// It reaches one server.
pub struct Writer {
    kubectl: bool,
    url: String,
    agent: Agent,
    home: TempDir,
}

/// A kubectl that may still run; our own requests are done.
#[derive(Default)]
pub struct Applying(Option<Crossover>);

impl Writer {
    /// kubectl, if it is there.
    pub fn new(server: &Server) -> Writer {
        let places = env::var_os("PATH").unwrap_or_default();
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .proxy(None)
            .build();
        Writer {
            kubectl: env::split_paths(&places).any(|place| place.join("kubectl").is_file()),
            url: server.url(),
            agent: Agent::new_with_config(config),
            home: TempDir::new().expect("a directory can be made"),
        }
    }

    /// What they do, in words.
    pub fn describe(&self) -> &'static str {
        match self.kubectl {
            true => "by kubectl apply",
            false => "by the requests of kubectl apply (there is no kubectl here)",
        }
    }

    /// Writes an object into a file that can be applied.
    pub fn write(&self, object: &Value) -> PathBuf {
        let path = self.home.path().join("object.json");
        fs::write(&path, object.to_string()).expect("the directory is ours");
        path
    }

    /// `kubectl apply -f FILE`
    #[track_caller]
    pub fn apply(&self, file: &Path) -> Applying {
        if !self.kubectl {
            return self.put(examples::read(file));
        }
        let mut command = Command::new("kubectl");
        command
            .args(["--server", &self.url, "--kubeconfig", "/dev/null"])
            .args(["apply", "--validate=false", "-f"])
            .arg(file)
            // What kubectl caches goes away with us.
            .env("HOME", self.home.path())
            .env_remove("KUBECONFIG");
        Applying(Some(Crossover::spawn(command)))
    }

    /// The same by requests of our own: creates an object in namespace `default`, or gives the one
    /// that is there this content.
    #[track_caller]
    pub fn put(&self, object: Value) -> Applying {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
        let (version, name) = (
            text(&object["apiVersion"]),
            text(&object["metadata"]["name"]),
        );
        let place = match text(&object["kind"]).as_str() {
            "CustomResourceDefinition" => "customresourcedefinitions".to_string(),
            kind => format!("namespaces/default/{}s", kind.to_lowercase()),
        };
        let root = if version.contains('/') { "apis" } else { "api" };
        let all = format!("{}/{root}/{version}/{place}", self.url);
        let one = format!("{all}/{name}");
        let found = self.agent.get(&one).call().expect("the API server answers");
        let request = if found.status() == 200 {
            let mut now: Value = serde_json::from_reader(found.into_body().into_reader())
                .expect("the API server writes JSON");
            for (key, value) in object.as_object().into_iter().flatten() {
                if key != "metadata" {
                    now[key] = value.clone();
                }
            }
            (self.agent.put(&one), now)
        } else {
            (self.agent.post(&all), object)
        };
        let (request, body) = request;
        let answer = request
            .content_type("application/json")
            .send(body.to_string())
            .expect("the API server answers");
        let status = answer.status();
        assert!(status.is_success(), "{one}: {status}");
        Applying(None)
    }
}

impl Applying {
    /// Waits until it has ended, well.
    #[track_caller]
    pub fn finish(self) {
        if let Some(finished) = self.0.map(Crossover::finish) {
            assert_eq!(finished.code, Some(0), "kubectl: {}", finished.stderr);
        }
    }
}
