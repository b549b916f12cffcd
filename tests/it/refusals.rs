//! `<configmap>-gen` where it may not, or cannot, be written: files go on, and the operator hears it.

use crate::kit::apiserver::access::{Account, Rule};
use crate::kit::apiserver::faults::{Fault, Then};
use crate::kit::apiserver::request::Request;
use crate::kit::objects::config_map;
use crate::mirror::{ONCE, SHOW, is_mirror, weighed};
use crate::weights::FILE;
use serde_json::{Value, json};

const REFUSED: &str = "the mirror cannot be written: the files go on";
const FOREIGN: &str = "a ConfigMap of the mirror's name is somebody else's: left alone";

/// What may be done without writing.
fn readers() -> Vec<Rule> {
    let verbs = ["list", "watch"];
    let splits = Rule::new("split.smi-spec.io", "trafficsplits", &verbs);
    vec![Rule::new("", "configmaps", &verbs), splits]
}

#[test]
fn the_go_program_s_object_is_taken_over() {
    let setup = weighed();
    let mut old = config_map("a-gen", &[(FILE, "old\n")]);
    old["metadata"]["ownerReferences"] = json!([{"apiVersion": "v1", "kind": "ConfigMap",
        "name": "a", "uid": "1"}]);
    setup.server.create(old);
    setup.succeed(&ONCE);
    let mirror = setup.until_mirrored([60, 40]);
    assert_eq!(mirror["metadata"]["ownerReferences"], Value::Null);
    assert_eq!(
        mirror["metadata"]["labels"]["app.kubernetes.io/managed-by"],
        "crossover"
    );
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

/// With these rules the mirror cannot be written; what is missing is said once, and that is all.
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
fn trouble_with_the_mirror_does_not_disturb_watches() {
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
fn a_mirror_that_failed_is_tried_again() {
    let setup = weighed();
    setup.fail_next(2, Fault::status(500), is_mirror);
    let _process = setup.start(&SHOW);
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
