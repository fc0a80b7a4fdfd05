//! What makers of hardware sign, and what firmware and kernel log beneath it: parse, verify, appraise, one module a kind.
//!
//! Every kind goes the same way. Bytes are parsed (bounded, no claim believed), verified (signatures and chains, down to a root that
//! is compiled in, or one that the caller named and that makes the provenance `simulated`), and appraised (claims against a typed policy). Each
//! check is listed with its verdict and reason ([`Checks`]).
//!
//! Pure: no clock, file, network or randomness; the time is an argument, in seconds since 1970. No panic on any input. What binds evidence to a
//! task, and what tier follows from it, is for `starminer-verify`; collecting it is for `starminer-attester`.
//!
//! Formats and check names: `specs/hardware.md`.

#![forbid(unsafe_code)]

pub mod cert;
mod check;
pub mod dcap;
pub mod endorsements;
pub mod event_log;
pub mod ima;
pub mod inspect;
pub mod nvidia;
pub mod predict;
pub mod snp;
pub mod tpm;

pub use check::{Check, Checks, Verdict, Weight};
