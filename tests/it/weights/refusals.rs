//! `<configmap>-gen` where it may not, or cannot, be written: files go on, and the operator hears
//! it.

use crate::weights::mirror::{ONCE, SHOW, is_mirror, weighed};
use rustix::process::Signal;
use serde_json::{Value, json};
use testkit::apiserver::access::{Account, Rule};
use testkit::apiserver::faults::{Fault, Then};
use testkit::apiserver::request::Request;
use testkit::objects::config_map;
use testkit::weights::{FILE, routes};

const REFUSED: &str = "mirror cannot be written; publishing files all the same";
const FOREIGN: &str =
    "ConfigMap with the mirror's name is not managed by crossover; leaving it as it is";

/// The rules of a service account that may read and not write.
fn readers() -> Vec<Rule> {
    let verbs = ["list", "watch"];
    let splits = Rule::new("split.smi-spec.io", "trafficsplits", &verbs);
    vec![Rule::new("", "configmaps", &verbs), splits]
}

/// A mirror with this metadata is written twice, the second time without a key of the first; the
/// metadata is then as before, and what makes it ours.
#[track_caller]
fn keeps(metadata: &Value, marks: &[(&str, &str, &str)]) {
    let setup = weighed();
    let files = [(FILE, routes([100, 0])), ("b.yaml", "b: 1\n".to_owned())];
    let files = files.each_ref().map(|(name, text)| (*name, text.as_str()));
    setup.put("a", &files);
    let mut object = config_map("a-gen", &[]);
    let mut want = object["metadata"].clone();
    for (field, value) in metadata.as_object().unwrap() {
        object["metadata"][field] = value.clone();
        want[field] = value.clone();
    }
    for (field, key, text) in marks {
        want[field][key] = json!(text);
    }
    object.as_object_mut().unwrap().remove("data");
    setup.server.create(object);
    let created = setup.mirror("a-gen")["metadata"].clone();
    setup.succeed(&ONCE);
    assert_eq!(setup.mirror("a-gen")["data"]["b.yaml"], json!("b: 1\n"));
    setup.put("a", &files[..1]);
    setup.succeed(&ONCE);
    let mut now = setup.until_mirrored([60, 40])["metadata"].clone();
    for field in ["uid", "creationTimestamp"] {
        assert_eq!(now[field], created[field]);
    }
    for field in [
        "uid",
        "creationTimestamp",
        "resourceVersion",
        "managedFields",
    ] {
        now.as_object_mut().unwrap().remove(field);
    }
    assert_eq!(now, want);
}

#[test]
fn a_mirror_keeps_all_metadata_that_others_gave_it() {
    let label = "app.kubernetes.io/managed-by";
    let foreign = json!({
        "labels": {"app": "\"quoted\"", "helm.sh/chart": "envoy-1"},
        "annotations": {"meta.helm.sh/release-name": "web", "note": "{\n}"},
        "ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "a", "uid": "1"}],
        "finalizers": ["example.com/hold"],
    });
    // The Go program gave it no label.
    keeps(&foreign, &[("labels", label, "crossover")]);
    keeps(&json!({}), &[("labels", label, "crossover")]);
    // One that a chart has made, for us or not.
    let mut charts = foreign.clone();
    charts["labels"][label] = json!("Helm");
    keeps(&charts, &[("annotations", "crossover/mirror", "true")]);
    charts["annotations"]["crossover/mirror"] = json!("true");
    keeps(&charts, &[]);
}

#[test]
fn a_mirror_that_a_chart_has_made_is_ours_with_any_keys() {
    let setup = weighed();
    let mut object = config_map("a-gen", &[("other.yaml", "a: 1\n")]);
    object["metadata"]["annotations"] = json!({"crossover/mirror": "true"});
    setup.server.create(object);
    setup.succeed(&ONCE);
    setup.until_mirrored([60, 40]);
}

