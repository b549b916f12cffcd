//! Errors of the command line: each is one line that says what and why, then the usage; the exit
//! code is 2, and nothing is done.

use testkit::crossover::{self, Crossover};
use testkit::setup::Setup;

/// Runs with these flags and nothing else; `want` is what is said of them.
#[track_caller]
fn refuses(flags: &[&str], want: &str) {
    let setup = Setup::new();
    let mut command = crossover::command(flags);
    command.current_dir(setup.path("."));
    let finished = Crossover::spawn(command).finish();
    assert_eq!(finished.code, Some(2), "{}", finished.stderr);
    assert_eq!(finished.stdout, "");
    let (line, rest) = finished.stderr.split_once('\n').unwrap();
    assert_eq!(line, format!("crossover: {want}"));
    assert_eq!(
        rest.trim_start_matches('\n'),
        Crossover::run(&["-h"]).stdout
    );
    let left = std::fs::read_dir(setup.path(".")).unwrap().count();
    assert_eq!(left, 0, "something was written");
}

/// Runs with what is needed and a flag that is not as it should be.
#[track_caller]
fn refuses_value(flag: &str, value: &str, why: &str) {
    let want = format!("invalid value {value:?} for flag -{flag}: {why}");
    let given = format!("-{flag}={value}");
    // The API server is none that a program without fault would wait for.
    let needed = [
        "-apiserver=http://127.0.0.1:1",
        "-configmap=default/a",
        "-output-dir=out",
    ];
    refuses(
        &[&needed, &["-namespace=default", &given][..]].concat(),
        &want,
    );
}

#[test]
fn an_unknown_flag() {
    refuses(
        &["-colour=red"],
        "flag provided but not defined: \"-colour\"",
    );
    refuses(
        &["-configmap=default/a", "--wat"],
        "flag provided but not defined: \"-wat\"",
    );
    refuses(&["---watch"], "flag provided but not defined: \"--watch\"");
}

#[test]
fn an_argument_that_is_not_a_flag() {
    refuses(&["envoy"], "unexpected argument: \"envoy\"");
    refuses(&["-watch", "false"], "unexpected argument: \"false\"");
    refuses(&["-configmap=default/a", "-"], "unexpected argument: \"-\"");
    refuses(&["--"], "missing command after --");
    refuses(&[""], "unexpected argument: \"\"");
}

#[test]
fn a_flag_without_its_value() {
    refuses(&["-configmap"], "flag needs an argument: -configmap");
    refuses(
        &["-output-dir", "--watch"],
        "flag needs an argument: -output-dir (got \"--watch\")",
    );
}

#[test]
fn nothing_to_do() {
    refuses(&["-namespace=default"], "-configmap is required");
}

/// This cannot run in a pod, whose own namespace would be known.
#[test]
fn no_namespace() {
    let mounted = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";
    assert!(
        !std::path::Path::new(mounted).exists(),
        "run this where there is no {mounted}"
    );
    let want = "no namespace given: use -namespace, or set NS or POD_NAMESPACE";
    refuses(&["-configmap=a"], want);
    refuses(&["-configmap=default/a", "-configmap=b"], want);
}

#[test]
fn an_invalid_namespace() {
    refuses(
        &["-configmap=a", "-namespace=A"],
        "invalid namespace \"A\" from flag -namespace: must be at most 63 of a-z, 0-9 and '-'",
    );
    refuses(
        &["-configmap=a", "-namespace=a.b"],
        "invalid namespace \"a.b\" from flag -namespace: must be at most 63 of a-z, 0-9 and '-'",
    );
}

#[test]
fn an_empty_or_invalid_object_name() {
    let why = "must be NAME or NAMESPACE/NAME, of a-z, 0-9, '-' and '.'";
    let (long, long_label) = ("a".repeat(254), format!("{}/a", "a".repeat(64)));
    for name in [
        "",
        "/",
        "a/",
        "/a",
        "a/b/c",
        "A",
        "a_b",
        "-a",
        "a-",
        ".a",
        "a.",
        "a..b",
        "a b",
        "..",
        "../a",
        "a%2f",
        "a\n",
        "\u{e4}",
        "b.c/a",
        &long,
        &long_label,
    ] {
        refuses_value("configmap", name, why);
    }
    refuses_value("trafficsplit", "A", why);
    refuses_value("trafficsplit", "", why);
}

#[test]
fn a_switch_that_is_neither_on_nor_off() {
    for flag in ["watch", "onetime", "insecure", "dry-run", "smi", "version"] {
        refuses_value(flag, "yes", "must be true or false");
        refuses_value(flag, "", "must be true or false");
    }
}

#[test]
fn a_sync_interval_under_100_ms() {
    for interval in ["99ms", "0", "0s", "99999us", "0.0999s", "1ns"] {
        refuses_value("sync-interval", interval, "must be at least 100ms");
    }
}

#[test]
fn a_sync_interval_that_is_not_a_duration() {
    for interval in [
        "",
        "fast",
        "10",
        "-1s",
        "1m30",
        "1 s",
        "1d",
        "s",
        ".s",
        "1e3s",
        "99999999999h",
    ] {
        refuses_value(
            "sync-interval",
            interval,
            "must be a duration such as 90s, 1m30s, 1.5h or 300ms",
        );
    }
}

#[test]
fn an_apiserver_that_is_not_a_url() {
    let why = "must be http://HOST[:PORT] or https://HOST[:PORT]";
    for url in [
        "ftp://kubernetes",
        "kubernetes",
        "kubernetes:443",
        "//kubernetes",
        "http://a?b=c",
        "http://a#b",
        "http://a/#",
    ] {
        refuses_value("apiserver", url, why);
    }
    for url in ["", "https://", "https://a b"] {
        refuses_value("apiserver", url, "not a valid URL");
    }
    // None of these is the scheme's own port.
    for url in [
        "https://a:",
        "https://a:0",
        "https://a:65536",
        "https://[::1]:x",
    ] {
        refuses_value(
            "apiserver",
            url,
            "the port must be a number from 1 to 65535",
        );
    }
}

#[test]
fn a_password_in_a_url_without_telling_it() {
    for url in [
        "https://me:secret@kubernetes",
        "https://me:se cret@kubernetes",
    ] {
        let flags = ["-configmap=default/a", "-apiserver", url];
        let want = "flag -apiserver must not contain a user name or a password; use -token-file";
        refuses(&flags, want);
        assert!(!Crossover::run(&flags).stderr.contains("me:se"));
    }
}

#[test]
fn a_log_format_that_is_not_known() {
    refuses_value("log-format", "xml", "must be text or json");
    refuses_value("log-format", "", "must be text or json");
}

#[test]
fn what_would_be_two_lines_in_one() {
    refuses(&["a\nb"], "unexpected argument: \"a\\nb\"");
    refuses(&["-a\nb"], "flag provided but not defined: \"-a\\nb\"");
}
