//! Who we are to the API server and whom we trust: the token and the CA file. Owns: reading both
//! again when they change. Secrets leave this file only as a request's header.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use crate::error::Error;
use crate::net::tls::{TrustAnyone, provider};

/// A bearer token. It has neither Debug nor Display, so that no log can take it.
pub struct Token(String);

impl Token {
    /// The value of an Authorization header.
    pub fn header(&self) -> &str {
        &self.0
    }
}

/// The token file and what it said last.
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

    /// The token that the file holds now. Kubelet rotates it about hourly; while the file is gone
    /// or empty the last one stays. A read costs three system calls, so no time is kept.
    pub fn current(&mut self) -> &Token {
        if let Ok(token) = read_token(&self.path) {
            self.token = token;
        }
        &self.token
    }
}

fn read_token(path: &Path) -> io::Result<Token> {
/// Go's servers take no more of a head than this, and all of a token stands in one header.
const LONGEST_TOKEN: u64 = 1 << 20;
/// What some editors begin a text with.
const BOM: &[u8] = "\u{feff}".as_bytes();

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

/// Whom to trust to be the API server.
pub enum Roots {
    /// The certificates in this file.
    File(PathBuf),
    /// The public roots.
    Public,
    /// Anyone.
    Anyone,
}

/// Makes TLS configurations, a new one whenever the CA file has changed.
pub struct Trust {
    roots: Roots,
    /// Which state of the file the last one was made from.
    made: Option<Stamp>,
}

/// Tells one state of a file from another: inode, length, modification time.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Stamp(u64, u64, i64, i64);

impl Trust {
    /// Nothing is read yet.
    pub fn new(roots: Roots) -> Trust {
        Trust { roots, made: None }
    }

    /// A TLS configuration, if what it rests on has changed since the last call.
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
            Roots::Public | Roots::Anyone => Stamp::default(),
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
        let mut config = match &self.roots {
            Roots::File(path) => config
                .with_root_certificates(read_roots(path).map_err(unusable(path))?)
                .with_no_client_auth(),
            Roots::Public => config
                .with_root_certificates(RootCertStore::from_iter(
                    webpki_roots::TLS_SERVER_ROOTS.iter().cloned(),
                ))
                .with_no_client_auth(),
            Roots::Anyone => config
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(TrustAnyone(provider)))
                .with_no_client_auth(),
        };
        // One server: the default keeps room for 256.
        config.resumption = Resumption::in_memory_sessions(2);
        self.made = Some(stamp);
        Ok(Some(Arc::new(config)))
    }
}

fn read_roots(path: &Path) -> io::Result<RootCertStore> {
    let pem = fs::read(path)?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        roots
            .add(certificate.map_err(io::Error::other)?)
            .map_err(io::Error::other)?;
    }
    if roots.is_empty() {
        let what = "it holds no certificate: PEM is expected";
        return Err(io::Error::new(io::ErrorKind::InvalidData, what));
    }
    Ok(roots)
}
