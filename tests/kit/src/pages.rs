//! Runs the commands of the documents as they stand there, by a real shell, in the repository.
//! `helm` is Helm's own program, but renders where it would install; `kubectl` talks to the test's
//! server.

use super::helm::{Rendering, documents};
use super::pod::{ADMIN, Pod};
use super::root;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use tempfile::TempDir;

/// The result of a command.
#[derive(Debug)]
pub enum Done {
    /// `helm upgrade --install` of the chart, and what it renders.
    Rendered(Rendering),
    /// Something that this machine has no network or no cluster for: as it was called.
    Elsewhere(String),
    /// Any other command, and the text that it printed.
    Printed(String),
}

/// A shell with the two programs.
pub struct Shell {
    dir: TempDir,
}

impl Shell {
    /// Returns a shell for a pod's cluster, with more values for each `helm upgrade` of the chart.
    pub fn new(pod: &Pod, values: &Value) -> Shell {
        let dir = TempDir::new().expect("a directory can be made");
        let shell = Shell { dir };
        let (root, url) = (root(), pod.server.url());
        let dir = shell.dir.path();
        fs::write(dir.join("values.json"), values.to_string()).expect("the directory is ours");
        let (root, dir) = (root.display(), dir.display());
        let helm = format!(
            "case \"$1 $2 $4\" in\n\
             'upgrade --install charts/envoy' | 'upgrade --install target/package/'*) ;;\n\
             *) echo \"helm $*\" > {dir}/elsewhere; exit ;;\n\
             esac\n\
             shift 2\n\
             exec {root}/.venv/helms/helm4 template \"$@\" -f {dir}/values.json > {dir}/rendered\n"
        );
        let kubectl = format!(
            "case \"$1 $2\" in\n\
             'apply -f') shift; set -- apply --validate=false \"$@\" ;;\n\
             *) echo \"kubectl $*\" > {dir}/elsewhere; exit ;;\n\
             esac\n\
             exec {} --server {url} --token {ADMIN} --insecure-skip-tls-verify --kubeconfig /dev/null \
             --cache-dir {dir}/cache \"$@\"\n",
            real_kubectl().display(),
        );
        for (name, script) in [("helm", helm), ("kubectl", kubectl)] {
            let path = shell.dir.path().join(name);
            fs::write(&path, format!("#!/bin/bash\nset -e\n{script}")).expect("it is ours");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("it is ours");
        }
        shell
    }

    /// Runs one command, which succeeds.
    #[track_caller]
    pub fn run(&self, command: &str) -> Done {
        let left = |name: &str| {
            let path = self.dir.path().join(name);
            let text = fs::read_to_string(&path).ok()?;
            fs::remove_file(path).expect("it is ours");
            Some(text)
        };
        let path = std::env::var("PATH").unwrap_or_default();
        let output = Command::new("bash")
            .args(["-e", "-c", command])
            .current_dir(root())
            .env("PATH", format!("{}:{path}", self.dir.path().display()))
            .env("HOME", self.dir.path())
            .output()
            .expect("bash can be run");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command}\n{said}");
        match (left("rendered"), left("elsewhere")) {
            (Some(text), _) => Done::Rendered(by_template(&text)),
            (None, Some(call)) => Done::Elsewhere(call.trim_end().into()),
            (None, None) => Done::Printed(String::from_utf8_lossy(&output.stdout).into_owned()),
        }
    }
}

/// Returns a section of a page, up to the next heading of its level or of one above it.
#[track_caller]
pub fn section<'a>(markdown: &'a str, heading: &str) -> &'a str {
    let (_, section) = markdown
        .split_once(&format!("\n{heading}\n"))
        .unwrap_or_else(|| panic!("there is no {heading:?}"));
    let level = heading.split(' ').next().unwrap_or_default().len();
    let ends = (2..=level).map(|level| format!("\n{} ", "#".repeat(level)));
    let end = ends.filter_map(|end| section.find(&end)).min();
    &section[..end.unwrap_or(section.len())]
}

/// Returns the blocks of a language, in their order.
pub fn blocks<'a>(markdown: &'a str, language: &str) -> Vec<&'a str> {
    let opening = format!("\n```{language}\n");
    let blocks = markdown.split(&opening).skip(1);
    blocks
        .map(|block| block.split("\n```").next().unwrap_or_default())
        .collect()
}

/// Returns the commands of a section's `console` blocks, in their order.
#[track_caller]
pub fn commands(markdown: &str, heading: &str) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for block in blocks(section(markdown, heading), "console") {
        let mut fresh = true;
        for line in block.lines() {
            match line.strip_prefix("$ ") {
                Some(command) => all.push(command.into()),
                None if line.is_empty() || (fresh && line.starts_with('#')) => {}
                None => {
                    let last = all.last_mut().expect("a block begins with a command");
                    last.push('\n');
                    last.push_str(line);
                }
            }
            fresh = line.is_empty();
        }
    }
    assert!(!all.is_empty(), "{heading:?} has no commands");
    all
}

/// Returns the output of `helm template`, divided by template.
fn by_template(text: &str) -> Rendering {
    let mut files: BTreeMap<String, String> = BTreeMap::new();
    for part in text.split("---\n# Source: ").skip(1) {
        let (name, text) = part.split_once('\n').expect("a line");
        let file = files.entry(name.into()).or_default();
        file.push_str("---\n");
        file.push_str(text);
    }
    let rendering = Rendering { files };
    assert_eq!(rendering.objects().len(), documents(text).len());
    rendering
}

fn real_kubectl() -> PathBuf {
    let path = std::env::var("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|dir| dir.join("kubectl"));
    let found = found.into_iter().find(|program| program.exists());
    found.expect("kubectl is missing: get it from https://kubernetes.io/docs/tasks/tools/")
}
