//! The first connection, which is begun while nothing else is done yet.

use crate::kit::crossover::{Crossover, wrapped};
use crate::kit::objects::config_map;
use crate::scene::Scene;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::thread;

fn scene(scene: Scene) -> Scene {
    let object = config_map("a", &[("a.yaml", "a: 1\n")]);
    scene.server.create(object);
    scene
}

#[test]
fn the_api_server_has_the_first_message_before_a_directory_is_made() {
    let scene = scene(Scene::https());
    let mut strace = Command::new("strace");
    strace.args(["-e", "trace=connect,write,writev,mkdir,mkdirat"]);
    let command = scene.command(&["a"], &["-onetime"]);
    let output = wrapped(strace, &command).output();
    let output = output.expect("strace is missing: apt-get install strace");
    let calls = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{calls}");
    let of = |call: &str| {
        let found = calls.lines().position(|line| line.starts_with(call));
        found.unwrap_or_else(|| panic!("no {call} in {calls}"))
    };
    // A TLS record with a ClientHello.
    assert!(of("connect(") < of("writev("), "{calls}");
    assert!(of("writev(") < of("mkdir"), "{calls}");
    let connected = calls.lines().filter(|line| line.starts_with("connect("));
    assert_eq!(connected.count(), 1, "{calls}");
}

/// Takes connections to a server: the first is closed at once.
fn close_the_first(server: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        drop(listener.accept().unwrap());
        for near in listener.incoming() {
            let (near, far) = (near.unwrap(), TcpStream::connect(server).unwrap());
            for (mut from, mut to) in [
                (near.try_clone().unwrap(), far.try_clone().unwrap()),
                (far, near),
            ] {
                thread::spawn(move || io::copy(&mut from, &mut to));
            }
        }
    });
    address
}

#[test]
fn one_that_is_closed_before_it_is_used_costs_no_more_than_another() {
    for scene in [scene(Scene::http()), scene(Scene::https())] {
        let url = scene.server.url();
        let (scheme, _) = url.split_once(':').unwrap();
        let way = close_the_first(scene.server.address());
        let command = scene.command_to(&format!("{scheme}://{way}"), &["a"], &["-onetime"]);
        let finished = Crossover::spawn(command).finish();
        assert_eq!(finished.code, Some(0), "{}", finished.stderr);
        assert!(!finished.stderr.contains("WARN"), "{}", finished.stderr);
        scene.until_file_says("a.yaml", "a: 1\n");
    }
}
