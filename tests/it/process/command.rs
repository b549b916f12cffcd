//! `crossover [flags] -- command`: when it starts, what is passed on to it, and how it ends.

use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;
use std::time::{Duration, Instant};
use testkit::apiserver::faults::{Fault, Misbehaviour};
use testkit::apiserver::request::Request;
use testkit::crossover::Crossover;
use testkit::processes::children;
use testkit::setup::Setup;
use testkit::stopwatch::Stopwatch;
use testkit::until;

const A: (&str, &str) = ("a.yaml", "a: 1\n");
const WRAP: [&str; 2] = ["-configmap=a", "--"];
/// The time that the API server has before files of a previous run are used.
const FRESH: Duration = Duration::from_secs(5);
/// The longest that passing on a signal, or ending, may take.
const AT_ONCE: Duration = Duration::from_millis(100);

fn with_a() -> Setup {
    let setup = Setup::new();
    setup.put("a", &[A]);
    setup
}

/// A command that says so, then sleeps, and ends when it is told to.
const SLEEPS: [&str; 3] = ["sh", "-c", "echo runs; exec sleep 60"];

#[track_caller]
fn start(setup: &Setup, flags: &[&str], command: &[&str]) -> Crossover {
    setup.start(&[flags, &WRAP, command].concat())
}

/// Starts a script, and waits until it says that it runs.
#[track_caller]
fn start_script(setup: &Setup, flags: &[&str], script: &str) -> Crossover {
    let process = start(setup, flags, &["sh", "-c", script]);
    until_runs(&process);
    process
}

#[track_caller]
fn until_runs(process: &Crossover) {
    process.wait_for_stdout("the command to run", |text| text.contains("runs\n"));
}

/// The command's process.
#[track_caller]
fn child(process: &Crossover) -> u32 {
    let children = children(process.pid());
    assert_eq!(children.len(), 1, "{children:?}");
    children[0]
}

#[track_caller]
fn ends_with(process: Crossover, code: i32) -> String {
    let finished = process.finish();
    assert_eq!(finished.code, Some(code), "{}", finished.stderr);
    finished.stderr
}

/// The same, at once.
#[track_caller]
fn ends_at_once_with(process: Crossover, code: i32, watch: &Stopwatch) -> String {
    let (finished, took) = process.finish_timed(watch);
    assert_eq!(finished.code, Some(code), "{}", finished.stderr);
    assert!(took < AT_ONCE, "{took:?}");
    finished.stderr
}

#[test]
fn it_starts_once_the_first_set_is_published_which_is_then_kept_in_step() {
    let setup = Setup::new();
    let script = format!(
        "cat {}/current/a.yaml; echo runs; exec sleep 60",
        setup.path("out")
    );
    let process = start(&setup, &[], &["sh", "-c", &script]);
    process.wait_for_line("ConfigMap not found");
    assert!(children(process.pid()).is_empty());
    setup.put("a", &[A]);
    process.wait_for_stdout("the file, then the rest", |text| text == "a: 1\nruns\n");
    setup.put("a", &[("a.yaml", "a: 2\n")]);
    setup.until_found(&[("a.yaml", "a: 2\n")]);
    assert_eq!(setup.server.watch_count(), 1, "-- implies -watch");
    assert_eq!(process.measure().threads, 1);
}

#[test]
fn it_is_polled_for_where_that_is_wanted() {
    let setup = with_a();
    let process = start(&setup, &["-watch=false", "-sync-interval=100ms"], &SLEEPS);
    until_runs(&process);
    setup.put("a", &[("a.yaml", "a: 2\n")]);
    setup.until_found(&[("a.yaml", "a: 2\n")]);
    assert_eq!(setup.server.count_requests(|request| request.is_watch()), 0);
}

