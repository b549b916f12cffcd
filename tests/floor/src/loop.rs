//! The least that it takes to have a watch's events in a file: each is read from the TLS stream
//! that crossover reads, written aside as it came, and renamed. Nothing is decoded, compared, kept
//! whole or made to last, and no failure is survived.

use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::error::Error;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::{env, fs};

const USAGE: &str = "usage: floor-loop once|watch ADDRESS CA-FILE FILE PATH...";
/// Every event of a watch ends so, and a list is one.
const END: &[u8] = b"}\n";

type Stream = StreamOwned<ClientConnection, TcpStream>;

/// Watches the first path; the others are opened and held.
fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let mut next = || arguments.next().ok_or(USAGE);
    let (mode, address, ca_file, file) = (next()?, next()?.parse()?, next()?, next()?);
    let config = Arc::new(trusting(&ca_file)?);
    let mut streams = Vec::new();
    for path in arguments {
        streams.push(ask(&config, address, &path)?);
    }
    let stream = streams.first_mut().ok_or(USAGE)?;
    let aside = format!("{file}.new");
    let mut event = Vec::new();
    let mut buffer = [0; 16 << 10];
    loop {
        let amount = stream.read(&mut buffer)?;
        if amount == 0 {
            return Ok(());
        }
        // An end may have come in two parts.
        let mut looked = event.len().saturating_sub(1);
        event.extend_from_slice(&buffer[..amount]);
        while let Some(at) = event[looked..].windows(2).position(|two| two == END) {
            let rest = event.split_off(looked + at + END.len());
            fs::write(&aside, &event)?;
            fs::rename(&aside, &file)?;
            if mode == "once" {
                return Ok(());
            }
            (event, looked) = (rest, 0);
        }
    }
}

fn trusting(ca_file: &str) -> Result<ClientConfig, Box<dyn Error>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca_file)?)?;
    let provider = rustls::crypto::ring::default_provider();
    let config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(config)
}

fn ask(
    config: &Arc<ClientConfig>,
    address: SocketAddr,
    path: &str,
) -> Result<Stream, Box<dyn Error>> {
    let socket = TcpStream::connect(address)?;
    socket.set_nodelay(true)?;
    let name = ServerName::from(address.ip());
    let connection = ClientConnection::new(config.clone(), name)?;
    let mut stream = StreamOwned::new(connection, socket);
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n")?;
    stream.flush()?;
    Ok(stream)
}
