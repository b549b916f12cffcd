//! Each kind of bad change, with a route that moves to a new cluster, and a good one after it.

use super::scene::{Files, PATH, Scene, more, with};
use std::net::TcpListener;
use std::time::Duration;
use testkit::world::{Shape, Sort, World, text};
use testkit::xds::Watching;

const TYPE: &str = "type.googleapis.com/envoy";

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

/// The eleven kinds, all with the cluster of this number and the route to it. `port`: that somebody has.
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
    let rds = "http.main.rds.main.update";
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
            with(good.clone(), "rds.yaml", "[\"*\"]", "[\"*\", \"*\"]"),
        ),
        case(
            "rds unreadable",
            named(rds, "failure"),
            with(good.clone(), "rds.yaml", "[\"*\"]", "{a: b}"),
        ),
        case(
            "rds of an unknown type",
            named(rds, "failure"),
            with(
                good.clone(),
                "rds.yaml",
                "v3.RouteConfiguration",
                "v3.RouteConfigurationn",
            ),
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

#[track_caller]
fn taken_back(shape: Shape) {
    let scene = Scene::start(shape);
    let taken = TcpListener::bind("127.0.0.4:0").expect("there is a port");
    let port = taken.local_addr().expect("it is bound").port();
    let (mut number, mut times) = (0, Vec::new());
    let kinds = bad(&scene.world, 0, port).len();
    for kind in 0..kinds {
        let last = number;
        number += 1;
        let Bad {
            what,
            counter,
            files,
        } = bad(&scene.world, number, port).swap_remove(kind);
        let took = scene.refuse(&files);
        times.push(took);
        let lines = scene.crossover.lines();
        let line = lines
            .iter()
            .rfind(|line| line.contains("refused by Envoy"))
            .expect("it was logged");
        println!("{shape:?} {what}: {took:?} {line}");
        let is_told = line.contains("restored")
            && line.contains(counter)
            && line.contains("configmap=default/world");
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
