//! The state machine, row by row.

use super::checks::BOOKMARKED_WITHIN;
use super::*;
use crate::snapshot::Version;

pub const INTERVAL: Duration = Duration::from_secs(60);
pub const FOLLOW: SyncMode = SyncMode::Watch(INTERVAL);
pub const POLL: SyncMode = SyncMode::Poll(INTERVAL);

pub fn rv(text: &str) -> ResourceVersion {
    ResourceVersion(text.to_owned())
}

fn version(uid: &str, at: &str) -> Version {
    Version {
        uid: uid.to_owned(),
        resource_version: rv(at),
    }
}

fn found(at: &str) -> ObjectVersions {
    ObjectVersions::from([("a".to_owned(), version("u1", at))])
}

fn listed(at: &str) -> Input {
    Input::Listed(rv("9"), found(at))
}

fn opened() -> Input {
    Input::Opened(Duration::from_secs(300))
}

fn changed(at: &str) -> Input {
    Input::Changed("a".to_owned(), version("u1", at))
}

/// Feeds a new list-watch, each input so many seconds after the start, and compares what the last
/// one leaves: the state, when it is left for the next request, and whether the stream is closed.
#[track_caller]
fn check(mode: SyncMode, inputs: Vec<(u64, Input)>, request: &str) {
    let start = Instant::now();
    let mut watch = ListWatch::new(mode, Rng::with_seed(1), start);
    let (mut now, mut stream) = (start, Stream::Stays);
    for (second, input) in inputs {
        now = start + Duration::from_secs(second);
        stream = watch.step(input, now);
    }
    let state = match &watch.state {
        State::List { due } => format!("List {}", wait(*due, now)),
        State::Open { at, due, .. } => format!("Open {at} {}", wait(*due, now)),
        State::Streaming { at, .. } => format!("Streaming {at}"),
        State::Resting => "Resting".to_owned(),
    };
    let suspect = if watch.checks.missed_by().is_some() {
        " suspect"
    } else {
        ""
    };
    let stream = match stream {
        Stream::Stays => "",
        Stream::Closes => ", close",
    };
    assert_eq!(format!("{state}{suspect}{stream}"), request);
}

fn wait(due: Instant, now: Instant) -> &'static str {
    match due.saturating_duration_since(now) {
        Duration::ZERO => "now",
        wait if wait <= Duration::from_millis(800) => "soon",
        _ => "later",
    }
}

#[test]
fn a_list_leads_to_a_watch_from_its_version() {
    check(FOLLOW, vec![], "List now");
    check(FOLLOW, vec![(0, listed("7"))], "Open 9 now");
    check(
        FOLLOW,
        vec![(0, Input::Listed(rv("9"), ObjectVersions::new()))],
        "Open 9 now",
    );
    check(FOLLOW, vec![(0, listed("7")), (0, opened())], "Streaming 9");
}

#[test]
fn without_a_watch_a_list_is_all_there_is_to_do() {
    check(POLL, vec![(0, listed("7"))], "Resting");
    check(SyncMode::Once, vec![(0, listed("7"))], "Resting");
    check(
        SyncMode::Once,
        vec![(0, Input::Listed(rv("9"), ObjectVersions::new()))],
        "List soon",
    );
}

#[test]
fn a_list_that_fails_waits_for_the_server_or_for_its_own_back_off() {
    check(
        FOLLOW,
        vec![(0, Input::Failed(Failure::Server))],
        "List now",
    );
    check(
        FOLLOW,
        vec![(0, Input::Failed(Failure::Object))],
        "List soon",
    );
    let again = || Input::Failed(Failure::Object);
    let many = (0..8).map(|_| (0, again())).collect();
    check(FOLLOW, many, "List later");
}

#[test]
fn a_refused_watch_lists_again_unless_the_server_is_away() {
    let refused = |failure| vec![(0, listed("7")), (1, Input::Failed(failure))];
    check(FOLLOW, refused(Failure::Gone), "List now");
    check(FOLLOW, refused(Failure::Object), "List soon");
    check(FOLLOW, refused(Failure::Server), "Open 9 now");
    let busy = |seconds| Failure::Busy(Duration::from_secs(seconds));
    check(FOLLOW, refused(busy(0)), "Open 9 soon");
    check(FOLLOW, refused(busy(9)), "Open 9 later");
}

