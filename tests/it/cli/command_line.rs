//! The command line: every flag in each of Go's spellings, by what it does; and what is refused.

use std::fs;
use testkit::crossover::Crossover;
use testkit::objects::{config_map, in_namespace};
use testkit::setup::{Setup, events};

/// `-x v`, `-x=v`, `--x v`, `--x=v`.
fn spellings(name: &str, value: &str) -> [Vec<String>; 4] {
    [
        vec![format!("-{name}"), value.into()],
        vec![format!("-{name}={value}")],
        vec![format!("--{name}"), value.into()],
        vec![format!("--{name}={value}")],
    ]
}

/// `-x`, `--x`, `-x=true`, `--x=1`.
fn switches(name: &str) -> [Vec<String>; 4] {
    let spellings = ["-NAME", "--NAME", "-NAME=true", "--NAME=1"];
    spellings.map(|spelling| vec![spelling.replace("NAME", name)])
}

/// `prove` shows, for each spelling, that the flag does what it is for.
#[track_caller]
fn check(spellings: [Vec<String>; 4], others: &[&str], prove: impl Fn(&[&str])) {
    for spelling in spellings {
        let spelling = spelling.iter().map(String::as_str);
        let flags: Vec<&str> = spelling.chain(others.iter().copied()).collect();
        prove(&flags);
    }
}

fn with_a() -> Setup {
    let setup = Setup::new();
    setup.put("a", &[("a.yaml", "a: 1\n")]);
    setup
}

const ONCE: [&str; 2] = ["-onetime", "-configmap=a"];

#[test]
fn apiserver_is_asked() {
    let (setup, other) = (Setup::new(), with_a());
    check(
        spellings("apiserver", &other.server.url()),
        &ONCE,
        |flags| {
            setup.succeed(flags);
        },
    );
    assert!(setup.server.requests().is_empty());
    assert_eq!(other.server.requests().len(), 4);
    // A slash at the end changes nothing, nor do capitals.
    let url = other.server.url();
    for url in [
        format!("{url}/"),
        format!("{url}//"),
        url.replace("http", "HTTP"),
    ] {
        setup.succeed(&["-apiserver", &url, "-onetime", "-configmap=a"]);
    }
}

#[test]
fn capitals_in_the_scheme_leave_https_what_it_is() {
    let setup = Setup::https(false);
    setup.put("a", &[("a.yaml", "a: 1\n")]);
    fs::write(setup.path("token"), "TOKEN").unwrap();
    let url = setup.server.url().replace("https", "HTTPS");
    let (ca, token) = (setup.path("ca.crt"), setup.path("token"));
    let flags = ["-apiserver", &url, "-ca-file", &ca, "-token-file", &token];
    setup.succeed(&[&flags[..], &ONCE].concat());
    assert_eq!(setup.server.requests()[0].token.as_deref(), Some("TOKEN"));
    // Nobody is trusted that would not be otherwise, and the warning comes, too.
    let flags = ["-apiserver", &url, "-insecure", "-token-file", &token];
    let finished = setup.succeed(&[&flags[..], &ONCE].concat());
    assert!(finished.stderr.contains("WARN"), "{}", finished.stderr);
}

#[test]
fn ca_file_is_trusted() {
    let setup = Setup::https(false);
    setup.put("a", &[("a.yaml", "a: 1\n")]);
    let token = format!("-token-file={}", setup.path("token"));
    let others = [ONCE[0], ONCE[1], &token];
    check(
        spellings("ca-file", &setup.path("ca.crt")),
        &others,
        |flags| {
            setup.succeed(flags);
        },
    );
}

#[test]
fn token_file_is_sent() {
    let setup = with_a();
    fs::write(setup.path("mine"), " secret\n").unwrap();
    check(
        spellings("token-file", &setup.path("mine")),
        &ONCE,
        |flags| {
            setup.succeed(flags);
        },
    );
    let requests = setup.server.requests();
    assert_eq!(requests.len(), 4);
    assert!(
        requests
            .iter()
            .all(|r| r.token.as_deref() == Some("secret"))
    );
}

#[test]
fn namespace_is_where_objects_without_one_are() {
    let setup = Setup::new();
    setup
        .server
        .create(in_namespace("else", config_map("a", &[("x", "else")])));
    check(spellings("namespace", "else"), &ONCE, |flags| {
        setup.succeed(flags);
    });
    setup.assert_found(&[("x", "else")]);
}

#[test]
fn configmap_names_an_object_with_or_without_its_namespace() {
    let setup = with_a();
    setup
        .server
        .create(in_namespace("else", config_map("b", &[("b", "else")])));
    check(
        spellings("configmap", "a"),
        &["-onetime", "-configmap=else/b"],
        |flags| {
            setup.succeed(flags);
            setup.assert_found(&[("a.yaml", "a: 1\n"), ("b", "else")]);
        },
    );
}

#[test]
fn output_dir_is_where_the_files_go() {
    let setup = with_a();
    check(
        spellings("output-dir", &setup.path("mine")),
        &ONCE,
        |flags| {
            setup.succeed(flags);
            let file = setup.path("mine/current/a.yaml");
            assert_eq!(fs::read(&file).unwrap(), b"a: 1\n");
            fs::remove_dir_all(setup.path("mine")).unwrap();
        },
    );
    assert!(!setup.output().exists());
}

