//! The pod's probes and Envoy's verdict: a pod is ready once its Envoy has accepted the
//! files, the event of one that is not says why, and no container waits for another in a circle.

use super::run::{BACKENDS, ask, chart, fetch};
use super::{MODES, items, mode};
use serde_json::{Value, json};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::process::{Child, Command, Stdio};
use testkit::crossover::Crossover;
use testkit::envoy::{self, Envoy};
use testkit::helm::{Job, Rendering, render};
use testkit::pod::{Pod, merge};
use testkit::until;

/// The containers of a pod that run, in the order in which they end.
struct Running {
    _envoy: Option<Envoy>,
    crossover: Crossover,
}

/// A pod whose containers were started as a kubelet starts them.
struct Kubelet<'a> {
    pod: &'a Pod,
    mode: &'a str,
    rendering: &'a Rendering,
}

impl Kubelet<'_> {
    /// Starts what waits for nothing: crossover, or the one container.
    fn begin(&self) -> Crossover {
        let first = match self.mode {
            "native" => "crossover",
            "classic" => "crossover-init",
            _ => "envoy",
        };
        self.pod.crossover(self.rendering, first)
    }

    /// Starts the others, each once those that it waits for are content.
    fn go_on(&self, first: Crossover) -> Running {
        let (crossover, envoy) = match self.mode {
            "native" => {
                until("the startupProbe to be content", || {
                    self.event("crossover", "startupProbe")
                        .is_none()
                        .then_some(())
                });
                (first, Some(self.pod.envoy(self.rendering)))
            }
            "classic" => {
                let finished = first.finish();
                assert_eq!(finished.code, Some(0), "{}", finished.stderr);
                let crossover = self.pod.crossover(self.rendering, "crossover");
                (crossover, Some(self.pod.envoy(self.rendering)))
            }
            _ => (first, None),
        };
        Running {
            _envoy: envoy,
            crossover,
        }
    }

    fn start(&self) -> Running {
        self.go_on(self.begin())
    }

    /// Probes a container; the text of the event if that fails.
    fn event(&self, container: &str, probe: &str) -> Option<String> {
        let what = match probe {
            "startupProbe" => "Startup",
            _ => "Readiness",
        };
        let probe = &self.rendering.container(container)[probe];
        let command = &probe["exec"]["command"];
        if !command.is_null() {
            let finished = self.pod.exec(self.rendering, container, command);
            let said = format!("{what} probe failed: {}", finished.stderr);
            return (finished.code != Some(0)).then_some(said);
        }
        let path = probe["httpGet"]["path"].as_str().expect("it has a probe");
        let answer = fetch(&format!("http://{}:9902{path}", self.pod.address), "status");
        let is_well = answer.is_some_and(|(status, _)| status == 200);
        (!is_well).then(|| format!("{what} probe failed: HTTP"))
    }

    /// The container and the probe that ask what Envoy made of the files.
    fn asks(&self) -> (&'static str, &'static str) {
        match self.mode {
            "embedded" => ("envoy", "startupProbe"),
            _ => ("crossover", "readinessProbe"),
        }
    }

    /// Why the pod is not ready.
    fn not_ready(&self) -> Option<String> {
        let (container, probe) = self.asks();
        let accepted = self.event(container, probe);
        accepted.or_else(|| self.event("envoy", "readinessProbe"))
    }

    #[track_caller]
    fn wait_until_ready(&self) {
        until(
            &format!("the pod to be ready: {:?}", self.not_ready()),
            || self.not_ready().is_none().then_some(()),
        );
    }

    /// Waits until the pod is not ready because of this.
    #[track_caller]
    fn wait_for_event(&self, reason: &str) -> String {
        until(
            &format!("an event: {reason}, not {:?}", self.not_ready()),
            || self.not_ready().filter(|event| event.contains(reason)),
        )
    }
}

/// The same with a slip in the routes, which is good YAML.
fn with_a_slip(rendering: &Rendering) -> Rendering {
    let mut slip = rendering.clone();
    for (name, text) in &mut slip.files {
        if name.ends_with("xds.configmap.yaml") {
            assert!(text.contains("weight: 3\n"), "{text}");
            *text = text.replace("weight: 3\n", "weight: three\n");
        }
    }
    slip
}

