//! Attacks, one file each; the first line of a file says what is tried and how it ends. SECURITY.md lists the folder.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

#[path = "../support/mod.rs"]
mod support;

mod canary_search;
