#![no_main]

libfuzzer_sys::fuzz_target!(
    init: crossover_fuzz::seed("edits"),
    |bytes: &[u8]| crossover_fuzz::foreign::edits::check(bytes)
);
