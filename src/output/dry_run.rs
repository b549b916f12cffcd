//! `-dry-run`: manifests on stdout instead of files on disk.

use std::io::{self, Write};

use super::manifest;
use crate::error::Error;
use crate::snapshot::Snapshot;

/// Prints each snapshot that differs from the one before.
pub struct DryRun {
    mirrored: bool,
    printed: String,
}

impl DryRun {
    /// Prints the ConfigMaps themselves, or if `mirrored` the mirrors that they would get.
    pub fn new(mirrored: bool) -> DryRun {
        let printed = String::new();
        DryRun { mirrored, printed }
    }

    /// Prints `set`, unless that was done already: not every change of an object shows in its
    /// manifest.
    pub fn print(&mut self, set: &Snapshot) -> Result<(), Error> {
        let text = manifest::manifests(set, self.mirrored);
        if text == self.printed {
            return Ok(());
        }
        let failed = |source| Error::System {
            what: "write to stdout",
            source,
        };
        let mut stdout = io::stdout().lock();
        stdout.write_all(text.as_bytes()).map_err(failed)?;
        stdout.flush().map_err(failed)?;
        self.printed = text;
        Ok(())
    }
}
