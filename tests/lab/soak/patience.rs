//! What takes minutes to show, in real time and beside the rest, each with a server and a crossover
//! of its own: long silences, long outages, long waits.

use super::part;
use super::report::{Report, minutes, seconds};
use crate::kit::apiserver::access::Account;
use crate::kit::apiserver::faults::{Fault, Misbehaviour};
use crate::kit::apiserver::request::Request;
use crate::kit::apiserver::{Options, Server};
use crate::kit::crossover::{Crossover, command_of, until_asleep};
use crate::kit::figures::{idle_for, release, three_tls_watches};
use crate::kit::objects::config_map;
use crate::kit::tear::Tear;
use crate::stop::Stop;
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A deadline's margin on a busy machine.
const LATE: Duration = Duration::from_secs(2);
const MINUTE: Duration = Duration::from_secs(60);
/// The first wait of a back-off is no longer than this, each next one twice that, up to the last.
const FIRST_WAIT: Duration = Duration::from_millis(800);
const LONGEST_WAIT: Duration = Duration::from_secs(30);
const NAMES: [&str; 3] = ["cds", "lds", "rds"];

/// Starts all of them.
pub fn start(report: &Arc<Report>, stop: Stop) -> Vec<JoinHandle<()>> {
    vec![
        part("frozen", report, move |report| frozen_watch(&report, stop)),
        part("outage", report, move |report| long_outage(&report, stop)),
        part("token", report, move |report| rotated_token(&report, stop)),
        part("retry", report, move |report| retry_after(&report, stop)),
        part("back-off", report, move |report| {
            backoff_reset(&report, stop)
        }),
        part("idle", report, move |report| idle_watches(&report, stop)),
    ]
}

/// A server, a directory, and a crossover on both.
struct Scene {
    server: Server,
    dir: TempDir,
}

impl Scene {
    fn start(names: &[&str]) -> Scene {
        let dir = TempDir::new().expect("a directory can be made");
        fs::write(dir.path().join("token"), "token-1").expect("the directory is ours");
        let server = Server::start(Options::default());
        for name in names {
            server.create(object(name, 0));
        }
        Scene { server, dir }
    }

    fn follow(&self, url: &str, names: &[&str], interval: &str) -> Crossover {
        let mut command = command_of(&release(), &["-watch", "-namespace", "default"]);
        command.args(["-apiserver", url, "-sync-interval", interval]);
        command
            .arg("-token-file")
            .arg(self.dir.path().join("token"));
        command.arg("-output-dir").arg(self.dir.path().join("out"));
        for name in names {
            command.args(["-configmap", name]);
        }
        command.env("RUST_LOG", "debug");
        Crossover::spawn(command)
    }

    fn shows(&self, name: &str, number: u32) -> bool {
        let path = self
            .dir
            .path()
            .join("out/current")
            .join(format!("{name}.yaml"));
        fs::read_to_string(path).is_ok_and(|text| text == format!("number: {number}\n"))
    }
}

fn object(name: &str, number: u32) -> serde_json::Value {
    let text = format!("number: {number}\n");
    config_map(name, &[(&format!("{name}.yaml"), &text)])
}

