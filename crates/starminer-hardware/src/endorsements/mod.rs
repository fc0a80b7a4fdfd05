//! What makers publish about their hardware, kept: which endorsements there are, which of them can be used, which are missing, and until when today's
//! evidence will do.
//!
//! ```text
//! Candidate ─► Snapshot::verify ─► Item ─► Snapshot::with (Marks) ─► Snapshot ─► snp, dcap, tpm, nvidia
//!                                                                    │  ▲
//!                                                            encode  ▼  │  Bundle::open
//!                                                                   a file
//! ```
//!
//! Nothing enters a [`Snapshot`] that was not verified, and nothing goes back: evaluation data numbers, numbers of revocation lists and times of issue
//! only rise ([`Marks`]). A snapshot has a digest, to which receipts commit, and one encoding as a file. Each item says when and from where it was had;
//! that is the word of whoever had it, while dates and numbers are the maker's.
//!
//! Deliberately absent: fetching, files, and a clock (`starminer-endorsements`). Whether a certificate was revoked is decided where evidence is verified.
//!
//! Forms and rules: `specs/endorsements.md`.

mod admit;
mod age;
mod bundle;
mod forecast;
mod item;
mod key;
mod lookup;
mod ocsp;
mod snapshot;

pub use admit::Refusal;
pub use age::{Age, Ages};
pub use bundle::{Bundle, BundleError, MAX_BUNDLE_BYTES, Opened, encode, take};
pub use forecast::{Announced, Cause, Ending, Forecast, Hands};
pub use item::{Absence, Candidate, Facts, Item, MAX_OBJECT_BYTES, MAX_SOURCE_BYTES, Missing, Number, Object, Trust};
pub use key::{Address, Key, Location, MAX_KEY_BYTES, NoKey, PckAuthority, RimId, Service};
pub use lookup::{
    DcapEndorsements, DcapWants, NvidiaEndorsements, SnpEndorsements, SnpWants, TpmEndorsements, issuers,
    revocation_lists,
};
pub use ocsp::{MAX_OCSP_BYTES, Status, request as ocsp_request};
pub use snapshot::{MAX_ITEMS, MAX_MARKS, MAX_SNAPSHOT_BYTES, Mark, Marks, Snapshot};
