//! The storm's faults: each strikes for a while, at the API server, on the way to it, or at the
//! program itself, and is over when it is healed.

use super::follower::Follower;
use super::kind::{Kind, Place};
use super::manifests::MAPS;
use proptest::prelude::RngExt;
use proptest::test_runner::TestRng;
use rustix::process::Signal;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;
use testkit::apiserver::Server;
use testkit::apiserver::access::{Account, Rule};
use testkit::apiserver::faults::{Fault, Misbehaviour, Then};
use testkit::apiserver::request::Request;
use testkit::apiserver::watches::Delivery;
use testkit::proxy::Mode;

/// Whom and what the strikes need.
pub struct Field<'a> {
    pub server: &'a Server,
    pub followers: &'a mut [Follower],
    pub tokens: &'a mut Tokens,
}

/// The service account's token, in a file and as the server knows it.
pub struct Tokens {
    file: PathBuf,
    number: u32,
    /// What the server takes besides: the one before, until it expires.
    rules: Option<Vec<Rule>>,
}

impl Tokens {
    pub fn new(file: PathBuf, server: &Server) -> Tokens {
        let mut tokens = Tokens {
            file,
            number: 0,
            rules: None,
        };
        tokens.rotate(server, true);
        tokens.write();
        tokens
    }

    /// The server takes a new token from now on, and the old one too or not.
    fn rotate(&mut self, server: &Server, old: bool) {
        self.number += 1;
        self.grant(server, old);
    }

    fn grant(&self, server: &Server, old: bool) {
        let numbers = (self.number - u32::from(old))..=self.number;
        let account = |number| match &self.rules {
            None => Account::admin(&token(number)),
            Some(rules) => Account::service(&token(number), "crossover", rules.clone()),
        };
        server.set_accounts(numbers.map(account).collect());
    }

    fn write(&self) {
        let new = self.file.with_extension("new");
        fs::write(&new, token(self.number)).expect("the directory is ours");
        fs::rename(&new, &self.file).expect("the directory is ours");
    }
}

fn token(number: u32) -> String {
    format!("token-{number}")
}

/// Everything but one ConfigMap.
fn rules_but(name: &str) -> Vec<Rule> {
    let names: Vec<&str> = MAPS.iter().map(|s| s.name).filter(|n| *n != name).collect();
    let mirrors: Vec<String> = MAPS.iter().map(|s| format!("{}-gen", s.name)).collect();
    let mirrors: Vec<&str> = mirrors.iter().map(String::as_str).collect();
    vec![
        Rule::new("", "configmaps", &["list", "watch"]).named(&names),
        Rule::new("", "configmaps", &["get", "update"]).named(&mirrors),
        Rule::new("", "configmaps", &["create"]),
        Rule::new("split.smi-spec.io", "trafficsplits", &["list", "watch"]),
    ]
}

/// A watch of one of the program's objects, or of its splits.
fn any_watch(rng: &mut TestRng) -> impl Fn(&Request) -> bool + Send + 'static {
    let name = MAPS[rng.random_range(0..MAPS.len())].name;
    move |request| request.is_watch() && request.names(name)
}

/// A fault at work.
pub struct Strike {
    pub kind: Kind,
    /// Whom it strikes, if only one.
    one: usize,
}

/// Begins a strike; `None`: it could not be.
pub fn begin(kind: Kind, field: &mut Field<'_>, rng: &mut TestRng) -> Option<Strike> {
    let one = rng.random_range(0..field.followers.len());
    try_begin(kind, one, field, rng).then_some(Strike { kind, one })
}

