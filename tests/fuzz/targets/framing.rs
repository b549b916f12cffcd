#![no_main]

libfuzzer_sys::fuzz_target!(
    init: crossover_fuzz::seed("framing"),
    |bytes: &[u8]| crossover_fuzz::foreign::framing::check(bytes)
);
