//! A TCP proxy, on loopback or in a network of a test's own: the network's own faults, switched
//! while connections run.

use super::namespace::Namespace;
use super::runtime::{self, Bind, Port, Runtime};
use super::until;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::watch;

/// The fate of bytes.
#[derive(Clone, Debug, PartialEq)]
pub enum Mode {
    /// They go through.
    Pass,
    /// Towards the client they go in pieces of these sizes, over and over, a gap after each.
    Torn {
        /// The sizes, none of them 0.
        sizes: Vec<usize>,
        /// The time between two pieces.
        gap: Duration,
    },
    /// They stay here, in both directions; nothing is closed. New connections are taken, and reach
    /// the server when this is over.
    Freeze,
    /// They go through on open connections. New ones are taken, and get no further until this is
    /// over.
    Hold,
}

impl Mode {
    /// Returns the mode that passes one byte at a time.
    pub fn drip(gap: Duration) -> Mode {
        Mode::Torn {
            sizes: vec![1],
            gap,
        }
    }
}

/// A proxy in front of one server.
pub struct Proxy {
    modes: watch::Sender<Mode>,
    resets: watch::Sender<u64>,
    held: watch::Sender<usize>,
    port: Port,
    _runtime: Runtime,
}

impl Proxy {
    /// Starts one that passes everything to `server`.
    pub fn start(server: SocketAddr) -> Proxy {
        Proxy::start_at(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), server)
    }

    /// Does the same at another address of this machine.
    pub fn start_at(address: SocketAddr, server: SocketAddr) -> Proxy {
        Proxy::start_by(address, Box::new(runtime::bind), server)
    }

    /// Does the same at an address in another network.
    pub fn start_in(network: &Namespace, address: SocketAddr, server: SocketAddr) -> Proxy {
        Proxy::start_by(address, network.bind_by(), server)
    }

    fn start_by(address: SocketAddr, bind: Bind, server: SocketAddr) -> Proxy {
        let runtime = Runtime::start();
        let modes = watch::Sender::new(Mode::Pass);
        let resets = watch::Sender::new(0);
        let held = watch::Sender::new(0);
        let (mode, reset, holds) = (modes.clone(), resets.clone(), held.clone());
        let port = Port::open_by(&runtime, address, bind, move |client| {
            connect(
                client,
                server,
                mode.subscribe(),
                reset.subscribe(),
                holds.clone(),
            )
        });
        Proxy {
            modes,
            resets,
            held,
            port,
            _runtime: runtime,
        }
    }

    /// Returns the address on which it listens.
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Returns the server's URL, by way of this proxy.
    pub fn url(&self, scheme: &str) -> String {
        format!("{scheme}://{}", self.address())
    }

    /// Sets the mode from now on, for open connections and new ones.
    pub fn set(&self, mode: Mode) {
        self.modes.send_replace(mode);
    }

    /// Waits until so many connections were taken that get no further.
    #[track_caller]
    pub fn wait_for_held(&self, count: usize) {
        until("held connections", || {
            (*self.held.borrow() == count).then_some(())
        });
    }

    /// Resets (RST) all open connections.
    pub fn reset(&self) {
        self.resets.send_modify(|count| *count += 1);
    }

    /// Refuses new connections; open ones go on.
    pub fn refuse(&self) {
        self.port.close();
    }

    /// Takes connections again.
    pub fn accept(&self) {
        self.port.reopen();
    }
}

async fn connect(
    mut client: TcpStream,
    server: SocketAddr,
    mut modes: watch::Receiver<Mode>,
    mut resets: watch::Receiver<u64>,
    held: watch::Sender<usize>,
) {
    let run = async {
        let passes = |mode: &Mode| !matches!(mode, Mode::Freeze | Mode::Hold);
        held.send_modify(|count| *count += 1);
        let passed = modes.wait_for(passes).await.is_ok();
        held.send_modify(|count| *count -= 1);
        if !passed {
            return;
        }
        let Ok(mut server) = TcpStream::connect(server).await else {
            return;
        };
        let _ = server.set_nodelay(true);
        let ((from_client, to_client), (from_server, to_server)) = (client.split(), server.split());
        tokio::join!(
            pump(from_client, to_server, modes.clone(), false),
            pump(from_server, to_client, modes.clone(), true),
        );
    };
    tokio::select! {
        () = run => {}
        _ = resets.changed() => {
            let _ = client.set_zero_linger();
        }
    }
}

/// Carries bytes one way until that way ends.
async fn pump(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut modes: watch::Receiver<Mode>,
    to_client: bool,
) {
    let mut buffer = vec![0; 64 * 1024];
    let mut piece = 0;
    while let Ok(count) = from.read(&mut buffer).await {
        if count == 0 {
            break;
        }
        let mut rest = &buffer[..count];
        while !rest.is_empty() {
            let Ok(mode) = modes
                .wait_for(|mode| *mode != Mode::Freeze)
                .await
                .map(|m| m.clone())
            else {
                return;
            };
            let (size, gap) = match mode {
                Mode::Torn { sizes, gap } if to_client => {
                    piece += 1;
                    (sizes[(piece - 1) % sizes.len()].min(rest.len()), gap)
                }
                Mode::Pass | Mode::Torn { .. } | Mode::Freeze | Mode::Hold => {
                    (rest.len(), Duration::ZERO)
                }
            };
            if to.write_all(&rest[..size]).await.is_err() {
                return;
            }
            rest = &rest[size..];
            runtime::pause(gap).await;
        }
    }
    let frozen = modes.wait_for(|mode| *mode != Mode::Freeze).await.is_err();
    if !frozen {
        let _ = to.shutdown().await;
    }
}
