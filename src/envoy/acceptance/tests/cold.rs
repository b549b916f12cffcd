//! What changes while clusters warm.

use super::*;

/// An answer of an Envoy with so many clusters that are not warm.
fn warming(attempts: u64, count: u64, refused: &[(&str, u64)]) -> Result<Stats, AdminError> {
    let mut text = format!(
        "cluster_manager.cds.update_attempt: {attempts}\nserver.state: 0\n\
         cluster_manager.warming_clusters: {count}\n\
         http.in.rds.a.update_attempt: {attempts}\nhttp.in.rds.b.update_attempt: {attempts}\n"
    );
    for (name, times) in refused {
        text += &format!("http.in.rds.{name}.update_rejected: {times}\n");
    }
    Ok(Stats::parse(text.as_bytes()))
}

/// Begins with clusters of `b` in set 2 that are not warm.
fn cold() -> Scene {
    let mut scene = Scene::settled();
    scene.run(
        step(Stage::Clusters, 2, &[content("b", 2)]),
        warming(3, 1, &[]),
    );
    assert!(scene.it.may_publish() && scene.it.awaits_clusters());
    assert_eq!((scene.it.wants(), scene.it.good()), (Want::Wait, Some(1)));
    scene
}

/// Lets out a step of `a` while clusters are not warm: it is looked at twice.
fn let_out(scene: &mut Scene, set: SetId, hash: u64, answer: Result<Stats, AdminError>) {
    scene.run(step(Stage::Clusters, set, &[content("a", hash)]), answer);
    assert!(!scene.it.may_publish(), "Envoy may not have read it");
}

#[test]
fn what_changes_while_clusters_warm_is_let_out_and_judged_with_them() {
    let mut scene = cold();
    for (set, attempts) in [(3, 4), (4, 5)] {
        scene.later(SECOND * 4);
        let_out(&mut scene, set, set, warming(attempts, 1, &[]));
        scene.answer(warming(attempts, 1, &[]));
        assert!(scene.it.may_publish() && scene.it.awaits_clusters());
    }
    assert!(!scene.it.take_warmed());
    // The time is that of the clusters.
    let began = scene.now - SECOND * 8;
    while scene.it.wants() == Want::Wait {
        let wait = scene.it.deadline().unwrap() - scene.now;
        scene.later(wait);
        scene.answer(warming(5, 1, &[]));
    }
    let took = scene.now - began;
    assert!(took >= SECOND * 15 && took < SECOND * 16, "{took:?}");
    assert_eq!(scene.it.take_events(), [Event::StillWarming(4)]);
    assert!(scene.it.take_warmed() && !scene.it.awaits_clusters());
    // What comes back is what stood before all of them.
    assert_eq!(scene.it.keeps(), [Some(1), Some(1)]);
    let held = [("a", 4), ("b", 2)].map(|(name, hash)| content(name, hash));
    let memory = scene.it.memory();
    assert!(held.iter().all(|it| memory.contains(&it.to_string())));
}

#[test]
fn what_is_refused_while_clusters_warm_is_taken_back_with_them() {
    let mut scene = cold();
    let refused = [("a", 1)];
    scene.run(
        step(Stage::Clusters, 3, &[content("a", 3)]),
        warming(4, 1, &refused),
    );
    assert!(matches!(scene.it.wants(), Want::Reason(0, _)));
    scene.it.reason(None);
    let [Event::Refused { what, restores, .. }] = &scene.it.take_events()[..] else {
        panic!("nothing else is told");
    };
    assert_eq!((what.len(), what[0].files[0].as_str()), (1, "a.yaml"));
    assert_eq!((*restores, scene.it.wants()), (Some(1), Want::Back(1)));
    assert_ne!(scene.hold("a", 3), Hold::No);
    assert_eq!(scene.hold("b", 2), Hold::No);
    // A file of the step before is to blame as well.
    let mut scene = cold();
    let_out(&mut scene, 3, 3, warming(4, 1, &[]));
    scene.answer(warming(4, 1, &[("b", 1)]));
    scene.it.reason(None);
    assert_ne!(scene.hold("b", 2), Hold::No);
    assert_eq!(scene.hold("a", 3), Hold::No);
}

