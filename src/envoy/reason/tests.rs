//! The parts that are logged of messages that a real Envoy has written.

use super::*;

#[track_caller]
fn check(text: &str, want: Option<&str>) {
    assert_eq!(cut(text, &["two", "one-1.x"]).as_deref(), want, "{text}");
}

#[test]
fn envoys_words_and_names_of_resources_are_kept_and_values_are_not() {
    for (text, want) in [
        (
            "route: unknown cluster 'nope'",
            "route: unknown cluster 'nope'",
        ),
        (
            "duplicate listener one-1.x found",
            "duplicate listener one-1.x found",
        ),
        ("duplicate listener s3cr3t found", "duplicate listener"),
        (
            "Only unique values for domains are permitted. Duplicate entry of domain localhost in route x",
            "Only unique values for domains are permitted. Duplicate entry of domain",
        ),
        (
            "cannot bind '127.0.0.1:1': Address already in use",
            "cannot bind: Address already in use",
        ),
        (
            "Failed to load certificate chain from <inline>",
            "Failed to load certificate chain from <inline>",
        ),
        (
            "Failed to load incomplete private key from path: /etc/secret/key.pem",
            "Failed to load incomplete private key",
        ),
        (
            "error adding listener: 'two' has duplicate address '127.0.0.1:29913' as existing listener, to",
            "error adding listener: 'two' has duplicate address",
        ),
        (
            "error adding listener: 'other' has duplicate address '127.0.0.1:29913'",
            "error adding listener: 'other' has duplicate address",
        ),
        (
            "Sum of weights in the weighted_cluster must be greater than 0.",
            "Sum of weights in the weighted_cluster must be greater than",
        ),
        (
            "Not supported field in StreamInfo: SECRET",
            "Not supported field",
        ),
        ("malformed IP address: 10.9.8.777", "malformed IP"),
    ] {
        check(text, Some(want));
    }
    for text in [
        "",
        "missing ): se(cret",
        "{\"resources\":[]}",
        "'hunter' is wrong",
        "Bearer: hunter",
        "-----BEGIN PRIVATE KEY----- abc",
    ] {
        check(text, None);
    }
    let long = "word ".repeat(1000);
    assert_eq!(cut(&long, &[]).map(|it| it.len()), Some(MAX_LENGTH));
}

/// Writes a message that Envoy makes of a resource which breaks a rule of its schema: all of it
/// first.
fn broken(resource: &str, rule: &str) -> String {
    format!("goo.gle/debugproto    \n{resource}: {VALIDATION}{rule})")
}

#[test]
fn a_whole_resource_with_a_key_in_it_is_not_repeated() {
    let key = format!(
        "-----BEGIN RSA PRIVATE KEY-----\\n{}\\n",
        "MIIEow+/s3cr3t".repeat(100)
    );
    let host = |at: usize| {
        format!(
            "  virtual_hosts {{\n    name: \"v{at}\"\n    domains: \"v{at}.secret.example\"\n  }}\n"
        )
    };
    let hosts: String = (0..2_000).map(host).collect();
    let resource =
        format!("stat_prefix: \"in\"\nprivate_key {{\n inline_string: \"{key}\"\n}}\n{hosts}");
    assert!(resource.len() > 142_000);
    let rule = "HttpConnectionManagerValidationError.RouteConfig: embedded message failed validation | \
                caused by RouteConfigurationValidationError.VirtualHosts[1000]: embedded message failed \
                validation | caused by VirtualHostValidationError.Name: value length must be at least 1 \
                characters";
    let want = rule.to_owned();
    assert_eq!(cut(&broken(&resource, rule), &[]), Some(want));
    // A value in a place where Envoy has none today ends it.
    let odd = "SecretValidationError.Key[hunter]: value does not match \"s3cr3t\"";
    assert_eq!(cut(&broken(&resource, odd), &[]).as_deref(), None);
    // And without a rule nothing is left.
    let message = format!("goo.gle/debugproto    \n{resource}");
    assert_eq!(cut(&message, &[]), None);
    assert_eq!(
        cut(
            &format!("Unable to parse JSON as proto (INVALID_ARGUMENT: bad): {resource}"),
            &[]
        )
        .as_deref(),
        Some("Unable to parse JSON as proto")
    );
    // Whatever stands where, nothing of the key gets out.
    for at in 0..key.len().min(300) {
        let text = cut(
            &format!("{}{key}", "could not load it ".repeat(at % 3)),
            &[],
        )
        .unwrap_or_default();
        assert!(!text.contains("MII") && !text.contains("BEGIN"), "{text}");
    }
}

