//! The table line by line, and random lives of an app, a cluster and an Envoy that takes, refuses,
//! dies, is slow, drains and hides.

mod cold;
mod model;

use super::*;
use crate::envoy::verdict::Holdings;
use crate::snapshot::ObjectName;

const SECOND: Duration = Duration::from_secs(1);

fn content(name: &str, hash: u64) -> Content {
    let object = ObjectName {
        namespace: "ns".into(),
        name: name.into(),
    };
    Content { object, hash }
}

/// A ConfigMap's one file, of routes with the same name.
fn changed(content: &Content) -> Changed {
    let name = &content.object.name;
    let routes = vec![Subscription::Routes(name.clone())];
    Changed {
        file: FileName::new(&format!("{name}.yaml")).unwrap(),
        content: content.clone(),
        is_new: true,
        holdings: Holdings {
            now: routes.clone(),
            before: routes,
        },
    }
}

fn step(stage: Stage, set: SetId, contents: &[Content]) -> Step {
    Step {
        stage,
        set,
        is_half: false,
        changed: contents.iter().map(changed).collect(),
    }
}

/// An Envoy's counters: the attempts of all, and what it refused.
fn stats(attempts: u64, refused: &[(&str, u64)]) -> Stats {
    let mut text = format!(
        "cluster_manager.cds.update_attempt: {attempts}\nserver.state: 0\n\
         http.in.rds.a.update_attempt: {attempts}\nhttp.in.rds.b.update_attempt: {attempts}\n"
    );
    for (name, times) in refused {
        text += &format!("http.in.rds.{name}.update_rejected: {times}\n");
    }
    Stats::parse(text.as_bytes())
}

/// An acceptance with one Envoy, and the time.
struct Scene {
    it: Acceptance,
    now: Instant,
}

impl Scene {
    fn start(restores: bool, memory: &str, sets: (Option<SetId>, Option<SetId>)) -> Scene {
        let now = Instant::now();
        let rng = Rng::with_seed(1);
        let it = Acceptance::new(restores, 1, (memory, sets.0, sets.1), rng, now);
        Scene { it, now }
    }

    /// Begins with an Envoy that is up, and has taken what set 1 has.
    fn settled() -> Scene {
        let mut scene = Scene::start(true, "", (Some(1), None));
        scene.answer(Ok(stats(1, &[])));
        assert_eq!(scene.it.wants(), Want::Poke);
        scene.run(
            step(Stage::Poke, 1, &[content("a", 1), content("b", 1)]),
            Ok(stats(2, &[])),
        );
        assert_eq!(scene.it.take_events(), [Event::Accepted(1)]);
        scene
    }

    fn later(&mut self, time: Duration) {
        self.now += time;
        self.it.tick(self.now);
    }

    #[track_caller]
    fn answer(&mut self, answer: Result<Stats, AdminError>) {
        assert_eq!(self.it.asks(self.now), [0]);
        self.it.answer(0, answer, self.now);
    }

    #[track_caller]
    fn run(&mut self, step: Step, answer: Result<Stats, AdminError>) {
        self.it.commits(step);
        assert_eq!(
            (self.it.wants(), self.it.asks(self.now)),
            (Want::Wait, vec![])
        );
        self.it.acknowledged(self.now);
        self.answer(answer);
    }

    fn hold(&self, name: &str, hash: u64) -> Hold {
        self.it.holds(&content(name, hash), self.now)
    }
}

fn away() -> AdminError {
    AdminError::Away("connection refused".into())
}

#[test]
fn what_envoy_takes_is_good_and_the_next_set_may_follow() {
    let mut scene = Scene::settled();
    assert_eq!(scene.it.status(), Status::Taken);
    scene.run(
        step(Stage::Clusters, 2, &[content("b", 2)]),
        Ok(stats(3, &[])),
    );
    // What is half a target is not what comes back.
    assert_eq!(
        (scene.it.good(), scene.it.keeps()),
        (Some(1), [Some(1), Some(1)])
    );
    assert!(scene.it.may_publish() && scene.it.memory().contains("trying ns/b"));
    scene.run(
        step(Stage::Routes, 3, &[content("a", 2)]),
        Ok(stats(4, &[])),
    );
    assert_eq!(
        (scene.it.good(), scene.it.keeps()),
        (Some(3), [Some(3), None])
    );
    assert_eq!(scene.it.memory(), "");
    assert_eq!(scene.it.deadline(), None, "an idle machine asks nothing");
}

