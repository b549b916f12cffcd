//! The values of `example/`, each run by the real Envoy for what it is there for.

use crate::chart::mode;
use crate::chart::run::{ask, wait_until_loaded};
use serde_json::{Value, json};
use std::fs;
use std::net::Ipv4Addr;
use testkit::envoy::Envoy;
use testkit::examples;
use testkit::helm::{Job, Rendering, documents, render};
use testkit::load::{Load, Tally, share};
use testkit::objects::{http_route, http_route_crd};
use testkit::pod::{Pod, merge, static_cluster};
use testkit::runtime::refuse;
use testkit::until;

/// An example's rendering on this machine: its Services are the pod's backends, and answer their
/// names; whatever else it names is nowhere.
struct Example {
    pod: Pod,
    job: Job,
    rendering: Rendering,
    envoy: Envoy,
}

impl Example {
    /// Renders the chart with values files.
    #[track_caller]
    fn start(files: &[&str]) -> Example {
        Example::start_with(files, |_| json!({}))
    }

    /// Renders the chart with values files, and more values over them.
    #[track_caller]
    fn start_with(files: &[&str], more: impl Fn(&Pod) -> Value) -> Example {
        let values = files.iter().fold(json!({}), |all, name| {
            merge(&all, &examples::read(&examples::path(name)))
        });
        let all = |values: &Value| values.as_object().cloned().unwrap_or_default().into_iter();
        let (name, upstreams) = ["upstreams", "services"]
            .into_iter()
            .find_map(|name| Some((name, values.get(name)?.clone())))
            .unwrap();
        let services: Vec<String> = all(&upstreams)
            .flat_map(|(_, upstream)| all(&upstream["backends"]))
            .map(|(service, _)| service)
            .collect();
        let pod = Pod::new(&services.iter().map(String::as_str).collect::<Vec<_>>());
        let mut local = merge(&pod.values(), &mode("classic"));
        for (upstream, it) in all(&upstreams) {
            for (service, backend) in all(&it["backends"]) {
                let cluster = &backend["cluster"];
                let cluster = if cluster.is_null() {
                    &json!({})
                } else {
                    cluster
                };
                local[name][&upstream]["backends"][&service]["cluster"] =
                    merge(cluster, &pod.cluster(&service));
            }
        }
        if let Some(clusters) = values["clusters"].as_array() {
            let here = clusters
                .iter()
                .map(|it| merge(it, &static_cluster("127.0.0.1", 1)));
            local["clusters"] = here.collect();
        }
        let job = Job {
            files: files.iter().map(|name| format!("example/{name}")).collect(),
            values: merge(&local, &more(&pod)),
            ..Job::default()
        };
        let rendering = render(job.clone());
        pod.install(&rendering);
        let init = pod.crossover(&rendering, "crossover-init").finish();
        assert_eq!(init.code, Some(0), "{}", init.stderr);
        let envoy = pod.envoy(&rendering);
        wait_until_loaded(&envoy);
        assert!(!envoy.log().contains("eprecated"), "{}", envoy.log());
        Example {
            pod,
            job,
            rendering,
            envoy,
        }
    }

    fn ask(&self, host: &str, path: &str) -> (u16, String) {
        ask(&self.pod, host, path)
    }
}

#[test]
fn the_services_and_the_upstreams_route_alike_with_all_other_values() {
    for file in ["values.services.yaml", "values.upstreams.yaml"] {
        let example = Example::start(&["values.yaml", file]);
        let load = example.pod.load(500);
        load.wait_for("both backends", &Tally::default(), |tally| {
            tally.answers.len() == 2
        });
        assert_eq!(load.tally().failures, Vec::<String>::new());
    }
}

