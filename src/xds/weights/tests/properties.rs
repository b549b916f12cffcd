//! The merge on random and on mutated documents, held against the kit's oracle.
//! `make properties CASES=1000000` runs for longer.

use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::TestRunner;

use std::cell::Cell;

use super::*;
use crate::xds::properties;

/// Runs in a few seconds without optimization.
const CASES: u32 = 5_000;

pub(super) fn config() -> ProptestConfig {
    properties::config(CASES)
}

fuzz_checks::compare_with_oracle!();

/// Merges into `a.yaml`, and compares.
fn compare_all(text: &str, splits: &[HostWeights]) -> Result<bool, Refused> {
    let splits: Vec<&HostWeights> = splits.iter().collect();
    compare("a.yaml", text, &splits)
}

/// Checks each of `inputs`; gives how many texts were merged into, were left as they are, and were
/// refused.
fn count<S: Strategy>(
    inputs: S,
    check: impl Fn(S::Value) -> (Result<bool, Refused>, String),
) -> [u32; 3] {
    let counts = [const { Cell::new(0) }; 3];
    let result = TestRunner::new(config()).run(&inputs, |input| {
        let which = match check(input).0 {
            Ok(true) => 0,
            Ok(false) => 1,
            Err(_) => 2,
        };
        counts[which].set(counts[which].get() + 1);
        Ok(())
    });
    assert!(result.is_ok(), "{}", result.unwrap_err());
    counts.map(|count| count.get())
}

/// A merge that leaves or refuses whatever it is given would pass all else.
#[track_caller]
fn assert_some(merged: u32, all: u32, one_of: u32) {
    // Of a few, chance says how many.
    let enough = merged * one_of > all || all < 1000 && merged > 0;
    assert!(enough, "of {all} texts only {merged} were merged into");
}

#[test]
fn a_random_document_becomes_the_same_tree_with_the_weights_set() {
    let inputs = (document(), splits_of_two());
    let [merged, left, refused] = count(inputs, |(document, splits)| {
        (compare_all(&document, &splits), document)
    });
    assert_eq!(refused, 0);
    // Some virtual hosts are not meant by any split, and some splits add up to too much.
    assert_some(merged, merged + left, 4);
}

#[test]
fn a_mutated_document_is_merged_rightly_or_refused() {
    let mutations = prop::collection::vec((any::<Index>(), mutation()), 1..3);
    let inputs = (document(), splits_of_two(), mutations);
    let [merged, left, refused] = count(inputs, |(document, splits, mutations)| {
        let mut text = document;
        for (place, mutation) in mutations {
            mutate(&mut text, place, &mutation);
        }
        (compare_all(&text, &splits), text)
    });
    // About a ninth.
    assert_some(merged, merged + left + refused, 15);
}

// Documents.

const NAMES: [&str; 8] = [
    "podinfo-primary",
    "podinfo-canary",
    "web.a",
    "web_a",
    "other",
    "podinfo",
    "\"podinfo-canary\"",
    "'web.a'",
];

fn splits_of_two() -> impl Strategy<Value = Vec<HostWeights>> {
    let weight = || {
        prop_oneof![
            0_u64..3,
            0_u64..1000,
            Just(u64::from(u32::MAX)),
            Just(u64::MAX)
        ]
    };
    let split = |service: &str, backends: Vec<(&'static str, u64)>| {
        let name = ObjectName {
            namespace: "test".to_owned(),
            name: service.to_owned(),
        };
        let backends = backends.into_iter();
        let backends = backends.map(|(service, weight)| Backend::bare(service.to_owned(), weight));
        HostWeights::of_split(name, service.to_owned(), backends.collect())
    };
    (weight(), weight(), weight(), any::<bool>()).prop_map(move |(a, b, c, both)| {
        let mut splits = vec![split(
            "podinfo",
            vec![("podinfo-primary", a), ("podinfo-canary", b)],
        )];
        if both {
            splits.push(split("web", vec![("web.a", c), ("podinfo-canary", a)]));
        }
        splits
    })
}

