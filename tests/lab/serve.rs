//! `lab serve`: the in-memory API server in the foreground.

use pico_args::Arguments;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::low_level::pipe;
use std::error::Error;
use std::io::Read;
use std::path::PathBuf;
use testkit::apiserver::{Options, Server, Tls};

/// Runs until SIGINT or SIGTERM.
pub fn run(mut arguments: Arguments) -> Result<(), Box<dyn Error>> {
    let port = arguments.opt_value_from_str("--port")?.unwrap_or(0);
    let dir: Option<PathBuf> = arguments.opt_value_from_str("--tls-dir")?;
    let rest = arguments.finish();
    if !rest.is_empty() {
        return Err(format!("unexpected {rest:?}").into());
    }
    let (mut stopped, stop) = std::io::pipe()?;
    pipe::register(SIGINT, stop.try_clone()?)?;
    pipe::register(SIGTERM, stop)?;
    let tls = dir.map(|dir| Tls {
        dir,
        only_tls12: false,
    });
    let server = Server::start(Options {
        port,
        tls,
        ..Options::default()
    });
    println!("{}", server.url());
    stopped.read_exact(&mut [0])?;
    Ok(())
}