#[test]
fn the_gateway_routes_services_by_host_and_path() {
    let example = Example::start(&["values.gateway.yaml"]);
    assert_eq!(example.ask("shop.example.com", "/"), (200, "shop".into()));
    assert_eq!(
        example.ask("shop.example.com", "/api/orders/7"),
        (200, "orders".into())
    );
    assert_eq!(
        example.ask("www.example.com", "/api/orders/7"),
        (200, "blog".into())
    );
    assert_eq!(example.ask("other.example.com", "/").0, 404);
    // Nobody gets round a prefix by dots, slashes or their escapes.
    for path in [
        "/api//orders/7",
        "/api/x/../orders/7",
        "/x/..%2fapi/orders/7",
    ] {
        assert_eq!(
            example.ask("shop.example.com", path),
            (200, "orders".into()),
            "{path}"
        );
    }
    let service = example.rendering.object("Service", "envoy");
    assert_eq!(service["spec"]["ports"][0]["port"], json!(80));
    let limit = "overload.envoy.resource_monitors.global_downstream_max_connections.pressure";
    assert!(example.envoy.get("/stats").contains(limit));
}

#[test]
fn the_canary_gets_its_part_and_more_by_one_flag() {
    let example = Example::start(&["values.canary.yaml"]);
    let _sidecar = example.pod.crossover(&example.rendering, "crossover");
    let load = example.pod.load(2000);
    let part = |since: &Tally| {
        let tally = load.wait_for("answers", since, |tally| tally.total() >= 1500);
        share(&tally.answers, "checkout-canary")
    };
    let five = part(&Tally::default());
    assert!((0.02..0.09).contains(&five), "{five}");
    // The flag that the file's first lines tell of, over what is installed.
    let text = fs::read_to_string(examples::path("values.canary.yaml")).unwrap();
    let (_, flag) = text.split_once("--set ").unwrap();
    let mut more = example.job.clone();
    more.set
        .push(flag.lines().next().unwrap().replace("=10", "=190"));
    example.pod.install(&render(more));
    testkit::until("two thirds for the canary", || {
        (part(&load.tally()) > 0.5).then_some(())
    });
    assert_eq!(load.tally().failures, Vec::<String>::new());
}

