#![no_main]

libfuzzer_sys::fuzz_target!(
    init: crossover_fuzz::seed("observation"),
    |bytes: &[u8]| fuzz_checks::observation::check(bytes)
);
