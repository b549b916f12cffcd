//! docs/getting-started.md: each command is run as it stands there, and what it promises is seen.

use crate::chart::examples::flaggers_route;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use testkit::apiserver::{Options, Server};
use testkit::crossover::Crossover;
use testkit::envoy::Envoy;
use testkit::examples;
use testkit::helm::{Job, Rendering, render};
use testkit::kubectl::Kubectl;
use testkit::load::Load;
use testkit::objects::http_route_crd;
use testkit::pages::{Done, Shell, commands};
use testkit::pod::Pod;
use testkit::testbed::BACKENDS;

const PAGE: &str = include_str!("../../../docs/getting-started.md");
const DEPLOYING: &str = include_str!("../../../docs/deploying.md");
const CHART: &str = include_str!("../../../charts/envoy/README.md");
const FROM_GO: &str = include_str!("../../../docs/from-the-go-version.md");

/// Someone who follows the page.
struct Reader {
    pod: Pod,
    shell: Shell,
    running: Option<(Crossover, Envoy, Load)>,
    elsewhere: Vec<String>,
}

impl Reader {
    fn new(services: &[&str], by: &str) -> Reader {
        let pod = Pod::new(services);
        let mut values = pod.values();
        for service in services {
            let cluster = pod.cluster(service);
            values[by]["podinfo"]["backends"][*service]["cluster"] = cluster;
        }
        let shell = Shell::new(&pod, &values);
        let (running, elsewhere) = (None, Vec::new());
        Reader {
            pod,
            shell,
            running,
            elsewhere,
        }
    }

    /// Runs a command; what it installs is started the first time, and upgraded after it.
    #[track_caller]
    fn follow(&mut self, command: &str) {
        match self.shell.run(command) {
            Done::Printed(_) => {}
            Done::Elsewhere(call) => self.elsewhere.push(call),
            Done::Rendered(rendering) => {
                self.pod.install(&rendering);
                if self.running.is_none() {
                    let (crossover, envoy) = self.pod.start_native(&rendering);
                    self.running = Some((crossover, envoy, self.pod.load(500)));
                }
            }
        }
    }

    /// What a command that installs the chart renders.
    #[track_caller]
    fn render(&self, command: &str) -> Rendering {
        match self.shell.run(command) {
            Done::Rendered(rendering) => rendering,
            other => panic!("{command}: {other:?}"),
        }
    }

    /// Waits until only these answer, and all of them do.
    #[track_caller]
    fn expect_answers_of(&self, names: &[&str]) {
        let (_, _, load) = self.running.as_ref().expect("it is installed");
        let names: BTreeSet<&str> = names.iter().copied().collect();
        testkit::until(&format!("answers of {names:?}"), || {
            let since = load.tally();
            let tally = load.wait_for("answers", &since, |tally| tally.total() >= 50);
            (tally
                .answers
                .keys()
                .map(String::as_str)
                .collect::<BTreeSet<_>>()
                == names)
                .then_some(())
        });
    }

    /// Asserts that no request failed, and that none was made which the Role does not allow.
    #[track_caller]
    fn finish(self) {
        let (_, _, load) = self.running.as_ref().expect("it is installed");
        assert_eq!(load.tally().failures, Vec::<String>::new());
        self.pod.assert_within_role();
    }
}

#[test]
fn getting_started_with_a_configmap_alone() {
    let [repo, one, other, install, rollout, test] =
        &commands(PAGE, "## Envoy and two backends")[..]
    else {
        panic!("the section has other commands");
    };
    let [ask, first, second] = &commands(PAGE, "## Change the weights")[..] else {
        panic!("the section has other commands");
    };
    let mut reader = Reader::new(&BACKENDS, "upstreams");
    for command in [repo, one, other, install, rollout, test] {
        reader.follow(command);
    }
    reader.expect_answers_of(&BACKENDS);
    reader.follow(ask);
    // The releases' Services are the backends, the address is Envoy's Service.
    for (call, service) in reader.elsewhere[1..3].iter().zip(BACKENDS) {
        let release = service.strip_suffix("-podinfo").unwrap();
        assert_eq!(
            *call,
            format!("helm upgrade --install {release} podinfo/podinfo")
        );
    }
    assert_eq!(
        reader.elsewhere[3..5],
        ["kubectl rollout status deployment/envoy", "helm test envoy"]
    );
    assert!(
        reader.elsewhere[5].contains("curl -s http://envoy:10000;"),
        "{:?}",
        reader.elsewhere
    );
    let service = render(Job::default()).object("Service", "envoy");
    assert_eq!(service["spec"]["ports"][0]["port"], json!(10000));
    reader.follow(first);
    reader.expect_answers_of(&BACKENDS[..1]);
    reader.follow(second);
    reader.expect_answers_of(&BACKENDS[1..]);
    reader.finish();
}

