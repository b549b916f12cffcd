//! Reads a program's file, with as much of ELF as that takes.

use std::fs;
use std::path::Path;

/// The header of an ELF64 file, little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elf {
    /// Bytes.
    pub size: u64,
    /// The kernel may load it anywhere.
    pub position_independent: bool,
    /// It names a dynamic linker.
    pub interpreter: bool,
    /// It has a symbol table.
    pub symbols: bool,
}

const DYN: u64 = 3;
const PT_INTERP: u64 = 3;
const SHT_SYMTAB: u64 = 2;

impl Elf {
    /// Reads a file.
    pub fn read(path: &Path) -> Elf {
        let bytes = fs::read(path)
            .unwrap_or_else(|error| panic!("{}: {error}; run: make build", path.display()));
        assert_eq!(
            bytes[..6],
            *b"\x7fELF\x02\x01",
            "{} is no ELF64",
            path.display()
        );
        let number = |at: u64, size: usize| {
            let at = at as usize;
            let bytes = bytes[at..at + size].iter().rev();
            bytes.fold(0, |number, byte| number << 8 | u64::from(*byte))
        };
        let types = |table: u64, size: u64, count: u64, at: u64| -> Vec<u64> {
            (0..count)
                .map(|i| number(table + i * size + at, 4))
                .collect()
        };
        let segments = types(number(32, 8), number(54, 2), number(56, 2), 0);
        let sections = types(number(40, 8), number(58, 2), number(60, 2), 4);
        Elf {
            size: bytes.len() as u64,
            position_independent: number(16, 2) == DYN,
            interpreter: segments.contains(&PT_INTERP),
            symbols: sections.contains(&SHT_SYMTAB),
        }
    }
}