/// The style of a document.
#[derive(Clone, Copy, Debug)]
struct Style {
    flow_cluster: bool,
    flow_group: bool,
    camel: bool,
    listener: bool,
    total: bool,
    end: &'static str,
    comments: bool,
    shape: ExpectedShape,
}

/// The style of a list: Envoy takes one item for a list of it, and flattens lists in lists.
#[derive(Clone, Copy, Debug)]
enum ExpectedShape {
    List,
    Nested,
    One,
    /// Not as `routes`, but as what a matcher does.
    Matcher,
}

fn style() -> impl Strategy<Value = Style> {
    let end = select(vec!["\n", "\n", "\r\n"]);
    let shape = select(vec![
        ExpectedShape::List,
        ExpectedShape::Nested,
        ExpectedShape::One,
        ExpectedShape::Matcher,
    ]);
    (any::<[bool; 6]>(), end, shape).prop_map(|(b, end, shape)| Style {
        flow_cluster: b[0],
        flow_group: b[1],
        camel: b[2],
        listener: b[3],
        total: b[4],
        end,
        comments: b[5],
        shape,
    })
}

fn cluster() -> impl Strategy<Value = (&'static str, String, bool)> {
    let weight = prop_oneof![
        3 => (0_u32..200).prop_map(|n| n.to_string()),
        1 => (0_u32..200).prop_map(|n| format!("\"{n}\"")),
        1 => (0_u32..200).prop_map(|n| format!("{{value: {n}}}")),
        1 => Just(String::new()),
    ];
    (select(NAMES.to_vec()), weight, any::<bool>())
}

fn document() -> impl Strategy<Value = String> {
    let route = (prop::collection::vec(cluster(), 1..4), style());
    let host = (
        select(vec!["podinfo", "web", "\"podinfo\"", "x"]),
        select(vec![
            "\"*\"",
            "podinfo:80",
            "web.test",
            "web.test.svc.cluster.local:9",
            "Web.test.SVC.",
            "podinfo.:*",
            "web.other.svc",
            "podinfo.svc",
            "y",
        ]),
        prop::collection::vec(route, 1..3),
    );
    (prop::collection::vec(host, 1..3), style()).prop_map(|(hosts, whole)| {
        let key = |snake: &'static str, camel: &'static str, style: Style| {
            if style.camel { camel } else { snake }
        };
        let comment = if whole.comments { "  # größe" } else { "" };
        let mut out = format!("version_info: a{comment}\nresources:\n- name: r\n");
        let mut lead = "  ";
        if whole.listener {
            out += &format!(
                "  filter_chains:\n  - filters:\n    - typed_config:\n        {}:\n",
                key("route_config", "routeConfig", whole)
            );
            lead = "          ";
        }
        out += &format!("{lead}{}:\n", key("virtual_hosts", "virtualHosts", whole));
        for (name, domain, routes) in hosts {
            let shape = match routes.as_slice() {
                [(_, style)] => style.shape,
                _ => ExpectedShape::List,
            };
            let domains = match shape {
                ExpectedShape::One => domain.to_owned(),
                ExpectedShape::Nested => format!("[[], [{domain}]]"),
                ExpectedShape::List | ExpectedShape::Matcher => format!("[{domain}]"),
            };
            out += &format!("{lead}- name: {name}{comment}\n{lead}  domains: {domains}\n");
            let (key_of_routes, more, item) = match shape {
                ExpectedShape::List => ("routes:", "", "- "),
                ExpectedShape::Nested => ("routes:", "  ", "- - "),
                ExpectedShape::One => ("routes:", "", "  "),
                ExpectedShape::Matcher => ("matcher:", "      ", "  "),
            };
            out += &format!("{lead}  {key_of_routes}\n");
            if let ExpectedShape::Matcher = shape {
                out += &format!("{lead}    on_no_match:\n{lead}      action:\n");
                out += &format!("{lead}        typed_config:\n");
            }
            let first = format!(
                "{lead}{}  {item}",
                &more[..more.len().saturating_sub(item.len() - 2)]
            );
            let lead = &format!("{lead}{more}");
            for (clusters, style) in routes {
                let group = key("weighted_clusters", "weightedClusters", style);
                let total = key("total_weight", "totalWeight", style);
                out += &format!("{first}match: {{prefix: /}}\n{lead}    route:\n");
                let fields: Vec<Vec<String>> = clusters.iter().map(fields).collect();
                if style.flow_group {
                    let all: Vec<String> = fields
                        .iter()
                        .map(|f| format!("{{{}}}", f.join(", ")))
                        .collect();
                    let total = if style.total {
                        format!(", {total}: 1")
                    } else {
                        String::new()
                    };
                    let all = all.join(",\n");
                    out += &format!("{lead}      {group}: {{clusters: [{all}]{total}}}\n");
                    continue;
                }
                out += &format!("{lead}      {group}:\n");
                if style.total {
                    out += &format!("{lead}        {total}: 100{comment}\n");
                }
                out += &format!("{lead}        clusters:{comment}\n");
                for fields in fields {
                    let (open, between, close) = if style.flow_cluster {
                        ("{", ", ".to_owned(), "}")
                    } else {
                        ("", format!("{comment}\n{lead}          "), "")
                    };
                    out += &format!("{lead}        - {open}{}{close}\n", fields.join(&between));
                }
            }
        }
        out.replace('\n', whole.end)
    })
}