/// Waits for something that takes longer than the kit's patience; `None`: in vain.
fn wait<T>(stop: Stop, limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if Instant::now() > deadline || stop.is_set() {
            return None;
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// The watch requests so far, and how long each was asked to last.
fn watches(server: &Server) -> Vec<(Request, Duration)> {
    let requests = server.requests().into_iter().filter(Request::is_watch);
    let asked = |request: &Request| {
        let text = request.query("timeoutSeconds").unwrap_or_default();
        Duration::from_secs(text.parse().unwrap_or_default())
    };
    requests
        .map(|request| (request.clone(), asked(&request)))
        .collect()
}

/// When a line was logged, and what it says.
fn logged(crossover: &Crossover, text: &str) -> Vec<(Timestamp, String)> {
    let lines = crossover
        .lines()
        .into_iter()
        .filter(|line| line.contains(text));
    let at = |line: &str| line.split(' ').next()?.parse().ok();
    lines.filter_map(|line| Some((at(&line)?, line))).collect()
}

fn between(from: Timestamp, to: Timestamp) -> Duration {
    to.duration_since(from).try_into().unwrap_or_default()
}

/// No reset, nothing but silence, keepalive answered, and no look for hours: only the watch's own
/// deadline can tell.
fn frozen_watch(report: &Report, stop: Stop) {
    let scene = Scene::start(&["cds"]);
    let tear = Tear::start(scene.server.address());
    let crossover = scene.follow(&tear.url("http"), &["cds"], "12h");
    scene.server.wait_for_watches(1);
    crossover.wait_for_line("published");
    until_asleep(crossover.pid());
    tear.arm(10);
    scene.server.replace(object("cds", 1));
    tear.wait_until_torn();
    let (first, asked) = watches(&scene.server).remove(0);
    report.row("frozen", "watch asked to last", minutes(asked), "");
    let due = asked + Duration::from_secs(10);
    let again = wait(stop, due + MINUTE, || {
        watches(&scene.server).into_iter().nth(1)
    });
    let Some((again, _)) = again else {
        if !stop.is_set() {
            report.violated(
                "frozen",
                "noticed by its own deadline",
                "never opened again",
            );
        }
        return;
    };
    let after = again.at - first.at;
    let holds = after >= due && after <= due + LATE;
    let figure = "opened again after";
    report.limit("frozen", figure, seconds(after), holds, &seconds(due));
    let shown = wait(stop, LATE, || scene.shows("cds", 1).then_some(()));
    let requests = scene.server.count_requests(|_| true);
    let holds = shown.is_some() && requests == 3;
    report.limit(
        "frozen",
        "requests until the change was there",
        requests,
        holds,
        "3",
    );
}

/// The server refuses for 16 minutes.
fn long_outage(report: &Report, stop: Stop) {
    const LASTS: Duration = Duration::from_secs(16 * 60);
    let scene = Scene::start(&NAMES);
    let crossover = scene.follow(&scene.server.url(), &NAMES, "1m");
    scene.server.wait_for_watches(NAMES.len());
    // Older than what counts as ended at once.
    stop.pause(Duration::from_secs(6));
    let before = stamps(&scene.dir.path().join("out"));
    let answered = scene.server.count_requests(|_| true);
    scene.server.go_away();
    for number in 1..=3 {
        stop.pause(LASTS / 3);
        NAMES
            .iter()
            .for_each(|name| drop(scene.server.replace(object(name, number))));
    }
    if stop.is_set() {
        return;
    }
    let untouched = stamps(&scene.dir.path().join("out")) == before;
    report.limit("outage", "files untouched", untouched, untouched, "true");
    scene.server.come_back();
    let back = Timestamp::now();
    let shown = || {
        NAMES
            .iter()
            .all(|name| scene.shows(name, 3))
            .then(Instant::now)
    };
    let Some(shown) = wait(stop, LONGEST_WAIT + LATE, shown) else {
        return report.violated("outage", "what changed meanwhile is there", "never");
    };
    let contact = scene
        .server
        .wait_for_request("the first contact", |request| {
            request.number > answered && request.status == 200
        });
    let took = shown.saturating_duration_since(contact.at);
    let holds = took < LATE;
    report.limit(
        "outage",
        "from first contact to the disk",
        seconds(took),
        holds,
        "2 s",
    );
    scene.server.wait_for_watches(NAMES.len());

    let away = logged(&crossover, "the API server is away");
    let over = logged(&crossover, "the API server answers again");
    if away.len() != 1 || over.len() != 1 {
        let what = format!("{} and {}", away.len(), over.len());
        return report.violated("outage", "told once at its begin, once at its end", what);
    }
    let (began, ended) = (away[0].0, over[0].0);
    let told = logged(&crossover, "WARN  the API server is still away");
    let told: Vec<Duration> = told.iter().map(|(at, _)| between(began, *at)).collect();
    let want = [1, 5, 15].map(|n| n * MINUTE);
    let holds = told.len() == 3
        && told
            .iter()
            .zip(want)
            .all(|(told, want)| *told >= want && *told < want + LATE);
    let text: Vec<String> = told.iter().map(|told| minutes(*told)).collect();
    report.limit(
        "outage",
        "told of after",
        text.join(" "),
        holds,
        "1, 5, 15 minutes",
    );

    // The request that failed first, each probe, and the one that was answered.
    let asked = logged(&crossover, "asking").into_iter().map(|(at, _)| at);
    let probes: Vec<Timestamp> = asked.filter(|at| *at <= ended).collect();
    let first = probes.iter().rposition(|at| *at <= began).unwrap_or(0);
    let waits = waits(&probes[first..]);
    judge_waits(report, "outage", &waits);
    let longest = waits.iter().max().copied().unwrap_or_default();
    let holds = longest <= LONGEST_WAIT + LATE;
    report.limit("outage", "longest wait", seconds(longest), holds, "30 s");
    // Sixteen minutes of waits that are 15 s in the middle, and six standard deviations.
    let count = waits.len();
    let holds = (36..=100).contains(&count);
    report.limit(
        "outage",
        "probes for three watches",
        count,
        holds,
        "some 68",
    );
    let after = between(back, ended);
    report.row("outage", "found over after", seconds(after), "30 s");
}

fn waits(probes: &[Timestamp]) -> Vec<Duration> {
    probes
        .windows(2)
        .map(|pair| between(pair[0], pair[1]))
        .collect()
}

/// The first waits of a back-off: each at most twice the one before it.
fn judge_waits(report: &Report, part: &str, waits: &[Duration]) {
    let most = |at: usize| LONGEST_WAIT.min(FIRST_WAIT * 2u32.pow(at.min(10) as u32));
    let early: Vec<&Duration> = waits.iter().take(5).collect();
    let slack = Duration::from_millis(300);
    let holds = early.len() >= 3
        && early
            .iter()
            .enumerate()
            .all(|(at, w)| **w <= most(at) + slack);
    let text: Vec<String> = early
        .iter()
        .map(|w| format!("{:.1}", w.as_secs_f64()))
        .collect();
    let goal = "0.8 1.6 3.2 6.4 12.8 at most";
    report.limit(part, "first waits, s", text.join(" "), holds, goal);
}

/// Every path below, with what tells whether it was touched.
fn stamps(dir: &Path) -> BTreeMap<String, [i64; 4]> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if let Ok(about) = fs::symlink_metadata(&path) {
            let stamp = [
                about.ino() as i64,
                about.mtime(),
                about.mtime_nsec(),
                about.ctime_nsec(),
            ];
            found.insert(path.display().to_string(), stamp);
            if about.is_dir() {
                found.extend(stamps(&path));
            }
        }
    }
    found
}

