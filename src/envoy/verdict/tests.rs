//! The table of verdicts, held to what a real Envoy was recorded to count, and a modelled Envoy.

use super::Subscription::{Clusters, Endpoints, Listeners, Routes, Runtime, Secret};
use super::*;

fn stats(text: &str) -> Stats {
    Stats::parse(text.replace(' ', "\n").replace('=', ": ").as_bytes())
}

fn holds(now: &[Subscription], before: &[Subscription]) -> Holdings {
    Holdings {
        now: now.to_vec(),
        before: before.to_vec(),
    }
}

fn name(name: &str) -> String {
    name.into()
}

/// Returns an outcome in a word, and the counters that refused.
fn brief(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Accepted => "accepted".into(),
        Outcome::NotRead => "not read".into(),
        Outcome::Restarted => "restarted".into(),
        Outcome::Hidden => "hidden".into(),
        Outcome::Refused(refusals) => refusals.iter().fold("refused".into(), |all, refusal| {
            all + " " + &refusal.counter + &format!("{:?}", refusal.files)
        }),
    }
}

/// Holds every change that was recorded of a real Envoy to what it meant.
#[test]
fn what_a_real_envoy_counted_is_judged_as_what_it_did() {
    let recorded = include_str!("../../../tests/data/envoy/counters.txt");
    let mut judged = 0;
    for line in recorded.lines().filter(|line| !line.starts_with('#')) {
        let mut parts = line.split(" | ");
        let (kind, change) = (parts.next().unwrap(), parts.next().unwrap_or_default());
        let change = change.trim_end_matches(" |");
        let (mut after, mut before) = (Vec::new(), Vec::new());
        for moved in parts.next().unwrap_or_default().split(' ') {
            if let Some((counter, by)) = moved.split_once('+') {
                before.push(format!("{counter}=7"));
                after.push(format!("{counter}={}", 7 + by.parse::<u64>().unwrap()));
            }
        }
        // All that moved before, by refusals, too.
        let counted = "cluster_manager.cds.update_attempt=9 listener_manager.lds.update_rejected=2 \
                       server.uptime=60 cluster.a.update_failure=3";
        let with = |moved: Vec<String>| format!("{counted} {}", moved.join(" "));
        let (before, after) = (with(before), with(after));
        let now = match kind {
            "CDS" => Clusters,
            "LDS" => Listeners,
            "RTDS" => Runtime,
            "RDS" => Routes(name(if change == "name mismatch" {
                "other"
            } else {
                "r"
            })),
            "EDS" => Endpoints(name(if change == "name mismatch" { "zz" } else { "e" })),
            "SDS" => Secret(name(if change == "name mismatch" {
                "zz"
            } else {
                "cert"
            })),
            // Values of a runtime directory are taken as they are, and are not a subscription.
            "runtime dir" => continue,
            _ => panic!("{line}"),
        };
        let formerly = match kind {
            "RDS" => Routes(name("r")),
            "EDS" => Endpoints(name("e")),
            "SDS" => Secret(name("cert")),
            _ => now.clone(),
        };
        let empty = change == "0 resources";
        let file = holds(
            if empty {
                &[]
            } else {
                std::slice::from_ref(&now)
            },
            &[formerly],
        );
        let verdict = judge(&stats(&before), &stats(&after), &[file]);
        let is_good = change.contains("unchanged")
            || change.starts_with("accepted")
            || change.starts_with("back")
            || matches!(
                change,
                "version_info only" | "unknown field" | "unknown cluster"
            )
            || change == "bad filter name in 1 of 3"
            || empty && matches!(kind, "RDS" | "EDS");
        let want = match change {
            _ if is_good => "accepted",
            "missing (unlink)" | "missing (dangling, poked)" => "not read",
            _ => "refused",
        };
        let found = brief(&verdict.outcome);
        assert!(found.starts_with(want), "{line}: {found}");
        let unknown = matches!(change, "unknown field" | "bad filter name in 1 of 3");
        assert_eq!(verdict.unknown_fields > 0, unknown, "{line}");
        judged += 1;
    }
    assert!(judged > 40, "{judged}");
}

#[track_caller]
fn check(before: &str, after: &str, changed: &[Holdings], want: &str) {
    let verdict = judge(&stats(before), &stats(after), changed);
    assert_eq!(brief(&verdict.outcome), want, "{before} -> {after}");
}

