//! What is written and read, as plain rows. What the bytes mean is the caller's business.

/// A 32-byte identifier: a public key, a digest or a content id.
pub type Id32 = [u8; 32];
/// A 16-byte identifier: a task.
pub type Id16 = [u8; 16];

/// How many stored hashes of the log share one row. A proof then needs few rows, and a commit rewrites less than 8 KiB.
pub const HASHES_PER_RUN: u64 = 256;

/// The log's latest signed checkpoint, and the version that compare-and-swap guards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointRow {
    /// Counts the commits that had log entries, from 1.
    pub version: u64,
    /// Entries in the tree.
    pub size: u64,
    /// The signed note.
    pub note: String,
    /// The stored hashes of the run that is not full yet, 32 bytes each.
    pub open_run: Vec<u8>,
}

/// An entry of the log, alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryRow {
    /// Its index.
    pub index: u64,
    /// Its bytes.
    pub entry: Vec<u8>,
}

/// An entry of the log with what is behind it: the statement it commits to, and what else is needed to rebuild the state from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventRow {
    /// Index of the entry.
    pub index: u64,
    /// The task, where it is of one.
    pub task: Option<Id16>,
    /// The caller's number for its kind.
    pub kind: i16,
    /// Milliseconds since 1970.
    pub at: u64,
    /// The entry's bytes.
    pub entry: Vec<u8>,
    /// The statement.
    pub statement: Option<Vec<u8>>,
    /// What goes with it.
    pub extra: Option<Vec<u8>>,
}

/// A full run of stored hashes, 32 bytes each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HashRun {
    /// Stored-hash index of the first hash divided by [`HASHES_PER_RUN`].
    pub run: u64,
    /// The hashes.
    pub hashes: Vec<u8>,
}

/// A task that was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenedTask {
    /// The task.
    pub task: Id16,
    /// Who asked.
    pub requester: Id32,
    /// Index of its first entry.
    pub submitted_index: u64,
}

/// An ended task whose blobs are still kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnsweptTask {
    /// The task.
    pub task: Id16,
    /// The blobs it used.
    pub blobs: Vec<Id32>,
}

/// A complete blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobRow {
    /// BLAKE3 of its bytes.
    pub id: Id32,
    /// Who uploaded it.
    pub owner: Id32,
    /// Its length.
    pub size_bytes: u64,
    /// When it became complete, in milliseconds since 1970.
    pub stored_at: u64,
    /// Its bytes, where it is so small that a file of its own would cost more.
    pub body: Option<Vec<u8>>,
}

/// That a task needs a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlobUseRow {
    /// The blob.
    pub blob: Id32,
    /// The task.
    pub task: Id16,
}

/// An admitted node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeRow {
    /// The node.
    pub node: Id32,
    /// Until when its admission counts, in milliseconds since 1970.
    pub valid_until: u64,
    /// The caller's record.
    pub standing: Vec<u8>,
}

/// Everything that one commit changes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// The new checkpoint; its version is one more than the one it replaces. Present exactly where there are events.
    pub checkpoint: Option<CheckpointRow>,
    /// New entries of the log, with what is behind them.
    pub events: Vec<EventRow>,
    /// Runs of hashes that became full.
    pub hashes: Vec<HashRun>,
    /// Tasks that were taken.
    pub opened: Vec<OpenedTask>,
    /// Tasks that ended, and when.
    pub ended: Vec<(Id16, u64)>,
    /// Blobs that became complete.
    pub blobs: Vec<BlobRow>,
    /// Uses of blobs.
    pub uses: Vec<BlobUseRow>,
    /// Nodes that were admitted.
    pub nodes: Vec<NodeRow>,
    /// Ended tasks whose uses of blobs end.
    pub swept: Vec<Id16>,
    /// Blobs to drop, if no task uses them.
    pub dropped: Vec<Id32>,
}

impl Batch {
    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
