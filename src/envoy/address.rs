//! The address of Envoy's admin interface, or the path of its socket. Owns: look-ups of its name.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use ureq::http::Uri;

use super::error::AdminError;
use crate::process::signals::Signals;

/// The time between look-ups of a name, as each holds the loop: at most one is made in it.
const LOOK_UP_EVERY: Duration = Duration::from_secs(60);

/// An admin interface: `http://HOST[:PORT][/PATH]` or `unix:PATH`.
#[derive(Debug)]
pub struct Address {
    /// The prefix of a request's path.
    base: String,
    place: Place,
}

#[derive(Debug)]
enum Place {
    Known(Vec<Remote>),
    Named {
        host: String,
        port: u16,
        found: Vec<Remote>,
        looked_up: Option<Instant>,
    },
}

/// A place that a socket can be connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remote {
    Ip(SocketAddr),
    Path(PathBuf),
}

impl Address {
    /// Reads an address that the command line has accepted.
    pub fn new(text: &str) -> Result<Address, AdminError> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(Address {
                base: "http://localhost".into(),
                place: Place::Known(vec![Remote::Path(path.into())]),
            });
        }
        let bad = || AdminError::Away(format!("{text:?} is not an address"));
        let uri: Uri = text.parse().map_err(|_| bad())?;
        let host = uri.host().ok_or_else(bad)?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let port = uri.port_u16().unwrap_or(80);
        let known = |ips: &[IpAddr]| {
            let remotes = ips.iter().map(|ip| Remote::Ip(SocketAddr::new(*ip, port)));
            Place::Known(remotes.collect())
        };
        let place = if let Ok(ip) = host.parse() {
            known(&[ip])
        } else if host.eq_ignore_ascii_case("localhost") {
            known(&[Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()])
        } else {
            Place::Named {
                host: host.into(),
                port,
                found: Vec::new(),
                looked_up: None,
            }
        };
        Ok(Address {
            base: text.trim_end_matches('/').into(),
            place,
        })
    }

    /// Returns a request's whole URL.
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// Returns where to connect to, the better ones first. A name that is not an address is looked
    /// up once; the call cannot be interrupted.
    pub fn remotes(&mut self, signals: &Signals, now: Instant) -> Result<&[Remote], AdminError> {
        let (host, port, found, looked_up) = match &mut self.place {
            Place::Known(remotes) => return Ok(remotes),
            Place::Named {
                host,
                port,
                found,
                looked_up,
            } => (host, port, found, looked_up),
        };
        let is_due = looked_up.is_none_or(|at| now.saturating_duration_since(at) >= LOOK_UP_EVERY);
        if found.is_empty() && is_due {
            *looked_up = Some(now);
            let result = signals.run_blocking(|| (host.as_str(), *port).to_socket_addrs());
            let addresses = result.map_err(|error| {
                AdminError::Away(format!("{host} cannot be looked up: {error}"))
            })?;
            *found = addresses.map(Remote::Ip).collect();
        }
        match found.is_empty() {
            true => Err(AdminError::Away(format!("{host} has no address"))),
            false => Ok(found),
        }
    }

    /// Forgets what a look-up has found, after none of it could be reached.
    pub fn failed(&mut self) {
        if let Place::Named { found, .. } = &mut self.place {
            found.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_or_localhost_or_a_path_needs_no_look_up() {
        let signals = Signals::install(false, None).unwrap();
        let now = Instant::now();
        let remotes = |text: &str| {
            let mut address = Address::new(text).unwrap();
            let url = address.url("/stats?x");
            let remotes = address.remotes(&signals, now).unwrap().iter();
            let remotes: Vec<String> = remotes
                .map(|remote| match remote {
                    Remote::Ip(address) => address.to_string(),
                    Remote::Path(path) => path.display().to_string(),
                })
                .collect();
            (remotes.join(" "), url)
        };
        for (text, want, url) in [
            (
                "http://127.0.0.1:9901",
                "127.0.0.1:9901",
                "http://127.0.0.1:9901/stats?x",
            ),
            ("http://[::1]:1/", "[::1]:1", "http://[::1]:1/stats?x"),
            (
                "http://10.0.0.1/admin",
                "10.0.0.1:80",
                "http://10.0.0.1/admin/stats?x",
            ),
            (
                "http://localhost:9901",
                "127.0.0.1:9901 [::1]:9901",
                "http://localhost:9901/stats?x",
            ),
            (
                "unix:/run/a.sock",
                "/run/a.sock",
                "http://localhost/stats?x",
            ),
        ] {
            assert_eq!(remotes(text), (want.into(), url.into()), "{text}");
        }
        assert!(Address::new("http://").is_err());
    }

    #[test]
    fn a_name_is_looked_up_once_and_again_after_a_minute_of_failures() {
        let signals = Signals::install(false, None).unwrap();
        let now = Instant::now();
        let mut address = Address::new("http://name.invalid:1").unwrap();
        let asked = |address: &Address| match &address.place {
            Place::Named { looked_up, .. } => *looked_up,
            Place::Known(_) => None,
        };
        assert!(address.remotes(&signals, now).is_err());
        address.failed();
        let second = Duration::from_secs(1);
        assert!(address.remotes(&signals, now + second).is_err());
        assert_eq!(asked(&address), Some(now));
        let later = now + LOOK_UP_EVERY;
        assert!(address.remotes(&signals, later).is_err());
        assert_eq!(asked(&address), Some(later));
    }
}