#[test]
fn in_a_restricted_namespace_what_the_page_starts_is_let_in() {
    let [one, other, tester] = &commands(PAGE, "## In a restricted namespace")[..] else {
        panic!("the section has other commands");
    };
    let backends = commands(PAGE, "## Envoy and two backends");
    let ask = &commands(PAGE, "## Change the weights")[0];
    let is_restricted = |context: &Value| {
        assert_eq!(context["runAsNonRoot"], true);
        // The images name their user, and a name proves nothing.
        assert!(context["runAsUser"].as_u64() > Some(0));
        assert_eq!(context["allowPrivilegeEscalation"], false);
        assert_eq!(context["capabilities"], json!({"drop": ["ALL"]}));
        assert_eq!(context["seccompProfile"]["type"], "RuntimeDefault");
    };
    for (command, plain) in [one, other].into_iter().zip(&backends[1..]) {
        let (same, values) = command.split_once(" --set-json securityContext=").unwrap();
        assert_eq!(same, plain);
        is_restricted(&serde_json::from_str(values.trim_matches('\'')).unwrap());
    }
    let server = Server::start(Options::default());
    let kubectl = Kubectl::new(&server);
    let dry = "kubectl --dry-run=client --output=json ";
    let made = kubectl.shell(&tester.replace(" -it --rm ", " ").replace("kubectl ", dry));
    let pod: Value = serde_json::from_str(&made).unwrap();
    let container = &pod["spec"]["containers"][0];
    is_restricted(&container["securityContext"]);
    let asks = container["command"][2].as_str().unwrap();
    assert!(ask.contains(asks), "{asks}");
}

#[test]
fn getting_started_with_traffic_splits() {
    let [install, without_a_file, apply] = &commands(PAGE, "## Weights from a TrafficSplit")[..]
    else {
        panic!("the section has other commands");
    };
    for install in [install, without_a_file] {
        let mut reader = Reader::new(&BACKENDS, "upstreams");
        reader.follow(install);
        reader.expect_answers_of(&BACKENDS);
        reader.follow(apply);
        reader.expect_answers_of(&BACKENDS[..1]);
        reader.follow("kubectl apply -f example/podinfo-v4.trafficsplit.yaml");
        reader.expect_answers_of(&BACKENDS[1..]);
        reader.finish();
    }
}

#[test]
fn getting_started_with_flagger() {
    let section = commands(PAGE, "## A canary by Flagger");
    let [definitions, install, _, flagger, podinfo, apply, image] = &section[..] else {
        panic!("the section has other commands");
    };
    let (primary, canary) = ("podinfo-primary", "podinfo-canary");
    let mut reader = Reader::new(&[primary, canary], "upstreams");
    for kind in ["Canary", "MetricTemplate"] {
        reader.pod.server.create(flagger_definition(kind));
    }
    // What it applies is not on this machine.
    assert!(definitions.contains("apply --server-side"), "{definitions}");
    reader.pod.server.create(http_route_crd(&["v1", "v1beta1"]));
    reader.follow(install);
    reader.expect_answers_of(&[primary]);
    for command in [flagger, podinfo, image] {
        reader.follow(command);
    }
    reader.follow(apply);
    let written = reader.pod.server.get("Canary", "podinfo").unwrap();
    assert!(reader.elsewhere[0].contains("meshProvider=gatewayapi:v1"));
    assert_eq!(written["spec"]["provider"], "gatewayapi:v1");
    let parent = json!([{"group": "", "kind": "ConfigMap", "name": "envoy-xds"}]);
    assert_eq!(written["spec"]["service"]["gatewayRefs"], parent);
    // From here on Flagger acts: the Service, and the weights that it begins with and goes on to.
    reader.pod.server.create(flaggers_route([100, 0]));
    reader.pod.server.replace(flaggers_route([50, 50]));
    reader.expect_answers_of(&[primary, canary]);
    reader.pod.server.replace(flaggers_route([100, 0]));
    reader.expect_answers_of(&[primary]);
    reader.finish();
}

/// Enough of Flagger's definitions for kubectl.
fn flagger_definition(kind: &str) -> Value {
    let singular = kind.to_lowercase();
    let plural = if kind == "Canary" {
        "canaries".into()
    } else {
        format!("{singular}s")
    };
    let schema = json!({"openAPIV3Schema": {
        "type": "object", "x-kubernetes-preserve-unknown-fields": true,
    }});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.flagger.app")},
        "spec": {
            "group": "flagger.app", "scope": "Namespaced",
            "names": {
                "kind": kind, "listKind": format!("{kind}List"),
                "plural": plural, "singular": singular,
            },
            "versions": [{"name": "v1beta1", "served": true, "storage": true, "schema": schema}],
        },
    })
}

