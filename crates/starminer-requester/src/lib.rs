//! A requester's side of a task: seal, submit, verify the node, release the key, open the result, keep the receipt.
//!
//! [`Requester`] does it over a connection to the coordinator, for any number of tasks at once; [`Releaser`] is the part that challenges
//! nodes and releases keys, the same for a requester and for a broker; [`Journal`] is what survives a crash: everything secret in
//! it is sealed under the identity key. The decisions themselves are `starminer-broker`'s, the verification of receipts is
//! `starminer-receipt`'s.
//!
//! Not here: the command line, and anything of nodes and coordinators.

mod files;
mod home;
mod journal;
mod log_memory;
mod outputs;
mod plan;
mod progress;
mod receipts;
mod references;
mod releaser;
mod requester;
mod results;
mod secrets;
mod staging;
mod stop;

pub use files::open_regular;
pub use home::{Home, HomeError};
pub use journal::{Durability, Journal, JournalError, JournalKey, JournalRecord, TaskStart, Unsynced};
pub use outputs::{OpenedOutput, OpenedResult, OutputsError};
pub use plan::{InputSource, JobPlan, PlanError, PreparedTask, SealedBlob};
pub use progress::{Event, EventSink};
pub use receipts::receipt_from_parts;
pub use references::{PublishedValues, ReferenceMemory, join_pinned};
pub use releaser::{AttemptSecret, Releaser, ReleaserError, ReleaserHost};
pub use requester::{Cancelled, Requester, RequesterError, StopAsked, TaskOutcome};
pub use results::Results;
pub use secrets::{random_bytes, random_secret};
