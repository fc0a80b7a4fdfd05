//! The evidence spine through its public API: what is accepted, what is refused and with which code, that no bit and no
//! length of evidence is free, that simulated evidence has one way in, and the frozen vectors.

#![allow(clippy::unwrap_used)]

mod accepted;
mod fixture;
mod mutation;
mod refused;
mod simulated;
mod vectors;
