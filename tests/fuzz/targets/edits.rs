#![no_main]

libfuzzer_sys::fuzz_target!(
    init: crossover_fuzz::seed("edits"),
    |bytes: &[u8]| fuzz_checks::edits::check(bytes)
);