#[test]
fn it_starts_on_files_of_a_previous_run_after_5_s_without_the_api_server_and_says_so() {
    let setup = with_a();
    setup.succeed(&["-onetime", "-configmap=a"]);
    setup.server.go_away();
    let started = Instant::now();
    let process = start(&setup, &[], &SLEEPS);
    until_runs(&process);
    let took = started.elapsed();
    assert!(took >= FRESH, "{took:?}");
    let said = process.wait_for_line(
        "the cluster's state is not known yet; starting the command with files of a previous run",
    );
    assert!(
        said.contains(" WARN ") && said.contains("failed to list"),
        "{said}"
    );
    // And then it is as ever.
    setup.server.come_back();
    setup.put("a", &[("a.yaml", "a: 2\n")]);
    setup.until_found(&[("a.yaml", "a: 2\n")]);
    let known = "the cluster's state is known now; the command's files follow it lasted_s=";
    process.wait_for_line(known);
    let stderr = process.stop().stderr;
    assert_eq!(stderr.matches(known).count(), 1, "{stderr}");
}

#[test]
fn without_any_files_it_waits_and_warns_for_every_failure() {
    let away: fn(&Setup) = |setup| setup.server.go_away();
    let absent: fn(&Setup) = |setup| setup.server.delete("ConfigMap", "a");
    let bad: fn(&Setup) = |setup| drop(setup.put("a", &[("a.yaml", "a: [")]));
    let back: fn(&Setup) = |setup| setup.server.come_back();
    let good: fn(&Setup) = |setup| drop(setup.put("a", &[A]));
    let all = [
        (away, "failed to list configmaps", back),
        (absent, "it does not exist", good),
        (bad, "invalid ConfigMap default/a: a.yaml: line 1", good),
    ];
    let all = all.map(|(trouble, reason, mend)| {
        let setup = with_a();
        trouble(&setup);
        let process = start(&setup, &[], &SLEEPS);
        (setup, process, reason, mend)
    });
    for (setup, process, reason, mend) in all {
        let said =
            process.wait_for_line("the command is not started yet; waiting for the first files");
        assert!(said.contains(" WARN ") && said.contains(reason), "{said}");
        assert!(children(process.pid()).is_empty());
        mend(&setup);
        until_runs(&process);
        let started = process.wait_for_line("command started after a wait for its first files");
        assert!(started.contains(" lasted_s="), "{started}");
    }
}

#[test]
fn a_directory_that_cannot_be_written_is_waited_for_too() {
    let setup = with_a();
    fs::write(setup.output(), "no directory").unwrap();
    let process = start(&setup, &[], &SLEEPS);
    let said = process.wait_for_line("the command is not started yet; waiting for the first files");
    assert!(said.contains("failed to create"), "{said}");
    fs::remove_file(setup.output()).unwrap();
    until_runs(&process);
}

#[test]
fn before_it_runs_signals_end_the_program_at_once_but_those_that_only_it_knows() {
    for signal in [Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT] {
        let setup = Setup::new();
        let process = start(&setup, &[], &SLEEPS);
        process.wait_for_line("ConfigMap not found");
        process.signal(Signal::USR1);
        process.signal(Signal::USR2);
        let watch = Stopwatch::start();
        process.signal(signal);
        let stderr = ends_at_once_with(process, 0, &watch);
        assert!(stderr.contains("stopped by a signal"), "{stderr}");
    }
    // Nor do they reach it later.
    let setup = Setup::new();
    let process = start(&setup, &[], &SLEEPS);
    process.wait_for_line("ConfigMap not found");
    process.signal(Signal::USR1);
    setup.put("a", &[A]);
    until_runs(&process);
    process.signal(Signal::TERM);
    ends_with(process, 128 + 15);
}

#[test]
fn before_it_runs_a_signal_cuts_a_request_short() {
    let setup = with_a();
    let freeze = Misbehaviour::new(Fault::Freeze, Request::is_list);
    setup.server.misbehave(freeze);
    let process = start(&setup, &[], &SLEEPS);
    setup.server.wait_for_request("a list", Request::is_list);
    let watch = Stopwatch::start();
    process.signal(Signal::QUIT);
    ends_at_once_with(process, 0, &watch);
}

