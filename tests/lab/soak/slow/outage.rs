//! API servers that are away, or want to be left alone.

use super::{LATE, MINUTE, NAMES, between, follow, logged, object, set_up, shows, wait};
use crate::soak::report::{Report, minutes, seconds};
use crate::stop::Stop;
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};
use testkit::apiserver::faults::{Fault, Misbehaviour};
use testkit::apiserver::request::Request;

/// The first wait of a back-off is no longer than this, each next one twice that, up to the last.
const FIRST_WAIT: Duration = Duration::from_millis(800);
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// The server refuses for 16 minutes.
pub fn long_outage(report: &Report, stop: Stop) {
    const LASTS: Duration = Duration::from_secs(16 * 60);
    let setup = set_up(&NAMES);
    let crossover = follow(&setup, &setup.server.url(), &NAMES, "1m");
    setup.server.wait_for_watches(NAMES.len());
    // Older than what counts as ended at once.
    stop.pause(Duration::from_secs(6));
    let before = stamps(&setup.output());
    let answered = setup.server.count_requests(|_| true);
    setup.server.go_away();
    for number in 1..=3 {
        stop.pause(LASTS / 3);
        NAMES
            .iter()
            .for_each(|name| drop(setup.server.replace(object(name, number))));
    }
    if stop.is_set() {
        return;
    }
    let untouched = stamps(&setup.output()) == before;
    report.limit("outage", "files untouched", untouched, untouched, "true");
    setup.server.come_back();
    let back = Timestamp::now();
    let shown = || {
        NAMES
            .iter()
            .all(|name| shows(&setup, name, 3))
            .then(Instant::now)
    };
    let Some(shown) = wait(stop, LONGEST_WAIT + LATE, shown) else {
        return report.violated("outage", "what changed meanwhile is there", "never");
    };
    let contact = setup
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
    setup.server.wait_for_watches(NAMES.len());

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
    report.limit("outage", "longest wait", seconds(longest), holds, "10 s");
    // Sixteen minutes of waits that are 5 s in the middle, and six standard deviations.
    let count = waits.len();
    let holds = (145..=250).contains(&count);
    report.limit(
        "outage",
        "probes for three watches",
        count,
        holds,
        "some 197",
    );
    let after = between(back, ended);
    report.row("outage", "found over after", seconds(after), "10 s");
}

/// The next outage is probed as eagerly as the first, however long that was.
pub fn backoff_reset(report: &Report, stop: Stop) {
    let setup = set_up(&["cds"]);
    let crossover = follow(&setup, &setup.server.url(), &["cds"], "12h");
    setup.server.wait_for_watches(1);
    let outage = |number: usize, lasts: Duration| -> Option<Vec<Duration>> {
        stop.pause(Duration::from_secs(6));
        setup.server.go_away();
        stop.pause(lasts);
        setup.server.come_back();
        let over = || {
            logged(&crossover, "the API server answers again")
                .into_iter()
                .nth(number)
        };
        let (ended, _) = wait(stop, LONGEST_WAIT + LATE, over)?;
        let (began, _) = logged(&crossover, "the API server is away")
            .into_iter()
            .nth(number)?;
        setup.server.wait_for_watches(1);
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
    if let Some(second) = outage(1, Duration::from_secs(30)) {
        judge_waits(report, "back-off", &second);
    }
}

/// The server's wish is obeyed, up to five minutes.
pub fn retry_after(report: &Report, stop: Stop) {
    let setup = set_up(&["cds"]);
    let once = |status, value: &str| {
        let fault = Fault::retry_after(status, value);
        setup
            .server
            .misbehave(Misbehaviour::new(fault, |_| true).times(1));
    };
    once(429, "60");
    once(503, "1000");
    let _crossover = follow(&setup, &setup.server.url(), &["cds"], "12h");
    let nth = |n: usize| {
        let limit = Duration::from_secs(400);
        wait(stop, limit, || setup.server.requests().into_iter().nth(n))
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
    let first = setup.server.requests().remove(0);
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
    let shown = wait(stop, LATE, || shows(&setup, "cds", 0).then_some(()));
    report.limit(
        "retry",
        "published then",
        shown.is_some(),
        shown.is_some(),
        "true",
    );
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
    let goal = "0.8 1.6 3.2 6.4 10 at most";
    report.limit(part, "first waits, s", text.join(" "), holds, goal);
}

/// Every path below, with what tells whether it was touched.
fn stamps(dir: &Path) -> BTreeMap<String, [i64; 4]> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        // What it says of itself goes on.
        if entry.file_name() == ".life" {
            continue;
        }
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
