//! The coordinator over its API, as requesters, nodes and brokers use it, with databases and logs on a disk.

#![allow(clippy::unwrap_used)]

mod attestation;
mod bad_input;
#[path = "../../../starminer-attester/tests/joined/boot.rs"]
#[allow(dead_code)]
mod boot;
#[path = "../../../starminer-attester/tests/tpm/emulator.rs"]
#[allow(dead_code)]
mod emulator;
mod lives;
mod log;
#[path = "../../../starminer-hardware/tests/event_log/builder.rs"]
#[allow(dead_code)]
mod log_builder;
mod references;
mod restarts;
mod world;