#[test]
fn a_rollback_while_clusters_warm_is_good_at_once_and_ends_the_wait() {
    let mut scene = cold();
    let mut back = step(Stage::Routes, 3, &[content("b", 1)]);
    back.changed[0].is_new = false;
    scene.run(back, warming(4, 1, &[]));
    scene.answer(warming(4, 0, &[]));
    assert_eq!(
        (scene.it.wants(), scene.it.good()),
        (Want::Nothing, Some(3))
    );
    assert_eq!(scene.it.take_events(), [Event::Accepted(3)]);
    assert!(!scene.it.awaits_clusters() && scene.it.memory().is_empty());
}

#[test]
fn clusters_that_come_while_others_warm_have_two_seconds_of_their_own() {
    let mut scene = cold();
    let clusters = |set| {
        let mut step = step(Stage::Clusters, set, &[content("a", set)]);
        step.changed[0].holdings.now = vec![Subscription::Clusters];
        step
    };
    let (began, mut attempts) = (scene.now, 3);
    let run = |scene: &mut Scene, set: SetId, attempts: u64| {
        scene.run(clusters(set), warming(attempts, 2, &[]));
        scene.answer(warming(attempts, 2, &[]));
    };
    scene.later(Duration::from_millis(14_500));
    run(&mut scene, 3, 4);
    scene.later(Duration::from_millis(1_500));
    scene.answer(warming(4, 2, &[]));
    assert!(
        scene.it.awaits_clusters(),
        "the last ones have come 1.5 s ago"
    );
    // Those that come again and again do not hold up routes for good.
    for set in 4.. {
        if !scene.it.awaits_clusters() {
            break;
        }
        attempts += 2;
        scene.later(SECOND);
        run(&mut scene, set, attempts);
    }
    let took = scene.now - began;
    assert!(took >= SECOND * 30 && took < SECOND * 32, "{took:?}");
}

#[test]
fn a_commit_that_fails_while_clusters_warm_leaves_them_to_be_judged() {
    let mut scene = cold();
    scene
        .it
        .commits(step(Stage::Clusters, 3, &[content("a", 3)]));
    scene.it.commit_failed(scene.now);
    assert!(!scene.it.may_publish());
    scene.answer(warming(3, 0, &[]));
    assert!(scene.it.may_publish() && scene.it.take_warmed());
}

#[test]
fn an_envoy_that_is_warm_is_asked_about_what_comes_while_another_is_not() {
    let now = Instant::now();
    let mut it = Acceptance::new(true, 2, ("", Some(1), None), Rng::with_seed(1), now);
    let all = |it: &mut Acceptance, step: Option<Step>, answers: [Stats; 2]| {
        if let Some(step) = step {
            it.commits(step);
            it.acknowledged(now);
        }
        let asks = it.asks(now);
        for place in asks {
            it.answer(place, Ok(answers[place].clone()), now);
        }
    };
    all(&mut it, None, [stats(1, &[]), stats(1, &[])]);
    let poke = step(Stage::Poke, 1, &[content("a", 1)]);
    all(&mut it, Some(poke), [stats(2, &[]), stats(2, &[])]);
    let clusters = step(Stage::Clusters, 2, &[content("b", 2)]);
    let is_cold = warming(3, 1, &[]).unwrap();
    all(&mut it, Some(clusters), [stats(3, &[]), is_cold]);
    assert!(it.may_publish() && it.awaits_clusters());
    it.take_events();
    // The first one has told already, and refuses what comes now.
    let next = step(Stage::Clusters, 3, &[content("a", 3)]);
    let is_cold = warming(4, 1, &[]).unwrap();
    all(&mut it, Some(next), [stats(4, &[("a", 1)]), is_cold]);
    assert!(matches!(it.wants(), Want::Reason(0, _)), "{:?}", it.wants());
    it.reason(None);
    let [Event::Refused { what, .. }] = &it.take_events()[..] else {
        panic!("that no one reads the file of before is not true");
    };
    assert_eq!(what[0].files[0].as_str(), "a.yaml");
}

#[test]
fn an_envoy_that_dies_or_restarts_while_clusters_warm_is_not_waited_for() {
    let mut scene = cold();
    scene.it.went(0, scene.now);
    assert!(!scene.it.may_publish() && !scene.it.awaits_clusters());
    scene.answer(Err(away()));
    assert!(scene.it.may_publish() && scene.it.is_down());
    let mut scene = cold();
    scene.later(SECOND);
    scene.answer(Ok(stats(1, &[])));
    assert_eq!(scene.it.wants(), Want::Poke);
    let mut poke = step(Stage::Poke, 2, &[content("a", 1), content("b", 2)]);
    poke.is_half = true;
    scene.run(poke, Ok(stats(2, &[])));
    assert!(scene.it.take_warmed() && scene.it.may_publish());
}
