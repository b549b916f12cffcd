//! An in-memory Kubernetes API server on a thread of its own, held to recorded exchanges with a
//! real one (`tests/it/kit/apiserver.rs`). This file owns how it starts and the state it keeps.

pub mod access;
pub mod cluster;
mod encode;
pub mod faults;
mod fields;
mod kinds;
mod openapi;
mod protobuf;
pub mod request;
mod route;
mod serve;
mod server;
mod status;
mod store;
mod tls;
mod validation;
pub mod watches;
mod wire;
mod write;

use access::Account;
use faults::Misbehaviour;
use request::Request;
use serve::Command;
pub use server::Server;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::Duration;
use store::Store;
use tokio::sync::mpsc::UnboundedSender;
use tokio_rustls::TlsAcceptor;

/// The wire format of a release, as far as the recordings differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dialect {
    /// Zero values are left out.
    #[default]
    V1_34,
    /// Zero times are `null`, as up to 1.33; so is an empty list of metadata.
    V1_20,
}

/// The state in which the server starts.
pub struct Options {
    /// The dialect at first.
    pub dialect: Dialect,
    /// 0: any free one.
    pub port: u16,
    /// `None`: http.
    pub tls: Option<Tls>,
    /// The versions in which TrafficSplits are served. Without any, the group does not exist.
    pub splits: Vec<&'static str>,
    /// The accounts. Without any, everyone may do everything.
    pub accounts: Vec<Account>,
    /// A bookmark for each watch this often; the real server's is a minute.
    pub bookmark_interval: Duration,
    /// The number of events that are kept for watches that begin in the past.
    pub history: usize,
    /// The resourceVersion before the first change.
    pub first_version: u64,
}

/// https.
pub struct Tls {
    /// The directory into which `ca.crt` is written.
    pub dir: PathBuf,
    /// True if TLS 1.3 is left out.
    pub only_tls12: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            dialect: Dialect::default(),
            port: 0,
            tls: None,
            splits: vec!["v1alpha4", "v1alpha3", "v1alpha2", "v1alpha1"],
            accounts: Vec::new(),
            bookmark_interval: Duration::from_secs(60),
            history: 1000,
            first_version: 1000,
        }
    }
}

impl Options {
    /// https, the authority's certificate in `dir`.
    pub fn tls(dir: &Path) -> Options {
        let tls = Some(Tls {
            dir: dir.to_path_buf(),
            only_tls12: false,
        });
        Options {
            tls,
            ..Options::default()
        }
    }
}

/// Everything the server knows.
struct State {
    dialect: Dialect,
    store: Store,
    accounts: Vec<Account>,
    requests: Vec<Request>,
    /// Requests without an answer's headers: now, and at most.
    in_flight: usize,
    most_in_flight: usize,
    script: Vec<Misbehaviour>,
    connections: HashMap<u64, UnboundedSender<Command>>,
    next_connection: u64,
    /// Connections that are still in a handshake end with it.
    away: bool,
    acceptor: Option<TlsAcceptor>,
    bookmark_interval: Duration,
}

impl State {
    fn answered(&mut self, number: usize, status: u16) {
        if let Some(request) = self.requests.get_mut(number - 1) {
            request.status = status;
        }
    }
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics with the state")
    }

    /// Changes the state and wakes who waits for it.
    fn update<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.lock());
        self.changed.notify_all();
        result
    }
}
