//! The kit's misbehaviour proves itself before it proves the program: each fault is seen by a
//! plain client.

use serde_json::{Value, json};
use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};
use testkit::apiserver::faults::{Fault, Misbehaviour, Then};
use testkit::apiserver::request::Request;
use testkit::apiserver::watches::Delivery;
use testkit::apiserver::{Options, Server};
use testkit::exchange::{Answered, Line};
use testkit::objects::config_map;
use testkit::proxy::{Mode, Proxy};
use testkit::replay::{Pace, Replay, Served};

const LIST: &str = "/api/v1/namespaces/default/configmaps";
const WATCH: &str = "/api/v1/namespaces/default/configmaps?watch=1&allowWatchBookmarks=true";

#[test]
fn a_fault_strikes_the_requests_that_it_names_and_no_other() {
    let server = server();
    let fault = Fault::retry_after(503, "7");
    server.misbehave(Misbehaviour::new(fault, Request::is_list).skip(1).times(2));
    let codes = |target| list(server.address(), target).status_line;
    let got: Vec<String> = [LIST, "/version", LIST, LIST, LIST]
        .into_iter()
        .map(codes)
        .collect();
    let want = [
        "200 OK",
        "200 OK",
        "503 Service Unavailable",
        "503 Service Unavailable",
        "200 OK",
    ];
    assert_eq!(got, want.map(|status| format!("HTTP/1.1 {status}")));
    assert_eq!(server.count_requests(|request| request.status == 503), 2);
}

#[test]
fn an_answer_stops_at_the_byte_that_the_fault_names() {
    let whole = list(server().address(), LIST).chunks.concat();
    for body_bytes in [0, 1, 40] {
        let server = server();
        let fault = Fault::After {
            body_bytes,
            then: Then::Close,
        };
        server.misbehave(Misbehaviour::new(fault, Request::is_list));
        let cut = list(server.address(), LIST);
        assert_eq!(cut.chunks.concat(), whole[..body_bytes], "{body_bytes}");
        assert!(!cut.complete);
    }
}

#[test]
fn a_reset_is_a_reset() {
    let server = server();
    let fault = Fault::After {
        body_bytes: 5,
        then: Then::Reset,
    };
    server.misbehave(Misbehaviour::new(fault, Request::is_watch).times(1));
    assert_eq!(
        end_of(server.address(), WATCH),
        Err(ErrorKind::ConnectionReset)
    );
    let mut watch = Line::get(server.address(), WATCH);
    watch.read_until(|answered| answered.chunks.len() == 1);
    server.reset_watches();
    server.wait_for_watches(0);
    let ended = watch
        .into_stream()
        .read(&mut [0])
        .map_err(|error| error.kind());
    assert_eq!(ended, Err(ErrorKind::ConnectionReset));
}

#[test]
fn raw_bytes_come_as_they_are() {
    let server = server();
    server.misbehave(Misbehaviour::new(
        Fault::Raw(b"SSH-2.0-x\r\n".to_vec()),
        |_| true,
    ));
    assert_eq!(
        end_of(server.address(), LIST),
        Ok(b"SSH-2.0-x\r\n".to_vec())
    );
}

#[test]
fn a_stale_watch_gives_bookmarks_and_no_events() {
    let server = server();
    let mut watch = Line::get(server.address(), &format!("{WATCH}&resourceVersion=1001"));
    server.wait_for_watches(1);
    server.deliver(Delivery::LostButBookmarks);
    server.create(config_map("lost", &[]));
    server.bookmark();
    server.deliver(Delivery::Held);
    server.create(config_map("late", &[]));
    server.inject(b"{\"type\":\"ODD\"}\n", |_| true);
    server.deliver(Delivery::Normal);
    server.end_watches();
    let events = events(&watch.read_until(|answered| answered.complete));
    let types: Vec<&Value> = events.iter().map(|event| &event["type"]).collect();
    assert_eq!(types, ["BOOKMARK", "ODD", "ADDED", "BOOKMARK"]);
    assert_eq!(events[2]["object"]["metadata"]["name"], json!("late"));
}

#[test]
fn a_watch_from_before_a_compaction_or_a_restore_is_expired() {
    let server = server();
    server.create(config_map("b", &[]));
    server.compact();
    let answered = list(server.address(), &format!("{WATCH}&resourceVersion=1001"));
    assert_eq!(events(&answered)[0]["object"]["code"], json!(410));
    server.rewind(900);
    assert_eq!(server.create(config_map("c", &[])), "901");
}

#[test]
fn a_server_that_went_away_comes_back_with_what_it_knew() {
    let server = server();
    let mut watch = Line::get(server.address(), WATCH);
    watch.read_until(|answered| answered.chunks.len() == 1);
    server.go_away();
    server.wait_for_watches(0);
    assert!(TcpStream::connect(server.address()).is_err());
    server.come_back();
    assert!(list(server.address(), LIST).complete);
}

