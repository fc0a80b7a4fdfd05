//! Endorsements of hardware makers: fetched from their services, kept in a directory, renewed in the background, carried as a file to where there is no
//! network.
//!
//! ```text
//! Prefetcher ─► Fetcher ─► maker      on its own time, one request at a time for each host
//!     └───────► Store ──► disk        verified before it is written, written before it is served
//!                 └─────► Snapshot    what verifiers take: no network, no disk, no waiting
//! ```
//!
//! What makes an endorsement count is its maker's signature, which [`starminer_hardware::endorsements`] verifies; TLS keeps others from reading what is asked
//! for, and from wearing us out. Nobody here is believed about anything else: a server that lies, goes back, or never ends costs a refusal.
//!
//! Deliberately absent: redirects, proxies, cookies, environment variables, and every service that is not configured. URLs that stand in certificates
//! are followed only to hosts that are configured.
//!
//! Forms, addresses and bounds: `specs/endorsements.md`.

#![forbid(unsafe_code)]

mod address;
mod clock;
mod fetch;
mod gate;
mod http;
mod prefetch;
mod sources;
mod store;

pub use address::{Base, NoBase};
pub use clock::{Clock, Jitter, SystemClock, system_jitter};
pub use fetch::{FetchError, Fetcher};
pub use gate::Politeness;
pub use http::{HttpError, Limits, ServerRoots, SetupError};
pub use prefetch::{MAX_WANTED, Prefetcher, Round, State, Want, WantError};
pub use sources::Sources;
pub use store::{Loaded, PutError, Store, StoreError};