/// A shell that says which signal it got, and goes on; `read` waits without a child of its own.
fn traps(signals: &str) -> String {
    let traps = signals
        .split(' ')
        .map(|name| format!("trap 'echo {name}' {name}; "));
    let traps: String = traps.collect();
    format!("{traps} mkfifo \"$0\"; exec 3<>\"$0\"; echo runs; while :; do read x <&3; done")
}

fn start_traps(setup: &Setup, flags: &[&str], signals: &str) -> Crossover {
    let fifo = setup.path("fifo");
    let process = start(setup, flags, &["sh", "-c", &traps(signals), &fifo]);
    until_runs(&process);
    process
}

#[test]
fn every_signal_for_it_is_passed_on_and_publishing_goes_on() {
    let setup = with_a();
    let process = start_traps(&setup, &[], "TERM INT HUP QUIT USR1 USR2");
    let all = [
        Signal::TERM,
        Signal::INT,
        Signal::HUP,
        Signal::QUIT,
        Signal::USR1,
        Signal::USR2,
    ];
    let names = ["TERM", "INT", "HUP", "QUIT", "USR1", "USR2"];
    for (number, (signal, name)) in all.into_iter().zip(names).enumerate() {
        process.signal(signal);
        process.wait_for_stdout(name, |text| text.ends_with(&format!("\n{name}\n")));
        let text = format!("a: {}\n", number + 2);
        setup.put("a", &[("a.yaml", &text)]);
        setup.until_found(&[("a.yaml", &text)]);
    }
    let pid = Pid::from_raw(child(&process) as i32).unwrap();
    kill_process(pid, Signal::KILL).unwrap();
    ends_with(process, 128 + 9);
}

#[test]
fn a_signal_is_passed_on_in_the_middle_of_a_request_that_goes_on() {
    let setup = with_a();
    let process = start_traps(&setup, &["-sync-interval=1s"], "TERM USR1");
    let slow = Misbehaviour::new(Fault::Freeze, Request::is_metadata_only);
    setup.server.misbehave(slow);
    let looks = |request: &Request| request.is_metadata_only();
    setup.server.wait_for_request("a look", looks);
    for _ in 0..5 {
        let (before, watch) = (setup.server.requests().len(), Stopwatch::start());
        process.signal(Signal::USR1);
        process.signal(Signal::TERM);
        process.wait_for_stdout("both", |text| {
            text.contains("USR1") && text.contains("TERM")
        });
        let took = watch.took_at_once();
        assert!(took < AT_ONCE, "{took:?}");
        assert_eq!(
            setup.server.requests().len(),
            before,
            "it was not made again"
        );
    }
}

#[test]
fn its_exit_code_is_the_program_s_at_once() {
    let setup = with_a();
    for (script, code) in [
        ("exit 0", 0),
        ("exit 1", 1),
        ("exit 42", 42),
        ("exit 255", 255),
        ("kill -TERM $$", 128 + 15),
        ("kill -KILL $$", 128 + 9),
        ("kill -SEGV $$", 128 + 11),
    ] {
        let process = start(&setup, &[], &["sh", "-c", script]);
        let stderr = ends_with(process, code);
        assert!(
            stderr.contains(&format!("command exited code={code}")),
            "{stderr}"
        );
    }
    let process = start(&setup, &[], &SLEEPS);
    until_runs(&process);
    let pid = Pid::from_raw(child(&process) as i32).unwrap();
    let watch = Stopwatch::start();
    kill_process(pid, Signal::INT).unwrap();
    ends_at_once_with(process, 128 + 2, &watch);
}

#[test]
fn a_command_that_cannot_be_started_is_126_and_one_that_is_not_found_127() {
    let setup = with_a();
    let plain = setup.path("plain");
    fs::write(&plain, "no program").unwrap();
    for (command, code) in [
        ("no-such-command", 127),
        ("/no/such/command", 127),
        (plain.as_str(), 126),
        ("/", 126),
    ] {
        let stderr = ends_with(start(&setup, &[], &[command]), code);
        let last = stderr.lines().last().unwrap();
        let said = format!("ERROR failed to start {command}: ");
        assert!(last.contains(&said), "{stderr}");
    }
}

