//! `make demo`, as CI sees it: without a terminal, to its end or to Ctrl-C.

use rustix::process::{Pid, Signal, kill_process_group};
use std::env;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;
use testkit::crossover::{Crossover, Finished, program};
use testkit::processes::{children, group};
use testkit::setup::tree;
use testkit::{root, until};

/// The demo, as a process group of its own, with its own directory for temporary files.
struct Demo {
    process: Crossover,
    temporary: TempDir,
}

/// `target/.../debug/examples/lab`: cargo builds it beside the tests, but not with `--test`.
pub fn lab() -> PathBuf {
    let test = env::current_exe().unwrap();
    let lab = test.ancestors().nth(2).unwrap().join("examples/lab");
    let changed = |path: &Path| fs::metadata(path).and_then(|found| found.modified());
    let sources: Vec<String> = ["tests/lab", "tests/kit"]
        .iter()
        .flat_map(|folder| tree(&root().join(folder)))
        .filter(|path| path.ends_with(".rs"))
        .collect();
    assert!(sources.len() > 60, "{sources:?}");
    let newest = sources.iter().map(|path| changed(path.as_ref()).unwrap());
    assert!(
        changed(&lab).ok() >= newest.max(),
        "the lab is old; run: cargo build --example lab"
    );
    lab
}

impl Demo {
    fn start(arguments: &[&str]) -> Demo {
        Demo::start_with(arguments, None)
    }

    /// `path`: where programs are looked for, if not in the usual places.
    fn start_with(arguments: &[&str], path: Option<&Path>) -> Demo {
        let temporary = TempDir::new().unwrap();
        let mut command = Command::new(lab());
        command
            .arg("demo")
            .args(arguments)
            .env("CROSSOVER", program())
            .env("TMPDIR", temporary.path())
            .process_group(0);
        if let Some(path) = path {
            command.env("PATH", path);
        }
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

/// Checks what a demo with short steps says, and returns it.
#[track_caller]
fn plays_the_whole_story(path: Option<&Path>) -> String {
    let demo = Demo::start_with(&["--step-ms", "200"], path);
    // What it shows, it shows step by step; the mirror may take its time.
    demo.process
        .wait_for_stdout("the third part", |text| text.contains("podinfo-canary"));
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
    let config_map = [("50", "50"), ("80", "20")];
    let splits = [
        ("100", "0"),
        ("75", "25"),
        ("50", "50"),
        ("25", "75"),
        ("0", "100"),
    ];
    let up = [
        ("100", "0"),
        ("90", "10"),
        ("80", "20"),
        ("70", "30"),
        ("60", "40"),
        ("50", "50"),
    ];
    let promoted = [("100", "0")];
    // The HTTPRoute begins where the TrafficSplit ended.
    let steps = [
        &config_map[..],
        &splits,
        &up,
        &promoted,
        &up[1..],
        &promoted,
    ]
    .concat();
    assert_eq!(weights, steps, "{stdout}");
    assert_eq!(
        rows[6][2..6],
        ["..........................", "0.0", "100.0", "%"]
    );
    for row in &rows[1..] {
        // weights, bar, shares, the time to the file and to the traffic, failed
        assert!(matches!(row[6..], [_, "ms", _, "ms", "0"]), "{row:?}");
    }
    assert!(
        stdout.contains("  20 changes, ") && stdout.contains(", none failed.\n"),
        "{stdout}"
    );
    assert!(
        stdout.contains("ConfigMap envoy-xds-gen shows the 3 files, byte for byte.\n"),
        "{stdout}"
    );
    let chapter = stdout.split("A backend replaced").nth(1).unwrap();
    for what in [
        " ms  clusters  Envoy gets podinfo-next",
        " ms  routes    podinfo-next takes",
        " requests meanwhile, none failed\n",
    ] {
        assert!(chapter.contains(what), "{stdout}");
    }
    let chapter = stdout.split("A slip that Envoy refuses").nth(1).unwrap();
    // Lines of a log end anywhere.
    let chapter: Vec<&str> = chapter.split_whitespace().collect();
    let chapter = chapter.join(" ");
    for what in [
        " ms refused Envoy took rds.yaml for wrong; it is taken back ",
        "refused by Envoy; restored the last accepted set",
        "counter=http.podinfo.rds.podinfo.update_failure",
        "Filesystem config update failure",
        ": 50 of 50 answers by podinfo-next ",
        " ms put right weights 10 and 90: podinfo-canary answers ",
        " requests meanwhile, none failed ",
    ] {
        assert!(chapter.contains(what), "{what}: {stdout}");
    }
    assert!(stdout.is_ascii(), "{stdout}");
    assert!(stdout.lines().all(|line| line.len() <= 80), "{stdout}");
    let left: Vec<_> = fs::read_dir(demo.temporary.path()).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
    stdout
}

#[test]
fn the_demo_shows_every_step_in_a_plain_line_and_no_failure() {
    let stdout = plays_the_whole_story(None);
    assert!(
        stdout.contains("  changes    by kubectl apply\n"),
        "{stdout}"
    );
}

#[test]
fn the_demo_makes_the_requests_itself_where_kubectl_is_missing() {
    let nothing = TempDir::new().unwrap();
    let stdout = plays_the_whole_story(Some(nothing.path()));
    assert!(stdout.contains("there is no kubectl here"), "{stdout}");
}

#[test]
fn ctrl_c_during_the_demo_leaves_nothing_running() {
    let demo = Demo::start(&[]);
    demo.process
        .wait_for_stdout("the second step", |text| text.contains("\n   80  20  "));
    let count = children(demo.process.pid()).len();
    assert!(count >= 2, "{count}: crossover, Envoy and perhaps kubectl");
    let finished = demo.interrupt();
    assert_eq!((finished.code, finished.stderr.as_str()), (Some(130), ""));
}

#[test]
fn ctrl_c_while_the_demo_starts_leaves_nothing_running() {
    // kubectl or crossover alone, then crossover and Envoy.
    for wanted in [1, 2] {
        let demo = Demo::start(&[]);
        until("the demo to start processes", || {
            (children(demo.process.pid()).len() == wanted).then_some(())
        });
        let finished = demo.interrupt();
        assert_eq!((finished.code, finished.stderr.as_str()), (Some(130), ""));
    }
}
