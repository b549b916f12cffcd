//! `-ca-file` may hold what kubectl's may, and a certificate that is not trusted gets a useful
//! error.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    PKCS_ECDSA_P384_SHA384, date_time_ymd,
};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;
use testkit::setup::Setup;

const GOOD: [(&str, &str); 1] = [("a.yaml", "a: 1\n")];
const AWAY: &str = "the API server is away";

fn https() -> Setup {
    let setup = Setup::https(false);
    setup.put("a", &GOOD);
    setup
}

/// Flags for this text as CA file.
fn flags(setup: &Setup, ca: impl AsRef<[u8]>) -> Vec<String> {
    fs::write(setup.path("given.crt"), ca).unwrap();
    let flags = ["-configmap=a", "-ca-file"].map(String::from);
    let token = ["-token-file".into(), setup.path("token")];
    [&flags[..], &[setup.path("given.crt")], &token].concat()
}

/// Publishes; what it logs.
#[track_caller]
fn trusts(setup: &Setup, ca: impl AsRef<[u8]>) -> String {
    let flags = flags(setup, ca);
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    setup.succeed(&[&flags[..], &["-onetime"]].concat()).stderr
}

/// Sends no request; the line that says why.
#[track_caller]
fn distrusts(setup: &Setup, ca: impl AsRef<[u8]>) -> String {
    let flags = flags(setup, ca);
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let requests = setup.server.requests().len();
    let program = setup.start(&flags);
    let line = program.wait_for_line(AWAY);
    assert_eq!(setup.server.requests().len(), requests);
    line
}

fn ca_of(setup: &Setup) -> String {
    fs::read_to_string(setup.path("ca.crt")).unwrap()
}

/// A certificate that nobody has broken yet, of another authority.
fn another() -> String {
    ca_of(&Setup::https(false))
}

/// A harm to a certificate in PEM, line by line.
type Break<'a> = &'a dyn Fn(&mut Vec<String>);

#[test]
fn a_broken_certificate_is_ignored_and_the_warning_has_its_line() {
    let setup = https();
    let lines = |text: &str| text.lines().map(str::to_string).collect::<Vec<_>>();
    let breaks: [Break; 5] = [
        &|pem| pem[1] = "no base64".into(),
        // Well-formed PEM of what is not a certificate.
        &|pem| drop(pem.splice(1..pem.len() - 1, ["bm8gY2VydGlmaWNhdGU=".into()])),
        &|pem| drop(pem.remove(2)),
        &|pem| drop(pem.pop()),
        &|pem| pem[0] = "-----BEGIN CERTIFICATE----".into(),
    ];
    for (number, harm) in breaks.iter().enumerate() {
        let mut broken = lines(&another());
        harm(&mut broken);
        let line = 2 + broken.len();
        let broken = broken.join("\n");
        for (bundle, line) in [
            (format!("{broken}\n{}", ca_of(&setup)), 1),
            (
                format!("{}# last\n{broken}\n", ca_of(&setup)),
                lines(&ca_of(&setup)).len() + 2,
            ),
            (
                format!("# {number}\n{broken}\n{broken}\n{}", ca_of(&setup)),
                line,
            ),
        ] {
            let said = trusts(&setup, &bundle);
            let want = format!(
                "invalid CA certificate; ignoring it file={} line={line} ",
                setup.path("given.crt")
            );
            assert!(said.contains(&want), "{want}: {said}");
        }
    }
}

#[test]
fn where_all_are_broken_nothing_is_trusted() {
    let setup = https();
    let broken = ca_of(&setup).replacen("\nMI", "\n*", 1);
    let flags = flags(&setup, format!("\n\n{broken}"));
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let line = setup.fail(&flags);
    assert!(line.contains("CA file"), "{line}");
    assert!(
        line.contains("the certificate in line 3 is broken: "),
        "{line}"
    );
}

#[test]
fn what_editors_add_to_a_file_changes_nothing() {
    let setup = https();
    let ca = ca_of(&setup);
    for text in [
        format!("\u{feff}{ca}"),
        format!("\u{feff}# a comment\r\n{}", ca.replace('\n', "\r\n")),
    ] {
        assert!(!trusts(&setup, text).contains("WARN"));
    }
    fs::write(setup.path("token"), "\u{feff}TOKEN\r\n").unwrap();
    trusts(&setup, ca);
    let last = setup.server.requests().pop().unwrap();
    assert_eq!(last.token.as_deref(), Some("TOKEN"));
}

/// A server certificate that has signed itself, in PEM: as `openssl req -x509` makes them.
fn itself(setup: &Setup, change: impl Fn(&mut CertificateParams)) -> String {
    let mut params = CertificateParams::new(["127.0.0.1".to_string()]).unwrap();
    change(&mut params);
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let der = certificate.der();
    setup.server.serve_certificate(der, &key.serialize_der());
    certificate.pem()
}

