//! Makes ureq's connections: looks the server's name up if need be, and connects to the first
//! address that works.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use ureq::Error;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{ConnectionDetails, Connector, NextTimeout};

use super::connect::{Connecting, Connection};
use super::connections::Connections;
use super::socket::Socket;
use super::transport::PollTransport;
use super::wait::{is_interrupted, lock};

/// Looks a name up only when no known address works, as the call cannot be interrupted.
#[derive(Debug)]
pub struct CachingResolver(pub Arc<Connections>);

impl Resolver for CachingResolver {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
        let Connections {
            waiter, addresses, ..
        } = &*self.0;
        let mut known = lock(addresses);
        if !known.are_good() {
            let look_up = || DefaultResolver::default().resolve(uri, config, timeout);
            match waiter.run_blocking(look_up) {
                Ok(found) => known.found(&found),
                // A name service may be away for longer than the server is.
                Err(_) if !known.in_order().is_empty() => {}
                Err(error) => {
                    waiter.check_signals()?;
                    return Err(error);
                }
            }
        }
        let mut addresses = self.empty();
        for address in known.in_order() {
            addresses.push(*address);
        }
        Ok(addresses)
    }
}

/// Makes connections for ureq.
#[derive(Debug)]
pub struct PollConnector(pub Arc<Connections>);

impl Connector<()> for PollConnector {
    type Out = PollTransport;

    fn connect(
        &self,
        details: &ConnectionDetails,
        _: Option<()>,
    ) -> Result<Option<PollTransport>, Error> {
        let connections = &self.0;
        let started = lock(&connections.started).take();
        let finished = started.and_then(|started| started.finish(&connections.waiter).ok());
        // The server may have closed one that was started early, as it may close one that has
        // carried a request.
        let requests = u32::from(finished.is_some());
        let connection = match finished {
            Some(connection) => connection,
            None => connect_any(connections, details)?,
        };
        let Connection {
            address,
            stream,
            tls,
        } = connection;
        let socket = Arc::new(Socket::new(address, stream, requests));
        connections.waiter.add(&socket);
        let connections = connections.clone();
        let transport = PollTransport::new(connections, socket, tls, details.config);
        Ok(Some(transport))
    }
}

/// Connects to the first address with which that works, handshake and all. Each but the last gets
/// its share of the time that is left, so that a dead one does not cost the others theirs.
fn connect_any(
    connections: &Connections,
    details: &ConnectionDetails,
) -> Result<Connection, Error> {
    let waiter = &connections.waiter;
    let deadline = waiter.deadline();
    let mut failure = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for (tried, address) in details.addrs.iter().enumerate() {
        let now = Instant::now();
        let left = deadline.saturating_duration_since(now);
        let share = left / (details.addrs.len() - tried) as u32;
        waiter.replace_deadline(now + share);
        let result = connect(connections, address, details.uri);
        waiter.replace_deadline(deadline);
        let error = match result {
            Ok(connection) => return Ok(connection),
            Err(error) if is_interrupted(&error) => return Err(error.into()),
            Err(error) => error,
        };
        if !left.is_zero() {
            connections.failed(*address);
        }
        // An address that was too slow for its share may do with more time: the next try is to give
        // it that.
        if failure.kind() != io::ErrorKind::TimedOut {
            failure = match details.addrs.len() {
                1 => error,
                _ => io::Error::new(error.kind(), format!("{address}: {error}")),
            };
        }
    }
    Err(failure.into())
}

/// TLS is set up once the server is there: it would be for nothing at a dead address.
fn connect(connections: &Connections, address: &SocketAddr, uri: &Uri) -> io::Result<Connection> {
    let waiter = &connections.waiter;
    let mut connection = Connecting::start(address, None)?.finish(waiter)?;
    if let Some(tls) = connections.tls_to(uri)? {
        connection.secure(tls, waiter)?;
    }
    Ok(connection)
}
