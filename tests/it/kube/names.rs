//! An API server that is known by a name: when the name is looked up, and what happens while it
//! cannot be. In a network of the test's own, where the test is the name server.

use rustix::process::Signal;
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;
use testkit::crossover::Crossover;
use testkit::dns::{NameServer, Reply};
use testkit::namespace::Namespace;
use testkit::objects::config_map;
use testkit::proxy::Proxy;
use testkit::setup::Setup;
use testkit::stopwatch::Stopwatch;
use testkit::until;

const AWAY: &str = "the API server is away; retrying";
const BACK: &str = "the API server answers again";
const HERE: Reply = Reply::Address(Ipv4Addr::LOCALHOST);

fn object(number: u32) -> serde_json::Value {
    config_map("a", &[("a.yaml", &format!("a: {number}\n"))])
}

/// A network in which `apiserver.test` is looked up, and the way from there to the server.
struct Named {
    setup: Setup,
    proxy: Proxy,
    names: NameServer,
    network: Namespace,
}

impl Named {
    fn new(reply: Reply) -> Named {
        let (setup, network) = (Setup::new(), Namespace::network(&["--mount"]));
        let dir = setup.file("").ancestors().nth(2).unwrap().to_owned();
        for (name, text) in [
            ("hosts", "127.0.0.1 localhost\n"),
            ("resolv.conf", "nameserver 127.0.0.1\n"),
        ] {
            let ours = dir.join(name);
            fs::write(&ours, text).unwrap();
            network.cover(&Path::new("/etc").join(name), &ours);
        }
        let names = NameServer::start(&network, reply);
        let loopback = (Ipv4Addr::LOCALHOST, 0).into();
        let proxy = Proxy::start_in(&network, loopback, setup.server.address());
        setup.server.create(object(1));
        Named {
            setup,
            proxy,
            names,
            network,
        }
    }

    fn follow(&self, names: &[&str]) -> Crossover {
        let url = format!("http://apiserver.test:{}", self.proxy.address().port());
        let mut command = self.setup.watch_command_by(&url, names, &[]);
        command.env("RUST_LOG", "debug");
        Crossover::spawn(self.network.command(&command))
    }

    /// Starts the program, waits until it follows `a`, and takes the name and the server away.
    fn lose(&self) -> Crossover {
        let program = self.follow(&["a"]);
        self.setup.until_file_says("a.yaml", "a: 1\n");
        self.setup.server.wait_for_watches(1);
        self.names.set(Reply::Unknown);
        self.proxy.refuse();
        self.proxy.reset();
        program.wait_for_line(AWAY);
        program
    }
}

#[test]
fn a_name_is_looked_up_at_the_start_and_not_for_each_connection() {
    let named = Named::new(HERE);
    let _program = named.follow(&["a", "b", "c"]);
    named.setup.server.wait_for_watches(3);
    for round in 2..5 {
        named.setup.server.reset_connections();
        let watches = named.setup.server.count_requests(|_| true);
        named.setup.server.replace(object(round));
        let more = watches + 3;
        let server = &named.setup.server;
        server.wait_for_requests("reopened watches", more, |_| true);
    }
    assert_eq!(named.names.count(), 1);
}

#[test]
fn while_name_and_server_are_gone_files_stay_and_each_try_looks_the_name_up_once() {
    let named = Named::new(HERE);
    let program = named.lose();
    let still = "the API server is still away";
    program.wait_for_lines(2, still);
    named.setup.server.replace(object(2));
    // The first try was to the known address.
    let tries = || {
        let lines = program.lines();
        lines.iter().filter(|line| line.contains(still)).count()
    };
    until("a look-up for each try, and the first", || {
        (named.names.count() == 1 + tries()).then_some(())
    });
    assert_eq!(fs::read(named.setup.file("a.yaml")).unwrap(), b"a: 1\n");
    named.names.set(HERE);
    named.proxy.accept();
    program.wait_for_line(BACK);
    named.setup.until_file_says("a.yaml", "a: 2\n");
}

#[test]
fn a_server_that_is_back_before_its_name_is_found_where_it_was() {
    let named = Named::new(HERE);
    let program = named.lose();
    named.setup.server.replace(object(2));
    named.proxy.accept();
    program.wait_for_line(BACK);
    named.setup.until_file_says("a.yaml", "a: 2\n");
}

#[test]
fn a_signal_ends_a_look_up_that_nobody_answers() {
    for signal in [Signal::TERM, Signal::INT] {
        let named = Named::new(Reply::Silence);
        let program = named.follow(&["a"]);
        until("a look-up", || (named.names.count() > 0).then_some(()));
        let watch = Stopwatch::start();
        program.signal(signal);
        let (finished, took) = program.finish_timed(&watch);
        assert_eq!(finished.code, Some(0), "{}", finished.stderr);
        assert!(took <= Duration::from_millis(100), "{signal:?}: {took:?}");
    }
}
