//! The in-memory API server behaves like a real one beyond the recorded exchanges, too.

use serde_json::{Value, json};
use testkit::apiserver::access::{Account, Rule};
use testkit::apiserver::{Options, Server};
use testkit::exchange::Line;
use testkit::objects::{config_map, traffic_split};

#[test]
fn ends_a_watch_at_its_timeout_with_a_last_bookmark() {
    let server = Server::start(Options::default());
    let target = "/api/v1/namespaces/default/configmaps?watch=1&timeoutSeconds=1";
    let mut plain = Line::get(server.address(), &format!("{target}&resourceVersion=1000"));
    let mut marked = Line::get(server.address(), &format!("{target}&allowWatchBookmarks=1"));
    assert_eq!(
        plain.read_until(|answered| answered.complete).chunks,
        [[0; 0]; 0]
    );
    let marked = marked.read_until(|answered| answered.complete);
    assert_eq!(marked.texts(), [bookmark(1000)]);
    server.wait_for_watches(0);
}

#[test]
fn gives_what_exists_as_added_to_a_watch_without_a_version() {
    let server = Server::start(Options::default());
    server.create(config_map("a", &[]));
    let target = "/api/v1/namespaces/default/configmaps?watch=1&fieldSelector=metadata.name%3Da";
    let mut line = Line::get(server.address(), target);
    line.read_until(|answered| answered.chunks.len() == 1);
    server.create(config_map("b", &[]));
    server.delete("ConfigMap", "a");
    let answered = line.read_until(|answered| answered.chunks.len() == 2);
    let events: Vec<Value> = answered
        .chunks
        .iter()
        .map(|chunk| serde_json::from_slice(chunk).unwrap())
        .collect();
    let seen: Vec<(&Value, &Value)> = events
        .iter()
        .map(|event| {
            (
                &event["type"],
                &event["object"]["metadata"]["resourceVersion"],
            )
        })
        .collect();
    assert_eq!(
        seen,
        [
            (&json!("ADDED"), &json!("1001")),
            (&json!("DELETED"), &json!("1003"))
        ]
    );
}

#[test]
fn moves_no_version_for_a_write_that_changes_nothing() {
    let server = Server::start(Options::default());
    let object = || config_map("a", &[("x.yaml", "a: 1\n")]);
    let created = server.create(object());
    assert_eq!(server.replace(object()), created);
    assert_ne!(server.replace(config_map("a", &[])), created);
}

#[test]
fn takes_an_applied_field_from_another_manager_only_by_force() {
    let server = Server::start(Options::default());
    server.create(config_map("a", &[("x", "1"), ("y", "1")]));
    let apply = |force: bool, data: &str| {
        let body = format!("kind: ConfigMap\napiVersion: v1\ndata: {data}\n");
        let request = format!(
            "PATCH /api/v1/namespaces/default/configmaps/a?fieldManager=me&force={force} \
             HTTP/1.1\r\nHost: kubernetes\r\nContent-Type: application/apply-patch+yaml\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut line = Line::ask(server.address(), request.as_bytes());
        let answered = line.read_until(|answered| answered.complete);
        serde_json::from_slice::<Value>(&answered.chunks[0]).unwrap()
    };
    let refused = apply(false, "{x: '2'}");
    let message = "Apply failed with 1 conflict: conflict with \"unknown\" using v1: .data.x";
    assert_eq!(refused["message"], json!(message));
    assert_eq!(
        apply(true, "{x: '2', z: '1'}")["data"],
        json!({"x": "2", "y": "1", "z": "1"})
    );
    assert_eq!(
        apply(false, "{x: '3'}")["data"],
        json!({"x": "3", "y": "1"})
    );
}

#[test]
fn ends_the_watches_of_a_group_that_goes_away() {
    let server = Server::start(Options::default());
    server.create(traffic_split("podinfo", "podinfo", &[("one", 1)]));
    let splits = "/apis/split.smi-spec.io/v1alpha2/namespaces/default/trafficsplits";
    let mut watch = Line::get(server.address(), &format!("{splits}?watch=1"));
    watch.read_until(|answered| answered.chunks.len() == 1);
    server.serve_splits(&[]);
    let events = watch.read_until(|answered| answered.complete).texts();
    assert!(events[1].contains("DELETED"));
    let gone = Line::get(server.address(), splits).read_until(|answered| answered.complete);
    assert_eq!(gone.texts(), ["404 page not found\n"]);
    server.serve_splits(&["v1alpha1"]);
    let version = Line::get(server.address(), splits).read_until(|answered| answered.complete);
    assert_eq!(version.status_line, "HTTP/1.1 404 Not Found");
    let older = Line::get(server.address(), &splits.replace("v1alpha2", "v1alpha1"));
    assert_eq!(
        { older }.read_until(|a| a.complete).status_line,
        "HTTP/1.1 200 OK"
    );
}

fn bookmark(version: u64) -> String {
    format!(
        "{{\"type\":\"BOOKMARK\",\"object\":{{\"kind\":\"ConfigMap\",\"apiVersion\":\"v1\",\
         \"metadata\":{{\"resourceVersion\":\"{version}\"}}}}}}\n"
    )
}

#[test]
fn lets_a_service_account_do_what_its_role_says() {
    let role = json!({"rules": [{
        "apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["a"], "verbs": ["get"],
    }]});
    let mut account = Account::anonymous(Rule::of_role(&role));
    let server = Server::start(Options::default());
    server.create(config_map("a", &[]));
    server.set_accounts(vec![account.clone()]);
    let get = |name: &str| {
        let target = format!("/api/v1/namespaces/default/configmaps/{name}");
        let mut line = Line::get(server.address(), &target);
        line.read_until(|answered| answered.complete).status_line
    };
    assert_eq!(get("a"), "HTTP/1.1 200 OK");
    assert_eq!(get("b"), "HTTP/1.1 403 Forbidden");
    account.token = Some("secret".into());
    server.set_accounts(vec![account]);
    assert_eq!(get("a"), "HTTP/1.1 401 Unauthorized");
}
