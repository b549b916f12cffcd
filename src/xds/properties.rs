//! The configuration of the tests of properties.

use proptest::prelude::ProptestConfig;
use proptest::test_runner::RngSeed;

/// Returns a configuration for tests on this many random texts. `make test` takes the same ones each
/// time, so that a commit has one result; `make properties` takes others, and as many as it is told.
pub fn config(cases: u32) -> ProptestConfig {
    let mut config = ProptestConfig::default();
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = cases;
        config.rng_seed = RngSeed::Fixed(1);
    }
    config.failure_persistence = None;
    config
}
