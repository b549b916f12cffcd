//! `<configmap>-gen`: what it holds, when it is written, and what happens where it may not be.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};
use std::time::Duration;
use testkit::apiserver::faults::Fault;
use testkit::apiserver::request::Request;
use testkit::crossover::Crossover;
use testkit::kubectl::Kubectl;
use testkit::objects::config_map;
use testkit::setup::Setup;
use testkit::stopwatch::Stopwatch;
use testkit::until;
use testkit::weights::{FILE, FOLLOW, about_splits, routes, split_of};

const SPLIT: &str = "-trafficsplit=podinfo";
/// Follows, and shows what it does.
pub const SHOW: [&str; 4] = ["-watch", "-sync-interval=1h", "-configmap=a", SPLIT];
/// Ends when all is written.
pub const ONCE: [&str; 3] = ["-onetime", "-configmap=a", SPLIT];

/// A write, or a look at a mirror.
pub fn is_mirror(request: &Request) -> bool {
    let of = |name: &str| request.place().is_some_and(|place| place.name == name);
    request.is_write() || of("a-gen") || of("b-gen")
}

/// Makes a set-up with a split of 60 and 40.
pub fn weighed() -> Setup {
    let setup = Setup::template();
    setup.split([60, 40]);
    setup
}

#[test]
fn a_mirror_holds_the_files_byte_for_byte_and_our_label_alone() {
    let setup = Setup::new();
    let bytes: Vec<u8> = (0..=255).collect();
    let text = "a: \"\u{1f600}\"\r\n# \u{85} \u{2028} \\ \t\n";
    let mut object = config_map("a", &[(FILE, &routes([100, 0])), ("odd.yaml", text)]);
    object["binaryData"] = json!({"all": BASE64.encode(&bytes)});
    object["metadata"]["labels"] = json!({"app": "podinfo"});
    object["metadata"]["annotations"] = json!({"note": "mine"});
    setup.server.create(object);
    setup.split([60, 40]);
    setup.succeed(&ONCE);
    let mirror = setup.mirror("a-gen");
    assert_eq!(
        mirror["data"],
        json!({FILE: routes([60, 40]), "odd.yaml": text})
    );
    assert_eq!(mirror["binaryData"], json!({"all": BASE64.encode(&bytes)}));
    let metadata = &mirror["metadata"];
    let label = json!({"app.kubernetes.io/managed-by": "crossover"});
    assert_eq!(metadata["labels"], label);
    assert_eq!(metadata["namespace"], "default");
    for field in ["ownerReferences", "annotations"] {
        assert_eq!(metadata[field], Value::Null, "{field}");
    }
    for (name, bytes) in setup.found().unwrap() {
        let shown = match mirror["data"][&name].as_str() {
            Some(text) => text.as_bytes().to_vec(),
            None => BASE64
                .decode(mirror["binaryData"][&name].as_str().unwrap())
                .unwrap(),
        };
        assert_eq!(shown, bytes, "{name}");
    }
}

#[test]
fn onetime_writes_the_mirror_at_once_and_then_exits() {
    let setup = weighed();
    let watch = Stopwatch::start();
    let process = setup.start(&ONCE);
    let (finished, took) = process.finish_timed(&watch);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    assert!(took < Duration::from_secs(4), "{took:?}");
    setup.until_mirrored([60, 40]);
    let version = setup.mirror("a-gen")["metadata"]["resourceVersion"].clone();
    // There is nothing to write the second time.
    setup.succeed(&ONCE);
    assert_eq!(
        setup.mirror("a-gen")["metadata"]["resourceVersion"],
        version
    );
}

#[test]
fn a_mirror_is_written_at_most_once_a_second_and_ends_with_the_newest() {
    let setup = weighed();
    let watch = Stopwatch::start();
    let _process = setup.start(&SHOW);
    setup.until_mirrored([60, 40]);
    let writes = || {
        let mut all = setup.server.requests();
        all.retain(Request::is_write);
        all
    };
    let mut canary = 0;
    until("three more writes while weights move on", || {
        canary = (canary + 1) % 100;
        setup.split([100 - canary, canary]);
        std::thread::sleep(Duration::from_millis(5));
        (writes().len() >= 3).then_some(())
    });
    setup.split([5, 95]);
    setup.until_mirrored([5, 95]);
    let at: Vec<_> = writes().iter().map(|request| request.at).collect();
    for pair in at.windows(2) {
        // The server notes when it has read a request, we when it is answered.
        let apart = pair[1] - pair[0] + watch.held_up();
        assert!(apart > Duration::from_millis(950), "{apart:?}");
    }
}

