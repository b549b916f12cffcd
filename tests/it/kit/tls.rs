//! The kit's https, seen by a client that trusts only the authority in `ca.crt`.

use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, pem::PemObject};
use rustls::{ClientConfig, ClientConnection, ProtocolVersion, RootCertStore, StreamOwned};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;
use testkit::apiserver::{Options, Server, Tls};

#[test]
fn https_is_trusted_by_its_own_authority_alone() {
    let dir = TempDir::new().unwrap();
    let server = Server::start(Options::tls(dir.path()));
    assert!(server.url().starts_with("https://127.0.0.1:"));
    assert_eq!(
        get(&server, &server.ca_file()).unwrap(),
        ProtocolVersion::TLSv1_3
    );
    let old = dir.path().join("old.crt");
    std::fs::copy(server.ca_file(), &old).unwrap();
    server.rotate_ca();
    assert_eq!(
        get(&server, &server.ca_file()).unwrap(),
        ProtocolVersion::TLSv1_3
    );
    assert!(get(&server, &old).is_err());
}

#[test]
fn https_can_be_held_at_tls_1_2() {
    let dir = TempDir::new().unwrap();
    let tls = Tls {
        dir: dir.path().to_path_buf(),
        only_tls12: true,
    };
    let server = Server::start(Options {
        tls: Some(tls),
        ..Options::default()
    });
    assert_eq!(
        get(&server, &server.ca_file()).unwrap(),
        ProtocolVersion::TLSv1_2
    );
}

/// Has an answer over TLS; returns what was spoken.
fn get(server: &Server, ca_file: &Path) -> io::Result<ProtocolVersion> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(ca_file).unwrap())
        .unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = "kubernetes".try_into().unwrap();
    let client = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut stream = StreamOwned::new(client, TcpStream::connect(server.address())?);
    stream.write_all(b"GET /version HTTP/1.1\r\nHost: kubernetes\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
    Ok(stream.conn.protocol_version().unwrap())
}
