//! A real Envoy's counters and words, as the program asks for them and judges by them.

use crossover::Signals;
use crossover::testing::envoy::{
    Address, AdminError, Exchange, Holdings, IdleConnection, MAX_ANSWER, MAX_DUMP, Outcome, PATH,
    Stats, Subscription, Topic, Verdict, judge, reason,
};
use crossover::testing::poll;
use rustix::event::{PollFd, PollFlags};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};
use tempfile::TempDir;
use testkit::envoy::Envoy;
use testkit::until;

const TYPE: &str = "type.googleapis.com/envoy";

/// An Envoy that reads clusters, listeners and routes from a folder.
struct Scene {
    envoy: Option<Envoy>,
    address: Address,
    signals: Signals,
    dir: TempDir,
    /// When the last change was made.
    changed: SystemTime,
}

fn source(dir: &Path, file: &str) -> String {
    let path = dir.join(file);
    let path = path.display();
    format!("{{resource_api_version: V3, path_config_source: {{path: \"{path}\"}}}}")
}

fn cluster(name: &str, address: &str, more: &str) -> String {
    format!(
        "- {{\"@type\": {TYPE}.config.cluster.v3.Cluster, name: {name}, connect_timeout: 1s{more}, \
         load_assignment: {{cluster_name: {name}, endpoints: [{{lb_endpoints: [{{endpoint: {{address: \
         {{socket_address: {{address: {address}, port_value: 1}}}}}}}}]}}]}}}}\n"
    )
}

fn routes(name: &str, domains: &str) -> String {
    format!(
        "resources: [{{\"@type\": {TYPE}.config.route.v3.RouteConfiguration, name: {name}, virtual_hosts: \
         [{{name: all, domains: [{domains}], routes: [{{match: {{prefix: /}}, route: {{cluster: good}}}}]}}]}}]\n"
    )
}

