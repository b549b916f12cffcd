//! Unions of random and of mutated texts, held against another reader of YAML.

use std::cell::Cell;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::TestRunner;
use serde_yaml::Value as Yaml;

use super::*;
use crate::xds::properties;
use crate::xds::sequence::kind;
use crate::xds::yaml::Form;

/// Runs in a few seconds without optimization.
const CASES: u32 = 300;

fn config() -> ProptestConfig {
    properties::config(CASES)
}

/// The value of a field.
#[derive(Clone, Debug, PartialEq)]
enum Value {
    /// A text, and whether it can stand without quotes.
    Text(&'static str, bool),
    /// Something that is not a text, as long as it has no quotes.
    Word(&'static str),
    List(Vec<Value>),
    Map(Vec<Value>),
}

const TEXTS: [(&str, bool); 14] = [
    ("web", true),
    ("a b", true),
    ("größe", true),
    ("x-y_z/1", true),
    ("yes", false),
    ("12", false),
    ("~", false),
    ("", false),
    ("a: b #c", false),
    ("it's \"so\" \\n", false),
    ("[a, {b}]", false),
    ("two\nlines\n", false),
    ("\u{1f600}\u{a0}\u{2028}", false),
    (" spaced ", false),
];
const WORDS: [&str; 10] = [
    "true", "false", "null", "12", "-3.5", "yes", "~", "1.5s", "0x1f", "+.5",
];
const JSON_WORDS: usize = 5;
const NAMES: [(&str, bool); 6] = [
    ("one", true),
    ("two", true),
    ("n", false),
    ("0x10", false),
    ("a|b||c", false),
    ("größe", true),
];

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        select(&TEXTS[..]).prop_map(|(text, is_plain)| Value::Text(text, is_plain)),
        select(&WORDS[..]).prop_map(Value::Word),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..3).prop_map(Value::List),
            vec(inner, 0..3).prop_map(Value::Map),
        ]
    })
}

/// The clusters of a file: each name at most once, with the value of its metadata.
fn clusters() -> impl Strategy<Value = Vec<(usize, Value)>> {
    vec((0..NAMES.len(), value()), 1..4).prop_map(|mut clusters| {
        let mut seen = [false; NAMES.len()];
        clusters.retain(|(name, _)| !std::mem::replace(&mut seen[*name], true));
        clusters
    })
}

#[derive(Clone, Copy, Debug)]
struct Style {
    lead: usize,
    flow_list: bool,
    flow_items: bool,
    json: bool,
    single: bool,
    plain: bool,
    comments: bool,
    markers: bool,
    bom: bool,
    end: &'static str,
}

fn style() -> impl Strategy<Value = Style> {
    let end = select(&["\n", "\n", "\r\n", "\r"][..]);
    (any::<[bool; 8]>(), 0..4_usize, end).prop_map(|(b, lead, end)| Style {
        lead,
        flow_list: b[0] && b[7],
        flow_items: b[1],
        json: b[2] && b[3],
        single: b[3],
        plain: b[4],
        comments: b[5],
        markers: b[6],
        bom: b[7],
        end,
    })
}

fn quote(text: &str, is_plain: bool, style: Style) -> String {
    let is_simple = text
        .chars()
        .all(|c| c == ' ' || !c.is_control() && !c.is_whitespace());
    match style {
        Style {
            json: false,
            plain: true,
            ..
        } if is_plain => text.to_owned(),
        Style {
            json: false,
            single: true,
            ..
        } if is_simple => {
            format!("'{}'", text.replace('\'', "''"))
        }
        _ => serde_json::to_string(text)
            .unwrap()
            .replace('\u{2028}', "\\u2028"),
    }
}