#[test]
fn what_envoy_refuses_is_taken_back_to_the_begin_and_held_and_the_rest_follows() {
    let mut scene = Scene::settled();
    scene.run(
        step(Stage::Clusters, 2, &[content("b", 2)]),
        Ok(stats(3, &[])),
    );
    scene.run(
        step(Stage::Routes, 3, &[content("a", 2)]),
        Ok(stats(4, &[("a", 1)])),
    );
    let Want::Reason(0, asked) = scene.it.wants() else {
        panic!("{:?}", scene.it.wants());
    };
    assert_eq!(asked, [Subscription::Routes("a".into())]);
    scene.it.reason(Some("why".into()));
    let events = scene.it.take_events();
    let [
        Event::Refused {
            what,
            reason,
            restores,
            again,
        },
    ] = &events[..]
    else {
        panic!("{events:?}");
    };
    assert_eq!(
        (what[0].counter.as_str(), reason.as_deref()),
        ("http.in.rds.a.update_rejected", Some("why"))
    );
    assert_eq!((*restores, *again), (Some(1), false));
    // The routes of the set before come back while the new clusters are still there.
    assert_eq!(scene.it.wants(), Want::Back(2));
    let clusters = step(Stage::Back, 4, &[content("a", 1), content("b", 2)]);
    scene.run(clusters, Ok(stats(5, &[("a", 1)])));
    assert_eq!(
        (scene.it.wants(), scene.it.good()),
        (Want::Back(1), Some(1))
    );
    let back = step(Stage::Back, 5, &[content("a", 1), content("b", 1)]);
    scene.run(back, Ok(stats(6, &[("a", 1)])));
    assert!(scene.it.take_replan() && !scene.it.take_replan());
    assert_eq!(scene.it.good(), Some(5));
    assert!(
        matches!(scene.hold("a", 2), Hold::Until(_)),
        "{:?}",
        scene.hold("a", 2)
    );
    assert_eq!(
        (scene.hold("b", 2), scene.hold("a", 3)),
        (Hold::No, Hold::No)
    );
    assert_eq!(
        scene.it.may_drop(scene.now - SECOND * 60, scene.now),
        DropGate::Closed(None)
    );
    // What is left of it is not another's change, so that it does not try it again.
    scene.run(
        step(Stage::Routes, 6, &[content("b", 2)]),
        Ok(stats(7, &[("a", 1)])),
    );
    assert!(matches!(scene.hold("a", 2), Hold::Until(at) if at > scene.now));
    assert_eq!(scene.it.status(), Status::Taken);
}

/// Refuses content 2 of `a`, and goes back to set 1 as set 3.
fn refused() -> Scene {
    let mut scene = Scene::settled();
    scene.run(
        step(Stage::Routes, 2, &[content("a", 2)]),
        Ok(stats(3, &[("a", 1)])),
    );
    scene.it.reason(None);
    scene.run(
        step(Stage::Back, 3, &[content("a", 1)]),
        Ok(stats(4, &[("a", 1)])),
    );
    assert!(scene.it.take_replan());
    scene.it.take_events();
    scene
        .it
        .in_sync(&[content("a", 2), content("b", 1)], scene.now);
    scene
}

fn refused_routes(name: &str) -> Status {
    let file = FileName::new(&format!("{name}.yaml")).unwrap();
    Status::Refused(file, format!("http.in.rds.{name}.update_rejected"))
}