fn fields((name, weight, swap): &(&str, String, bool)) -> Vec<String> {
    let mut fields = vec![format!("name: {name}")];
    if !weight.is_empty() {
        fields.insert(usize::from(!swap), format!("weight: {weight}"));
    }
    fields
}

#[derive(Clone, Debug)]
enum Mutation {
    Insert(&'static str),
    Delete(usize),
    Copy(Index, usize),
    Cut,
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let bits = vec![
        "\n",
        " ",
        "  ",
        ":",
        ": ",
        "- ",
        "\"",
        "'",
        "[",
        "]",
        "{",
        "}",
        ",",
        "#",
        " # ",
        "&a ",
        "*a",
        "!x ",
        "!!str ",
        "|",
        ">",
        "%",
        "@",
        "\t",
        "---\n",
        "...\n",
        "? ",
        "\\",
        "\r",
        "0",
        "ü",
        "\u{feff}",
        "\0",
        "weight: 1\n",
        ", weight: 2",
        "name: podinfo",
        "&b [",
        "<<: ",
        "{}",
        "~",
    ];
    prop_oneof![
        4 => select(bits).prop_map(Mutation::Insert),
        3 => (1_usize..6).prop_map(Mutation::Delete),
        2 => (any::<Index>(), 1_usize..40).prop_map(|(from, len)| Mutation::Copy(from, len)),
        1 => Just(Mutation::Cut),
    ]
}

fn mutate(text: &mut String, place: Index, mutation: &Mutation) {
    let boundary = |text: &str, mut at: usize| {
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        at
    };
    let at = boundary(text, place.index(text.len() + 1));
    match mutation {
        Mutation::Insert(bit) => text.insert_str(at, bit),
        Mutation::Delete(len) => {
            let end = boundary(text, (at + len).min(text.len()));
            text.replace_range(at..end.max(at), "");
        }
        Mutation::Copy(from, len) => {
            let from = boundary(text, from.index(text.len() + 1));
            let end = boundary(text, (from + len).min(text.len())).max(from);
            let piece = text[from..end].to_owned();
            text.insert_str(at, &piece);
        }
        Mutation::Cut => text.truncate(at),
    }
    if text.is_empty() {
        text.push('\n');
    }
}
