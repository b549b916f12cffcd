//! SIGKILL at every system call that changes the file system, by strace's fault injection on the
//! program itself: what Envoy finds is one whole set, and the next start makes it the right one.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use tempfile::TempDir;
use testkit::apiserver::{Options, Server};
use testkit::crossover::{Crossover, command, program};
use testkit::objects::config_map;

/// The calls that can change a file system, under all names that a libc may use.
const CALLS: &str = "open,openat,creat,mkdir,mkdirat,symlink,symlinkat,link,linkat,rename,renameat,\
    renameat2,unlink,unlinkat,rmdir,write,pwrite64,writev,fsync,fdatasync,sync_file_range,\
    ftruncate,fallocate,chmod,fchmod,fchmodat,flock";
/// The number of workers that is of use on two processors.
const WORKERS: usize = 3;

/// Readable files by name.
type Set = BTreeMap<String, String>;

/// A system call, and which of its kind in one run.
#[derive(Clone, Debug)]
struct Point {
    call: String,
    nth: usize,
    line: String,
}

/// The cluster, and where everything is.
struct Lab {
    server: Server,
    dir: TempDir,
    next: AtomicUsize,
}

impl Lab {
    fn new() -> Lab {
        let server = Server::start(Options::default());
        let (dir, next) = (TempDir::new().unwrap(), AtomicUsize::new(0));
        Lab { server, dir, next }
    }

    /// Files of this generation: of each sort two.
    fn generation(&self, mark: &str, extra: [&str; 2]) -> Set {
        let text = format!("generation: {mark}\n");
        let mut set = Set::from([("same-1.yaml".into(), "same: 1\n".into())]);
        set.insert("same-2.txt".into(), "same\n".into());
        for name in ["rds.yaml", "cds.yaml", extra[0], extra[1]] {
            set.insert(name.into(), text.clone());
        }
        let data: Vec<(&str, &str)> = set.iter().map(|(key, text)| (&**key, &**text)).collect();
        self.server.apply(config_map("a", &data));
        set
    }

    /// A place for an output directory.
    fn place(&self) -> PathBuf {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.dir.path().join(number.to_string())
    }

    /// A copy with its links as they are.
    fn copy(&self, from: &Path) -> PathBuf {
        let to = self.place();
        if from.exists() {
            let copied = Command::new("cp").arg("-a").args([from, &to]).status();
            assert!(copied.unwrap().success());
        }
        to
    }

    fn arguments(&self, out: &Path) -> Vec<String> {
        let (url, out) = (self.server.url(), out.to_str().unwrap());
        let arguments = [
            "-apiserver",
            &url,
            "-configmap",
            "default/a",
            "-onetime",
            "-output-dir",
            out,
        ];
        arguments.map(str::to_owned).to_vec()
    }

    /// Publishes what the cluster has.
    #[track_caller]
    fn publish(&self, out: &Path) {
        let arguments = self.arguments(out);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let output = command(&arguments).output().unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// Publishes under strace; all calls that were made, and whether SIGKILL ended it.
    fn strace(&self, out: &Path, more: &[String]) -> (String, bool) {
        let log = self.place();
        let mut strace = Command::new("strace");
        strace
            .args(["-qq", "-e", "signal=none", "-e"])
            .arg(format!("trace={CALLS}"));
        strace.args(more).arg("-o").arg(&log).arg(program());
        let output = strace.args(self.arguments(out)).output();
        let output = output.expect("strace is missing: apt-get install strace");
        let text = fs::read_to_string(&log).unwrap_or_default();
        let said = String::from_utf8_lossy(&output.stderr);
        let killed = output.status.signal() == Some(9);
        assert!(killed || output.status.success(), "strace: {said}{text}");
        (text, killed)
    }

    /// Every point at which a publish into `out` as it is now can be cut.
    fn points(&self, out: &Path) -> Vec<Point> {
        let (text, killed) = self.strace(&self.copy(out), &[]);
        assert!(!killed);
        let (mut counts, mut points) = (BTreeMap::new(), Vec::new());
        for line in text.lines() {
            let Some((call, rest)) = line.split_once('(') else {
                continue;
            };
            let nth = counts.entry(call.to_owned()).or_insert(0);
            *nth += 1;
            let only_reads = call.starts_with("open") && !rest.contains("O_CREAT");
            let only_logs = call.starts_with("write") && rest.starts_with("2,");
            if !only_reads && !only_logs {
                let (call, line) = (call.to_owned(), line.to_owned());
                points.push(Point {
                    call,
                    nth: *nth,
                    line,
                });
            }
        }
        points
    }

    /// Publishes into a copy of `out` and is killed at a point, before the call is made.
    #[track_caller]
    fn cut(&self, out: &Path, point: &Point) -> PathBuf {
        let out = self.copy(out);
        let inject = format!("inject={}:signal=KILL:when={}", point.call, point.nth);
        let (text, killed) = self.strace(&out, &["-e".to_owned(), inject]);
        assert!(killed, "{point:?} was not reached:\n{text}");
        out
    }

    /// Publishes into `out`, finds what is there right, and nothing left over; and clears it away.
    #[track_caller]
    fn assert_converges(&self, out: &Path, want: &Set, how: &str) {
        self.publish(out);
        assert_eq!(visible(out), *want, "after {how} and a restart");
        let names = |dir: &str| {
            fs::read_dir(out.join(dir))
                .unwrap()
                .map(|e| e.unwrap().file_name())
        };
        assert_eq!(
            names(".sets/.links").count(),
            0,
            "after {how} and a restart"
        );
        assert_eq!(
            names(".live").count(),
            want.len(),
            "after {how} and a restart"
        );
        let link = |name: &str| fs::read_link(out.join(".sets").join(name)).unwrap();
        assert_eq!(link("active"), link("done"), "after {how} and a restart");
        fs::remove_dir_all(out).unwrap();
    }
}

/// Returns the files that Envoy can open through `current`.
fn visible(out: &Path) -> Set {
    let entries = fs::read_dir(out.join("current")).into_iter().flatten();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let read = |name: String| {
        Some((
            fs::read_to_string(out.join("current").join(&name)).ok()?,
            name,
        ))
    };
    names
        .filter_map(read)
        .map(|(text, name)| (name, text))
        .collect()
}

/// Runs `work` on all items, some at a time.
fn in_parallel<T: Sync>(items: &[T], work: impl Fn(&T) + Sync) {
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
                    work(item);
                }
            });
        }
    });
}