#[test]
fn what_is_refused_stays_so_while_other_files_change_and_does_not_let_them_down() {
    let mut scene = Scene::start(true, "", (Some(1), None));
    scene.answer(Ok(stats(1, &[])));
    let all = [content("a", 1), content("b", 1)];
    scene.run(step(Stage::Poke, 1, &all), Ok(stats(2, &[("b", 1)])));
    scene.it.reason(None);
    assert_eq!(scene.it.status(), refused_routes("b"));
    scene.it.take_events();

    // Another one's slip is news, and stays, too.
    let worse = step(Stage::Routes, 2, &[content("a", 2)]);
    scene.run(worse, Ok(stats(3, &[("a", 1), ("b", 1)])));
    scene.it.reason(None);
    let events = scene.it.take_events();
    let is_new = matches!(
        &events[..],
        [Event::Refused {
            restores: None,
            again: false,
            ..
        }]
    );
    assert!(is_new, "{events:?}");

    // What Envoy takes of it is not a whole set, but may come back.
    let again = scene.it.deadline();
    let next = step(Stage::Routes, 3, &[content("a", 3)]);
    scene.run(next, Ok(stats(4, &[("a", 1), ("b", 1)])));
    assert_eq!(scene.it.status(), refused_routes("b"));
    assert!(!scene.it.has_taken(0));
    assert_eq!((scene.it.good(), scene.it.deadline()), (Some(3), again));
    assert_eq!(scene.it.take_events(), [Event::AcceptedInPart]);

    let bad = step(Stage::Routes, 4, &[content("a", 4)]);
    scene.run(bad, Ok(stats(5, &[("a", 2), ("b", 1)])));
    scene.it.reason(None);
    assert_eq!(scene.it.wants(), Want::Back(3));
    scene.it.take_events();
    let back = step(Stage::Back, 5, &[content("a", 3), content("b", 1)]);
    scene.run(back, Ok(stats(6, &[("a", 2), ("b", 2)])));
    assert!(scene.it.take_replan());
    assert_eq!(
        (scene.it.wants(), scene.it.take_events()),
        (Want::Nothing, vec![])
    );
    assert!(matches!(scene.hold("a", 4), Hold::Until(_)));
    assert_eq!(scene.it.status(), refused_routes("b"));

    let healed = step(Stage::Routes, 6, &[content("b", 2)]);
    scene.run(healed, Ok(stats(7, &[("a", 2), ("b", 2)])));
    assert_eq!(scene.it.status(), Status::Taken);
    assert_eq!(scene.it.take_events(), [Event::Accepted(6)]);
}

#[test]
fn a_held_content_is_tried_again_ever_less_often() {
    let mut scene = refused();
    for (at_least, set) in [(30, 4), (120, 6), (600, 8), (3600, 10), (3600, 12)] {
        let due = scene.it.deadline().unwrap() - scene.now;
        assert!(
            due >= SECOND * at_least && due <= SECOND * at_least * 6 / 5,
            "{due:?}"
        );
        scene.later(due - Duration::from_millis(1));
        assert!(!scene.it.take_replan());
        scene.later(Duration::from_millis(1));
        assert!(scene.it.take_replan());
        assert_eq!(scene.hold("a", 2), Hold::No);
        let refused = [("a", set)];
        scene.run(
            step(Stage::Routes, set, &[content("a", 2)]),
            Ok(stats(set + 1, &refused)),
        );
        scene.later(REASONS_WITHIN);
        let events = scene.it.take_events();
        assert!(
            matches!(&events[..], [Event::Refused { again: true, .. }]),
            "{events:?}"
        );
        scene.run(
            step(Stage::Back, set + 1, &[content("a", 1)]),
            Ok(stats(set + 2, &refused)),
        );
        assert!(scene.it.take_replan());
        assert_eq!(scene.it.take_events(), [Event::Accepted(set + 1)]);
    }
    // At last it passes.
    scene.later(SECOND * 4500);
    assert!(scene.it.take_replan());
    let passed = Ok(stats(100, &[("a", 12)]));
    scene.run(step(Stage::Routes, 20, &[content("a", 2)]), passed);
    let again = Event::AcceptedAgain(vec![content("a", 2).object]);
    assert!(scene.it.take_events().contains(&again));
    assert_eq!(
        (scene.hold("a", 2), scene.it.memory().as_str()),
        (Hold::No, "")
    );
}

#[test]
fn another_s_change_and_a_new_envoy_try_it_at_once() {
    let mut scene = refused();
    scene.run(
        step(Stage::Routes, 4, &[content("b", 2)]),
        Ok(stats(5, &[("a", 1)])),
    );
    assert_eq!(scene.it.deadline(), Some(scene.now));
    scene.later(Duration::ZERO);
    assert!(scene.it.take_replan() && scene.hold("a", 2) == Hold::No);

    let mut scene = refused();
    assert!(scene.it.has_taken(0));
    scene.it.went(0, scene.now);
    assert!(!scene.it.has_taken(0));
    scene.it.recall_taken(0, scene.now);
    assert!(scene.it.has_taken(0) && !scene.it.has_taken(1));
    scene.answer(Err(away()));
    assert!(scene.it.is_down() && scene.it.may_publish());
    assert_eq!(scene.it.status(), Status::Away("connection refused".into()));
    assert_eq!(scene.it.deadline(), Some(scene.now + AWAY));
    scene.later(AWAY);
    scene.answer(Ok(stats(1, &[("a", 7)])));
    // What it refused while it came up is judged by a poke alone.
    assert_eq!(scene.it.wants(), Want::Poke);
    scene.run(
        step(Stage::Poke, 3, &[content("a", 1), content("b", 1)]),
        Ok(stats(2, &[("a", 7)])),
    );
    scene.later(Duration::ZERO);
    assert!(scene.it.take_replan() && scene.hold("a", 2) == Hold::No);
    assert_eq!(scene.it.status(), Status::Taken);
}