/// A value in flow style.
fn flow(value: &Value, style: Style) -> String {
    match value {
        Value::Text(text, is_plain) => quote(text, *is_plain, style),
        Value::Word(word) => (*word).to_owned(),
        Value::List(items) => {
            let items: Vec<String> = items.iter().map(|item| flow(item, style)).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Map(items) => {
            let field = |(at, item)| format!("{}: {}", key(at, style), flow(item, style));
            let fields: Vec<String> = items.iter().enumerate().map(field).collect();
            format!("{{{}}}", fields.join(", "))
        }
    }
}

fn key(at: usize, style: Style) -> String {
    let (text, is_plain) = [("k", true), ("it's", false), ("no", false)][at];
    quote(text, is_plain, style)
}

/// The lines of a field in block style.
fn block(key: &str, value: &Value, style: Style, lead: &str, out: &mut Vec<String>) {
    match value {
        Value::Text(text @ "two\nlines\n", _) if !style.single => {
            out.push(format!("{lead}{key}: |"));
            out.extend(text.lines().map(|line| format!("{lead}    {line}")));
        }
        Value::List(items) if !items.is_empty() => {
            out.push(format!("{lead}{key}:"));
            for item in items {
                out.push(format!("{lead}- {}", flow(item, style)));
            }
        }
        Value::Map(items) if !items.is_empty() => {
            out.push(format!("{lead}{key}:"));
            for (at, item) in items.iter().enumerate() {
                block(
                    &self::key(at, style),
                    item,
                    style,
                    &format!("{lead}  "),
                    out,
                );
            }
        }
        _ => out.push(format!("{lead}{key}: {}", flow(value, style))),
    }
}

fn write(clusters: &[(usize, Value)], style: Style) -> String {
    let text = |text: &str| quote(text, true, style);
    let of_type = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
    let mut items = Vec::new();
    for (name, value) in clusters {
        let (name, is_plain) = NAMES[*name];
        let head = [
            format!("\"@type\": {}", text(of_type)),
            format!("{}: {}", text("name"), quote(name, is_plain, style)),
        ];
        let mut lines = head.to_vec();
        if style.json || style.flow_list || style.flow_items {
            lines.push(format!("{}: {}", text("metadata"), flow(value, style)));
            lines = vec![format!("{{{}}}", lines.join(", "))];
        } else {
            block("metadata", value, style, "", &mut lines);
        }
        items.push(lines);
    }
    if style.json || style.flow_list {
        let comma = if style.comments && !style.json {
            ", # c\n "
        } else {
            ","
        };
        let list = format!("{}: [{}]", text("resources"), items.concat().join(comma));
        return match style.json {
            true => format!("{{{list}}}"),
            false => format!("{list}\n").replace('\n', style.end),
        };
    }
    let mut out = String::new();
    if style.bom {
        out.push('\u{feff}');
    }
    if style.markers {
        out.push_str("---\n");
    }
    out.push_str("version_info: x\nresources:\n");
    let lead = " ".repeat(style.lead);
    for lines in items {
        for (at, line) in lines.iter().enumerate() {
            if style.comments && at < 2 {
                out.push_str("# c\n");
            }
            let dash = if at == 0 { "- " } else { "  " };
            out.push_str(&format!("{lead}{dash}{line}\n"));
        }
    }
    if style.markers {
        out.push_str("---\nresources: []\n");
    }
    out.replace('\n', style.end)
}

/// What another reader makes of a text: its resources, and all else.
fn by_another(text: &str) -> Option<(Vec<Yaml>, Yaml)> {
    let document = serde_yaml::Deserializer::from_str(text).next()?;
    let mut root: Yaml = serde::Deserialize::deserialize(document).ok()?;
    read_keys_alike(&mut root);
    let list = root.get_mut("resources")?.as_sequence_mut()?;
    let resources = std::mem::take(list);
    Some((resources, root))
}

/// Reads a key in quotes as one without: to Envoy each key is a text.
fn read_keys_alike(value: &mut Yaml) {
    match value {
        Yaml::Sequence(items) => items.iter_mut().for_each(read_keys_alike),
        Yaml::Mapping(fields) => {
            for (mut key, mut value) in std::mem::take(fields) {
                read_keys_alike(&mut value);
                if let Yaml::String(text) = &key
                    && let Ok(word @ (Yaml::Null | Yaml::Bool(_) | Yaml::Number(_))) =
                        serde_yaml::from_str(text)
                {
                    key = word;
                }
                fields.insert(key, value);
            }
        }
        Yaml::Tagged(tagged) => read_keys_alike(&mut tagged.value),
        Yaml::Null | Yaml::Bool(_) | Yaml::Number(_) | Yaml::String(_) => {}
    }
}

/// Unites, and holds the union against what another reader says of all three texts.
fn compare(old: &str, new: &str) -> Result<Union, Declined> {
    let name = file_name("cds.yaml");
    let target: Bytes = new.as_bytes().into();
    let union = unite(&name, old.as_bytes(), &target)?;
    let united = by_another(str::from_utf8(&union.bytes).unwrap());
    if let (Some(old), Some(new), Some(united)) = (by_another(old), by_another(new), united) {
        let name = |item: &Yaml| item.get("name").cloned();
        let stays = |item: &Yaml| new.0.iter().any(|new| name(new) == name(item));
        let mut want = old.0;
        want.retain(|item| !stays(item));
        want.extend(new.0);
        assert_eq!(united, (want, new.1));
    }
    Ok(union)
}

#[test]
fn a_mutated_text_is_united_rightly_or_declined() {
    let mutations = vec((any::<bool>(), any::<Index>(), mutation()), 1..3);
    let inputs = ((clusters(), clusters()), [style(), style()], mutations);
    let counts = [const { Cell::new(0_u32) }; 2];
    let result = TestRunner::new(config()).run(&inputs, |((old, new), styles, mutations)| {
        let mut texts = [write(&old, styles[0]), write(&new, styles[1])];
        for (which, place, mutation) in mutations {
            mutate(&mut texts[usize::from(which)], place, mutation);
        }
        let count = &counts[usize::from(compare(&texts[0], &texts[1]).is_ok())];
        count.set(count.get() + 1);
        Ok(())
    });
    assert!(result.is_ok(), "{}", result.unwrap_err());
    // One that declines whatever it is given would pass all else.
    let [declined, united] = counts.map(|count| count.get());
    let enough = united * 15 > declined || declined < 100 && united > 0;
    assert!(enough, "{united} united, {declined} declined");
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_random_text_is_united(
        (old, new) in (clusters(), clusters()), styles in [style(), style()],
    ) {
        let text = write(&new, styles[1]);
        let united = compare(&write(&old, styles[0]), &text);
        let declines = styles[1].end == "\r";
        prop_assert!(declines || united.is_ok(), "{united:?}\n{text}");
    }

    #[test]
    fn a_cluster_is_the_same_in_every_style(all in clusters(), styles in [style(), style()]) {
        let read = |style| {
            let text = write(&all, style);
            (clusters_of(&file_name("a.yaml"), text.as_bytes()), text)
        };
        let ((one, text), (other, other_text)) = (read(styles[0]), read(styles[1]));
        let (one, other) = (one.unwrap(), other.unwrap());
        prop_assert_eq!(&one, &other, "{}\n{}", text, other_text);
        let names: Vec<&str> = one.iter().map(|cluster| &*cluster.name).collect();
        let want: Vec<&str> = all.iter().map(|(name, _)| NAMES[*name].0).collect();
        prop_assert_eq!(names, want);
        prop_assert_eq!(kind_of(&file_name("a.yaml"), text.as_bytes()), Kind::Clusters);
    }

    #[test]
    fn a_cluster_that_changes_has_another_hash(
        name in 0..NAMES.len(), (was, is) in (value(), value()), styles in [style(), style()],
    ) {
        let read = |value: &Value, style| {
            let text = write(&[(name, value.clone())], style);
            clusters_of(&file_name("a.yaml"), text.as_bytes()).unwrap()
        };
        let (old, new) = (read(&was, styles[0]), read(&is, styles[1]));
        let line = |all: &[Cluster]| all[0].line.clone().unwrap();
        prop_assert_eq!(old[0].hash == new[0].hash, line(&old) == line(&new));
        prop_assert_eq!(old[0].hash == new[0].hash, is_same(&was, &is), "{:?} {:?}", was, is);
    }

    #[test]
    fn json_is_united_too((old, new) in (clusters(), clusters()), style in style()) {
        let style = Style { json: true, ..style };
        let [old, new] = [old, new].map(|clusters| {
            let all = clusters.into_iter().map(|(name, value)| (name, json(value)));
            write(&all.collect::<Vec<_>>(), style)
        });
        let target: Bytes = new.as_bytes().into();
        let union = unite(&file_name("cds.json"), old.as_bytes(), &target).unwrap();
        prop_assert!(serde_json::from_slice::<serde_json::Value>(&union.bytes).is_ok());
    }

    #[test]
    fn every_text_of_a_file_is_found(all in clusters(), style in style()) {
        let mut texts: Vec<&str> = all.iter().map(|(name, _)| NAMES[*name].0).collect();
        all.iter().for_each(|(_, value)| gather(value, &mut texts));
        let text = write(&all, style);
        let mut found = mentions(&file_name("a.yaml"), text.as_bytes(), &texts);
        found.sort_unstable();
        texts.sort_unstable();
        prop_assert_eq!(found, texts, "{}", text);
    }

    #[test]
    fn a_kind_is_what_a_pass_over_the_text_says(
        (all, style) in (clusters(), style()),
        kinds in [select(&TYPES[..]), select(&TYPES[..])],
        mutations in vec((any::<Index>(), mutation()), 0..3),
    ) {
        let mut text = write(&all, style);
        for kind in kinds {
            text = text.replacen("config.cluster.v3.Cluster", kind, 1);
        }
        for (place, mutation) in mutations {
            mutate(&mut text, place, mutation);
        }
        let got = kind_of(&file_name("a.yaml"), text.as_bytes());
        match kind::read(Form::Yaml, text.as_bytes()) {
            // It may have stood in plain sight, and in no resource.
            Some(Kind::Untyped) => {
                prop_assert!(got == Kind::Untyped || !got.goes_first(), "{got:?}\n{text}");
            }
            Some(want) => prop_assert_eq!(got, want, "{}", text),
            None => {}
        }
    }
}

const TYPES: [&str; 5] = [
    "config.cluster.v3.Cluster",
    "config.listener.v3.Listener",
    "config.route.v3.RouteConfiguration",
    "extensions.transport_sockets.tls.v3.Secret",
    "config.cluster.v3.Filter",
];

/// Null has two names.
fn is_same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Word("~" | "null"), Value::Word("~" | "null")) => true,
        (Value::List(one), Value::List(other)) | (Value::Map(one), Value::Map(other)) => {
            let mut pairs = one.iter().zip(other);
            one.len() == other.len() && pairs.all(|(one, other)| is_same(one, other))
        }
        _ => one == other,
    }
}

