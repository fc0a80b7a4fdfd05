//! Attacks, one file each; the first line of a file says what is tried and how it ends. SECURITY.md lists the folder.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

#[path = "../support/mod.rs"]
mod support;
#[path = "../../../starminer-broker/tests/release/world.rs"]
#[allow(dead_code)]
mod world;

mod altered_output;
mod another_vault;
mod canary_search;
mod evil;
mod evil_node;
mod forged;
mod forked_log;
mod late_report;
mod lying_coordinator;
mod lying_node;
mod replay;
mod supervisor_memory;
mod tls_1_2;
mod truncated_vault;