#[test]
fn new_contents_that_are_refused_one_after_the_other_are_slowed_down() {
    let mut scene = refused();
    for hash in 3..6 {
        assert_eq!(scene.hold("a", hash), Hold::No, "{hash}");
        let refused = [("a", hash)];
        scene.run(
            step(Stage::Routes, hash * 2, &[content("a", hash)]),
            Ok(stats(hash * 2, &refused)),
        );
        scene.it.reason(None);
        scene.run(
            step(Stage::Back, hash * 2 + 1, &[content("a", 1)]),
            Ok(stats(hash * 2 + 1, &refused)),
        );
        scene.later(SECOND);
    }
    let next = scene.now - SECOND + SECOND * 10;
    assert_eq!(
        (scene.hold("a", 6), scene.hold("b", 6)),
        (Hold::Until(next), Hold::No)
    );
    scene.later(SECOND * 9);
    assert_eq!(scene.hold("a", 6), Hold::No);
}

#[test]
fn where_the_set_before_is_refused_too_the_configuration_is_not_the_cause() {
    let mut scene = Scene::settled();
    scene.run(
        step(Stage::Routes, 2, &[content("a", 2)]),
        Ok(stats(3, &[("a", 1)])),
    );
    scene.it.reason(None);
    scene.it.take_events();
    scene.run(
        step(Stage::Back, 3, &[content("a", 1)]),
        Ok(stats(4, &[("a", 2)])),
    );
    // It may be late news.
    assert_eq!(
        (scene.it.wants(), scene.it.take_events()),
        (Want::Poke, vec![])
    );
    let poke = step(Stage::Poke, 3, &[content("a", 1), content("b", 1)]);
    scene.run(poke, Ok(stats(5, &[("a", 3)])));
    assert_eq!(scene.it.take_events(), [Event::NotTheCause]);
    assert!(scene.it.take_replan() && scene.it.may_publish());
    assert_eq!(scene.hold("a", 2), Hold::No);
    scene.run(
        step(Stage::Routes, 4, &[content("a", 2)]),
        Ok(stats(6, &[("a", 4)])),
    );
    assert_eq!(
        (scene.it.wants(), scene.it.take_events()),
        (Want::Nothing, vec![])
    );
    // The next one is judged again.
    scene.run(
        step(Stage::Routes, 5, &[content("a", 3)]),
        Ok(stats(7, &[("a", 5)])),
    );
    assert!(matches!(scene.it.wants(), Want::Reason(..)));
}

#[test]
fn a_first_set_that_is_refused_stays_and_is_announced_again() {
    let mut scene = Scene::start(true, "", (None, None));
    scene.answer(Ok(stats(0, &[])));
    assert_eq!(
        scene.it.wants(),
        Want::Nothing,
        "there is nothing to announce"
    );
    scene.run(
        step(Stage::Routes, 1, &[content("a", 1)]),
        Ok(stats(1, &[("a", 1)])),
    );
    scene.it.reason(None);
    assert_eq!(
        (scene.it.wants(), scene.hold("a", 1)),
        (Want::Nothing, Hold::No)
    );
    assert_eq!(scene.it.status(), refused_routes("a"));
    scene.later(SECOND * 36);
    assert_eq!(scene.it.wants(), Want::Poke);
    scene.run(
        step(Stage::Poke, 1, &[content("a", 1)]),
        Ok(stats(2, &[("a", 1)])),
    );
    assert_eq!(
        (scene.it.status(), scene.it.good()),
        (Status::Taken, Some(1))
    );
    assert_eq!(scene.it.deadline(), None);
}

