//! The kit's measure of what a busy machine adds to a time proves itself before it is deducted.

use crate::kit::stopwatch::{self, Stopwatch};
use crate::kit::until;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

#[test]
fn threads_that_share_a_processor_hold_each_other_up() {
    let watch = Stopwatch::start();
    assert_eq!(
        watch.held_up(),
        Duration::ZERO,
        "nobody works for this test"
    );
    let allowed = sched_getaffinity(None).unwrap();
    let first = (0..CpuSet::MAX_CPU).find(|cpu| allowed.is_set(*cpu));
    let is_over = Arc::new(AtomicBool::new(false));
    let spins: Vec<_> = (0..2)
        .map(|_| {
            let is_over = is_over.clone();
            stopwatch::spawn(move || {
                let mut one = CpuSet::new();
                one.set(first.unwrap());
                sched_setaffinity(None, &one).unwrap();
                while !is_over.load(Relaxed) {}
            })
        })
        .collect();
    until("them to wait for 100 ms", || {
        (watch.held_up() >= Duration::from_millis(100)).then_some(())
    });
    let took = watch.took();
    assert!(took < watch.elapsed(), "{took:?}");
    is_over.store(true, Relaxed);
    for spin in spins {
        spin.join().unwrap();
    }
    assert_eq!(watch.held_up(), Duration::ZERO, "they are gone");
}
