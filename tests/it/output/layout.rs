//! Others harm the layout while the program runs: its next check repairs it, with one warning, and
//! meanwhile Envoy finds what was done to it, nothing, or what was published.

use rustix::process::Signal;
use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::Path;
use testkit::crossover::Crossover;
use testkit::setup::Setup;
use testkit::until;

const FILES: [&str; 2] = ["a.yaml", "b.yaml"];
const REPAIRED: &str = "output directory's layout was damaged; repaired it";
const LOST: &str = "directory watched by Envoy was removed";

/// Each part of the layout; of a set that is active, `SET` stands for the number.
const PARTS: [&str; 10] = [
    "current",
    ".live",
    ".live/a.yaml",
    ".sets",
    ".sets/active",
    ".sets/done",
    ".sets/.links",
    ".sets/SET",
    ".sets/SET/a.yaml",
    ".sets/SET.sources",
];

/// A harm, by name, which replaces a part of the layout; `other` is not ours.
type Harm = (&'static str, fn(&Path, other: &Path));

const HARMS: [Harm; 4] = [
    ("removed", |_, _| ()),
    ("replaced by a file", |part, _| {
        fs::write(part, "foreign file").unwrap();
    }),
    ("replaced by a link to a directory", |part, other| {
        symlink(other, part).unwrap();
    }),
    ("replaced by a closed directory", |part, _| {
        DirBuilder::new().mode(0o700).create(part).unwrap();
    }),
];

/// Returns what Envoy finds of each file.
fn seen(setup: &Setup) -> [Option<Vec<u8>>; 2] {
    FILES.map(|name| fs::read(setup.output().join("current").join(name)).ok())
}

/// Stops the program where it waits, so that nothing is done in the middle of its work.
fn stop_in_its_wait(process: &Crossover) {
    let file = format!("/proc/{}/syscall", process.pid());
    until("the program to wait", || {
        process.signal(Signal::STOP);
        let call = until("it to stop", || {
            let call = fs::read_to_string(&file).unwrap();
            (call != "running\n").then_some(call)
        });
        // poll(2), ppoll(2) and, on arm64, ppoll(2).
        if ["7", "271", "73"].contains(&call.split(' ').next()?) {
            return Some(());
        }
        process.signal(Signal::CONT);
        None
    });
}

#[test]
fn any_damage_to_the_layout_is_repaired_at_the_next_check() {
    let setup = Setup::new();
    setup.put("a", &FILES.map(|name| (name, "a: 1\n")));
    let other = setup.output().with_file_name("other");
    fs::create_dir(&other).unwrap();
    for name in FILES {
        fs::write(other.join(name), "foreign").unwrap();
    }
    let process = setup.start(&["-watch", "-sync-interval=100ms", "-configmap=a"]);
    process.wait_for_line("INFO  published ");
    let want = seen(&setup);
    assert!(want.iter().all(|text| text.as_deref() == Some(b"a: 1\n")));
    let (mut repairs, mut lost) = (0, 0);
    for part in PARTS {
        for (harm, make) in HARMS {
            let what = format!("{part} {harm}");
            let link = |name: &str| fs::read_link(setup.output().join(name)).ok();
            until("the set to be synced", || {
                (link(".sets/done")? == link(".sets/active")?).then_some(())
            });
            stop_in_its_wait(&process);
            let path = setup
                .output()
                .join(part.replace("SET", &setup.set().to_string()));
            fs::rename(
                &path,
                setup.output().with_file_name(format!("away-{repairs}")),
            )
            .unwrap();
            make(&path, &other);
            let harmed = seen(&setup);
            process.signal(Signal::CONT);
            repairs += 1;
            // Another directory is what Envoy reads from now on.
            lost += usize::from(part == ".live");
            until(&what, || {
                let now = seen(&setup);
                for ((now, harmed), want) in now.iter().zip(&harmed).zip(&want) {
                    let is_known = now.is_none() || now == harmed || now == want;
                    assert!(is_known, "{what}: {now:?}");
                }
                (now == want).then_some(())
            });
            process.wait_for_lines(repairs, REPAIRED);
            // It asks nothing before it has published.
            let asked = setup.server.requests().len();
            setup
                .server
                .wait_for_requests("a look", asked + 1, |_| true);
            let lines = process.lines();
            let warnings = lines.iter().filter(|line| line.contains(" WARN ")).count();
            assert_eq!(warnings, repairs + lost, "{what}: {lines:#?}");
            let told = lines.iter().filter(|line| line.contains(LOST)).count();
            assert_eq!(told, lost, "{what}: {lines:#?}");
        }
    }
    assert_eq!(fs::read(other.join("a.yaml")).unwrap(), b"foreign");
    setup.put("a", &FILES.map(|name| (name, "a: 2\n")));
    setup.until_found(&FILES.map(|name| (name, "a: 2\n")));
    let stderr = process.stop().stderr;
    let warnings = stderr.matches(" WARN ").count();
    assert_eq!((warnings, repairs, lost), (44, 40, 4), "{stderr}");
}