#[test]
fn onetime_ends_and_wins_over_watch() {
    let setup = with_a();
    check(switches("onetime"), &["-watch", "-configmap=a"], |flags| {
        setup.succeed(flags);
    });
    assert_eq!(setup.server.count_requests(|request| request.is_watch()), 0);
    setup.assert_found(&[("a.yaml", "a: 1\n")]);
}

#[test]
fn watch_opens_a_watch() {
    let setup = with_a();
    check(switches("watch"), &["-configmap=a"], |flags| {
        let process = setup.start(flags);
        setup.server.wait_for_watches(1);
        drop(process);
        setup.server.wait_for_watches(0);
    });
}

#[test]
fn sync_interval_is_the_time_between_checks() {
    for interval in ["100ms", "0.1s", "0m0.15s", "100000us", ".2s"] {
        let setup = with_a();
        check(
            spellings("sync-interval", interval),
            &["-configmap=a"],
            |flags| {
                let looks = setup.server.count_requests(|r| r.is_metadata_only());
                let process = setup.start(flags);
                setup
                    .server
                    .wait_for_requests("looks", looks + 2, |r| r.is_metadata_only());
                drop(process);
            },
        );
        if interval != "100ms" {
            continue;
        }
        assert_eq!(setup.server.count_requests(|r| r.is_watch()), 0);
    }
}

#[test]
fn insecure_trusts_anyone() {
    let setup = Setup::https(false);
    setup.put("a", &[("a.yaml", "a: 1\n")]);
    let token = format!("-token-file={}", setup.path("token"));
    check(switches("insecure"), &[ONCE[0], ONCE[1], &token], |flags| {
        let finished = setup.succeed(flags);
        let warnings = finished
            .stderr
            .lines()
            .filter(|line| line.contains(" WARN "));
        assert_eq!(warnings.count(), 1, "{}", finished.stderr);
        assert!(
            finished.stderr.contains("not verified"),
            "{}",
            finished.stderr
        );
    });
}

#[test]
fn dry_run_prints_and_writes_nothing() {
    let setup = with_a();
    check(switches("dry-run"), &["-configmap=a"], |flags| {
        let finished = setup.succeed(flags);
        assert!(
            finished.stdout.contains("kind: ConfigMap"),
            "{}",
            finished.stdout
        );
    });
    assert!(!setup.output().exists());
}

#[test]
fn log_format_is_text_or_json() {
    let setup = with_a();
    check(spellings("log-format", "json"), &ONCE, |flags| {
        let finished = setup.succeed(flags);
        assert_eq!(events(&finished.stderr)[0]["message"], "started");
    });
    check(spellings("log-format", "text"), &ONCE, |flags| {
        let finished = setup.succeed(flags);
        assert!(
            finished.stderr.contains(" INFO  started "),
            "{}",
            finished.stderr
        );
    });
}

#[test]
fn the_flags_of_traffic_splits_are_taken() {
    let setup = with_a();
    for spellings in [
        spellings("trafficsplit", "podinfo"),
        spellings("trafficsplit-api-version", "v1alpha2"),
        switches("smi"),
    ] {
        check(spellings, &ONCE, |flags| {
            setup.succeed(flags);
        });
    }
}

#[test]
fn of_a_flag_given_twice_the_last_one_counts() {
    let setup = with_a();
    setup.succeed(&["-watch", "-onetime=false", "-configmap=a", "-onetime"]);
    for off in [
        "-watch=false",
        "--watch=0",
        "-watch=f",
        "-watch=F",
        "-watch=FALSE",
        "-watch=False",
    ] {
        let process = setup.start(&["-watch", off, "-sync-interval=100ms", "-configmap=a"]);
        let before = setup.server.requests().len();
        setup.server.wait_for_requests("more", before + 2, |_| true);
        drop(process);
    }
    assert_eq!(setup.server.count_requests(|request| request.is_watch()), 0);
    for on in ["-onetime=T", "-onetime=t", "-onetime=TRUE", "-onetime=True"] {
        setup.succeed(&["-onetime=false", on, "-configmap=a"]);
    }
}

#[test]
fn help_is_printed_on_stdout_and_names_every_flag() {
    for spelling in ["-h", "--h", "-help", "--help"] {
        let finished = Crossover::run(&["-watch", spelling]);
        assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""));
        for flag in [
            "-apiserver URL",
            "-ca-file PATH",
            "-configmap [NS/]NAME",
            "-dry-run",
            "-insecure",
            "-log-format text|json",
            "-namespace NS",
            "-onetime",
            "-output-dir DIR",
            "-smi",
            "-sync-interval DURATION",
            "-token-file PATH",
            "-trafficsplit [NS/]NAME",
            "-trafficsplit-api-version VERSION",
            "-version",
            "-watch",
        ] {
            assert!(
                finished.stdout.contains(&format!("  {flag}\n")),
                "{flag}: {}",
                finished.stdout
            );
        }
        for default in [
            "1m0s",
            "/srv/runtime",
            "/var/run/secrets/kubernetes.io/serviceaccount/token",
        ] {
            assert!(
                finished.stdout.contains(&format!("(default {default})")),
                "{default}"
            );
        }
    }
}

#[test]
fn the_version_is_printed_on_stdout() {
    for spelling in ["-version", "--version", "-version=true"] {
        let finished = Crossover::run(&[spelling]);
        let want = format!("crossover {}\n", env!("CARGO_PKG_VERSION"));
        assert_eq!(
            (finished.code, finished.stdout, finished.stderr),
            (Some(0), want, "".into())
        );
    }
}
