//! A Docker engine by its command line: networks, images, containers. Nothing of a test is left in
//! it when what is here is dropped, but for the images.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::{self, Command, Output};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use testkit::crossover::{Crossover, Finished};
use testkit::until;

/// Asks the engine; what it answers to is the same for every test.
static ENGINE: LazyLock<()> = LazyLock::new(|| {
    let limits = ["info", "--format", "{{.MemoryLimit}} {{.PidsLimit}}"];
    let answer = Command::new("docker").args(limits).output();
    let answer = answer.expect("docker is missing: apt-get install docker.io");
    let said = String::from_utf8_lossy(&answer.stderr);
    let help = "start one (dockerd, as root), then: make test-container";
    assert!(
        answer.status.success(),
        "no Docker engine runs: {said}\n{help}"
    );
    let limits = String::from_utf8_lossy(&answer.stdout);
    assert_eq!(
        limits.trim(),
        "true true",
        "the engine cannot limit memory and processes"
    );
});

/// Runs a command of the engine's client to its end.
pub fn try_docker<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Output {
    LazyLock::force(&ENGINE);
    let output = Command::new("docker").args(arguments).output();
    output.expect("docker can be run")
}

/// The same where it must succeed; returns what it prints.
#[track_caller]
pub fn docker(arguments: &[&str]) -> String {
    let output = try_docker(arguments.iter().copied());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "docker {arguments:?}: {said}");
    String::from_utf8_lossy(&output.stdout).trim().to_string()
}

/// Builds an image of a Dockerfile and the files beside it.
#[track_caller]
pub fn build(tag: &str, dockerfile: &Path, arguments: &[&str], context: &Path) {
    let (file, context) = (dockerfile.to_str().unwrap(), context.to_str().unwrap());
    let mut all = vec!["build", "--quiet", "--file", file, "--tag", tag];
    all.extend(arguments.iter().flat_map(|a| ["--build-arg", a]));
    all.push(context);
    docker(&all);
}

/// No other test has this name, nor any other run.
fn unique(what: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("crossover-test-{}-{count}-{what}", process::id())
}

/// A network of containers that reaches this machine and nothing beyond.
pub struct Network {
    name: String,
    gateway: Ipv4Addr,
}

impl Network {
    /// Makes one, with addresses that nobody has.
    #[track_caller]
    pub fn new() -> Network {
        let name = unique("network");
        docker(&["network", "create", "--internal", &name]);
        let format = "{{(index .IPAM.Config 0).Gateway}}";
        let gateway = docker(&["network", "inspect", "--format", format, &name]);
        let gateway = gateway.parse().expect("a network has a gateway");
        Network { name, gateway }
    }

    /// What `docker run --network` takes.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// This machine, for its containers.
    pub fn gateway(&self) -> Ipv4Addr {
        self.gateway
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = try_docker(["network", "rm", &self.name]);
    }
}

/// A container, removed when this is dropped.
pub struct Container {
    name: String,
    attached: Option<Crossover>,
}

impl Container {
    /// Starts a container of an image, attached: what it says on stderr and how it ends are known.
    #[track_caller]
    pub fn start(what: &str, options: &[String], image: &str, arguments: &[&str]) -> Container {
        LazyLock::force(&ENGINE);
        let name = unique(what);
        let mut command = Command::new("docker");
        command.args(["run", "--name", &name]).args(options);
        command.arg(image).args(arguments);
        let attached = Some(Crossover::spawn(command));
        Container { name, attached }
    }

    /// Runs one to its end.
    #[track_caller]
    pub fn run(what: &str, options: &[String], image: &str, arguments: &[&str]) -> Finished {
        Container::start(what, options, image, arguments).finish()
    }

    /// What its main process does, as we see it.
    #[track_caller]
    pub fn process(&self) -> &Crossover {
        self.attached
            .as_ref()
            .expect("it was started, and not waited for")
    }

    /// Waits for a line on stderr that holds this text.
    #[track_caller]
    pub fn wait_for_line(&self, text: &str) -> String {
        self.process().wait_for_line(text)
    }

    /// Waits for its end.
    #[track_caller]
    pub fn finish(&mut self) -> Finished {
        let attached = self.attached.take();
        attached
            .expect("it was started, and not waited for")
            .finish()
    }

    /// `docker stop`, which kills after ten seconds: how it ended, and how long after the signal by
    /// the engine's own clock.
    #[track_caller]
    pub fn stop(&mut self) -> (Finished, Duration) {
        docker(&["stop", &self.name]);
        let finished = self.finish();
        let filter = format!("container={}", self.name);
        let format = "{{.TimeNano}} {{.Action}}";
        let all = [
            "events",
            "--since=1h",
            "--until=0s",
            "--filter",
            &filter,
            "--format",
            format,
        ];
        // The engine tells of whole seconds that are over.
        let took = until("the engine to tell of the signal and of the end", || {
            let events = docker(&all);
            let last = |action: &str| -> Option<u64> {
                let mut lines = events.lines().rev();
                lines.find_map(|line| line.strip_suffix(action)?.trim().parse().ok())
            };
            Some(last(" die")? - last(" kill")?)
        });
        (finished, Duration::from_nanos(took))
    }

    /// A signal for its main process.
    #[track_caller]
    pub fn signal(&self, signal: &str) {
        docker(&["kill", "--signal", signal, &self.name]);
    }

    /// `docker kill`, then its end.
    #[track_caller]
    pub fn kill(&mut self) {
        docker(&["kill", &self.name]);
        assert_eq!(self.finish().code, Some(137));
    }

    /// Starts it again after its end, with the files it had. An engine may not be done with the end
    /// yet and then starts nothing, so that it is asked again.
    #[track_caller]
    pub fn start_again(&mut self) {
        assert!(self.attached.is_none(), "it has not ended");
        let started = || docker(&["inspect", "--format", "{{.State.StartedAt}}", &self.name]);
        let before = started();
        for _ in 0..3 {
            let mut command = Command::new("docker");
            command.args(["start", "--attach", &self.name]);
            let attached = self.attached.insert(Crossover::spawn(command));
            let asked = Instant::now();
            while asked.elapsed() < Duration::from_secs(5) {
                if started() != before {
                    return;
                }
            }
            println!("not started: {:?}", attached.lines());
        }
        panic!("{} is not started", self.name);
    }

    /// `docker exec`
    pub fn exec(&self, arguments: &[&str]) -> Output {
        try_docker(
            ["exec", &self.name]
                .into_iter()
                .chain(arguments.iter().copied()),
        )
    }

    /// A field of `docker inspect`, as soon as there is one.
    #[track_caller]
    pub fn inspect(&self, format: &str) -> String {
        until(&format!("{format} of {}", self.name), || {
            let output = try_docker(["inspect", "--format", format, &self.name]);
            let text = String::from_utf8_lossy(&output.stdout).trim().to_string();
            (output.status.success() && !text.is_empty()).then_some(text)
        })
    }

    /// Its address in its network, once it runs.
    #[track_caller]
    pub fn address(&self) -> IpAddr {
        let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
        self.inspect(format).parse().expect("an address")
    }

    /// Its main process, in this machine's numbers.
    #[track_caller]
    pub fn pid(&self) -> u32 {
        let pid = self.inspect("{{if .State.Running}}{{.State.Pid}}{{end}}");
        pid.parse().expect("a process")
    }

    /// What it changed of its own files.
    #[track_caller]
    pub fn changes(&self) -> String {
        docker(&["diff", &self.name])
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = try_docker(["rm", "--force", "--volumes", &self.name]);
    }
}
