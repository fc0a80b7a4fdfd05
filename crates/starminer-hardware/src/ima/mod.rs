//! IMA measurement lists: what the kernel measured after boot, held against register 10.
//!
//! Templates `ima`, `ima-ng`, `ima-sig`, their later forms and custom formats; binary and text. The list comes from whoever runs the machine; its
//! digests, extended one after the other, have to lead to the register that a quote signs, as far as the quote goes.
//!
//! Not here: quotes, and the log of what firmware measured (`event_log`).

mod ascii;
mod claims;
mod parse;
mod policy;
mod replay;
mod signature;
mod verify;

pub use parse::{
    Encoding, Entry, FileDigest, MAX_ENTRIES, MAX_FIELDS, MAX_LIST_BYTES, MAX_TEMPLATE_DATA_BYTES,
    MAX_TEMPLATE_NAME_BYTES, MeasurementList, ParseError,
};
pub use policy::{AllowList, MAX_LISTED_FILES, MAX_SIGNERS, Policy, Signers, appraise};
pub use replay::Form;
pub use verify::{BOOT_AGGREGATE, BootAggregate, IMA_REGISTER, Verification, Verified, verify};