fn listener(name: &str, routes: &str, more: &str) -> String {
    format!(
        "- \"@type\": {TYPE}.config.listener.v3.Listener
  name: {name}
  address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}
  filter_chains:
  - filters:
    - name: envoy.filters.network.http_connection_manager
      typed_config:
        \"@type\": {TYPE}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
        stat_prefix: in
        {routes}
        http_filters: [{{name: envoy.filters.http.router, typed_config: {{\"@type\": {TYPE}.extensions.filters.http.router.v3.Router}}}}]
{more}"
    )
}

fn file(resources: &[String]) -> String {
    format!("resources:\n{}", resources.concat())
}

impl Scene {
    fn start() -> Scene {
        let dir = TempDir::new().expect("a directory can be made");
        let bootstrap = format!(
            "node: {{id: t, cluster: t}}\ndynamic_resources:\n  cds_config: {}\n  lds_config: {}\n",
            source(dir.path(), "cds.yaml"),
            source(dir.path(), "lds.yaml"),
        );
        let rds = format!(
            "rds: {{route_config_name: r, config_source: {}}}",
            source(dir.path(), "rds.yaml")
        );
        put(
            dir.path(),
            "cds.yaml",
            &file(&[cluster("good", "127.0.0.1", "")]),
        );
        put(dir.path(), "rds.yaml", &routes("r", "'*'"));
        put(dir.path(), "lds.yaml", &file(&[listener("main", &rds, "")]));
        let envoy = Envoy::start(&bootstrap);
        let address = Address::new(&format!("http://{}", envoy.admin())).expect("it is one");
        let mut scene = Scene {
            envoy: Some(envoy),
            address,
            signals: Signals::install(false, None).expect("signals can be held"),
            dir,
            changed: SystemTime::UNIX_EPOCH,
        };
        until("the first answer", || {
            scene.stats().is_started().then_some(())
        });
        scene
    }

    fn get(&mut self, path: &str, limit: usize) -> Result<Vec<u8>, AdminError> {
        let now = Instant::now();
        let mut exchange = Exchange::get(&mut self.address, path, limit, &self.signals, now)?;
        loop {
            let mut fds = [PollFd::new(&exchange, exchange.interest())];
            poll::wait(&mut fds, Some(exchange.deadline())).expect("it can be waited for");
            if let Some(answer) = exchange.on_ready(Instant::now()) {
                return answer;
            }
        }
    }

    fn stats(&mut self) -> Stats {
        Stats::parse(&self.get(PATH, MAX_ANSWER).expect("Envoy answers"))
    }

    /// Changes a file, and waits for the verdict on it.
    #[track_caller]
    fn change(
        &mut self,
        name: &str,
        text: &str,
        now: Subscription,
        before: Subscription,
    ) -> Verdict {
        let baseline = self.stats();
        self.changed = put(self.dir.path(), name, text);
        let holdings = [Holdings {
            now: vec![now],
            before: vec![before],
        }];
        until("Envoy to read it", || {
            let verdict = judge(&baseline, &self.stats(), &holdings);
            (verdict.outcome != Outcome::NotRead).then_some(verdict)
        })
    }

    #[track_caller]
    fn why(&mut self, topic: Topic, names: &[&str]) -> Option<String> {
        let answer = self.get(topic.path(), MAX_DUMP).expect("Envoy answers");
        reason(topic, &answer, self.changed, names)
    }
}

/// Replaces a file as a whole. Returns its time.
fn put(dir: &Path, name: &str, text: &str) -> SystemTime {
    let staged = dir.join("staged");
    fs::write(&staged, text).expect("the directory is ours");
    let metadata = fs::metadata(&staged).expect("it was written just now");
    fs::rename(&staged, dir.join(name)).expect("the directory is ours");
    metadata.modified().expect("the system has times")
}

fn refused(verdict: &Verdict) -> Option<&str> {
    match &verdict.outcome {
        Outcome::Refused(refusals) => refusals.first().map(|refusal| refusal.counter.as_str()),
        _ => None,
    }
}

#[test]
fn each_kind_of_change_is_judged_as_envoy_takes_it_whatever_was_refused_before() {
    let mut scene = Scene::start();
    let routed = |name: &str| Subscription::Routes(name.into());
    let inline = "route_config: {virtual_hosts: [{name: a, domains: ['*'], routes: [{match: {prefix: /}, route: {cluster: nope}}]}]}";
    let good = cluster("good", "127.0.0.1", "");
    let cases = [
        (
            "cds.yaml",
            file(&[good.clone(), cluster("z", "nope", "")]),
            "cluster_manager.cds.update_rejected",
        ),
        (
            "cds.yaml",
            "resources: [{".into(),
            "cluster_manager.cds.update_failure",
        ),
        (
            "cds.yaml",
            file(&[good.replace("1s", "fifty")]),
            "cluster_manager.cds.update_failure",
        ),
        (
            "cds.yaml",
            file(&[good.clone(), cluster("z", "127.0.0.1", "")]),
            "",
        ),
        (
            "lds.yaml",
            file(&[listener("two", inline, "")]),
            "listener_manager.lds.update_rejected",
        ),
        (
            "rds.yaml",
            routes("r", "'*', '*'"),
            "http.in.rds.r.update_rejected",
        ),
        ("rds.yaml", routes("r", ""), "http.in.rds.r.update_rejected"),
        ("rds.yaml", routes("r", "a.example"), ""),
    ];
    for (name, text, counter) in cases {
        let subscription = match name {
            "cds.yaml" => Subscription::Clusters,
            "lds.yaml" => Subscription::Listeners,
            _ => routed("r"),
        };
        let verdict = scene.change(name, &text, subscription.clone(), subscription);
        let want = (!counter.is_empty()).then_some(counter);
        assert_eq!(refused(&verdict), want, "{text}: {verdict:?}");
        if counter.is_empty() {
            assert_eq!(verdict.outcome, Outcome::Accepted, "{text}");
        }
    }
}

#[test]
fn a_name_that_nobody_asks_for_is_refused_and_an_unknown_field_is_reported() {
    let mut scene = Scene::start();
    let routed = |name: &str| Subscription::Routes(name.into());
    let verdict = scene.change(
        "rds.yaml",
        &routes("other", "'*'"),
        routed("other"),
        routed("r"),
    );
    assert_eq!(refused(&verdict), Some("http.in.rds.r.update_rejected"));
    let typo = file(&[cluster("good", "127.0.0.1", ", bogus: 1")]);
    let verdict = scene.change(
        "cds.yaml",
        &typo,
        Subscription::Clusters,
        Subscription::Clusters,
    );
    assert_eq!(
        (verdict.outcome, verdict.unknown_fields),
        (Outcome::Accepted, 1)
    );
}

#[test]
fn an_idle_connection_tells_that_envoy_went_and_a_new_one_is_another() {
    let mut scene = Scene::start();
    let before = scene.stats();
    let now = Instant::now();
    let idle = IdleConnection::start(&mut scene.address, &scene.signals, now).expect("it is there");
    assert_eq!(scene.get("/nowhere", 10_000), Err(AdminError::Status(404)));
    assert!(!idle.has_ended());
    scene.envoy = None;
    let mut fds = [PollFd::new(&idle, PollFlags::IN)];
    poll::wait(&mut fds, Some(Instant::now() + Duration::from_secs(60)))
        .expect("it can be waited for");
    assert!(idle.has_ended());
    let error = scene.get(PATH, MAX_ANSWER).expect_err("nobody is there");
    assert!(matches!(error, AdminError::Away(_)), "{error}");
    assert!(Stats::default().restarted_since(&before));
}

#[test]
fn the_reason_is_in_envoys_own_words_without_any_value() {
    let mut scene = Scene::start();
    let hosts = |last: &str| {
        let host = |at: usize| {
            format!(
                "{{name: v{at}, domains: [v{at}.s3cr3t.example], routes: [{{match: {{prefix: /}}, route: {{cluster: good}}}}]}}"
            )
        };
        let hosts: Vec<String> = (0..1000).map(host).chain([last.to_owned()]).collect();
        format!(
            "route_config: {{name: inline, virtual_hosts: [{}]}}",
            hosts.join(",")
        )
    };
    let ca = rcgen::KeyPair::generate().expect("a key can be made");
    let key = ca.serialize_pem();
    let key = key
        .lines()
        .map(|line| format!("                {line}\n"))
        .collect::<String>();
    let tls = format!(
        "    transport_socket:
      name: envoy.transport_sockets.tls
      typed_config:
        \"@type\": {TYPE}.extensions.transport_sockets.tls.v3.DownstreamTlsContext
        common_tls_context:
          tls_certificates:
          - certificate_chain: {{inline_string: s3cr3t}}
            private_key:
              inline_string: |\n{key}"
    );
    let unknown =
        "{name: last, domains: [last], routes: [{match: {prefix: /}, route: {cluster: nope}}]}";
    let unnamed = "{name: '', domains: [last]}";
    let twice = "{name: last, domains: [v1.s3cr3t.example]}";
    for (resource, want) in [
        (
            listener("one", &hosts(unknown), ""),
            "route: unknown cluster 'nope'",
        ),
        (
            listener("one", &hosts(twice), ""),
            "Only unique values for domains are permitted. Duplicate entry of domain",
        ),
        (
            listener("one", &hosts(unnamed), ""),
            "HttpConnectionManagerValidationError.RouteConfig: embedded message failed validation | caused by \
             RouteConfigurationValidationError.VirtualHosts[1000]: embedded message failed validation | caused \
             by VirtualHostValidationError.Name: value length must be at least 1 characters",
        ),
        (
            listener("one", &hosts(unknown).replace("nope", "good"), &tls),
            "Failed to load certificate chain from <inline>",
        ),
    ] {
        let all = Subscription::Listeners;
        let verdict = scene.change("lds.yaml", &file(&[resource]), all.clone(), all);
        assert_eq!(
            refused(&verdict),
            Some("listener_manager.lds.update_rejected")
        );
        assert_eq!(scene.why(Topic::Listeners, &["one"]).as_deref(), Some(want));
    }
    let bad = file(&[
        cluster("good", "127.0.0.1", ", lb_policy: RANDOM"),
        cluster("zz", "nope", ""),
        cluster("new", "127.0.0.1", ""),
    ]);
    let all = Subscription::Clusters;
    scene.change("cds.yaml", &bad, all.clone(), all);
    let why = scene.why(Topic::Clusters, &["good", "zz", "new"]);
    assert_eq!(why.as_deref(), Some("not taken: zz"));
}
