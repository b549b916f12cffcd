//! Compares, reads, hashes and copies whole files, a piece at a time.

use std::fs::File;
use std::hash::Hasher;
use std::path::Path;

use siphasher::sip::SipHasher13;

use super::Fs;
use crate::error::Error;

/// The size of the pieces, which are on the stack.
const CHUNK: usize = 16 * 1024;

/// Hashes a whole content. The hash shows accidents and edits, not an attack: whoever can write the
/// file can write its hash too.
pub fn hash_of(bytes: &[u8]) -> u64 {
    let mut hasher = SipHasher13::new();
    hasher.write(bytes);
    hasher.finish()
}

impl Fs {
    /// Returns whether the file at `path` is exactly `bytes`. One that cannot be read is not:
    /// written anew, it can be.
    pub fn same(&self, path: &Path, bytes: &[u8]) -> bool {
        let Ok(file) = self.open(path) else {
            return false;
        };
        let mut buffer = [0; CHUNK];
        let mut rest = bytes;
        loop {
            // One byte more than is left, so that a longer file shows and a read at the end of an
            // equal one is saved.
            let wanted = CHUNK.min(rest.len() + 1);
            let Ok(got) = self.read(&file, path, &mut buffer[..wanted]) else {
                return false;
            };
            match rest.split_at_checked(got) {
                Some((head, tail)) if got > 0 && head == &buffer[..got] => rest = tail,
                _ => return got == 0 && rest.is_empty(),
            }
            if rest.is_empty() && got < wanted {
                return true;
            }
        }
    }

    /// Fills `into`. Returns false if the file is shorter or longer.
    pub fn read_whole(&self, path: &Path, into: &mut [u8]) -> Result<bool, Error> {
        let file = self.open(path)?;
        let mut filled = 0;
        while filled < into.len() {
            match self.read(&file, path, &mut into[filled..])? {
                0 => return Ok(false),
                got => filled += got,
            }
        }
        Ok(self.read(&file, path, &mut [0])? == 0)
    }

    /// Returns the hash of the file at `path`; `None` if it cannot be read.
    pub fn hash(&self, path: &Path) -> Option<u64> {
        let file = self.open(path).ok()?;
        let mut hasher = SipHasher13::new();
        let mut buffer = [0; CHUNK];
        loop {
            match self.read(&file, path, &mut buffer).ok()? {
                0 => return Some(hasher.finish()),
                got => hasher.write(&buffer[..got]),
            }
        }
    }

    /// Makes a file with the bytes of an open one. Returns its length and its hash, too.
    pub fn copy(&self, from: &File, source: &Path, to: &Path) -> Result<(File, u64, u64), Error> {
        let (file, _) = self.create(to)?;
        let mut hasher = SipHasher13::new();
        let mut buffer = [0; CHUNK];
        let mut size = 0;
        loop {
            match self.read(from, source, &mut buffer)? {
                0 => return Ok((file, size, hasher.finish())),
                got => {
                    self.write(&file, to, &buffer[..got])?;
                    hasher.write(&buffer[..got]);
                    size += got as u64;
                }
            }
        }
    }
}
