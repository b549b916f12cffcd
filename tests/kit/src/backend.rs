//! A small HTTP backend that answers its own name, for Envoy to send traffic to.

use super::runtime::{Port, Runtime};
use http_body_util::Full;
use hyper::Response;
use hyper::body::Bytes;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A backend.
pub struct Backend {
    answered: Arc<AtomicU64>,
    port: Port,
    _runtime: Runtime,
}

impl Backend {
    /// Starts one that answers `name` to everything.
    pub fn start(name: &str) -> Backend {
        let runtime = Runtime::start();
        let answered = Arc::new(AtomicU64::new(0));
        let (count, name) = (answered.clone(), Bytes::from(name.to_string()));
        let port = Port::open(&runtime, 0, move |socket| {
            let (count, name) = (count.clone(), name.clone());
            async move {
                let service = service_fn(|_| {
                    count.fetch_add(1, Ordering::Relaxed);
                    let response = Response::new(Full::new(name.clone()));
                    async { Ok::<_, Infallible>(response) }
                });
                let connection = http1::Builder::new();
                let _ = connection
                    .serve_connection(TokioIo::new(socket), service)
                    .await;
            }
        });
        Backend {
            answered,
            port,
            _runtime: runtime,
        }
    }

    /// Returns the address on which it listens.
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Returns how many requests it answered.
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }
}