#[test]
fn a_429_delays_its_own_object_for_as_long_as_the_server_asks() {
    let busy = |seconds| Input::Failed(Failure::Busy(Duration::from_secs(seconds)));
    for mode in [FOLLOW, POLL, SyncMode::Once] {
        check(mode, vec![(0, busy(0))], "List soon");
        check(mode, vec![(0, busy(9))], "List later");
    }
    let start = Instant::now();
    let mut watch = ListWatch::new(FOLLOW, Rng::with_seed(1), start);
    watch.step(busy(40), start);
    assert_eq!(watch.deadline(), Some(start + Duration::from_secs(40)));
    // It is the object's own back-off that grows meanwhile, up to half a minute.
    let mut longest = Duration::ZERO;
    for _ in 0..200 {
        watch.relist(start);
        watch.step(busy(0), start);
        longest = longest.max(watch.deadline().unwrap() - start);
    }
    assert!((28..=30).contains(&longest.as_secs()), "{longest:?}");
}

/// Returns the seconds after a first list at which it lists again or checks, if each watch that it
/// asks for meets `watches`, and the number of watches.
fn checks(
    interval: u64,
    until: u64,
    mut watches: impl FnMut(&mut ListWatch, Instant),
) -> (Vec<u64>, usize) {
    let (start, rng) = (Instant::now(), Rng::with_seed(3));
    let mut watch = ListWatch::new(SyncMode::Watch(Duration::from_secs(interval)), rng, start);
    watch.step(listed("7"), start);
    let (mut checks, mut asked) = (Vec::new(), 0);
    for tenth in 0..until * 10 {
        let now = start + Duration::from_millis(tenth * 100);
        watch.step(Input::Tick, now);
        match watch.next_request(now) {
            None => continue,
            Some(Request::List) => watch.step(listed("7"), now),
            Some(Request::Check) => watch.step(Input::Checked(found("7")), now),
            Some(Request::Watch(..)) => {
                asked += 1;
                watches(&mut watch, now);
                continue;
            }
        };
        checks.push(tenth / 10);
    }
    (checks, asked)
}

#[test]
fn a_watch_that_cannot_be_opened_is_replaced_by_lists() {
    for failure in [Failure::Busy(Duration::ZERO), Failure::Server] {
        let (lists, asked) = checks(60, 600, |watch, now| {
            watch.step(Input::Failed(failure), now);
        });
        let gaps = lists.windows(2).map(|two| two[1] - two[0]);
        // A check would have been made within 65 s; the request before it may wait for 30 s.
        assert!(lists[0] <= 65 + 30, "{failure:?}: {lists:?}");
        assert!(gaps.clone().all(|gap| gap <= 65 + 30), "{lists:?}");
        assert!(gaps.clone().all(|gap| gap >= 45), "{lists:?}");
        assert!(asked > lists.len(), "{asked}");
    }
    // What the server wishes is waited for.
    let (lists, _) = checks(10, 200, |watch, now| {
        let failure = Failure::Busy(Duration::from_secs(100));
        watch.step(Input::Failed(failure), now);
    });
    assert_eq!(lists, [100]);
}

#[test]
fn streams_that_are_shorter_than_the_silent_time_are_checked_too() {
    for lives in [1, 10, 30, 55] {
        let mut ends: Option<Instant> = None;
        let (start, rng) = (Instant::now(), Rng::with_seed(lives));
        let mut watch = ListWatch::new(FOLLOW, rng, start);
        watch.step(listed("7"), start);
        let mut checks = Vec::new();
        for second in 0..600 {
            let now = start + Duration::from_secs(second);
            if ends.take_if(|at| *at <= now).is_some() {
                watch.step(Input::Ended, now);
            }
            match watch.next_request(now) {
                Some(Request::Watch(_, lasts)) => {
                    watch.step(Input::Opened(lasts), now);
                    ends = Some(now + Duration::from_secs(lives));
                }
                Some(Request::Check) => {
                    checks.push(second);
                    watch.step(Input::Checked(found("7")), now);
                }
                Some(Request::List) => {
                    checks.push(second);
                    watch.step(listed("7"), now);
                }
                None => {}
            }
        }
        let gaps: Vec<u64> = checks.windows(2).map(|two| two[1] - two[0]).collect();
        // The first stream may put it off: the list before it has spoken.
        assert!(checks[0] <= 65 + 5, "{lives}: {checks:?}");
        assert!(gaps.iter().all(|gap| *gap <= 65 + 5), "{lives}: {checks:?}");
        assert!(gaps.iter().all(|gap| *gap >= 45), "{lives}: {checks:?}");
    }
}

