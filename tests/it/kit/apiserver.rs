//! Holds the in-memory API server to what a real one said: every recorded exchange is had again.
//! uids and times are masked; everything else, resourceVersions and lengths included, must match.

use serde_json::{Value, json};
use std::collections::BTreeSet;
use testkit::apiserver::access::{Account, Rule};
use testkit::apiserver::{Dialect, Options, Server};
use testkit::exchange::{Answered, Line, Recording};
use testkit::objects::{config_map, traffic_split};

/// An exchange, with what is done to the server before it and while its watch is open.
struct Case {
    name: &'static str,
    /// The resourceVersion before the first change.
    version: u64,
    accounts: fn() -> Vec<Account>,
    before: fn(&Server),
    during: fn(&Server),
}

const CASE: Case = Case {
    name: "",
    version: 3893,
    accounts: Vec::new,
    before: |_| {},
    during: |_| {},
};

const fn case(name: &'static str, version: u64, before: fn(&Server)) -> Case {
    Case {
        name,
        version,
        before,
        ..CASE
    }
}

const CASES: [Case; 32] = [
    case("configmap-get", 3893, |server| put(server, "envoy-xds", 50)),
    case("configmap-get-404", 3893, |_| {}),
    case("configmap-list", 3893, |server| {
        put(server, "envoy-xds", 50);
        server.skip_to(3896);
    }),
    case("configmap-list-empty", 3893, |_| {}),
    case("configmap-list-metadata", 3899, |server| {
        put(server, "envoy-xds", 60);
        server.skip_to(3947);
    }),
    Case {
        during: |server| {
            put(server, "envoy-xds", 75);
            put(server, "envoy-xds", 25);
            server.delete("ConfigMap", "envoy-xds");
            put(server, "envoy-xds", 60);
            server.end_watches();
        },
        ..case("configmap-watch", 3893, |server| {
            put(server, "envoy-xds", 50);
            server.skip_to(3896);
        })
    },
    Case {
        during: |server| {
            server.skip_to(3933);
            server.bookmark();
            server.end_watches();
        },
        ..case("configmap-watch-bookmarks", 3901, |_| {})
    },
    Case {
        during: |server| {
            put(server, "envoy-xds", 50);
            server.end_watches();
        },
        ..case("configmap-watch-future", 3901, |_| {})
    },
    case("configmap-watch-too-old", 3132, |_| {}),
    case("configmap-watchlist", 3901, |server| {
        put(server, "envoy-xds", 50)
    }),
    case("configmap-create", 3943, |_| {}),
    case("configmap-create-409", 3943, |server| {
        put(server, "envoy-xds-gen", 50)
    }),
    case("configmap-create-422", 3943, |_| {}),
    case("configmap-bad-key-422", 3943, |_| {}),
    case("configmap-replace", 3943, |server| {
        put(server, "envoy-xds-gen", 50)
    }),
    case("configmap-replace-409", 3943, |server| {
        put(server, "envoy-xds-gen", 50)
    }),
    case("configmap-apply", 3943, |server| {
        put(server, "envoy-xds-gen", 50);
        server.replace(config_map(
            "envoy-xds-gen",
            &[("rds.yaml", "resources: []\n")],
        ));
        server.skip_to(3946);
    }),
    Case {
        accounts: || vec![Account::admin("another")],
        ..case("unauthorized-401", 3943, |_| {})
    },
    Case {
        accounts: || service("crossover", &[]),
        ..case("forbidden-403", 3943, |_| {})
    },
    Case {
        accounts: || service("crossover", &[]),
        ..case("forbidden-watch-403", 3943, |_| {})
    },
    Case {
        accounts: named,
        ..case("named-role-create-403", 3943, |_| {})
    },
    Case {
        accounts: named,
        ..case("named-role-list-all-403", 3943, |_| {})
    },
    Case {
        accounts: named,
        ..case("named-role-list", 3899, |server| {
            put(server, "envoy-xds", 60);
            server.skip_to(3952);
        })
    },
    Case {
        accounts: named,
        ..case("named-role-watch", 3899, |_| {})
    },
    case("group-discovery", 3893, |_| {}),
    case("group-discovery-404", 3893, |_| {}),
    case("trafficsplit-no-crd", 3893, |_| {}),
    case("trafficsplit-get", 3894, |server| split(server, 0)),
    case("trafficsplit-get-v1alpha4", 3948, |server| {
        server.create(quantities());
    }),
    case("trafficsplit-create-v1alpha1", 3948, |_| {}),
    case("trafficsplit-list", 1539, |server| {
        server.create(traffic_split("other", "other", &[("c", 20), ("d", 80)]));
        server.skip_to(3942);
        split(server, 50);
        server.skip_to(3947);
    }),
    case("trafficsplit-list-metadata", 3942, |server| {
        split(server, 50);
        server.skip_to(3947);
    }),
];

/// The one recording that has a case of its own: two bookmarks, one in the middle.
const SPLIT_WATCH: Case = Case {
    during: |server| {
        split(server, 25);
        split(server, 50);
        split(server, 75);
        server.bookmark();
        split(server, 100);
        server.delete("TrafficSplit", "podinfo");
        server.end_watches();
    },
    ..case("trafficsplit-watch", 3894, |server| {
        split(server, 0);
        server.skip_to(3936);
    })
};

#[test]
fn answers_every_recorded_exchange_as_the_real_server_did() {
    let cases = CASES.iter().chain([&SPLIT_WATCH]);
    let tried: BTreeSet<String> = cases.clone().map(|case| case.name.to_string()).collect();
    assert_eq!(
        tried,
        Recording::names("").into_iter().collect(),
        "recordings with a case"
    );
    cases.for_each(|case| check(case, Dialect::V1_34));
}

