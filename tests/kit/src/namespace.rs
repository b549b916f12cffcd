//! Namespaces of the kernel: a network, or mounts, of a test's own. Each lives as long as a process
//! that this one holds, so nothing is left of it however the test ends. To make one takes root.

use super::crossover;
use super::proxy::Proxy;
use super::runtime::{self, Bind};
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;

/// Namespaces of the sorts that it was made with; the others are ours.
pub struct Namespace {
    /// It ends when our end of its stdin does, also where we are killed.
    holder: Child,
}

impl Namespace {
    /// `sorts` as unshare(1) has them: `--net`, `--mount`.
    #[track_caller]
    pub fn new(sorts: &[&str]) -> Namespace {
        assert!(
            rustix::process::geteuid().is_root(),
            "this test makes namespaces: run it as root"
        );
        let mut command = Command::new("unshare");
        command.args(sorts).args(["sh", "-c", "echo; exec cat"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let holder = command.spawn();
        let mut holder = holder.expect("unshare is missing: apt-get install util-linux");
        let stdout = holder.stdout.as_mut().expect("it is piped");
        let mut line = String::new();
        let read = BufReader::new(stdout).read_line(&mut line);
        assert!(matches!(read, Ok(1)), "no namespace {sorts:?} can be made");
        Namespace { holder }
    }

    /// Makes a network whose loopback is up.
    #[track_caller]
    pub fn network(sorts: &[&str]) -> Namespace {
        let namespace = Namespace::new(&[sorts, &["--net"]].concat());
        namespace.run("ip link set lo up");
        namespace
    }

    /// Returns the process that holds it.
    pub fn pid(&self) -> u32 {
        self.holder.id()
    }

    /// Returns the command that runs in here, as the same process.
    pub fn command(&self, inner: &Command) -> Command {
        let mut outer = Command::new("nsenter");
        let target = self.pid().to_string();
        outer.args(["--target", &target, "--net", "--mount", "--"]);
        crossover::wrapped(outer, inner)
    }

    /// Runs a line of words in here.
    #[track_caller]
    pub fn run(&self, line: &str) {
        let (program, words) = line.split_once(' ').expect("a program and its arguments");
        let mut inner = Command::new(program);
        inner.args(words.split(' '));
        let output = self.command(&inner).output();
        let output = output.expect("nsenter is missing: apt-get install util-linux");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{line}: {said}");
    }

    /// Returns the path from outside of a file in the namespace.
    pub fn path(&self, path: &Path) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.pid()));
        root.join(path.strip_prefix("/").expect("an absolute path"))
    }

    /// Puts a file of ours in the place of another, for who is in here alone. Where there is none,
    /// as in a Debian without `/etc/hosts`, a copy of its directory beside ours gets one.
    #[track_caller]
    pub fn cover(&self, file: &Path, by: &Path) {
        let mount = |what: &Path, on: &Path| {
            self.run(&format!("mount --bind {} {}", what.display(), on.display()));
        };
        if !file.exists() {
            let (copy, dir) = (by.with_extension("d"), file.parent().expect("it is in one"));
            self.run(&format!("cp -a {} {}", dir.display(), copy.display()));
            fs::write(copy.join(file.file_name().expect("it has one")), "").expect("it is ours");
            mount(&copy, dir);
        }
        mount(by, file);
    }

    /// Returns a maker of sockets that listen in the namespace.
    pub fn bind_by(&self) -> Bind {
        let pid = self.pid();
        Box::new(move |address| inside(pid, move || runtime::bind(address)))
    }

    /// Returns a socket for datagrams in here.
    #[track_caller]
    pub fn bind(&self, address: SocketAddr) -> UdpSocket {
        inside(self.pid(), move || {
            UdpSocket::bind(address).expect("the address is free")
        })
    }
}

/// Runs `work` on a thread in the network of a process: a socket stays where it was made.
fn inside<T: Send + 'static>(pid: u32, work: impl FnOnce() -> T + Send + 'static) -> T {
    let file = File::open(format!("/proc/{pid}/ns/net")).expect("it is held");
    let thread = thread::spawn(move || {
        rustix::thread::move_into_link_name_space(file.as_fd(), None).expect("we are root");
        work()
    });
    thread.join().expect("the work is done")
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// The ends of every cable: nobody else is in these networks.
const NEAR: &str = "10.0.0.1";
const FAR: &str = "10.0.0.2";

/// Two networks with a cable between them that can be cut without anybody's notice.
pub struct Cable {
    /// The namespace in which the program runs.
    pub near: Namespace,
    /// The namespace in which the server is.
    pub far: Namespace,
}

impl Cable {
    /// Packets go through.
    #[track_caller]
    pub fn connect() -> Cable {
        let (near, far) = (Namespace::network(&[]), Namespace::network(&[]));
        let pid = far.pid();
        near.run(&format!(
            "ip link add cable type veth peer name cable netns {pid}"
        ));
        for (namespace, address) in [(&near, NEAR), (&far, FAR)] {
            namespace.run(&format!("ip address add {address}/24 dev cable"));
            namespace.run("ip link set cable up");
        }
        Cable { near, far }
    }

    /// Starts a proxy that listens at the far end, in front of a server of our own network.
    pub fn proxy(&self, server: SocketAddr) -> Proxy {
        let address = format!("{FAR}:0").parse().expect("an address");
        Proxy::start_in(&self.far, address, server)
    }

    /// Loses every packet from now on, in both directions: it goes to a neighbour that does not
    /// exist.
    #[track_caller]
    pub fn cut(&self) {
        let to = |address: &str| {
            format!(
                "ip neighbour replace {address} dev cable lladdr 02:00:00:00:00:99 nud permanent"
            )
        };
        self.near.run(&to(FAR));
        self.far.run(&to(NEAR));
    }

    /// Packets go through again.
    #[track_caller]
    pub fn mend(&self) {
        self.far
            .run(&format!("ip neighbour delete {NEAR} dev cable"));
        self.near
            .run(&format!("ip neighbour delete {FAR} dev cable"));
    }
}