type Change<'a> = &'a dyn Fn(&mut CertificateParams);

fn ca(params: &mut CertificateParams) {
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
}

#[test]
fn a_server_s_own_certificate_is_trusted_as_that_one() {
    let setup = https();
    for change in [|_: &mut CertificateParams| (), ca] {
        let certificate = itself(&setup, change);
        trusts(&setup, &certificate);
        trusts(&setup, another() + &certificate);
    }
    // Also one that an authority has signed, which is not given.
    let mut params = CertificateParams::default();
    ca(&mut params);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(["127.0.0.1".to_string()]).unwrap();
    let leaf = params.signed_by(&key, &authority).unwrap();
    setup
        .server
        .serve_certificate(leaf.der(), &key.serialize_der());
    trusts(&setup, leaf.pem());
}

#[test]
fn a_server_s_own_certificate_is_held_to_its_names_and_its_time() {
    let setup = https();
    let cases: [(Change, &str); 4] = [
        (
            &|params| params.subject_alt_names.clear(),
            "(is -apiserver one of the names in its certificate?)",
        ),
        (
            &|params| params.not_after = date_time_ymd(2020, 1, 1),
            "certificate expired",
        ),
        (
            &|params| params.not_before = date_time_ymd(3020, 1, 1),
            "certificate not valid yet",
        ),
        (
            &|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth],
            "certificate does not allow extended key usage",
        ),
    ];
    for (number, (change, want)) in cases.into_iter().enumerate() {
        for is_ca in [false, true] {
            let certificate = itself(&setup, |params| {
                change(params);
                if is_ca {
                    ca(params);
                }
            });
            if (number, is_ca) == (3, true) {
                continue; // Its purpose is not looked at.
            }
            let line = distrusts(&setup, certificate);
            assert!(line.contains(want), "{is_ca}: {line}");
        }
    }
}

#[test]
fn another_server_s_certificate_of_its_own_is_not_trusted() {
    let setup = https();
    for change in [|_: &mut CertificateParams| (), ca] {
        let other = itself(&setup, change);
        itself(&setup, change);
        let line = distrusts(&setup, &other);
        assert!(line.contains("-ca-file"), "{line}");
    }
}

/// The object identifier of P-384, and that of P-521.
const CURVES: [[u8; 5]; 2] = [
    [0x2b, 0x81, 0x04, 0x00, 0x22],
    [0x2b, 0x81, 0x04, 0x00, 0x23],
];
/// ecdsa-with-SHA384 and ecdsa-with-SHA512.
const SIGNATURES: [[u8; 8]; 2] = [
    [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x03],
    [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x04],
];

fn pem(der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
}

fn replace(der: &[u8], [from, to]: [&[u8]; 2]) -> Vec<u8> {
    let mut der = der.to_vec();
    for at in 0..=der.len() - from.len() {
        if der[at..].starts_with(from) {
            der[at..at + to.len()].copy_from_slice(to);
        }
    }
    der
}

/// A certificate of that curve cannot be made here, but one that claims it can, and no more is
/// read.
#[test]
fn a_curve_that_is_not_known_is_named() {
    let setup = https();
    let mut params = CertificateParams::default();
    ca(&mut params);
    let key = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
    let authority = CertifiedIssuer::self_signed(params, key).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(["127.0.0.1".to_string()]).unwrap();
    let leaf = params.signed_by(&key, &authority).unwrap();
    let anchor = replace(authority.der(), CURVES.each_ref().map(|c| &c[..]));
    let sha512 = replace(leaf.der(), SIGNATURES.each_ref().map(|s| &s[..]));
    for served in [leaf.der().to_vec(), sha512] {
        setup
            .server
            .serve_certificate(&served, &key.serialize_der());
        let line = distrusts(&setup, pem(&anchor));
        assert!(
            line.contains("signed by a key of the curve P-521 ("),
            "{line}"
        );
        // The certificate itself can be trusted: its own key is of another curve.
        trusts(&setup, pem(&served));
    }
}

/// The errors of a server whose own key has a curve that it was not offered, and of one without
/// TLS.
#[test]
fn a_handshake_that_comes_to_nothing_says_what_may_be_wrong() {
    let setup = https();
    let answers: [(&[u8], &str); 2] = [
        (
            &[21, 3, 3, 0, 2, 2, 40],
            "has its certificate a key of the curve P-521?",
        ),
        (
            b"HTTP/1.0 400 Bad Request\r\n\r\n",
            "does -apiserver speak TLS?",
        ),
    ];
    for (answer, want) in answers {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let _ = stream.read(&mut [0; 4096]);
                let _ = stream.write_all(answer);
            }
        });
        let flags = flags(&setup, ca_of(&setup));
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let program = setup.start(&[&flags[..], &["-apiserver", &url]].concat());
        let line = program.wait_for_line(AWAY);
        assert!(line.contains(want), "{line}");
    }
}
