//! The README repeats what the program says of itself.

use crate::kit::crossover::Crossover;

const README: &str = include_str!("../../../README.md");

#[test]
fn the_readme_shows_the_usage_as_the_program_prints_it() {
    let usage = Crossover::run(&["-h"]).stdout;
    let (_, shown) = README.split_once("\n$ crossover -h\n").unwrap();
    let (shown, _) = shown.split_once("```\n").unwrap();
    assert_eq!(shown, usage);
}