#[test]
fn streams_with_bookmarks_alone_that_never_reach_their_middle_are_checked_within_six_minutes() {
    let (start, rng) = (Instant::now(), Rng::with_seed(5));
    let mut watch = ListWatch::new(FOLLOW, rng, start);
    watch.step(listed("7"), start);
    let mut times = Vec::new();
    for second in 0..1800 {
        let now = start + Duration::from_secs(second);
        match second % 100 {
            0 => {
                watch.step(Input::Ended, now);
            }
            50 => {
                watch.step(Input::Bookmark(rv("9")), now);
            }
            _ => {}
        }
        match watch.next_request(now) {
            Some(Request::Watch(_, lasts)) => {
                watch.step(Input::Opened(lasts), now);
            }
            Some(Request::Check) => {
                times.push(second);
                watch.step(Input::Checked(found("7")), now);
            }
            Some(Request::List) => panic!("nothing has failed"),
            None => {}
        }
    }
    assert!(times[0] <= 360, "{times:?}");
    let gaps: Vec<u64> = times.windows(2).map(|two| two[1] - two[0]).collect();
    assert!(
        gaps.iter().all(|gap| (240..=470).contains(gap)),
        "{times:?}"
    );
}

#[test]
fn a_stream_that_ends_while_it_is_suspected_is_listed() {
    let suspected = |then| {
        vec![
            (0, listed("7")),
            (0, opened()),
            (70, Input::Checked(found("8"))),
            (71, then),
        ]
    };
    check(FOLLOW, suspected(Input::Ended), "List now");
    let broken = Input::Failed(Failure::Server);
    check(FOLLOW, suspected(broken), "List now, close");
}

#[test]
fn a_check_that_is_answered_with_not_now_waits_as_long_as_the_server_wishes() {
    let start = Instant::now();
    let mut watch = ListWatch::new(POLL, Rng::with_seed(1), start);
    watch.step(listed("7"), start);
    let now = start + INTERVAL;
    assert_eq!(watch.next_request(now), Some(Request::Check));
    let wish = Duration::from_secs(40);
    let busy = Input::CheckFailed(Failure::Busy(wish));
    watch.step(busy, now);
    assert_eq!(watch.deadline(), Some(now + wish));
}

#[test]
fn a_check_that_is_refused_leads_to_a_list_if_there_is_no_stream() {
    let refused = || Input::CheckFailed(Failure::Object);
    check(POLL, vec![(0, listed("7")), (60, refused())], "List soon");
    check(FOLLOW, vec![(0, listed("7")), (1, refused())], "List soon");
    let streaming = vec![(0, listed("7")), (0, opened()), (70, refused())];
    check(FOLLOW, streaming, "Streaming 9");
    let gone = Input::CheckFailed(Failure::Gone);
    check(POLL, vec![(0, listed("7")), (60, gone)], "Resting");
}

#[test]
fn events_and_bookmarks_say_where_a_stream_is_reopened() {
    let after = |input, then| vec![(0, listed("7")), (0, opened()), (1, input), (60, then)];
    check(FOLLOW, after(changed("10"), Input::Ended), "Open 10 now");
    check(
        FOLLOW,
        after(Input::Bookmark(rv("11")), Input::Ended),
        "Open 11 now",
    );
    let gone = Input::Deleted("a".to_owned(), rv("12"));
    check(FOLLOW, after(gone, Input::Ended), "Open 12 now");
    let broken = Input::Failed(Failure::Server);
    check(FOLLOW, after(changed("13"), broken), "Open 13 now, close");
}

#[test]
fn a_stream_that_fails_is_closed_and_listed_again() {
    let fails = |failure| vec![(0, listed("7")), (0, opened()), (9, Input::Failed(failure))];
    check(FOLLOW, fails(Failure::Gone), "List now, close");
    check(FOLLOW, fails(Failure::Object), "List soon, close");
}

