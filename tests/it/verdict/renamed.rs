//! Files and secrets that get another name in the change that has listeners ask for it.

use super::scene::{Files, PATH, Scene, object, with};
use testkit::until;
use testkit::world::{Shape, Sort, World, text};

const TYPE: &str = "type.googleapis.com/envoy";

fn rds() -> Shape {
    Shape::rds(Sort::Static, PATH)
}

/// A world's files, with a listener that has its certificate from this file.
fn secured(world: &World, number: u32, file: &str, secret: &str, key: &str) -> Files {
    let made = rcgen::generate_simple_self_signed([secret.to_string()]).expect("it can be made");
    let key = match key {
        "" => made.signing_key.serialize_pem(),
        other => other.to_owned(),
    };
    let mut files = world.files(number);
    let source = PATH.source(world.dir(), file);
    let routes = text::inline_routes("cluster: always-a", "secure");
    let mut listener = text::listener("secure", "127.0.0.3", &routes, None);
    listener += &format!(
        "    transport_socket: {{name: envoy.transport_sockets.tls, typed_config: {{\"@type\": \
         {TYPE}.extensions.transport_sockets.tls.v3.DownstreamTlsContext, common_tls_context: \
         {{tls_certificate_sds_secret_configs: [{{name: {secret}, sds_config: {source}}}]}}}}}}\n"
    );
    files
        .entry("lds.yaml".into())
        .or_default()
        .push_str(&listener);
    let secret = format!(
        "resources:\n- \"@type\": {TYPE}.extensions.transport_sockets.tls.v3.Secret\n  name: {secret}\n  \
         tls_certificate: {{certificate_chain: {{inline_string: {:?}}}, private_key: {{inline_string: {key:?}}}}}\n",
        made.cert.pem()
    );
    files.insert(file.into(), secret);
    files
}

#[test]
fn a_secret_and_its_file_are_renamed_with_the_listener_that_asks_for_them() {
    let scene = Scene::start(rds());
    let names = [
        ("sds.yaml", "one"),
        ("sds.yaml", "two"),
        ("other.yaml", "two"),
    ];
    for (number, (file, secret)) in (1..).zip(names) {
        let accepted = scene.accepted();
        let files = secured(&scene.world, number, file, secret, "");
        scene.world.server.apply(object(&files));
        scene.wait_for_accepted(accepted + 1);
        scene.wait_for_disk(&files);
        assert_eq!(
            scene.count("refused by Envoy"),
            0,
            "{:#?}",
            scene.crossover.lines()
        );
    }
    assert_eq!(
        scene.count("does not ask"),
        0,
        "{:#?}",
        scene.crossover.lines()
    );
    // The new name is that which is judged from now on.
    let last = secured(&scene.world, 3, "other.yaml", "two", "");
    let key = rcgen::KeyPair::generate()
        .expect("a key can be made")
        .serialize_pem();
    let bad = secured(&scene.world, 3, "other.yaml", "two", &key);
    scene.refuse(&bad);
    assert_eq!(
        scene.count("sds.two.update_rejected"),
        1,
        "{:#?}",
        scene.crossover.lines()
    );
    // A filter chain that drains asks by the former name.
    until("nothing drains", || {
        let stats = scene.envoy.get("/stats?filter=draining$");
        let is_calm = |line: &str| line.ends_with(": 0");
        stats.lines().all(is_calm).then_some(())
    });
    let wrong = with(last, "other.yaml", "name: two", "name: three");
    scene.refuse(&wrong);
    assert_eq!(
        scene.count("does not ask"),
        0,
        "{:#?}",
        scene.crossover.lines()
    );
    scene.assert_flawless();
}

#[test]
fn a_file_that_nobody_asks_for_is_named_once_its_change_is_done() {
    let scene = Scene::start(rds());
    let mut files = scene.world.files(1);
    let routes = text::routes("nobody", "cluster: always-a", "1");
    files.insert("nobody.yaml".into(), routes);
    scene.world.server.apply(object(&files));
    scene
        .crossover
        .wait_for_line("Envoy does not ask for this file file=nobody.yaml");
    scene.wait_for_disk(&files);
    scene.replace(2);
    assert_eq!(
        scene.count("does not ask"),
        1,
        "{:#?}",
        scene.crossover.lines()
    );
    scene.assert_flawless();
}
