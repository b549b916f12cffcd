//! The environment supplies what the command line leaves out: the namespace and the API server.

use std::fs;
use testkit::crossover::{self, Crossover};
use testkit::setup::{Setup, events};

/// The namespace that is asked for.
#[track_caller]
fn namespace(flags: &[&str], environment: &[(&str, &str)]) -> String {
    let setup = Setup::new();
    let (url, output) = (setup.server.url(), setup.path("out"));
    let ours = [
        "-apiserver",
        &url,
        "-output-dir",
        &output,
        "-configmap",
        "a",
    ];
    let mut command = crossover::command(&[&ours, flags].concat());
    command.envs(environment.iter().copied());
    let _process = Crossover::spawn(command);
    let request = setup.server.wait_for_request("any", |_| true);
    request.place().unwrap().namespace
}

#[test]
fn the_namespace_is_the_flags_else_ns_else_pod_namespace() {
    let both = [("NS", "two"), ("POD_NAMESPACE", "three")];
    assert_eq!(namespace(&["-namespace=one"], &both), "one");
    assert_eq!(namespace(&[], &both), "two");
    assert_eq!(namespace(&["-namespace="], &both), "two");
    assert_eq!(namespace(&[], &both[1..]), "three");
    assert_eq!(namespace(&[], &[("NS", ""), both[1]]), "three");
}

/// The API server that the `started` line names.
#[track_caller]
fn apiserver(flags: &[&str], environment: &[(&str, &str)]) -> String {
    let setup = Setup::new();
    fs::write(setup.path("token"), "TOKEN").unwrap();
    let (token, output) = (setup.path("token"), setup.path("out"));
    let ours = [
        "-token-file",
        &token,
        "-output-dir",
        &output,
        "-configmap=default/a",
    ];
    let mut command = crossover::command(&[&ours, flags].concat());
    command
        .arg("-log-format=json")
        .envs(environment.iter().copied());
    let process = Crossover::spawn(command);
    let started = &events(&process.wait_for_line("started"))[0];
    started["apiserver"].as_str().unwrap().to_string()
}

#[test]
fn the_apiserver_is_the_flags_else_the_environments_else_kubernetes() {
    let (host, port) = ("KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT");
    let four = [(host, "127.0.0.1"), (port, "1")];
    let six = [(host, "::1"), (port, "1")];
    assert_eq!(
        apiserver(&["-apiserver=http://[::1]:2"], &four),
        "http://[::1]:2"
    );
    assert_eq!(apiserver(&[], &four), "https://127.0.0.1:1");
    assert_eq!(apiserver(&[], &six), "https://[::1]:1");
    let brackets = [(host, "[::1]"), (port, "1")];
    assert_eq!(apiserver(&[], &brackets), "https://[::1]:1");
    assert_eq!(apiserver(&[], &[(host, "")]), "https://kubernetes");
    assert_eq!(apiserver(&[], &[]), "https://kubernetes");
}

#[test]
fn an_environment_that_makes_no_url_is_named_and_no_flag_is_blamed() {
    let flags = ["-configmap=default/a"];
    let mut command = crossover::command(&flags);
    command.env("KUBERNETES_SERVICE_HOST", "10.0.0.1");
    command.env("KUBERNETES_SERVICE_PORT", "tcp://10.0.0.1:443");
    let finished = Crossover::spawn(command).finish();
    assert_eq!(finished.code, Some(2), "{}", finished.stderr);
    let line = finished.stderr.lines().next().unwrap();
    assert!(
        line.contains("for KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT: "),
        "{line}"
    );
    assert!(!line.contains("flag"), "{line}");
}
