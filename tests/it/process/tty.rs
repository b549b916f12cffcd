//! The program on a terminal, with a command: what the keys of a terminal send, it sends to both.

use std::fs;
use std::process::Command;
use testkit::crossover::{Crossover, Finished, wrapped};
use testkit::setup::Setup;

/// Runs a program on a terminal of its own, as the leader of its session. The first argument says
/// what to do once its command runs: hang up, or send this key while the program stands still, then
/// let it go on and send it SIGUSR1, so that whatever it passes on has come before that.
const TERMINAL: &str = r#"
import os, pty, signal, sys
pid, master = pty.fork()
if pid == 0:
    os.execvp(sys.argv[2], sys.argv[2:])
def wait_for(text):
    seen = ""
    while text not in seen:
        more = os.read(master, 4096).decode()
        print(more, end="", flush=True)
        seen += more
wait_for("runs\r\n")
if sys.argv[1] == "hang up":
    os.close(master)
else:
    os.kill(pid, signal.SIGSTOP)
    os.waitpid(pid, os.WUNTRACED)
    os.write(master, bytes([int(sys.argv[1])]))
    if sys.argv[2 + 1:].count("setsid") == 0:
        wait_for("GOT ")
    os.kill(pid, signal.SIGCONT)
    os.kill(pid, signal.SIGUSR1)
    wait_for("USR1\r\n")
    os.kill(pid, signal.SIGTERM)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"#;

/// A shell that says which signal it got, and goes on; `read` waits without a child of its own.
const SCRIPT: &str = "trap 'echo GOT INT' INT; trap 'echo GOT QUIT' QUIT; trap 'echo USR1' USR1; \
    trap 'echo HUP > \"$1\"; exit 7' HUP; trap 'exit 8' TERM; \
    mkfifo \"$0\"; exec 3<>\"$0\"; echo runs; while :; do read x <&3; done";

const CTRL_C: &str = "3";
const CTRL_BACKSLASH: &str = "28";

#[track_caller]
fn run(setup: &Setup, what: &str, before: &[&str]) -> Finished {
    setup.put("a", &[("a.yaml", "a: 1\n")]);
    let (fifo, file) = (setup.path("fifo"), setup.path("hup"));
    let words = [before, &["sh", "-c", SCRIPT, &fifo, &file]].concat();
    let inner = setup.command(&[&["-configmap=a", "--"], &words[..]].concat());
    let mut outer = Command::new("python3");
    outer.args(["-c", TERMINAL, what]);
    Crossover::spawn(wrapped(outer, &inner)).finish()
}

#[test]
fn the_keys_that_end_a_program_reach_the_command_once() {
    for (key, want) in [(CTRL_C, "GOT INT"), (CTRL_BACKSLASH, "GOT QUIT")] {
        let finished = run(&Setup::new(), key, &[]);
        assert_eq!(finished.code, Some(8), "{finished:?}");
        let count = finished.stdout.matches(want).count();
        assert_eq!(count, 1, "{}", finished.stdout);
    }
}

#[test]
fn where_the_command_is_in_no_foreground_they_are_passed_on() {
    let finished = run(&Setup::new(), CTRL_C, &["setsid"]);
    assert_eq!(finished.code, Some(8), "{finished:?}");
    let count = finished.stdout.matches("GOT INT").count();
    assert_eq!(count, 1, "{}", finished.stdout);
}

#[test]
fn a_terminal_that_hangs_up_tells_the_leader_of_its_session_alone_which_passes_it_on() {
    let setup = Setup::new();
    let finished = run(&setup, "hang up", &[]);
    assert_eq!(finished.code, Some(7), "{finished:?}");
    assert_eq!(fs::read_to_string(setup.path("hup")).unwrap(), "HUP\n");
}
