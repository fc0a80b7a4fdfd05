//! `/state` over the vault: opened as it was committed last, or refused, and committed (`specs/checkpoint.md`).
//!
//! All of it is in one store, whose file the agent brings. What is found there was on a disk that is nobody's to trust: it opens under the task secret
//! alone, it is read through before the guest begins, and it is at least what the grant names.

use std::sync::Arc;

use starminer_receipt::{
    CheckpointId, CheckpointStatement, Envelope, Lease, LeastCheckpoint, Signed, Signer as _, SigningKey, TaskSpec,
};
use starminer_runtime::HostFault;
use starminer_runtime::fs::{
    MAX_STATE_TREE_BYTES, ScratchError, ScratchFiles, ScratchId, StateError, StateFiles, TaskFs,
};
use starminer_vault::scratch::{Opening, PAGE_BYTES, ScratchContext, ScratchError as VaultError, ScratchOptions};
use starminer_vault::{Checkpointed, FileId, PageStore, Scratch, Sequence, TaskSecret};
use starminer_verify::{Attempt, Digest, NodeId, Party, Refusal, TaskId};

use super::files::StorageFull;
use super::keys::salt;
use super::link::Link;
use super::verdict::{Ending, Halt};
use crate::protocol::FromTask;

/// Name of the state in the vault's key schedule.
const STATE_NAME: &str = "state";
/// The file that keeps names and directories: the first one that is made.
const TREE: FileId = FileId(1);

/// Hears of every checkpoint, once it is durable.
pub(crate) type Announce = Box<dyn FnMut(CheckpointId) + Send>;

/// Whose state it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub task: TaskId,
    pub attempt: Attempt,
    pub node: NodeId,
    /// What the guest may keep.
    pub state_bytes: u64,
}

/// Grants `/state` as it was committed last, and says from which checkpoint that is; `None`: it is empty.
///
/// # Errors
/// A checkpoint that must not be gone on from, or none where there has to be one: a refusal of the node's. A store that fails.
pub(crate) fn open<S: PageStore + Send + Sync + 'static>(
    fs: &mut TaskFs,
    (store, full): (Arc<S>, &StorageFull),
    secret: &TaskSecret,
    place: Place,
    least: Option<&LeastCheckpoint>,
    announce: Announce,
) -> Result<Option<CheckpointId>, Halt> {
    let host_fault = || Halt::from(Ending::of_host_fault(HostFault::SCRATCH, full.is_set()));
    let context = ScratchContext { task: place.task.0, name: STATE_NAME };
    let data_bytes = place.state_bytes.next_multiple_of(PAGE_BYTES as u64);
    let options = ScratchOptions { limit_bytes: data_bytes, ..ScratchOptions::default() };
    let opening = || Ok::<_, Halt>(Opening { salt: salt()?, attempt: place.attempt.0 });

    let found = match find(&store, secret, &context, opening()?, options) {
        Ok(found) => found,
        Err(Unfound::Failed) => return Err(host_fault()),
        Err(Unfound::Refused(refusal)) => return Err(Ending::Refused(refusal).into()),
    };
    let newest = found.as_ref().and_then(Scratch::checkpointed).map(id_of);
    let resumed = match judge(newest.as_ref(), least, place.node).map_err(Ending::Refused)? {
        Judged::GoOn => newest,
        Judged::BeginAnew => None,
    };
    let scratch = match found.filter(|_| resumed.is_some()) {
        Some(mut scratch) => {
            scratch.read_through().map_err(|error| match error {
                VaultError::Store(_) => host_fault(),
                error => Ending::Refused(damaged(&error)).into(),
            })?;
            scratch
        }
        None => {
            let made = Scratch::create(store, secret, &context, opening()?, options);
            let mut made = made.map_err(|_| host_fault())?;
            made.create_file().map_err(|_| host_fault())?;
            made
        }
    };
    let mut state = VaultState { scratch, data_bytes, tree: None, announce };
    state.bound();
    fs.add_state(state, place.state_bytes).map_err(|error| match error {
        StateError::Store => host_fault(),
        error => Ending::Refused(damaged(&error)).into(),
    })?;
    Ok(resumed)
}

/// Signs every checkpoint with the report key and tells the agent. The commit stands whether or not anybody hears of it: a channel that is gone ends
/// the process elsewhere.
pub(crate) fn announcer(
    mut link: Link,
    key: Arc<SigningKey>,
    spec: &Signed<TaskSpec>,
    lease: &Signed<Lease>,
) -> Announce {
    let mut statement = CheckpointStatement {
        network: spec.network,
        task: spec.task,
        spec: spec.digest(),
        attempt: lease.attempt,
        lease: lease.digest(),
        node: lease.node,
        checkpoint: CheckpointId { sequence: 0, digest: Digest([0; 32]) },
        signer: key.public_key(),
    };
    Box::new(move |checkpoint| {
        statement.checkpoint = checkpoint;
        if let Ok(signed) = Envelope::sign(statement.clone(), &*key) {
            let _ = link.send(&FromTask::Checkpoint { statement: signed.into_envelope() });
        }
    })
}

fn id_of(checkpointed: Checkpointed) -> CheckpointId {
    CheckpointId { sequence: checkpointed.sequence.0, digest: Digest(checkpointed.digest) }
}

/// Why no checkpoint was opened.
enum Unfound {
    /// The store failed.
    Failed,
    Refused(Refusal),
}