#[test]
fn the_path_is_searched_and_the_arguments_and_the_environment_are_the_commands() {
    let setup = with_a();
    let mut command = setup.command(&["-configmap=a", "--"]);
    command.args([
        "sh",
        "-c",
        "echo \"$0|$*|$X\"",
        "-h",
        "--",
        "two words",
        "",
        "-onetime",
    ]);
    command.env("X", "y=z");
    let finished = Crossover::spawn(command).finish();
    assert_eq!(
        finished.stdout, "-h|-- two words  -onetime|y=z\n",
        "{}",
        finished.stderr
    );
}

#[test]
fn it_starts_with_default_dispositions_an_empty_mask_and_no_inherited_descriptor() {
    let setup = with_a();
    let inner = setup.command(&[&WRAP[..], &["sh", "-c", "echo runs; exec sleep 60"]].concat());
    // All that can be ignored is ignored, all that can be blocked is blocked, and two descriptors
    // are open.
    let script = "import os, signal, sys\n\
        os.dup2(os.open('/dev/null', os.O_RDONLY), 7); os.dup2(7, 100)\n\
        for s in signal.valid_signals():\n\
        \x20   if s not in (9, 19): signal.signal(s, signal.SIG_IGN)\n\
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())\n\
        os.execv(sys.argv[1], sys.argv[1:])";
    let mut command = Command::new("python3");
    command
        .args(["-c", script])
        .arg(inner.get_program())
        .args(inner.get_args());
    let process = Crossover::spawn(command);
    until_runs(&process);
    let pid = until("the command to be another program", || {
        let pid = child(&process);
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        (name == "sleep\n").then_some(pid)
    });
    let of = |pid: u32, key: &str| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find(|line| line.starts_with(key)).unwrap();
        line.split_whitespace().nth(1).unwrap().to_string()
    };
    // 32 to 34 are the C library's own: it sets them itself when it needs them.
    let of = |pid, key| u64::from_str_radix(&of(pid, key), 16).unwrap() & !(0b111 << 31);
    assert_ne!(of(process.pid(), "SigIgn"), 0, "the test tests something");
    for key in ["SigIgn", "SigCgt", "SigBlk"] {
        assert_eq!(of(pid, key), 0, "{key}");
    }
    let open = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let mut open: Vec<_> = open.map(|entry| entry.unwrap().file_name()).collect();
    open.sort();
    assert_eq!(open, ["0", "1", "2"]);
    assert!(fs::exists(format!("/proc/{}/fd/100", process.pid())).unwrap());
    // What was blocked for the program is passed on, and its end is noticed.
    process.signal(Signal::USR1);
    ends_with(process, 128 + 10);
}

#[test]
fn as_process_1_it_reaps_every_orphan() {
    let setup = with_a();
    // Each is left to process 1 by a shell that ends first.
    let script = "for i in 1 2 3 4 5 6 7 8 9; do sh -c 'sh -c \"exit 3\" & exit 0'; done; \
        sh -c 'sleep 0.2 & exit 0'; echo runs; exec sleep 60";
    let inner = setup.command(&[&WRAP[..], &["sh", "-c", script]].concat());
    let mut command = Command::new("unshare");
    command.args(["--fork", "--pid", "--mount-proc", "--kill-child"]);
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.arg(inner.get_program()).args(inner.get_args());
    let shell = Crossover::spawn(command);
    until_runs(&shell);
    let first = child(&shell);
    until("all but the command to be gone", || {
        (children(first).len() == 1).then_some(())
    });
    let pid = Pid::from_raw(first as i32).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    ends_with(shell, 128 + 15);
}