#[test]
fn a_stream_that_ends_at_once_again_and_again_is_a_failure() {
    let mut inputs = vec![(0, listed("7")), (0, opened()), (1, Input::Ended)];
    check(
        FOLLOW,
        vec![(0, listed("7")), (0, opened()), (1, Input::Ended)],
        "Open 9 now",
    );
    for _ in 0..9 {
        inputs.extend([(1, opened()), (2, Input::Ended)]);
    }
    check(FOLLOW, inputs, "Open 9 later");
}

#[test]
fn a_stream_that_is_cut_again_and_again_is_reopened_within_four_seconds() {
    let start = Instant::now();
    let mut watch = ListWatch::new(FOLLOW, Rng::with_seed(1), start);
    watch.step(listed("7"), start);
    let (mut now, mut longest) = (start, Duration::ZERO);
    for _ in 0..200 {
        watch.step(opened(), now);
        now += Duration::from_secs(1);
        watch.step(Input::Ended, now);
        let due = watch.deadline().unwrap();
        longest = longest.max(due - now);
        now = due;
    }
    assert!(longest <= REOPENED_WITHIN && longest > REOPENED_WITHIN / 2);
}

#[test]
fn a_stream_that_outlives_its_time_is_closed_and_reopened() {
    let at = |second| vec![(0, listed("7")), (0, opened()), (second, Input::Tick)];
    check(FOLLOW, at(309), "Streaming 9");
    check(FOLLOW, at(310), "Open 9 now, close");
}

#[test]
fn a_check_that_differs_ends_a_stream_that_stays_silent() {
    let checked = |at| Input::Checked(found(at));
    let begin = || vec![(0, listed("7")), (0, opened())];
    let then = |more| begin().into_iter().chain(more).collect();
    check(FOLLOW, then(vec![(70, checked("7"))]), "Streaming 9");
    check(
        FOLLOW,
        then(vec![(70, checked("8"))]),
        "Streaming 9 suspect",
    );
    check(
        FOLLOW,
        then(vec![(70, Input::Checked(ObjectVersions::new()))]),
        "Streaming 9 suspect",
    );
    let silent = vec![(70, checked("8")), (71, Input::Tick)];
    check(FOLLOW, then(silent), "Streaming 9 suspect");
    let silent = vec![(70, checked("8")), (72, Input::Tick)];
    check(FOLLOW, then(silent), "List now, close");
    let late = vec![(70, checked("8")), (71, changed("8")), (72, Input::Tick)];
    check(FOLLOW, then(late), "Streaming 8");
    let late = vec![(70, checked("8")), (71, changed("10")), (72, Input::Tick)];
    check(FOLLOW, then(late), "Streaming 10");
    let anew = ObjectVersions::from([("a".to_owned(), version("u2", "7"))]);
    check(
        FOLLOW,
        then(vec![(70, Input::Checked(anew))]),
        "Streaming 9 suspect",
    );
}

#[test]
fn a_bookmark_does_not_excuse_a_change_that_a_check_has_found() {
    let begin = vec![
        (0, listed("7")),
        (0, opened()),
        (70, Input::Checked(found("8"))),
    ];
    let lie = vec![(71, Input::Bookmark(rv("12"))), (72, Input::Tick)];
    check(
        FOLLOW,
        begin.into_iter().chain(lie).collect(),
        "List now, close",
    );
}

#[test]
fn a_check_that_differs_leads_to_a_list_if_there_is_no_stream() {
    let checked = |found| vec![(0, listed("7")), (60, Input::Checked(found))];
    check(POLL, checked(found("7")), "Resting");
    check(POLL, checked(found("8")), "List now");
    check(POLL, checked(ObjectVersions::new()), "List now");
    check(FOLLOW, checked(found("7")), "Open 9 now");
    check(FOLLOW, checked(found("8")), "List now");
}

/// Returns the seconds at which a stream of ten minutes is checked, if it reports something at
/// those given.
fn check_times(seed: u64, speaks: impl Fn(u64) -> Option<Input>) -> Vec<u64> {
    let (start, rng) = (Instant::now(), Rng::with_seed(seed));
    let mut watch = ListWatch::new(FOLLOW, rng, start);
    for input in [listed("7"), Input::Opened(Duration::from_secs(600))] {
        watch.step(input, start);
    }
    let mut times = Vec::new();
    for second in 0..600 {
        let now = start + Duration::from_secs(second);
        if let Some(input) = speaks(second) {
            watch.step(input, now);
        }
        if watch.next_request(now) == Some(Request::Check) {
            times.push(second);
            watch.step(Input::Checked(watch.found.clone()), now);
        }
    }
    times
}