#[test]
fn somebody_else_s_object_is_left_alone_with_one_warning() {
    let setup = weighed();
    let version = setup.put("a-gen", &[(FILE, "old\n"), ("other.yaml", "a: 1\n")]);
    let process = setup.start(&SHOW);
    let warning = process.wait_for_line(FOREIGN);
    assert!(
        warning.contains(" WARN ") && warning.contains("default/a-gen"),
        "{warning}"
    );
    setup.split([50, 50]);
    setup.until_weights([50, 50]);
    setup.server.wait_for_requests("another look", 2, is_mirror);
    let stderr = process.stop().stderr;
    assert_eq!(stderr.matches(FOREIGN).count(), 1, "{stderr}");
    let now = setup.mirror("a-gen")["metadata"]["resourceVersion"].clone();
    assert_eq!(now, json!(version));
}

/// Checks that the mirror cannot be written with these rules, and that one warning says what is
/// missing.
#[track_caller]
fn goes_on_without(rules: &[Rule], verb: &str) {
    let setup = weighed();
    if verb == "update" {
        setup.succeed(&ONCE);
        setup.split([61, 39]);
    }
    let all = readers().into_iter().chain(rules.iter().cloned()).collect();
    setup.server.set_accounts(vec![Account::anonymous(all)]);
    let finished = setup.succeed(&ONCE);
    assert_eq!(
        finished.stderr.matches(REFUSED).count(),
        1,
        "{}",
        finished.stderr
    );
    let process = setup.start(&SHOW);
    let warning = process.wait_for_line(REFUSED);
    for part in [
        " WARN ",
        "Role in namespace default",
        "configmaps",
        "update",
        "create",
        "a-gen",
    ] {
        assert!(warning.contains(part), "{part}: {warning}");
    }
    assert!(
        warning.contains(&format!("failed to {verb} configmaps default/a-gen")),
        "{warning}"
    );
    let tried = setup.server.count_requests(is_mirror);
    setup.split([50, 50]);
    setup.until_weights([50, 50]);
    setup
        .server
        .wait_for_requests("another try", tried + 1, is_mirror);
    let stderr = process.stop().stderr;
    assert_eq!(stderr.matches(" WARN ").count(), 1, "{stderr}");
}

#[test]
fn without_the_right_to_get_one_warning_says_what_to_grant_and_files_go_on() {
    goes_on_without(&[], "get");
}

#[test]
fn without_the_right_to_create_one_warning_says_what_to_grant_and_files_go_on() {
    goes_on_without(&[Rule::new("", "configmaps", &["get", "update"])], "create");
}

#[test]
fn without_the_right_to_update_one_warning_says_what_to_grant_and_files_go_on() {
    goes_on_without(&[Rule::new("", "configmaps", &["get", "create"])], "update");
}

#[test]
fn what_the_warning_says_to_grant_is_enough() {
    let setup = weighed();
    let mut rules = readers();
    rules.push(Rule::new("", "configmaps", &["get", "update"]).named(&["a-gen"]));
    rules.push(Rule::new("", "configmaps", &["create"]));
    setup.server.set_accounts(vec![Account::anonymous(rules)]);
    for weights in [[60, 40], [50, 50]] {
        setup.split(weights);
        let stderr = setup.succeed(&ONCE).stderr;
        assert!(!stderr.contains(" WARN "), "{stderr}");
        setup.until_mirrored(weights);
    }
}

#[test]
fn every_other_refusal_is_one_warning_too() {
    for status in [400, 401, 404, 405, 413, 422, 429] {
        let setup = weighed();
        setup.fail_next(usize::MAX, Fault::status(status), Request::is_write);
        let stderr = setup.succeed(&ONCE).stderr;
        assert_eq!(stderr.matches(REFUSED).count(), 1, "{status}: {stderr}");
        assert_eq!(stderr.matches(" WARN ").count(), 1, "{status}: {stderr}");
        setup.assert_weights([60, 40]);
    }
}

#[test]
fn a_conflict_settles() {
    let setup = weighed();
    let conflict = |r: &Request| r.is_write();
    setup.fail_next(3, Fault::status(409), conflict);
    let stderr = setup.succeed(&ONCE).stderr;
    setup.until_mirrored([60, 40]);
    assert!(!stderr.contains(" WARN "), "{stderr}");
    assert_eq!(setup.server.count_requests(Request::is_write), 4);
}

