//! NVIDIA: real evidence and manifests, a test PKI for what no real file shows, and everything that must not verify.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "nvidia/flips.rs"]
mod flips;
#[path = "nvidia/pki.rs"]
mod pki;
#[path = "nvidia/real.rs"]
mod real;
#[path = "nvidia/simulated.rs"]
mod simulated;
#[path = "nvidia/support.rs"]
mod support;
#[path = "nvidia/wrapping.rs"]
mod wrapping;
