//! SIGTERM and SIGINT as a readable pipe. Owns: signal dispositions. As PID 1 nobody else would
//! end us: the kernel ignores these signals there unless they are handled.

use std::io::{self, PipeReader};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::{flag, low_level};

use crate::error::Error;

/// The two ways a signal can end us.
#[derive(Clone, Debug)]
pub struct Signals {
    /// Readable once a signal has come; every wait includes it.
    pub pipe: Arc<PipeReader>,
    /// While true, a signal ends the program with exit code 0 from its handler: for the one call
    /// that cannot be interrupted, a name look-up.
    exit_at_once: Arc<AtomicBool>,
}

impl Signals {
    /// Takes over both signals.
    pub fn install() -> Result<Signals, Error> {
        let failed = |source| Error::System {
            what: "handle signals",
            source,
        };
        let exit_at_once = Arc::new(AtomicBool::new(false));
        let (read, write) = io::pipe().map_err(failed)?;
        for signal in [SIGTERM, SIGINT] {
            // Handlers run in this order: the shutdown must come before the pipe.
            flag::register_conditional_shutdown(signal, 0, exit_at_once.clone()).map_err(failed)?;
            let write = write.try_clone().map_err(failed)?;
            low_level::pipe::register(signal, write).map_err(failed)?;
        }
        Ok(Signals {
            pipe: Arc::new(read),
            exit_at_once,
        })
    }

    /// Runs a call that cannot be interrupted; a signal during it ends the program.
    pub fn uninterrupted<T>(&self, call: impl FnOnce() -> T) -> T {
        self.exit_at_once.store(true, Ordering::SeqCst);
        let result = call();
        self.exit_at_once.store(false, Ordering::SeqCst);
        result
    }
}
