//! The answers of a real API server, byte for byte: each recording as the answer to a list and to a
//! watch, and the watch's recording cut at every offset.

use std::path::Path;
use std::thread;
use std::time::Duration;
use tempfile::TempDir;
use testkit::crossover::{Crossover, command};
use testkit::exchange::Recording;
use testkit::replay::{Pace, Replay, Served};
use testkit::stopwatch::Stopwatch;
use testkit::until;

const PUBLISHED: &str = "INFO  published ";
const ABSENT: &str = "ConfigMap not found";
const REFUSED: &str = "the API server refuses";
const UNUSABLE: &str = "answer cannot be used; retrying";
const AWAY: &str = "the API server is away";
const NOT_NOW: &str = "the API server cannot answer now";
const NO_TOKEN: &str = "the API server refuses the token";
const ENDED: &str = "the API server ended the watch";
/// The line of an answer that leads to no warning.
const NOTHING: &str = "";

/// A row of the table: the recording; the releases that it is of; the line that it leads to as the
/// answer to a list; that, and the request that comes next, as the answer to a watch.
type Row = (
    &'static str,
    &'static [&'static str],
    &'static str,
    &'static str,
    &'static str,
);

/// The releases, each by the folder of its recordings.
const NEW: &[&str] = &[""];
const OLD: &[&str] = &["old"];
const BOTH: &[&str] = &["", "old"];

/// The recordings of one release.
struct Release {
    /// The folder that holds them.
    below: &'static str,
    /// The watch that its list of the ConfigMap leads to.
    watched_from: &'static str,
    /// The number of objects that a watch shows, where it shows any.
    shown: &'static [(&'static str, usize)],
}

const RELEASES: [Release; 2] = [
    Release {
        below: "",
        watched_from: "watch 3896",
        shown: &[("configmap-watch", 3)],
    },
    Release {
        below: "old",
        watched_from: "watch 208",
        shown: &[
            ("configmap-watch", 3),
            ("configmap-watch-too-old", 4),
            ("named-role-watch", 1),
            ("curl-watch-added", 1),
        ],
    },
];

/// The watch that the list leads to, once more.
const SAME: &str = "the same watch";

