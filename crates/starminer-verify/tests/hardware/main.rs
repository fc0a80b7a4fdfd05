//! Hardware kinds through the whole spine: parse, verify, appraise. Nobody here has a maker's key, so that everything is made by the test
//! authorities of `starminer-hardware` (its own tests' files, included by path: one copy) and is simulated; what real silicon signs is verified there.

#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../spine/fixture.rs"]
#[allow(dead_code)] // the tests of the software TEE use more of it
mod fixture;

#[path = "../../../starminer-hardware/tests/snp/lab.rs"]
#[allow(dead_code)]
mod snp_lab;

#[path = "../../../starminer-hardware/tests/dcap/pki.rs"]
#[allow(dead_code)]
mod intel_lab;

#[path = "../../../starminer-hardware/tests/event_log/builder.rs"]
#[allow(dead_code)]
mod log_builder;

mod accepted;
mod continues;
mod forecast;
mod limits;
mod nvidia;
mod policy;
mod refused;
mod selection;
mod simulated;
mod tiers;
mod tpm_lab;
mod world;
