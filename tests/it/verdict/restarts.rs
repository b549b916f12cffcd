//! Envoys and crossovers that are restarted while something is refused or being tried.

use super::kinds::bad;
use super::scene::{PATH, Scene, crossover, envoy, free_port, object};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use testkit::clients::{Clients, STEADY};
use testkit::crossover::Crossover;
use testkit::until;
use testkit::world::{MAIN, Shape, Sort, World, version};

fn rds() -> Shape {
    Shape::rds(Sort::Static, PATH)
}

/// Asks the probe. Returns its exit code and what it says.
pub fn probe(dir: &Path) -> (Option<i32>, String) {
    let dir = dir.to_str().expect("no odd path");
    let finished = Crossover::run(&["-accepted", "-output-dir", dir]);
    (finished.code, finished.stdout + &finished.stderr)
}

/// Starts a scene in which Envoy is stopped by a signal before the change to version 2, of which it
/// reads nothing. Kills crossover once the clusters of this change are published. Returns Envoy's pid.
fn killed_in_a_change() -> (Scene, Pid) {
    let mut scene = Scene::start(rds());
    scene.replace(1);
    scene.wait_for_accepted(2);
    let pid = Pid::from_raw(scene.envoy.pid() as i32).expect("it is not 0");
    kill_process(pid, Signal::STOP).expect("it is ours");
    let before = scene.count("clusters published");
    scene.world.replace(2);
    scene
        .crossover
        .wait_for_lines(before + 1, "clusters published");
    scene.crossover.kill();
    (scene, pid)
}

/// Starts another crossover once the one that was killed watches nothing any more.
fn start_another(scene: &mut Scene) {
    scene.world.server.wait_for_watches(0);
    scene.crossover = crossover(&scene.world, &[scene.admin], &[]);
}

#[test]
fn an_envoy_that_starts_after_a_bad_change_serves_what_was_accepted() {
    let taken = TcpListener::bind("127.0.0.4:0").expect("there is a port");
    let port = taken.local_addr().expect("it is bound").port();
    let mut scene = Scene::start(rds());
    let mut number = 0;
    for kind in 0..bad(&scene.world, 0, port).len() {
        let last = number;
        number += 1;
        let bad = bad(&scene.world, number, port).swap_remove(kind);
        let accepted = scene.accepted();
        scene.refuse(&bad.files);
        scene.envoy.kill();
        scene.envoy = envoy(&scene.world, scene.admin, "");
        let clients = Clients::start(scene.envoy.listener(MAIN), STEADY);
        clients.wait_for_all(&version(last));
        // The way back, and the poke of the new Envoy.
        scene.wait_for_accepted(accepted + 2);
        number += 1;
        scene.world.replace(number);
        clients.wait_for_all(&version(number));
        let kinds = clients.tally().kinds();
        assert!(
            kinds.is_empty(),
            "{}: {kinds:?}\n{:#?}",
            bad.what,
            scene.crossover.lines()
        );
    }
}

#[test]
fn a_first_set_that_is_refused_stays_and_the_next_one_is_taken() {
    let world = World::start(rds());
    let first = bad(&world, 0, 0).swap_remove(5);
    world.server.apply(object(&first.files));
    let admin = free_port();
    let crossover = crossover(&world, &[admin], &[]);
    crossover.wait_for_line("INFO  published ");
    let told = until("the probe to miss Envoy", || {
        let (code, told) = probe(world.dir());
        told.contains("does not answer").then_some((code, told))
    });
    assert_eq!(told.0, Some(1), "{told:?}");
    let envoy = envoy(&world, admin, "");
    let line = crossover.wait_for_line("refused by Envoy; it stays");
    assert!(
        line.contains("file=rds.yaml") && line.contains(first.counter),
        "{line}"
    );
    let told = until("the probe to tell", || {
        let (code, told) = probe(world.dir());
        told.contains("refused by Envoy").then_some((code, told))
    });
    assert_eq!(told.0, Some(1), "{told:?}");
    assert!(
        told.1.contains("rds.yaml") && told.1.contains(first.counter),
        "{told:?}"
    );
    world.replace(1);
    crossover.wait_for_line(" accepted by Envoy ");
    let clients = Clients::start(envoy.listener(MAIN), STEADY);
    clients.wait_for_all(&version(1));
    until("the probe to say yes", || {
        (probe(world.dir()).0 == Some(0)).then_some(())
    });
    // A later refusal is taken back.
    let before = crossover.lines().len();
    world
        .server
        .apply(object(&bad(&world, 2, 0).swap_remove(5).files));
    crossover.wait_for_line("restored the last accepted set");
    assert_eq!(
        probe(world.dir()).0,
        Some(0),
        "{:#?}",
        &crossover.lines()[before..]
    );
}