/// The newest checkpoint in the store; `None` where none was ever made.
fn find<S: PageStore>(
    store: &Arc<S>,
    secret: &TaskSecret,
    context: &ScratchContext<'_>,
    opening: Opening,
    options: ScratchOptions,
) -> Result<Option<Scratch<Arc<S>>>, Unfound> {
    if store.byte_len().map_err(|_| Unfound::Failed)? == 0 {
        return Ok(None);
    }
    match Scratch::reopen(Arc::clone(store), secret, context, opening, Sequence::default(), options) {
        Ok(scratch) => Ok(Some(scratch)),
        // Made, and left before the first commit.
        Err(VaultError::NoCheckpoint) => Ok(None),
        Err(VaultError::Store(_) | VaultError::NameTooLong) => Err(Unfound::Failed),
        Err(VaultError::Key) => Err(Unfound::Refused(refuse(
            "checkpoint.key",
            "the checkpoint does not open under this task's key: it is another task's, or its header was altered"
                .into(),
        ))),
        Err(VaultError::Attempt { .. }) => Err(Unfound::Refused(refuse(
            "checkpoint.attempt",
            "the checkpoint is of this attempt or a later one, of which no process came before this one".into(),
        ))),
        Err(error) => Err(Unfound::Refused(damaged(&error))),
    }
}

/// What a checkpoint is good for.
#[derive(Debug, PartialEq, Eq)]
enum Judged {
    GoOn,
    BeginAnew,
}

/// Holds what was found against what the grant names. The node that made the named one has to have that or a newer one; another node
/// begins anew where it has none as new.
fn judge(found: Option<&CheckpointId>, least: Option<&LeastCheckpoint>, node: NodeId) -> Result<Judged, Refusal> {
    let Some(least) = least else {
        return Ok(found.map_or(Judged::BeginAnew, |_| Judged::GoOn));
    };
    let (wanted, bound) = (&least.checkpoint, least.node == node);
    match found {
        Some(found) if found.is_at_least(wanted) => Ok(Judged::GoOn),
        Some(found) if found.sequence == wanted.sequence => Err(refuse(
            "checkpoint.other",
            format!("checkpoint {} is not the one of this number that was acknowledged", shown(found.sequence)),
        )),
        Some(found) if bound => Err(refuse(
            "checkpoint.rolled-back",
            format!(
                "the node's newest checkpoint is {}, and it had acknowledged {}: an older state was put back",
                shown(found.sequence),
                shown(wanted.sequence)
            ),
        )),
        None if bound => Err(refuse(
            "checkpoint.missing",
            format!("the node has no checkpoint, and it had acknowledged {}", shown(wanted.sequence)),
        )),
        Some(_) | None => Ok(Judged::BeginAnew),
    }
}

/// Attempt and count.
fn shown(sequence: u64) -> Sequence {
    Sequence(sequence)
}

fn refuse(check: &'static str, reason: String) -> Refusal {
    Refusal::new(
        Party::Node,
        check,
        reason,
        "the node's storage is not what it was: see to its disk; another node begins the task anew",
    )
}

fn damaged(error: &dyn std::fmt::Display) -> Refusal {
    refuse("checkpoint.damaged", format!("the checkpoint is damaged: {error}"))
}

/// The state of a task.
struct VaultState<S> {
    scratch: Scratch<Arc<S>>,
    /// What the guest's files may hold, in whole pages.
    data_bytes: u64,
    /// The tree as it stands in its file, as far as that is known.
    tree: Option<Vec<u8>>,
    announce: Announce,
}

impl<S: PageStore> VaultState<S> {
    /// The tree's pages come on top of what the guest may use, so that no guest can make a commit fail.
    fn bound(&mut self) {
        let tree = self.scratch.len(TREE).unwrap_or(0).next_multiple_of(PAGE_BYTES as u64);
        self.scratch.set_limit(self.data_bytes.saturating_add(tree));
    }

    fn write_tree(&mut self, tree: &[u8]) -> Result<(), VaultError> {
        if self.tree.as_deref() == Some(tree) {
            return Ok(());
        }
        self.tree = None;
        self.scratch
            .set_limit(self.data_bytes.saturating_add(MAX_STATE_TREE_BYTES.next_multiple_of(PAGE_BYTES) as u64));
        self.scratch.write(TREE, 0, tree)?;
        self.scratch.set_len(TREE, tree.len() as u64)?;
        self.bound();
        self.tree = Some(tree.to_vec());
        Ok(())
    }
}

impl<S: PageStore + Send + Sync> StateFiles for VaultState<S> {
    fn contents(&mut self) -> &mut dyn ScratchFiles {
        &mut self.scratch
    }

    fn len(&self, file: ScratchId) -> Option<u64> {
        let file = FileId(file.0);
        if file == TREE { None } else { self.scratch.len(file).ok() }
    }

    fn files(&self) -> Vec<ScratchId> {
        self.scratch.files().filter(|(file, _)| *file != TREE).map(|(file, _)| ScratchId(file.0)).collect()
    }

    fn tree(&mut self) -> Result<Option<Vec<u8>>, ScratchError> {
        if self.scratch.checkpointed().is_none() {
            return Ok(None);
        }
        // One beyond what any tree has is longer than a reader takes.
        let len = self.scratch.len(TREE)?.min(MAX_STATE_TREE_BYTES as u64 + 1);
        let mut tree = vec![0; usize::try_from(len).map_err(|_| ScratchError::Failed)?];
        let count = self.scratch.read(TREE, 0, &mut tree)?;
        tree.truncate(count);
        Ok(Some(tree))
    }

    fn commit(&mut self, tree: &[u8]) -> Result<(), ScratchError> {
        self.write_tree(tree)?;
        self.scratch.checkpoint()?;
        // What it freed behind the last page in use goes back to the disk; that this fails costs room and nothing else.
        let _ = self.scratch.trim();
        if let Some(checkpointed) = self.scratch.checkpointed() {
            (self.announce)(id_of(checkpointed));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
