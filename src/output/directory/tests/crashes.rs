//! Every call cut once: killed there, or failed there.

use super::*;

/// A state of the disk, what is then published, and what Envoy may find meanwhile.
struct Scenario {
    name: &'static str,
    prepare: fn(&Path),
    /// Published before, if the same life is to prepare and publish what is wanted.
    warm: &'static [&'static str],
    want: &'static str,
}

const SCENARIOS: [Scenario; 10] = [
    Scenario {
        name: "first",
        prepare: |_| (),
        warm: &[],
        want: NEW,
    },
    Scenario {
        name: "change",
        prepare: |dir| drop(publish(&mut open(dir), OLD)),
        warm: &[],
        want: NEW,
    },
    Scenario {
        name: "warm",
        prepare: |_| (),
        warm: &["a=1", "a=2", "b=3", "c=4", OLD],
        want: NEW,
    },
    Scenario {
        name: "moved",
        prepare: |_| (),
        warm: &["a=1@x"],
        want: "a=1@y",
    },
    Scenario {
        name: "recovery of a set never done",
        prepare: |dir| {
            publish(&mut open(dir), "a=0 stray=1");
            let mut publisher = open(dir);
            publisher.disk.fault.arm(How::Each("sync", EIO));
            publisher.publish_durably(&set(OLD)).unwrap_err();
        },
        warm: &[],
        want: NEW,
    },
    Scenario {
        name: "recovery of a set never committed",
        prepare: |dir| {
            publish(&mut open(dir), OLD);
            let mut publisher = open(dir);
            publisher.disk.fault.arm(How::KillAt("replace"));
            publisher.publish_durably(&set("a=3 z=3")).unwrap_err();
            assert!(dir.join(".live/z").is_symlink() && !dir.join(".live/z").exists());
        },
        warm: &[],
        want: NEW,
    },
    Scenario {
        name: "migration",
        prepare: go,
        warm: &[],
        want: NEW,
    },
    Scenario {
        name: "migration with a directory .live",
        prepare: |dir| {
            go(dir);
            fs::create_dir(dir.join(".live")).unwrap();
            symlink("../.sets/active/x", dir.join(".live/x")).unwrap();
        },
        warm: &[],
        want: NEW,
    },
    Scenario {
        name: "files among the links",
        prepare: |dir| {
            publish(&mut open(dir), OLD);
            for name in ["a", "rds.yaml"] {
                fs::remove_file(dir.join(".live").join(name)).unwrap();
                fs::write(dir.join(".live").join(name), "foreign").unwrap();
            }
        },
        warm: &[],
        want: NEW,
    },
    Scenario {
        name: "links gone",
        prepare: |dir| {
            publish(&mut open(dir), OLD);
            fs::remove_file(dir.join("current")).unwrap();
            fs::remove_file(dir.join(".sets/done")).unwrap();
        },
        warm: &[],
        want: NEW,
    },
];

/// One life that is cut; gives the publisher where it got that far.
fn live(
    scenario: &Scenario,
    dir: &Path,
    how: How,
) -> (
    Fault,
    Seen,
    Option<OutputDirectory>,
    Result<Option<Published>, Error>,
) {
    (scenario.prepare)(dir);
    let fault = Fault::default();
    if scenario.warm.is_empty() {
        let old = seen(dir);
        match free(|| open_to(&fault, how, dir)) {
            Ok(mut publisher) => {
                let result = publisher.publish_durably(&set(scenario.want));
                (fault, old, Some(publisher), result)
            }
            Err(error) => (fault, old, None, Err(error)),
        }
    } else {
        let mut publisher = free(|| open_to(&fault, How::Never, dir)).unwrap();
        for text in scenario.warm {
            publish(&mut publisher, text);
        }
        let old = seen(dir);
        fault.arm(how);
        publisher.prepare();
        let result = publisher.publish_durably(&set(scenario.want));
        (fault, old, Some(publisher), result)
    }
}

