//! The texts of `tests/data/document`, each put through the program and offered to the real Envoy:
//! nothing that Envoy loads is refused.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use crossover::testing::FileName;
use crossover::testing::yaml::Form;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use tempfile::TempDir;
use testkit::crossover::Crossover;
use testkit::envoy::{Envoy, Judge, Offered, Verdict};
use testkit::objects::config_map;
use testkit::setup::{Setup, events};
use testkit::until;

/// Envoy loads these and the program does not publish them: neither of its parsers reads them. The
/// issue's "bad means" asks for that, and its "nothing that Envoy loads is refused" for the
/// contrary; there shall be no more of them.
const HELD: [&str; 7] = [
    "double_comma.yaml",
    "leading_comma.yaml",
    "literal_at_column_0.yaml",
    "percent_line.yaml",
    "plain_continued_at_column_0.yaml",
    "truncated_key.yaml",
    "truncated_quote.yaml",
];

/// A text, what Envoy said to it when it was recorded, and what the program should.
struct Text {
    name: String,
    envoy: String,
    ours: String,
    /// `line:column`, where ours is not `good`.
    place: String,
    bytes: Vec<u8>,
}

fn texts() -> Vec<Text> {
    let data = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/document");
    let index = fs::read_to_string(data.join("index.tsv")).unwrap();
    let rows = index.lines().filter(|row| !row.starts_with('#'));
    let text = |row: &str| {
        let [name, envoy, ours, place, _] = row.split('\t').collect::<Vec<_>>().try_into().unwrap();
        let bytes = fs::read(data.join(name)).unwrap();
        let [name, envoy, ours, place] = [name, envoy, ours, place].map(str::to_string);
        Text {
            name,
            envoy,
            ours,
            place,
            bytes,
        }
    };
    rows.map(text).collect()
}

/// A ConfigMap with this text as its only key.
fn object(text: &Text) -> Value {
    let mut object = config_map("a", &[]);
    match std::str::from_utf8(&text.bytes) {
        Ok(utf8) => object["data"] = json!({&text.name: utf8}),
        Err(_) => object["binaryData"] = json!({&text.name: BASE64.encode(&text.bytes)}),
    }
    object
}

#[test]
fn each_text_is_published_byte_for_byte_or_refused_as_recorded() {
    let setup = Setup::new();
    setup.put("a", &[("first", "")]);
    let mut command = setup.command(&["-watch", "-configmap=a", "-log-format=json"]);
    command.env("RUST_LOG", "debug");
    let process = Crossover::spawn(command);
    setup.server.wait_for_watches(1);
    for text in texts() {
        let Text {
            name,
            ours,
            place,
            bytes,
            ..
        } = &text;
        let version = setup.server.replace(object(&text));
        let is_named = name.ends_with(".json") || name.ends_with(".yaml");
        let ours = match ours.as_str() {
            "foreign" if is_named => "doubtful",
            "foreign" => "good",
            ours => ours,
        };
        let said = match ours {
            "bad" => format!("(resourceVersion {version})"),
            // The second reader may be asked after the file is out.
            "doubtful" => {
                format!(
                    "publishing it\",\"configmap\":\"default/a\",\"resource_version\":\"{version}\""
                )
            }
            _ => format!("\"resource_version\":\"{version}\""),
        };
        let said = &events(&process.wait_for_line(&said))[0];
        let (message, place) = (said["message"].as_str().unwrap(), place.split_once(':'));
        let at = place.map(|(line, column)| format!("line {line} column {column}: "));
        let reason = said["error"].as_str();
        match ours {
            "bad" => {
                let at = format!("{name}: {}", at.unwrap());
                assert!(
                    message.starts_with("ConfigMap is invalid"),
                    "{name}: {said}"
                );
                assert!(reason.unwrap().starts_with(&at), "{at}: {said}");
                assert_eq!(said["configmap"], "default/a");
                continue;
            }
            "doubtful" => {
                assert!(
                    message.starts_with("Envoy may not accept"),
                    "{name}: {said}"
                );
                assert!(reason.unwrap().starts_with(&at.unwrap()), "{name}: {said}");
                assert_eq!(
                    (&said["configmap"], &said["key"]),
                    (&json!("default/a"), &json!(name))
                );
            }
            _ => assert_eq!(message, "observed", "{name}"),
        }
        // The file before it stays for a while.
        until(&format!("{name} to be published"), || {
            (setup.found()?.get(name) == Some(bytes)).then_some(())
        });
    }
    drop(process);
}

