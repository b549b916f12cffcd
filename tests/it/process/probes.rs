//! `-ready`, `-live` and `-accepted`: what they say in every state, and that asking costs and
//! disturbs nothing. What Envoy itself makes of files is in other tests.

use rustix::process::Signal;
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};
use testkit::apiserver::access::{Account, Rule};
use testkit::crossover::{Crossover, Finished, program};
use testkit::objects::config_map;
use testkit::setup::Setup;
use testkit::until;

const A: (&str, &str) = ("a.yaml", "a: 1\n");
const FOLLOW: [&str; 3] = ["-watch", "-sync-interval=1h", "-configmap=a"];
/// The time for which the API server may be silent.
const SILENT: Duration = Duration::from_secs(10);

fn with_a() -> Setup {
    let setup = Setup::new();
    setup.put("a", &[A]);
    setup
}

/// A directory with a whole set, whose writer is gone.
fn with_an_earlier_life() -> Setup {
    let setup = with_a();
    setup.succeed(&["-onetime", "-configmap=a"]);
    setup
}

/// Asks; `None` is exit 0, else what is said.
#[track_caller]
fn ask(setup: &Setup, probe: &str) -> Option<String> {
    let output = setup.path("out");
    let finished = Crossover::run(&[probe, "-output-dir", &output]);
    assert_eq!(finished.stdout, "");
    match finished.code {
        Some(0) => {
            assert_eq!(finished.stderr, "");
            None
        }
        Some(1) => {
            assert_eq!(finished.stderr.lines().count(), 1, "{}", finished.stderr);
            Some(finished.stderr)
        }
        _ => panic!("{finished:?}"),
    }
}

/// Waits until the answer is no, for this reason.
#[track_caller]
fn until_not_ready(setup: &Setup, reason: &str) {
    until(&format!("not to be ready: {reason}"), || {
        ask(setup, "-ready").filter(|said| said.contains(reason))
    });
}

#[track_caller]
fn until_ready(setup: &Setup) {
    until("to be ready", || {
        ask(setup, "-ready").is_none().then_some(())
    });
}

/// Starts it and waits until it is ready, which takes until the API server counts as silent.
#[track_caller]
fn ready_after_silence(setup: &Setup) {
    let started = Instant::now();
    let _process = setup.start(&FOLLOW);
    until_not_ready(setup, "not ready: ");
    until_ready(setup);
    let took = started.elapsed();
    assert!(took >= SILENT, "{took:?}");
}

#[test]
fn ready_once_every_configmap_is_read_and_published_and_from_then_on() {
    let setup = with_a();
    let process = setup.start(&[&FOLLOW[..], &["-configmap=b"]].concat());
    until_not_ready(&setup, "default/b: it does not exist");
    setup.put("b", &[("b.yaml", "b: [")]);
    until_not_ready(&setup, "invalid ConfigMap default/b: b.yaml: line 1");
    setup.put("b", &[("b.yaml", "b: 1\n")]);
    until_ready(&setup);
    // Nothing that happens later takes that back.
    setup.server.delete("ConfigMap", "b");
    process.wait_for_line("ConfigMap not found");
    assert_eq!(ask(&setup, "-ready"), None);
    setup.server.go_away();
    process.wait_for_line("the API server is away");
    assert_eq!(ask(&setup, "-ready"), None);
}

#[test]
fn not_ready_before_the_splits_are_read() {
    let setup = with_a();
    let configmaps = Rule::new("", "configmaps", &["get", "list", "watch"]);
    setup
        .server
        .set_accounts(vec![Account::anonymous(vec![configmaps])]);
    let process = setup.start(&[&FOLLOW[..], &["-trafficsplit=s"]].concat());
    until_not_ready(&setup, "a TrafficSplit has not been read yet");
    // Then the ConfigMaps' own weights go out.
    until_ready(&setup);
    process.wait_for_line("INFO  published ");
}

#[test]
fn ready_once_the_set_of_a_previous_run_is_found_equal_and_not_before() {
    let setup = with_an_earlier_life();
    setup.server.go_away();
    let process = setup.start(&FOLLOW);
    until_not_ready(&setup, "failed to list configmaps default/a");
    setup.server.come_back();
    until_ready(&setup);
    assert!(!process.stop().stderr.contains("INFO  published"));
    assert_eq!(setup.set(), 1);
}

