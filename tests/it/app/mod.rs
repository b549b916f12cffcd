//! The program as a whole: what it says, how long it tries, what it keeps, and what it takes.

pub mod budgets;
pub mod clock;
pub mod examples;
pub mod fuzz_checks;
pub mod keep;
pub mod logging;
pub mod once;
pub mod onetime_limits;
pub mod scale;
