//! The test kit: everything the tests, the demo and the figures are proven with. Shared by path, so
//! each user compiles it whole and uses a part.
#![allow(dead_code)] // The tests and the lab each use a part of it.

pub mod apiserver;
pub mod backend;
pub mod crossover;
pub mod envoy;
pub mod exchange;
pub mod load;
pub mod objects;
pub mod proxy;
pub mod replay;
pub mod worker;

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// How long any wait may last before the test fails: far above what a busy machine needs.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until `look` finds something, looking every millisecond: for what cannot wake us, such as
/// files and the state of other programs.
#[track_caller]
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited for {what}");
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