/// Without words that JSON does not have.
fn json(value: Value) -> Value {
    match value {
        Value::Word(word) if !WORDS[..JSON_WORDS].contains(&word) => Value::Word("12"),
        Value::List(items) => Value::List(items.into_iter().map(json).collect()),
        Value::Map(items) => Value::Map(items.into_iter().map(json).collect()),
        value => value,
    }
}

/// The texts that could be names.
fn gather<'a>(value: &Value, found: &mut Vec<&'a str>)
where
    'static: 'a,
{
    match value {
        Value::Text(text, _) if text.trim() == *text && !text.is_empty() => found.push(text),
        Value::Text(..) | Value::Word(_) => {}
        Value::List(items) | Value::Map(items) => {
            items.iter().for_each(|item| gather(item, found));
        }
    }
}

const BITS: [&str; 34] = [
    "\n",
    "\n\n",
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
    "!ignore ",
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
    "<<: ",
    "name: x\n",
    "resources: ",
];

#[derive(Clone, Debug)]
enum Mutation {
    Insert(&'static str),
    Delete(usize),
    Copy(Index, usize),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    prop_oneof![
        select(&BITS[..]).prop_map(Mutation::Insert),
        (1..20_usize).prop_map(Mutation::Delete),
        (any::<Index>(), 1..40_usize).prop_map(|(from, len)| Mutation::Copy(from, len)),
    ]
}

fn mutate(text: &mut String, place: Index, mutation: Mutation) {
    let boundary = |text: &str, at: usize| (at..).find(|at| text.is_char_boundary(*at)).unwrap();
    let at = boundary(text, place.index(text.len() + 1));
    match mutation {
        Mutation::Insert(bit) => text.insert_str(at, bit),
        Mutation::Delete(len) => {
            let to = boundary(text, (at + len).min(text.len()));
            text.replace_range(at..to, "");
        }
        Mutation::Copy(from, len) => {
            let from = boundary(text, from.index(text.len() + 1));
            let to = boundary(text, (from + len).min(text.len()));
            let part = text[from..to].to_owned();
            text.insert_str(at, &part);
        }
    }
}
