//! Relocations in packed form: task processes are this program started again, and reading three megabytes of them is a good part of each start.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
}