/// The cases that only the older recordings have, or that differ in them.
const OLD_CASES: [Case; 4] = [
    case("curl-list-metadata-empty", 203, |_| {}),
    Case {
        during: bookmarks,
        ..case("curl-watch-metadata-bookmarks", 204, |_| {})
    },
    Case {
        during: bookmarks,
        ..case("curl-watch-bookmarks", 204, |_| {})
    },
    Case {
        during: bookmarks,
        ..case("curl-ts-watch-bookmarks", 204, |_| {})
    },
];

/// Recordings with other objects, or of another moment, which say nothing about a dialect.
const OTHERWISE: [&str; 4] = [
    "configmap-watch-too-old",
    "named-role-watch",
    "trafficsplit-list",
    "trafficsplit-watch",
];

fn bookmarks(server: &Server) {
    for _ in 0..3 {
        server.bookmark();
    }
    server.end_watches(); // With a last one.
}

#[test]
fn answers_in_the_dialect_of_older_releases_as_a_real_one_did() {
    let recorded = Recording::names("old");
    let alike = CASES
        .iter()
        .filter(|case| !OTHERWISE.contains(&case.name))
        .filter(|case| recorded.iter().any(|name| name == case.name));
    let cases: Vec<&Case> = alike.chain(&OLD_CASES).collect();
    assert!(cases.len() > 30, "{}", cases.len());
    for case in cases {
        check(case, Dialect::V1_20);
    }
}

/// resourceVersions, and the lengths that follow from them, are masked in the older recordings.
#[track_caller]
fn check(case: &Case, dialect: Dialect) {
    let name = match dialect {
        Dialect::V1_34 => case.name.to_owned(),
        Dialect::V1_20 => format!("old/{}", case.name),
    };
    let recording = Recording::read(&name);
    let server = Server::start(Options {
        dialect,
        first_version: case.version,
        accounts: (case.accounts)(),
        ..Options::default()
    });
    (case.before)(&server);
    // The same was asked of both, at other resourceVersions.
    let asked = match Recording::names("").iter().any(|name| name == case.name) {
        true => Recording::read(case.name).asked,
        false => recording.asked.clone(),
    };
    let mut line = Line::ask(server.address(), &asked.bytes());
    let want = recording.answered();
    if want.chunks.len() > 1 || case.name == "configmap-watch-future" {
        server.wait_for_watches(1);
    }
    (case.during)(&server);
    // The recording of named-role-watch stops after the headers.
    let got = line.read_until(|got| got.complete || !want.complete);

    assert_eq!(got.status_line, want.status_line, "{name}");
    assert_eq!(header_names(&got), header_names(&want), "{name}");
    let exact = dialect == Dialect::V1_34;
    for header in ["content-type", "transfer-encoding", "cache-control"] {
        assert_eq!(got.header(header), want.header(header), "{name}: {header}");
    }
    if exact {
        let length = "content-length";
        assert_eq!(got.header(length), want.header(length), "{name}: {length}");
    }
    assert_eq!(masked(&got, exact), masked(&want, exact), "{name}");
}

fn header_names(answered: &Answered) -> BTreeSet<String> {
    answered
        .headers
        .iter()
        .map(|(name, _)| name.clone())
        .collect()
}

fn masked(answered: &Answered, exact: bool) -> Vec<String> {
    let keys = ["uid", "time", "creationTimestamp", "resourceVersion"];
    let keys = if exact { &keys[..3] } else { &keys[..] };
    let mask = |text: String| {
        keys.iter().fold(text, |text, key| {
            let opening = format!("\"{key}\":\"");
            let mut parts = text.split(&opening);
            let first = parts.next().unwrap_or_default().to_string();
            parts.fold(first, |all, part| {
                let (_, rest) = part.split_once('"').expect("a string ends");
                format!("{all}{opening}*\"{rest}")
            })
        })
    };
    answered.texts().into_iter().map(mask).collect()
}

fn put(server: &Server, name: &str, weight: u64) {
    let rest = 100 - weight;
    let text = format!(
        "version_info: \"0\"
resources:
- \"@type\": type.googleapis.com/envoy.config.route.v3.RouteConfiguration
  name: podinfo
  virtual_hosts:
  - name: podinfo
    domains: [\"*\"]
    routes:
    - match: {{ prefix: \"/\" }}
      route:
        weighted_clusters:
          clusters:
          - name: bold-olm-podinfo
            weight: {weight}
          - name: eerie-octopus-podinfo
            weight: {rest}
"
    );
    server.apply(config_map(name, &[("rds.yaml", &text)]));
}

fn split(server: &Server, weight: u64) {
    let backends = [
        ("eerie-octopus-podinfo", weight),
        ("bold-olm-podinfo", 100 - weight),
    ];
    server.apply(traffic_split("podinfo", "podinfo", &backends));
}

fn quantities() -> Value {
    let mut object = traffic_split("quantities", "podinfo", &[]);
    object["apiVersion"] = json!("split.smi-spec.io/v1alpha1");
    object["spec"]["backends"] = json!([
        {"service": "bold-olm-podinfo", "weight": "1500m"},
        {"service": "eerie-octopus-podinfo", "weight": 1},
    ]);
    object
}

fn service(name: &str, rules: &[Rule]) -> Vec<Account> {
    vec![Account::service("TOKEN", name, rules.to_vec())]
}

fn named() -> Vec<Account> {
    let verbs = ["get", "list", "watch", "create"];
    service(
        "named",
        &[Rule::new("", "configmaps", &verbs).named(&["envoy-xds"])],
    )
}
