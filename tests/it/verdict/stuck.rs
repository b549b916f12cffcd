//! A way back that cannot be written.

use super::scene::{PATH, Scene, object, with};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use testkit::world::{Shape, Sort};

#[test]
fn a_refusal_is_told_while_the_set_before_cannot_be_written() {
    let scene = Scene::start(Shape::rds(Sort::Static, PATH));
    let good = scene.world.files(0);
    let bad = with(good.clone(), "rds.yaml", "[\"*\"]", "[\"*\", \"*\"]");
    let envoy = Pid::from_raw(scene.envoy.pid() as i32).expect("it is not 0");
    kill_process(envoy, Signal::STOP).expect("it is ours");
    scene.world.server.apply(object(&bad));
    scene.crossover.wait_for_lines(2, "INFO  published ");

    // Nothing gives way to a directory that is not empty.
    let (active, copy) = (
        scene.world.dir().join(".sets/active"),
        scene.world.dir().join("copy"),
    );
    fs::create_dir(&copy).expect("it is not there");
    for entry in fs::read_dir(&active).expect("it is there") {
        let file = entry.expect("it is there");
        fs::copy(file.path(), copy.join(file.file_name())).expect("it can be copied");
    }
    fs::remove_file(&active).expect("it is a link");
    fs::rename(&copy, &active).expect("its place is free");
    kill_process(envoy, Signal::CONT).expect("it is ours");
    let line = scene
        .crossover
        .wait_for_line("refused by Envoy; the last accepted set follows");
    assert!(line.contains("file=rds.yaml"), "{line}");

    fs::remove_dir_all(&active).expect("it is ours");
    scene
        .crossover
        .wait_for_line("output directory can be written again");
    scene.wait_for_disk(&good);
    assert_eq!(
        scene.count("refused by Envoy"),
        1,
        "{:#?}",
        scene.crossover.lines()
    );
}
