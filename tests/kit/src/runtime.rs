//! A thread with an async runtime, and ports on it that can be closed and opened again. Every server of
//! the kit runs on one; nothing of it is left when it is dropped.

use super::{PATIENCE, stopwatch};
use std::future::{Future, pending};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::{Builder, Handle};
use tokio::sync::{oneshot, watch};

/// A thread that runs async tasks.
pub struct Runtime {
    handle: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Runtime {
    /// Starts the thread.
    pub fn start() -> Runtime {
        let (stop, stopped) = oneshot::channel();
        let (ready, started) = mpsc::channel();
        let thread = stopwatch::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build();
            let runtime = runtime.expect("a runtime can be made");
            ready
                .send(runtime.handle().clone())
                .expect("the starter waits");
            let _ = runtime.block_on(stopped);
        });
        let handle = started.recv().expect("the thread starts");
        Runtime {
            handle,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Runs a task until it ends or the runtime is dropped.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.handle.spawn(task);
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        self.stop.take().map(|stop| stop.send(()));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Lets time pass between two writes; with none, lets others run, as a timer's least is 1 ms.
pub async fn pause(time: Duration) {
    if time.is_zero() {
        tokio::task::yield_now().await;
    } else {
        tokio::time::sleep(time).await;
    }
}

/// Makes a socket that listens.
pub type Bind = Box<dyn Fn(SocketAddr) -> std::net::TcpListener + Send + Sync>;

/// A port, of 127.0.0.1 or of an address in another network.
pub struct Port {
    address: SocketAddr,
    bind: Bind,
    handle: Handle,
    listener: watch::Sender<Option<Arc<Listener>>>,
    /// Hangs up once the listener's socket is closed.
    closed: Mutex<Option<Receiver<()>>>,
    /// Keeps the number for us while nobody listens.
    kept: Mutex<Option<TcpSocket>>,
}

/// Fields are dropped in this order: when the other end hangs up, the socket is closed.
struct Listener {
    socket: TcpListener,
    _open: Sender<()>,
}

impl Port {
    /// Listens on a port (0: any free one); each connection becomes a task.
    pub fn open<Task>(
        runtime: &Runtime,
        port: u16,
        serve: impl Fn(TcpStream) -> Task + Send + 'static,
    ) -> Port
    where
        Task: Future<Output = ()> + Send + 'static,
    {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Port::open_by(runtime, address, Box::new(bind), serve)
    }

    /// Listens by sockets that `bind` makes, each time anew: in another network, for one.
    pub fn open_by<Task>(
        runtime: &Runtime,
        address: SocketAddr,
        bind: Bind,
        serve: impl Fn(TcpStream) -> Task + Send + 'static,
    ) -> Port
    where
        Task: Future<Output = ()> + Send + 'static,
    {
        let (listener, mut current) = watch::channel(None::<Arc<Listener>>);
        let mut port = Port {
            address,
            bind,
            handle: runtime.handle.clone(),
            listener,
            closed: Mutex::new(None),
            kept: Mutex::new(None),
        };
        port.address = port.reopen();
        runtime.spawn(async move {
            loop {
                let listener = current.borrow_and_update().clone();
                let accepted = async {
                    match &listener {
                        Some(listener) => listener.socket.accept().await,
                        None => pending().await,
                    }
                };
                tokio::select! {
                    changed = current.changed() => if changed.is_err() { return },
                    accepted = accepted => if let Ok((socket, _)) = accepted {
                        let _ = socket.set_nodelay(true);
                        tokio::spawn(serve(socket));
                    },
                }
            }
        });
        port
    }

    /// Returns the address on which it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Refuses connections from now on.
    pub fn close(&self) {
        drop(self.listener.send_replace(None));
        if let Some(closed) = lock(&self.closed).take() {
            let closed = closed.recv_timeout(PATIENCE);
            assert_eq!(
                closed,
                Err(RecvTimeoutError::Disconnected),
                "it still listens"
            );
        }
        *lock(&self.kept) = refuse(self.address).ok();
    }

    /// Takes connections again, on the same port.
    pub fn reopen(&self) -> SocketAddr {
        let bound = (self.bind)(self.address);
        *lock(&self.kept) = None;
        bound
            .set_nonblocking(true)
            .expect("a socket can be made non-blocking");
        let address = bound.local_addr().expect("a bound socket has an address");
        let _runtime = self.handle.enter();
        let socket = TcpListener::from_std(bound).expect("the runtime takes the socket");
        let (open, closed) = mpsc::channel();
        *lock(&self.closed) = Some(closed);
        let listener = Listener {
            socket,
            _open: open,
        };
        self.listener.send_replace(Some(Arc::new(listener)));
        address
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns a socket that does not listen: while it is there, connections are refused, and no other
/// test gets the port.
pub fn refuse(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// Returns a socket that listens in this network.
pub fn bind(address: SocketAddr) -> std::net::TcpListener {
    std::net::TcpListener::bind(address).expect("the port is free")
}
