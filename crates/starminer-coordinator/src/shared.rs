//! What the request handlers share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize};

use starminer_receipt::{Signer, TaskSpec};
use starminer_store::{Blobs, Database};
use starminer_tls::IdentityKey;
use starminer_verify::{Digest, NetworkId, NodeId, Party, PublicKey, TaskId};
use starminer_wire::ProblemStatus;
use tokio::sync::{Semaphore, watch};

use crate::board::Board;
use crate::brokers::Brokers;
use crate::clock::{Clock, Randomness};
use crate::config::Config;
use crate::known_blobs::KnownBlobs;
use crate::limits::{Buckets, Quotas};
use crate::log_reader::{LogReader, storage};
use crate::nodes::Admission;
use crate::pins::{Pin, Pins};
use crate::presence::Presence;
use crate::published::Published;
use crate::refused::Refused;
use crate::tasks::{Event, Task, Tasks};
use crate::writer::WriterHandle;

/// After how long a requester asks again for a broker that may come back.
const STARTING_RETRY_MS: u64 = 500;

/// See the module.
#[derive(Debug)]
pub struct Shared {
    pub(crate) config: Config,
    pub(crate) network: NetworkId,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) randomness: Arc<dyn Randomness>,
    pub(crate) database: Arc<Database>,
    pub(crate) blobs: Arc<Blobs>,
    pub(crate) board: Arc<Board>,
    pub(crate) log: Arc<LogReader>,
    pub(crate) pins: Arc<Pins>,
    pub(crate) known_blobs: KnownBlobs,
    pub(crate) presence: Arc<Presence>,
    pub(crate) broker_presence: Arc<Presence>,
    pub(crate) brokers: Arc<Brokers>,
    /// When it started, on the monotonic clock.
    pub(crate) started_ms: u64,
    pub(crate) admission: Admission,
    pub(crate) published: Arc<Published>,
    pub(crate) requests: Buckets,
    pub(crate) blob_bytes: Buckets,
    pub(crate) quotas: Quotas,
    pub(crate) transfers: Semaphore,
    pub(crate) writer: WriterHandle,
    /// Counts polls of nodes.
    pub(crate) polls: AtomicU64,
    /// Bytes of JSON bodies that are being read, of all requests together.
    pub(crate) body_bytes: AtomicUsize,
    /// This start; the low half counts the times that somebody had to begin anew.
    pub(crate) epoch: u64,
    /// Becomes true when the coordinator stops.
    pub(crate) stopping: watch::Receiver<bool>,
}

/// The coordinator's identity as a signer of statements.
#[derive(Debug)]
pub(crate) struct IdentitySigner(pub(crate) Arc<IdentityKey>);

impl Signer for IdentitySigner {
    fn public_key(&self) -> PublicKey {
        PublicKey(self.0.public())
    }

    fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message)
    }
}

impl Shared {
    /// Refuses for a while after the start, when a broker that is not there may be about to come back.
    pub(crate) fn brokers_have_returned(&self) -> Result<(), Refused> {
        let running_ms = self.clock.now().mono_ms.saturating_sub(self.started_ms);
        if running_ms >= self.config.waits.broker_return_ms {
            return Ok(());
        }
        let reason = "the coordinator started a moment ago, and brokers may not have come back to it";
        Err(Refused::unavailable("coordinator.starting", reason, STARTING_RETRY_MS))
    }

    /// A task: from memory, or read back from the database.
    pub(crate) async fn task(&self, id: &TaskId) -> Result<Option<Arc<Task>>, Refused> {
        if let Some(task) = self.board.task(id) {
            return Ok(Some(task));
        }
        Ok(load_task(&self.database, id, self.clock.now()).await?.map(Arc::new))
    }

    /// A task of this requester; to everybody else it does not exist.
    pub(crate) async fn task_of(&self, id: &TaskId, requester: PublicKey) -> Result<Arc<Task>, Refused> {
        let task = self.task(id).await?.ok_or_else(Refused::task_unknown)?;
        if task.requester() == requester { Ok(task) } else { Err(Refused::task_unknown()) }
    }

    /// Holds the blobs and makes sure that all are complete and as long as they are said to be.
    pub(crate) async fn hold_blobs(
        &self,
        check: &'static str,
        party: Party,
        objects: impl Iterator<Item = (Digest, u64)>,
    ) -> Result<Pin, Refused> {
        let objects: Vec<(Digest, u64)> = objects.collect();
        let pin = self.pins.hold(objects.iter().map(|(id, _)| *id));
        let mut missing = Vec::new();
        for (id, sealed_bytes) in &objects {
            match self.blob_size(id).await? {
                Some(found) if found == *sealed_bytes => {}
                Some(_) => {
                    return Err(Refused::of(
                        ProblemStatus::Refused,
                        party,
                        "blob.size",
                        format!("blob {id} has another length than the statement says"),
                        "state the length of the ciphertext",
                    ));
                }
                None => missing.push(id.to_string()),
            }
        }
        if missing.is_empty() {
            return Ok(pin);
        }
        let count = missing.len();
        missing.truncate(6);
        Err(Refused::of(
            ProblemStatus::Conflict,
            party,
            check,
            format!("{count} blobs are not complete: {}", missing.join(" ")),
            "upload them, then send the statement again",
        ))
    }

    /// The length of a complete blob.
    pub(crate) async fn blob_size(&self, id: &Digest) -> Result<Option<u64>, Refused> {
        match self.known_blobs.size(&id.0) {
            Some(size) => Ok(Some(size)),
            None => self.database.blob_size(&id.0).await.map_err(storage),
        }
    }

    /// Whether the coordinator is stopping.
    pub(crate) fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }
}

/// Reads a task back.
pub(crate) async fn load_task(
    database: &Database,
    id: &TaskId,
    now: crate::clock::Now,
) -> Result<Option<Task>, Refused> {
    let rows = database.task_events(&id.0).await.map_err(storage)?;
    let damaged = |error: crate::tasks::ReplayError| {
        tracing::error!(%error, task = %id, "the database is damaged");
        Refused::internal()
    };
    let mut events = Vec::with_capacity(rows.len());
    for row in &rows {
        events.push((row.index, Event::from_row(row).map_err(damaged)?));
    }
    Tasks::replay(&events, now).map_err(damaged)
}

/// Every object that a spec refers to.
pub(crate) fn objects_of(spec: &TaskSpec) -> impl Iterator<Item = (Digest, u64)> + '_ {
    spec.objects().map(|object| (object.content_id, object.sealed_bytes))
}

/// The node that an identity is.
pub(crate) fn node_of(identity: PublicKey) -> NodeId {
    NodeId(identity)
}