#[test]
fn ten_replicas_write_a_mirror_a_handful_of_times() {
    let setup = weighed();
    let dirs: Vec<String> = (0..10).map(|i| setup.path(&format!("out-{i}"))).collect();
    let start = |dir: &String| {
        let mut command = setup.command(&SHOW);
        command.args(["-output-dir", dir]);
        Crossover::spawn(command)
    };
    let replicas: Vec<Crossover> = dirs.iter().map(start).collect();
    let looks = |r: &Request| r.method == "GET" && is_mirror(r);
    let writes = || setup.server.count_requests(Request::is_write);
    let all = |what: &str| setup.server.wait_for_requests(what, 10, looks);
    all("each replica's look");
    setup.until_mirrored([60, 40]);
    let settled = |looked: usize| {
        let what = "each replica's next look, and that of who lost a race";
        setup.server.wait_for_requests(what, looked + 10, looks);
    };
    setup.server.wait_for_watches(20);
    for replica in &replicas {
        replica.wait_for_line("INFO  published ");
    }
    let before = writes();
    assert!(before <= 5, "{before} writes at start");
    let looked = setup.server.count_requests(looks);
    setup.split([50, 50]);
    settled(looked);
    setup.until_mirrored([50, 50]);
    let count = writes() - before;
    assert!((1..=5).contains(&count), "{count} writes for a change");
    // A change of the object that changes no file moves nothing.
    let version = || setup.mirror("a-gen")["metadata"]["resourceVersion"].clone();
    let (still, before) = (version(), writes());
    let mut same = split_of("podinfo", "podinfo", [50, 50]);
    same["metadata"]["annotations"] = json!({"note": "the same"});
    setup.server.apply(same);
    for (replica, dir) in replicas.into_iter().zip(&dirs) {
        assert_eq!(replica.stop().code, Some(0), "{dir}");
    }
    assert_eq!((version(), writes()), (still, before));
}

#[test]
fn a_mirror_is_not_written_while_its_configmap_is_held() {
    let setup = weighed();
    setup.succeed(&ONCE);
    setup.put("a", &[(FILE, "a: [1\n")]);
    setup.split([50, 50]);
    // Its files follow the split all the same.
    setup.succeed(&ONCE);
    setup.assert_weights([50, 50]);
    setup.until_mirrored([60, 40]);
    setup.put("a", &[(FILE, &routes([100, 0]))]);
    setup.succeed(&ONCE);
    setup.until_mirrored([50, 50]);
}

#[test]
fn a_mirror_is_not_written_while_a_split_is_unknown() {
    let setup = weighed();
    setup.succeed(&ONCE);
    setup.split([50, 50]);
    setup.put("a", &[(FILE, &(routes([100, 0]) + "# more\n"))]);
    setup.fail_next(usize::MAX, Fault::status(403), about_splits);
    let before = setup.server.count_requests(is_mirror);
    // Files of another life's stay, and those of none are the template's.
    setup.succeed(&ONCE);
    let other = setup.path("other");
    let flags: Vec<&str> = ONCE.into_iter().chain(["-output-dir", &other]).collect();
    setup.succeed(&flags);
    assert_eq!(setup.server.count_requests(is_mirror), before);
    setup.until_mirrored([60, 40]);
}

#[test]
fn publish_false_neither_writes_nor_reads_a_mirror() {
    let setup = weighed();
    let flags: Vec<&str> = ONCE.into_iter().chain(["-publish=false"]).collect();
    setup.succeed(&flags);
    setup.assert_weights([60, 40]);
    let process = setup.start(&FOLLOW);
    setup.server.wait_for_watches(2);
    setup.split([50, 50]);
    setup.until_weights([50, 50]);
    process.stop();
    assert_eq!(setup.server.count_requests(is_mirror), 0);
}

#[test]
fn without_splits_nothing_is_mirrored() {
    let setup = weighed();
    setup.succeed(&["-onetime", "-configmap=a"]);
    setup.assert_weights([100, 0]);
    assert_eq!(setup.server.count_requests(is_mirror), 0);
}

#[test]
fn a_configmap_named_with_its_own_mirror_is_exit_2() {
    let setup = weighed();
    for flags in [
        ["-configmap=a", "-configmap=a-gen"],
        ["-configmap=a-gen", "-configmap=default/a"],
    ] {
        let finished = setup.run(&[flags[0], flags[1], SPLIT]);
        assert_eq!(finished.code, Some(2), "{}", finished.stderr);
        assert!(finished.stderr.contains("a-gen"), "{}", finished.stderr);
    }
    assert_eq!(setup.server.requests().len(), 0);
}

#[test]
fn dry_run_prints_mirrors_that_kubectl_applies() {
    let setup = weighed();
    let mut object = config_map("b", &[("on", "y\n")]);
    object["binaryData"] = json!({"all": BASE64.encode([0, 255])});
    setup.server.create(object);
    let finished = setup.succeed(&["-dry-run", "-configmap=a", "-configmap=b", SPLIT]);
    assert_eq!(setup.server.count_requests(is_mirror), 0);
    let other = Setup::new();
    let kubectl = Kubectl::new(&other.server);
    kubectl.write(&finished.stdout);
    let applied = kubectl.run(&["apply", "--validate=false", "-f", "all.yaml"]);
    assert_eq!(
        applied,
        "configmap/a-gen created\nconfigmap/b-gen created\n"
    );
    // And what would be written is what is printed.
    setup.succeed(&["-onetime", "-configmap=a", "-configmap=b", SPLIT]);
    for name in ["a-gen", "b-gen"] {
        let (printed, written) = (other.mirror(name), setup.mirror(name));
        for field in ["data", "binaryData"] {
            // A missing mapping is the same as an empty one.
            let entries = |mirror: &Value| mirror[field].as_object().cloned().unwrap_or_default();
            assert_eq!(entries(&printed), entries(&written), "{name} {field}");
        }
        assert_eq!(printed["metadata"]["labels"], written["metadata"]["labels"]);
        assert_eq!(
            printed["metadata"]["namespace"],
            written["metadata"]["namespace"]
        );
    }
}