#[test]
fn a_kill_at_any_call_leaves_one_whole_set_and_the_next_run_converges() {
    let mut points = 0;
    for scenario in &SCENARIOS {
        let want = set(scenario.want);
        for n in 1.. {
            let at = format!("{} call {n}", scenario.name);
            let temp = tempdir();
            let (fault, old, publisher, result) = live(scenario, temp.path(), How::Kill(n));
            drop(publisher);
            if !fault.hit() {
                result.unwrap();
                drop(open(temp.path()));
                tidy(temp.path(), &want);
                break;
            }
            points += 1;
            whole(temp.path(), &old, &want, &at);
            let killed = seen(temp.path());
            let mut next = open(temp.path());
            assert_eq!(
                seen(temp.path()),
                killed,
                "{at}: open touched what Envoy sees"
            );
            assert_eq!(pokes(&next), [""; 0], "{at}");
            // The active, the last done one, and older ones.
            clean(temp.path(), 2 + OLDER);
            publish(&mut next, scenario.want);
            tidy(temp.path(), &want);
            assert!(publish(&mut next, scenario.want).is_none(), "{at}");
            assert!(!next.check().unwrap(), "{at}");
        }
    }
    println!("{points} points");
    assert!(points >= 200, "{points}");
}

#[test]
fn a_kill_at_any_call_of_the_recovery_from_any_kill_converges_too() {
    let mut points = 0;
    for scenario in &SCENARIOS {
        let want = set(scenario.want);
        // Every fifth kill, each with every seventh cut of the life after it.
        for n in (1..).step_by(5) {
            let mut done = false;
            for m in (1 + n % 7..).step_by(7) {
                let at = format!("{} call {n}, then {m}", scenario.name);
                let temp = tempdir();
                let (fault, old, publisher, _) = live(scenario, temp.path(), How::Kill(n));
                drop(publisher);
                if !fault.hit() {
                    done = true;
                    break;
                }
                let fault = Fault::default();
                let second = free(|| open_to(&fault, How::Kill(m), temp.path()));
                if let Ok(mut second) = second {
                    let _ = second.publish_durably(&want);
                }
                whole(temp.path(), &old, &want, &at);
                publish(&mut open(temp.path()), scenario.want);
                tidy(temp.path(), &want);
                if !fault.hit() {
                    break;
                }
                points += 1;
            }
            if done {
                break;
            }
        }
    }
    println!("{points} points");
    assert!(points >= 200, "{points}");
}

#[test]
fn an_error_at_any_call_leaves_one_whole_set_and_a_retry_converges() {
    let mut points = 0;
    for errno in [EIO, ENOSPC] {
        for scenario in &SCENARIOS {
            let want = set(scenario.want);
            for n in 1.. {
                let at = format!("{} call {n} errno {errno}", scenario.name);
                let temp = tempdir();
                let (fault, old, publisher, result) =
                    live(scenario, temp.path(), How::Once(n, errno));
                if !fault.hit() {
                    result.unwrap();
                    break;
                }
                points += 1;
                whole(temp.path(), &old, &want, &at);
                if result.is_ok() {
                    assert_eq!(seen(temp.path()), contents(&want), "{at}");
                }
                if let Some(publisher) = &publisher {
                    assert_eq!(
                        names(&publisher.at.links),
                        prepared_links(publisher),
                        "{at}"
                    );
                    if result.is_err() && publisher.prepared.is_empty() {
                        clean(temp.path(), 3 + OLDER);
                    }
                }
                fault.arm(How::Never);
                let mut publisher = publisher.unwrap_or_else(|| open(temp.path()));
                publish(&mut publisher, scenario.want);
                assert_eq!(
                    names(&publisher.at.links),
                    prepared_links(&publisher),
                    "{at}"
                );
                if !scenario.warm.is_empty() {
                    drop(publisher);
                    publisher = open(temp.path());
                }
                tidy(temp.path(), &want);
                assert!(publish(&mut publisher, scenario.want).is_none(), "{at}");
                assert!(!publisher.check().unwrap(), "{at}");
            }
        }
    }
    println!("{points} points");
    assert!(points >= 400, "{points}");
}