#[test]
fn an_envoy_that_is_away_for_a_minute_is_told_of_once_and_its_return_as_well() {
    let mut scene = Scene::start(true, "", (Some(1), None));
    for second in 0..120 {
        scene.answer(Err(away()));
        let told = scene.it.take_events().len();
        assert_eq!(told, usize::from(second == 60), "after {second} s");
        // It may run and be asked in the wrong place.
        assert_eq!(scene.it.is_alone(), second < 60, "after {second} s");
        scene.later(AWAY);
    }
    scene.answer(Ok(stats(1, &[])));
    assert_eq!(scene.it.take_events(), [Event::KnownAgain { envoy: 0 }]);
}

#[test]
fn nothing_is_taken_back_of_what_is_not_known() {
    for (error, away) in [
        (AdminError::Status(403), false),
        (AdminError::TooLong, false),
        (AdminError::Malformed("x".into()), false),
        (AdminError::NoAnswer(SECOND), true),
        (away(), true),
    ] {
        let mut scene = Scene::settled();
        scene.run(
            step(Stage::Routes, 2, &[content("a", 2)]),
            Err(error.clone()),
        );
        assert_eq!(
            (scene.it.wants(), scene.it.is_down()),
            (Want::Nothing, away),
            "{error}"
        );
        let told = scene.it.take_events();
        assert_eq!(told.len(), usize::from(!away), "{told:?}");
        assert_eq!(
            scene.it.deadline(),
            away.then(|| scene.now + AWAY),
            "{error}"
        );
        // What listens may be an Envoy that reads files.
        assert_eq!(scene.it.is_alone(), error == self::away(), "{error}");
        // It is told once; and once something is known again, it is announced and judged.
        scene.later(AWAY);
        if !away {
            scene.run(
                step(Stage::Routes, 3, &[content("a", 3)]),
                Err(error.clone()),
            );
            assert_eq!(scene.it.take_events(), []);
            scene.run(
                step(Stage::Routes, 4, &[content("a", 4)]),
                Ok(stats(9, &[("a", 2)])),
            );
        } else {
            scene.answer(Ok(stats(9, &[("a", 2)])));
        }
        assert_eq!(scene.it.wants(), Want::Poke, "{error}");
    }
    let mut scene = Scene::settled();
    let hidden = || Ok(Stats::parse(b"cluster_manager.cds.update_rejected: 9"));
    scene.it.went(0, scene.now);
    scene.answer(hidden());
    scene.later(SECOND * 15);
    scene.answer(hidden());
    scene.run(step(Stage::Poke, 1, &[content("a", 1)]), hidden());
    scene.answer(hidden());
    assert!(matches!(
        &scene.it.take_events()[..],
        [Event::Unknown { envoy: 0, .. }]
    ));
    assert!(matches!(scene.it.status(), Status::Unknown(..)));
    assert_eq!(
        (scene.it.wants(), scene.it.deadline()),
        (Want::Nothing, None)
    );
}

#[test]
fn new_clusters_have_15_seconds_to_become_warm() {
    let warming = |attempts: u64, count: u64| {
        let more = format!("cluster_manager.warming_clusters: {count}\n");
        let text = format!(
            "http.in.rds.b.update_attempt: {attempts}\ncluster_manager.cds.update_attempt: {attempts}\n{more}"
        );
        Ok(Stats::parse(text.as_bytes()))
    };
    let mut scene = Scene::settled();
    scene.run(step(Stage::Clusters, 2, &[content("b", 2)]), warming(3, 1));
    let began = scene.now;
    let mut looks = 0;
    while scene.it.wants() == Want::Wait {
        let at = scene.it.deadline().unwrap();
        let wait = at - scene.now;
        scene.later(wait);
        scene.answer(warming(3, 1));
        looks += 1;
    }
    let took = scene.now - began;
    assert!(
        took >= SECOND * 15 && took < SECOND * 16 && looks < 70,
        "{took:?}, {looks}"
    );
    assert_eq!(scene.it.take_events(), [Event::StillWarming(2)]);
    // A cluster that never gets warm does not slow the next one down.
    scene.run(step(Stage::Clusters, 3, &[content("b", 3)]), warming(4, 1));
    assert_eq!(
        (scene.it.wants(), scene.it.take_events()),
        (Want::Nothing, vec![])
    );
}

