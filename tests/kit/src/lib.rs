//! The test kit: everything the tests, the demo and the bench are proven with. What it cannot do,
//! it says by a panic, as a test fails by one.

pub mod apiserver;
pub mod backend;
pub mod budgets;
pub mod candidate;
pub mod clients;
pub mod clock;
pub mod crossover;
pub mod dns;
pub mod elf;
pub mod envoy;
pub mod envoy_config;
pub mod examples;
pub mod exchange;
pub mod file_watch;
pub mod helm;
pub mod kubectl;
pub mod load;
pub mod namespace;
pub mod objects;
pub mod pages;
pub mod pod;
pub mod processes;
pub mod proxy;
pub mod replay;
pub mod runtime;
pub mod setup;
pub mod stalling_proxy;
pub mod stopwatch;
pub mod testbed;
pub mod throttle;
pub mod weights;
pub mod world;

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::thread;
use std::time::{Duration, Instant};

/// The time that any wait may last before the test fails: twice the longest wait between two
/// requests of the program's own making, which is 30 s after an answer of 429, 403 or 5xx, so that
/// a test does not fail because the machine is busy.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// This is true once all waiting is to fail at once, as the lab was asked to stop.
pub static STOPPED: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// Returns how long a wait may sleep before its next check: not past its end, and never long, as
/// nothing wakes it when [`STOPPED`] is set. Returns `None` once it has lasted long enough.
pub fn nap(deadline: Instant) -> Option<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    let over = left.is_zero() || STOPPED.load(Ordering::Relaxed);
    (!over).then(|| left.min(Duration::from_millis(50)))
}

/// Returns the repository's folder.
pub fn root() -> &'static Path {
    let kit = Path::new(env!("CARGO_MANIFEST_DIR"));
    kit.ancestors().nth(2).expect("it is in the repository")
}

/// Waits until `look` finds something, looking every millisecond: for what cannot wake us, such as
/// files and the state of other programs.
#[track_caller]
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(nap(deadline).is_some(), "waited for {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Waits until a file has such content.
#[track_caller]
pub fn until_file(path: &Path, want: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    until(&format!("{} to be as wanted", path.display()), || {
        fs::read(path).ok().filter(|b| want(b))
    })
}
