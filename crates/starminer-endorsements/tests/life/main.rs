//! The life of endorsements at the edge: real sockets on loopback, real files, and makers that this test plays, who fail, dawdle, never end, and lie.

#![allow(clippy::unwrap_used, missing_docs, dead_code)]

mod fetching;
#[path = "../../../starminer-hardware/tests/snp/lab.rs"]
mod lab;
mod maker;
#[path = "../../../starminer-hardware/tests/dcap/pki.rs"]
mod pki;
mod prefetching;
mod server;
mod storing;
mod time_and_chance;