#[test]
fn only_what_was_refused_since_is_a_reason() {
    let at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_808_275_899);
    assert_eq!(timestamp(at), "2026-11-27T19:37:55.899");
    for (days, want) in [
        (0, "1970-01-01"),
        (59, "1970-03-01"),
        (11_016, "2000-02-29"),
        (20_819, "2027-01-01"),
    ] {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(days * 86_400);
        assert_eq!(timestamp(at), format!("{want}T00:00:00.000"));
    }
    let answer = |time: &str| {
        format!(
            r#"{{"configs": [{{"@type": "x", "name": "one"}}, {{"name": "two", "error_state": {{
            "details": "route: unknown cluster 'nope'", "last_update_attempt": "{time}"}}}}]}}"#
        )
    };
    let why = |time: &str| reason(Topic::Listeners, answer(time).as_bytes(), at, &[]);
    assert_eq!(
        why("2026-11-27T19:37:55.899Z").as_deref(),
        Some("route: unknown cluster 'nope'")
    );
    assert!(why("2026-11-27T19:37:56Z").is_some());
    assert_eq!(why("2026-11-27T19:37:55Z"), None);
    assert_eq!(reason(Topic::Listeners, b"{}", at, &[]), None);
    assert_eq!(reason(Topic::Listeners, b"no JSON", at, &[]), None);
}

#[test]
fn clusters_and_secrets_that_did_not_move_are_named() {
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_808_275);
    let clusters = br#"{"configs": [
        {"@type": "x", "cluster": {"@type": "y", "name": "good"}, "last_updated": "2026-11-27T19:37:55.100Z"},
        {"cluster": {"name": "old"}, "last_updated": "2026-11-27T19:00:00Z"}]}"#;
    let why = |names: &[&str]| reason(Topic::Clusters, clusters, at, names);
    assert_eq!(
        why(&["good", "old", "zz"]).as_deref(),
        Some("not taken: old, zz")
    );
    assert_eq!(why(&["good"]), None);
    let many: Vec<String> = (0..100).map(|at| format!("c{at}")).collect();
    let mut names: Vec<&str> = many.iter().map(String::as_str).collect();
    names.push("good");
    assert_eq!(
        why(&names).as_deref(),
        Some("not taken: c0, c1, c2, c3, c4 and 95 more")
    );
    let secrets = br#"{"configs": [{"name": "a", "last_updated": "2026-11-27T19:37:56Z"}]}"#;
    let why = reason(Topic::Secrets, secrets, at, &["a", "b"]);
    assert_eq!(why.as_deref(), Some("not taken: b"));
}

#[test]
fn what_can_be_asked_about_is_asked_about() {
    let routes = Subscription::Routes("r".into());
    let secret = Subscription::Secret("s".into());
    for (refused, topic) in [
        (
            vec![routes.clone(), Subscription::Listeners],
            Some(Topic::Listeners),
        ),
        (vec![Subscription::Clusters], Some(Topic::Clusters)),
        (vec![secret], Some(Topic::Secrets)),
        (
            vec![
                routes,
                Subscription::Runtime,
                Subscription::Endpoints("e".into()),
            ],
            None,
        ),
    ] {
        assert_eq!(Topic::of(&refused), topic, "{refused:?}");
    }
}
