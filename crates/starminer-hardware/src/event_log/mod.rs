//! UEFI event logs: what firmware says it measured, held against the registers that something signed.
//!
//! TCG PC Client Platform Firmware Profile 1.06, crypto-agile and SHA-1 alone, and the logs of confidential VMs (`CCEL`), which have the same format
//! over other registers. A log comes from whoever runs the machine. What makes it worth anything is that its digests, extended one after the
//! other, lead to registers that a quote signs: this module proves that, and then says of each event what its digest covers. Types, names
//! and paths that no digest covers are hints, and no claim rests on them.
//!
//! Not here: quotes (the caller verifies one and gives its registers), and what the kernel logs after boot (`ima`).

mod bank;
mod claims;
mod coverage;
mod facts;
mod kind;
mod parse;
mod pcrs;
mod policy;
mod replay;
mod secure_boot;
mod signature_list;
mod variable;
mod verify;

pub use bank::{Bank, Digest, MAX_DIGEST_BYTES};
pub use coverage::{Coverage, Known};
pub use facts::{EventFact, ExitBootServices, Layout, Measured, Section, Separators, Text};
pub use kind::EventKind;
pub use parse::{
    Event, EventLog, Format, MAX_ALGORITHMS, MAX_EVENT_DATA_BYTES, MAX_EVENTS, MAX_LOG_BYTES, ParseError, REGISTERS,
};
pub use pcrs::PcrValues;
pub use policy::{DigestList, Expected, MAX_LISTED_DIGESTS, Permission, Policy, Requirement, appraise};
pub use replay::MEASUREMENT_REGISTERS;
pub use secure_boot::{Authority, Database, Databases, SecureBoot, SecureBootState};
pub use signature_list::{Entry, MAX_DATABASE_ENTRIES, Signature, parse_signature_lists};
pub use variable::{Guid, MAX_VARIABLE_NAME_UNITS, Variable};
pub use verify::{Registers, Verification, Verified, verify};