#[test]
fn an_error_of_the_program_s_own_never_takes_it_down() {
    let setup = with_a();
    let process = start_traps(&setup, &[], "USR1");
    setup.server.wait_for_watches(1);
    // No wait can have more descriptors than a process may have.
    let limit = Rlimit {
        current: Some(1),
        maximum: Some(1),
    };
    let pid = Pid::from_raw(process.pid() as i32).unwrap();
    prlimit(Some(pid), Resource::Nofile, limit).unwrap();
    setup.put("a", &[("a.yaml", "a: 2\n")]);
    process.wait_for_line("ERROR failed to wait for input");
    for _ in 0..3 {
        process.signal(Signal::USR1);
        process.wait_for_stdout("it to be passed on", |text| text.ends_with("USR1\n"));
    }
    let cpu = process.measure().cpu_ns;
    std::thread::sleep(Duration::from_millis(300));
    assert!(process.measure().cpu_ns - cpu < 50_000_000, "it spins");
    process.signal(Signal::TERM);
    ends_with(process, 128 + 15);
}

/// Envoy's admin port, as far as a drain knows it: answers with this, once.
fn admin(answer: &'static str) -> (String, std::thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("-envoy-admin=http://{}", listener.local_addr().unwrap());
    listener.set_nonblocking(true).unwrap();
    let serving = std::thread::spawn(move || {
        let mut stream = until("a request", || Some(listener.accept().ok()?.0));
        stream.set_nonblocking(false).unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            request.extend(byte);
        }
        stream.write_all(answer.as_bytes()).unwrap();
        String::from_utf8(request).unwrap()
    });
    (url, serving)
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nOK\n";
const NO: &str = "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";

#[test]
fn a_drain_is_asked_for_then_waited_for_then_the_signal_is_passed_on() {
    let setup = with_a();
    let (url, serving) = admin(OK);
    let process = start_traps(&setup, &["-drain=2s", &url], "TERM");
    let watch = Stopwatch::start();
    process.signal(Signal::TERM);
    let request = serving.join().unwrap();
    assert!(
        request.starts_with("POST /drain_listeners?graceful HTTP/1.1\r\n"),
        "{request}"
    );
    assert!(
        !request.to_lowercase().contains("authorization"),
        "{request}"
    );
    process.wait_for_line("Envoy is draining; waiting before SIGTERM is forwarded");
    // Meanwhile all goes on.
    setup.put("a", &[("a.yaml", "a: 2\n")]);
    setup.until_found(&[("a.yaml", "a: 2\n")]);
    assert!(!process.wait_for_stdout("it", |_| true).contains("TERM"));
    process.wait_for_stdout("the signal", |text| text.contains("TERM"));
    assert!(
        watch.elapsed() >= Duration::from_secs(2),
        "{:?}",
        watch.elapsed()
    );
    assert!(watch.took() < Duration::from_secs(8), "{:?}", watch.took());
}

#[test]
fn a_drain_waits_all_the_same_where_envoy_does_not_answer_well() {
    let setup = with_a();
    let (refusing, serving) = admin(NO);
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = format!("-envoy-admin=http://{}", silent.local_addr().unwrap());
    for url in [&refusing, "-envoy-admin=http://127.0.0.1:1", &silent] {
        let process = start_script(&setup, &["-drain=500ms", url], SLEEPS[2]);
        let began = Instant::now();
        process.signal(Signal::TERM);
        process.wait_for_line("WARN  Envoy cannot be told to drain");
        ends_with(process, 128 + 15);
        assert!(began.elapsed() >= Duration::from_millis(500));
    }
    serving.join().unwrap();
}

#[test]
fn a_second_sigterm_and_every_other_signal_are_passed_on_at_once() {
    let setup = with_a();
    for second in [Signal::TERM, Signal::INT, Signal::QUIT] {
        let (url, serving) = admin(OK);
        let process = start_script(&setup, &["-drain=1h", &url], SLEEPS[2]);
        process.signal(Signal::TERM);
        process.wait_for_line("Envoy is draining; waiting before SIGTERM is forwarded");
        serving.join().unwrap();
        process.signal(second);
        ends_with(process, 128 + second.as_raw());
    }
    // Also while Envoy is being asked.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("-envoy-admin=http://{}", listener.local_addr().unwrap());
    let process = start_script(&setup, &["-drain=1h", &url], SLEEPS[2]);
    process.signal(Signal::TERM);
    let _asked = listener.accept().unwrap();
    process.signal(Signal::TERM);
    ends_with(process, 128 + 15);
}