#[test]
fn on_the_first_start_nothing_waits_in_a_circle() {
    for mode_name in MODES {
        let pod = Pod::new(&BACKENDS);
        let rendering = chart(&pod, [3, 4], &mode(mode_name));
        let kubelet = Kubelet {
            pod: &pod,
            mode: mode_name,
            rendering: &rendering,
        };
        let mut early = rendering.clone();
        early
            .files
            .retain(|name, _| !name.ends_with("xds.configmap.yaml"));
        pod.install(&early);
        let first = kubelet.begin();
        if mode_name != "classic" {
            let event = kubelet.wait_for_event("default/envoy-xds: it does not exist");
            assert!(event.contains("not ready: "), "{event}");
        }
        pod.install(&rendering);
        let _running = kubelet.go_on(first);
        kubelet.wait_until_ready();
        assert_eq!(ask(&pod, "podinfo", "/").0, 200, "{mode_name}");
        pod.assert_within_role();
    }
}

#[test]
fn only_probes_of_what_is_there_first_hold_containers_back() {
    for mode_name in MODES {
        let pod = render(Job::of(mode(mode_name))).pod();
        // The kubelet gates later containers on the end of an init container, or on its
        // startupProbe.
        for first in items(&pod["initContainers"]) {
            let probe = &first["startupProbe"]["exec"]["command"];
            assert!(probe.is_null() || probe[1] == "-ready", "{probe}");
            let args = items(&first["args"]);
            let asks = args
                .iter()
                .any(|arg| arg.to_string().contains("-on-refusal"));
            assert!(!asks || first["restartPolicy"] == "Always", "{first}");
        }
        // The others start at once, and there is no gate of the pod's own.
        assert_eq!(pod["readinessGates"], Value::Null);
    }
}

#[test]
fn a_new_pod_whose_files_envoy_refuses_is_not_ready_and_the_event_says_why() {
    for mode_name in MODES {
        let pod = Pod::new(&BACKENDS);
        let good = chart(&pod, [3, 4], &mode(mode_name));
        let kubelet = Kubelet {
            pod: &pod,
            mode: mode_name,
            rendering: &good,
        };
        pod.install(&with_a_slip(&good));
        let running = kubelet.start();
        let event = kubelet.wait_for_event("refused by Envoy: ");
        for part in ["rds.yaml", "http.http.rds.http.update_failure"] {
            assert!(event.contains(part), "{mode_name}: {event}");
        }
        assert!(event.contains(" probe failed: crossover: "), "{event}");
        // Envoy itself says that all is well.
        assert_eq!(kubelet.event("envoy", "readinessProbe"), None);
        assert_eq!(ask(&pod, "podinfo", "/").0, 404, "{mode_name}");
        // And it stays so: whatever is tried, the same is refused.
        let again = kubelet.not_ready().expect("it is not ready");
        assert!(again.contains("refused by Envoy: "), "{again}");
        pod.install(&good);
        kubelet.wait_until_ready();
        assert_eq!(ask(&pod, "podinfo", "/").0, 200, "{mode_name}");
        drop(running);
        pod.assert_within_role();
    }
}

#[test]
fn a_slip_leaves_pods_that_run_ready_and_stops_the_rollout_at_the_first_new_one() {
    let pod = Pod::new(&BACKENDS);
    let good = chart(&pod, [3, 4], &mode("native"));
    let kubelet = Kubelet {
        pod: &pod,
        mode: "native",
        rendering: &good,
    };
    pod.install(&good);
    let running = kubelet.start();
    kubelet.wait_until_ready();
    let load = pod.load(200);
    pod.install(&with_a_slip(&good));
    let line = running
        .crossover
        .wait_for_line("refused by Envoy; restored");
    assert!(line.contains("rds.yaml"), "{line}");
    assert_eq!(kubelet.not_ready(), None);
    // A restart of crossover does not forget what its Envoy has taken.
    let Running { _envoy, crossover } = running;
    drop(crossover);
    let crossover = pod.crossover(&good, "crossover");
    kubelet.wait_until_ready();
    assert_eq!(load.tally().failures, Vec::<String>::new());
    drop((load, _envoy, crossover));
    // A pod that takes its place, with a volume of its own.
    pod.clear_volume();
    let _running = kubelet.start();
    kubelet.wait_for_event("Readiness probe failed: crossover: refused by Envoy: ");
    // As the Deployment has no pod to spare and none over, that is where it stops.
    let deployment = good.object("Deployment", "envoy");
    let rolling = &deployment["spec"]["strategy"]["rollingUpdate"];
    assert_eq!(rolling, &json!({"maxSurge": 1, "maxUnavailable": 0}));
}

