//! While a ConfigMap is missing or invalid, its last good files stay published, also across a
//! restart, and other ConfigMaps go on.

use rustix::process::Signal;
use std::fs;
use std::path::Path;
use std::process::Command;
use testkit::apiserver::access::{Account, Rule};
use testkit::apiserver::faults::Fault;
use testkit::crossover::Crossover;
use testkit::setup::{Setup, events, events_with};
use testkit::until;

const A: (&str, &str) = ("a.yaml", "a: 1\n");
const B: (&str, &str) = ("b.yaml", "b: 1\n");
const B2: (&str, &str) = ("b.yaml", "b: 2\n");
const FOLLOW: [&str; 4] = ["-watch", "-configmap=a", "-configmap=b", "-log-format=json"];
const POLL: [&str; 4] = [
    "-sync-interval=200ms",
    "-configmap=a",
    "-configmap=b",
    "-log-format=json",
];

/// A watch is over, and a list will tell.
const GONE: &[u8] = b"{\"type\":\"ERROR\",\"object\":{\"kind\":\"Status\",\"code\":410}}\n";

/// A line of its own, not part of a warning.
const PUBLISHED: &str = "\"message\":\"published\"";

/// The warning after some time in which nothing could be published.
const HELD_UP: &str = "nothing can be published; waiting";

