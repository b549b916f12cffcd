//! A TCP proxy that stops one connection in the middle of what the server sends on it, and lets
//! that on byte by byte, while all others run: which is what one watch looks like beside the rest.

use super::{PATIENCE, stopwatch};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;

/// A proxy in front of one server.
pub struct StallingProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// The next bytes towards the client stop after so many.
    armed: Option<usize>,
    /// Bytes that wait, and how many of them may go.
    waiting: usize,
    permitted: usize,
    over: bool,
}

impl StallingProxy {
    /// Starts one that passes everything to `server`.
    pub fn start(server: SocketAddr) -> StallingProxy {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port is free");
        let address = listener.local_addr().expect("a listener has an address");
        let shared = Arc::new(Shared::default());
        let of_all = shared.clone();
        let acceptor = stopwatch::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if of_all.lock().over {
                    return;
                }
                if let Ok(server) = TcpStream::connect(server) {
                    join(&of_all, &client, &server);
                }
            }
        });
        StallingProxy {
            address,
            shared,
            acceptor: Some(acceptor),
        }
    }

    /// Returns the server's URL, by way of this proxy.
    pub fn url(&self, scheme: &str) -> String {
        format!("{scheme}://{}", self.address)
    }

    /// Returns the address on which it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The next bytes towards a client, on whatever connection, stop after so many; there the rest
    /// waits for [`StallingProxy::let_go`].
    pub fn arm(&self, after: usize) {
        self.shared.lock().armed = Some(after);
    }

    /// Waits until a connection has stopped; how many bytes wait.
    #[track_caller]
    pub fn wait_until_torn(&self) -> usize {
        self.shared
            .wait("a torn connection", |s| s.armed.is_none() && s.waiting > 0);
        self.shared.lock().waiting
    }

    /// Lets so many bytes on, and waits until they have gone; how many are left.
    #[track_caller]
    pub fn let_go(&self, bytes: usize) -> usize {
        let mut state = self.shared.lock();
        state.permitted = bytes.min(state.waiting);
        drop(state);
        self.shared.changed.notify_all();
        self.shared
            .wait("bytes to go", |state| state.permitted == 0);
        self.shared.lock().waiting
    }

    /// Stops nothing from now on, and lets everything on that waits.
    pub fn mend(&self) {
        let mut state = self.shared.lock();
        (state.armed, state.permitted) = (None, state.waiting);
        drop(state);
        self.shared.changed.notify_all();
    }
}

impl Drop for StallingProxy {
    fn drop(&mut self) {
        self.shared.lock().over = true;
        self.shared.changed.notify_all();
        let _ = TcpStream::connect(self.address);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics with it")
    }

    #[track_caller]
    fn wait(&self, what: &str, mut reached: impl FnMut(&mut State) -> bool) {
        let waiting = |state: &mut State| !reached(state);
        let waited = self
            .changed
            .wait_timeout_while(self.lock(), PATIENCE, waiting);
        let timed_out = waited.expect("nobody panics with it").1.timed_out();
        assert!(!timed_out, "waited for {what}");
    }

    /// Returns how many of these bytes may go at once.
    fn admit(&self, count: usize) -> usize {
        let mut state = self.lock();
        let admitted = state.armed.take().map_or(count, |after| after.min(count));
        state.waiting += count - admitted;
        admitted
    }

    /// Waits until some of the bytes that wait here may go.
    fn next_permitted(&self) -> Option<usize> {
        let waiting = |state: &mut State| state.permitted == 0 && !state.over;
        let waited = self.changed.wait_while(self.lock(), waiting);
        let state = waited.expect("nobody panics with it");
        (!state.over).then_some(state.permitted)
    }

    fn gone(&self, bytes: usize) {
        let mut state = self.lock();
        state.waiting -= bytes;
        state.permitted = 0;
        self.changed.notify_all();
    }
}

fn join(shared: &Arc<Shared>, client: &TcpStream, server: &TcpStream) {
    let copy = |stream: &TcpStream| stream.try_clone().expect("a socket can be cloned");
    let _ = client.set_nodelay(true);
    let _ = server.set_nodelay(true);
    let (mut from, mut to) = (copy(client), copy(server));
    stopwatch::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    });
    let (mut from, mut to, shared) = (copy(server), copy(client), shared.clone());
    stopwatch::spawn(move || {
        let _ = pass(&shared, &mut from, &mut to);
        let _ = to.shutdown(Shutdown::Both);
        let _ = from.shutdown(Shutdown::Both);
    });
}

fn pass(shared: &Shared, from: &mut TcpStream, to: &mut TcpStream) -> std::io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let count = from.read(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        let go = shared.admit(count);
        let (first, mut rest) = buffer[..count].split_at(go);
        let mut written = to.write_all(first);
        shared.changed.notify_all();
        while written.is_ok() && !rest.is_empty() {
            let Some(permitted) = shared.next_permitted() else {
                return Ok(());
            };
            let (next, later) = rest.split_at(permitted.min(rest.len()));
            written = to.write_all(next);
            rest = later;
            shared.gone(next.len());
        }
        if written.is_err() {
            // The client is gone: nothing waits for it any more.
            shared.gone(rest.len());
            return written;
        }
    }
}
