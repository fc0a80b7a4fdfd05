//! Quotes of SGX and TDX: real ones, altered ones, and those of a test authority that is named like Intel's.

#![allow(clippy::unwrap_used, missing_docs)]

mod altered;
mod forged;
mod pki;
mod policy;
mod real;
mod samples;