/// A token that is rotated while a watch is idle is that of the next request.
fn rotated_token(report: &Report, stop: Stop) {
    let scene = Scene::start(&["cds"]);
    scene.server.set_accounts(vec![Account::admin("token-1")]);
    let _crossover = scene.follow(&scene.server.url(), &["cds"], "12h");
    scene.server.wait_for_watches(1);
    // As a cluster does it: the old one is taken for a while.
    scene
        .server
        .set_accounts(["token-1", "token-2"].map(Account::admin).into());
    fs::write(scene.dir.path().join("token"), "token-2").expect("the directory is ours");
    let (_, asked) = watches(&scene.server).remove(0);
    let again = wait(stop, asked + MINUTE, || {
        watches(&scene.server).into_iter().nth(1)
    });
    let used = again.and_then(|(request, _)| request.token);
    let refused = scene.server.count_requests(|request| request.status == 401);
    let holds = (used.as_deref() == Some("token-2") && refused == 0) || stop.is_set();
    let text = format!("{}, {refused} 401s", used.unwrap_or_default());
    report.limit(
        "token",
        "the next request's, after rotation",
        text,
        holds,
        "token-2, 0 401s",
    );
}

/// The server's wish is obeyed, up to five minutes.
fn retry_after(report: &Report, stop: Stop) {
    let scene = Scene::start(&["cds"]);
    let once = |status, value: &str| {
        let fault = Fault::retry_after(status, value);
        scene
            .server
            .misbehave(Misbehaviour::new(fault, |_| true).times(1));
    };
    once(429, "60");
    once(503, "1000");
    let _crossover = scene.follow(&scene.server.url(), &["cds"], "12h");
    let nth = |n: usize| {
        let limit = Duration::from_secs(400);
        wait(stop, limit, || scene.server.requests().into_iter().nth(n))
    };
    let judge = |figure: &str, from: &Request, to: &Request, least: f64, goal: u64| {
        let waited = to.at - from.at;
        let most = Duration::from_secs(goal) + LATE;
        let holds = waited.as_secs_f64() >= least && waited <= most;
        report.limit(
            "retry",
            figure,
            seconds(waited),
            holds,
            &format!("{goal}.0 s"),
        );
    };
    let Some(second) = nth(1) else { return };
    let first = scene.server.requests().remove(0);
    judge("429, Retry-After: 60", &first, &second, 60.0, 60);
    let date = Timestamp::now() + SignedDuration::from_secs(360);
    let date = date.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    once(503, &date);
    let Some(third) = nth(2) else { return };
    judge("503, Retry-After: 1000", &second, &third, 300.0, 300);
    let Some(fourth) = nth(3) else { return };
    // It was a minute ahead, less the wait before it.
    judge(
        "503, Retry-After: a date a minute ahead",
        &third,
        &fourth,
        57.0,
        60,
    );
    let shown = wait(stop, LATE, || scene.shows("cds", 0).then_some(()));
    report.limit(
        "retry",
        "published then",
        shown.is_some(),
        shown.is_some(),
        "true",
    );
}

