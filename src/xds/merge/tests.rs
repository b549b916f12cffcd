//! The text with which a file is published, and the warnings about it.

use super::*;
use crate::snapshot::{Origin, ResourceVersion};
use crate::xds::weights::Backend;
use crate::xds::yaml::{self, Encoding};
use std::rc::Rc;

const FILE: &str = "rds.yaml";

fn object(name: &str) -> ObjectName {
    ObjectName {
        namespace: "default".to_owned(),
        name: name.to_owned(),
    }
}

fn split(service: &str, [primary, canary]: [u64; 2]) -> HostWeights {
    let backend = |name: &str, weight| Backend::bare(name.to_owned(), weight);
    let backends = vec![backend("a", primary), backend("b", canary)];
    HostWeights::of_split(object(service), service.to_owned(), backends)
}

fn texts(warnings: Warnings) -> String {
    let texts: Vec<String> = warnings.texts.into_values().flatten().collect();
    texts.join("\n")
}

/// A route to each of two clusters, as a virtual host's.
fn host(name: &str, primary: &str, canary: &str) -> String {
    format!(
        "  - name: {name}\n    routes:\n    - route: {{weighted_clusters: {{clusters: [\
             {{name: a, weight: {primary}}}, {{name: b, weight: {canary}}}]}}}}\n"
    )
}

fn text(hosts: &[String]) -> String {
    let kept = "x: [*all, *none]\n";
    let hosts = hosts.concat();
    let kept = if hosts.contains("&all") { kept } else { "" };
    format!("resources:\n- virtual_hosts:\n{hosts}{kept}")
}

/// A set of one file, of ConfigMap `owner`.
fn set_of(owner: &str, text: &str) -> Snapshot {
    let origin = Rc::new(Origin {
        object: object(owner),
        uid: String::new(),
        resource_version: ResourceVersion("1".to_owned()),
    });
    let file = File {
        bytes: Bytes::from(text.as_bytes()),
        origin,
    };
    Snapshot::from([(FileName::new(FILE).unwrap(), file)])
}

/// Returns what ConfigMap `envoy` goes out with, what is kept of it, and what is said, where
/// each of the services `shop` and `blog` has a split.
fn merged(
    text: &str,
    splits: [[u64; 2]; 2],
    good: &Snapshot,
    on_disk: Option<&Snapshot>,
) -> (Snapshot, Snapshot, String) {
    let splits = [split("shop", splits[0]), split("blog", splits[1])];
    let splits: Vec<&HostWeights> = splits.iter().collect();
    let done = Merge::new(&splits, "cluster.local", set_of("envoy", text)).finish(good, on_disk);
    (done.set, done.good, texts(done.warnings))
}

#[track_caller]
fn check(
    new: &[String],
    good: Option<&[String]>,
    on_disk: Option<&[String]>,
    want: &[String],
    said: &str,
) {
    let none = Snapshot::new();
    let good = good.map(|hosts| set_of("envoy", &text(hosts)));
    let on_disk = on_disk.map(|hosts| set_of("envoy", &text(hosts)));
    let (set, kept, warnings) = merged(
        &text(new),
        [[95, 5], [90, 10]],
        good.as_ref().unwrap_or(&none),
        on_disk.as_ref(),
    );
    let name = FileName::new(FILE).unwrap();
    let found = std::str::from_utf8(&set[&name].bytes).unwrap();
    assert_eq!(found, text(want), "{warnings}");
    assert!(warnings.contains(said), "{warnings}");
    assert!(kept.contains_key(&name));
}

const LEFT_OUT: &str = "weights cannot be merged into default/envoy rds.yaml: line 8: the \
                            weight is part of what an alias repeats: ";
const KEEPS: &str = "such a route keeps its text's weights";
const STAYS: &str = "the file's last good text stays";

