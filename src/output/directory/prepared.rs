//! The things that are made ahead for the next publish: its set's empty directory, and links after their
//! targets.

use std::path::PathBuf;

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