#[test]
fn the_table_line_by_line() {
    let cds = holds(&[Clusters], &[Clusters]);
    let (up, cut) = (
        "cluster_manager.cds.update_attempt=2",
        "cluster_manager.cds.update",
    );
    check(
        up,
        "cluster_manager.cds.update_attempt=1",
        std::slice::from_ref(&cds),
        "restarted",
    );
    // What a process that has died counted is not a refusal.
    let died = "cluster_manager.cds.update_attempt=1 cluster_manager.cds.update_failure=1";
    check(up, died, std::slice::from_ref(&cds), "restarted");
    let refused = format!("{cut}_attempt=3 {cut}_rejected=1");
    check(
        up,
        &refused,
        std::slice::from_ref(&cds),
        "refused cluster_manager.cds.update_rejected[0]",
    );
    check(
        "",
        "server.state=0 server.uptime=5",
        std::slice::from_ref(&cds),
        "hidden",
    );
    check(up, up, std::slice::from_ref(&cds), "not read");
    check(up, &format!("{cut}_attempt=3"), &[cds], "accepted");
    check("", "", &[], "accepted");
    check("", "", &[Holdings::default()], "accepted");
}

#[test]
fn only_what_a_changed_file_holds_can_refuse() {
    let up = "cluster_manager.cds.update_attempt=1 listener_manager.lds.update_attempt=1 ";
    let read = "cluster_manager.cds.update_attempt=2 listener_manager.lds.update_attempt=1 ";
    let file = [holds(&[Clusters], &[Clusters])];
    for other in [
        "listener_manager.lds.update_rejected=1",
        "http.in.rds.r.update_rejected=1",
        "sds.cert.update_failure=1",
        "runtime.update_rejected=1",
        "runtime.load_error=1",
        // A look-up that failed, of a cluster that the file has.
        "cluster.a.update_failure=1",
        "cluster.cds.update_rejected=1",
    ] {
        check(up, &format!("{read}{other}"), &file, "accepted");
    }
    // What was counted before the step is history, be it of any subscription.
    let past = "cluster_manager.cds.update_rejected=4";
    check(
        &format!("{up}{past}"),
        &format!("{read}{past}"),
        &file,
        "accepted",
    );
    // A cluster that was made anew counts from 0.
    let endpoints = [holds(&[Endpoints(name("e"))], &[])];
    let after = format!("{up}cluster.e.update_rejected=1 cluster.e.update_attempt=2");
    check(
        &format!("{up}cluster.e.update_rejected=5 cluster.e.update_attempt=1"),
        &after,
        &endpoints,
        "accepted",
    );
    check(
        up,
        &after,
        &endpoints,
        "refused cluster.e.update_rejected[0]",
    );
    let runtime = [holds(&[Runtime], &[])];
    let after = format!("{up}runtime.update_attempt=1 runtime.load_error=1");
    check(up, &after, &runtime, "refused runtime.load_error[0]");
}

#[test]
fn names_are_those_of_counters() {
    let up = "cluster_manager.cds.update_attempt=1 ";
    for (subscription, counters) in [
        (Routes(name("r")), "http.in.rds.r"),
        (Routes(name("a.b:80")), "http.in.gress.rds.a.b_80"),
        (Secret(name("spiffe://a:/b")), "sds.spiffe_a_b"),
        (Endpoints(name(".a:1.")), "cluster..a_1"),
        (Endpoints(name("b...")), "cluster.b"),
        (Clusters, "cluster_manager.cds"),
    ] {
        let text = subscription.to_string();
        let after = format!("{up}{counters}.update_attempt=2 {counters}.update_failure=1");
        let want = format!("refused {counters}.update_failure[0]");
        check(up, &after, &[holds(&[subscription], &[])], &want);
        assert!(!text.is_empty());
    }
    let others = format!("{up}http.in.rds.rr.update_failure=1 scoped.rds.r.update_failure=1");
    check(up, &others, &[holds(&[Routes(name("r"))], &[])], "not read");
}

#[test]
fn two_files_that_hold_what_was_refused_are_both_named() {
    let files = [
        holds(&[Clusters], &[]),
        holds(&[Routes(name("r"))], &[]),
        holds(&[Clusters, Listeners], &[]),
    ];
    let after = "cluster_manager.cds.update_failure=1 cluster_manager.cds.update_attempt=1";
    check(
        "",
        after,
        &files,
        "refused cluster_manager.cds.update_failure[0, 2]",
    );
    let verdict = judge(&Stats::default(), &stats(after), &files);
    assert_eq!(verdict.unread, [1]);
}

