//! The release binary stays within its budgets. `make bench` measures the same, and more.

use std::time::Duration;
use testkit::budgets::{self, Broken};
use testkit::candidate::{Candidate, release};
use testkit::elf::Elf;

#[test]
fn the_release_binary_is_small() {
    let size = Elf::read(&release("crossover")).size;
    assert!(size <= budgets::BINARY_MAX, "{size} bytes");
}

#[test]
fn the_release_binary_is_a_static_pie_without_symbols() {
    let elf = Elf::read(&release("crossover"));
    assert!(
        elf.position_independent && !elf.interpreter && !elf.symbols,
        "{elf:?}"
    );
}

#[test]
fn three_idle_tls_watches_take_one_thread_and_little_memory() {
    let (_bench, crossover) = budgets::three_tls_watches();
    let measured = crossover.measure();
    assert_eq!(measured.threads, 1);
    assert!(measured.rss_kib <= budgets::IDLE_GOAL, "{measured:?}");
}

#[test]
fn nothing_runs_while_nothing_changes() {
    let (_bench, crossover) = budgets::three_tls_watches();
    budgets::until_at_rest(&crossover);
    let idle = budgets::idle_for(Duration::from_secs(5), &crossover);
    // Who does not run has neither, on however busy a machine.
    assert_eq!((idle.context_switches, idle.cpu_ns), (0, 0), "{idle:?}");
}

#[test]
fn a_config_map_of_1_mib_needs_less_than_8000_kib() {
    let measured = budgets::largest_config_map(Broken::AtItsEnd);
    assert!(measured.peak_rss_kib <= 8000, "{measured:?}");
}

#[test]
fn a_config_map_of_1_mib_that_is_bad_at_its_beginning_needs_no_more() {
    let measured = budgets::largest_config_map(Broken::AtItsBeginning);
    assert!(measured.peak_rss_kib <= 8000, "{measured:?}");
}

#[test]
fn weights_merged_into_1_mib_need_less_than_9000_kib() {
    let measured = budgets::merge_into(&Candidate::ours(), budgets::LARGEST, 10).unwrap();
    assert!(measured.peak_rss_kib <= 9000, "{measured:?}");
}
