//! Every text under `tests/data/document` has the verdict that `index.tsv` records beside what a
//! real Envoy said to it.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;

use super::*;

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/document");

fn verdict(name: &str, bytes: &[u8]) -> Verdict {
    let name = FileName::new(name).unwrap();
    let verdict = check(&name, bytes);
    match (verdict, cross_check(&name, bytes)) {
        (Verdict::Valid, Some(fault)) => Verdict::Suspect(fault),
        (verdict, _) => verdict,
    }
}

/// `good`, or the word, place and reader.
fn summary(verdict: &Verdict) -> String {
    let (word, fault) = match verdict {
        Verdict::Valid => return "good\t\t".to_owned(),
        Verdict::Suspect(fault) => ("doubtful", fault),
        Verdict::Foreign(fault) => ("foreign", fault),
        Verdict::Invalid(fault) => ("bad", fault),
    };
    let reader = match fault.reader {
        Reader::Granit => "granit-parser",
        Reader::YamlSerde => "yaml_serde",
        Reader::Envoy => "Envoy",
    };
    format!("{word}\t{}:{}\t{reader}", fault.line, fault.column)
}

#[test]
fn a_fault_says_where_it_is_and_names_the_rules_but_no_parser() {
    let said = |name: &str, text: &str| match verdict(name, text.as_bytes()) {
        Verdict::Invalid(fault) | Verdict::Suspect(fault) | Verdict::Foreign(fault) => {
            fault.to_string()
        }
        Verdict::Valid => "valid".to_owned(),
    };
    let broken = said("a.yaml", "a: ]\n");
    assert!(broken.starts_with("line 1 column 4: "), "{broken}");
    assert!(broken.ends_with(" (by the rules of YAML 1.2)"), "{broken}");
    // A byte-order mark before a key.
    let doubtful = said("a.yaml", "a: b\n\u{feff}x: y\n");
    assert!(
        doubtful.ends_with(" (by the rules of YAML 1.1)"),
        "{doubtful}"
    );
    assert_eq!(
        said("a.yaml", "- a"),
        "line 1 column 1: the document is not a mapping"
    );
    let nowhere = Fault::new(Reader::Envoy, 0, 0, "it is not UTF-8".to_owned());
    assert_eq!(nowhere.to_string(), "it is not UTF-8");
}