#[test]
fn a_draining_listener_s_stale_rejection_refuses_nothing() {
    let renamed = [holds(&[Routes(name("r2"))], &[Routes(name("r"))])];
    let lds = "listener_manager.lds.update_attempt=1 ";
    let stale = format!("{lds}http.in.rds.r.update_attempt=2 http.in.rds.r.update_rejected=1 ");
    let taken = format!("{stale}http.in.rds.r2.update_attempt=1 http.in.rds.r2.update_success=1");
    check(lds, &taken, &renamed, "accepted");
    let drains = format!("{stale}listener_manager.total_listeners_draining=1");
    check(lds, &drains, &renamed, "not read");
    let drains = format!("{stale}listener_manager.total_filter_chains_draining=1");
    check(lds, &drains, &renamed, "not read");
    // Where no listener drains, it is the one that serves: the name is wrong.
    check(
        lds,
        &stale,
        &renamed,
        "refused http.in.rds.r.update_rejected[0]",
    );
}

#[test]
fn a_file_that_nobody_had_asked_for_is_judged_once_somebody_does() {
    let up = "listener_manager.lds.update_attempt=1 ";
    let moved = "listener_manager.lds.update_attempt=2 ";
    let late = |before: &str, after: &str, now: Subscription| {
        let (before, after) = (stats(before), stats(after));
        let mut verdict = judge(&before, &after, &[holds(&[Listeners], &[])]);
        let file = holds(&[now], &[]);
        let read = verdict.judge_late((&before, &after), 1, &[&file]);
        (brief(&verdict.outcome), read)
    };
    let asked = format!("{moved}http.in.rds.r.update_attempt=1 ");
    let refused = format!("{asked}http.in.rds.r.update_rejected=1");
    let routes = || Routes(name("r"));
    assert_eq!(late(up, moved, routes()), ("accepted".into(), vec![]));
    assert_eq!(late(up, &asked, routes()), ("accepted".into(), vec![0]));
    let told = "refused http.in.rds.r.update_rejected[1]".into();
    assert_eq!(late(up, &refused, routes()), (told, vec![0]));
    // A step that nobody has read is one if it has asked for this.
    let only = "listener_manager.lds.update_attempt=1 http.in.rds.r.update_attempt=1";
    assert_eq!(late(up, only, routes()), ("accepted".into(), vec![0]));
    // A cluster whose look-ups fail does not ask for a file with its name.
    let dns = "cluster.r.update_attempt=4 cluster.r.update_failure=";
    let (before, after) = (format!("{up}{dns}2"), format!("{moved}{dns}3"));
    let endpoints = Endpoints(name("r"));
    assert_eq!(
        late(&before, &after, endpoints),
        ("accepted".into(), vec![])
    );
    // What another process counts is not told of this one.
    let died = "listener_manager.lds.update_attempt=0 http.in.rds.r.update_rejected=1";
    assert_eq!(late(up, died, routes()), ("restarted".into(), vec![]));
}

#[test]
fn warming_and_draining_are_told_beside_the_verdict() {
    let tell = |before: &str, after: &str| {
        let verdict = judge(&stats(before), &stats(after), &[]);
        (verdict.is_warming, verdict.is_draining)
    };
    let warming = |count| format!("cluster_manager.warming_clusters={count}");
    assert_eq!(tell(&warming(1), &warming(2)), (true, false));
    assert_eq!(tell(&warming(1), &warming(1)), (false, false));
    let listeners = |before: &str, after: &str| {
        let warming =
            |count: &str| stats(&format!("listener_manager.total_listeners_warming={count}"));
        judge(&warming(before), &warming(after), &[]).has_warming_listeners
    };
    assert!(listeners("1", "2") && !listeners("1", "1") && !listeners("2", "1"));
    assert_eq!(
        tell("", "listener_manager.total_filter_chains_draining=2"),
        (false, true)
    );
}

/// What a modelled Envoy does with a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Does {
    Takes,
    Refuses,
    Dies,
    IsReplaced,
    IsSlow,
    Drains,
    Hides,
}

/// An Envoy as far as it counts.
#[derive(Clone, Default)]
struct Model(std::collections::BTreeMap<String, u64>);

impl Model {
    fn add(&mut self, counter: String) {
        *self.0.entry(counter).or_default() += 1;
    }