#[test]
fn the_router_retries_breaks_circuits_and_traces() {
    // Of two endpoints one is dead: no request may fail of it.
    let refusing = refuse((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let dead = static_cluster("127.0.0.1", refusing.local_addr().unwrap().port());
    let example = Example::start_with(&["values.router.yaml"], |pod| {
        let endpoint =
            |cluster: &Value| cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0].clone();
        let endpoints = [endpoint(&dead), endpoint(&pod.cluster("catalog"))];
        json!({
            "upstreams": {"catalog": {"backends": {"catalog": {"cluster": {
                "load_assignment": {"endpoints": [{"lb_endpoints": endpoints}]},
                "outlier_detection": {"enforcing_consecutive_gateway_failure": 0},
            }}}}},
            "listener": {"httpConnectionManager": {"tracing": {"random_sampling": {"value": 100}}}},
        })
    });
    for _ in 0..20 {
        assert_eq!(example.ask("catalog:10000", "/"), (200, "catalog".into()));
    }
    let stat = |name: &str| example.envoy.stat(name);
    assert!(stat("cluster.catalog.upstream_rq_retry_success") > 5);
    assert_eq!(stat("cluster.catalog.circuit_breakers.default.rq_open"), 0);
    let config = example
        .envoy
        .get("/config_dump?resource=dynamic_active_clusters");
    assert!(config.contains("\"max_pending_requests\": 100"), "{config}");
    assert!(stat("http.http.tracing.random_sampling") >= 20);
    // They are on their way to the collector, which is nowhere.
    until("spans to be sent", || {
        (stat("cluster.otel-collector.upstream_rq_total")
            + stat("cluster.otel-collector.upstream_cx_connect_fail")
            > 0)
        .then_some(())
    });
}

#[test]
fn flaggers_http_routes_take_the_canary_from_nothing_to_half_and_back() {
    let example = Example::start(&["values.flagger.yaml"]);
    let Example {
        pod,
        rendering,
        envoy,
        ..
    } = &example;
    pod.server.create(http_route_crd(&["v1", "v1beta1"]));
    let _sidecar = pod.crossover(rendering, "crossover");
    let load = pod.load(1000);
    let canary = "podinfo-canary";
    let only_primary = |load: &Load| {
        let since = load.tally();
        let tally = load.wait_for("answers", &since, |tally| tally.total() >= 300);
        assert!(!tally.answers.contains_key(canary), "{:?}", tally.answers);
    };
    // There is no route yet: the template's own weights count.
    only_primary(&load);
    pod.server.create(flaggers_route([100, 0]));
    pod.server.replace(flaggers_route([50, 50]));
    let since = load.tally();
    load.wait_for(canary, &since, |tally| tally.answers.contains_key(canary));
    let taken = || envoy.stat("http.http.rds.http.update_success");
    let before = taken();
    pod.server.replace(flaggers_route([100, 0]));
    until("the routes", || (taken() > before).then_some(()));
    let under_way = load.tally();
    load.wait_for("what is under way", &under_way, |tally| tally.total() >= 2);
    only_primary(&load);
    assert_eq!(load.tally().failures, Vec::<String>::new());
    pod.assert_within_role();
}

/// HTTPRoute `podinfo` as Flagger writes it by the example's Canary.
pub fn flaggers_route([primary, canary]: [u64; 2]) -> Value {
    let backend = |name: &str, weight: u64| json!({"group": "", "kind": "Service", "name": name, "port": 9898, "weight": weight});
    let backends = [
        backend("podinfo-primary", primary),
        backend("podinfo-canary", canary),
    ];
    http_route(
        "podinfo",
        json!([{
            "matches": [{"path": {"type": "PathPrefix", "value": "/"}}], "backendRefs": backends,
        }]),
    )
}

#[test]
fn flaggers_queries_ask_for_what_envoy_tells_prometheus() {
    let example = Example::start(&["values.flagger.yaml"]);
    example.ask("podinfo", "/");
    let annotations =
        example.rendering.object("Deployment", "envoy")["spec"]["template"]["metadata"].clone();
    let annotation = |name: &str| {
        let name = format!("prometheus.io/{name}");
        annotations["annotations"][name]
            .as_str()
            .unwrap()
            .to_string()
    };
    let url = format!(
        "http://{}:{}{}",
        example.pod.address,
        annotation("port"),
        annotation("path")
    );
    let told = ureq::get(&url)
        .call()
        .unwrap()
        .body_mut()
        .read_to_string()
        .unwrap();
    assert_eq!(annotation("scrape"), "true");

    let read = |name: &str| documents(&fs::read_to_string(examples::path(name)).unwrap());
    let canary = read("podinfo.canary.yaml").remove(0);
    assert_eq!(canary["spec"]["provider"], "gatewayapi:v1");
    let templates = read("envoy.metrictemplates.yaml");
    let names: Vec<_> = templates
        .iter()
        .map(|it| it["metadata"]["name"].clone())
        .collect();
    for metric in canary["spec"]["analysis"]["metrics"].as_array().unwrap() {
        assert!(names.contains(&metric["templateRef"]["name"]), "{metric}");
    }
    let mut series = 0;
    for template in &templates {
        let query = template["spec"]["query"].as_str().unwrap();
        for part in query.split("rate(").skip(1) {
            let (name, labels) = part.split_once('{').unwrap();
            let (labels, _) = labels.split_once("}[").unwrap();
            // Prometheus adds the namespace; the rest is Envoy's. The primary stands for the
            // canary.
            let labels = labels
                .split(',')
                .filter_map(|label| label.trim().split_once(['=', '!']));
            let mut labels = labels
                .map(|(label, _)| label)
                .filter(|it| *it != "kubernetes_namespace");
            let found = told.lines().find(|line| {
                line.starts_with(&format!("{name}{{")) && line.contains("=\"podinfo-primary\"")
            });
            let found = found.unwrap_or_else(|| panic!("Envoy has no {name}: {told}"));
            assert!(
                labels.all(|label| found.contains(&format!("{label}=\""))),
                "{found}"
            );
            series += 1;
        }
    }
    assert_eq!(series, 3);
}
