//! The time that something took, and the machine's part of it: the time in which threads that
//! had work waited for a processor, as the kernel counts it. A test's limits are the program's own
//! times; what a busy machine adds to them is measured here, and on an idle one that is nothing.

use super::processes::{children, threads};
use rustix::thread::gettid;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// The threads and programs that work for a test.
#[derive(Default)]
struct Workers {
    /// Threads of the kit.
    threads: Vec<u32>,
    /// Programs that the kit has started.
    programs: Vec<u32>,
}

thread_local! {
    /// The workers of the test that runs on this thread, or for which this thread works.
    static WORKERS: RefCell<Arc<Mutex<Workers>>> = RefCell::default();
}

/// Starts a thread that works for the test for which the calling one does.
pub fn spawn<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    let workers = WORKERS.with_borrow(Arc::clone);
    thread::spawn(move || {
        lock(&workers).threads.push(this_thread());
        WORKERS.set(workers);
        work()
    })
}

/// Counts a program, and what it starts, among those that work for the test.
pub fn count_program(pid: u32) {
    WORKERS.with_borrow(|workers| lock(workers).programs.push(pid));
}

fn this_thread() -> u32 {
    gettid().as_raw_nonzero().get().unsigned_abs()
}

fn lock(workers: &Mutex<Workers>) -> MutexGuard<'_, Workers> {
    workers.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A stopwatch runs from its start. The test's programs and servers may be started before or after.
pub struct Stopwatch {
    began: Instant,
    before: BTreeMap<u32, Duration>,
    own_before: Duration,
}

impl Stopwatch {
    /// Starts one.
    pub fn start() -> Stopwatch {
        Stopwatch {
            before: waits(),
            own_before: waited(this_thread()),
            began: Instant::now(),
        }
    }

    /// Returns the time that has passed.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Returns how long somebody who works for this test waited for a processor. The test itself is
    /// left out, as it may look again and again.
    pub fn held_up(&self) -> Duration {
        let now = waits().into_iter();
        let before = |thread| self.before.get(&thread).copied().unwrap_or_default();
        now.map(|(thread, waited)| waited.saturating_sub(before(thread)))
            .sum()
    }

    /// Returns the time that has passed, without that.
    pub fn took(&self) -> Duration {
        self.elapsed().saturating_sub(self.held_up())
    }

    /// Returns the same if all that the test has done since the start is to wait once: its own wait
    /// for a processor is left out too.
    pub fn took_at_once(&self) -> Duration {
        let own = waited(this_thread()).saturating_sub(self.own_before);
        self.took().saturating_sub(own)
    }
}

/// Returns how long each thread has waited for a processor in its life.
fn waits() -> BTreeMap<u32, Duration> {
    let workers = WORKERS.with_borrow(Arc::clone);
    let workers = lock(&workers);
    let programs = workers.programs.iter();
    let processes = programs.flat_map(|pid| [vec![*pid], children(*pid)].concat());
    let all = processes.flat_map(threads).chain(workers.threads.clone());
    all.map(|thread| (thread, waited(thread))).collect()
}

/// Returns how long a thread has waited; zero if it has ended.
fn waited(thread: u32) -> Duration {
    let schedule = fs::read_to_string(format!("/proc/{thread}/schedstat")).unwrap_or_default();
    let ns = schedule.split(' ').nth(1);
    Duration::from_nanos(ns.and_then(|ns| ns.parse().ok()).unwrap_or_default())
}
