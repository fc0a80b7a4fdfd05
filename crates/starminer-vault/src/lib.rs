//! The vault: how the bytes of a task lie encrypted wherever they lie.
//!
//! Two formats and the keys they hang on, all specified in `specs/vault.md`:
//!
//! - [`object`]: write-once objects (inputs, outputs, files of the command line). Authenticated chunk by chunk,
//!   readable at random offsets, sealed and opened by several threads.
//! - [`scratch`]: files open for writing while a task runs, paged into one backing store and checkpointed atomically.
//! - [`keys`]: the schedule that derives every key from one [`TaskSecret`], and keyed commitments to plaintext.
//!
//! The crate deliberately does not draw randomness (salts are arguments), open files, know the task's other nouns, or
//! keep a secret anywhere but in memory that it wipes.

pub mod at;
pub mod keys;
pub mod object;
pub mod scratch;

pub use at::{PageStore, ReadAt, WriteAt};
pub use keys::{Purpose, Salt, TaskSecret, commit};
pub use object::{ContentId, ObjectContext, ObjectReader};
pub use scratch::{Checkpointed, FileId, Opening, Scratch, ScratchContext, ScratchOptions, Sequence};