    fn reads(&mut self, subscription: &Subscription, refused: Option<&str>) {
        let of = match subscription {
            Clusters => CLUSTERS.to_owned(),
            Listeners => LISTENERS.to_owned(),
            Runtime => RUNTIME.to_owned(),
            Routes(name) => format!("http.in.rds.{name}"),
            Secret(name) => format!("sds.{name}"),
            Endpoints(name) => format!("cluster.{name}"),
        };
        self.add(format!("{of}.{ATTEMPT}"));
        let last = refused.unwrap_or("update_success");
        self.add(format!("{of}.{last}"));
    }

    fn stats(&self) -> Stats {
        let lines = self
            .0
            .iter()
            .map(|(name, value)| format!("{name}: {value}\n"));
        Stats::parse(lines.collect::<String>().as_bytes())
    }
}

#[test]
fn a_modelled_envoy_is_judged_by_what_it_does_and_by_nothing_else() {
    use Does::*;
    for seed in 0..3_000 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let kinds = [Clusters, Listeners, Runtime];
        let named = |rng: &mut fastrand::Rng| match rng.u8(0..6) {
            0 => Routes(name(["r", "s"][rng.usize(0..2)])),
            1 => Secret(name(["r", "cert"][rng.usize(0..2)])),
            2 => Endpoints(name(["r", "e"][rng.usize(0..2)])),
            kind => kinds[usize::from(kind) - 3].clone(),
        };
        // A life before the step, with refusals in it.
        let mut envoy = Model::default();
        envoy.0.insert("server.uptime".into(), rng.u64(5..100));
        for _ in 0..rng.u8(3..20) {
            let failed = rng.bool().then_some([REJECTED, FAILURE][rng.usize(0..2)]);
            envoy.reads(&named(&mut rng), failed);
        }
        envoy.reads(&Clusters, None);
        let before = envoy.stats();

        let mut changed: Vec<Subscription> = (0..rng.u8(1..4)).map(|_| named(&mut rng)).collect();
        changed.sort();
        changed.dedup();
        let all = [Takes, Refuses, Dies, IsReplaced, IsSlow, Drains, Hides];
        let does = all[rng.usize(0..all.len())];
        // Its uptime is behind, by up to a flush.
        let now = std::time::Instant::now();
        let passed = rng.u64(0..5_000);
        let uptime = envoy.0["server.uptime"] + passed;
        let flushed = uptime + rng.u64(0..300) - passed.min(rng.u64(0..300));
        envoy.0.insert("server.uptime".into(), flushed);
        // Look-ups that fail, whatever else happens.
        envoy.add("cluster.dns.update_failure".into());
        let bad = rng.usize(0..changed.len());
        match does {
            Takes | Drains => changed.iter().for_each(|it| envoy.reads(it, None)),
            Refuses => {
                for (place, it) in changed.iter().enumerate() {
                    envoy.reads(
                        it,
                        (place == bad).then_some([REJECTED, FAILURE][rng.usize(0..2)]),
                    );
                }
            }
            Dies => {
                envoy = Model::default();
                changed.iter().for_each(|it| envoy.reads(it, Some(FAILURE)));
            }
            IsReplaced => {
                // Another one, which has counted as much, for a longer time.
                changed.iter().for_each(|it| envoy.reads(it, Some(FAILURE)));
                let uptime = uptime + rng.u64(331..100_000);
                envoy.0.insert("server.uptime".into(), uptime);
            }
            IsSlow => {}
            Hides => {
                envoy = Model(
                    envoy
                        .0
                        .into_iter()
                        .filter(|it| it.0 == "server.uptime")
                        .collect(),
                )
            }
        }
        if does == Drains {
            envoy.add("listener_manager.total_listeners_draining".into());
            envoy.reads(&Routes(name("gone")), Some(REJECTED));
        }
        let (before, after) = (
            if does == Hides { envoy.stats() } else { before },
            envoy.stats(),
        );
        let files: Vec<Holdings> = changed
            .iter()
            .map(|it| holds(std::slice::from_ref(it), &[Routes(name("gone"))]))
            .collect();
        let later = now + std::time::Duration::from_secs(passed);
        let verdict = judge(&before.read_at(now), &after.read_at(later), &files);
        let told = match &verdict.outcome {
            Outcome::Accepted => does == Takes || does == Drains,
            Outcome::Refused(of) => does == Refuses && of.len() == 1 && of[0].files == [bad],
            Outcome::NotRead => does == IsSlow && verdict.unread.len() == changed.len(),
            Outcome::Restarted => does == Dies || does == IsReplaced,
            Outcome::Hidden => does == Hides,
        };
        assert!(told, "seed {seed}: {does:?} {changed:?}: {verdict:?}");
    }
}
