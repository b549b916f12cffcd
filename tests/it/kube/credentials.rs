//! Whom the program trusts and who it says it is: CA file, token file, and what is said where one
//! of them is of no use.

use std::fs;
use testkit::apiserver::access::Account;
use testkit::apiserver::faults::{Fault, Misbehaviour};
use testkit::apiserver::request::Request;
use testkit::setup::Setup;

const GOOD: [(&str, &str); 1] = [("a.yaml", "a: 1\n")];

/// An https server with a ConfigMap, and flags to use it with this CA file and token file.
fn https() -> (Setup, [String; 2]) {
    let setup = Setup::https(false);
    setup.put("a", &GOOD);
    let ca = format!("-ca-file={}", setup.path("ca.crt"));
    let token = format!("-token-file={}", setup.path("token"));
    (setup, [ca, token])
}

#[test]
fn tls_1_2_is_used_too() {
    let setup = Setup::https(true);
    setup.put("a", &GOOD);
    let ca = format!("-ca-file={}", setup.path("ca.crt"));
    let token = format!("-token-file={}", setup.path("token"));
    setup.succeed(&["-onetime", "-configmap=a", &ca, &token]);
    setup.assert_found(&GOOD);
}

#[test]
fn over_https_the_token_is_sent() {
    let (setup, [ca, token]) = https();
    setup.server.set_accounts(vec![Account::admin("TOKEN")]);
    setup.succeed(&["-onetime", "-configmap=a", &ca, &token]);
    assert_eq!(setup.server.requests()[0].token.as_deref(), Some("TOKEN"));
}

#[test]
fn over_http_no_token_is_sent_unless_its_file_is_named() {
    let setup = Setup::new();
    setup.put("a", &GOOD);
    fs::write(setup.path("token"), "TOKEN").unwrap();
    setup.succeed(&["-onetime", "-configmap=a"]);
    assert_eq!(setup.server.requests()[0].token, None);
    setup.succeed(&[
        "-onetime",
        "-configmap=a",
        "-token-file",
        &setup.path("token"),
    ]);
    assert_eq!(setup.server.requests()[1].token.as_deref(), Some("TOKEN"));
}

/// Ends with exit 1 before any request; the line says why and what to do.
#[track_caller]
fn fails_at_once(setup: &Setup, flags: &[&str], want: &[&str]) {
    let line = setup.fail(flags);
    for want in want {
        assert!(line.contains(want), "{want}: {line}");
    }
    assert!(setup.server.requests().is_empty());
    assert!(!setup.output().exists());
}

#[test]
fn a_missing_token_is_fatal_for_https() {
    let (setup, [ca, _]) = https();
    let hint = "(mount the service account's token, or give -token-file)";
    let gone = setup.path("gone");
    for mode in ["-onetime", "-watch"] {
        let flags = [mode, "-configmap=a", &ca, "-token-file", &gone];
        fails_at_once(&setup, &flags, &["token file", &gone, hint, "No such file"]);
    }
}

/// This cannot run in a pod, whose own token would be the default.
#[test]
fn the_default_token_file_is_the_service_accounts() {
    let default = "/var/run/secrets/kubernetes.io/serviceaccount/token";
    assert!(
        !std::path::Path::new(default).exists(),
        "run this where there is no {default}"
    );
    let (setup, [ca, _]) = https();
    fails_at_once(&setup, &["-onetime", "-configmap=a", &ca], &[default]);
}

#[test]
fn a_token_file_without_a_token_is_fatal() {
    let (setup, [ca, token]) = https();
    for text in ["", " \n", "two words", "new\nline", "\u{e4}", "a\u{1b}"] {
        fs::write(setup.path("token"), text).unwrap();
        let flags = ["-onetime", "-configmap=a", &ca, &token];
        fails_at_once(
            &setup,
            &flags,
            &["token file", &setup.path("token"), "it holds no token"],
        );
    }
}

