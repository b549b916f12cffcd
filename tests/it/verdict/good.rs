//! Good changes that are not refused, whatever goes wrong beside them, and owners that do not wait
//! for each other.

use super::kinds::bad;
use super::scene::{PATH, Scene, TYPE, cluster, crossover, envoy, free_port, more, object};
use std::net::TcpListener;
use testkit::clients::{Clients, STEADY};
use testkit::world::{MAIN, Shape, Sort, WEIGHTS, World, version};

fn rds() -> Shape {
    Shape::rds(Sort::Static, PATH)
}

#[track_caller]
fn taken_beside(scene: &Scene, cluster: &str, times: u32) {
    for number in 1..=times {
        let files = more(scene.world.files(number), "cds.yaml", cluster);
        scene.world.server.apply(object(&files));
        scene.clients.wait_for_all(&version(number));
    }
    assert_eq!(
        scene.count("refused by Envoy"),
        0,
        "{:#?}",
        scene.crossover.lines()
    );
    scene.assert_flawless();
}

#[test]
fn good_changes_are_taken_while_names_cannot_be_looked_up() {
    let scene = Scene::start(rds());
    let lost = cluster(
        "lost",
        "STRICT_DNS",
        "nowhere.invalid",
        1,
        ", dns_refresh_rate: 0.05s",
    );
    taken_beside(&scene, &lost, 15);
}

#[test]
fn good_changes_are_taken_while_a_cluster_is_never_healthy() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("there is a port");
    let port = silent.local_addr().expect("it is bound").port();
    let check = ", health_checks: [{timeout: 0.3s, interval: 0.2s, unhealthy_threshold: 1, healthy_threshold: 1, \
                 http_health_check: {path: /}}]";
    taken_beside(
        &Scene::start(rds()),
        &cluster("sick", "STATIC", "127.0.0.1", port, check),
        5,
    );
}

#[test]
fn good_changes_are_taken_while_a_peer_with_secrets_is_absent() {
    let scene = Scene::start(rds());
    let socket = format!(
        ", transport_socket: {{name: envoy.transport_sockets.tls, typed_config: {{\"@type\": \
         {TYPE}.extensions.transport_sockets.tls.v3.UpstreamTlsContext, common_tls_context: \
         {{tls_certificate_sds_secret_configs: [{{name: absent, sds_config: {{resource_api_version: V3, \
         api_config_source: {{api_type: GRPC, transport_api_version: V3, grpc_services: [{{envoy_grpc: \
         {{cluster_name: always-a}}}}]}}}}}}]}}}}}}"
    );
    taken_beside(
        &scene,
        &cluster("secret", "STATIC", "127.0.0.1", 1, &socket),
        3,
    );
}

#[test]
fn another_owner_s_changes_are_live_while_one_s_are_refused_again_and_again() {
    let scene = Scene::start(rds());
    let others = Clients::start(scene.envoy.listener(WEIGHTS), STEADY);
    others.wait_for_all(&version(0));
    for round in 1..=6 {
        let bad = bad(&scene.world, round, 0).swap_remove(5);
        scene.refuse(&bad.files);
        scene.world.weigh(round);
        others.wait_for_all(&version(round));
        scene.wait_for_disk(&scene.world.files(0));
    }
    scene.replace(7);
    scene.wait_for_disk(&scene.world.files(7));
    scene.assert_flawless();
    let kinds = others.tally().kinds();
    assert!(kinds.is_empty(), "{kinds:?}");
}

#[test]
fn one_envoy_that_refuses_refuses_for_the_others() {
    let world = World::start(rds());
    let admins = [free_port(), free_port()];
    let crossover = crossover(&world, &admins, &[]);
    crossover.wait_for_line("INFO  published ");
    world.server.wait_for_watches(2);
    let envoys = admins.map(|admin| envoy(&world, admin, ""));
    crossover.wait_for_line(" accepted by Envoy ");
    let clients = envoys
        .each_ref()
        .map(|envoy| Clients::start(envoy.listener(MAIN), STEADY));
    for number in 1..=5 {
        world.replace(number);
        clients
            .iter()
            .for_each(|clients| clients.wait_for_all(&version(number)));
    }
    world
        .server
        .apply(object(&bad(&world, 6, 0).swap_remove(6).files));
    crossover.wait_for_line("restored the last accepted set");
    world.replace(7);
    for clients in &clients {
        clients.wait_for_all(&version(7));
        let kinds = clients.tally().kinds();
        assert!(kinds.is_empty(), "{kinds:?}\n{:#?}", crossover.lines());
    }
}
