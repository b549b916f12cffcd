//! `-dry-run`: what it prints is what kubectl would apply, byte for byte, and nothing else happens.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use testkit::apiserver::Server;
use testkit::crossover::{Crossover, until_asleep};
use testkit::kubectl::Kubectl;
use testkit::objects::config_map;
use testkit::setup::Setup;

/// Texts that a reader of YAML 1.1 or 1.2 takes for something else, or for another text, where they
/// are not quoted with care.
#[rustfmt::skip]
const TEXTS: &[&str] = &[
    "", " ", "on", "off", "On", "OFF", "yes", "No", "y", "n", "Y", "N", "true", "False", "null",
    "Null", "NULL", "~", "0", "-0", "+1", "0777", "0o17", "0x1F", "0b101", "1_000", "1:30",
    "190:20:30", "-1:30.5", "1e3", "1E+3", ".5", "5.", "1.0", "-.inf", ".Inf", ".NaN", "2001-12-14",
    "2001-12-14t21:59:43.10-05:00", "2001-12-14 21:59:43", "=", "<<", "-", "- a", "? a", ":", ": a",
    "a:", "a: b", "a:b", "#", "# a", "a # b", "a #", "&a", "*a", "!a", "!!str a", "|", "> a", "'",
    "\"", "'a'", "\"a\"", "it's", "%a", "@a", "`a`", ",", "[]", "{}", "[a", "{a", "]", "}", "---",
    "--- a", "...", "---\na: b\n", "...\n", "\\", "\\n", "a\\tb", " a", "  a\n b\n", "a ", "a \n",
    "a\n ", "a \nb \n", "a\n\n", "a\n\n\n", "\n", "\n\n", "\na", "\n\n a\n", " \n", " \na", "\t",
    "\ta", "\ta\n", "a\tb\n", "a\t\n", "a\n\tb\n", "a\nb", "a\nb\n", "a\n  b\n\n  c\nd",
    "a\r\nb\r\n", "a\rb", "\r", "a\r", "a\u{85}b", "a\u{2028}b", "a\u{2029}", "\u{feff}a",
    "a\u{feff}", "\u{a0}", "\0", "a\0b", "\u{1}", "\u{1b}[31m", "\u{7f}", "\u{80}", "\u{fffd}",
    "\u{fffe}", "\u{ffff}", "\u{e000}", "\u{1f600}", "\u{e4}\u{f6}\n", "resources: []\n",
    "# comment\n", "key: |\n  text\n", "a\n \n", "a\n   \nb\n", "a\n\n\nb\n\n", "a\n# b\n",
    "a\n---\nb\n", "- a\n- b", "\u{4e2d}\n\u{6587}\n", "a: \"b\"  \n",
];

/// Keys that a reader of YAML takes for something other than strings if they are not quoted.
#[rustfmt::skip]
const KEYS: &[&str] = &[
    "on", "off", "y", "n", "yes", "NO", "true", "null", "Null", "-", "--", "---", "1", "0777",
    "0x1F", "0b1", "1_000", "1.0", "1e3", ".5", "5.", ".inf", ".nan", "-.inf", "2001-12-14", "_",
    ".a", "a.",
];

#[test]
fn kubectl_reads_what_is_printed_byte_for_byte() {
    let mut data: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for (i, text) in TEXTS.iter().enumerate() {
        data.insert(format!("text-{i}"), text.as_bytes().to_vec());
        data.insert(format!("lines-{i}"), format!("a\n{text}\nb").into_bytes());
    }
    for key in KEYS {
        data.insert(key.to_string(), b"a: 1\n".to_vec());
    }
    let long = "word ".repeat(2000);
    data.insert("long".into(), long.trim_end().into());
    data.insert(
        "long-lines".into(),
        format!("{long}\n {long}\n\n{long}").into(),
    );
    data.insert("no-space".into(), "x".repeat(20_000).into());
    check(&data, &BTreeMap::new());
}

#[test]
fn kubectl_reads_binary_data_byte_for_byte() {
    let mut binary: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    binary.insert("every-byte".into(), (0..=255).collect());
    binary.insert("latin1".into(), b"\xe4\xf6\n".to_vec());
    binary.insert("utf16".into(), b"\xff\xfea\0".to_vec());
    binary.insert("zeros".into(), vec![0; 5000]);
    binary.insert("cut".into(), b"\xf0\x9f".to_vec());
    check(&[("a.yaml".into(), b"a: 1\n".to_vec())].into(), &binary);
    // A ConfigMap of nothing else.
    check(&BTreeMap::new(), &binary);
}

