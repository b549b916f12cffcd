//! A running Envoy sees a ConfigMap's changes: by every way to watch, set by set, and only those.

use serde_json::json;
use testkit::crossover::Crossover;
use testkit::envoy::Envoy;
use testkit::envoy_config::{self, CONFIG_MAP, STATS, Watching};
use testkit::load::{Load, Tally};
use testkit::objects::config_map;
use testkit::testbed::{BACKENDS, Testbed};
use testkit::until;

const ALL_TO_ONE: [u32; 2] = [100, 0];
const ALL_TO_THE_OTHER: [u32; 2] = [0, 100];

/// An Envoy that serves the first version of the routes.
struct Scene {
    envoy: Envoy,
    crossover: Crossover,
    testbed: Testbed,
}

impl Scene {
    fn start(watching: Watching) -> Scene {
        let testbed = Testbed::start(watching);
        testbed.shift("first", ALL_TO_ONE);
        let crossover = testbed.crossover();
        crossover.wait_for_line("INFO  published ");
        let envoy = testbed.envoy();
        wait_for_versions(&envoy, ["first", "first", "first"]);
        Scene {
            envoy,
            crossover,
            testbed,
        }
    }

    /// Counts how often Envoy has read the routes, the clusters and the listeners.
    fn attempts(&self) -> [u64; 3] {
        STATS.map(|name| self.envoy.stat(&format!("{name}.update_attempt")))
    }
}

/// Waits until Envoy has taken these versions of the routes, the clusters and the listeners.
#[track_caller]
fn wait_for_versions(envoy: &Envoy, versions: [&str; 3]) {
    for (name, version) in STATS.into_iter().zip(versions) {
        envoy.wait_for_stat(&format!("{name}.version_text"), version);
    }
}

/// Waits for answers of one backend to one version of the routes.
#[track_caller]
fn wait_for_answers(load: &Load, version: &str, backend: &str) {
    load.wait_for(backend, &Tally::default(), |tally| {
        let answers = tally.versions.get(version).map(|v| &v.answers);
        answers.is_some_and(|answers| answers.contains_key(backend))
    });
}

#[track_caller]
fn shifts_traffic(watching: Watching) {
    let scene = Scene::start(watching);
    let load = scene.testbed.load(&scene.envoy, 500);
    wait_for_answers(&load, "first", BACKENDS[0]);
    scene.testbed.shift("second", ALL_TO_THE_OTHER);
    wait_for_answers(&load, "second", BACKENDS[1]);
    scene.testbed.shift("third", ALL_TO_ONE);
    wait_for_answers(&load, "third", BACKENDS[0]);
    assert_eq!(load.tally().failures, Vec::<String>::new());
}

#[test]
fn a_change_reaches_an_envoy_that_knows_nothing_but_paths() {
    shifts_traffic(Watching::PathOnly);
}

#[test]
fn a_change_reaches_an_envoy_that_watches_the_volumes_root() {
    shifts_traffic(Watching::Root);
}

#[test]
fn a_change_reaches_an_envoy_that_watches_current() {
    shifts_traffic(Watching::Current);
}

#[test]
fn a_change_reaches_a_runtime_layer_whose_symlink_root_is_current() {
    let testbed = Testbed::start(Watching::PathOnly);
    let limit = |value: &str| config_map(CONFIG_MAP, &[("podinfo.limit", value)]);
    testbed.server.create(limit("5"));
    let crossover = testbed.crossover();
    crossover.wait_for_line("INFO  published ");
    let root = testbed.dir().join("current");
    let layer = format!(
        "{{name: disk, disk_layer: {{symlink_root: {}}}}}",
        root.display()
    );
    let envoy = Envoy::start(&format!("layered_runtime: {{layers: [{layer}]}}"));
    let wait_for = |want: &str| {
        until(&format!("a runtime value {want}"), || {
            let all = envoy.json("/runtime?format=json");
            (all["entries"]["podinfo.limit"]["final_value"] == *want).then_some(())
        });
    };
    wait_for("5");
    for value in ["6", "7", "8"] {
        testbed.server.replace(limit(value));
        wait_for(value);
    }
    assert_eq!(envoy.stat("runtime.load_error"), 0);
}

