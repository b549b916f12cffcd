//! TLS with an API server: its algorithms, and whose certificate is trusted. There is no client
//! certificate. Left out are ChaCha20, which is for machines without AES instructions, and all
//! signing: rustls's own choice would bring both, 80 KB that no API server asks for.

use std::sync::Arc;

use rustix::io::retry_on_intr;
use rustix::rand::{GetRandomFlags, getrandom};
use rustls::SignatureScheme as Scheme;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::ring::cipher_suite as suite;
use rustls::crypto::ring::kx_group::{SECP256R1, SECP384R1, X25519};
use rustls::crypto::{
    CryptoProvider, GetRandomFailed, KeyProvider, SecureRandom, WebPkiSupportedAlgorithms,
    verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::{
    CertificateDer, PrivateKeyDer, ServerName, SignatureVerificationAlgorithm, UnixTime,
};
use rustls::server::ParsedCertificate;
use rustls::sign::SigningKey;
use rustls::{
    AlertDescription, CertificateError, DigitallySignedStruct, OtherError, RootCertStore,
};
use webpki::ring as algorithm;

/// Chooses the algorithms for TLS 1.3 and 1.2, among those of Go's servers.
pub fn provider() -> CryptoProvider {
    CryptoProvider {
        cipher_suites: vec![
            suite::TLS13_AES_128_GCM_SHA256,
            suite::TLS13_AES_256_GCM_SHA384,
            suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
            suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
            suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
            suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        ],
        // The first one's key is made before anything can be sent. P-256's takes ring a third of
        // the time of X25519's (8 and 24 us), and the secret that both sides share not much over
        // half.
        kx_groups: vec![SECP256R1, X25519, SECP384R1],
        signature_verification_algorithms: SIGNATURES,
        secure_random: &Kernel,
        key_provider: &NoKeys,
    }
}

/// All signatures that rustls verifies with ring. For TLS 1.2 a scheme leaves the curve open; for
/// TLS 1.3 the first of its algorithms counts.
static SIGNATURES: WebPkiSupportedAlgorithms = WebPkiSupportedAlgorithms {
    all: &[
        algorithm::ECDSA_P256_SHA256,
        algorithm::ECDSA_P256_SHA384,
        algorithm::ECDSA_P384_SHA256,
        algorithm::ECDSA_P384_SHA384,
        algorithm::ED25519,
        algorithm::RSA_PSS_2048_8192_SHA256_LEGACY_KEY,
        algorithm::RSA_PSS_2048_8192_SHA384_LEGACY_KEY,
        algorithm::RSA_PSS_2048_8192_SHA512_LEGACY_KEY,
        algorithm::RSA_PKCS1_2048_8192_SHA256,
        algorithm::RSA_PKCS1_2048_8192_SHA384,
        algorithm::RSA_PKCS1_2048_8192_SHA512,
        algorithm::RSA_PKCS1_2048_8192_SHA256_ABSENT_PARAMS,
        algorithm::RSA_PKCS1_2048_8192_SHA384_ABSENT_PARAMS,
        algorithm::RSA_PKCS1_2048_8192_SHA512_ABSENT_PARAMS,
    ],
    mapping: &VERIFIED_BY,
};

/// The algorithms that verify each scheme.
#[rustfmt::skip]
static VERIFIED_BY: [(Scheme, &[&dyn SignatureVerificationAlgorithm]); 9] = [
    (Scheme::ECDSA_NISTP384_SHA384, &[algorithm::ECDSA_P384_SHA384, algorithm::ECDSA_P256_SHA384]),
    (Scheme::ECDSA_NISTP256_SHA256, &[algorithm::ECDSA_P256_SHA256, algorithm::ECDSA_P384_SHA256]),
    (Scheme::ED25519, &[algorithm::ED25519]),
    (Scheme::RSA_PSS_SHA512, &[algorithm::RSA_PSS_2048_8192_SHA512_LEGACY_KEY]),
    (Scheme::RSA_PSS_SHA384, &[algorithm::RSA_PSS_2048_8192_SHA384_LEGACY_KEY]),
    (Scheme::RSA_PSS_SHA256, &[algorithm::RSA_PSS_2048_8192_SHA256_LEGACY_KEY]),
    (Scheme::RSA_PKCS1_SHA512, &[algorithm::RSA_PKCS1_2048_8192_SHA512]),
    (Scheme::RSA_PKCS1_SHA384, &[algorithm::RSA_PKCS1_2048_8192_SHA384]),
    (Scheme::RSA_PKCS1_SHA256, &[algorithm::RSA_PKCS1_2048_8192_SHA256]),
];

/// The kernel's random numbers, which ring uses, too.
#[derive(Debug)]
struct Kernel;

impl SecureRandom for Kernel {
    fn fill(&self, mut buffer: &mut [u8]) -> Result<(), GetRandomFailed> {
        while !buffer.is_empty() {
            // Before the kernel's pool is filled, a signal may cut it short.
            let filled = retry_on_intr(|| getrandom(&mut *buffer, GetRandomFlags::empty()));
            let filled = filled.map_err(|_| GetRandomFailed)?;
            buffer = &mut buffer[filled..];
        }
        Ok(())
    }
}

/// Loads no key, as there is no client certificate.
#[derive(Debug)]
struct NoKeys;

impl KeyProvider for NoKeys {
    fn load_private_key(
        &self,
        _: PrivateKeyDer<'static>,
    ) -> Result<Arc<dyn SigningKey>, rustls::Error> {
        Err(rustls::Error::General(
            "there are no client certificates".into(),
        ))
    }
}

/// Decides whether a certificate is the API server's. Whatever it decides, the certificate's key
/// must have signed the handshake.
#[derive(Debug)]
pub struct Verifier {
    pub provider: Arc<CryptoProvider>,
    /// The trusted certificates; `None`, with `-insecure`, trusts any certificate.
    pub roots: Option<RootCertStore>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if let Some(roots) = &self.roots {
            let parsed = ParsedCertificate::try_from(certificate)?;
            let algorithms = self.provider.signature_verification_algorithms.all;
            verify_server_cert_signed_by_trust_anchor(
                &parsed,
                roots,
                intermediates,
                now,
                algorithms,
            )
            .or_else(|error| {
                let trusted = concerns_issuers(&error) && is_one_of(roots, certificate);
                if trusted { Ok(()) } else { Err(error) }
            })?;
            verify_server_name(&parsed, name)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<Scheme> {
        let algorithms = &self.provider.signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}

/// Returns whether the certificate may still be trusted by itself: its validity is verified before
/// its issuers, and so is its extended key usage, but for a CA's certificate.
fn concerns_issuers(error: &rustls::Error) -> bool {
    use CertificateError as E;
    match error {
        rustls::Error::InvalidCertificate(error) => match error {
            E::UnknownIssuer
            | E::BadSignature
            | E::UnsupportedSignatureAlgorithmContext { .. }
            | E::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => true,
            // It has CA:TRUE, as `openssl req -x509` sets it. webpki verifies this before the
            // extended key usage, so one that excludes servers is not noticed: whoever names the
            // server's own certificate has said what it is for.
            E::Other(OtherError(error)) => {
                matches!(error.downcast_ref(), Some(webpki::Error::CaUsedAsEndEntity))
            }
            _ => false,
        },
        _ => false,
    }
}

/// Returns whether the server's own certificate is a trusted one, by its key and subject.
fn is_one_of(roots: &RootCertStore, certificate: &CertificateDer<'_>) -> bool {
    let anchor = webpki::anchor_from_trusted_cert(certificate);
    anchor.is_ok_and(|anchor| roots.roots.contains(&anchor))
}

/// Suggests what the operator can do about a failed handshake.
fn hint(error: &rustls::Error) -> &'static str {
    use CertificateError as E;
    match error {
        rustls::Error::InvalidCertificate(E::UnknownIssuer | E::BadSignature) => {
            " (is -ca-file the CA of this API server?)"
        }
        rustls::Error::InvalidCertificate(
            E::NotValidForName | E::NotValidForNameContext { .. },
        ) => " (is -apiserver one of the names in its certificate?)",
        rustls::Error::InvalidCertificate(E::Other(_)) => {
            " (if this is the server's own certificate, give it with -ca-file)"
        }
        rustls::Error::AlertReceived(AlertDescription::HandshakeFailure) => {
            " (has its certificate a key of the curve P-521? RSA, P-256, P-384 and Ed25519 are known)"
        }
        rustls::Error::InvalidMessage(_) => " (does -apiserver speak TLS? if not, it is http://)",
        _ => "",
    }
}

/// Describes an error of a handshake for the operator. Of a signature's algorithm rustls would
/// print the numbers.
pub fn describe(error: rustls::Error) -> String {
    use CertificateError as E;
    let (algorithm, key) = match &error {
        rustls::Error::InvalidCertificate(E::UnsupportedSignatureAlgorithmContext {
            signature_algorithm_id,
            ..
        }) => (signature_algorithm_id, &[][..]),
        rustls::Error::InvalidCertificate(
            E::UnsupportedSignatureAlgorithmForPublicKeyContext {
                signature_algorithm_id,
                public_key_algorithm_id,
            },
        ) => (signature_algorithm_id, &public_key_algorithm_id[..]),
        _ => return format!("{error}{}", hint(&error)),
    };
    let what = if key.ends_with(P521) || algorithm.ends_with(ECDSA_SHA512) {
        "the curve P-521"
    } else {
        "an algorithm that is not known here"
    };
    format!(
        "invalid peer certificate: it is signed by a key of {what} (RSA, P-256, P-384 and \
         Ed25519 are known; the server's own certificate as -ca-file is trusted, too)"
    )
}

/// The object identifier of the curve P-521.
const P521: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x23];
/// The end of the object identifier of its signatures: only this curve is used with SHA-512.
const ECDSA_SHA512: &[u8] = &[0xce, 0x3d, 0x04, 0x03, 0x04];
