//! Helm itself, by its own library in the Python environment of `make tools`: renders the chart,
//! many times at once. Must not know what the chart renders.

use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};

/// The name that a release has where nothing else is said.
pub const RELEASE: &str = "envoy";

/// The versions of Helm's own programs.
pub const VERSIONS: [&str; 2] = ["3", "4"];

/// Helm's own program, in the repository, and without a cluster that it knows.
pub fn program(version: &str) -> Command {
    let root = super::root();
    let path = root.join(format!(".venv/helms/helm{version}"));
    assert!(path.exists(), "Helm is missing; run: make tools");
    let mut command = Command::new(path);
    command.current_dir(root).env("KUBECONFIG", "/dev/null");
    command
}

/// One rendering: as `helm upgrade --install RELEASE CHART -f FILE --set EXPRESSION` has it, in
/// namespace `default`.
#[derive(Clone, Debug, Default)]
pub struct Job {
    /// Empty: [`RELEASE`].
    pub release: String,
    /// The values files, by their paths in this repository.
    pub files: Vec<String>,
    /// `--set`, over the files.
    pub set: Vec<String>,
    /// Over everything.
    pub values: Value,
}

impl Job {
    /// Makes a job of these values alone.
    pub fn of(values: Value) -> Job {
        Job {
            values,
            ..Job::default()
        }
    }

    /// Returns a values file of `example/`.
    pub fn example(name: &str) -> Job {
        Job {
            files: vec![format!("example/{name}")],
            ..Job::default()
        }
    }

    /// Returns the same job with more values.
    pub fn with(mut self, values: Value) -> Job {
        assert_eq!(self.values, Value::Null, "the job has values");
        self.values = values;
        self
    }
}

/// The result of a job.
#[derive(Clone, Debug)]
pub struct Rendering {
    /// The rendered files, by template.
    pub files: BTreeMap<String, String>,
}

impl Rendering {
    /// Returns every object, in the order of the templates.
    #[track_caller]
    pub fn objects(&self) -> Vec<Value> {
        let manifests = self
            .files
            .iter()
            .filter(|(name, _)| name.ends_with(".yaml"));
        manifests.flat_map(|(_, text)| documents(text)).collect()
    }

    /// Returns the object of this kind and name.
    #[track_caller]
    pub fn object(&self, kind: &str, name: &str) -> Value {
        let mut all = self.objects();
        all.retain(|object| object["kind"] == *kind && object["metadata"]["name"] == *name);
        assert_eq!(all.len(), 1, "{kind} {name}");
        all.remove(0)
    }

    /// Returns the pod of the Deployment.
    #[track_caller]
    pub fn pod(&self) -> Value {
        self.object("Deployment", RELEASE)["spec"]["template"]["spec"].clone()
    }

    /// Returns a container of the pod, be it an init container.
    #[track_caller]
    pub fn container(&self, name: &str) -> Value {
        let pod = self.pod();
        let all = ["initContainers", "containers"].map(|kind| pod[kind].as_array().cloned());
        let mut all = all.into_iter().flatten().flatten();
        all.find(|container| container["name"] == *name)
            .unwrap_or_else(|| panic!("the pod has no container {name}"))
    }

    /// Returns the notes that the user is shown.
    pub fn notes(&self) -> &str {
        self.files
            .get("envoy/templates/NOTES.txt")
            .map_or("", String::as_str)
    }
}

/// Returns the documents of a text that are not empty.
#[track_caller]
pub fn documents(text: &str) -> Vec<Value> {
    use serde::Deserialize;
    let all = serde_yaml::Deserializer::from_str(text);
    let all = all.map(|one| Value::deserialize(one).expect("what is rendered is YAML"));
    all.filter(|object| !object.is_null()).collect()
}

/// Asks Helm; see `tests/kit/helm.py`.
#[track_caller]
pub fn ask(mut request: Map<String, Value>) -> Value {
    let root = super::root();
    let python = root.join(".venv/bin/python");
    assert!(python.exists(), "Helm is missing; run: make tools");
    request.entry("chart").or_insert(json!("charts/envoy"));
    let mut child = Command::new(python)
        .arg("tests/kit/helm.py")
        .current_dir(root)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("Python can be run");
    let mut stdin = child.stdin.take().expect("it is piped");
    let sent = stdin.write_all(Value::Object(request).to_string().as_bytes());
    drop(stdin);
    let output = child.wait_with_output().expect("the process is ours");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && sent.is_ok(),
        "{said}\nrun: make tools"
    );
    serde_json::from_slice(&output.stdout).expect("it answers JSON")
}

/// Renders all of them; an error is what Helm refuses the values with.
#[track_caller]
pub fn render_all(jobs: &[Job]) -> Vec<Result<Rendering, String>> {
    let request: Vec<Value> = jobs.iter().map(request).collect();
    let answer = ask(Map::from_iter([("renderings".into(), json!(request))]));
    let all = answer["renderings"]
        .as_array()
        .expect("one for each")
        .clone();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
    let rendering = |one: Value| match one["files"].as_object() {
        Some(files) => {
            let files = files.iter().map(|(name, it)| (name.clone(), text(it)));
            Ok(Rendering {
                files: files.collect(),
            })
        }
        None => Err(text(&one["refused"])),
    };
    all.into_iter().map(rendering).collect()
}

/// Renders one, which Helm takes.
#[track_caller]
pub fn render(job: Job) -> Rendering {
    let one = render_all(&[job]).remove(0);
    one.unwrap_or_else(|refused| panic!("Helm refuses: {refused}"))
}

fn request(job: &Job) -> Value {
    let release = if job.release.is_empty() {
        RELEASE
    } else {
        &job.release
    };
    let values = if job.values.is_null() {
        json!({})
    } else {
        job.values.clone()
    };
    json!({
        "release": release, "namespace": "default",
        "files": job.files, "set": job.set, "values": values,
    })
}
