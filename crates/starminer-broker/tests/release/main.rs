//! The release ledger and the receipts that come of it, against a software TEE, a log and parties that are real but for the silicon.

#![allow(clippy::unwrap_used, missing_docs)]

mod checkpoints;
mod ledger;
mod receipts;
#[allow(dead_code)] // the attack tests of the program use it, too
mod world;
