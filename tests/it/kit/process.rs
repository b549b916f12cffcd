//! The kit's hold on the program under test, tried on a shell that plays the program.

use rustix::process::Signal;
use std::process::Command;
use tempfile::TempDir;
use testkit::crossover::Crossover;
use testkit::{until, until_file};

fn shell(script: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script]);
    command
}

#[test]
fn lines_are_seen_while_the_process_runs() {
    let script = "echo one >&2; echo out; kill -STOP $$";
    let process = Crossover::spawn(shell(script));
    assert_eq!(process.wait_for_line("on"), "one");
    process.wait_for_stdout("a line", |text| text == "out\n");
    let measured = process.measure();
    assert_eq!(measured.threads, 1);
    assert!(
        measured.rss_kib > 0 && measured.peak_rss_kib >= measured.rss_kib,
        "{measured:?}"
    );
    assert!(
        measured.descriptors >= 3 && measured.context_switches > 0,
        "{measured:?}"
    );
}

#[test]
fn a_process_is_ended_by_its_signal_and_its_output_is_kept() {
    let trap = "trap 'echo bye; exit 7' TERM; echo ready >&2; while :; do read x <&0 || :; done";
    let process = Crossover::spawn(shell(trap));
    process.wait_for_line("ready");
    let finished = process.stop();
    assert_eq!(
        (finished.code, finished.stdout.as_str()),
        (Some(7), "bye\n")
    );
    let process = Crossover::spawn(shell("echo ready >&2; while :; do :; done"));
    process.wait_for_line("ready");
    process.signal(Signal::KILL);
    assert_eq!(process.finish().code, None);
}

#[test]
fn a_dropped_process_is_gone() {
    let dir = TempDir::new().unwrap();
    let mut command = shell("echo here > file; while :; do :; done");
    command.current_dir(dir.path());
    let process = Crossover::spawn(command);
    until_file(&dir.path().join("file"), |bytes| bytes == b"here\n");
    let proc = format!("/proc/{}", process.pid());
    drop(process);
    until("the process to be gone", || {
        (!std::path::Path::new(&proc).exists()).then_some(())
    });
}