#[test]
fn ready_on_a_whole_set_of_a_previous_run_once_the_api_server_was_silent_for_10_s() {
    let setup = with_an_earlier_life();
    setup.server.go_away();
    ready_after_silence(&setup);
}

#[test]
fn ready_on_it_whatever_was_edited_by_hand_in_it_and_where_it_was_never_synced() {
    let spoils: [fn(&Setup); 3] = [
        |setup| fs::write(setup.output().join("current/a.yaml"), "by: hand\n").unwrap(),
        |setup| {
            let link = setup.output().join("current/a.yaml");
            fs::remove_file(&link).unwrap();
            fs::write(link, "by: hand\n").unwrap();
        },
        |setup| fs::remove_file(setup.output().join(".sets/done")).unwrap(),
    ];
    // Side by side, as each takes its 10 s.
    std::thread::scope(|scope| {
        for spoil in spoils {
            scope.spawn(move || {
                let setup = with_an_earlier_life();
                spoil(&setup);
                setup.server.go_away();
                ready_after_silence(&setup);
            });
        }
    });
}

#[test]
fn without_a_whole_set_silence_makes_nothing_ready_but_does_not_kill() {
    let setup = with_a();
    setup.server.go_away();
    let process = setup.start(&FOLLOW);
    process.wait_for_line("the API server is away");
    let silent = Instant::now() + SILENT + Duration::from_millis(500);
    while Instant::now() < silent {
        until_not_ready(&setup, "failed to list configmaps default/a");
        assert_eq!(ask(&setup, "-live"), None);
    }
}

#[test]
fn ready_on_a_whole_set_of_a_previous_run_if_a_source_is_absent_bad_or_forbidden() {
    let mishaps: [fn(&Setup); 3] = [
        |setup| setup.server.delete("ConfigMap", "a"),
        |setup| {
            setup.put("a", &[("a.yaml", "a: [")]);
        },
        |setup| setup.server.set_accounts(vec![Account::anonymous(vec![])]),
    ];
    for mishap in mishaps {
        let setup = with_an_earlier_life();
        mishap(&setup);
        let _process = setup.start(&FOLLOW);
        until_ready(&setup);
        setup.assert_found(&[A]);
    }
    // One that no previous run has published either.
    let setup = with_an_earlier_life();
    let _process = setup.start(&[&FOLLOW[..], &["-configmap=b"]].concat());
    until_ready(&setup);
}

#[test]
fn without_a_crossover_neither_ready_nor_alive() {
    let setup = with_an_earlier_life();
    let none = format!("crossover: no crossover holds {}\n", setup.path("out"));
    let nobody = || {
        assert_eq!(ask(&setup, "-ready").as_ref(), Some(&none));
        assert_eq!(ask(&setup, "-live").as_ref(), Some(&none));
    };
    nobody();
    // However the last one ended.
    for signal in [Signal::TERM, Signal::KILL] {
        let process = setup.start(&FOLLOW);
        until_ready(&setup);
        process.signal(signal);
        process.finish();
        nobody();
    }
    fs::remove_dir_all(setup.output()).unwrap();
    nobody();
}

#[test]
fn without_the_question_nothing_is_known_of_envoy_and_that_is_said() {
    let setup = with_a();
    let accepted = || Crossover::run(&["-accepted", "-output-dir", &setup.path("out")]);
    let none = format!("crossover: no crossover holds {}\n", setup.path("out"));
    let Finished { code, stderr, .. } = accepted();
    assert_eq!((code, stderr), (Some(1), none));
    let _process = setup.start(&FOLLOW);
    until_ready(&setup);
    let Finished {
        code,
        stdout,
        stderr,
        ..
    } = accepted();
    let said = "crossover: nothing is known of what Envoy made of the files: -on-refusal is off\n";
    assert_eq!(
        (code, stdout.as_str(), stderr.as_str()),
        (Some(0), "", said)
    );
}

