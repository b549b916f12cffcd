//! Answers whose HTTP is beyond what is read of it, as a proxy may give them: what is said of them
//! is true, and they are asked for again.

use testkit::crossover::Crossover;
use testkit::exchange::Recording;
use testkit::replay::{Replay, Served};
use testkit::setup::Setup;
use testkit::until;

const CANNOT: &str = "the answer's HTTP cannot be read: ";
const WHOSE: &str = "(the API server, or a proxy before it, is at fault; the limits are 128 headers, \
    16 KiB of head, 20 bytes of a chunk's size and extension)";

/// A watch that says nothing yet.
const OPEN: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";

/// A recorded answer, with more in its head.
fn with_headers(name: &str, headers: &str) -> Vec<u8> {
    let raw = Recording::read(name).raw;
    let end = raw.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    [
        &raw[..end],
        b"\r\n",
        headers.trim_end().as_bytes(),
        &raw[end..],
    ]
    .concat()
}

/// The body of a recorded list as one chunk, with this extension.
fn with_extension(extension: &str) -> Vec<u8> {
    let body = Recording::read("configmap-list").answered().chunks.concat();
    let head =
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n";
    let size = body.len();
    let mut raw = format!("{head}\r\n{size:x}{extension}\r\n").into_bytes();
    raw.extend(body);
    raw.extend(b"\r\n0\r\n\r\n");
    raw
}

fn is_watch(head: &str) -> bool {
    head.contains("watch=1")
}

/// The first request that fits is answered like this, lists after it as recorded, and a watch stays
/// open without a word.
#[track_caller]
fn answered_by(
    raw: Vec<u8>,
    fits: impl Fn(&str) -> bool + Send + 'static,
) -> (Setup, Crossover, Replay) {
    let replay = Replay::start(vec![
        Served::raw(raw, fits).then_close(),
        Served::raw(OPEN, is_watch),
        Served::recording("configmap-list", |head| !is_watch(head)).times(9),
    ]);
    let setup = Setup::new();
    let program = Crossover::spawn(setup.watch_command_by(&replay.url(), &["envoy-xds"], &[]));
    (setup, program, replay)
}

#[track_caller]
fn check(raw: Vec<u8>, watch: bool, what: &str) {
    let (_scene, program, replay) = answered_by(raw, move |head| is_watch(head) == watch);
    let said = program.wait_for_line(CANNOT);
    assert!(said.contains(what) && said.contains(WHOSE), "{said}");
    program.wait_for_lines(1, "INFO  published ");
    // The list again, whichever of the two it was.
    match watch {
        false => until_asked(&replay, &[false, false, true]),
        true => until_asked(&replay, &[false, true, false, true]),
    }
    let stderr = program.stop().stderr;
    assert!(!stderr.contains("away"), "{stderr}");
    assert_eq!(stderr.matches("WARN").count(), 1, "{stderr}");
}

/// Waits until these requests were made, a list each or (`true`) a watch, and none without an
/// answer. The last is the watch that stays open: no other follows it.
#[track_caller]
fn until_asked(replay: &Replay, wanted: &[bool]) {
    until("requests", || {
        (replay.heads().len() >= wanted.len()).then_some(())
    });
    let asked = replay.heads();
    let are_watches: Vec<bool> = asked.iter().map(|head| is_watch(head)).collect();
    assert_eq!(are_watches, wanted, "{asked:#?}");
    assert_eq!(replay.unexpected(), Vec::<String>::new());
}

fn many(count: usize) -> String {
    (0..count).map(|i| format!("x-{i}: y\r\n")).collect()
}

#[test]
fn too_many_headers() {
    for watch in [false, true] {
        let name = ["configmap-list", "configmap-watch"][usize::from(watch)];
        check(with_headers(name, &many(129)), watch, "too many headers");
    }
}

#[test]
fn a_head_that_is_too_large() {
    let large = format!("x: {}\r\n", "y".repeat(17 << 10));
    for watch in [false, true] {
        let name = ["configmap-list", "configmap-watch"][usize::from(watch)];
        check(with_headers(name, &large), watch, "its head is too large");
    }
}

#[test]
fn a_chunk_extension_that_is_too_long() {
    check(
        with_extension(";ieof=0123456789012345"),
        false,
        "chunk expected crlf",
    );
    check(with_extension(" no size"), false, "chunk length");
}

#[test]
fn what_is_within_the_limits_is_read() {
    let some = many(100);
    let large = format!("x: {}\r\n", "y".repeat(15 << 10));
    for raw in [
        with_headers("configmap-list", &some),
        with_headers("configmap-list", &large),
        with_extension(";a=b"),
    ] {
        let (_scene, program, replay) = answered_by(raw, |head| !is_watch(head));
        program.wait_for_lines(1, "INFO  published ");
        until_asked(&replay, &[false, true]);
        let stderr = program.stop().stderr;
        assert!(!stderr.contains("WARN"), "{stderr}");
    }
}
