//! Each kind of bad change, with a route that moves to a new cluster, and a good one after it.

use super::scene::{Files, PATH, Scene, TYPE, more, with};
use std::net::TcpListener;
use std::time::Duration;
use testkit::envoy_config::Watching;
use testkit::throttle::Throttle;
use testkit::world::{REPLACED, Routing, Shape, Sort, World, text};

/// A change that Envoy refuses, and the counter that says so.
pub struct Bad {
    pub what: &'static str,
    pub counter: &'static str,
    pub files: Files,
}

fn listener(host: &str, port: u16, cluster: &str) -> String {
    let routes = text::inline_routes(&format!("cluster: {cluster}"), "other");
    let listener = text::listener("two", host, &routes, None);
    listener.replace("port_value: 0", &format!("port_value: {port}"))
}

/// The eleven kinds, all with the cluster of this number and the route to it. `port`: that somebody
/// has.
pub fn bad(world: &World, number: u32, port: u16) -> Vec<Bad> {
    let good = world.files(number);
    let cluster = |name: &str, text: &str| text.replace("NAME", name);
    let unknown = cluster(
        "zz",
        &format!(
            "- {{\"@type\": {TYPE}.config.cluster.v3.Cluster, name: NAME, connect_timeout: 1s, load_assignment: \
             {{cluster_name: NAME, endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: \
             {{address: nope, port_value: 1}}}}}}}}]}}]}}}}\n"
        ),
    );
    let missing = cluster(
        "zz",
        &format!(
            "- {{\"@type\": {TYPE}.config.cluster.v3.Cluster, name: NAME, type: EDS, connect_timeout: 1s, \
             eds_cluster_config: {{eds_config: {{resource_api_version: V3, path_config_source: {{path: \
             /nope.yaml}}}}}}}}\n"
        ),
    );
    let case = |what, counter, files| Bad {
        what,
        counter,
        files,
    };
    let (cds, lds) = ("cluster_manager.cds.update", "listener_manager.lds.update");
    // Routes within a listener are refused with that.
    let (rds, routes, kind) = match world.shape.routing {
        Routing::Rds => (
            "http.main.rds.main.update",
            "rds.yaml",
            "v3.RouteConfiguration",
        ),
        Routing::Inline => (lds, "lds.yaml", "v3.HttpConnectionManager"),
    };
    let named = |of: &'static str, last: &str| -> &'static str {
        Box::leak(format!("{of}_{last}").into_boxed_str())
    };
    vec![
        case(
            "cds unreadable",
            named(cds, "failure"),
            with(good.clone(), "cds.yaml", "1s", "fifty"),
        ),
        case(
            "cds invalid",
            named(cds, "rejected"),
            with(good.clone(), "cds.yaml", "1s", "0s"),
        ),
        case(
            "cds, one of three",
            named(cds, "rejected"),
            more(good.clone(), "cds.yaml", &unknown),
        ),
        case(
            "cds, the routed one",
            named(cds, "rejected"),
            with(
                good.clone(),
                "cds.yaml",
                "address: 127.0.0.1",
                "address: nope",
            ),
        ),
        case(
            "cds, no file of endpoints",
            named(cds, "rejected"),
            more(good.clone(), "cds.yaml", &missing),
        ),
        case(
            "rds, two wildcards",
            named(rds, "rejected"),
            with(good.clone(), routes, "[\"*\"]", "[\"*\", \"*\"]"),
        ),
        case(
            "rds unreadable",
            named(rds, "failure"),
            with(good.clone(), routes, "[\"*\"]", "{a: b}"),
        ),
        case(
            "rds of an unknown type",
            named(rds, "failure"),
            with(good.clone(), routes, kind, &format!("{kind}n")),
        ),
        case(
            "lds, no such cluster",
            named(lds, "rejected"),
            more(good.clone(), "lds.yaml", &listener("127.0.0.3", 0, "nope")),
        ),
        case(
            "lds, a port that somebody has",
            named(lds, "rejected"),
            more(
                good.clone(),
                "lds.yaml",
                &listener("127.0.0.4", port, "always-a"),
            ),
        ),
        case(
            "lds unreadable",
            named(lds, "failure"),
            with(good, "lds.yaml", "stat_prefix: main", "stat_prefix: [main]"),
        ),
    ]
}

