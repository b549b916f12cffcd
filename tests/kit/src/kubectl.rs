//! The real kubectl, on a server of a test's own.

use super::apiserver::Server;
use std::fs;
use std::process::Command;
use tempfile::TempDir;

/// A kubectl that talks to one server, and knows no other.
pub struct Kubectl {
    url: String,
    home: TempDir,
}

impl Kubectl {
    /// Returns a kubectl for this server.
    pub fn new(server: &Server) -> Kubectl {
        Kubectl {
            url: server.url(),
            home: TempDir::new().expect("a directory can be made"),
        }
    }

    /// Runs it; returns what it prints. It must succeed.
    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> String {
        let output = Command::new("kubectl")
            .args(["--server", &self.url, "--kubeconfig", "/dev/null"])
            .args(arguments)
            .current_dir(self.home.path())
            .env("HOME", self.home.path())
            .env("TMPDIR", self.home.path())
            .env("EDITOR", "sed -i 's/weight: .*/weight: 5/'")
            .env_remove("KUBECONFIG")
            .output()
            .expect("kubectl is missing: get it from https://kubernetes.io/docs/tasks/tools/");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "kubectl {arguments:?}: {text}{said}"
        );
        text
    }

    /// Runs a command line whose `kubectl` is this one.
    #[track_caller]
    pub fn shell(&self, line: &str) -> String {
        let known = format!("kubectl --server {} --kubeconfig /dev/null ", self.url);
        let output = Command::new("bash")
            .args(["-e", "-c", &line.replace("kubectl ", &known)])
            .env("HOME", self.home.path())
            .output()
            .expect("bash can be run");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{line}: {said}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Writes `all.yaml` in the directory that it runs in.
    pub fn write(&self, text: &str) {
        fs::write(self.home.path().join("all.yaml"), text).expect("a file can be written");
    }
}
