#![no_main]

libfuzzer_sys::fuzz_target!(
    init: crossover_fuzz::seed("framing"),
    |bytes: &[u8]| fuzz_checks::framing::check(bytes)
);
