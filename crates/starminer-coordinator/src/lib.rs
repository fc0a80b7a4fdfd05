//! The coordinator's server: tasks, leases, the log, blobs.
//!
//! It routes: it takes specs, gives leases to nodes, relays challenges, evidence, grants and reports, keeps ciphertext, and writes
//! everything that happens into the public log. It is trusted for being there and for nothing else: it sees no plaintext and no key,
//! what it relays it cannot forge, and the log that it writes is checked by everybody else.
//!
//! [`Coordinator::open`] takes up the state of a directory, [`Coordinator::serve`] serves it over mutual TLS. Inside, handlers verify
//! what comes from outside, one writer ([`writer`]) decides by the state machine in [`tasks`] and makes it durable, and a board publishes what
//! is durable. Specifications: `specs/api.md`, `specs/entries.md`.
//!
//! Not here: decisions about keys (releasers), appraisal of evidence (`starminer-verify`; admission calls it for routing), formats of
//! statements (`starminer-receipt`) and of the log (`starminer-log`), SQL (`starminer-store`).

mod board;
mod brokers;
mod clock;
mod config;
mod coordinator;
mod known_blobs;
mod ledger;
mod limits;
mod log_reader;
mod nodes;
mod pins;
mod presence;
mod published;
mod refused;
mod routes;
mod server;
mod shared;
mod sweeper;
pub mod tasks;
pub mod writer;

pub use clock::{Clock, NoRandomness, Now, Randomness, SystemClock, SystemRandomness};
pub use config::{Config, IdentityLimits, KeepConfig, TotalLimits, WaitConfig};
pub use coordinator::{Coordinator, CoordinatorError, Environment, Options, WrapJournal};
pub use ledger::{Ledger, LedgerError};
pub use nodes::{AdmissionSetupError, EndorsementConfig, EndorsingError};
pub use refused::Refused;
pub use server::ServeError;
pub use writer::Fatal;