#[rustfmt::skip]
const ROWS: &[Row] = &[
    ("configmap-apply", BOTH, UNUSABLE, UNUSABLE, "list"),
    ("configmap-bad-key-422", BOTH, REFUSED, REFUSED, "list"),
    ("configmap-create", BOTH, REFUSED, REFUSED, "list"),
    ("configmap-create-409", BOTH, REFUSED, REFUSED, "list"),
    ("configmap-create-422", BOTH, REFUSED, REFUSED, "list"),
    ("configmap-get", BOTH, UNUSABLE, UNUSABLE, "list"),
    ("configmap-get-404", BOTH, REFUSED, REFUSED, "list"),
    ("configmap-list", BOTH, PUBLISHED, UNUSABLE, "list"),
    ("configmap-list-empty", BOTH, ABSENT, UNUSABLE, "list"),
    ("configmap-list-metadata", BOTH, UNUSABLE, UNUSABLE, "list"),
    ("configmap-replace", BOTH, UNUSABLE, UNUSABLE, "list"),
    ("configmap-replace-409", BOTH, REFUSED, REFUSED, "list"),
    ("configmap-watch", NEW, UNUSABLE, ABSENT, "watch 3900"),
    ("configmap-watch", OLD, UNUSABLE, ABSENT, "watch 212"),
    ("configmap-watch-bookmarks", NEW, UNUSABLE, NOTHING, "watch 3933"),
    ("configmap-watch-bookmarks", OLD, UNUSABLE, NOTHING, "watch 258"),
    ("configmap-watch-future", BOTH, UNUSABLE, NOTHING, SAME),
    ("configmap-watch-too-old", NEW, UNUSABLE, NOTHING, "list"),
    ("configmap-watch-too-old", OLD, UNUSABLE, ABSENT, "watch 262"),
    ("configmap-watchlist", NEW, UNUSABLE, ENDED, "list"),
    ("configmap-watchlist", OLD, REFUSED, REFUSED, "list"),
    ("curl-get", OLD, UNUSABLE, UNUSABLE, "list"),
    ("curl-get-404", OLD, REFUSED, REFUSED, "list"),
    ("curl-list", OLD, PUBLISHED, UNUSABLE, "list"),
    ("curl-list-empty", OLD, ABSENT, UNUSABLE, "list"),
    ("curl-list-metadata", OLD, UNUSABLE, UNUSABLE, "list"),
    ("curl-list-metadata-empty", OLD, UNUSABLE, UNUSABLE, "list"),
    ("curl-ts-list", OLD, UNUSABLE, UNUSABLE, "list"),
    ("curl-ts-list-empty", OLD, UNUSABLE, UNUSABLE, "list"),
    ("curl-ts-list-metadata", OLD, UNUSABLE, UNUSABLE, "list"),
    ("curl-ts-watch-added", OLD, UNUSABLE, UNUSABLE, "list"),
    ("curl-ts-watch-bookmarks", OLD, UNUSABLE, UNUSABLE, "list"),
    ("curl-version", OLD, UNUSABLE, UNUSABLE, "list"),
    ("curl-watch-added", OLD, UNUSABLE, NOTHING, "watch 203"),
    ("curl-watch-all-short", OLD, UNUSABLE, NOTHING, "watch 205"),
    ("curl-watch-bookmarks", OLD, UNUSABLE, NOTHING, "watch 393"),
    ("curl-watch-metadata-bookmarks", OLD, UNUSABLE, UNUSABLE, "list"),
    ("forbidden-403", BOTH, REFUSED, REFUSED, "list"),
    ("forbidden-watch-403", BOTH, REFUSED, REFUSED, "list"),
    ("group-discovery", BOTH, UNUSABLE, UNUSABLE, "list"),
    ("group-discovery-404", BOTH, REFUSED, REFUSED, "list"),
    ("named-role-create-403", BOTH, REFUSED, REFUSED, "list"),
    ("named-role-list", BOTH, PUBLISHED, UNUSABLE, "list"),
    ("named-role-list-all-403", BOTH, REFUSED, REFUSED, "list"),
    ("named-role-watch", NEW, NOT_NOW, NOTHING, ""),
    ("named-role-watch", OLD, UNUSABLE, NOTHING, "watch 212"),
    ("trafficsplit-create-v1alpha1", BOTH, REFUSED, REFUSED, "list"),
    ("trafficsplit-get", BOTH, UNUSABLE, UNUSABLE, "list"),
    ("trafficsplit-get-v1alpha4", BOTH, UNUSABLE, UNUSABLE, "list"),
    ("trafficsplit-list", BOTH, UNUSABLE, UNUSABLE, "list"),
    ("trafficsplit-list-metadata", BOTH, UNUSABLE, UNUSABLE, "list"),
    ("trafficsplit-no-crd", BOTH, REFUSED, REFUSED, "list"),
    ("trafficsplit-watch", BOTH, UNUSABLE, UNUSABLE, "list"),
    ("unauthorized-401", BOTH, NO_TOKEN, NO_TOKEN, SAME),
];

impl Release {
    /// A recording's name for the kit.
    fn path(&self, name: &str) -> String {
        Path::new(self.below).join(name).display().to_string()
    }

    fn rows(&self) -> impl Iterator<Item = &'static Row> {
        ROWS.iter().filter(|row| row.1.contains(&self.below))
    }
}

fn is_watch(head: &str) -> bool {
    head.contains("watch=1")
}

fn program(url: &str, dir: &Path, objects: &[String]) -> Crossover {
    let mut command = command(&["-apiserver", url, "-watch", "-sync-interval", "1h"]);
    command.args(["-output-dir", dir.to_str().unwrap()]);
    for object in objects {
        command.args(["-configmap", object]);
    }
    command.env("RUST_LOG", "debug");
    Crossover::spawn(command)
}

/// One recording, replayed to one program.
struct Played {
    replay: Replay,
    program: Crossover,
    _dir: TempDir,
}

fn play(answers: Vec<Served>) -> Played {
    let replay = Replay::start(answers);
    let dir = TempDir::new().unwrap();
    let program = program(&replay.url(), dir.path(), &["default/envoy-xds".to_owned()]);
    Played {
        replay,
        program,
        _dir: dir,
    }
}

