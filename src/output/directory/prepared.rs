//! The things that are made ahead for the next publish: its set's empty directory, and links after
//! their targets. Owns: making and taking them. Must not: change what Envoy sees.

use std::path::PathBuf;

use super::OutputDirectory;
use super::layout::{CURRENT, target};
use crate::error::Error;

/// The number of keys that get a link ahead: a first set has them all, later ones change few.
const LIKELY: usize = 4;

/// An empty set and temporary links, with nothing of the next publish in them.
#[derive(Debug, Default)]
pub struct Prepared {
    /// The number of the set.
    set: Option<u64>,
    /// The targets of the temporary links, and where those are.
    links: Vec<(String, PathBuf)>,
}

impl Prepared {
    pub fn set(&self) -> Option<u64> {
        self.set
    }

    pub fn set_made(&mut self, number: u64) {
        self.set = Some(number);
    }

    /// Takes the set. Returns whether it is of this number.
    pub fn take_set(&mut self, number: u64) -> bool {
        self.set.take() == Some(number)
    }

    /// Takes a link to `target`.
    pub fn take_link(&mut self, target: &str) -> Option<PathBuf> {
        let at = self.links.iter().position(|(to, _)| to == target)?;
        Some(self.links.swap_remove(at).1)
    }

    pub fn links_made(&mut self, links: Vec<(String, PathBuf)>) {
        self.links = links;
    }

    /// Takes all links, with their targets.
    pub fn take_links(&mut self) -> Vec<(String, PathBuf)> {
        std::mem::take(&mut self.links)
    }

    /// Returns whether this is one of the links.
    pub fn has_link(&self, link: &PathBuf) -> bool {
        self.links.iter().any(|(_, prepared)| prepared == link)
    }

    /// Forgets the links that are not there any more.
    pub fn retain_links(&mut self, is_there: impl Fn(&PathBuf) -> bool) {
        self.links.retain(|(_, link)| is_there(link));
    }

    /// Forgets the set if it is not there any more.
    pub fn retain_set(&mut self, is_there: impl Fn(&u64) -> bool) {
        self.set = self.set.filter(is_there);
    }

    #[cfg(test)]
    pub fn links(&self) -> impl Iterator<Item = &PathBuf> {
        self.links.iter().map(|(_, link)| link)
    }

    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.set.is_none() && self.links.is_empty()
    }
}

impl OutputDirectory {
    /// Makes the directory of a new set, unless it was made ahead.
    pub(super) fn make_set(&mut self, number: u64) -> Result<PathBuf, Error> {
        let dir = self.at.set(number);
        if !self.prepared.take_set(number) {
            self.disk.create_dir(&dir)?;
        }
        Ok(dir)
    }

    /// Makes a link to `target` under a name of its own, unless one was made ahead.
    pub(super) fn temporary(&mut self, target: &str) -> Result<PathBuf, Error> {
        if let Some(link) = self.prepared.take_link(target) {
            return Ok(link);
        }
        self.next_link += 1;
        let link = self.at.links.join(self.next_link.to_string());
        self.disk.symlink(target, &link)?;
        Ok(link)
    }

    /// Makes an empty set and the temporary links that the next publish will likely want.
    pub(super) fn make_ahead(&mut self) -> Result<(), Error> {
        let number = self.inventory.next_set;
        self.make_set(number)?;
        self.prepared.set_made(number);
        let last_changed = self.last_changed.iter().take(LIKELY);
        let mut targets: Vec<_> = last_changed.map(|name| target(name.as_str())).collect();
        targets.extend([number.to_string(), CURRENT.to_owned()]);
        let mut links = Vec::new();
        for (target, link) in self.prepared.take_links() {
            match targets.iter().position(|wanted| *wanted == target) {
                Some(at) => {
                    targets.swap_remove(at);
                    links.push((target, link));
                }
                None => self.disk.unlink(&link)?,
            }
        }
        for target in targets {
            let link = self.temporary(&target)?;
            links.push((target, link));
        }
        self.prepared.links_made(links);
        Ok(())
    }
}
