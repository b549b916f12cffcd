//! A process that gets less of a processor than it wants: stopped and continued, again and again,
//! as a CPU limit does it.

use rustix::process::{Pid, Signal, kill_process};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// A process of ours that is held until this is dropped.
pub struct Throttle {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Throttle {
    /// Stops a process for `off`, then lets it run for `on`, and so on. It must outlive this.
    pub fn start(pid: u32, on: Duration, off: Duration) -> Throttle {
        let (stop, stopped) = channel();
        let pid = Pid::from_raw(pid as i32).expect("it is no 0");
        let thread = thread::spawn(move || {
            let lasts = |time| stopped.recv_timeout(time) == Err(RecvTimeoutError::Timeout);
            let mut goes_on = true;
            while goes_on {
                let _ = kill_process(pid, Signal::STOP);
                goes_on = lasts(off);
                let _ = kill_process(pid, Signal::CONT);
                goes_on = goes_on && lasts(on);
            }
        });
        Throttle {
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Gives a process 10 ms in each 100: a tenth of a processor.
    pub fn to_a_tenth(pid: u32) -> Throttle {
        Throttle::start(pid, Duration::from_millis(10), Duration::from_millis(90))
    }

    /// Gives a process 50 ms in each second, so that others wait long for it.
    pub fn to_a_crawl(pid: u32) -> Throttle {
        Throttle::start(pid, Duration::from_millis(50), Duration::from_millis(950))
    }
}

impl Drop for Throttle {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