fn every(gap: u64) -> impl Fn(u64) -> Option<Input> {
    move |second| (second % gap == gap - 1).then(|| Input::Bookmark(rv("9")))
}

#[test]
fn a_silent_stream_is_checked_within_each_interval_and_not_by_all_clients_at_once() {
    let mut firsts = Vec::new();
    for seed in 0..20 {
        let times = check_times(seed, |_| None);
        // A bookmark could have come.
        assert_eq!(times[0], 65, "{times:?}");
        let gaps: Vec<u64> = times.windows(2).map(|two| two[1] - two[0]).collect();
        assert!(gaps.iter().all(|gap| (45..=57).contains(gap)), "{gaps:?}");
        firsts.push(gaps[0]);
    }
    firsts.sort_unstable();
    firsts.dedup();
    assert!(firsts.len() > 6, "{firsts:?}");
}

#[test]
fn a_stream_that_delivers_is_checked_only_in_the_middle_of_its_time() {
    let news = |second| (second % 40 == 0).then(|| changed("8"));
    assert_eq!(check_times(1, news), [300]);
    assert_eq!(check_times(1, every(40)), [300]);
}

#[test]
fn bookmarks_may_come_a_little_late() {
    for seed in 0..20 {
        assert_eq!(check_times(seed, every(62)), [300]);
    }
}

#[test]
fn bookmarks_that_stop_coming_are_waited_for_no_longer_than_five_seconds_more() {
    let until_200 = |second| every(62)(second).filter(|_| second < 200);
    let times = check_times(1, until_200);
    // 185 is the last one's second.
    assert_eq!(times[0], 185 + 65, "{times:?}");
    assert!((45..=57).contains(&(times[1] - times[0])), "{times:?}");
}

#[test]
fn bookmarks_are_waited_for_past_an_interval_of_a_minute_alone() {
    let start = Instant::now();
    for (interval, least, most) in [(50, 37, 50), (60, 65, 65), (66, 65, 66), (120, 90, 120)] {
        let mode = SyncMode::Watch(Duration::from_secs(interval));
        let mut watch = ListWatch::new(mode, Rng::with_seed(1), start);
        for input in [listed("7"), opened(), Input::Bookmark(rv("8"))] {
            watch.step(input, start);
        }
        let wait = (watch.deadline().unwrap() - start).as_secs();
        assert!((least..=most).contains(&wait), "{interval}: {wait}");
    }
}

#[test]
fn a_check_that_failed_is_wanted_again_at_once_even_if_the_stream_delivers() {
    let start = Instant::now();
    for mode in [FOLLOW, POLL] {
        let mut watch = ListWatch::new(mode, Rng::with_seed(1), start);
        for input in [listed("7"), opened()] {
            watch.step(input, start);
        }
        let now = start + BOOKMARKED_WITHIN;
        assert_eq!(watch.next_request(now), Some(Request::Check));
        assert_eq!(watch.next_request(now), None);
        watch.step(Input::CheckFailed(Failure::Server), now);
        watch.step(Input::Bookmark(rv("10")), now);
        assert_eq!(watch.deadline(), Some(now));
        assert_eq!(watch.next_request(now), Some(Request::Check));
        assert_eq!(watch.next_request(now), None);
    }
}

#[test]
fn what_a_stream_has_reported_since_a_check_was_sent_is_newer_than_the_check() {
    let start = Instant::now();
    for report in [changed("8"), Input::Deleted("a".to_owned(), rv("8"))] {
        let mut watch = ListWatch::new(FOLLOW, Rng::with_seed(1), start);
        for input in [listed("7"), opened()] {
            watch.step(input, start);
        }
        let now = start + BOOKMARKED_WITHIN;
        assert_eq!(watch.next_request(now), Some(Request::Check));
        watch.step(report, now);
        watch.step(Input::Checked(found("7")), now);
        assert!(watch.checks.missed_by().is_none());
        // The next check says the same, so the stream has missed a change.
        let now = now + INTERVAL;
        assert_eq!(watch.next_request(now), Some(Request::Check));
        watch.step(Input::Checked(found("7")), now);
        assert!(watch.checks.missed_by().is_some());
    }
}
