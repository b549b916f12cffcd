use super::*;
use crate::snapshot::{Bytes, Version};

/// Makes a state with this text, small or large.
fn changed(at: &str, text: &str) -> Event {
    file("a.yaml", at, text)
}

fn file(name: &str, at: &str, text: &str) -> Event {
    let files = SortedMap::from([(name.to_owned(), Bytes::from(text.as_bytes()))]);
    Event::Applied(Object {
        name: "a".to_owned(),
        version: Version {
            uid: "u".to_owned(),
            resource_version: ResourceVersion(at.to_owned()),
        },
        body: Body::ConfigMap(Ok(files)),
    })
}

fn large(at: &str, text: &str) -> Event {
    changed(at, &format!("{text}{}", "\n# and so on".repeat(LARGE / 10)))
}

fn refusal() -> Event {
    Event::Unavailable(Error::Usage("any".to_owned()))
}

/// Asserts what is known after these events have come together.
#[track_caller]
fn check(events: Vec<Event>, observed: Observed, at: Option<&str>, denied: bool) {
    let object = ObjectName {
        namespace: "default".to_owned(),
        name: "a".to_owned(),
    };
    let (mut source, now) = (ConfigMapSource::new(object), Instant::now());
    for event in events {
        source.take(event, now);
    }
    assert_eq!(source.examine(&mut || false), Outcome::Judged);
    let content = source.content.as_ref();
    let version = content.map(|content| content.origin.resource_version.0.as_str());
    assert_eq!((source.observed, version), (observed, at));
    assert_eq!(source.denied.is_some(), denied);
}

#[test]
fn of_large_states_that_come_together_the_last_one_counts() {
    let bad_between = vec![large("1", "a: ]"), large("2", "a: 2")];
    check(bad_between, Observed::Valid, Some("2"), false);
    let bad_last = vec![large("1", "a: 1"), large("2", "a: ]")];
    check(bad_last, Observed::Invalid, None, false);
}

#[test]
fn an_examination_is_given_up_for_a_later_state_but_not_for_ever() {
    let object = ObjectName {
        namespace: "default".to_owned(),
        name: "a".to_owned(),
    };
    let (mut source, now) = (ConfigMapSource::new(object), Instant::now());
    let text: String = (0..20_000).map(|n| format!("key-{n}: {n}\n")).collect();
    for round in 0..2 {
        for at in 1..=MAX_SKIPS_IN_A_ROW {
            source.take(changed(&at.to_string(), &text), now);
            assert_eq!(
                source.examine(&mut || true),
                Outcome::Skipped,
                "{round} {at}"
            );
        }
        // Something has to be published.
        source.take(changed("last", &text), now);
        assert_eq!(source.examine(&mut || true), Outcome::Judged);
        let content = source.content.take().unwrap();
        assert_eq!(content.origin.resource_version.0, "last");
    }
    // That was not a later state.
    source.take(changed("1", &text), now);
    assert_eq!(source.examine(&mut || true), Outcome::Skipped);
    assert!(source.content.is_none());
    assert_eq!(source.examine(&mut || false), Outcome::Judged);
    let content = source.content.as_ref().unwrap();
    assert_eq!(content.origin.resource_version.0, "1");
}

#[test]
fn what_is_small_or_no_state_hides_none() {
    let gone = || Event::Deleted("a".to_owned());
    check(vec![], Observed::Pending, None, false);
    let bad_last = vec![changed("1", "a: 1"), changed("2", "a: ]")];
    check(bad_last, Observed::Invalid, Some("1"), false);
    for state in [changed, large] {
        check(
            vec![state("1", "a: 1"), gone()],
            Observed::Missing,
            Some("1"),
            true,
        );
        let anew = vec![state("1", "a: 1"), gone(), state("3", "a: 3")];
        check(anew, Observed::Valid, Some("3"), false);
        check(
            vec![state("1", "a: 1"), refusal()],
            Observed::Valid,
            Some("1"),
            true,
        );
        check(
            vec![refusal(), state("1", "a: 1")],
            Observed::Valid,
            Some("1"),
            false,
        );
        let bad = vec![state("1", "a: 1"), changed("2", "a: ]")];
        check(bad, Observed::Invalid, Some("1"), false);
    }
}

#[test]
fn what_a_previous_run_published_is_compared_before_anything_else_takes_its_place() {
    let object = ObjectName {
        namespace: "default".to_owned(),
        name: "a".to_owned(),
    };
    let now = Instant::now();
    let published = |text: &str| {
        let mut source = ConfigMapSource::new(object.clone());
        source.take(changed("1", text), now);
        source.content
    };
    for (before, then, observed) in [
        (Some("a: 1"), vec!["- b"], Observed::Invalid),
        (Some("a: 1"), vec!["- b", "- c"], Observed::Invalid),
        (Some("a: 1"), vec!["- b", "a: ]"], Observed::Invalid),
        (Some("a: 1"), vec!["- b", "b: 2"], Observed::Valid),
        (Some("- a"), vec!["- b"], Observed::Valid),
        (None, vec!["- b"], Observed::Valid),
    ] {
        let mut source = ConfigMapSource::new(object.clone());
        for (at, text) in then.iter().enumerate() {
            source.take(changed(&format!("{}", at + 2), text), now);
        }
        source.restore(before.and_then(published), now);
        assert!(!source.needs_last_run());
        let content = source.content.unwrap();
        let text = match observed {
            Observed::Valid => then.last().copied(),
            _ => before,
        };
        assert_eq!(
            content.files.values().next().unwrap()[..],
            *text.unwrap().as_bytes()
        );
        assert_eq!(
            (source.observed, source.refused.is_some()),
            (observed, observed != Observed::Valid)
        );
    }
}

#[test]
fn only_another_configuration_takes_the_place_of_one() {
    let xds = r#"{"resources": [{"@type": "x"}]}"#;
    for (name, first, then, observed) in [
        // A file that never was a configuration is accepted.
        ("a.yaml", "- a", "- b", Observed::Valid),
        ("a.json", "[1]", "2", Observed::Valid),
        ("a.conf", "x: ]", "", Observed::Valid),
        ("a", "{}", "}", Observed::Valid),
        ("a.pb", xds, "\u{1}", Observed::Valid),
        ("a.yaml", "- a", "a: 1", Observed::Valid),
        // A file that replaces a configuration has to be one.
        ("a.yaml", "a: 1", "- a", Observed::Invalid),
        ("A.YML", "a: 1", "a", Observed::Invalid),
        ("a.json", "{}", "[]", Observed::Invalid),
        ("a.conf", xds, "[]", Observed::Invalid),
        ("a.conf", xds, "x: ]", Observed::Invalid),
        ("a", xds, "", Observed::Invalid),
        ("a", xds, "{}", Observed::Valid),
        // A broken or empty file is invalid if its name says what it should be.
        ("a.Yaml", "- a", "- ]", Observed::Invalid),
        ("a.YML", "- a", "", Observed::Invalid),
        ("a.JSON", "[1]", "[", Observed::Invalid),
    ] {
        let events = vec![file(name, "1", first), file(name, "2", then)];
        let at = if observed == Observed::Valid {
            "2"
        } else {
            "1"
        };
        check(events, observed, Some(at), false);
    }
}