fn try_begin(kind: Kind, one: usize, field: &mut Field<'_>, rng: &mut TestRng) -> bool {
    let server = field.server;
    let any_request = |request: &Request| !request.is_write();
    let script = |fault, rng: &mut TestRng| {
        let times = rng.random_range(1..=4);
        server.misbehave(Misbehaviour::new(fault, any_request).times(times));
        true
    };
    match kind {
        Kind::Away => server.go_away(),
        Kind::Closed => server.close_connections(),
        Kind::Compacted => {
            server.compact();
            server.reset_watches();
        }
        Kind::Restored => {
            let back = rng.random_range(0..500);
            server.rewind(server.version().saturating_sub(back).max(1000));
        }
        Kind::Ahead => server.skip_to(server.version() + rng.random_range(1..100_000)),
        Kind::CaRotated => {
            server.rotate_ca();
            server.reset_connections();
        }
        Kind::GarbageLine => return inject(server, &garbage(rng), rng),
        Kind::LongLine => return inject(server, &vec![b'x'; (8 << 20) + 1], rng),
        Kind::WatchesEnd => server.end_watches(),
        Kind::Refused => {
            let proxy = &field.followers[one].proxy;
            proxy.refuse();
            proxy.reset();
        }
        Kind::Reset => field.followers[one].proxy.reset(),
        Kind::Frozen => field.followers[one].proxy.set(Mode::Freeze),
        Kind::Torn => {
            let sizes = (0..7).map(|_| rng.random_range(1..=1500)).collect();
            let gap = Duration::from_millis(rng.random_range(0..=1));
            field.followers[one].proxy.set(Mode::Torn { sizes, gap });
        }
        Kind::Dripped => field.followers[one].proxy.set(Mode::drip(Duration::ZERO)),
        Kind::OneTorn => field.followers[one].tear.arm(rng.random_range(0..4000)),
        Kind::EventsLost => server.deliver(Delivery::Lost),
        Kind::EventsHeld => server.deliver(Delivery::Held),
        Kind::EventsLostButBookmarks => server.deliver(Delivery::LostButBookmarks),
        Kind::TooManyRequests => return script(Fault::retry_after(429, "1"), rng),
        Kind::Unavailable => return script(Fault::retry_after(503, "1"), rng),
        Kind::ServerError => return script(Fault::status(500), rng),
        Kind::NotFound => return script(Fault::status(404), rng),
        Kind::NoHttp => return script(Fault::Raw(b"SSH-2.0-x\r\n".to_vec()), rng),
        Kind::NoAnswer => {
            server.misbehave(Misbehaviour::new(Fault::Freeze, any_request).times(1));
        }
        Kind::AnswerLate => {
            let late = Fault::Delay(Duration::from_millis(rng.random_range(1..1500)));
            return script(late, rng);
        }
        Kind::GarbageList => {
            let list = |request: &Request| request.is_list();
            let fault = Fault::json(garbage(rng));
            server.misbehave(Misbehaviour::new(fault, list).times(2));
        }
        Kind::AnswerCut | Kind::AnswerStalled => {
            let then = match kind {
                Kind::AnswerStalled => Then::Stall,
                _ if rng.random_bool(0.5) => Then::Close,
                _ => Then::Reset,
            };
            let body_bytes = rng.random_range(0..20_000);
            let fault = Fault::After { body_bytes, then };
            server.misbehave(Misbehaviour::new(fault, any_request).times(2));
            server.reset_watches();
        }
        Kind::WatchesEndAtOnce => {
            let times = rng.random_range(1..=4);
            let watch = any_watch(rng);
            server.misbehave(Misbehaviour::new(Fault::EndAtOnce, watch).times(times));
            server.end_watches();
        }
        Kind::TokenRotated => {
            field.tokens.rotate(server, true);
            field.tokens.write();
        }
        Kind::TokenRevoked => {
            // The file follows when this is healed.
            field.tokens.rotate(server, false);
            server.reset_watches();
        }
        Kind::Forbidden => {
            let name = MAPS[rng.random_range(0..MAPS.len())].name;
            field.tokens.rules = Some(rules_but(name));
            field.tokens.grant(server, false);
            server.reset_watches();
        }
        Kind::Killed => return die(field, Signal::KILL),
        Kind::Terminated => return die(field, Signal::TERM),
        Kind::DirectoryDamaged => {
            return field.followers.iter_mut().any(|f| f.damage(rng));
        }
    }
    true
}

/// Ends it.
pub fn heal(strike: &Strike, field: &mut Field<'_>) {
    let server = field.server;
    let follower = &field.followers[strike.one];
    match (strike.kind, strike.kind.place()) {
        (Kind::Away, _) => {
            server.change_release();
            server.come_back();
        }
        (Kind::Refused, _) => follower.proxy.accept(),
        (Kind::OneTorn, _) => follower.tear.mend(),
        (_, Place::Network) => follower.proxy.set(Mode::Pass),
        (_, Place::Delivery) => {
            // The lie that hurts: it claims to have told everything.
            server.bookmark();
            server.deliver(Delivery::Normal);
        }
        (_, Place::Script) => server.behave(),
        (_, Place::Account) => {
            field.tokens.rules = None;
            field.tokens.write();
            field.tokens.grant(server, true);
        }
        (_, Place::Server | Place::Program) => {}
    }
}

fn die(field: &mut Field<'_>, signal: Signal) -> bool {
    field.followers.iter_mut().any(|f| f.die(signal))
}

fn inject(server: &Server, line: &[u8], rng: &mut TestRng) -> bool {
    let name = MAPS[rng.random_range(0..MAPS.len())].name;
    server.try_inject(line, |watch| watch.selection.name.as_deref() == Some(name)) > 0
}

/// A line, or an answer, that is of no use.
fn garbage(rng: &mut TestRng) -> Vec<u8> {
    let object = r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"other","namespace":"default","uid":"u","resourceVersion":"7"},"data":{"tiny-0.yaml":"a: 1"}}"#;
    let text = match rng.random_range(0..8) {
        0 => "no JSON at all\n".into(),
        1 => format!(
            "{{\"type\":\"MODIFIED\",\"object\":{}\n",
            &object[..object.len() / 2]
        ),
        2 => format!("{{\"type\":\"ODD\",\"object\":{object}}}\n"),
        3 => format!("{{\"type\":\"MODIFIED\",\"object\":{object}}}\n"),
        4 => format!(
            "{{\"type\":\"ADDED\",\"object\":{}}}\n",
            object.replace("ConfigMap", "Pod")
        ),
        5 => "\n".into(),
        6 => {
            r#"{"type":"ERROR","object":{"kind":"Status","code":500,"message":"boom"}}"#.to_owned()
                + "\n"
        }
        _ => "{\"type\":\"MODIFIED\"}\n[]\n".into(),
    };
    text.into_bytes()
}
