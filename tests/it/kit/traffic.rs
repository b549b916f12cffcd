//! The kit's Envoy, judge, backends and load prove themselves before they prove the program.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;
use testkit::PATIENCE;
use testkit::backend::Backend;
use testkit::clients::{Clients, Rate};
use testkit::envoy::{Envoy, Judge, Offered, Verdict};
use testkit::load::{Load, Tally};
use testkit::throttle::Throttle;
use testkit::until;

const ROUTES: &str = "\
resources:
- \"@type\": type.googleapis.com/envoy.config.route.v3.RouteConfiguration
  name: local_route
  virtual_hosts:
  - {name: all, domains: [\"*\"], routes: [{match: {prefix: /}, direct_response: {status: 200}}]}
";

#[test]
fn the_judge_tells_what_envoy_loads_from_what_it_refuses() {
    let judge = Judge::start();
    let loads = |offered, text: &str| judge.offer(offered, text.as_bytes()) == Verdict::Loaded;
    assert!(loads(Offered::Routes, ROUTES));
    assert!(loads(Offered::Routes, "{}"));
    assert!(!loads(Offered::Routes, "a: [b"));
    assert!(!loads(
        Offered::Routes,
        &ROUTES.replace("local_route", "another")
    ));
    assert!(loads(Offered::Routes, ROUTES));
    assert!(!loads(Offered::RoutesJson, ROUTES));
    assert!(loads(Offered::RoutesJson, "{\"resources\": []}"));
    assert!(loads(Offered::Clusters, "resources: []"));
    assert!(!loads(Offered::Clusters, ""));
    assert!(loads(Offered::Listeners, "resources: []"));
    let Verdict::Refused(log) = judge.offer(Offered::Listeners, b"- a") else {
        panic!("Envoy took a sequence");
    };
    assert!(log.contains("lds.yaml"), "{log}");
}

#[test]
fn a_load_through_envoy_counts_each_backends_answers() {
    let (one, two) = (Backend::start("one"), Backend::start("two"));
    let envoy = Envoy::start(&bootstrap(one.address(), two.address()));
    let load = Load::start(&format!("http://{}/", envoy.listener("main")), 2000);
    let enough = |tally: &Tally| tally.answers.len() == 2 && tally.total() > 50;
    let tally = load.wait_for("answers of both", &Tally::default(), enough);
    assert!(tally.failures.is_empty(), "{:?}", tally.failures);
    drop(load);
    let stat = envoy.stat("http.main.downstream_rq_2xx");
    assert_eq!(one.answered() + two.answered(), stat);
}

#[test]
fn clients_keep_their_connections_and_count_what_failed() {
    let (one, two) = (Backend::start("one"), Backend::start("two"));
    let envoy = Envoy::start(&bootstrap(one.address(), two.address()));
    let rate = Rate {
        per_second: 200,
        clients: 4,
    };
    let clients = Clients::start(envoy.listener("main"), rate);
    assert!(clients.holds_within(PATIENCE, |tally| tally.ok() >= 100));
    let tally = clients.tally();
    assert!(tally.failures.is_empty(), "{:?}", tally.kinds());
    assert_eq!(envoy.stat("http.main.downstream_cx_total"), 4);
    // Who is asked for what takes longer than it is asked fails, and is asked on.
    drop((one, two));
    let failed = |tally: &testkit::clients::Tally| tally.statuses.get(&503) >= Some(&20);
    assert!(clients.holds_within(PATIENCE, failed));
    assert_eq!(envoy.stat("http.main.downstream_cx_total"), 4);
    drop(envoy);
    let gone =
        |tally: &testkit::clients::Tally| tally.kinds().keys().any(|what| what.contains("refused"));
    assert!(clients.holds_within(PATIENCE, gone));
}

#[test]
fn a_throttled_process_stands_still_until_it_is_let_go() {
    let envoy = Envoy::start("node: {id: throttled, cluster: throttled}");
    let state = || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", envoy.pid())).unwrap();
        stat.rsplit_once(") ").unwrap().1.chars().next()
    };
    let long = Duration::from_secs(60);
    let throttle = Throttle::start(envoy.pid(), long, Duration::from_millis(50));
    until("it to be stopped", || (state() == Some('T')).then_some(()));
    until("it to go on", || (state() != Some('T')).then_some(()));
    drop(throttle);
}

fn bootstrap(one: SocketAddr, two: SocketAddr) -> String {
    let endpoint = |address: SocketAddr| {
        let (ip, port) = (address.ip(), address.port());
        format!(
            "{{endpoint: {{address: {{socket_address: {{address: {ip}, port_value: {port}}}}}}}}}"
        )
    };
    let (one, two) = (endpoint(one), endpoint(two));
    format!(
        "
static_resources:
  clusters:
  - name: both
    load_assignment: {{cluster_name: both, endpoints: [{{lb_endpoints: [{one}, {two}]}}]}}
  listeners:
  - name: main
    address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          \"@type\": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager\
             .v3.HttpConnectionManager
          stat_prefix: main
          route_config:
            virtual_hosts:
            - {{name: all, domains: [\"*\"], routes: [{{match: {{prefix: /}}, route: {{cluster: both}}}}]}}
          http_filters:
          - name: envoy.filters.http.router
            typed_config:
              \"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
"
    )
}