#[test]
fn what_was_tried_when_crossover_alone_was_killed_is_tried_again_at_once() {
    for lives in [true, false] {
        let tried = format!("trying {}\n", content("a", 2));
        let mut scene = Scene::start(true, &tried, (Some(2), Some(1)));
        assert_eq!(scene.it.wants(), Want::Back(1));
        let both = [content("a", 1), content("b", 1)];
        scene.it.commits(step(Stage::Back, 3, &both));
        scene.it.acknowledged(scene.now);
        scene.answer(Ok(stats(3, &[])));
        if lives {
            scene.it.recall_taken(0, scene.now);
        }
        scene.run(step(Stage::Poke, 3, &both), Ok(stats(4, &[])));
        assert_eq!(scene.hold("a", 1), Hold::No);
        scene.later(SECOND);
        let is_held = scene.hold("a", 2) != Hold::No;
        assert_eq!(is_held, !lives);
    }
}

/// Two answers: of a step that nobody has read, and of the same a moment later.
fn unread(scene: &mut Scene, step: Step, answer: &Stats) {
    scene.run(step, Ok(answer.clone()));
    scene.answer(Ok(answer.clone()));
}

#[test]
fn routes_that_a_listener_asks_for_later_are_refused_with_it() {
    let mut scene = Scene::settled();
    let of = |more: &str| {
        let text = format!(
            "cluster_manager.cds.update_attempt: 2\nserver.state: 0\n\
             http.in.rds.a.update_attempt: 3\nhttp.in.rds.b.update_attempt: 2\n{more}"
        );
        Stats::parse(text.as_bytes())
    };
    // A new file comes with the clusters, and nobody asks for it before the listener moves.
    unread(
        &mut scene,
        step(Stage::Clusters, 2, &[content("new", 2)]),
        &of("").clone(),
    );
    assert!(scene.it.may_publish());
    let refused = "http.in.rds.new.update_attempt: 1\nhttp.in.rds.new.update_rejected: 1\n";
    scene.run(
        step(Stage::Routes, 3, &[content("a", 2)]),
        Ok({
            let more = refused.to_owned() + "http.in.rds.a.update_attempt: 4\n";
            of(&more)
        }),
    );
    assert!(
        matches!(scene.it.wants(), Want::Reason(0, _)),
        "{:?}",
        scene.it.wants()
    );
    scene.it.reason(None);
    let is_named = |event: &Event| matches!(event, Event::Refused { what, .. } if what[0].files[0].as_str() == "new.yaml");
    assert!(scene.it.take_events().iter().any(is_named));
    assert_ne!(scene.hold("new", 2), Hold::No);
    assert_eq!(scene.hold("a", 2), Hold::No);
}

#[test]
fn a_listener_that_warms_may_not_have_asked_for_its_routes() {
    let mut scene = Scene::settled();
    let of = |warming: u64, more: &str| {
        let text = format!(
            "cluster_manager.cds.update_attempt: 2\nserver.state: 0\n\
             listener_manager.total_listeners_warming: {warming}\n\
             http.in.rds.a.update_attempt: 3\nhttp.in.rds.b.update_attempt: 2\n{more}"
        );
        Ok(Stats::parse(text.as_bytes()))
    };
    let both = [content("a", 2), content("new", 2)];
    scene.run(step(Stage::Routes, 2, &both), of(1, ""));
    for _ in 0..3 {
        assert_eq!(scene.it.wants(), Want::Wait);
        let wait = scene.it.deadline().unwrap() - scene.now;
        scene.later(wait);
        scene.answer(of(1, ""));
    }
    let wait = scene.it.deadline().unwrap() - scene.now;
    scene.later(wait);
    scene.answer(of(
        0,
        "http.in.rds.new.update_attempt: 1\nhttp.in.rds.new.update_failure: 1\n",
    ));
    assert!(
        matches!(scene.it.wants(), Want::Reason(0, _)),
        "{:?}",
        scene.it.wants()
    );
    scene.it.reason(None);
    assert_ne!(scene.hold("new", 2), Hold::No);
}

#[test]
fn a_listener_that_never_gets_warm_is_told_after_15_seconds() {
    let mut scene = Scene::settled();
    let of = |attempts: u64| {
        let text = format!(
            "cluster_manager.cds.update_attempt: 2\nserver.state: 0\n\
             listener_manager.total_listeners_warming: 1\n\
             http.in.rds.a.update_attempt: {attempts}\nhttp.in.rds.b.update_attempt: 2\n"
        );
        Ok(Stats::parse(text.as_bytes()))
    };
    scene.run(step(Stage::Routes, 2, &[content("a", 2)]), of(3));
    let began = scene.now;
    while scene.it.wants() == Want::Wait {
        let wait = scene.it.deadline().unwrap() - scene.now;
        scene.later(wait);
        scene.answer(of(3));
    }
    let took = scene.now - began;
    assert!(took >= SECOND * 15 && took < SECOND * 16, "{took:?}");
    let told = [Event::ListenersStillWarming(2), Event::Accepted(2)];
    assert_eq!(scene.it.take_events(), told);
    // It does not slow the next change down.
    scene.run(step(Stage::Routes, 3, &[content("a", 3)]), of(4));
    assert_eq!(scene.it.wants(), Want::Nothing);
}