#[test]
fn a_route_that_cannot_be_edited_keeps_what_is_on_disk_and_all_others_follow() {
    let stuck = host("blog", "&all 100", "&none 0");
    let own = host("shop", "50", "50");
    let (before, now) = (host("shop", "99", "1"), host("shop", "95", "5"));
    let new = [own.clone(), stuck.clone()];
    let want = [now.clone(), stuck.clone()];
    let keeps = format!("{LEFT_OUT}{KEEPS}");
    // In this life and after a restart, where only the disk tells.
    for good in [Some(&new[..]), None] {
        let on_disk = [before.clone(), stuck.clone()];
        check(&new, good, Some(&on_disk), &want, &keeps);
        // Whatever way the same weights are written there.
        let plain = [host("blog", "100", "0"), before.clone()];
        check(&new, good, Some(&plain), &want, KEEPS);
    }
    // The very first time it has its own.
    check(&new, None, None, &want, KEEPS);
    // An anchor that nothing refers to is in nobody's way.
    let free = host("blog", "&every 100", "0");
    let want = [now, host("blog", "&every 90", "10")];
    let on_disk = [before, stuck];
    check(&[own, free], None, Some(&on_disk), &want, "");
}

#[test]
fn where_its_weights_are_others_on_disk_the_last_good_text_stays_and_follows() {
    let stuck = [
        host("blog", "&all 100", "&none 0"),
        host("shop", "50", "50"),
    ];
    let good = [host("blog", "100", "0"), host("shop", "1", "1")];
    let on_disk = [host("blog", "80", "20"), host("shop", "99", "1")];
    let want = [host("blog", "90", "10"), host("shop", "95", "5")];
    let said = format!("{LEFT_OUT}{STAYS}").replace("line 8", "line 5");
    check(&stuck, Some(&good), Some(&on_disk), &want, &said);
    // After a restart the one on disk is it.
    check(&stuck, None, Some(&on_disk), &want, &said);
    // In what is good by now the route is new, so it is not known.
    let more = [
        stuck[0].clone(),
        stuck[1].clone(),
        stuck[0].replace("&all ", "").replace("&none ", ""),
    ];
    check(&more, Some(&good), Some(&on_disk), &want, STAYS);
    // Even on disk it cannot be edited: it stays, and the other follows.
    let odd = [host("blog", "&all 80", "&none 20"), host("shop", "99", "1")];
    let want = [odd[0].clone(), host("shop", "95", "5")];
    check(&stuck, None, Some(&odd), &want, STAYS);
}

#[test]
fn equal_routes_are_distinguished_by_their_order() {
    let stuck = |weights: [&str; 2]| {
        host("blog", &format!("&all {}", weights[0]), "&none 0")
            + &host("blog", weights[1], "*none")
    };
    let new = [stuck(["100", "60"])];
    let same = [host("blog", "100", "0") + &host("blog", "60", "0")];
    check(&new, None, Some(&same), &new, KEEPS);
    let swapped = [host("blog", "60", "0") + &host("blog", "100", "0")];
    let want = [host("blog", "90", "10") + &host("blog", "90", "10")];
    check(&new, None, Some(&swapped), &want, STAYS);
}

#[test]
fn another_configmaps_text_is_nobodys_last_good_one() {
    let stuck = host("blog", "&all 100", "&none 0");
    let [new, want] = ["1", "95"].map(|shop| {
        let rest = if shop == "1" { "1" } else { "5" };
        text(&[stuck.clone(), host("shop", shop, rest)])
    });
    let other = set_of("other", &text(&[host("blog", "80", "20")]));
    let (set, kept, said) = merged(&new, [[95, 5], [90, 10]], &other, Some(&other));
    assert_eq!(set, set_of("envoy", &want));
    assert!(
        said.contains("such a route goes out with its text's weights"),
        "{said}"
    );
    assert_eq!(kept, set_of("envoy", &new));
}

