//! The packages: the images, the archive of both, the list of what is in them, and the binary
//! for the other architecture.

use crate::engine::docker;
use crate::images::{CROSSOVER, root};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};
use tempfile::TempDir;
use testkit::apiserver::{Options, Server};
use testkit::budgets::BINARY_MAX;
use testkit::crossover::{Crossover, command_of, wrapped};
use testkit::elf::Elf;
use testkit::objects::config_map;

/// The most bytes for arm64, whose binary has 87 of 100 bytes of the other.
const ARM64_MAX: u64 = BINARY_MAX * 89 / 100;

/// Runs a command that must succeed; returns what it prints.
#[track_caller]
fn run(package: &str, words: &[&str]) -> Vec<u8> {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).current_dir(root());
    // What cargo tells its children is not for those of make: every crate would be built again.
    for (name, _) in env::vars() {
        let of_cargo = ["CARGO", "RUST", "CC_", "OUT_DIR"]
            .iter()
            .any(|start| name.starts_with(start));
        if of_cargo && !name.ends_with("_HOME") {
            command.env_remove(name);
        }
    }
    let output = command.output();
    let output =
        output.unwrap_or_else(|_| panic!("{} is missing: apt-get install {package}", words[0]));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words:?}: {said}");
    output.stdout
}

/// A file that `make package` writes.
fn packed(kind: &str) -> PathBuf {
    let version = env!("CARGO_PKG_VERSION");
    let path = root().join(format!("target/package/crossover-{version}.{kind}"));
    assert!(
        path.exists(),
        "{} is missing; run: make test-container",
        path.display()
    );
    path
}

/// The binary that is in an architecture's image.
fn binary(arch: &str) -> PathBuf {
    root().join("target/image").join(arch).join("crossover")
}

#[track_caller]
fn parse(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).expect("JSON")
}

/// What both Dockerfiles say of the image.
fn check_config(config: &Value, labels: &Value) {
    assert_eq!(config["Entrypoint"], json!(["/crossover"]));
    assert_eq!(config["Env"], json!(["PATH=/"]));
    assert_eq!(config["User"], "65532:65532");
    assert_eq!(
        labels["org.opencontainers.image.version"],
        env!("CARGO_PKG_VERSION")
    );
    let revision = run("git", &["git", "rev-parse", "HEAD"]);
    let revision = String::from_utf8(revision).unwrap();
    assert_eq!(labels["org.opencontainers.image.revision"], revision.trim());
}

#[test]
fn the_image_is_the_binary_and_nothing_else() {
    let inspected = parse(docker(&["image", "inspect", *CROSSOVER]).as_bytes());
    let image = &inspected[0];
    check_config(&image["Config"], &image["Config"]["Labels"]);
    let size = fs::metadata(binary("amd64")).unwrap().len();
    assert_eq!(image["Size"], size);
    assert_eq!(image["RootFS"]["Layers"].as_array().unwrap().len(), 1);
    assert!(size <= BINARY_MAX, "{size} bytes");
}

#[test]
fn both_dockerfiles_make_the_same_image() {
    let end = |name: &str| {
        let text = fs::read_to_string(root().join(name)).unwrap();
        let (_, end) = text.rsplit_once("FROM scratch\n").unwrap();
        let (copy, rest) = end.split_once('\n').unwrap();
        assert!(copy.ends_with("crossover /crossover"), "{copy}");
        rest.to_string()
    };
    assert_eq!(end("Dockerfile"), end("Dockerfile.scratch"));
}

#[test]
fn the_archive_has_an_image_for_each_architecture() {
    let dir = TempDir::new().unwrap();
    let archive = format!("oci-archive:{}", packed("oci.tar").display());
    let copy = format!("dir:{}", dir.path().display());
    run(
        "skopeo",
        &["skopeo", "copy", "--quiet", "--all", &archive, &copy],
    );
    let index = parse(&run("skopeo", &["skopeo", "inspect", "--raw", &archive]));
    let images = index["manifests"].as_array().unwrap();
    assert_eq!(images.len(), 2, "{index}");
    for (image, arch) in images.iter().zip(["amd64", "arm64"]) {
        assert_eq!(
            image["platform"],
            json!({"os": "linux", "architecture": arch})
        );
        let arch_flag = format!("--override-arch={arch}");
        let config = run(
            "skopeo",
            &["skopeo", &arch_flag, "inspect", "--config", &archive],
        );
        let config = parse(&config);
        assert_eq!(config["architecture"], arch);
        check_config(&config["config"], &config["config"]["Labels"]);
        let layers =
            parse(&run("skopeo", &["skopeo", &arch_flag, "inspect", &archive]))["Layers"].clone();
        let layers = layers.as_array().unwrap();
        assert_eq!(layers.len(), 1);
        let blob = layers[0].as_str().unwrap().strip_prefix("sha256:").unwrap();
        let blob = dir.path().join(blob).display().to_string();
        assert_eq!(run("tar", &["tar", "-tzf", &blob]), b"crossover\n");
        let layer = run("tar", &["tar", "-xzOf", &blob, "crossover"]);
        assert!(
            layer == fs::read(binary(arch)).unwrap(),
            "it is another binary"
        );
    }
}