#[test]
fn a_drop_waits_for_15_seconds_and_for_connections_that_drain() {
    let draining = |count: u64| {
        let text = format!(
            "cluster_manager.cds.update_attempt: 9\nlistener_manager.total_filter_chains_draining: {count}"
        );
        Ok(Stats::parse(text.as_bytes()))
    };
    let mut scene = Scene::settled();
    let switched = scene.now;
    let after = switched + SECOND * 15;
    assert_eq!(
        scene.it.may_drop(switched, scene.now),
        DropGate::Closed(Some(after))
    );
    scene.later(SECOND * 15);
    assert_eq!(
        scene.it.may_drop(switched, scene.now),
        DropGate::Closed(Some(after))
    );
    scene.answer(draining(2));
    let next = after + SECOND * 5;
    assert_eq!(
        scene.it.may_drop(switched, scene.now),
        DropGate::Closed(Some(next))
    );
    assert_eq!(scene.it.deadline(), Some(next));
    scene.later(SECOND * 5);
    scene.answer(draining(0));
    assert_eq!(scene.it.may_drop(switched, scene.now), DropGate::Open);
    scene.answer_none();
    scene.run(step(Stage::Drop, 2, &[content("b", 1)]), Ok(stats(10, &[])));
    assert_eq!(
        (scene.it.good(), scene.it.keeps()),
        (Some(2), [Some(2), None])
    );
    // One that never ends is not waited for.
    let mut scene = Scene::settled();
    scene.later(SECOND * 615);
    assert_eq!(
        scene.it.may_drop(switched, scene.now + SECOND),
        DropGate::Open
    );
    scene.it.went(0, scene.now);
    assert_eq!(scene.it.may_drop(switched, scene.now), DropGate::ByTime);
}

impl Scene {
    #[track_caller]
    fn answer_none(&mut self) {
        assert_eq!(self.it.asks(self.now), Vec::<usize>::new());
    }
}

#[test]
fn one_of_several_that_refuses_refuses_for_all() {
    let now = Instant::now();
    let mut it = Acceptance::new(true, 2, ("", Some(1), None), Rng::with_seed(1), now);
    let both = |it: &mut Acceptance, step: Option<Step>, answers: [Stats; 2]| {
        if let Some(step) = step {
            it.commits(step);
            it.acknowledged(now);
        }
        assert_eq!(it.asks(now), [0, 1]);
        for (place, stats) in answers.into_iter().enumerate() {
            it.answer(place, Ok(stats), now);
        }
    };
    both(&mut it, None, [stats(1, &[]), stats(1, &[])]);
    let poke = step(Stage::Poke, 1, &[content("a", 1)]);
    both(&mut it, Some(poke), [stats(2, &[]), stats(2, &[])]);
    assert_eq!((it.status(), it.good()), (Status::Taken, Some(1)));
    let bad = step(Stage::Routes, 2, &[content("a", 2)]);
    both(&mut it, Some(bad), [stats(3, &[]), stats(3, &[("a", 1)])]);
    assert!(matches!(it.wants(), Want::Reason(1, _)));
    // One that refuses at once is not made to wait for the other, whose answer tells nothing more.
    it.reason(None);
    it.commits(step(Stage::Back, 3, &[content("a", 1)]));
    it.acknowledged(now);
    assert_eq!(it.asks(now), [0, 1]);
    it.answer(1, Ok(stats(4, &[("a", 1)])), now);
    assert_eq!(it.wants(), Want::Wait);
    it.answer(0, Ok(stats(4, &[])), now);
    assert_eq!((it.wants(), it.good()), (Want::Nothing, Some(3)));
}