/// Makes the last turn so much older.
#[track_caller]
fn age(setup: &Setup, seconds: i64) {
    let path = setup.output().join(".sets/.life");
    let line = fs::read_to_string(&path).unwrap();
    let (turned, rest) = line.split_once(' ').unwrap();
    let turned = turned.parse::<i64>().unwrap() - seconds;
    fs::write(&path, format!("{turned} {rest}")).unwrap();
}

#[test]
fn alive_until_two_minutes_or_three_sync_intervals_have_gone_by_without_a_turn() {
    for (interval, limit) in [("100ms", 120), ("41s", 123)] {
        let setup = with_a();
        let process = setup.start(&["-watch", "-configmap=a", "-sync-interval", interval]);
        until_ready(&setup);
        // It turns no more; time itself would pass too slowly.
        process.signal(Signal::STOP);
        assert_eq!(ask(&setup, "-live"), None);
        age(&setup, limit - 20);
        assert_eq!(ask(&setup, "-live"), None, "{interval}");
        age(&setup, 20);
        let said = ask(&setup, "-live").unwrap();
        assert!(said.contains("not alive: its loop last turned "), "{said}");
        assert_eq!(ask(&setup, "-ready"), None, "ready for life");
    }
    // The machine may not have run for so long: the limit stands beside the time.
    let setup = with_a();
    let _process = setup.start(&FOLLOW);
    until_ready(&setup);
    let line = fs::read_to_string(setup.output().join(".sets/.life")).unwrap();
    assert_eq!(line.split(' ').nth(1), Some("10800"), "{line}");
}

#[test]
fn the_loop_proves_that_it_turns_while_nothing_happens_and_the_server_is_away() {
    let setup = with_a();
    let process = setup.start(&["-watch", "-configmap=a", "-sync-interval=1s"]);
    until_ready(&setup);
    setup.server.go_away();
    process.wait_for_line("the API server is away");
    age(&setup, 120);
    until("it to tell that it turns", || {
        ask(&setup, "-live").is_none().then_some(())
    });
}

#[test]
fn all_take_under_2_ms() {
    const TIMES: u32 = 100;
    let setup = with_a();
    let _process = setup.start(&FOLLOW);
    until_ready(&setup);
    for probe in ["-ready", "-live", "-accepted"] {
        let mut cpu = Duration::ZERO;
        for _ in 0..TIMES {
            let process = Crossover::start(&[probe, "-output-dir", &setup.path("out")]);
            let (finished, measured) = process.finish_measured();
            assert_eq!(finished.code, Some(0), "{}", finished.stderr);
            cpu += Duration::from_nanos(measured.cpu_ns);
        }
        assert!(cpu / TIMES < Duration::from_millis(2), "{probe}: {cpu:?}");
    }
}

#[test]
fn all_open_one_file_for_reading_and_neither_lock_nor_wait() {
    let setup = with_a();
    let _process = setup.start(&FOLLOW);
    until_ready(&setup);
    for probe in ["-ready", "-live", "-accepted"] {
        let output = Command::new("strace")
            .args(["-f", "-s", "200"])
            .arg(program())
            .args([probe, "-output-dir", &setup.path("out")])
            .output()
            .expect("strace is missing: apt-get install strace");
        let calls = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{calls}");
        let ours: Vec<&str> = calls.lines().filter(|call| call.contains("/out")).collect();
        let mut ours = ours.iter().filter(|call| !call.starts_with("execve"));
        let open = ours.next().unwrap();
        assert!(open.contains(".life\", O_RDONLY"), "{calls}");
        assert_eq!(ours.next(), None, "{calls}");
        assert!(calls.contains("F_GETLK"), "{calls}");
        for never in [
            "flock(", "F_SETLK", "O_CREAT", "O_RDWR", "O_WRONLY", "socket(",
        ] {
            assert!(!calls.contains(never), "{calls}");
        }
        // By the calls: how often the kernel itself has a process wait is the machine's affair.
        let name = |call: &str| call.split('(').next().unwrap_or(call).to_owned();
        let may_wait = |call: &&str| {
            let words = [
                "poll", "select", "wait", "sleep", "futex", "pause", "sync", "clone", "fork",
            ];
            // The runtime asks whether its streams are open, which takes no time.
            let asks = call.starts_with("poll(") && call.contains(", 0) = ");
            words.iter().any(|word| name(call).contains(word)) && !asks
        };
        assert_eq!(calls.lines().find(may_wait), None, "{calls}");
    }
}

