//! Tasks, attempts, leases and the queue: the state machine, without I/O.
//!
//! [`Tasks::execute`] takes a [`Command`] and a time, and answers with what became of it and the [`Event`]s that it means. State changes
//! through events alone ([`Task::apply`]), so that the events of the log, replayed, give the same state. Statements are signed already
//! when they come here and their signatures are verified; what is checked here is that they belong to the task, the attempt and
//! the step. Each step is idempotent by the digest of its statement: the same again changes nothing and gets the same answer.
//!
//! The attempt number is the fencing token: whatever comes for an attempt that has ended is refused. Every task ends exactly once,
//! with a report or a cancellation; where nobody else reports, the coordinator signs a report that says so.
//!
//! Not here: durability (a caller undoes a batch that did not become durable, with [`Tasks::rollback`]), the wall clock, randomness,
//! signatures of others, blobs.

mod event;
mod lifecycle;
mod machine;
mod queue;
mod steps;
mod task;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

pub use event::{Event, EventBody, ReplayError, Settles, StoredParts, kind_number};
pub use machine::{Answer, Command, Step, Tasks, Touched, Waits};
pub(crate) use queue::ROLLED_BACK;
pub use queue::{Offer, Standing, TpmCounters};
pub use task::{AttemptRecord, Ending, Kept, Task};
