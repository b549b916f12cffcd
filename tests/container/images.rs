//! The images that the tests run: the project's own, an Envoy made of the program that `make tools`
//! brings, both in one, and a shell beside the program. No image is ever pulled.

use crate::engine::{build, try_docker};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use tempfile::TempDir;
use testkit::envoy;

/// The image, by `make image`.
pub static CROSSOVER: LazyLock<&str> = LazyLock::new(|| {
    let tag = "crossover:test";
    let found = try_docker(["image", "inspect", tag]).status.success();
    assert!(found, "there is no image {tag}; run: make test-container");
    tag
});

/// Envoy as the distroless images have it: no shell, the program in `/usr/local/bin`.
pub static ENVOY: LazyLock<&str> = LazyLock::new(|| {
    let tag = "crossover-test-envoy";
    image_of(
        tag,
        &[(&envoy::program(), "/usr/local/bin/envoy")],
        "scratch",
    );
    tag
});

/// Both in one, as `example/` shows it.
pub static EMBEDDED: LazyLock<&str> = LazyLock::new(|| {
    let tag = "crossover-test-embedded";
    let example = root().join("example");
    let arguments = [
        &format!("CROSSOVER={}", *CROSSOVER),
        &format!("ENVOY={}", *ENVOY),
    ];
    let arguments = arguments.map(String::as_str);
    build(
        tag,
        &example.join("embedded.Dockerfile"),
        &arguments,
        &example,
    );
    tag
});

/// The image with a shell in it, for what only a shell can set.
pub static SHELL: LazyLock<&str> = LazyLock::new(|| {
    let tag = "crossover-test-shell";
    let shell = fs::canonicalize("/bin/sh").expect("there is a shell");
    image_of(tag, &[(&shell, "/sh")], *CROSSOVER);
    tag
});

/// Where the project is.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Adds programs of this machine, and the libraries that they need, to an image.
fn image_of(tag: &str, programs: &[(&Path, &str)], from: &str) {
    let context = TempDir::new().unwrap();
    let mut files: BTreeSet<(PathBuf, PathBuf)> = BTreeSet::new();
    for (program, at) in programs {
        files.insert((program.to_path_buf(), at.into()));
        files.extend(
            libraries(program)
                .into_iter()
                .map(|path| (path.clone(), path)),
        );
    }
    for (from, to) in &files {
        let to = context
            .path()
            .join("root")
            .join(to.strip_prefix("/").unwrap());
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        // A link where it can be, as Envoy is 100 MB.
        if fs::hard_link(fs::canonicalize(from).unwrap(), &to).is_err() {
            fs::copy(from, &to).unwrap();
        }
    }
    let dockerfile = context.path().join("Dockerfile");
    let entry = programs[0].1;
    let text = format!("FROM {from}\nCOPY root/ /\nENTRYPOINT [\"{entry}\"]\n");
    fs::write(&dockerfile, text).unwrap();
    build(tag, &dockerfile, &[], context.path());
}

/// What `ldd` finds, the dynamic linker included.
fn libraries(program: &Path) -> Vec<PathBuf> {
    let output = Command::new("ldd").arg(program).output();
    let output = output.expect("ldd is missing: it comes with the C library");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let words = text.split_whitespace();
    let found: Vec<PathBuf> = words
        .filter(|word| word.starts_with('/'))
        .map(PathBuf::from)
        .collect();
    assert!(
        !found.is_empty(),
        "{} needs no library: {text}",
        program.display()
    );
    found
}