/// A mishap of ConfigMap `a`, and the warning about it.
type Mishap = (fn(&Setup), &'static str);

const DELETED: Mishap = (
    |setup| setup.server.delete("ConfigMap", "a"),
    "it does not exist",
);
const EMPTIED: Mishap = (
    |setup| {
        setup.put("a", &[]);
    },
    "it has no keys",
);
const BAD: Mishap = (
    |setup| {
        setup.put("a", &[("a.yaml", "a: [1\n"), ("another.yaml", "a: 1\n")]);
    },
    "a.yaml: line 1",
);

/// Another text is published where no configuration stood before, and this is not one.
const FOREIGN: Mishap = (
    |setup| {
        setup.put("a", &[("a.yaml", "- a list\n")]);
    },
    "the document is not a mapping",
);

fn both() -> Setup {
    let setup = Setup::new();
    setup.put("a", &[A]);
    setup.put("b", &[B]);
    setup
}

#[track_caller]
fn keeps_its_files_until_it_is_good_again(mishap: Mishap, flags: &[&str]) {
    let setup = both();
    let process = setup.start(flags);
    setup.until_found(&[A, B]);
    process.wait_for_line(PUBLISHED);
    (mishap.0)(&setup);
    let warning = process.wait_for_line(mishap.1);
    let warning = &events(&warning)[0];
    assert_eq!(
        (&warning["level"], &warning["configmap"]),
        (&"warn".into(), &"default/a".into())
    );
    // The others go on.
    setup.put("b", &[B2]);
    setup.until_found(&[A, B2]);
    setup.put("a", &[("a.yaml", "a: 3\n")]);
    setup.until_found(&[("a.yaml", "a: 3\n"), B2]);
    let stderr = process.stop().stderr;
    assert_eq!(setup.set(), 3, "{stderr}");
    assert_eq!(
        events_with(&stderr, mishap.1).len() + events_with_reason(&stderr, mishap.1),
        1,
        "{stderr}"
    );
}

/// Counts the warnings that give this as a reason.
fn events_with_reason(stderr: &str, reason: &str) -> usize {
    let gives = |event: &&serde_json::Value| {
        event["level"] == "warn"
            && event["error"]
                .as_str()
                .is_some_and(|text| text.contains(reason))
    };
    events(stderr).iter().filter(gives).count()
}

#[test]
fn a_deleted_configmap_keeps_its_files() {
    keeps_its_files_until_it_is_good_again(DELETED, &FOLLOW);
}

#[test]
fn an_emptied_configmap_keeps_its_files() {
    keeps_its_files_until_it_is_good_again(EMPTIED, &FOLLOW);
}

#[test]
fn a_configmap_with_a_bad_file_keeps_all_its_files() {
    keeps_its_files_until_it_is_good_again(BAD, &FOLLOW);
}

#[test]
fn without_watch_it_is_the_same() {
    keeps_its_files_until_it_is_good_again(DELETED, &POLL);
    keeps_its_files_until_it_is_good_again(EMPTIED, &POLL);
    keeps_its_files_until_it_is_good_again(BAD, &POLL);
}

#[track_caller]
fn keeps_its_files_across_a_restart(mishap: Mishap) {
    let setup = both();
    let process = setup.start(&FOLLOW);
    process.wait_for_line(PUBLISHED);
    process.signal(Signal::KILL);
    assert_eq!(process.finish().code, None);
    (mishap.0)(&setup);
    setup.put("b", &[B2]);

    let process = setup.start(&FOLLOW);
    process.wait_for_line(PUBLISHED);
    setup.assert_found(&[A, B2]);
    process.wait_for_line(mishap.1);
    // And over one more life: what it came from has been carried over too.
    process.signal(Signal::KILL);
    process.finish();
    setup.put("b", &[B]);
    let process = setup.start(&FOLLOW);
    process.wait_for_line(PUBLISHED);
    setup.assert_found(&[A, B]);
    setup.put("a", &[("a.yaml", "a: 3\n")]);
    setup.until_found(&[("a.yaml", "a: 3\n"), B]);
}

#[test]
fn a_configmap_deleted_across_a_restart_keeps_its_files() {
    keeps_its_files_across_a_restart(DELETED);
}

#[test]
fn a_configmap_emptied_across_a_restart_keeps_its_files() {
    keeps_its_files_across_a_restart(EMPTIED);
}

#[test]
fn a_configmap_gone_bad_across_a_restart_keeps_its_files() {
    keeps_its_files_across_a_restart(BAD);
}

#[test]
fn a_configmap_with_another_text_across_a_restart_keeps_its_files() {
    keeps_its_files_across_a_restart(FOREIGN);
}

#[test]
fn a_configmap_forbidden_across_a_restart_keeps_its_files() {
    let setup = both();
    setup.succeed(&["-onetime", "-configmap=a", "-configmap=b"]);
    let rule = Rule::new("", "configmaps", &["list", "watch"]);
    let allow = |names: &[&str]| {
        setup
            .server
            .set_accounts(vec![Account::anonymous(vec![rule.clone().named(names)])])
    };
    allow(&["b"]);
    setup.put("b", &[B2]);
    let process = setup.start(&FOLLOW);
    setup.until_found(&[A, B2]);
    setup.put("a", &[("a.yaml", "a: 3\n")]);
    allow(&["a", "b"]);
    setup.until_found(&[("a.yaml", "a: 3\n"), B2]);
    drop(process);
}

#[test]
fn a_pod_starts_on_files_that_were_relabelled_and_chowned_while_the_server_is_away() {
    let setup = both();
    setup.succeed(&["-onetime", "-configmap=a", "-configmap=b"]);
    // As the kubelet does with the volume of a pod that has an fsGroup, and SELinux with labels.
    let script = "chown -R :1234 $1 && chmod -R g+rwX $1 && find $1 -type d -exec chmod g+s {} + \
        && ln $1/.sets/1/a.yaml $1/kept";
    let harm = Command::new("sh")
        .args(["-c", script, "sh", &setup.path("out")])
        .status();
    assert!(harm.unwrap().success());
    let away = [
        "-apiserver=http://127.0.0.1:1",
        "-configmap=a",
        "-configmap=b",
    ];
    let process =
        setup.start(&[&away[..], &["--", "cat", &setup.path("out/current/a.yaml")]].concat());
    let finished = process.finish();
    assert_eq!(
        (finished.code, &*finished.stdout),
        (Some(0), A.1),
        "{}",
        finished.stderr
    );
    assert!(
        finished
            .stderr
            .contains("starting the command with files of a previous run"),
        "{}",
        finished.stderr
    );
    setup.assert_found(&[A, B]);
}

#[test]
fn a_configmap_that_is_no_longer_named_loses_its_files() {
    let setup = both();
    setup.succeed(&["-onetime", "-configmap=a", "-configmap=b"]);
    let finished = setup.succeed(&["-onetime", "-configmap=b"]);
    setup.assert_found(&[B]);
    assert!(
        finished.stderr.contains("file removed"),
        "{}",
        finished.stderr
    );
}

/// Checks a ConfigMap whose only file is shadowed by another's, so that nothing on disk is its own.
#[track_caller]
fn has_no_files_there_and_holds_up_nobody(mishap: fn(&Setup)) {
    let setup = Setup::new();
    let hidden = ("rds.yaml", "a: 1\n");
    setup.put("a", &[hidden]);
    setup.put("b", &[("rds.yaml", "b: 1\n")]);
    let process = setup.start(&FOLLOW);
    process.wait_for_line(PUBLISHED);
    process.signal(Signal::KILL);
    process.finish();
    mishap(&setup);
    setup.put("b", &[("rds.yaml", "b: 2\n")]);
    let process = setup.start(&FOLLOW);
    process.wait_for_line(PUBLISHED);
    setup.assert_found(&[("rds.yaml", "b: 2\n")]);
    until_ready(&setup);
    setup.put("b", &[("rds.yaml", "b: 3\n")]);
    setup.until_found(&[("rds.yaml", "b: 3\n")]);
    // It counts again once it is good.
    setup.server.set_accounts(Vec::new());
    setup.put("a", &[hidden, A]);
    setup.until_found(&[A, ("rds.yaml", "b: 3\n")]);
}

#[test]
fn a_configmap_without_files_on_disk_delays_no_other_after_a_restart() {
    has_no_files_there_and_holds_up_nobody(DELETED.0);
    has_no_files_there_and_holds_up_nobody(EMPTIED.0);
    has_no_files_there_and_holds_up_nobody(BAD.0);
    has_no_files_there_and_holds_up_nobody(|setup| {
        let rule = Rule::new("", "configmaps", &["list", "watch"]).named(&["b"]);
        setup
            .server
            .set_accounts(vec![Account::anonymous(vec![rule])]);
    });
}

#[test]
fn a_configmap_whose_answers_cannot_be_used_delays_no_other_after_a_restart() {
    let bodies = [b"no JSON".to_vec(), vec![b' '; 9 << 20]];
    for (body, has_files) in bodies
        .into_iter()
        .flat_map(|body| [(body.clone(), true), (body, false)])
    {
        let setup = Setup::new();
        setup.put("a", &[if has_files { A } else { B }]);
        setup.put("b", &[B]);
        setup.succeed(&["-onetime", "-configmap=a", "-configmap=b"]);
        setup.put("b", &[B2]);
        let fault = Fault::Answer {
            status: 200,
            headers: vec![("Content-Type".into(), "application/json".into())],
            body,
        };
        setup.fail_next(usize::MAX, fault, |request| request.names("a"));
        let process = setup.start(&FOLLOW);
        process.wait_for_line(PUBLISHED);
        setup.assert_found(if has_files { &[A, B2] } else { &[B2] });
        until_ready(&setup);
        process.wait_for_line("the API server's answer cannot be used");
        process.stop();
        // Who ends has to have the answer, and asks for it as long as it may.
        let asked = setup.server.requests().len();
        let life = [&FOLLOW[1..], &["-onetime", "-onetime-timeout=0"]].concat();
        let process = setup.start(&life);
        setup
            .server
            .wait_for_requests("lists of a", 2, |r| r.number > asked && r.names("a"));
        process.wait_for_line("the API server's answer cannot be used");
        let stderr = process.stop().stderr;
        assert!(stderr.contains("stopped by a signal"), "{stderr}");
    }
}

/// Waits until the probe says that an Envoy can start.
#[track_caller]
fn until_ready(setup: &Setup) {
    until("to be ready", || {
        let probe = Crossover::run(&["-ready", "-output-dir", &setup.path("out")]);
        (probe.code == Some(0)).then_some(())
    });
}

/// Before the next life, in which ConfigMap `a` is gone.
#[track_caller]
fn keeps_what_is_intact_of_it(spoil: fn(&Path)) {
    let setup = both();
    setup.succeed(&["-onetime", "-configmap=a", "-configmap=b"]);
    setup.server.delete("ConfigMap", "a");
    spoil(&setup.output());
    setup.put("b", &[B2]);
    let process = setup.start(&FOLLOW);
    process.wait_for_line(PUBLISHED);
    setup.assert_found(&[A, B2]);
    until_ready(&setup);
}

#[test]
fn what_is_intact_of_a_deleted_configmap_stays_whatever_happened_to_other_files() {
    keeps_what_is_intact_of_it(|output| {
        fs::write(output.join("current/b.yaml"), "by hand\n").unwrap();
    });
    keeps_what_is_intact_of_it(|output| fs::remove_file(output.join(".sets/done")).unwrap());
    keeps_what_is_intact_of_it(|output| {
        let link = output.join("current/b.yaml");
        fs::remove_file(&link).unwrap();
        fs::write(link, "by hand\n").unwrap();
    });
    // Of its own file, the one that was published.
    keeps_what_is_intact_of_it(|output| {
        let link = output.join("current/a.yaml");
        fs::remove_file(&link).unwrap();
        fs::write(link, "by hand\n").unwrap();
    });
}

#[test]
fn what_holds_everything_up_is_in_the_log_and_in_the_probe_s_answer() {
    let setup = Setup::new();
    setup.put("a", &[A]);
    let process = setup.start(&FOLLOW);
    let warning = process.wait_for_line(HELD_UP);
    let warning = &events(&warning)[0];
    assert_eq!(warning["level"], "warn");
    let reason = warning["error"].as_str().unwrap();
    assert!(
        reason.contains("configmaps default/b: it does not exist"),
        "{reason}"
    );
    let probe = Crossover::run(&["-ready", "-output-dir", &setup.path("out")]);
    assert!(probe.stderr.contains(reason), "{}", probe.stderr);
    setup.put("b", &[B]);
    setup.until_found(&[A, B]);
    let over = process.wait_for_line("nothing keeps files from being published any more");
    let over = &events(&over)[0];
    assert_eq!(over["level"], "info");
    assert!(
        over["lasted_s"].as_u64() >= warning["lasts_s"].as_u64(),
        "{over}"
    );
}

#[track_caller]
fn publishes_nothing_until_all_are_there(flags: &[&str]) {
    let setup = Setup::new();
    setup.put("a", &[A]);
    setup.put("c", &[("c.yaml", "c: [1\n")]);
    let flags = [flags, &["-configmap=c"]].concat();
    let process: Crossover = setup.start(&flags);
    // They are looked at more than once, and each is warned of once.
    for name in ["a", "b", "c"] {
        setup
            .server
            .wait_for_requests("looks", 3, |r| r.is_metadata_only() && r.names(name));
    }
    if flags.contains(&"-watch") {
        // They are listed again, as they were.
        setup.server.wait_for_watches(3);
        setup.server.inject(GONE, |_| true);
        for name in ["a", "b", "c"] {
            setup.server.wait_for_requests("lists", 2, |r| {
                r.is_list() && !r.is_metadata_only() && r.names(name)
            });
        }
        setup.server.wait_for_watches(3);
    }
    setup.put("b", &[B]);
    setup
        .server
        .wait_for_request("the list of b", |r| r.names("b") && !r.is_metadata_only());
    assert_eq!(setup.found().unwrap_or_default(), Default::default());
    setup.put("c", &[("c.yaml", "c: 1\n")]);
    process.wait_for_line(PUBLISHED);
    setup.assert_found(&[A, B, ("c.yaml", "c: 1\n")]);
    let stderr = process.stop().stderr;
    assert_eq!(setup.set(), 1);
    let warnings: Vec<_> = events(&stderr)
        .into_iter()
        .filter(|event| event["level"] == "warn")
        .collect();
    let of = |name: &str| {
        warnings
            .iter()
            .filter(|event| event["configmap"] == name)
            .count()
    };
    // On a slow machine, also of what holds all up.
    let others = events_with(&stderr, HELD_UP).len();
    assert_eq!(
        (of("default/b"), of("default/c"), warnings.len() - others),
        (1, 1, 2),
        "{stderr}"
    );
    assert_eq!(stderr.matches(PUBLISHED).count(), 1);
}

#[test]
fn a_first_start_publishes_nothing_until_every_configmap_is_there_and_parses() {
    publishes_nothing_until_all_are_there(&[&FOLLOW, &["-sync-interval=200ms"][..]].concat());
}

#[test]
fn a_first_start_without_watch_does_the_same() {
    publishes_nothing_until_all_are_there(&POLL);
}

#[test]
fn without_watch_changes_are_found_by_looking() {
    let setup = both();
    let process = setup.start(&POLL);
    setup.until_found(&[A, B]);
    setup.put("b", &[B2]);
    setup.until_found(&[A, B2]);
    assert_eq!(process.stop().code, Some(0));
    let requests = setup.server.requests();
    assert!(requests.iter().all(|request| !request.is_watch()));
    // Whole objects are asked for at the start, and where a look has found a change.
    let lists = |name: &str| {
        requests
            .iter()
            .filter(|r| !r.is_metadata_only() && r.names(name))
            .count()
    };
    assert_eq!((lists("a"), lists("b")), (1, 2));
}