#[test]
fn a_hundred_in_a_row_disturb_nothing() {
    let setup = with_a();
    let process = setup.start(&[&FOLLOW[..], &["-log-format=json"]].concat());
    until_ready(&setup);
    for number in 0..50 {
        let text = format!("a: {number}\n");
        setup.put("a", &[("a.yaml", &text)]);
        assert_eq!((ask(&setup, "-ready"), ask(&setup, "-live")), (None, None));
        setup.until_found(&[("a.yaml", &text)]);
    }
    let stderr = process.stop().stderr;
    assert!(
        !stderr.contains("\"warn\"") && !stderr.contains("\"error\""),
        "{stderr}"
    );
}

#[test]
fn they_answer_through_a_read_only_mount_and_from_another_pid_namespace() {
    let setup = with_a();
    let _process = setup.start(&FOLLOW);
    until_ready(&setup);
    let mut command = Command::new("unshare");
    command.args(["--fork", "--pid", "--mount-proc", "--mount"]);
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    let script = "mount --bind -o ro \"$2\" \"$2\" && ! touch \"$2/x\" 2>&- \
        && for probe in -ready -live -accepted; do \"$1\" $probe -output-dir \"$2\"; done";
    command.args(["sh", "-ec", script, "sh"]).arg(program());
    let finished = Crossover::spawn({
        command.arg(setup.output());
        command
    });
    let finished = finished.finish();
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
}

#[test]
fn other_flags_may_stand_beside_them_and_nothing_else_is_needed() {
    let setup = Setup::https(false);
    setup.server.create(config_map("a", &[A]));
    let (token, output) = (
        format!("-token-file={}", setup.path("token")),
        setup.path("out"),
    );
    let ca = format!("-ca-file={}", setup.path("ca.crt"));
    let url = setup.server.url();
    let flags = [
        "-apiserver",
        &url,
        "-namespace=default",
        "-output-dir",
        &output,
    ];
    let flags = [
        &flags[..],
        &FOLLOW,
        &[&token, &ca, "-smi", "-log-format=json"],
    ]
    .concat();
    let _process = Crossover::start(&flags);
    until_ready(&setup);
    fs::remove_file(setup.path("token")).unwrap();
    for probe in ["-ready", "--ready", "-ready=true", "-live", "--live"] {
        assert_eq!(
            Crossover::run(&[&flags[..], &[probe, "-drain=9s"]].concat()).code,
            Some(0)
        );
    }
    for two in [["-ready", "-live"], ["-accepted", "-ready"]] {
        let Finished { code, stderr, .. } = Crossover::run(&two);
        assert_eq!(code, Some(2));
        let wrong = "-ready, -live and -accepted cannot be combined";
        assert!(stderr.contains(wrong), "{stderr}");
    }
}

#[test]
fn they_outlive_the_directory() {
    let setup = with_a();
    let _process = setup.start(&["-watch", "-configmap=a", "-sync-interval=100ms"]);
    until_ready(&setup);
    for spoilt in [setup.output(), setup.output().join(".sets/.life")] {
        // What is repaired meanwhile is removed again.
        until("it to be gone", || match spoilt.is_dir() {
            true => fs::remove_dir_all(&spoilt).ok(),
            false => fs::remove_file(&spoilt).ok(),
        });
        until_ready(&setup);
        assert_eq!(ask(&setup, "-live"), None);
    }
}

#[test]
fn what_does_not_stay_tells_nothing() {
    let setup = with_an_earlier_life();
    assert!(!setup.output().join(".sets/.life").exists());
    let process = setup.start(&[&FOLLOW[..], &["-dry-run"]].concat());
    process.wait_for_stdout("a manifest", |text| text.contains("kind: ConfigMap"));
    assert!(!setup.output().join(".sets/.life").exists());
}