#[test]
fn contents_that_were_being_tried_when_all_died_are_held() {
    let mut scene = Scene::settled();
    scene.it.commits(step(Stage::Routes, 2, &[content("a", 2)]));
    let memory = scene.it.memory();
    let mut scene = Scene::start(true, &memory, (Some(2), Some(1)));
    assert_eq!(
        (scene.it.wants(), scene.hold("a", 2)),
        (Want::Back(1), Hold::ForEver)
    );
    assert!(matches!(
        &scene.it.take_events()[..],
        [Event::Killed {
            restores: Some(1),
            ..
        }]
    ));
    scene.it.commits(step(Stage::Back, 3, &[content("a", 1)]));
    scene.it.acknowledged(scene.now);
    scene.answer(Err(away()));
    assert!(
        !scene.it.memory().contains("trying"),
        "{}",
        scene.it.memory()
    );
    scene.later(SECOND);
    scene.answer(Ok(stats(1, &[])));
    scene.run(step(Stage::Poke, 3, &[content("a", 1)]), Ok(stats(2, &[])));
    assert!(scene.it.memory().starts_with("ns/a 0000000000000002 "));
    // It is tried once more, late; and then never.
    let due = scene.it.deadline().unwrap() - scene.now;
    assert!(due > SECOND * 590 && due < SECOND * 1200, "{due:?}");
    scene.later(due);
    assert_eq!(scene.hold("a", 2), Hold::No);
    scene.it.commits(step(Stage::Routes, 4, &[content("a", 2)]));
    let scene = Scene::start(true, &scene.it.memory(), (Some(4), Some(3)));
    assert_eq!(
        (scene.hold("a", 2), scene.hold("a", 3)),
        (Hold::ForEver, Hold::No)
    );
    assert_eq!(
        scene.it.deadline(),
        Some(scene.now),
        "Envoy is asked, nothing else is due"
    );
}

#[test]
fn an_envoy_that_dies_twice_with_what_was_never_judged_was_killed_by_it() {
    let mut scene = Scene::settled();
    scene.run(step(Stage::Routes, 2, &[content("a", 2)]), Err(away()));
    assert_eq!(
        (scene.it.wants(), scene.hold("a", 2)),
        (Want::Nothing, Hold::No)
    );
    scene.later(AWAY);
    scene.answer(Ok(stats(1, &[])));
    scene.run(
        step(Stage::Poke, 2, &[content("a", 2), content("b", 1)]),
        Err(away()),
    );
    assert_eq!(
        (scene.it.wants(), scene.hold("a", 2)),
        (Want::Back(1), Hold::ForEver)
    );
}

#[test]
fn a_verdict_alone_holds_nothing_and_takes_nothing_back() {
    let mut scene = Scene::start(false, "", (Some(1), None));
    scene.answer(Ok(stats(1, &[])));
    scene.run(step(Stage::Poke, 1, &[content("a", 1)]), Ok(stats(2, &[])));
    scene.run(
        step(Stage::Routes, 2, &[content("a", 2)]),
        Ok(stats(3, &[("a", 1)])),
    );
    scene.it.reason(None);
    assert_eq!(
        (scene.it.wants(), scene.hold("a", 2)),
        (Want::Nothing, Hold::No)
    );
    let events = scene.it.take_events();
    assert!(
        matches!(&events[1..], [Event::Refused { restores: None, .. }]),
        "{events:?}"
    );
    assert_eq!(
        (scene.it.memory().as_str(), scene.it.deadline()),
        ("", None)
    );
}

#[test]
fn what_is_remembered_is_read_again_and_nonsense_is_not() {
    let scene = refused();
    let memory = scene.it.memory();
    let again = Scene::start(true, &format!("x\n{memory}\nns/a zz 1 0\n"), (None, None));
    assert_eq!(again.it.memory(), memory);
    assert!(matches!(again.hold("a", 2), Hold::Until(_)));
}

#[test]
fn a_commit_that_fails_leaves_what_was() {
    let mut scene = Scene::settled();
    scene.it.commits(step(Stage::Routes, 2, &[content("a", 2)]));
    scene.it.commit_failed(scene.now);
    assert!(scene.it.may_publish());
    let mut scene = refused();
    scene.later(SECOND * 40);
    scene.run(
        step(Stage::Routes, 4, &[content("a", 2)]),
        Ok(stats(5, &[("a", 2)])),
    );
    scene.it.reason(None);
    scene.it.commits(step(Stage::Back, 5, &[content("a", 1)]));
    scene.it.commit_failed(scene.now);
    assert_eq!(scene.it.wants(), Want::Back(3));
}