#[test]
fn an_engine_runs_what_is_in_the_archive() {
    let dir = TempDir::new().unwrap();
    let archive = format!("oci-archive:{}", packed("oci.tar").display());
    let file = dir.path().join("image.tar").display().to_string();
    let tag = "crossover:test-package";
    let copy = format!("docker-archive:{file}:{tag}");
    run("skopeo", &["skopeo", "copy", "--quiet", &archive, &copy]);
    docker(&["load", "--quiet", "--input", &file]);
    let said = docker(&["run", "--rm", "--network=none", tag, "-version"]);
    docker(&["rmi", tag]);
    assert_eq!(said, format!("crossover {}", env!("CARGO_PKG_VERSION")));
}

#[test]
fn packing_again_gives_the_same_bytes() {
    let again = TempDir::new().unwrap();
    let package = format!("PACKAGE={}", again.path().display());
    run("make", &["make", "package", &package]);
    for kind in ["oci.tar", "cdx.json"] {
        let first = packed(kind);
        let second = again.path().join(first.file_name().unwrap());
        assert!(
            fs::read(&first).unwrap() == fs::read(second).unwrap(),
            "{kind} differs"
        );
    }
}

#[test]
fn what_is_said_to_be_in_the_binary_names_every_crate_and_no_path() {
    let text = fs::read_to_string(packed("cdx.json")).unwrap();
    assert!(
        !text.contains(root().to_str().unwrap()),
        "it tells where it was made"
    );
    let components = parse(text.as_bytes())["components"].clone();
    let named: BTreeSet<String> = components
        .as_array()
        .unwrap()
        .iter()
        .map(|c| {
            format!(
                "{} v{}",
                c["name"].as_str().unwrap(),
                c["version"].as_str().unwrap()
            )
        })
        .collect();
    for target in ["x86_64-unknown-linux-musl", "aarch64-unknown-linux-musl"] {
        let mut tree = vec![
            "cargo",
            "tree",
            "--locked",
            "--edges=normal",
            "--prefix=none",
        ];
        tree.extend(["--format={p}", "--target", target]);
        let tree = String::from_utf8(run("cargo", &tree)).unwrap();
        // Behind it stands what sort of crate it is, or its folder in the workspace.
        for line in tree.lines().skip(1) {
            let crate_ = line.split(" (").next().unwrap_or(line);
            assert!(named.contains(crate_), "{crate_} is not named");
        }
    }
}

#[test]
fn the_binary_for_arm64_publishes_under_emulation() {
    let program = binary("arm64");
    let elf = Elf::read(&program);
    assert!(
        !elf.interpreter && !elf.symbols && elf.size <= ARM64_MAX,
        "{elf:?}"
    );
    let dir = TempDir::new().unwrap();
    let server = Server::start(Options::tls(dir.path()));
    server.create(config_map("envoy-xds", &[("rds.yaml", "resources: []\n")]));
    let path = |name: &str| dir.path().join(name).display().to_string();
    fs::write(path("token"), "TOKEN").unwrap();
    let (ca, token, output) = (path("ca.crt"), path("token"), path("out"));
    let url = server.url();
    let mut arguments = vec!["-onetime", "-configmap=envoy-xds", "-namespace=default"];
    arguments.extend(["-apiserver", &url, "-ca-file", &ca, "-token-file", &token]);
    arguments.extend(["-output-dir", &output]);
    let emulator = "qemu-aarch64-static";
    let found = Command::new(emulator).arg("--version").output();
    assert!(
        found.is_ok(),
        "{emulator} is missing: apt-get install qemu-user-static"
    );
    let inner = command_of(&program, &arguments);
    let finished = Crossover::spawn(wrapped(Command::new(emulator), &inner)).finish();
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    let published = fs::read(Path::new(&output).join("current/rds.yaml")).unwrap();
    assert_eq!(published, b"resources: []\n");
}
