//! The least that a program takes: it says hello, and ends with its stdin.

use std::io::{self, Write};

fn main() -> io::Result<()> {
    let mut stdout = io::stdout();
    stdout.write_all(b"hello\n")?;
    stdout.flush()?;
    io::copy(&mut io::stdin(), &mut io::sink()).map(drop)
}
