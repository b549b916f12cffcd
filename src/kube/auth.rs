//! Credentials and trust for the API server: the token and the CA file. Owns: reading both again
//! when they change. A secret leaves this file only as a request's header.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use log::warn;
use rustls::client::Resumption;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use crate::error::Error;
use crate::net::tls::{Verifier, provider};

/// A bearer token. It has neither Debug nor Display, so that no log can take it.
pub struct Token(String);

impl Token {
    /// Returns the value of an Authorization header.
    pub fn header(&self) -> &str {
        &self.0
    }
}

/// The token file, and the token that it held last.
pub struct TokenFile {
    path: PathBuf,
    token: Token,
}

impl TokenFile {
    /// Reads the token; a file that is missing or empty is an error.
    pub fn open(path: &Path) -> Result<TokenFile, Error> {
        let token = read_token(path).map_err(|source| Error::File {
            what: "token file",
            path: path.to_owned(),
            hint: "mount the service account's token, or give -token-file",
            source,
        })?;
        Ok(TokenFile {
            path: path.to_owned(),
            token,
        })
    }

    /// Returns the token that the file holds now. Kubelet rotates it about hourly; while the file
    /// is gone or empty the last one stays. A read costs three system calls, so no time is kept.
    pub fn current(&mut self) -> &Token {
        if let Ok(token) = read_token(&self.path) {
            self.token = token;
        }
        &self.token
    }
}

/// Go's servers take no more of a head than this, and all of a token stands in one header.
const LONGEST_TOKEN: u64 = 1 << 20;
/// The byte-order mark with which some editors begin a text.
const BOM: &[u8] = "\u{feff}".as_bytes();

fn read_token(path: &Path) -> io::Result<Token> {
    let unfit = |what| Err(io::Error::new(io::ErrorKind::InvalidData, what));
    let mut text = Vec::new();
    let file = fs::File::open(path)?;
    file.take(LONGEST_TOKEN + 1).read_to_end(&mut text)?;
    if text.len() as u64 > LONGEST_TOKEN {
        return unfit("it is too long for a token: no API server takes over 1 MiB");
    }
    let text = text.strip_prefix(BOM).unwrap_or(&text).trim_ascii();
    // A header's value: anything else in a token is another file.
    if text.is_empty() || !text.iter().all(u8::is_ascii_graphic) {
        return unfit("it holds no token: one word is expected");
    }
    Ok(Token(["Bearer ", &String::from_utf8_lossy(text)].concat()))
}

/// The certificates that may identify the API server.
pub enum Roots {
    /// The certificates in this file.
    File(PathBuf),
    /// The public roots.
    Public,
    /// None: any certificate is accepted.
    Insecure,
}

/// Makes TLS configurations, a new one whenever the CA file has changed.
pub struct TlsConfig {
    roots: Roots,
    /// The state of the file from which the last one was made.
    made: Option<Stamp>,
}

/// Tells one state of a file from another: inode, length, modification time.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Stamp(u64, u64, i64, i64);

impl TlsConfig {
    /// Makes the source of configurations without reading anything yet.
    pub fn new(roots: Roots) -> TlsConfig {
        TlsConfig { roots, made: None }
    }

    /// Returns a TLS configuration if its roots have changed since the last call.
    pub fn refresh(&mut self) -> Result<Option<Arc<ClientConfig>>, Error> {
        let unusable = |path: &Path| {
            let path = path.to_owned();
            let hint = "give the API server's CA with -ca-file";
            move |source| Error::File {
                what: "CA file",
                path,
                hint,
                source,
            }
        };
        let stamp = match &self.roots {
            Roots::File(path) => {
                let file = fs::metadata(path).map_err(unusable(path))?;
                Stamp(file.ino(), file.len(), file.mtime(), file.mtime_nsec())
            }
            Roots::Public | Roots::Insecure => Stamp::default(),
        };
        if self.made == Some(stamp) {
            return Ok(None);
        }
        let provider = Arc::new(provider());
        let config = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|e| Error::System {
                what: "set up TLS",
                source: io::Error::other(e),
            })?;
        let roots = match &self.roots {
            Roots::File(path) => Some(read_roots(path).map_err(unusable(path))?),
            Roots::Public => Some(RootCertStore::from_iter(
                webpki_roots::TLS_SERVER_ROOTS.iter().cloned(),
            )),
            Roots::Insecure => None,
        };
        let mut config = config
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Verifier { provider, roots }))
            .with_no_client_auth();
        // One server: the default keeps room for 256.
        config.resumption = Resumption::in_memory_sessions(2);
        self.made = Some(stamp);
        Ok(Some(Arc::new(config)))
    }
}

/// Reads the certificates of a file. One that cannot be read is skipped with a warning.
fn read_roots(path: &Path) -> io::Result<RootCertStore> {
    let pem = fs::read(path)?;
    let mut roots = RootCertStore::empty();
    let mut broken = Vec::new();
    for (line, section) in sections(pem.strip_prefix(BOM).unwrap_or(&pem)) {
        let certificate = CertificateDer::from_pem_slice(section).map_err(io::Error::other);
        let added = certificate.and_then(|der| roots.add(der).map_err(io::Error::other));
        if let Err(error) = added {
            broken.push((line, error));
        }
    }
    if roots.is_empty() {
        let what = match broken.first() {
            Some((line, error)) => format!("the certificate in line {line} is broken: {error}"),
            None => "it holds no certificate: PEM is expected".to_owned(),
        };
        return Err(io::Error::new(io::ErrorKind::InvalidData, what));
    }
    for (line, error) in broken {
        let (message, file) = ("invalid CA certificate; ignoring it", path.display());
        warn!(file:% = file, line, error:% = error; "{message}");
    }
    Ok(roots)
}

/// The beginning of a certificate, also of one whose first line is cut off.
const BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-";

/// Returns each certificate with its line and all that follows it up to the next, so that one
/// without an end does not spoil the next.
fn sections(pem: &[u8]) -> Vec<(usize, &[u8])> {
    let mut starts = Vec::new();
    let mut at = 0;
    for (number, line) in pem.split_inclusive(|b| *b == b'\n').enumerate() {
        if line.starts_with(BEGIN) {
            starts.push((number + 1, at));
        }
        at += line.len();
    }
    let ends = starts.iter().skip(1).map(|(_, start)| *start);
    let ends: Vec<usize> = ends.chain([pem.len()]).collect();
    let sections = starts.iter().zip(ends);
    let sections = sections.map(|((line, start), end)| (*line, &pem[*start..end]));
    sections.collect()
}