#[test]
fn a_failing_mirror_does_not_disturb_watches() {
    for fault in [
        Fault::status(500),
        Fault::retry_after(503, "60"),
        Fault::Raw(b"no HTTP\r\n\r\n".to_vec()),
        Fault::After {
            body_bytes: 5,
            then: Then::Stall,
        },
    ] {
        let setup = weighed();
        setup.fail_next(usize::MAX, fault, is_mirror);
        let process = setup.start(&SHOW);
        setup.server.wait_for_requests("a try", 1, is_mirror);
        let others = |r: &Request| !is_mirror(r);
        setup.server.wait_for_watches(2);
        let before = setup.server.count_requests(others);
        for canary in 1..5 {
            setup.split([100 - canary, canary]);
            setup.until_weights([100 - canary, canary]);
        }
        assert_eq!(setup.server.count_requests(others), before);
        let stderr = process.stop().stderr;
        assert!(!stderr.contains("the API server is away"), "{stderr}");
    }
}

#[test]
fn a_mirror_is_tried_again_after_every_failure() {
    let statuses = [400, 401, 403, 404, 405, 422, 429, 500].map(Fault::status);
    let nonsense = Fault::json(b"<html>".to_vec());
    let faults = statuses.into_iter().chain([nonsense]);
    let mut cases: Vec<(&str, Fault)> = Vec::new();
    for fault in faults {
        let success = matches!(fault, Fault::Answer { status: 200, .. });
        let methods = ["GET", "POST", "PUT"];
        // What is said to a write that was done is not read.
        let methods = methods.into_iter().filter(|m| !success || *m == "GET");
        cases.extend(methods.map(|method| (method, fault.clone())));
    }
    std::thread::scope(|scope| {
        for (method, fault) in cases {
            scope.spawn(move || {
                let setup = weighed();
                if method == "PUT" {
                    setup.put("a-gen", &[(FILE, "old\n")]);
                }
                let struck = move |r: &Request| is_mirror(r) && r.method == method;
                setup.fail_next(1, fault, struck);
                let _process = setup.start(&SHOW);
                setup.until_mirrored([60, 40]);
            });
        }
    });
}

#[test]
fn a_constant_conflict_backs_off_with_one_warning() {
    let setup = weighed();
    setup.fail_next(usize::MAX, Fault::status(409), Request::is_write);
    let stderr = setup.succeed(&ONCE).stderr;
    assert_eq!(stderr.matches(REFUSED).count(), 1, "{stderr}");
    assert_eq!(setup.server.count_requests(Request::is_write), 4);
    let process = setup.start(&SHOW);
    process.wait_for_line(REFUSED);
    setup.server.behave();
    setup.until_mirrored([60, 40]);
    assert_eq!(process.stop().stderr.matches(REFUSED).count(), 1);
}

#[test]
fn a_drain_that_cuts_a_mirror_s_request_does_not_lose_it() {
    let setup = weighed();
    setup.fail_next(1, Fault::Freeze, is_mirror);
    let command = ["--", "sh", "-c", "trap '' TERM; echo runs; exec sleep 60"];
    let drain = ["-drain=1h", "-envoy-admin=http://127.0.0.1:1"];
    let process = setup.start(&[&SHOW[..], &drain, &command].concat());
    setup.server.wait_for_request("a look", is_mirror);
    process.signal(Signal::TERM);
    setup.until_mirrored([60, 40]);
}

#[test]
fn a_mirror_that_the_server_never_answers_does_not_hold_up_the_end_of_onetime() {
    let setup = weighed();
    setup.fail_next(usize::MAX, Fault::Freeze, is_mirror);
    let stderr = setup.succeed(&ONCE).stderr;
    assert_eq!(stderr.matches(REFUSED).count(), 1, "{stderr}");
    setup.assert_weights([60, 40]);
}
