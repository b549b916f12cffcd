//! Watches on which nothing comes: because nothing changes, or because something is wrong.

use super::{LATE, MINUTE, follow, object, set_up, shows, wait, watches};
use crate::soak::report::{EQUAL, Report, equal, minutes, ms, seconds};
use crate::stop::Stop;
use std::fs;
use std::time::{Duration, Instant};
use testkit::apiserver::access::Account;
use testkit::apiserver::request::Request;
use testkit::budgets::{idle_for, three_tls_watches};
use testkit::candidate::{Candidate, Mode};
use testkit::crossover::{Crossover, until_asleep};
use testkit::setup::Setup;
use testkit::stalling_proxy::StallingProxy;
use testkit::until;

/// No reset, nothing but silence, keepalive answered, hours between looks. Before it freezes, the
/// watch has lost nothing, so that only its own deadline can tell: a look in the middle of its time
/// finds nothing.
pub fn frozen_watch(report: &Report, stop: Stop) {
    let (frozen, asked) = Frozen::start(|setup| setup.server.bookmark());
    report.row("frozen", "watch asked to last", minutes(asked), "");
    let due = asked + Duration::from_secs(10);
    let Some(after) = frozen.opened_again(due, report, stop) else {
        return;
    };
    let holds = after >= due && after <= due + LATE;
    let figure = "nothing lost: opened again after";
    report.limit("frozen", figure, seconds(after), holds, &seconds(due));
    let setup = &frozen.setup;
    let before = Instant::now();
    setup.server.replace(object("cds", 1));
    let shown = wait(stop, LATE, || {
        shows(setup, "cds", 1).then(|| before.elapsed())
    });
    let shown = shown.unwrap_or(LATE);
    let holds = shown < LATE;
    report.limit(
        "frozen",
        "  the next change is there in",
        seconds(shown),
        holds,
        "2 s",
    );
    let requests = setup.server.count_requests(|_| true);
    report.limit(
        "frozen",
        "  requests until then",
        requests,
        requests <= 4,
        "4",
    );
}

/// The same where the frozen watch owes a change: the look in the middle of its time finds that.
pub fn frozen_change(report: &Report, stop: Stop) {
    let (frozen, asked) = Frozen::start(|setup| drop(setup.server.replace(object("cds", 2))));
    // Two seconds for the watch to bring what the look has seen.
    let due = asked / 2 + Duration::from_secs(2);
    let Some(after) = frozen.opened_again(due, report, stop) else {
        return;
    };
    let holds = after <= due + LATE;
    let figure = "a change lost: opened again after";
    report.limit("frozen", figure, seconds(after), holds, &seconds(due));
    let shown = wait(stop, LATE, || shows(&frozen.setup, "cds", 2).then_some(())).is_some();
    report.limit("frozen", "  the change is there", shown, shown, "true");
}

/// A watch that stopped in the middle of a line.
struct Frozen {
    setup: Setup,
    _tear: StallingProxy,
    _crossover: Crossover,
}

impl Frozen {
    /// Freezes a watch in what `tells` makes it tell; for how long it was to last.
    fn start(tells: impl Fn(&Setup)) -> (Frozen, Duration) {
        let setup = set_up(&["cds"]);
        let tear = StallingProxy::start(setup.server.address());
        let crossover = follow(&setup, &tear.url("http"), &["cds"], "12h");
        setup.server.wait_for_watches(1);
        // Its answer has begun once it has told something.
        setup.server.replace(object("cds", 1));
        until("the first change", || shows(&setup, "cds", 1).then_some(()));
        until_asleep(crossover.pid());
        tear.arm(10);
        tells(&setup);
        tear.wait_until_torn();
        let (_, asked) = watches(&setup.server).remove(0);
        let frozen = Frozen {
            setup,
            _tear: tear,
            _crossover: crossover,
        };
        (frozen, asked)
    }

    /// Waits for the next watch; how long after the first one it was asked for.
    fn opened_again(&self, due: Duration, report: &Report, stop: Stop) -> Option<Duration> {
        let server = &self.setup.server;
        let again = wait(stop, due + MINUTE, || watches(server).into_iter().nth(1));
        if again.is_none() && !stop.is_set() {
            report.violated("frozen", "a frozen watch is noticed", "never opened again");
        }
        Some(again?.0.at - watches(server).remove(0).0.at)
    }
}

/// A token that is rotated while a watch is idle is that of the next request.
pub fn rotated_token(report: &Report, stop: Stop) {
    let setup = set_up(&["cds"]);
    setup.server.set_accounts(vec![Account::admin("token-1")]);
    let _crossover = follow(&setup, &setup.server.url(), &["cds"], "12h");
    setup.server.wait_for_watches(1);
    // As a cluster does it: the old one is taken for a while.
    setup
        .server
        .set_accounts(["token-1", "token-2"].map(Account::admin).into());
    fs::write(setup.path("token"), "token-2").expect("the directory is ours");
    let (_, asked) = watches(&setup.server).remove(0);
    let again = wait(stop, asked + MINUTE, || {
        watches(&setup.server).into_iter().nth(1)
    });
    let used = again.and_then(|(request, _)| request.token);
    let refused = setup.server.count_requests(|request| request.status == 401);
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

/// Watches on which nothing comes but a bookmark a minute.
pub fn idle_watches(report: &Report, stop: Stop) {
    const LASTS: u32 = 15;
    const NAMES: [&str; 3] = ["small-0", "small-1", "small-2"];
    let (bench, _hourly) = three_tls_watches();
    drop(_hourly);
    bench.server.wait_for_watches(0);
    let before = bench.server.count_requests(|_| true);
    let mut command = bench.command(&Candidate::ours(), Mode::Watch, &NAMES, None);
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
    let requests = bench.server.requests().into_iter().skip(before);
    let requests: Vec<Request> = requests.collect();
    let mut most = 0;
    for name in NAMES {
        let about = |request: &&Request| request.names(name);
        // After the list at the start: from the first watch on.
        let of: Vec<_> = requests.iter().filter(about).skip(1).collect();
        most = most.max(of.len());
        for pair in of.windows(2) {
            let apart = pair[1].at - pair[0].at;
            // The clock begins with the answer.
            if apart < 4 * MINUTE - LATE {
                let what = format!("{name}: {} after {}", pair[1].line(), seconds(apart));
                report.violated("idle", "a request in four minutes at most", what);
            }
        }
    }
    let goal = "one in 4 minutes";
    let holds = most <= 1 + (LASTS as usize + 1) / 4;
    report.limit(
        "idle",
        "requests for an object in 16 minutes, after the list",
        most,
        holds,
        goal,
    );
    let switches = all.context_switches - first.context_switches;
    // A minute: three bookmarks, three looks that are not needed, one look at the directory. A new
    // watch: the old one's end, connecting, a handshake, headers, a ticket.
    let due = u64::from(LASTS) * 7 + requests.len() as u64 * 15;
    report.limit(
        "idle",
        "context switches",
        switches,
        switches <= due,
        &format!("{due}"),
    );
    let cpu = Duration::from_nanos(all.cpu_ns - first.cpu_ns);
    report.row("idle", "CPU in 15 minutes", ms(cpu), "");
    let text = format!("{} and {}", first.rss_kib, last.rss_kib);
    let level = last.rss_kib <= first.rss_kib + 100;
    report.limit("idle", "RSS, KiB", text, level, "level");
    let text = format!("{} and {}", first.descriptors, last.descriptors);
    report.limit("idle", "descriptors", text, equal(&first, &last), EQUAL);
}
