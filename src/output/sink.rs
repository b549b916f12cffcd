//! The place that snapshots go to: the output directory, once it is open, or stdout for a dry run.
//! Owns: how each takes failures and syncs.

use std::path::PathBuf;

use super::directory::{Compared, Keep, OutputDirectory, Published};
use super::dry_run::DryRun;
use crate::error::{Error, Kind};

pub enum Sink {
    DryRun(DryRun),
    Directory(Directory),
}

/// An output directory, open or not.
pub struct Directory {
    pub path: PathBuf,
    pub open: Option<Box<OutputDirectory>>,
    pub delivery: Delivery,
    pub keep: Keep,
}

/// The way in which a directory is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// For as long as the program runs: a set is synced some time after it is visible, and what
    /// fails is tried again.
    Continuous,
    /// For a program that ends with one publish: a set is synced with its write, and a failure is
    /// final, unless another crossover holds the directory.
    Once,
}

impl Sink {
    /// Returns the directory, if that is open.
    pub fn opened(&self) -> Option<&OutputDirectory> {
        match self {
            Sink::DryRun(_) => None,
            Sink::Directory(directory) => directory.open.as_deref(),
        }
    }

    pub fn opened_mut(&mut self) -> Option<&mut OutputDirectory> {
        match self {
            Sink::DryRun(_) => None,
            Sink::Directory(directory) => directory.open.as_deref_mut(),
        }
    }

    /// Returns whether snapshots can be written, as far as is known.
    pub fn is_open(&self) -> bool {
        match self {
            Sink::DryRun(_) => true,
            Sink::Directory(directory) => directory.open.is_some(),
        }
    }

    /// Returns whether no attempt follows this failure.
    pub fn is_final(&self, error: &Error) -> bool {
        match self {
            Sink::DryRun(_) => true,
            Sink::Directory(directory) => {
                directory.delivery == Delivery::Once && error.kind() != Kind::Held
            }
        }
    }
}

impl Delivery {
    /// Writes the set of a step.
    pub fn write(
        self,
        directory: &mut OutputDirectory,
        compared: Compared,
    ) -> Result<Option<Published>, Error> {
        let published = directory.write(compared)?;
        match self {
            Delivery::Continuous => {}
            Delivery::Once => {
                directory.make_durable()?;
            }
        }
        Ok(published)
    }
}