#[test]
fn several_files_arrive_as_one_set() {
    for watching in [Watching::PathOnly, Watching::Current, Watching::Root] {
        let Scene {
            envoy,
            crossover,
            testbed,
        } = &Scene::start(watching);
        // Each set's routes lead to a cluster that only this set has.
        for number in 1..=5 {
            let (version, name) = (format!("v{number}"), format!("only-in-{number}"));
            let set = envoy_config::set(
                &testbed.listeners(&version),
                &envoy_config::clusters(&version, &[(&name, testbed.address(0))]),
                &envoy_config::routes(&version, &[(&name, 1)]),
            );
            testbed.server.replace(set);
            wait_for_versions(envoy, [&version; 3]);
        }
        let load = testbed.load(envoy, 500);
        wait_for_answers(&load, "v5", BACKENDS[0]);
        crossover.wait_for_lines(6, "INFO  published ");
        for name in STATS {
            for refusal in ["update_failure", "update_rejected"] {
                assert_eq!(
                    envoy.stat(&format!("{name}.{refusal}")),
                    0,
                    "{name}.{refusal}"
                );
            }
        }
    }
}

#[test]
fn a_file_that_did_not_change_is_not_loaded_again() {
    let scene = Scene::start(Watching::PathOnly);
    assert_eq!(scene.attempts(), [1, 1, 1]);
    for number in 1..=5 {
        let version = format!("v{number}");
        scene.testbed.shift(&version, ALL_TO_ONE);
        wait_for_versions(&scene.envoy, [&version, "first", "first"]);
    }
    // The next load of each of the others is its second one: there was none on the way.
    let (one, other) = (
        ("one", scene.testbed.address(0)),
        ("other", scene.testbed.address(1)),
    );
    let clusters = envoy_config::clusters("second", &[one, other]);
    let set = envoy_config::set(
        &scene.testbed.listeners("second"),
        &clusters,
        &envoy_config::routes("v6", &[("one", 1)]),
    );
    scene.testbed.server.replace(set);
    wait_for_versions(&scene.envoy, ["v6", "second", "second"]);
    assert_eq!(scene.attempts()[1..], [2, 2]);
}

#[test]
fn a_removed_key_leaves_a_running_envoy_as_it_was_and_warns() {
    let Scene {
        envoy,
        crossover,
        testbed,
    } = &Scene::start(Watching::PathOnly);
    let load = testbed.load(envoy, 500);
    wait_for_answers(&load, "first", BACKENDS[0]);
    let mut less = testbed.server.get("ConfigMap", CONFIG_MAP).unwrap();
    let files = less["data"].as_object_mut().unwrap();
    files.remove("rds.yaml");
    files.insert("cds.yaml".into(), json!(testbed.clusters("second")));
    testbed.server.replace(less);
    let warning = crossover.wait_for_line("file removed; Envoy will fail to start");
    assert!(
        warning.contains("WARN") && warning.contains("rds.yaml"),
        "{warning}"
    );
    wait_for_versions(envoy, ["first", "second", "first"]);
    until("the file to be gone", || {
        (!testbed.file("rds.yaml").exists()).then_some(())
    });
    let since = load.tally();
    let tally = load.wait_for("100 more answers", &since, |tally| tally.total() >= 100);
    assert_eq!((tally.failures, tally.answers.len()), (Vec::new(), 1));
}

#[test]
fn a_restart_on_an_equal_set_announces_nothing() {
    for (watching, after) in [(Watching::PathOnly, [2, 1, 1]), (Watching::Root, [2, 2, 2])] {
        let mut scene = Scene::start(watching);
        assert_eq!(scene.attempts(), [1, 1, 1]);
        for _ in 0..3 {
            let Scene {
                envoy,
                crossover,
                testbed,
            } = scene;
            assert_eq!(crossover.stop().code, Some(0));
            let crossover = testbed.crossover();
            scene = Scene {
                envoy,
                crossover,
                testbed,
            };
        }
        // Had a restart announced anything, this would not be the next load.
        scene.testbed.shift("second", ALL_TO_ONE);
        scene
            .envoy
            .wait_for_stat(&format!("{}.version_text", STATS[0]), "second");
        until("Envoy to load what is announced", || {
            (scene.attempts() == after).then_some(())
        });
    }
}