/// Returns what a request's head asks for.
fn request(head: &str) -> String {
    match head.split("resourceVersion=").nth(1) {
        Some(rest) => format!("watch {}", rest.split('&').next().unwrap()),
        None => "list".to_owned(),
    }
}

/// The program said this; where it published something, that is what was recorded.
#[track_caller]
fn check(name: &str, played: &Played, line: &str) {
    if line != NOTHING {
        played.program.wait_for_line(line);
    }
    let lines = played.program.lines();
    // What stalls for ten seconds is also said to hold up what is published.
    let others = ["Peer disconnected", "nothing can be published; waiting"];
    let ours =
        |line: &&String| line.contains("WARN") && !others.iter().any(|other| line.contains(other));
    let warnings: Vec<&String> = lines.iter().filter(ours).collect();
    let want = usize::from(![NOTHING, PUBLISHED].contains(&line));
    assert_eq!(warnings.len(), want, "{name}: {lines:#?}");
}

#[test]
fn each_recording_is_understood_or_refused_as_the_answer_to_a_list() {
    RELEASES.iter().for_each(check_as_lists);
}

fn check_as_lists(release: &Release) {
    let named: Vec<&str> = release.rows().map(|row| row.0).collect();
    let mut recorded = Recording::names(release.below);
    recorded.retain(|name| !named.contains(&name.as_str()));
    assert_eq!(recorded, Vec::<String>::new(), "recordings without a row");

    // All at once: the one that never ends takes ten seconds.
    let plays = release.rows().map(|(name, _, line, _, _)| {
        let answer = Served::recording(&release.path(name), |head| !is_watch(head));
        (name, line, play(vec![answer]))
    });
    for (name, line, played) in plays.collect::<Vec<_>>() {
        check(name, &played, line);
        let published = played
            .program
            .lines()
            .iter()
            .any(|line| line.contains(PUBLISHED));
        assert_eq!(published, *line == PUBLISHED, "{name}");
    }
}

#[test]
fn each_recording_is_understood_or_refused_as_the_answer_to_a_watch() {
    RELEASES.iter().for_each(check_as_watches);
}

fn check_as_watches(release: &Release) {
    for (name, _, _, line, next) in release.rows() {
        let next = if *next == SAME {
            &release.watched_from
        } else {
            next
        };
        let path = release.path("configmap-list");
        let mut list = Served::recording(&path, |head| !is_watch(head));
        if *next == "list" {
            list = list.times(2);
        }
        let watch = Served::recording(&release.path(name), is_watch);
        let played = play(vec![list, watch]);
        let want = ["list", release.watched_from, next];
        let want = &want[..if next.is_empty() { 2 } else { 3 }];
        until(&format!("{name}: what comes next"), || {
            let heads = played.replay.heads();
            let asked: Vec<String> = heads.iter().map(|head| request(head)).collect();
            (asked.len() >= want.len()).then(|| assert_eq!(asked[..want.len()], *want, "{name}"))
        });
        check(name, &played, line);
        let observed = |line: &&String| line.contains("observed");
        let shown = release.shown.iter().find(|(shown, _)| shown == name);
        let of_watch = shown.map_or(0, |(_, count)| *count);
        let of_lists = if *next == "list" { 1..=2 } else { 1..=1 };
        // Lines arrive some time after the requests that follow them.
        let lines = until(&format!("{name}: what is observed"), || {
            let lines = played.program.lines();
            (lines.iter().filter(observed).count() > of_watch).then_some(lines)
        });
        let count = lines.iter().filter(observed).count();
        assert!(of_lists.contains(&(count - of_watch)), "{name}: {lines:#?}");
    }
}

/// A watch is cut at so many places, far from each other, so that every offset has its turn soon.
const CUTS: usize = 8;
/// The number of such watches that one program has, each in a namespace of its own.
const AT_ONCE: usize = 100;

#[test]
fn a_watch_says_the_same_wherever_its_bytes_are_cut() {
    let length = Recording::read("configmap-watch").raw.len();
    let stride = length.div_ceil(CUTS);
    let cuts = |first: usize| (first..length).step_by(stride).collect();
    let watches: Vec<Vec<usize>> = (1..=stride).map(cuts).collect();
    thread::scope(|scope| {
        for batch in watches.chunks(AT_ONCE) {
            scope.spawn(|| plays_alike(batch));
        }
    });
}