/// Has a ConfigMap with these keys printed, applies that to an empty server, and compares.
#[track_caller]
fn check(data: &BTreeMap<String, Vec<u8>>, binary: &BTreeMap<String, Vec<u8>>) {
    let setup = Setup::new();
    let text = |bytes: &Vec<u8>| json!(String::from_utf8(bytes.clone()).unwrap());
    let mut object = config_map("1e3", &[]);
    object["data"] = data
        .iter()
        .map(|(key, bytes)| (key.clone(), text(bytes)))
        .collect();
    object["binaryData"] = binary
        .iter()
        .map(|(key, bytes)| (key.clone(), json!(BASE64.encode(bytes))))
        .collect();
    setup.server.create(object);
    let printed = setup.succeed(&["-dry-run", "-configmap=1e3"]).stdout;

    let other = Setup::new();
    let kubectl = Kubectl::new(&other.server);
    kubectl.write(&printed);
    let applied = kubectl.run(&["apply", "--validate=false", "-f", "all.yaml"]);
    assert_eq!(applied, "configmap/1e3 created\n");
    let want: BTreeMap<String, Vec<u8>> = data
        .iter()
        .chain(binary)
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect();
    let got = contents(&other.server, "1e3");
    for (key, bytes) in &want {
        let (got, want) = (got.get(key), Some(bytes));
        let show = |bytes: Option<&Vec<u8>>| bytes.map(|b| String::from_utf8_lossy(b).into_owned());
        assert!(
            got == want,
            "{key}: {:?} became {:?}",
            show(want),
            show(got)
        );
    }
    assert_eq!(got.len(), want.len());
}

/// `data` and `binaryData` of a ConfigMap as the server has it.
fn contents(server: &Server, name: &str) -> BTreeMap<String, Vec<u8>> {
    let object = server.get("ConfigMap", name).unwrap();
    let field = |name: &str| object[name].as_object().cloned().unwrap_or_default();
    // A value that is not a text is not what was printed.
    let text = |value: &Value| match value {
        Value::String(text) => text.as_bytes().to_vec(),
        other => format!("{other} (no text)").into_bytes(),
    };
    let data = field("data")
        .into_iter()
        .map(|(key, value)| (key, text(&value)));
    let binary = field("binaryData").into_iter();
    data.chain(binary.map(|(key, value)| (key, BASE64.decode(text(&value)).unwrap())))
        .collect()
}

#[test]
fn each_configmap_is_a_document_without_what_the_server_added() {
    let setup = Setup::new();
    setup.put("a", &[("both", "from a"), ("a.yaml", "a: 1\n")]);
    setup.put("b", &[("both", "from b")]);
    let finished = setup.succeed(&["-dry-run", "-configmap=a", "-configmap=b"]);
    let documents: Vec<Value> = serde_yaml::Deserializer::from_str(&finished.stdout)
        .map(|document| serde::Deserialize::deserialize(document).unwrap())
        .collect();
    // What is printed is the result: a later ConfigMap's file has won.
    let want = |name: &str, data: &[(&str, &str)]| config_map(name, data);
    assert_eq!(
        documents,
        [
            want("a", &[("a.yaml", "a: 1\n")]),
            want("b", &[("both", "from b")])
        ]
    );
    assert!(
        finished.stderr.contains("two ConfigMaps have the same key"),
        "{}",
        finished.stderr
    );
}

#[test]
fn no_lock_is_taken_and_nothing_is_written() {
    let setup = Setup::new();
    setup.put("a", &[("a.yaml", "a: 1\n")]);
    let holder = setup.start(&["-watch", "-configmap=a"]);
    setup.until_found(&[("a.yaml", "a: 1\n")]);
    setup.server.wait_for_watches(1);
    setup.succeed(&["-dry-run", "-configmap=a"]);
    let elsewhere = format!("-output-dir={}", setup.path("never"));
    setup.succeed(&["-dry-run", &elsewhere, "-configmap=a"]);
    assert!(!std::path::Path::new(&setup.path("never")).exists());
    assert_eq!(setup.set(), 1);
    drop(holder);
}

#[test]
fn with_watch_it_is_printed_again_at_each_change_and_only_then() {
    let setup = Setup::new();
    let data = |text: &str| [("a.yaml", text.to_string())];
    let put = |text: &str| setup.put("a", &data(text).each_ref().map(|(k, v)| (*k, v.as_str())));
    put("a: 1\n");
    let mut command = setup.command(&["-dry-run", "-watch", "-configmap=a"]);
    command.env("RUST_LOG", "debug");
    let process = Crossover::spawn(command);
    process.wait_for_stdout("the first", |text| text.contains("a: 1"));
    setup.server.wait_for_watches(1);
    // A change of what is not printed.
    let mut annotated = config_map("a", &[("a.yaml", "a: 1\n")]);
    annotated["metadata"]["annotations"] = json!({"note": "x"});
    setup.server.replace(annotated);
    process.wait_for_lines(2, " observed ");
    until_asleep(process.pid());
    put("a: 2\n");
    process.wait_for_stdout("the second", |text| text.contains("a: 2"));
    put("a: 3\n");
    process.wait_for_stdout("the third", |text| text.contains("a: 3"));
    let finished = process.stop();
    assert_eq!(finished.code, Some(0));
    let printed: Vec<&str> = finished.stdout.matches("kind: ConfigMap\n").collect();
    assert_eq!(printed.len(), 3, "{}", finished.stdout);
    assert!(!setup.output().exists());
}

#[test]
fn a_missing_configmap_fails_a_dry_run_as_it_fails_onetime() {
    let setup = Setup::new();
    let line = setup.fail(&["-dry-run", "-configmap=a"]);
    assert!(line.contains("default/a: it does not exist"), "{line}");
}