#[test]
fn the_page_leads_from_the_image_to_pods_that_have_it() {
    let [image, load, image_to_push, push] = &commands(PAGE, "## The image")[..] else {
        panic!("the section has other commands");
    };
    let install = &commands(PAGE, "## Envoy and two backends")[3];
    let reader = Reader::new(&BACKENDS, "upstreams");
    // What is built, is handed over, and is what the pods ask for.
    let registry = "registry.example.com/crossover";
    let values = fs::read_to_string(examples::path("values.yaml")).unwrap();
    assert!(values.contains(&format!("{registry}\n    repository: crossover\n")));
    let by_registry = format!("{install} --set crossover.image.repository={registry}");
    let ways = [
        (image, load, "kind load docker-image ", install),
        (image_to_push, push, "docker push ", &by_registry),
    ];
    for (make, hand_over, by, install) in ways {
        let Done::Printed(script) = reader.shell.run(&make.replace("make ", "make -n ")) else {
            panic!("{make}");
        };
        let rendering = reader.render(install);
        let wanted = rendering.container("crossover")["image"].clone();
        let wanted = wanted.as_str().unwrap();
        assert!(
            script.contains(&format!(" -t {wanted} ")),
            "{wanted}: {script}"
        );
        assert_eq!(*hand_over, format!("{by}{wanted}"));
    }
    let version = env!("CARGO_PKG_VERSION");
    let with_docker_alone = format!("\n$ docker build -t crossover -t crossover:{version} . ");
    assert!(DEPLOYING.contains(&with_docker_alone));
}

#[test]
fn the_package_installs_the_same_and_there_is_a_plain_manifest() {
    let [make, package, plain] = &commands(PAGE, "## Other ways to install")[..] else {
        panic!("the section has other commands");
    };
    let install = &commands(PAGE, "## Envoy and two backends")[3];
    let reader = Reader::new(&BACKENDS, "upstreams");
    let printed = reader.shell.run(make);
    assert!(matches!(printed, Done::Printed(_)), "{printed:?}");
    let objects = reader.render(package).objects();
    assert_eq!(objects, reader.render(install).objects());
    assert!(objects.iter().any(|it| it["kind"] == "Pod"));
    let (_, file) = plain.rsplit_once(' ').unwrap();
    assert!(
        Path::new(env!("CARGO_MANIFEST_DIR")).join(file).exists(),
        "{plain}"
    );
}

#[test]
fn what_the_page_has_installed_is_cleaned_up() {
    let section = commands(PAGE, "## Clean up");
    let [canary, podinfo, split, releases] = &section[..] else {
        panic!("the section has other commands");
    };
    let undone = |command: &str| command.replace("kubectl delete ", "kubectl apply ");
    let applied = commands(PAGE, "## A canary by Flagger");
    for command in [canary, podinfo] {
        let mut files: Vec<String> = applied.iter().map(|it| sorted_words(it)).collect();
        files.retain(|it| *it == sorted_words(&undone(command)));
        assert_eq!(files.len(), 1, "{command}: {applied:?}");
    }
    let [_, _, apply] = &commands(PAGE, "## Weights from a TrafficSplit")[..] else {
        panic!("the section has other commands");
    };
    assert!(apply.contains("kind: TrafficSplit\nmetadata:\n  name: podinfo\n"));
    assert_eq!(split, "kubectl delete trafficsplit podinfo");
    // Each release that the page installs, once.
    let mut installed = BTreeSet::new();
    for section in ["## Envoy and two backends", "## A canary by Flagger"] {
        for command in commands(PAGE, section) {
            if let Some(rest) = command.strip_prefix("helm upgrade --install ") {
                installed.insert(rest.split(' ').next().unwrap().to_owned());
            }
        }
    }
    let named = releases.strip_prefix("helm uninstall ").unwrap();
    let named: BTreeSet<String> = named.split(' ').map(str::to_owned).collect();
    assert_eq!(named, installed);
}

fn sorted_words(command: &str) -> String {
    let mut words: Vec<&str> = command.split(' ').collect();
    words.sort_unstable();
    words.join(" ")
}

#[test]
fn the_charts_page_and_the_go_versions_install_as_they_say() {
    let reader = Reader::new(&BACKENDS, "upstreams");
    let [install] = &commands(&format!("\n{CHART}"), "# The chart `envoy`")[..] else {
        panic!("the section has other commands");
    };
    reader.render(install);

    let [beside, older] = &commands(FROM_GO, "## The chart")[..] else {
        panic!("the section has other commands");
    };
    let mut reader = Reader::new(&BACKENDS, "services");
    let theirs = "-f your-values.yaml";
    assert!(beside.ends_with(theirs), "{beside}");
    let rendering = reader.render(&beside.replace(theirs, "-f example/values.services.yaml"));
    // Under its own name, beside what is there.
    let named = |name: &str| {
        rendering
            .objects()
            .iter()
            .any(|it| it["metadata"]["name"] == name)
    };
    assert!(named("gateway-envoy"));
    reader.follow(older);
    reader.expect_answers_of(&BACKENDS[..1]);
    reader.finish();
}
