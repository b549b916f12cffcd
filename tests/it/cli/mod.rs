//! The command line and the environment: what is read from them, and what is printed.

pub mod command_line;
pub mod dry_run;
pub mod environment;
pub mod readme;
pub mod usage;