#[test]
fn a_token_is_sent_however_long_it_is_also_one_that_grows() {
    let (setup, [ca, token]) = https();
    let lengths = [4000, 4080, 10, 20_000, 200_000];
    fs::write(setup.path("token"), "a".repeat(lengths[0])).unwrap();
    // Each look and each mirror is a request, so some of them find a connection that is open.
    let flags = ["-watch", "-configmap=a", "-smi", "-sync-interval=100ms"];
    let process = setup.start(&[&flags[..], &[&ca, &token]].concat());
    for length in lengths {
        let text = "a".repeat(length);
        fs::write(setup.path("new"), &text).unwrap();
        fs::rename(setup.path("new"), setup.path("token")).unwrap();
        let sent = |request: &Request| request.token.as_deref() == Some(&text);
        setup.server.wait_for_requests("its requests", 3, sent);
        setup.put("a", &[("a.yaml", &format!("a: {length}\n"))]);
        setup.until_found(&[("a.yaml", &format!("a: {length}\n"))]);
    }
    let stderr = process.stop().stderr;
    assert!(!stderr.contains("WARN"), "{stderr}");
}

#[test]
fn a_token_file_that_is_too_long_for_any_server_is_fatal() {
    let (setup, [ca, token]) = https();
    fs::write(setup.path("token"), "a".repeat((1 << 20) + 1)).unwrap();
    let flags = ["-onetime", "-configmap=a", &ca, &token];
    fails_at_once(&setup, &flags, &["token file", "too long for a token"]);
}

#[test]
fn a_ca_file_that_cannot_be_used_is_fatal() {
    let (setup, [ca, token]) = https();
    let hint = "(give the API server's CA with -ca-file)";
    let flags = ["-onetime", "-configmap=a", &ca, &token];
    fs::write(setup.path("ca.crt"), "no certificate\n").unwrap();
    fails_at_once(
        &setup,
        &flags,
        &["CA file", &setup.path("ca.crt"), hint, "PEM"],
    );
    fs::remove_file(setup.path("ca.crt")).unwrap();
    fails_at_once(
        &setup,
        &flags,
        &["CA file", &setup.path("ca.crt"), hint, "No such file"],
    );
}

/// Sends no request to a server that it cannot trust; says what to do.
#[track_caller]
fn distrusts(setup: &Setup, flags: &[&str]) {
    let process = setup.start(flags);
    let line = process.wait_for_line("the API server is away");
    assert!(
        line.contains("(is -ca-file the CA of this API server?)"),
        "{line}"
    );
    drop(process);
    assert!(setup.server.requests().is_empty());
}

#[test]
fn another_authority_is_not_trusted() {
    let ((setup, [_, token]), other) = (https(), Setup::https(false));
    let ca = format!("-ca-file={}", other.path("ca.crt"));
    for mode in ["-onetime", "-watch"] {
        distrusts(&setup, &[mode, "-configmap=a", &ca, &token]);
    }
}

#[test]
fn without_a_ca_file_the_public_roots_are_trusted_and_no_others() {
    let (setup, [_, token]) = https();
    distrusts(&setup, &["-watch", "-configmap=a", &token]);
    distrusts(
        &setup,
        &[
            "-watch",
            "-configmap=a",
            &token,
            "-insecure",
            "-insecure=false",
        ],
    );
}

#[test]
fn a_token_that_was_rotated_is_read_again() {
    let (setup, [ca, token]) = https();
    setup.server.set_accounts(vec![Account::admin("TOKEN")]);
    let process = setup.start(&["-watch", "-configmap=a", &ca, &token]);
    setup.server.wait_for_watches(1);
    fs::write(setup.path("token"), "ROTATED").unwrap();
    setup.server.set_accounts(vec![Account::admin("ROTATED")]);
    setup.server.end_watches();
    setup.server.wait_for_watches(1);
    setup.put("a", &[("a.yaml", "a: 2\n")]);
    setup.until_found(&[("a.yaml", "a: 2\n")]);
    assert_eq!(
        setup.server.count_requests(|request| request.status == 401),
        0
    );
    assert_eq!(process.stop().code, Some(0));
}