#[test]
fn a_file_that_cannot_be_read_to_its_end_keeps_its_last_good_text() {
    let bad = text(&[host("shop", "50", "50")]) + "x: [1\n";
    let own = set_of("envoy", &text(&[host("shop", "99", "1")]));
    let want = set_of("envoy", &text(&[host("shop", "95", "5")]));
    let none = Snapshot::new();
    for (good, on_disk) in [(&own, None), (&own, Some(&own)), (&none, Some(&own))] {
        let (set, _, said) = merged(&bad, [[95, 5], [1, 1]], good, on_disk);
        assert_eq!(set, want, "{said}");
        assert!(said.contains(STAYS), "{said}");
    }
    let (set, kept, _) = merged(&bad, [[95, 5], [1, 1]], &none, Some(&set_of("envoy", &bad)));
    assert_eq!((set, kept.len()), (set_of("envoy", &bad), 0));
}

/// A text that no encoding but UTF-8 writes in its bytes.
fn encoded(encoding: Encoding, mark: &str, primary: &str, canary: &str) -> Vec<u8> {
    let hosts = [host("shop", primary, canary)];
    encoding.encode(format!("{mark}# gr\u{f6}\u{df}e\n{}", text(&hosts)))
}

/// Returns what becomes of file `name`, and what is said.
fn merged_bytes(name: &str, bytes: Vec<u8>) -> (Vec<u8>, String) {
    let name = FileName::new(name).unwrap();
    let file = set_of("envoy", "").into_values().next().unwrap();
    let bytes = Bytes::from(bytes);
    let set = Snapshot::from([(name.clone(), File { bytes, ..file })]);
    let split = split("shop", [95, 5]);
    let done = Merge::new(&[&split], "cluster.local", set).finish(&Snapshot::new(), None);
    (done.set[&name].bytes.to_vec(), texts(done.warnings))
}

#[test]
fn a_text_is_merged_in_the_encoding_that_it_is_in() {
    let sides = [true, false];
    let wide = sides.map(|little| Encoding::Utf16 { little });
    let wider = sides.map(|little| Encoding::Utf32 { little });
    for (encoding, mark) in [(Encoding::Utf8, ""), (Encoding::Latin1, "")]
        .into_iter()
        .chain(wide.map(|encoding| (encoding, "")))
        .chain(wide.map(|encoding| (encoding, "\u{feff}")))
        .chain(wider.map(|encoding| (encoding, "")))
        .chain(wider.map(|encoding| (encoding, "\u{feff}")))
    {
        let before = encoded(encoding, mark, "100", "0");
        assert_eq!(yaml::decode(&before).1, encoding);
        let want = encoded(encoding, mark, "95", "5");
        let found = merged_bytes("a.yaml", before);
        assert_eq!(found, (want, String::new()), "{encoding:?} {mark:?}");
    }
}

#[test]
fn what_is_not_utf_8_and_cannot_be_written_back_is_named() {
    let utf16 = || encoded(Encoding::Utf16 { little: true }, "", "100", "0");
    // Half of a surrogate pair, and half a unit.
    let half_pair = [utf16(), vec![b'#', 0, 0, 0xd8, b'\n', 0]].concat();
    let half_unit = [utf16(), vec![b'#']].concat();
    let json = r#"{"resources":[{"virtual_hosts":[{"name":"shop","routes":[{"route":
            {"weighted_clusters":{"clusters":[{"name":"a","weight":1}]}}}]}]}],"x":"\u{f6}"}"#;
    let json = Encoding::Latin1.encode(json.replace("\\u{f6}", "\u{f6}"));
    for (name, bytes) in [
        ("a.yaml", half_pair),
        ("a.yaml", half_unit),
        ("a.json", json),
    ] {
        let (found, warnings) = merged_bytes(name, bytes.clone());
        assert_eq!(found, bytes);
        let said = format!("default/envoy {name}: it is not UTF-8");
        assert!(warnings.contains(&said), "{warnings}");
    }
}
