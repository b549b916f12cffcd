//! A name with several addresses of which not all are of use: which of them is tried, and when the
//! name is looked up. In a network of the test's own, by its own file of hosts.

use rustix::process::Signal;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;
use testkit::apiserver::request::Request;
use testkit::apiserver::{Options, Server};
use testkit::crossover::Crossover;
use testkit::dns::{NameServer, Reply};
use testkit::namespace::Namespace;
use testkit::objects::config_map;
use testkit::proxy::{Mode, Proxy};
use testkit::setup::Setup;

const FIRST: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const SECOND: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);
const PORT: u16 = 6443;

fn object(number: u32) -> serde_json::Value {
    config_map("a", &[("a.yaml", &format!("a: {number}\n"))])
}

/// A server, and a network in which its name has the addresses that a file says.
struct Named {
    setup: Setup,
    network: Namespace,
    hosts: PathBuf,
}

impl Named {
    fn new(setup: Setup, addresses: &[Ipv4Addr]) -> Named {
        let network = Namespace::network(&["--mount"]);
        let dir = setup.file("").ancestors().nth(2).unwrap().to_owned();
        let hosts = dir.join("hosts");
        fs::write(&hosts, "").unwrap();
        network.cover(Path::new("/etc/hosts"), &hosts);
        setup.server.create(object(1));
        let named = Named {
            setup,
            network,
            hosts,
        };
        named.has(addresses);
        named
    }

    /// The name's addresses from now on.
    fn has(&self, addresses: &[Ipv4Addr]) {
        let line = |address: &Ipv4Addr| format!("{address} apiserver.test\n");
        let lines: String = addresses.iter().map(line).collect();
        fs::write(&self.hosts, lines).unwrap();
    }

    /// The way to a server from one of the addresses.
    fn way(&self, address: Ipv4Addr, to: SocketAddr) -> Proxy {
        Proxy::start_in(&self.network, (address, PORT).into(), to)
    }

    fn good(&self, address: Ipv4Addr) -> Proxy {
        self.way(address, self.setup.server.address())
    }

    fn follow(&self, scheme: &str, more: &[&str]) -> Crossover {
        let url = format!("{scheme}://apiserver.test:{PORT}");
        let command = self.setup.watch_command_by(&url, &["a"], more);
        Crossover::spawn(self.network.command(&command))
    }

    #[track_caller]
    fn publishes(&self, number: u32) {
        self.setup
            .until_file_says("a.yaml", &format!("a: {number}\n"));
    }
}

/// A server with a certificate of another authority.
fn other() -> (TempDir, Server) {
    let dir = TempDir::new().unwrap();
    let server = Server::start(Options::tls(dir.path()));
    (dir, server)
}

#[test]
fn an_address_with_another_s_certificate_is_passed_over() {
    let named = Named::new(Setup::https(false), &[FIRST, SECOND]);
    let (_dir, other) = other();
    let _bad = named.way(FIRST, other.address());
    let _good = named.good(SECOND);
    let program = named.follow("https", &[]);
    named.publishes(1);
    assert!(!program.stop().stderr.contains("WARN"));
    assert!(other.requests().is_empty());
}

#[test]
fn an_address_that_accepts_and_is_silent_costs_its_share_once() {
    let named = Named::new(Setup::https(false), &[FIRST, SECOND]);
    let silent = named.good(FIRST);
    silent.set(Mode::Hold);
    let _good = named.good(SECOND);
    let program = named.follow("https", &["-sync-interval=100ms"]);
    named.publishes(1);
    silent.wait_for_held(1);
    // A connection for each look: if any of them went there, it would be counted.
    let looks = |request: &Request| request.is_metadata_only();
    named.setup.server.wait_for_requests("looks", 5, looks);
    silent.wait_for_held(1);
    assert!(!program.stop().stderr.contains("WARN"));
}

#[test]
fn without_tls_an_address_that_never_answers_is_the_last_to_be_tried_again() {
    let named = Named::new(Setup::new(), &[FIRST, SECOND]);
    let silent = named.good(FIRST);
    silent.set(Mode::Hold);
    let _good = named.good(SECOND);
    let program = named.follow("http", &[]);
    let away = program.wait_for_line("the API server is away");
    assert!(away.contains("no answer in time"), "{away}");
    named.publishes(1);
    silent.wait_for_held(1);
}

/// The old address answers still, if not as the API server.
#[test]
fn a_name_that_moves_is_followed_whatever_is_at_its_old_address() {
    let named = Named::new(Setup::https(false), &[FIRST]);
    let old = named.good(FIRST);
    let program = named.follow("https", &[]);
    named.publishes(1);
    named.setup.server.wait_for_watches(1);
    // It sees no moment at which nobody is there.
    program.signal(Signal::STOP);
    drop(old);
    let (_dir, other) = other();
    let _another_s = named.way(FIRST, other.address());
    named.has(&[SECOND]);
    let _new = named.good(SECOND);
    named.setup.server.replace(object(2));
    program.signal(Signal::CONT);
    named.publishes(2);
    let away = program.wait_for_line("the API server is away");
    assert!(away.contains("is -ca-file the CA of this"), "{away}");
    assert!(other.requests().is_empty());
}

#[test]
fn the_address_that_worked_is_tried_again_when_no_other_is_better() {
    let named = Named::new(Setup::https(false), &[FIRST, SECOND]);
    let first = named.good(FIRST);
    let program = named.follow("https", &[]);
    named.publishes(1);
    named.setup.server.wait_for_watches(1);
    first.refuse();
    first.reset();
    let away = program.wait_for_line("the API server is away");
    assert!(away.contains(&format!("{SECOND}:{PORT}: ")), "{away}");
    named.setup.server.replace(object(2));
    first.accept();
    named.publishes(2);
}

/// It takes six seconds: what is to be shown is that a request's five begin after that.
#[test]
fn a_slow_look_up_takes_no_time_from_the_request() {
    let named = Named::new(Setup::new(), &[]);
    let dir = named.hosts.parent().unwrap();
    let conf = dir.join("resolv.conf");
    // Nobody asks a second time meanwhile.
    fs::write(
        &conf,
        "nameserver 127.0.0.1\noptions timeout:30 attempts:1\n",
    )
    .unwrap();
    named.network.cover(Path::new("/etc/resolv.conf"), &conf);
    let late = Reply::Late(FIRST, Duration::from_secs(6));
    let names = NameServer::start(&named.network, late);
    let _good = named.good(FIRST);
    let program = named.follow("http", &[]);
    named.publishes(1);
    assert_eq!(names.count(), 1);
    assert!(!program.stop().stderr.contains("WARN"));
}