#[test]
fn a_401_does_not_end_a_sidecar_that_gets_a_better_token() {
    let (setup, [ca, token]) = https();
    setup.server.set_accounts(vec![Account::admin("LATER")]);
    let process = setup.start(&["-watch", "-configmap=a", &ca, &token]);
    process.wait_for_line("check that the token has not expired and was issued by this cluster");
    fs::write(setup.path("token"), "LATER").unwrap();
    setup.until_found(&GOOD);
    let over = process.wait_for_line("INFO  the API server accepts the token again");
    assert!(over.contains("lasted_s="), "{over}");
    assert_eq!(process.stop().code, Some(0));
}

#[test]
fn after_a_401_the_token_is_read_again_before_a_warning() {
    let (setup, [ca, token]) = https();
    let refused = Misbehaviour::new(Fault::status(401), |_| true).times(1);
    setup.server.misbehave(refused);
    let finished = setup.succeed(&["-onetime", "-configmap=a", &ca, &token]);
    assert!(!finished.stderr.contains("WARN"), "{}", finished.stderr);
    let statuses: Vec<u16> = setup.server.requests().iter().map(|r| r.status).collect();
    assert_eq!(statuses, [401, 200]);
}

#[test]
fn a_token_file_that_is_gone_for_a_moment_or_empty_leaves_the_last_token_in_use() {
    let (setup, [ca, token]) = https();
    setup.server.set_accounts(vec![Account::admin("TOKEN")]);
    let process = setup.start(&["-watch", "-configmap=a", &ca, &token]);
    setup.server.wait_for_watches(1);
    let file = setup.path("token");
    let harms: [&dyn Fn(); 3] = [
        &|| fs::remove_file(&file).unwrap(),
        &|| fs::write(&file, "").unwrap(),
        &|| fs::write(&file, "half\0a token").unwrap(),
    ];
    for (round, harm) in harms.iter().enumerate() {
        harm();
        let asked = setup.server.requests().len();
        setup.server.reset_connections();
        setup
            .server
            .wait_for_requests("a watch", asked + 1, |_| true);
        let text = format!("a: {}\n", round + 2);
        setup.put("a", &[("a.yaml", &text)]);
        setup.until_found(&[("a.yaml", &text)]);
    }
    let sent = |request: &Request| request.token.as_deref() == Some("TOKEN");
    let all = setup.server.requests();
    assert!(all.iter().all(sent), "{}", all.len());
    assert!(!process.stop().stderr.contains(" WARN "));
}

#[test]
fn a_ca_file_that_was_rotated_is_trusted_at_the_next_connection() {
    let (setup, [_, token]) = https();
    let ours = setup.path("ours.crt");
    fs::copy(setup.path("ca.crt"), &ours).unwrap();
    let ca = format!("-ca-file={ours}");
    let process = setup.start(&["-watch", "-configmap=a", &ca, &token]);
    setup.server.wait_for_watches(1);
    setup.until_found(&GOOD);
    setup.server.rotate_ca();
    setup.server.reset_connections();
    let line = process.wait_for_line("the API server is away");
    assert!(line.contains("(is -ca-file the CA of this"), "{line}");
    setup.put("a", &[("a.yaml", "a: 2\n")]);
    // A file that cannot be used changes nothing about what is trusted.
    for text in ["", "no certificate\n"] {
        fs::write(&ours, text).unwrap();
    }
    let asked = setup.server.requests().len();
    setup.assert_found(&GOOD);
    fs::copy(setup.path("ca.crt"), &ours).unwrap();
    setup.until_found(&[("a.yaml", "a: 2\n")]);
    process.wait_for_line("the API server answers again");
    // The watch goes on where it was.
    assert_eq!(setup.server.requests().len(), asked + 1);
}
