//! Links the floors as crossover is linked.

fn main() {
    println!("cargo::rerun-if-changed=../../.cargo/no-unwind.ld");
    if std::env::var("PROFILE").as_deref() == Ok("release") {
        let root = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
        println!("cargo::rustc-link-arg-bins=-T{root}/../../.cargo/no-unwind.ld");
    }
}