#[test]
fn a_stalled_watch_stays_open_and_says_no_more() {
    let server = server();
    let whole = list(server.address(), LIST).chunks.concat().len();
    let fault = Fault::After {
        body_bytes: 9,
        then: Then::Stall,
    };
    server.misbehave(Misbehaviour::new(fault, Request::is_list));
    let mut stalled = Line::get(server.address(), LIST);
    let part = stalled.read_until(|answered| answered.chunks.concat().len() == 9);
    assert!(!part.complete && whole > 9);
    server.close_connections();
    assert!(!stalled.read_until(|_| false).complete);
}

#[test]
fn a_watch_that_ends_at_once_is_not_reported() {
    let server = server();
    server.misbehave(Misbehaviour::new(Fault::EndAtOnce, Request::is_watch));
    let watch = list(server.address(), WATCH);
    assert_eq!((watch.complete, watch.chunks.len()), (true, 0));
    server.wait_for_watches(0);
}

#[test]
fn late_and_missing_answers_delay_no_other() {
    let server = server();
    let late = Fault::Delay(Duration::from_millis(20));
    server.misbehave(Misbehaviour::new(late, Request::is_list).times(1));
    server.misbehave(Misbehaviour::new(Fault::Freeze, Request::is_watch));
    let _frozen = Line::get(server.address(), WATCH);
    server.wait_for_request("the frozen watch", Request::is_watch);
    let began = Instant::now();
    assert!(list(server.address(), LIST).complete);
    assert!(began.elapsed() >= Duration::from_millis(20));
    assert_eq!(server.watch_count(), 0);
}

#[test]
fn a_dropped_server_leaves_nothing_behind() {
    let server = server();
    let (address, mut watch) = (server.address(), Line::get(server.address(), WATCH));
    watch.read_until(|answered| answered.chunks.len() == 1);
    drop(server);
    assert!(TcpStream::connect(address).is_err());
    assert!(!watch.read_until(|_| false).complete);
}

#[test]
fn the_proxy_tears_freezes_refuses_and_resets() {
    let server = server();
    let whole = list(server.address(), LIST).chunks;
    let proxy = Proxy::start(server.address());
    assert_eq!(list(proxy.address(), LIST).chunks, whole);
    proxy.set(Mode::Torn {
        sizes: vec![300, 7],
        gap: Duration::from_millis(2),
    });
    let began = Instant::now();
    assert_eq!(list(proxy.address(), LIST).chunks, whole);
    assert!(began.elapsed() > Duration::from_millis(2));

    proxy.set(Mode::Freeze);
    let frozen = server.requests().len();
    let mut held = Line::get(proxy.address(), LIST);
    assert_eq!(server.requests().len(), frozen);
    proxy.set(Mode::Pass);
    assert_eq!(held.read_until(|answered| answered.complete).chunks, whole);

    let mut watch = Line::get(proxy.address(), WATCH);
    watch.read_until(|answered| answered.chunks.len() == 1);
    proxy.set(Mode::Hold);
    let mut held = Line::get(proxy.address(), LIST);
    proxy.wait_for_held(1);
    server.create(config_map("b", &[]));
    watch.read_until(|answered| answered.chunks.len() == 2);
    proxy.set(Mode::Pass);
    assert!(held.read_until(|answered| answered.complete).complete);
    proxy.reset();
    server.wait_for_watches(0);
    proxy.refuse();
    assert!(TcpStream::connect(proxy.address()).is_err());
    proxy.accept();
    assert!(list(proxy.address(), LIST).complete);
}

#[test]
fn the_replay_gives_each_recording_once_byte_for_byte() {
    let is_watch = |head: &str| head.contains("watch=1");
    let replay = Replay::start(vec![
        Served::recording("configmap-watch", is_watch).paced(Pace::Drip(Duration::ZERO)),
        Served::recording("configmap-list", move |head| !is_watch(head)).then_close(),
    ]);
    let watch = list(replay.address(), WATCH);
    assert_eq!(watch.chunks.len(), 5);
    let recorded = testkit::exchange::Recording::read("configmap-list").raw;
    assert_eq!(end_of(replay.address(), LIST), Ok(recorded));
    assert_eq!(end_of(replay.address(), LIST), Ok(Vec::new()));
    assert_eq!(replay.unexpected().len(), 1);
}

fn server() -> Server {
    let server = Server::start(Options::default());
    server.create(config_map("a", &[("x.yaml", "a: 1\n")]));
    server
}

fn list(address: SocketAddr, target: &str) -> Answered {
    Line::get(address, target).read_until(|answered| answered.complete)
}

/// Everything until the server closes, or the error in its place.
fn end_of(address: SocketAddr, target: &str) -> Result<Vec<u8>, ErrorKind> {
    let mut bytes = Vec::new();
    let mut stream = Line::get(address, target).into_stream();
    stream
        .read_to_end(&mut bytes)
        .map(|_| bytes)
        .map_err(|error| error.kind())
}

fn events(answered: &Answered) -> Vec<Value> {
    answered
        .chunks
        .iter()
        .map(|chunk| serde_json::from_slice(chunk).unwrap())
        .collect()
}
