//! The figures that the project is held to, each measured in one place: `make figures` prints them,
//! the tests hold them at their limits. All of the release binary.

use super::apiserver::{Options, Server};
use super::crossover::{Crossover, Measured, command_of, until_asleep};
use super::objects::{config_map, traffic_split};
use super::xds;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;
use tempfile::TempDir;

/// What Kubernetes allows in one ConfigMap.
pub const LARGEST: usize = 1 << 20;

/// The release binary.
pub fn release() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = root.join("target/x86_64-unknown-linux-musl/release/crossover");
    assert!(path.exists(), "there is no release binary; run: make build");
    path
}

/// An API server and what a crossover on it needs.
pub struct Bench {
    /// https, or http.
    pub server: Server,
    dir: TempDir,
}

impl Bench {
    /// Starts a server.
    pub fn start(https: bool) -> Bench {
        let dir = TempDir::new().expect("a directory can be made");
        std::fs::write(dir.path().join("token"), "none").expect("the directory is ours");
        let options = match https {
            true => Options::tls(dir.path()),
            false => Options::default(),
        };
        let server = Server::start(options);
        Bench { server, dir }
    }

    /// The output directory.
    pub fn output(&self) -> PathBuf {
        self.dir.path().join("output")
    }

    /// The release binary, to follow or fetch these ConfigMaps.
    pub fn command(&self, mode: &str, names: &[&str]) -> std::process::Command {
        let mut command = command_of(&release(), &[]);
        command.args([
            "-apiserver",
            &self.server.url(),
            "-namespace",
            "default",
            mode,
        ]);
        command.args(["-sync-interval", "1h", "-output-dir"]);
        command.arg(self.output());
        if self.server.url().starts_with("https:") {
            command.arg("-ca-file").arg(self.server.ca_file());
            command
                .arg("-token-file")
                .arg(self.dir.path().join("token"));
        }
        for name in names {
            command.args(["-configmap", name]);
        }
        command
    }

    /// Starts it, and waits until it follows all of them and rests.
    pub fn follow(&self, names: &[&str]) -> Crossover {
        let crossover = Crossover::spawn(self.command("-watch", names));
        self.server.wait_for_watches(names.len());
        crossover.wait_for_line("published");
        until_asleep(crossover.pid());
        crossover
    }
}

/// Three small ConfigMaps, each followed over TLS: what is measured is the watches.
pub fn three_tls_watches() -> (Bench, Crossover) {
    let bench = Bench::start(true);
    let names = ["cds", "lds", "rds"];
    for (name, seed) in names.iter().zip(0..) {
        let text = xds::large_routes(1 << 10, seed);
        let key = format!("{name}.yaml");
        bench.server.create(config_map(name, &[(&key, &text)]));
    }
    let crossover = bench.follow(&names);
    (bench, crossover)
}

/// What a process took of the machine while `time` passed and nobody asked anything of it. The time
/// is the measure here; nothing is waited for.
pub fn idle_for(time: Duration, crossover: &Crossover) -> Measured {
    let before = crossover.measure();
    thread::sleep(time);
    let after = crossover.measure();
    Measured {
        context_switches: after.context_switches - before.context_switches,
        cpu_ns: after.cpu_ns - before.cpu_ns,
        ..after
    }
}

/// Where a text of 1 MiB is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// In its first line.
    AtItsBeginning,
    /// In its last.
    AtItsEnd,
}

/// Peak memory over a ConfigMap of 1 MiB, read, changed ten times, once of them bad, over TLS; and
/// memory at the end.
pub fn largest_config_map(broken: Broken) -> Measured {
    let bench = Bench::start(true);
    let apply = |text: &str| {
        bench
            .server
            .apply(config_map("large", &[("rds.yaml", text)]))
    };
    apply(&xds::large_routes(LARGEST, 0));
    let crossover = bench.follow(&["large"]);
    for change in 1..=10 {
        if change == 5 {
            apply(&bad(broken));
            crossover.wait_for_line("refused a ConfigMap");
        } else {
            let version = apply(&xds::large_routes(LARGEST, change));
            crossover.wait_for_line(&format!("resource_version={version} "));
        }
    }
    until_asleep(crossover.pid());
    crossover.measure()
}

/// The split of one of the services in [`xds::large_routes`].
pub fn split_of_a_service(weight: u64) -> Value {
    let backends = [
        ("service-0-primary", weight),
        ("service-0-canary", 1000 - weight),
    ];
    traffic_split("service-0", "service-0", &backends)
}

/// Peak memory over ten merges of a TrafficSplit's weights into a ConfigMap of 1 MiB whose mirror
/// is written, over TLS; and memory at the end.
pub fn largest_merge() -> Measured {
    let bench = Bench::start(true);
    // The mirror, with longer weights, is not larger than what Kubernetes takes.
    let text = xds::large_routes(LARGEST - 64, 0);
    bench
        .server
        .create(config_map("large", &[("rds.yaml", &text)]));
    bench.server.create(split_of_a_service(0));
    let mut command = bench.command("-watch", &["large"]);
    command.args(["-trafficsplit", "service-0"]);
    let crossover = Crossover::spawn(command);
    bench.server.wait_for_watches(2);
    for change in 1..=10 {
        bench.server.apply(split_of_a_service(change));
        crossover.wait_for_line(&format!("service-0-primary {}->{change} ", change - 1));
    }
    crossover.wait_for_line("mirrored");
    until_asleep(crossover.pid());
    crossover.measure()
}

fn bad(broken: Broken) -> String {
    let text = xds::large_routes(LARGEST - 8, 5);
    match broken {
        Broken::AtItsBeginning => format!("a: [b\n{text}"),
        Broken::AtItsEnd => format!("{text}\na: [b"),
    }
}
