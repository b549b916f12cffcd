//! The inputs that fuzzing has found, and the most telling that it has grown, are checked again.
//! `make fuzz` looks for more.

use fuzz_checks::{edits, framing, observation};
use std::fs;
use std::path::Path;

#[track_caller]
fn check_each(target: &str, check: fn(&[u8])) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/fuzz");
    let mut count = 0;
    for file in fs::read_dir(directory.join(target)).unwrap() {
        let path = file.unwrap().path();
        println!("{}", path.display());
        check(&fs::read(path).unwrap());
        count += 1;
    }
    assert!(count > 3, "{count}");
}

#[test]
fn an_answer_gives_the_same_events_however_its_bytes_are_cut() {
    check_each("framing", framing::check);
}

#[test]
fn an_object_is_published_as_it_is_or_refused_with_what_was_there_kept() {
    check_each("observation", observation::check);
}

#[test]
fn a_text_is_merged_as_the_oracle_says_or_left_alone() {
    check_each("edits", edits::check);
}