/// Slips in a new file of routes that the listener moves to in the same change, with the new
/// cluster.
fn renamed(world: &World, number: u32) -> Vec<Bad> {
    let moved = || {
        let files = world.files(number);
        let (from, to) = ("route_config_name: main", "route_config_name: next");
        let mut files = with(files, "lds.yaml", from, to);
        files = with(files, "lds.yaml", "/rds.yaml", "/next.yaml");
        files = with(files, "rds.yaml", "name: main", "name: next");
        let routes = files.remove("rds.yaml").expect("it is there");
        files.insert("next.yaml".into(), routes);
        files
    };
    let case = |what, counter, (from, to)| Bad {
        what,
        counter,
        files: with(moved(), "next.yaml", from, to),
    };
    vec![
        case(
            "a new file of an unknown type",
            "http.main.rds.next.update_failure",
            ("v3.RouteConfiguration", "v3.RouteConfigurations"),
        ),
        case(
            "a new file with two wildcards",
            "http.main.rds.next.update_rejected",
            ("[\"*\"]", "[\"*\", \"*\"]"),
        ),
    ]
}

#[track_caller]
fn taken_back(shape: Shape) {
    let scene = Scene::start(shape);
    let taken = TcpListener::bind("127.0.0.4:0").expect("there is a port");
    let port = taken.local_addr().expect("it is bound").port();
    let (mut number, mut times) = (0, Vec::new());
    let all = |world: &World, number| {
        let mut all = bad(world, number, port);
        if world.shape.routing == Routing::Rds {
            all.extend(renamed(world, number));
        }
        all
    };
    let kinds = all(&scene.world, 0).len();
    for kind in 0..kinds {
        let last = number;
        number += 1;
        let Bad {
            what,
            counter,
            files,
        } = all(&scene.world, number).swap_remove(kind);
        let took = scene.refuse(&files);
        let refused = scene.world.server.get("ConfigMap", REPLACED);
        let refused = refused.expect("it is there");
        let version = refused["metadata"]["resourceVersion"].as_str();
        let version = format!("resource_version={} ", version.expect("it has one"));
        times.push(took);
        let lines = scene.crossover.lines();
        let line = lines
            .iter()
            .rfind(|line| line.contains("refused by Envoy"))
            .expect("it was logged");
        println!("{shape:?} {what}: {took:?} {line}");
        let is_told = line.contains("restored")
            && line.contains(counter)
            && line.contains("configmap=default/world")
            && line.contains(&version);
        assert!(is_told, "{what}: {line}");
        scene.wait_for_disk(&scene.world.files(last));
        number += 1;
        scene.replace(number);
    }
    times.sort();
    println!("{shape:?}: {times:?}");
    assert!(times[times.len() - 1] < Duration::from_secs(1), "{times:?}");
    scene.assert_flawless();
}

#[test]
fn every_kind_is_taken_back_and_a_good_one_follows() {
    taken_back(Shape::rds(Sort::Static, PATH));
}

#[test]
fn every_kind_is_taken_back_where_envoy_watches_the_root() {
    taken_back(Shape::rds(Sort::Static, Watching::Root));
}

#[test]
fn every_kind_is_taken_back_where_clusters_have_files_of_endpoints() {
    taken_back(Shape::rds(Sort::Eds, PATH));
}

#[test]
fn every_kind_is_taken_back_where_listeners_have_the_routes() {
    taken_back(Shape::inline(PATH));
}

#[test]
fn a_slip_in_a_new_file_of_routes_is_taken_back_where_envoy_is_throttled() {
    let scene = Scene::start(Shape::rds(Sort::Static, PATH));
    for (kind, number) in [(0, 1), (1, 3)] {
        let throttle = Throttle::to_a_tenth(scene.envoy.pid());
        let Bad { what, files, .. } = renamed(&scene.world, number).swap_remove(kind);
        let took = scene.refuse(&files);
        println!("{what}: {took:?}");
        scene.wait_for_disk(&scene.world.files(number - 1));
        drop(throttle);
        scene.replace(number + 1);
    }
    scene.assert_flawless();
}