/// Envoy's container whose admin interface is a socket.
struct WithSocket(Child);

impl Drop for WithSocket {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_admin_interface_may_be_a_socket_that_only_those_who_need_it_reach() {
    for mode_name in MODES {
        let pod = Pod::new(&BACKENDS);
        let socket = pod.path("admin/admin.sock");
        let more = json!({"admin": {"socket": socket}, "drainSeconds": 1});
        let rendering = chart(&pod, [3, 4], &merge(&mode(mode_name), &more));
        let directory = socket.parent().expect("it has one").to_path_buf();
        std::fs::create_dir(&directory).expect("the directory is ours");
        for container in ["initContainers", "containers"].map(|kind| items(&rendering.pod()[kind]))
        {
            for container in container {
                let mounts = items(&container["volumeMounts"]);
                let mount = mounts.iter().find(|mount| mount["name"] == "admin");
                let wanted = container["name"] != "crossover-init";
                assert_eq!(mount.is_some(), wanted, "{}", container["name"]);
                let path = mount.map(|mount| mount["mountPath"].clone());
                assert!(path.is_none_or(|path| path == json!(directory)));
            }
        }
        let kubelet = Kubelet {
            pod: &pod,
            mode: mode_name,
            rendering: &rendering,
        };
        pod.install(&rendering);
        let mut crossover = kubelet.begin();
        if mode_name == "classic" {
            assert_eq!(crossover.finish().code, Some(0));
            crossover = pod.crossover(&rendering, "crossover");
        }
        until("the files", || pod.file("rds.yaml").exists().then_some(()));
        let _envoy = (mode_name != "embedded").then(|| {
            let mut command = Command::new(envoy::program());
            let command = command.args(pod.arguments_of(&rendering, "envoy"));
            let command = command.stdin(Stdio::null()).stderr(Stdio::null());
            WithSocket(command.spawn().expect("Envoy can be run"))
        });
        kubelet.wait_until_ready();
        assert_eq!(ask(&pod, "podinfo", "/").0, 200, "{mode_name}");
        let found = socket.metadata().expect("it is there");
        assert!(found.file_type().is_socket());
        assert_eq!(found.mode() & 0o777, 0o660, "{mode_name}");
        // Whoever makes it drain finds it, too.
        if mode_name == "embedded" {
            crossover.signal(rustix::process::Signal::TERM);
            let finished = crossover.finish();
            assert_eq!(finished.code, Some(0), "{}", finished.stderr);
            assert!(!finished.stderr.contains("WARN"), "{}", finished.stderr);
        } else {
            let mut hook = pod.hook(&rendering).stdin(Stdio::null()).spawn().unwrap();
            let status = until("the hook to end", || hook.try_wait().unwrap());
            assert!(status.success(), "{status}");
        }
    }
}

#[test]
fn the_question_is_asked_by_who_follows_and_can_be_left_out() {
    let question = |rendering: &Rendering, container: &str| -> Vec<String> {
        let args = items(&rendering.container(container)["args"]);
        let args = args
            .iter()
            .map(|arg| arg.as_str().expect("text").to_owned());
        let about = ["-on-refusal=", "-envoy-admin="];
        args.filter(|arg| about.iter().any(|flag| arg.starts_with(flag)))
            .collect()
    };
    let admin = "-envoy-admin=http://127.0.0.1:9901";
    // `off` is false in YAML, unless it is quoted.
    for off in [json!("off"), json!(false)] {
        for mode_name in MODES {
            let values = merge(&mode(mode_name), &json!({"crossover": {"onRefusal": off}}));
            let rendering = render(Job::of(values));
            let pod = rendering.pod().to_string();
            assert!(!pod.contains("-accepted") && !pod.contains("-on-refusal"));
            if mode_name == "embedded" {
                assert_eq!(question(&rendering, "envoy"), [admin]);
            }
        }
    }
    for on_refusal in ["warn", "restore"] {
        for mode_name in MODES {
            let more = json!({"crossover": {"onRefusal": on_refusal}});
            let rendering = render(Job::of(merge(&mode(mode_name), &more)));
            let follower = match mode_name {
                "embedded" => "envoy",
                _ => "crossover",
            };
            let flag = format!("-on-refusal={on_refusal}");
            assert_eq!(question(&rendering, follower), [flag.as_str(), admin]);
            if mode_name == "classic" {
                assert_eq!(question(&rendering, "crossover-init"), Vec::<String>::new());
            }
        }
    }
}