#[test]
fn what_is_refused_is_not_taken_because_another_file_is() {
    let world = World::start(rds());
    let mut broken = world.weights(0);
    let text = broken["data"]["weights.yaml"].as_str();
    let text = text
        .expect("it is there")
        .replace("[\"*\"]", "[\"*\", \"*\"]");
    broken["data"]["weights.yaml"] = text.into();
    world.server.apply(broken);
    let admin = free_port();
    let crossover = crossover(&world, &[admin], &[]);
    crossover.wait_for_line("INFO  published ");
    world.server.wait_for_watches(2);
    let envoy = envoy(&world, admin, "");
    crossover.wait_for_line("refused by Envoy; it stays");
    let clients = Clients::start(envoy.listener(MAIN), STEADY);
    let says = |code, text: &str| {
        let what = format!("the probe to exit with {code}, and {text:?}");
        until(&what, || {
            let told = probe(world.dir());
            (told.0 == Some(code) && told.1.contains(text)).then_some(())
        });
    };
    says(1, "weights.yaml");
    world.replace(1);
    clients.wait_for_all(&version(1));
    says(1, "weights.yaml");
    // The other's slip is taken back all the same.
    world
        .server
        .apply(object(&bad(&world, 2, 0).swap_remove(5).files));
    crossover.wait_for_line("restored the last accepted set file=rds.yaml");
    until("the routes of before", || {
        let found = fs::read_to_string(world.file("rds.yaml")).unwrap_or_default();
        (found == world.files(1)["rds.yaml"]).then_some(())
    });
    says(1, "weights.yaml");
    world.weigh(1);
    says(0, "");
    let lines = crossover.lines();
    let is_false = |line: &String| line.contains("refuses the set before, too");
    assert!(!lines.iter().any(is_false), "{lines:#?}");
    assert!(clients.tally().kinds().is_empty());
}

#[test]
fn a_change_in_which_envoy_and_crossover_were_killed_is_held_back() {
    // To crossover, an Envoy that reads nothing is like one that dies of what it reads.
    let (mut scene, _) = killed_in_a_change();
    scene.envoy.kill();
    start_another(&mut scene);
    let line = scene
        .crossover
        .wait_for_line("Envoy or crossover has ended before Envoy had taken these contents");
    assert!(
        line.contains("restored") && line.contains("default/world"),
        "{line}"
    );
    scene.wait_for_disk(&scene.world.files(1));
    scene.envoy = envoy(&scene.world, scene.admin, "");
    let clients = Clients::start(scene.envoy.listener(MAIN), STEADY);
    clients.wait_for_all(&version(1));
    scene.wait_for_accepted(1);
    // Another content is tried at once.
    scene.world.replace(3);
    clients.wait_for_all(&version(3));
}

#[test]
fn a_change_in_which_crossover_alone_was_killed_arrives() {
    let (mut scene, pid) = killed_in_a_change();
    kill_process(pid, Signal::CONT).expect("it is ours");
    start_another(&mut scene);
    scene.clients.wait_for_all(&version(2));
    scene.assert_flawless();
}

#[test]
fn a_crossover_that_is_restarted_holds_back_what_was_refused() {
    let mut scene = Scene::start(rds());
    let bad = bad(&scene.world, 1, 0).swap_remove(5);
    scene.refuse(&bad.files);
    scene.crossover.kill();
    start_another(&mut scene);
    scene.world.server.wait_for_watches(2);
    scene.wait_for_accepted(1);
    scene.wait_for_disk(&scene.world.files(0));
    assert_eq!(
        scene.count("refused by Envoy"),
        0,
        "{:#?}",
        scene.crossover.lines()
    );
    scene.replace(2);
    scene.assert_flawless();
}

#[test]
fn a_set_that_was_published_while_no_envoy_was_there_is_judged_by_the_next_one() {
    let mut scene = Scene::start(rds());
    scene.replace(1);
    scene.wait_for_accepted(2);
    scene.envoy.kill();
    let bad = bad(&scene.world, 2, 0).swap_remove(0);
    let published = scene.count("INFO  published ");
    scene.world.server.apply(object(&bad.files));
    scene
        .crossover
        .wait_for_lines(published + 1, "INFO  published ");
    scene.envoy = envoy(&scene.world, scene.admin, "");
    scene
        .crossover
        .wait_for_line("restored the last accepted set");
    let clients = Clients::start(scene.envoy.listener(MAIN), STEADY);
    clients.wait_for_all(&version(1));
    scene.wait_for_disk(&scene.world.files(1));
}
