//! The `crossover` program.
#![forbid(unsafe_code)]

fn main() {}
