//! The tests' handle of the server: changes, waiting, misbehaviour; its thread and its listener.
//! All calls are synchronous.

use super::access::Account;
use super::cluster::Cluster;
use super::faults::Misbehaviour;
use super::kinds::Kind;
use super::request::Request;
use super::serve::{self, Command};
use super::store::Store;
use super::watches::{Delivery, Watch};
use super::{Dialect, Options, Shared, State, Tls, tls};
use crate::runtime::{Port, Runtime};
use crate::{PATIENCE, nap};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// A running server; everything of it ends when this is dropped.
pub struct Server {
    shared: Arc<Shared>,
    tls: Option<Tls>,
    port: Port,
    _runtime: Runtime,
}

impl Server {
    /// Starts a server on 127.0.0.1.
    pub fn start(options: Options) -> Server {
        let mut kinds = Kind::all_built_in();
        if !options.splits.is_empty() {
            kinds.push(Kind::traffic_split(&options.splits));
        }
        let tls = options.tls;
        let mut store = Store::new(options.first_version - 1, options.history, kinds);
        let namespace = json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"},
            "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"},
        });
        Cluster { store: &mut store }.create(namespace);
        store.compact();
        let state = State {
            dialect: options.dialect,
            store,
            accounts: options.accounts,
            requests: Vec::new(),
            in_flight: 0,
            most_in_flight: 0,
            script: Vec::new(),
            connections: HashMap::new(),
            next_connection: 0,
            away: false,
            acceptor: tls
                .as_ref()
                .map(|tls| tls::acceptor(&tls.dir, tls.only_tls12)),
            bookmark_interval: options.bookmark_interval,
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            changed: Condvar::new(),
        });
        let runtime = Runtime::start();
        let served = shared.clone();
        let port = Port::open(&runtime, options.port, move |socket| {
            serve::connect(served.clone(), socket)
        });
        Server {
            shared,
            tls,
            port,
            _runtime: runtime,
        }
    }

    /// Returns `http://127.0.0.1:PORT`, or the same with `https`.
    pub fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.port.address())
    }

    /// Returns the address on which it listens.
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Returns the certificate of the server's authority.
    pub fn ca_file(&self) -> PathBuf {
        self.tls
            .as_ref()
            .expect("the server has TLS")
            .dir
            .join("ca.crt")
    }

    /// Makes a new authority and certificate: `ca.crt` is rewritten, new connections get it.
    pub fn rotate_ca(&self) {
        let tls = self.tls.as_ref().expect("the server has TLS");
        let acceptor = tls::acceptor(&tls.dir, tls.only_tls12);
        self.shared.update(|state| state.acceptor = Some(acceptor));
    }

    /// New connections get this certificate, of this key (PKCS #8): whose it is and what it says is
    /// the caller's to know.
    pub fn serve_certificate(&self, certificate: &[u8], key: &[u8]) {
        let acceptor = tls::acceptor_of(certificate, key, false);
        self.shared.update(|state| state.acceptor = Some(acceptor));
    }

    /// Goes away: the port refuses connections, those that are open are reset.
    pub fn go_away(&self) {
        self.port.close();
        self.shared.update(|state| state.away = true);
        self.reset_connections();
    }

    /// Is back on the same port, with everything it knew.
    pub fn come_back(&self) {
        self.shared.update(|state| state.away = false);
        self.port.reopen();
    }

    /// Is of another release from the next answer on: an upgrade, or its undoing.
    pub fn change_release(&self) {
        self.shared.update(|state| {
            state.dialect = match state.dialect {
                Dialect::V1_20 => Dialect::V1_34,
                Dialect::V1_34 => Dialect::V1_20,
            };
        });
    }

    /// Makes several changes with nothing between them. Watches get their events together.
    pub fn change<T>(&self, changes: impl FnOnce(&mut Cluster<'_>) -> T) -> T {
        self.shared.update(|state| {
            changes(&mut Cluster {
                store: &mut state.store,
            })
        })
    }

    /// Creates an object; returns its resourceVersion.
    #[track_caller]
    pub fn create(&self, object: Value) -> String {
        self.change(|cluster| cluster.create(object))
    }

    /// Replaces an object whatever its resourceVersion was; returns the new one.
    #[track_caller]
    pub fn replace(&self, object: Value) -> String {
        self.change(|cluster| cluster.replace(object))
    }

    /// Creates or replaces an object; returns its resourceVersion.
    #[track_caller]
    pub fn apply(&self, object: Value) -> String {
        self.change(|cluster| cluster.apply(object))
    }

    /// Deletes an object of a kind (`ConfigMap`) in namespace `default`.
    #[track_caller]
    pub fn delete(&self, kind: &str, name: &str) {
        self.change(|cluster| cluster.delete(kind, "default", name));
    }

    /// Returns an object in namespace `default`, as it is stored.
    pub fn get(&self, kind: &str, name: &str) -> Option<Value> {
        self.change(|cluster| cluster.get(kind, "default", name))
    }

    /// Sets who may do what from now on.
    pub fn set_accounts(&self, accounts: Vec<Account>) {
        self.shared.update(|state| state.accounts = accounts);
    }

    /// Serves TrafficSplits in these versions from now on. Without any, the group goes away, with
    /// all its objects and watches.
    pub fn serve_splits(&self, versions: &[&str]) {
        let kind = Kind::traffic_split(versions);
        self.shared.update(|state| match versions {
            [] => state.store.unserve(&kind.resource()),
            _ => state.store.serve(kind),
        });
    }

    /// Returns the newest resourceVersion.
    pub fn version(&self) -> u64 {
        self.shared.lock().store.version
    }

    /// Forgets the history: a watch from before now is answered with 410 Expired.
    pub fn compact(&self) {
        self.shared.update(|state| state.store.compact());
    }

    /// Other things have changed in the cluster: the resourceVersion is now this.
    pub fn skip_to(&self, version: u64) {
        self.shared.update(|state| {
            assert!(version >= state.store.version, "that is the past");
            state.store.version = version;
        });
    }

    /// A restored etcd: the resourceVersion goes back, all watches end.
    pub fn rewind(&self, version: u64) {
        self.shared.update(|state| state.store.rewind(version));
    }

    /// A bookmark for all watches that asked for them, now.
    pub fn bookmark(&self) {
        self.shared.update(|state| state.store.bookmark(None));
    }

    /// Ends all watches as their timeoutSeconds would.
    pub fn end_watches(&self) {
        self.shared.update(|state| state.store.end_watches(true));
    }

    /// Ends the open watches of this path and query.
    pub fn end_watch(&self, target: &str) {
        self.shared.update(|state| {
            let open = state.store.watches.iter();
            let ids: Vec<u64> = open
                .filter(|watch| watch.target == target)
                .map(|watch| watch.id)
                .collect();
            ids.iter().for_each(|id| state.store.end_watch(*id));
        });
    }

    /// Sets the fate of events from now on. Those that were held go out when delivery is normal
    /// again.
    pub fn deliver(&self, delivery: Delivery) {
        self.shared
            .update(|state| state.store.set_delivery(delivery));
    }

    /// Writes these bytes into the open watches that `into` takes, as one chunk each.
    #[track_caller]
    pub fn inject(&self, bytes: &[u8], into: impl Fn(&Watch) -> bool) {
        let count = self.try_inject(bytes, into);
        assert!(count > 0, "no open watch takes the injected bytes");
    }

    /// Does the same where there may be no such watch; returns into how many they went.
    pub fn try_inject(&self, bytes: &[u8], into: impl Fn(&Watch) -> bool) -> usize {
        self.shared.update(|state| state.store.inject(bytes, into))
    }

    /// Adds to the script of misbehaviour.
    pub fn misbehave(&self, misbehaviour: Misbehaviour) {
        self.shared.update(|state| state.script.push(misbehaviour));
    }

    /// Forgets the script.
    pub fn behave(&self) {
        self.shared.update(|state| state.script.clear());
    }

    /// Resets (RST) every open connection.
    pub fn reset_connections(&self) {
        for connection in self.shared.lock().connections.values() {
            let _ = connection.send(Command::Reset);
        }
    }

    /// Resets (RST) the connections of all open watches.
    pub fn reset_watches(&self) {
        let state = self.shared.lock();
        for watch in &state.store.watches {
            if let Some(connection) = state.connections.get(&watch.connection) {
                let _ = connection.send(Command::Reset);
            }
        }
    }

    /// Closes every open connection in the middle of what it is doing.
    pub fn close_connections(&self) {
        for connection in self.shared.lock().connections.values() {
            let _ = connection.send(Command::Close);
        }
    }

    /// Returns the number of open watches.
    pub fn watch_count(&self) -> usize {
        self.shared.lock().store.watches.len()
    }

    /// Returns all requests so far.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.lock().requests.clone()
    }

    /// Counts the requests so far that `take` takes.
    pub fn count_requests(&self, take: impl Fn(&Request) -> bool) -> usize {
        self.shared
            .lock()
            .requests
            .iter()
            .filter(|request| take(request))
            .count()
    }

    /// Returns the greatest number of requests that waited for an answer's headers at one time.
    pub fn most_in_flight(&self) -> usize {
        self.shared.lock().most_in_flight
    }

    /// Waits for a request, now or before, that `take` takes.
    #[track_caller]
    pub fn wait_for_request(&self, what: &str, take: impl Fn(&Request) -> bool) -> Request {
        self.wait_for(what, PATIENCE, |state| {
            state.requests.iter().find(|r| take(r)).cloned()
        })
    }

    /// Waits until `count` requests, now or before, were such that `take` takes them.
    #[track_caller]
    pub fn wait_for_requests(&self, what: &str, count: usize, take: impl Fn(&Request) -> bool) {
        self.wait_for(what, PATIENCE, |state| {
            (state.requests.iter().filter(|r| take(r)).count() >= count).then_some(())
        });
    }

    /// Waits until so many watches are open.
    #[track_caller]
    pub fn wait_for_watches(&self, count: usize) {
        self.wait_for(&format!("{count} open watches"), PATIENCE, |state| {
            (state.store.watches.len() == count).then_some(())
        });
    }

    #[track_caller]
    fn wait_for<T>(
        &self,
        what: &str,
        patience: Duration,
        mut look: impl FnMut(&State) -> Option<T>,
    ) -> T {
        let deadline = Instant::now() + patience;
        let mut state = self.shared.lock();
        loop {
            if let Some(found) = look(&state) {
                return found;
            }
            let Some(nap) = nap(deadline) else {
                let log: Vec<String> = state.requests.iter().map(Request::line).collect();
                let open = state.store.watches.len();
                drop(state);
                panic!(
                    "waited for {what}; {open} watches open; requests:\n{}",
                    log.join("\n")
                );
            };
            state = self
                .shared
                .changed
                .wait_timeout(state, nap)
                .expect("no panic")
                .0;
        }
    }
}
