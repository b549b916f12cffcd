//! docs/getting-started.md: each command is run as it stands there, and what it promises is seen.

use crate::chart::examples::flaggers_route;
use crate::kit::apiserver::{Options, Server};
use crate::kit::crossover::Crossover;
use crate::kit::envoy::Envoy;
use crate::kit::helm::{Job, render};
use crate::kit::load::Load;
use crate::kit::objects::http_route_crd;
use crate::kit::pod::Pod;
use crate::kit::site::BACKENDS;
use crate::kit::terminal::{Done, Terminal, commands};
use crate::kit_tests::kubectl::Kubectl;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;

const PAGE: &str = include_str!("../../../docs/getting-started.md");
const DEPLOYING: &str = include_str!("../../../docs/deploying.md");
const CHART: &str = include_str!("../../../charts/envoy/README.md");
const FROM_GO: &str = include_str!("../../../docs/from-the-go-version.md");

/// Someone who follows the page.
struct Reader {
    pod: Pod,
    terminal: Terminal,
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
        let terminal = Terminal::new(&pod, &values);
        let (running, elsewhere) = (None, Vec::new());
        Reader {
            pod,
            terminal,
            running,
            elsewhere,
        }
    }

    /// Runs a command; what it installs is started the first time, and upgraded after it.
    #[track_caller]
    fn follow(&mut self, command: &str) {
        match self.terminal.run(command) {
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

    /// Waits until only these answer, and all of them do.
    #[track_caller]
    fn expect_answers_of(&self, names: &[&str]) {
        let (_, _, load) = self.running.as_ref().expect("it is installed");
        let names: BTreeSet<&str> = names.iter().copied().collect();
        crate::kit::until(&format!("answers of {names:?}"), || {
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
    let [install, repo, one, other, ask, first, second, older] =
        &commands(PAGE, "## With a ConfigMap alone")[..]
    else {
        panic!("the section has other commands");
    };
    let mut reader = Reader::new(&BACKENDS, "upstreams");
    reader.follow(install);
    reader.expect_answers_of(&BACKENDS);
    for command in [repo, one, other, ask] {
        reader.follow(command);
    }
    // The releases' Services are the backends, the address is Envoy's Service.
    for (call, service) in reader.elsewhere[1..3].iter().zip(BACKENDS) {
        let release = service.strip_suffix("-podinfo").unwrap();
        assert_eq!(
            *call,
            format!("helm upgrade --install {release} podinfo/podinfo")
        );
    }
    assert!(
        reader.elsewhere[3].contains("curl -s http://envoy:10000;"),
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

    let mut reader = Reader::new(&BACKENDS, "services");
    reader.follow(older);
    reader.expect_answers_of(&BACKENDS[..1]);
    reader.finish();
}

#[test]
fn in_a_restricted_namespace_what_the_page_starts_is_let_in() {
    let [one, other, tester] = &commands(PAGE, "## In a restricted namespace")[..] else {
        panic!("the section has other commands");
    };
    let with_a_configmap = commands(PAGE, "## With a ConfigMap alone");
    let is_restricted = |context: &Value| {
        assert_eq!(context["runAsNonRoot"], true);
        // The images name their user, and a name proves nothing.
        assert!(context["runAsUser"].as_u64() > Some(0));
        assert_eq!(context["allowPrivilegeEscalation"], false);
        assert_eq!(context["capabilities"], json!({"drop": ["ALL"]}));
        assert_eq!(context["seccompProfile"]["type"], "RuntimeDefault");
    };
    for (command, plain) in [one, other].into_iter().zip(&with_a_configmap[2..]) {
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
    assert!(with_a_configmap[4].contains(asks), "{asks}");
}

#[test]
fn getting_started_with_traffic_splits() {
    let [install, without_a_file, apply] = &commands(PAGE, "## With TrafficSplits")[..] else {
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
    let section = commands(PAGE, "## With Flagger");
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
fn the_page_leads_from_the_image_to_pods_that_have_it_and_installs_from_the_package() {
    let [
        image,
        load,
        folder,
        image_to_push,
        push,
        from_registry,
        rollout,
        test,
        make,
        package,
        plain,
    ] = &commands(PAGE, "## Install it")[..]
    else {
        panic!("the section has other commands");
    };
    let reader = Reader::new(&BACKENDS, "upstreams");
    let rendered = |command: &str| match reader.terminal.run(command) {
        Done::Rendered(rendering) => rendering,
        other => panic!("{command}: {other:?}"),
    };
    // What is built, is handed over, and is what the pods ask for.
    let ways = [
        (image, load, "kind load docker-image ", folder),
        (image_to_push, push, "docker push ", from_registry),
    ];
    let [by_hand, by_registry] = ways.map(|(make, hand_over, by, install)| {
        let Done::Printed(script) = reader.terminal.run(&make.replace("make ", "make -n ")) else {
            panic!("{make}");
        };
        let rendering = rendered(install);
        let wanted = rendering.container("crossover")["image"].clone();
        let wanted = wanted.as_str().unwrap();
        assert!(
            script.contains(&format!(" -t {wanted} ")),
            "{wanted}: {script}"
        );
        assert_eq!(*hand_over, format!("{by}{wanted}"));
        rendering.objects()
    });
    assert_ne!(by_hand, by_registry);
    assert!(by_hand.iter().any(|it| it["kind"] == "Pod"));
    let version = env!("CARGO_PKG_VERSION");
    let with_docker_alone = format!("\n$ docker build -t crossover -t crossover:{version} . ");
    assert!(DEPLOYING.contains(&with_docker_alone));
    assert_eq!(rollout, "kubectl rollout status deployment/envoy");
    assert_eq!(test, "helm test envoy");
    let printed = reader.terminal.run(make);
    assert!(matches!(printed, Done::Printed(_)), "{printed:?}");
    assert_eq!(rendered(package).objects(), by_hand);
    let (_, file) = plain.rsplit_once(' ').unwrap();
    assert!(
        Path::new(env!("CARGO_MANIFEST_DIR")).join(file).exists(),
        "{plain}"
    );
}

#[test]
fn the_charts_page_and_the_go_versions_install_as_they_say() {
    let reader = Reader::new(&BACKENDS, "upstreams");
    let section = commands(&format!("\n{CHART}"), "# The chart `envoy`");
    let [install] = &section[..] else {
        panic!("{section:?}");
    };
    let done = reader.terminal.run(install);
    assert!(matches!(done, Done::Rendered(_)), "{done:?}");

    let reader = Reader::new(&BACKENDS, "services");
    let section = commands(FROM_GO, "## The chart");
    let [install] = &section[..] else {
        panic!("{section:?}");
    };
    let theirs = "-f your-values.yaml";
    assert!(install.ends_with(theirs), "{install}");
    let done = reader
        .terminal
        .run(&install.replace(theirs, "-f example/values.services.yaml"));
    let Done::Rendered(rendering) = done else {
        panic!("{done:?}");
    };
    // Under its own name, beside what is there.
    assert!(
        rendering
            .objects()
            .iter()
            .any(|it| it["metadata"]["name"] == "gateway-envoy")
    );
}