/// By a reader that is asked before the publish, and by one that is asked after it.
#[test]
fn a_file_that_envoy_may_not_accept_has_its_all_clear_once_it_is_plain_or_gone() {
    let setup = Setup::new();
    let odd = ["x: [a]#c\n", "%FOO x\n---\na: 1\n", "- a\n"];
    let [first, second, third] = odd;
    setup.put(
        "a",
        &[("a.yaml", first), ("b.yaml", second), ("c.yaml", third)],
    );
    let process = setup.start(&["-watch", "-configmap=a", "-log-format=json"]);
    process.wait_for_lines(3, "Envoy may not accept a file");
    // Another key changes nothing about these.
    let files = [("a.yaml", first), ("b.yaml", second), ("d.yaml", "d: 1\n")];
    setup.put("a", &files);
    let over = "nothing speaks against a file any more";
    let gone = process.wait_for_line(over);
    assert_eq!(events(&gone)[0]["key"], "c.yaml");
    setup.put("a", &[("a.yaml", "a: 1\n"), ("b.yaml", "b: 1\n")]);
    process.wait_for_lines(3, over);
    let said = process.stop().stderr;
    let keys = events(&said).into_iter().filter_map(|event| {
        let is_over = event["message"] == over && event["lasted_s"].is_u64();
        is_over.then(|| event["key"].as_str().unwrap().to_owned())
    });
    let keys: BTreeSet<String> = keys.collect();
    assert_eq!(
        keys,
        ["a.yaml", "b.yaml", "c.yaml"].map(str::to_owned).into()
    );
    assert_eq!(said.matches("may not accept").count(), 3, "{said}");
}

/// Two texts are not offered: one ends Envoy, one would take all memory before that.
#[test]
fn nothing_that_envoy_loads_is_refused() {
    let judge = Judge::start();
    let (mut loaded_though_bad, mut otherwise) = (BTreeSet::new(), Vec::new());
    for Text {
        name,
        envoy,
        ours,
        bytes,
        ..
    } in texts()
    {
        if envoy == "-" || envoy == "crash" {
            continue;
        }
        let offered = match name.ends_with(".json") {
            true => Offered::RoutesJson,
            false => Offered::Clusters,
        };
        let loads = match judge.offer(offered, &bytes) {
            Verdict::Loaded => true,
            // It was read: it holds clusters where the judge asks for routes.
            Verdict::Refused(log) => log.contains("Unable to unpack as"),
        };
        if loads != (envoy != "refused") {
            otherwise.push(name.clone());
        }
        if loads && ours == "bad" {
            loaded_though_bad.insert(name);
        }
    }
    assert_eq!(otherwise, [""; 0], "Envoy says otherwise than recorded");
    assert_eq!(loaded_though_bad, HELD.map(str::to_string).into());
}

/// Names of files, and what each is to Envoy.
const NAMES: [(&str, Form); 16] = [
    ("rds.yaml", Form::Yaml),
    ("rds.yml", Form::Yaml),
    ("RDS.YAML", Form::Yaml),
    ("rds.Yml", Form::Yaml),
    (".yaml", Form::Yaml),
    ("rds.json", Form::Json),
    ("rds.JSON", Form::Json),
    ("rds", Form::Unnamed),
    ("yaml", Form::Unnamed),
    ("rds.conf", Form::Unnamed),
    ("rds.yaml.txt", Form::Unnamed),
    ("rds.pb_length_delimited", Form::Unnamed),
    ("rds.pb", Form::Protobuf),
    ("rds.PB", Form::Protobuf),
    ("rds.pb_text", Form::Protobuf),
    ("rds.Pb_Text", Form::Protobuf),
];

/// A RouteConfiguration that is this name's alone, as YAML that is not JSON, or as JSON.
fn routes(name: &str, as_json: bool) -> String {
    let kind = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration";
    match as_json {
        true => json!({"resources": [{"@type": kind, "name": name}]}).to_string(),
        false => format!("resources:\n- {{\"@type\": {kind}, name: {name}}}\n"),
    }
}

#[test]
fn a_file_is_read_as_what_its_name_says() {
    for as_json in [false, true] {
        let (dir, mut bootstrap) = (TempDir::new().unwrap(), String::new());
        bootstrap += "node: {id: a, cluster: a}\nstatic_resources:\n  listeners:\n";
        for (name, form) in NAMES {
            assert_eq!(Form::of(&FileName::new(name).unwrap()), form, "{name}");
            let path = dir.path().join(name);
            fs::write(&path, routes(name, as_json)).unwrap();
            let filters = "type.googleapis.com/envoy.extensions.filters";
            let router = format!("{{\"@type\": {filters}.http.router.v3.Router}}");
            write!(
                bootstrap,
                "  - name: {name}
    address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          \"@type\": {filters}.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: x
          rds:
            route_config_name: {name}
            config_source: {{path_config_source: {{path: {}}}}}
          http_filters:
          - {{name: envoy.filters.http.router, typed_config: {router}}}
",
                path.display()
            )
            .unwrap();
        }
        let envoy = Envoy::start(&bootstrap);
        let dump = envoy.get("/config_dump?resource=dynamic_route_configs");
        for (name, form) in NAMES {
            let loads = dump.contains(&format!("\"name\": \"{name}\""));
            let want = match form {
                Form::Yaml => true,
                Form::Json | Form::Unnamed => as_json,
                Form::Protobuf => false,
            };
            assert_eq!(loads, want, "{name} {as_json}");
        }
    }
}
