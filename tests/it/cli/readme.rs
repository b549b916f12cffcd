//! The README and the pages of docs/ are true of the program: its usage, its commands, its Role.

use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use tempfile::TempDir;
use testkit::apiserver::access::{Account, Rule};
use testkit::apiserver::{Options, Server};
use testkit::crossover::{self, Crossover};
use testkit::envoy_config::SERVICE;
use testkit::examples::{self, CONFIG_MAP};
use testkit::objects::{http_route, http_route_crd, in_namespace, traffic_split};
use testkit::pages::{blocks, section};
use testkit::testbed::BACKENDS;
use testkit::{helm, until};

const README: &str = include_str!("../../../README.md");
const OPERATIONS: &str = include_str!("../../../docs/operations.md");

#[test]
fn the_readme_shows_the_usage_as_the_program_prints_it() {
    let usage = Crossover::run(&["-h"]).stdout;
    let (_, shown) = README.split_once("\n$ crossover -h\n").unwrap();
    let (shown, _) = shown.split_once("```\n").unwrap();
    assert_eq!(shown, usage);
}

/// A server with all that the pages name: `envoy-xds`, and `podinfo` of both kinds.
fn server() -> Server {
    let server = Server::start(Options::default());
    server.create(in_namespace(
        "default",
        examples::read(&examples::path(CONFIG_MAP)),
    ));
    server.create(http_route_crd(&["v1"]));
    let backends = BACKENDS.map(|name| json!({"name": name, "port": 9898, "weight": 7}));
    server.create(http_route(SERVICE, json!([{"backendRefs": backends}])));
    server.create(traffic_split(
        SERVICE,
        SERVICE,
        &BACKENDS.map(|name| (name, 7)),
    ));
    server
}

/// The flags that lead to the server and to a directory.
fn place(server: &Server, dir: &TempDir) -> Vec<String> {
    let output = dir.path().join("out").display().to_string();
    let token = dir.path().join("token");
    fs::write(&token, "TOKEN").unwrap();
    let words = [
        "-apiserver",
        &server.url(),
        "-namespace",
        "default",
        "-output-dir",
        &output,
        "-token-file",
        &token.display().to_string(),
    ];
    words.map(str::to_owned).to_vec()
}

/// Returns the texts of all pages in `docs/`.
fn pages() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let pages = fs::read_dir(root.join("docs")).unwrap();
    pages
        .map(|page| fs::read_to_string(page.unwrap().path()).unwrap())
        .collect()
}

#[test]
fn every_crossover_command_of_the_pages_publishes() {
    let mut commands = 0;
    for page in pages() {
        for line in page.lines() {
            let Some(flags) = line.strip_prefix("$ crossover ") else {
                continue;
            };
            let flags = flags.split(" #").next().unwrap_or_default();
            assert!(
                flags.ends_with(" -watch") || flags.contains(" -watch "),
                "{line}"
            );
            let (server, dir) = (server(), TempDir::new().unwrap());
            let mut command = crossover::command(&[]);
            // The same, but it ends.
            command.args(flags.split_whitespace()).arg("-onetime");
            command.args(place(&server, &dir));
            let finished = Crossover::spawn(command).finish();
            assert_eq!(finished.code, Some(0), "{line}: {}", finished.stderr);
            assert!(
                !finished.stderr.contains("WARN"),
                "{line}: {}",
                finished.stderr
            );
            let file = fs::read_to_string(dir.path().join("out/current/rds.yaml")).unwrap();
            assert!(file.contains("weight: 7\n"), "{line}: {file}");
            commands += 1;
        }
    }
    assert!(commands >= 4, "{commands} commands were found");
}

/// Returns the texts of all lists in a value.
fn words(value: &Value) -> Vec<&str> {
    match value {
        Value::Array(items) => {
            let own = items.iter().filter_map(Value::as_str);
            own.chain(items.iter().flat_map(words)).collect()
        }
        Value::Object(fields) => fields.values().flat_map(words).collect(),
        _ => Vec::new(),
    }
}

#[test]
fn the_manifests_of_the_pages_can_be_read_and_have_only_flags_that_exist() {
    let usage = Crossover::run(&["-h"]).stdout;
    let known: Vec<&str> = usage
        .lines()
        .filter_map(|it| it.trim().strip_prefix('-'))
        .collect();
    let known = |flag: &str| {
        let name = flag.trim_start_matches('-').split('=').next().unwrap();
        known
            .iter()
            .any(|line| line.split(' ').next() == Some(name))
    };
    let mut flags = 0;
    for page in pages() {
        let entry_points = blocks(&page, "dockerfile").into_iter().flat_map(str::lines);
        let entry_points = entry_points.filter_map(|line| line.strip_prefix("ENTRYPOINT "));
        let manifests = blocks(&page, "yaml").into_iter().chain(entry_points);
        for document in manifests.flat_map(helm::documents) {
            // Those after `--` are the command's.
            let own = words(&document)
                .into_iter()
                .take_while(|word| *word != "--");
            for flag in own.filter(|word| word.starts_with('-')) {
                assert!(known(flag), "{flag}");
                flags += 1;
            }
        }
    }
    assert!(flags >= 8, "{flags} flags were found");
}

#[test]
fn the_role_of_the_page_is_enough_and_each_of_its_rules_is_needed() {
    let role = blocks(section(OPERATIONS, "## The Role"), "yaml")[0];
    let role = helm::documents(role).remove(0);
    let rules = Rule::of_role(&role);
    assert_eq!(rules.len(), 5);
    let start = |rules: Vec<Rule>| {
        let (server, dir) = (server(), TempDir::new().unwrap());
        server.set_accounts(vec![Account::service("TOKEN", "envoy", rules)]);
        let mut command = crossover::command(&["-configmap", "envoy-xds", "-watch"]);
        command.args(["-httproute", SERVICE, "-trafficsplit", SERVICE]);
        command.args(place(&server, &dir));
        (Crossover::spawn(command), server, dir)
    };
    let (crossover, server, _dir) = start(rules.clone());
    until("the mirror", || server.get("ConfigMap", "envoy-xds-gen"));
    // Once more, as an update.
    server.replace(traffic_split(
        SERVICE,
        SERVICE,
        &BACKENDS.map(|name| (name, 9)),
    ));
    let mut route = server.get("HTTPRoute", SERVICE).unwrap();
    for backend in 0..BACKENDS.len() {
        route["spec"]["rules"][0]["backendRefs"][backend]["weight"] = json!(9);
    }
    server.replace(route);
    until("the mirror's next state", || {
        let mirror = server.get("ConfigMap", "envoy-xds-gen")?;
        let text = mirror["data"]["rds.yaml"].as_str()?.to_owned();
        text.contains("weight: 9\n").then_some(())
    });
    let lines = crossover.lines();
    assert!(lines.iter().all(|line| !line.contains("WARN")), "{lines:?}");
    for left_out in 0..rules.len() {
        let mut rules = rules.clone();
        rules.remove(left_out);
        let (crossover, _server, _dir) = start(rules);
        let line = crossover.wait_for_line("grant it with a Role");
        assert!(line.contains(" WARN "), "{line}");
    }
}