#[test]
fn a_drain_does_not_wait_for_the_api_server() {
    let setup = with_a();
    let (url, serving) = admin(OK);
    let process = start_traps(&setup, &["-sync-interval=1s", "-drain=100ms", &url], "TERM");
    let slow = Misbehaviour::new(Fault::Freeze, Request::is_metadata_only);
    setup.server.misbehave(slow);
    setup
        .server
        .wait_for_request("a look", Request::is_metadata_only);
    let watch = Stopwatch::start();
    process.signal(Signal::TERM);
    process.wait_for_stdout("the signal", |text| text.contains("TERM"));
    let took = watch.took();
    serving.join().unwrap();
    assert!(took < Duration::from_secs(3), "{took:?}");
}

#[test]
fn what_leaves_no_room_for_a_command_is_wrong_usage() {
    for (flags, said) in [
        (&["-configmap=a", "--"][..], "missing command after --"),
        (
            &["-configmap=a", "-onetime", "--", "true"],
            "cannot be used with a command",
        ),
        (
            &["-configmap=a", "-dry-run", "--", "true"],
            "cannot be used with a command",
        ),
        (&["-ready", "--", "true"], "cannot be used with a command"),
        (&["-live", "--", "true"], "cannot be used with a command"),
        (
            &["-configmap=a", "-drain=1s", "-onetime"],
            "-drain cannot be combined with -onetime or -dry-run",
        ),
        (
            &["-configmap=a", "-drain=1s", "-dry-run"],
            "-drain cannot be combined with -onetime or -dry-run",
        ),
        (&["-configmap=a", "-drain=x"], "for flag -drain"),
        (
            &["-configmap=a", "-onetime-timeout=1s"],
            "-onetime-timeout requires -onetime",
        ),
        (
            &["-configmap=a", "-stale-ok=1s", "-watch"],
            "-stale-ok requires -onetime",
        ),
        (
            &["-configmap=a", "-onetime", "-stale-ok=1"],
            "invalid value \"1\" for flag -stale-ok",
        ),
        (
            &["-configmap=a", "-drain=x", "--", "true"],
            "for flag -drain",
        ),
        (
            &[
                "-configmap=a",
                "-drain=1s",
                "-envoy-admin=https://x",
                "--",
                "true",
            ],
            "for flag -envoy-admin: must be http://HOST[:PORT] or unix:PATH",
        ),
        (
            &["-configmap=a", "-envoy-admin=unix:@admin"],
            "for flag -envoy-admin: a socket without a path is open to all of the pod",
        ),
        (
            &["-configmap=a", "-envoy-admin=unix:admin"],
            "for flag -envoy-admin: the path must begin with a slash",
        ),
        (
            &["-configmap=a", "-on-refusal=yes"],
            "for flag -on-refusal: must be off, warn or restore",
        ),
        (
            &["-configmap=a", "-on-refusal=warn", "-onetime"],
            "-on-refusal cannot be combined with -onetime or -dry-run",
        ),
        (
            &["-configmap", "--", "true"],
            "flag needs an argument: -configmap",
        ),
        (&["--", "true"], "-configmap is required"),
    ] {
        let flags = [&["-namespace=default"], flags].concat();
        let finished = Crossover::run(&flags);
        assert_eq!(finished.code, Some(2), "{flags:?}: {}", finished.stderr);
        assert!(
            finished.stderr.contains(said),
            "{flags:?}: {}",
            finished.stderr
        );
    }
    assert_eq!(Crossover::run(&["-h", "--", "true"]).code, Some(0));
}

#[test]
fn probes_know_the_program_behind_a_command() {
    let setup = with_a();
    let process = start(&setup, &[], &SLEEPS);
    until_runs(&process);
    let output = setup.path("out");
    for probe in ["-ready", "-live"] {
        until(probe, || {
            let finished = Crossover::run(&[probe, "-output-dir", &output]);
            (finished.code == Some(0)).then_some(())
        });
    }
}
