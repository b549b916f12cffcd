//! New clusters that do not get warm: their routes wait, and nothing else does.

use super::scene::{PATH, Scene, TYPE, cluster, more, object};
use std::net::UdpSocket;
use std::thread;
use std::time::{Duration, Instant};
use testkit::clients::{Clients, STEADY};
use testkit::file_watch::LengthWatch;
use testkit::objects::config_map;
use testkit::world::{Shape, Sort, WEIGHTS, routes, version};

/// What does not wait for Envoy's clusters, on a busy machine.
const AT_ONCE: Duration = Duration::from_millis(200);

/// A cluster whose name a silent server looks up.
struct Cold {
    cluster: String,
    _silent: UdpSocket,
}

impl Cold {
    fn new() -> Cold {
        let silent = UdpSocket::bind("127.0.0.1:0").expect("there is a port");
        let port = silent.local_addr().expect("it is bound").port();
        let resolver = format!(
            ", typed_dns_resolver_config: {{name: envoy.network.dns_resolver.cares, typed_config: {{\"@type\": \
             {TYPE}.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig, resolvers: [{{socket_address: \
             {{address: 127.0.0.1, port_value: {port}, protocol: UDP}}}}]}}}}"
        );
        Cold {
            cluster: cluster("cold", "STRICT_DNS", "slow.example", 1, &resolver),
            _silent: silent,
        }
    }
}

fn rds() -> Shape {
    Shape::rds(Sort::Static, PATH)
}

/// Replaces the cluster and its route by those of this number, with a cluster that stays cold.
/// Returns once Envoy was asked about the clusters.
fn replace_cold(scene: &Scene, cold: &Cold, number: u32) {
    let published = scene.count("clusters published");
    let files = more(scene.world.files(number), "cds.yaml", &cold.cluster);
    scene.world.server.apply(object(&files));
    scene
        .crossover
        .wait_for_lines(published + 1, "clusters published");
    scene
        .envoy
        .wait_for_stat("cluster_manager.warming_clusters", "1");
}

#[test]
fn weights_and_a_rollback_do_not_wait_for_clusters_that_are_not_warm() {
    let (scene, cold) = (Scene::start(rds()), Cold::new());
    let others = Clients::start(scene.envoy.listener(WEIGHTS), STEADY);
    others.wait_for_all(&version(0));
    let weights = LengthWatch::watch(scene.world.dir(), "weights.yaml");
    let clusters = LengthWatch::watch(scene.world.dir(), "cds.yaml");
    replace_cold(&scene, &cold, 1);
    let (mut files, mut routes) = (Vec::new(), Vec::new());
    for number in 1..=8 {
        let began = Instant::now();
        files.push(weights.time(|| scene.world.weigh(number)));
        others.wait_for_all(&version(number));
        routes.push(began.elapsed());
        // The time between is what a canary has.
        thread::sleep(Duration::from_secs(1));
    }
    let none = scene.clients.tally();
    assert!(none.latest.iter().all(|it| *it == version(0)), "{none:?}");
    let back = clusters.time(|| {
        scene.world.replace(0);
        scene.world.files(0)["cds.yaml"].len()
    });
    println!("files: {files:?}, routes: {routes:?}, rollback: {back:?}");
    assert!(files.iter().all(|it| *it < AT_ONCE), "{files:?}");
    routes.sort();
    assert!(routes[routes.len() / 2] < AT_ONCE, "{routes:?}");
    assert!(back < AT_ONCE, "{back:?}");
    // It was within the time that they have.
    assert_eq!(scene.count("are not warm"), 0);
    scene.replace(2);
    scene.wait_for_disk(&scene.world.files(2));
    assert_eq!(scene.count("refused by Envoy"), 0);
    scene.assert_flawless();
    let kinds = others.tally().kinds();
    assert!(kinds.is_empty(), "{kinds:?}");
}

#[test]
fn what_is_refused_while_clusters_are_not_warm_is_the_doing_of_its_own_configmap() {
    let (scene, cold) = (Scene::start(rds()), Cold::new());
    let others = Clients::start(scene.envoy.listener(WEIGHTS), STEADY);
    others.wait_for_all(&version(0));
    replace_cold(&scene, &cold, 1);
    let bad = routes(WEIGHTS, "cluster: [always-a]", &version(1));
    let began = Instant::now();
    let files = [("weights.yaml", &*bad)];
    scene.world.server.apply(config_map(WEIGHTS, &files));
    scene.crossover.wait_for_line("refused by Envoy");
    let took = began.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
    let line = scene.crossover.wait_for_line("refused by Envoy");
    let is_told = line.contains("configmap=default/weights ")
        && line.contains("counter=http.weights.rds.weights.update_");
    assert!(is_told, "{line}");
    // The other one's clusters come again, and have the rest of their time.
    scene.crossover.wait_for_lines(2, "clusters published");
    scene.world.weigh(2);
    others.wait_for_all(&version(2));
    let lines = scene.crossover.lines();
    assert_eq!(scene.count("are not warm"), 0, "{lines:#?}");
    scene.world.replace(2);
    scene.clients.wait_for_all(&version(2));
    scene.assert_flawless();
    let kinds = others.tally().kinds();
    assert!(kinds.is_empty(), "{kinds:?}");
}

#[test]
fn routes_follow_clusters_that_never_get_warm_after_15_seconds() {
    let scene = Scene::start(rds());
    let cold = Cold::new();
    let began = Instant::now();
    let files = more(scene.world.files(1), "cds.yaml", &cold.cluster);
    scene.world.server.apply(object(&files));
    scene
        .crossover
        .wait_for_line("new clusters are not warm after 15 s");
    scene.clients.wait_for_all(&version(1));
    let took = began.elapsed();
    assert!(
        took >= Duration::from_secs(15) && took < Duration::from_secs(25),
        "{took:?}"
    );
    // Later changes do not wait for it.
    let began = Instant::now();
    let files = more(scene.world.files(2), "cds.yaml", &cold.cluster);
    scene.world.server.apply(object(&files));
    scene.clients.wait_for_all(&version(2));
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(scene.count("refused by Envoy"), 0);
    scene.assert_flawless();
}
