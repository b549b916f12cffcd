//! `make demo`, as CI sees it: without a terminal, to its end or to Ctrl-C.

use crate::kit::crossover::{Crossover, Finished, program};
use crate::kit::processes::{children, group};
use crate::kit::until;
use rustix::process::{Pid, Signal, kill_process_group};
use std::env;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// The demo, as a process group of its own, with its own directory for temporary files.
struct Demo {
    process: Crossover,
    temporary: TempDir,
}

/// `target/.../debug/examples/lab`: cargo builds it beside the tests, but not with `--test`.
fn lab() -> PathBuf {
    let test = env::current_exe().unwrap();
    let lab = test.ancestors().nth(2).unwrap().join("examples/lab");
    let changed = |path: &Path| fs::metadata(path).and_then(|found| found.modified()).ok();
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let sources = ["lab", "kit"].map(|name| fs::read_dir(tests.join(name)).unwrap());
    let newest = sources
        .into_iter()
        .flatten()
        .map(|file| changed(&file.unwrap().path()))
        .max();
    let built = changed(&lab);
    assert!(
        built >= newest.flatten(),
        "the lab is old; run: cargo build --example lab"
    );
    lab
}

impl Demo {
    fn start(arguments: &[&str]) -> Demo {
        let temporary = TempDir::new().unwrap();
        let mut command = Command::new(lab());
        command
            .arg("demo")
            .args(arguments)
            .env("CROSSOVER", program())
            .env("TMPDIR", temporary.path())
            .process_group(0);
        let process = Crossover::spawn(command);
        Demo { process, temporary }
    }

    /// Does what Ctrl-C in a terminal does, and checks that nothing is left.
    #[track_caller]
    fn interrupt(self) -> Finished {
        let pid = self.process.pid();
        kill_process_group(Pid::from_raw(pid as i32).unwrap(), Signal::INT).unwrap();
        let finished = self.process.finish();
        let left = group(pid);
        assert!(left.is_empty(), "{left:?} still run");
        let left: Vec<_> = fs::read_dir(self.temporary.path()).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
        finished
    }
}

#[test]
fn the_demo_shows_every_step_in_a_plain_line_and_no_failure() {
    let demo = Demo::start(&["--step-ms", "200"]);
    let Finished {
        code,
        stdout,
        stderr,
        ..
    } = demo.process.finish();
    assert_eq!((code, stderr.as_str()), (Some(0), ""), "{stdout}");
    let rows: Vec<Vec<&str>> = stdout
        .lines()
        .map(|line| line.split_whitespace().collect())
        .filter(|words: &Vec<&str>| words.len() > 5 && words[0].parse::<u32>().is_ok())
        .filter(|words| words[5] == "%")
        .collect();
    let weights: Vec<_> = rows.iter().map(|row| (row[0], row[1])).collect();
    let steps = [
        ("100", "0"),
        ("90", "10"),
        ("75", "25"),
        ("50", "50"),
        ("25", "75"),
        ("0", "100"),
        ("100", "0"),
    ];
    assert_eq!(weights, steps, "{stdout}");
    assert_eq!(
        rows[5][2..6],
        ["..........................", "0.0", "100.0", "%"]
    );
    for row in &rows[1..] {
        // weights, bar, shares, the time to the file and to the traffic, failed
        assert!(matches!(row[6..], [_, "ms", _, "ms", "0"]), "{row:?}");
    }
    assert!(
        stdout.contains("  6 changes, ") && stdout.contains(", none failed.\n"),
        "{stdout}"
    );
    assert!(stdout.is_ascii(), "{stdout}");
    assert!(stdout.lines().all(|line| line.len() <= 80), "{stdout}");
}

#[test]
fn ctrl_c_during_the_demo_leaves_nothing_running() {
    let demo = Demo::start(&[]);
    demo.process
        .wait_for_stdout("the second step", |text| text.contains("\n   90  10  "));
    assert_eq!(children(demo.process.pid()).len(), 2, "crossover and Envoy");
    let finished = demo.interrupt();
    assert_eq!((finished.code, finished.stderr.as_str()), (Some(130), ""));
}

#[test]
fn ctrl_c_while_the_demo_starts_leaves_nothing_running() {
    for wanted in [1, 2] {
        let demo = Demo::start(&[]);
        until("the demo to start processes", || {
            (children(demo.process.pid()).len() == wanted).then_some(())
        });
        let finished = demo.interrupt();
        assert_eq!((finished.code, finished.stderr.as_str()), (Some(130), ""));
    }
}