/// A directory with a history, so that old sets are swept, and the cluster one generation ahead.
fn prepared(lab: &Lab) -> (PathBuf, Set, Set) {
    let out = lab.place();
    let mut old = Set::new();
    for mark in ["1", "2", "3", "4", "5"] {
        old = lab.generation(mark, ["gone-1.yaml", "gone-2.yaml"]);
        lab.publish(&out);
    }
    assert_eq!(visible(&out), old);
    let new = lab.generation("6", ["added-1.yaml", "added-2.yaml"]);
    (out, old, new)
}

#[test]
fn a_publish_that_is_killed_anywhere_leaves_one_whole_set() {
    let lab = Lab::new();
    let (out, old, new) = prepared(&lab);
    let points = lab.points(&out);
    assert!(points.len() > 40, "{points:#?}");
    println!("{} points", points.len());
    let (before, after) = (AtomicUsize::new(0), AtomicUsize::new(0));
    in_parallel(&points, |point| {
        let cut = lab.cut(&out, point);
        let found = visible(&cut);
        assert!(
            found == old || found == new,
            "mixed after {}: {found:#?}",
            point.line
        );
        let seen = if found == old { &before } else { &after };
        seen.fetch_add(1, Ordering::Relaxed);
        lab.assert_converges(&cut, &new, &point.line);
    });
    let (before, after) = (before.into_inner(), after.into_inner());
    assert!(
        before > 20 && after > 10,
        "{before} points before the commit, {after} after it"
    );
}

#[test]
fn a_first_publish_that_is_killed_anywhere_leaves_all_or_nothing() {
    let lab = Lab::new();
    let out = lab.place();
    let new = lab.generation("1", ["added-1.yaml", "added-2.yaml"]);
    let points = lab.points(&out);
    assert!(points.len() > 30, "{points:#?}");
    println!("{} points", points.len());
    in_parallel(&points, |point| {
        let cut = lab.cut(&out, point);
        let found = visible(&cut);
        assert!(
            found.is_empty() || found == new,
            "mixed after {}: {found:#?}",
            point.line
        );
        lab.assert_converges(&cut, &new, &point.line);
    });
}

#[test]
fn a_recovery_that_is_killed_anywhere_leaves_one_whole_set() {
    let lab = Lab::new();
    let (out, old, new) = prepared(&lab);
    // Evenly over the whole publish, before its commit and after.
    let points = lab.points(&out);
    let cuts = points.iter().step_by(points.len().div_ceil(4));
    let mut recoveries = Vec::new();
    for first in cuts {
        let cut = lab.cut(&out, first);
        for second in lab.points(&cut) {
            recoveries.push((cut.clone(), first.line.clone(), second));
        }
    }
    assert!(recoveries.len() > 120, "{}", recoveries.len());
    println!("{} points", recoveries.len());
    in_parallel(&recoveries, |(cut, first, second)| {
        let again = lab.cut(cut, second);
        let found = visible(&again);
        let how = format!("{first}, then {}", second.line);
        assert!(
            found == old || found == new,
            "mixed after {how}: {found:#?}"
        );
        lab.assert_converges(&again, &new, &how);
    });
}

#[test]
fn a_set_that_a_power_loss_has_torn_is_never_shown_not_even_without_a_server() {
    let lab = Lab::new();
    let (out, old, new) = prepared(&lab);
    let points = lab.points(&out);
    let first_sync = points.iter().find(|point| point.call == "fsync").unwrap();
    let cut = lab.cut(&out, first_sync);
    assert_eq!(visible(&cut), new);
    fs::write(cut.join("current/rds.yaml"), "").unwrap();
    let mut arguments = lab.arguments(&cut);
    arguments[1] = "http://127.0.0.1:1".to_owned();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let process = Crossover::start(&arguments);
    process.wait_for_line("the API server is away");
    assert_eq!(visible(&cut), old);
    process.stop();
    lab.assert_converges(&cut, &new, "a power loss");
}

#[test]
fn what_a_killed_publish_made_visible_stays_where_its_configmap_is_gone_meanwhile() {
    let lab = Lab::new();
    let (out, _, new) = prepared(&lab);
    let points = lab.points(&out);
    let first_sync = points.iter().find(|point| point.call == "fsync").unwrap();
    let cut = lab.cut(&out, first_sync);
    assert_eq!(visible(&cut), new);
    lab.server.delete("ConfigMap", "a");
    let mut arguments = lab.arguments(&cut);
    arguments[4] = "-watch".to_owned();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let process = Crossover::start(&arguments);
    process.wait_for_line("INFO  published ");
    assert_eq!(visible(&cut), new);
    process.stop();
}
