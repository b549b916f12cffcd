//! Keys and what is in them: which keys are names of files, and that every byte arrives.

use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;
use testkit::apiserver::faults::{Fault, Misbehaviour};
use testkit::objects::config_map;
use testkit::setup::{Setup, tree};
use testkit::until;

#[test]
fn binary_data_are_files_too() {
    let setup = Setup::new();
    let mut object = config_map("a", &[("text", "\u{e4}\0\r\n")]);
    object["binaryData"] = json!({"bytes": "AP8KgA==", "empty": "", "text.bin": "aGk="});
    setup.server.create(object);
    setup.succeed(&["-onetime", "-configmap=a"]);
    let want: BTreeMap<String, Vec<u8>> = [
        ("text", "\u{e4}\0\r\n".as_bytes().to_vec()),
        ("bytes", vec![0, 0xff, b'\n', 0x80]),
        ("empty", Vec::new()),
        ("text.bin", b"hi".to_vec()),
    ]
    .map(|(name, bytes)| (name.to_string(), bytes))
    .into();
    assert_eq!(setup.found(), Some(want));
}

#[test]
fn every_key_that_kubernetes_takes_is_a_file() {
    let long = "k".repeat(253);
    let keys = [
        "active",
        "current",
        "done",
        ".lock",
        ".hidden",
        ".live",
        ".sets",
        ".links",
        "0000000001",
        "1",
        "2",
        "1.sources",
        "-",
        "--",
        "_",
        "a.",
        "-rf",
        "A.yaml.tmp",
        &long,
    ];
    let setup = Setup::new();
    let put = |text: &str| {
        let data: Vec<(&str, &str)> = keys.iter().map(|key| (*key, text)).collect();
        setup.put("a", &data);
    };
    let want = |text: &str| -> BTreeMap<String, Vec<u8>> {
        keys.iter()
            .map(|key| (key.to_string(), text.as_bytes().to_vec()))
            .collect()
    };
    put("one");
    let process = setup.start(&["-watch", "-configmap=a"]);
    until("the first", || {
        (setup.found()? == want("one")).then_some(())
    });
    setup.server.wait_for_watches(1);
    for text in ["two", "three", "four", "five", "six"] {
        put(text);
        until(text, || (setup.found()? == want(text)).then_some(()));
    }
    setup.put("a", &[("left", "")]);
    setup.until_found(&[("left", "")]);
    drop(process);
}

/// A server that lies: its one ConfigMap has this key.
fn lying(key: &str) -> Setup {
    let setup = Setup::new();
    let mut item = config_map("a", &[("a.yaml", "a: 1\n"), (key, "evil")]);
    item["metadata"]["resourceVersion"] = json!("7");
    let list = json!({
        "kind": "ConfigMapList", "apiVersion": "v1", "metadata": {"resourceVersion": "7"}, "items": [item],
    });
    setup
        .server
        .misbehave(Misbehaviour::new(Fault::json(list.to_string()), |_| true));
    setup
}

#[test]
fn a_key_that_is_not_a_plain_file_name_is_refused() {
    let long = "k".repeat(254);
    for key in [
        "../evil",
        "..",
        ".",
        "",
        "/etc/evil",
        "a/b",
        "..data",
        "a\0b",
        "a\nb",
        "\u{e4}",
        "a b",
        "a\\b",
        "~",
        &long,
    ] {
        let setup = lying(key);
        let before = tree(Path::new(&setup.path(".")));
        let line = setup.fail(&["-onetime", "-configmap=a"]);
        assert!(
            line.contains("default/a") && line.contains("not a plain file name"),
            "{key:?}: {line}"
        );
        let ours = |path: &String| path.contains("/./out");
        let after: Vec<String> = tree(Path::new(&setup.path(".")))
            .into_iter()
            .filter(|p| !ours(p))
            .collect();
        assert_eq!(after, before, "{key:?}");
        assert!(
            setup.found().is_none_or(|found| found.is_empty()),
            "{key:?}"
        );
    }
}