fn plays_alike(watches: &[Vec<usize>]) {
    const PAUSE: Duration = Duration::from_millis(3);
    let count = watches.len();
    let mut answers = vec![Served::recording("configmap-list", |h| !is_watch(h)).times(count)];
    // It is reopened where it ended, and stays open.
    let open = Recording::read("named-role-watch").raw;
    answers.push(Served::raw(open, |head| request(head) == "watch 3900").times(count));
    for cuts in watches {
        let place = format!("/namespaces/cut-{}/", cuts[0]);
        let fits = move |head: &str| head.contains(&place) && request(head) == "watch 3896";
        let pace = Pace::Split(cuts.clone(), PAUSE);
        answers.push(Served::recording("configmap-watch", fits).paced(pace));
    }
    let replay = Replay::start(answers);
    let dir = TempDir::new().unwrap();
    let name = |cuts: &Vec<usize>| format!("cut-{}/envoy-xds", cuts[0]);
    let objects: Vec<String> = watches.iter().map(name).collect();
    let program = program(&replay.url(), dir.path(), &objects);
    until("all watches to be reopened", || {
        let unexpected = replay.unexpected();
        assert!(
            unexpected.is_empty(),
            "{unexpected:#?}\n{:#?}",
            program.lines()
        );
        (replay.heads().len() == 3 * count).then_some(())
    });
    let lines = program.lines();
    for (object, cuts) in objects.iter().zip(watches) {
        let object = format!("configmap={object} ");
        let mine = lines
            .iter()
            .filter(|line| line.contains(&object) && line.contains("DEBUG"));
        let version = |line: &String| Some(line.split_once("resource_version=")?.1.to_owned());
        let versions: Vec<String> = mine.filter_map(version).collect();
        assert_eq!(
            versions,
            ["3894", "3897", "3898", "3900"],
            "cut at {cuts:?}"
        );
    }
    let absent = lines.iter().filter(|line| line.contains(ABSENT)).count();
    let unusable = lines.iter().filter(|line| line.contains(UNUSABLE)).count();
    assert_eq!((absent, unusable), (count, 0));
}

#[test]
fn a_body_that_stalls_is_given_up_after_ten_seconds_and_keeps_nobody_busy() {
    let refusal = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 9\r\n\r\n";
    let headers_alone = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n";
    let open = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let watch = Stopwatch::start();
    let played = play(vec![
        Served::raw(format!("{refusal}try later"), |_| true),
        Served::raw(headers_alone, |_| true),
        Served::recording("configmap-list", |_| true),
        // A watch that says nothing.
        Served::raw(open, |_| true),
    ]);
    until("the second answer to stall", || {
        (played.replay.heads().len() == 2).then_some(())
    });
    let before = played.program.measure();
    played.program.wait_for_line(PUBLISHED);
    let waited = played.replay.asked_at(1).elapsed();
    assert!(waited >= Duration::from_secs(10), "{waited:?}");
    let bound = Duration::from_secs(15) + watch.held_up();
    assert!(waited < bound, "{waited:?}");
    let busy = played.program.measure().cpu_ns - before.cpu_ns;
    assert!(
        busy < 500_000_000,
        "{busy} ns of CPU in ten seconds of waiting"
    );
    // A server that sends headers is there.
    let lines = played.program.lines();
    let count = |told| lines.iter().filter(|line| line.contains(told)).count();
    assert_eq!((count(NOT_NOW), count(AWAY)), (2, 0), "{lines:#?}");
}

#[test]
fn headers_that_do_not_come_are_given_up_after_five_seconds() {
    let head = "HTTP/1.1 200 OK\r\nContent-Length: ";
    let watch = Stopwatch::start();
    let played = play(vec![
        Served::raw(head, |_| true),
        Served::recording("configmap-list", |_| true),
    ]);
    played.program.wait_for_line(AWAY);
    assert!(
        watch.elapsed() >= Duration::from_secs(5),
        "{:?}",
        watch.elapsed()
    );
    assert!(watch.took() < Duration::from_secs(8), "{:?}", watch.took());
    played.program.wait_for_line(PUBLISHED);
}
