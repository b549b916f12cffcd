//! The output directory: its layout, its files, and file systems that fail.

pub mod crash;
pub mod disk;
pub mod keys;
pub mod layout;
pub mod lock;
pub mod storage;
