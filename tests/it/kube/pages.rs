//! Lists that come in pages: what is asked for, and what becomes of one that is too large, or whose
//! rest has expired.

use serde_json::{Value, json};
use testkit::apiserver::Options;
use testkit::apiserver::Server;
use testkit::apiserver::faults::Fault;
use testkit::apiserver::request::Request;
use testkit::crossover::Crossover;
use testkit::exchange::Line;
use testkit::objects::config_map;
use testkit::setup::Setup;
use testkit::weights::{FILE, about_splits, routes, split_of};

const FLAGS: [&str; 3] = ["-configmap=a", "-smi", "-publish=false"];

/// Makes a set-up with so many other splits, and at the end the one that counts: 60 and 40.
fn crowd(count: usize, note: &str) -> Setup {
    let setup = Setup::new();
    setup.put("a", &[(FILE, &routes([100, 0]))]);
    setup.server.change(|cluster| {
        for i in 0..count {
            let mut split = split_of(&format!("other-{i:04}"), &format!("other-{i}"), [1, 1]);
            split["metadata"]["annotations"] = json!({"note": note});
            cluster.create(split);
        }
    });
    setup.split([60, 40]);
    setup
}

/// The other splits have no route, and that is all that is amiss.
#[track_caller]
fn assert_no_trouble(process: Crossover) {
    let said = process.stop().stderr;
    let mut warnings = said.lines().filter(|line| line.contains(" WARN "));
    let trouble = warnings.find(|line| !line.contains("applies to no route"));
    assert_eq!(trouble, None);
}

fn pages(setup: &Setup, take: impl Fn(&Request) -> bool) -> Vec<Request> {
    let mut requests = setup.server.requests();
    requests.retain(|r| r.is_list() && about_splits(r) && take(r));
    requests
}

#[test]
fn a_namespace_is_listed_and_checked_page_by_page() {
    let setup = crowd(1200, "");
    let _process = setup.start(&[&FLAGS[..], &["-sync-interval=200ms"]].concat());
    setup.until_weights([60, 40]);
    let lists = pages(&setup, |r| !r.is_metadata_only());
    let limits: Vec<_> = lists.iter().map(|r| r.query("limit")).collect();
    assert_eq!(limits, vec![Some("500".to_owned()); 3]);
    let goes_on: Vec<bool> = lists
        .iter()
        .map(|r| r.query("continue").is_some())
        .collect();
    assert_eq!(goes_on, [false, true, true]);
    // A change that only the last page of a look shows.
    setup.split([50, 50]);
    setup.until_weights([50, 50]);
    let looks = pages(&setup, Request::is_metadata_only);
    assert!(looks.len() >= 3 && looks[1].query("continue").is_some());
}

#[test]
fn a_watch_goes_on_from_the_list_s_state_and_not_from_a_later_page_s() {
    let setup = crowd(600, "");
    // The split moves after the list has begun.
    let slow = Fault::Delay(std::time::Duration::from_millis(500));
    setup.fail_next(1, slow, |r| r.query("continue").is_some());
    let process = setup.start(&[&FLAGS[..], &["-watch"]].concat());
    let second = |r: &Request| r.query("continue").is_some();
    setup.server.wait_for_request("the second page", second);
    setup.split([50, 50]);
    setup.until_weights([50, 50]);
    setup.server.wait_for_watches(2);
    assert_no_trouble(process);
}

#[test]
fn a_page_of_over_8_mib_is_asked_for_in_smaller_ones() {
    // Looks hold it, too.
    let setup = crowd(10, &"x".repeat(900_000));
    let process = setup.start(&[&FLAGS[..], &["-sync-interval=1s"]].concat());
    setup.until_weights([60, 40]);
    setup.split([50, 50]);
    setup.until_weights([50, 50]);
    // It may take the kit's server, unoptimized, too long to begin in time.
    let said = process.stop().stderr;
    assert!(!said.contains("cannot be used"), "{said}");
}

/// Makes the server's answer for a page that it cannot go on with.
fn expired() -> Fault {
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {"continue": "again"},
        "status": "Failure", "message": "The provided continue parameter is too old",
        "reason": "Expired", "code": 410});
    Fault::Answer {
        status: 410,
        headers: vec![("Content-Type".into(), "application/json".into())],
        body: status.to_string().into_bytes(),
    }
}

#[test]
fn a_list_whose_rest_has_expired_begins_again() {
    let setup = crowd(600, "");
    setup.fail_next(1, expired(), |r| r.query("continue").is_some());
    let process = setup.start(&[&FLAGS[..], &["-sync-interval=300ms"]].concat());
    setup.until_weights([60, 40]);
    let first = |r: &Request| !r.is_metadata_only() && r.query("continue").is_none();
    assert_eq!(pages(&setup, first).len(), 2);
    let looks = |r: &Request| r.is_metadata_only();
    setup.fail_next(1, expired(), move |r| {
        looks(r) && r.query("continue").is_some()
    });
    setup.split([50, 50]);
    setup.until_weights([50, 50]);
    assert_no_trouble(process);
}

/// A list's answer, as JSON.
#[track_caller]
fn ask(server: &Server, query: &str) -> Value {
    let target = format!("/api/v1/namespaces/default/configmaps?{query}");
    let answered = Line::get(server.address(), &target).read_until(|answered| answered.complete);
    serde_json::from_slice(&answered.chunks.concat()).unwrap()
}

fn names(list: &Value) -> Vec<&str> {
    let items = list["items"].as_array().unwrap().iter();
    items
        .map(|item| item["metadata"]["name"].as_str().unwrap())
        .collect()
}

#[test]
fn the_kit_s_server_gives_pages_of_one_state_until_it_is_compacted() {
    let server = Server::start(Options::default());
    for name in ["a", "b", "c", "d", "e"] {
        server.create(config_map(name, &[]));
    }
    let next = |list: &Value| {
        format!(
            "limit=2&continue={}",
            list["metadata"]["continue"].as_str().unwrap()
        )
    };
    let first = ask(&server, "limit=2");
    assert_eq!(names(&first), ["a", "b"]);
    assert_eq!(first["metadata"]["remainingItemCount"], json!(3));
    server.delete("ConfigMap", "c");
    let second = ask(&server, &next(&first));
    assert_eq!(names(&second), ["c", "d"], "as it was at the beginning");
    assert_eq!(
        second["metadata"]["resourceVersion"],
        first["metadata"]["resourceVersion"]
    );
    let last = ask(&server, &next(&second));
    assert_eq!(names(&last), ["e"]);
    assert_eq!(last["metadata"]["continue"], Value::Null);
    server.compact();
    let expired = ask(&server, &next(&first));
    assert_eq!(
        (&expired["code"], &expired["reason"]),
        (&json!(410), &json!("Expired"))
    );
    let rest = ask(&server, &next(&expired));
    assert_eq!(names(&rest), ["d", "e"], "as it is now");
    assert_eq!(ask(&server, "limit=2&continue=x")["code"], json!(400));
}
