//! The server's own certificate authority: made at start, rotated on demand.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::{ServerConfig, version};

/// The names that the server's certificate is for.
const NAMES: [&str; 6] = [
    "apiserver.test",
    "127.0.0.1",
    "::1",
    "localhost",
    "kubernetes",
    "kubernetes.default.svc",
];

/// Makes an authority and a certificate by it, writes `ca.crt` into the directory (in one step,
/// as a reader may look at any moment) and returns what serves the certificate.
pub fn acceptor(dir: &Path, only_tls12: bool) -> TlsAcceptor {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
        .distinguished_name
        .push(DnType::CommonName, "kubernetes");
    let key = KeyPair::generate().expect("a key can be made");
    let ca = CertifiedIssuer::self_signed(params, key).expect("an authority can be made");
    let key = KeyPair::generate().expect("a key can be made");
    let names = NAMES.map(str::to_string);
    let mut params = CertificateParams::new(names).expect("the names are valid");
    params
        .distinguished_name
        .push(DnType::CommonName, "kube-apiserver");
    let certificate = params
        .signed_by(&key, &ca)
        .expect("a certificate can be made");
    let staged = dir.join("ca.crt.new");
    fs::write(&staged, ca.pem()).expect("the directory can be written");
    fs::rename(&staged, dir.join("ca.crt")).expect("the directory can be written");

    acceptor_of(certificate.der(), &key.serialize_der(), only_tls12)
}

/// Makes an acceptor with this certificate, in DER, and its key, in PKCS #8.
pub fn acceptor_of(certificate: &[u8], key: &[u8], only_tls12: bool) -> TlsAcceptor {
    let versions = if only_tls12 {
        vec![&version::TLS12]
    } else {
        vec![&version::TLS13, &version::TLS12]
    };
    let key = PrivateKeyDer::try_from(key.to_vec()).expect("rcgen writes PKCS #8");
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&versions)
        .expect("ring has these versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.to_vec().into()], key)
        .expect("the key is the certificate's");
    TlsAcceptor::from(Arc::new(config))
}