#[test]
fn every_text_has_its_recorded_verdict_and_what_envoy_loads_is_published() {
    let index = fs::read_to_string(format!("{DATA}/index.tsv")).unwrap();
    let mut seen = BTreeSet::from(["index.tsv".to_owned()]);
    let mut wrong = Vec::new();
    for row in index.lines().filter(|row| !row.starts_with('#')) {
        let (name, rest) = row.split_once('\t').unwrap();
        let (envoy, want) = rest.split_once('\t').unwrap();
        let found = summary(&verdict(name, &fs::read(format!("{DATA}/{name}")).unwrap()));
        if found != want {
            wrong.push(format!("{name}: want {want:?}, found {found:?}"));
        }
        if envoy == "loads" && found.starts_with("bad") {
            wrong.push(format!("{name}: Envoy loads it"));
        }
        seen.insert(name.to_owned());
    }
    let files = fs::read_dir(DATA).unwrap();
    let files: BTreeSet<String> = files
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(files, seen);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Each short prefix of each text, so that a parser's end-of-input paths are all walked.
#[test]
fn no_short_prefix_of_any_text_panics() {
    for file in fs::read_dir(DATA).unwrap() {
        let bytes = fs::read(file.unwrap().path()).unwrap();
        for end in 0..bytes.len().min(150) {
            for name in ["a.yaml", "a.json"] {
                verdict(name, &bytes[..end]);
            }
        }
    }
}

#[test]
fn deep_nesting_is_refused_without_recursion() {
    for open in ["[", "{a: ", "- ", "? ", "{\"a\":"] {
        let text = format!("x: {}", open.repeat(100_000));
        assert!(matches!(
            verdict("a.yaml", text.as_bytes()),
            Verdict::Invalid(_)
        ));
        let text = text.trim_start_matches("x: ");
        assert!(matches!(
            verdict("a.json", text.as_bytes()),
            Verdict::Invalid(_)
        ));
    }
    // yaml_serde is asked about depths that granit never sees.
    let text = format!("x: {}{}", "[".repeat(10_000), "]".repeat(10_000));
    assert_eq!(read_yaml_serde(&text), Ok(()));
}

#[test]
fn a_long_text_is_judged_by_the_streaming_parser_alone() {
    // yaml_serde alone refuses a byte-order mark before a key.
    let doubtful = "a: b\n\u{feff}x: y\n";
    assert!(matches!(
        verdict("a.yaml", doubtful.as_bytes()),
        Verdict::Suspect(_)
    ));
    let long = format!("{doubtful}#{}\n", "-".repeat(SECOND_OPINION_MAX_BYTES));
    assert_eq!(verdict("a.yaml", long.as_bytes()), Verdict::Valid);
}

#[test]
fn what_the_first_reader_gives_up_early_is_not_asked_about_when_it_is_deep() {
    // yaml_serde alone takes a comment that is glued to what is before it.
    let (glued, brackets) = ("x: [a]#c\ny: ", |n| "[".repeat(n) + &"]".repeat(n));
    let of = |depth| verdict("a.yaml", (glued.to_owned() + &brackets(depth)).as_bytes());
    assert!(matches!(of(NESTING_MAX), Verdict::Suspect(_)));
    assert!(matches!(of(NESTING_MAX + 1), Verdict::Invalid(_)));
}

#[test]
fn a_fault_never_cites_a_value() {
    // Too long for a key, as libyaml sees it.
    let long = format!("\"hunter2{}\": x", "-".repeat(1100));
    for (name, text) in [
        ("a.yaml", long.as_str()),
        ("a.json", "\"hunter2\"]"),
        ("a.json", "{\"hunter2\": hunter2}"),
        ("a.json", "{\"hunter2\": \"hunter2\\q\"}"),
        ("a.json", "{\"a\": hunter2 x:"),
        ("a.yaml", "hunter2"),
        ("a.yaml", "password: hunter2: x"),
        ("a.yaml", "password: *hunter2"),
        ("a.yaml", "password: \"hunter2"),
        ("a.yaml", "password: !hunter2!x y: z"),
    ] {
        let fault = match verdict(name, text.as_bytes()) {
            Verdict::Invalid(fault) | Verdict::Suspect(fault) | Verdict::Foreign(fault) => fault,
            Verdict::Valid => unreachable!("{text} is good"),
        };
        assert!(!fault.to_string().contains("hunter2"), "{fault}");
    }
}

/// Returns how often the check of a valid text stops before its end, and how often of that in its
/// first half.
fn stops(name: &str, text: &str, steps: usize) -> (usize, usize) {
    let name = FileName::new(name).unwrap();
    let text = Text::new(&name, text.as_bytes());
    let (mut check, mut all, mut early) = (Check::new(&text), 0, 0);
    loop {
        match check.run(steps) {
            Progress::Pending(rest) => {
                all += 1;
                early += usize::from(!rest.is_past_half());
                assert_eq!(rest.is_past_half(), early < all, "it went back");
                check = rest;
            }
            Progress::Done(verdict) => {
                assert_eq!(verdict, Verdict::Valid);
                return (all, early);
            }
        }
    }
}

#[test]
fn a_check_of_a_long_text_stops_after_so_many_events_and_goes_on() {
    // 20,004 events.
    let text: String = (1000..11_000).map(|n| format!("key-{n}: {n}\n")).collect();
    assert_eq!(stops("a.yaml", &text, 1000), (20, 10));
    assert_eq!(stops("a.yaml", &text, usize::MAX), (0, 0));
    assert_eq!(stops("a.yaml", "a: b\n", 1000), (0, 0));
    // JSON is read in one go.
    assert_eq!(stops("a.json", "{\"a\": 1}", 1), (0, 0));
}
