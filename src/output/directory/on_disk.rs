//! Looks at the output directory as it is on disk: its directories, links and sets. Owns: what is
//! read of it, and how. Must not: know which set is active.

use std::path::Path;

use super::layout::{Layout, number, target};
use crate::error::Error;
use crate::output::disk::Fs;
use crate::output::reads::Reads;
use crate::snapshot::FileName;
use crate::sorted::SortedSet;

/// A directory's paths, the disk that they are on, and the files that must not be opened.
#[derive(Clone, Copy)]
pub struct OnDisk<'a> {
    pub disk: &'a Fs,
    pub at: &'a Layout,
    /// The watch of who reads the last step's files.
    pub reads: Option<&'a Reads>,
}

/// The contents of `.live`.
#[derive(Default)]
pub struct Links {
    /// The keys that our links stand for.
    pub ours: SortedSet<String>,
    /// True if there are files where links should be.
    pub foreign: bool,
    /// Links that are not ours and lead nowhere.
    pub dangling: Vec<String>,
}

impl OnDisk<'_> {
    /// Makes directories that are missing. Returns whether any was.
    pub fn ensure_layout(&self) -> Result<bool, Error> {
        self.disk.share(&self.at.dir)?;
        let mut made = self.disk.ensure_dir(&self.at.sets)?;
        made |= self.disk.ensure_dir(&self.at.links)?;
        // A directory `current` becomes `.live`.
        if !self.is_dir(&self.at.current)? {
            made |= self.disk.ensure_dir(&self.at.live)?;
        }
        Ok(made)
    }

    pub fn is_dir(&self, path: &Path) -> Result<bool, Error> {
        Ok(self.disk.lstat(path)?.is_some_and(|found| found.is_dir()))
    }

    /// Reads the number of the set that `link` leads to.
    pub fn numbered(&self, link: &Path) -> Result<Option<u64>, Error> {
        let found = self.disk.read_link(link)?;
        Ok(found.as_deref().and_then(Path::to_str).and_then(number))
    }

    /// Returns whether `name` in `dir` is a link into the active set.
    pub fn is_ours(&self, dir: &Path, name: &str) -> Result<bool, Error> {
        let found = self.disk.read_link(&dir.join(name))?;
        Ok(found.as_deref() == Some(Path::new(&target(name))))
    }

    /// Lists `.live`, if that is a directory: an interrupted takeover leaves a link.
    pub fn names_in_live(&self) -> Result<Vec<String>, Error> {
        if !self.is_dir(&self.at.live)? {
            return Ok(Vec::new());
        }
        Ok(self.disk.list(&self.at.live)?.unwrap_or_default())
    }

    /// Sorts the contents of `.live`.
    pub fn links(&self) -> Result<Links, Error> {
        let mut links = Links::default();
        for name in self.names_in_live()? {
            let key = FileName::new(&name).is_some();
            let path = self.at.link(&name);
            if self.is_ours(&self.at.live, &name)? {
                links.ours.insert(name);
            } else if let Some(found) = self.disk.stat_followed(&path)? {
                links.foreign |= key && found.is_file();
            } else if self.disk.read_link(&path)?.is_some() {
                links.dangling.push(name);
            }
        }
        Ok(links)
    }
}