/// Two quiet minutes after an outage, the next one is probed as eagerly as the first.
fn backoff_reset(report: &Report, stop: Stop) {
    let scene = Scene::start(&["cds"]);
    let crossover = scene.follow(&scene.server.url(), &["cds"], "12h");
    scene.server.wait_for_watches(1);
    let outage = |number: usize, lasts: Duration| -> Option<Vec<Duration>> {
        stop.pause(Duration::from_secs(6));
        scene.server.go_away();
        stop.pause(lasts);
        scene.server.come_back();
        let over = || {
            logged(&crossover, "the API server answers again")
                .into_iter()
                .nth(number)
        };
        let (ended, _) = wait(stop, LONGEST_WAIT + LATE, over)?;
        let (began, _) = logged(&crossover, "the API server is away")
            .into_iter()
            .nth(number)?;
        scene.server.wait_for_watches(1);
        let asked = logged(&crossover, "asking").into_iter().map(|(at, _)| at);
        let probes: Vec<Timestamp> = asked.filter(|at| *at <= ended).collect();
        let first = probes.iter().rposition(|at| *at <= began)?;
        Some(waits(&probes[first..]))
    };
    let Some(first) = outage(0, Duration::from_secs(90)) else {
        return;
    };
    judge_waits(report, "back-off", &first);
    let longest = first.iter().max().copied().unwrap_or_default();
    report.row("back-off", "longest wait of 90 s", seconds(longest), "");
    stop.pause(Duration::from_secs(121));
    if let Some(second) = outage(1, Duration::from_secs(30)) {
        judge_waits(report, "back-off", &second);
    }
}

/// Watches on which nothing comes but a bookmark a minute.
fn idle_watches(report: &Report, stop: Stop) {
    const LASTS: u32 = 15;
    let (bench, _hourly) = three_tls_watches();
    drop(_hourly);
    bench.server.wait_for_watches(0);
    let before = bench.server.count_requests(|_| true);
    let mut command = bench.command("-watch", &NAMES);
    command.args(["-sync-interval", "1m"]);
    let crossover = Crossover::spawn(command);
    bench.server.wait_for_watches(3);
    stop.pause(MINUTE);
    let first = crossover.measure();
    let mut last = first;
    for minute in 0..LASTS {
        if stop.is_set() {
            return;
        }
        last = idle_for(MINUTE, &crossover);
        if minute % 5 == 4 {
            let (rss, switches) = (last.rss_kib, last.context_switches);
            report.say(
                "idle",
                format!("{rss} KiB, {switches} context switches in a minute"),
            );
        }
    }
    let all = crossover.measure();
    let requests: Vec<Request> = bench.server.requests().into_iter().skip(before).collect();
    let mut most = 0;
    for name in NAMES {
        let of: Vec<_> = requests
            .iter()
            .filter(|request| request.names(name))
            .collect();
        most = most.max(of.len() - 2);
        for pair in of[1..].windows(2) {
            let apart = pair[1].at - pair[0].at;
            if apart < 4 * MINUTE {
                let what = format!("{name}: {} after {}", pair[1].line(), seconds(apart));
                report.violated("idle", "a request in four minutes at most", what);
            }
        }
    }
    let figure = format!("requests for an object in {} minutes", LASTS + 1);
    report.limit(
        "idle",
        &figure,
        most,
        most <= (LASTS as usize + 1) / 4,
        "one in 4 minutes",
    );
    let switches = all.context_switches - first.context_switches;
    // A minute: three bookmarks, three looks that are not needed, one look at the directory. A new
    // watch: the old one's end, connecting, a handshake, headers, a ticket.
    let due = u64::from(LASTS) * 7 + (requests.len() as u64 - 6) * 15;
    report.limit(
        "idle",
        "context switches",
        switches,
        switches <= due,
        &format!("{due}"),
    );
    let cpu = Duration::from_nanos(all.cpu_ns - first.cpu_ns);
    report.row("idle", "CPU in 15 minutes", super::report::ms(cpu), "");
    let text = format!("{} and {}", first.rss_kib, last.rss_kib);
    let level = last.rss_kib <= first.rss_kib + 100;
    report.limit("idle", "RSS, KiB", text, level, "level");
    let text = format!("{} and {}", first.descriptors, last.descriptors);
    report.limit(
        "idle",
        "descriptors",
        text,
        first.descriptors == last.descriptors,
        "equal",
    );
}
