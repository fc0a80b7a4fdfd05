//! Published reference values: the newest file of each role, and what of it counts when nodes are admitted.
//!
//! Whether a file may be published is decided by its handler (signatures, dates) and the writer (version), which makes it durable first and
//! tells of it here. Whoever fetches a file verifies all of it again, by their own trust; so does admission, by the network's.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use starminer_receipt::{
    LogPlace, LoggedReferenceValues, NetworkTrust, Opening, ReferenceError, ReferenceFile, Role, SignedReferenceValues,
};
use starminer_verify::{Party, ReferenceValues, UnixTime};
use starminer_wire::ProblemStatus;

use crate::log_reader::LogReader;
use crate::refused::Refused;

/// See the module.
#[derive(Debug)]
pub struct Published {
    trust: NetworkTrust,
    pinned: Arc<ReferenceValues>,
    newest: RwLock<HashMap<Role, Arc<Newest>>>,
}

/// The newest file of a role.
#[derive(Debug)]
struct Newest {
    file: Arc<ReferenceFile>,
    index: u64,
    counted: OnceLock<Counted>,
}

/// A file that was found to count, with the values that the trust file pins.
#[derive(Debug, Clone)]
struct Counted {
    logged: Arc<LoggedReferenceValues>,
    joined: Arc<ReferenceValues>,
}

impl Published {
    /// Nothing is published yet. `trust` is the network's own.
    #[must_use]
    pub fn new(mut trust: NetworkTrust) -> Self {
        // The log that files are looked up in here is this coordinator's own: its witnesses are for others.
        trust.log.witness_quorum = 0;
        let pinned = Arc::new(trust.reference_values.clone());
        Self { trust, pinned, newest: RwLock::default() }
    }

    /// Whether a file may be published, its version apart.
    ///
    /// # Errors
    /// Too few release keys signed it, it is of another network, or not in force.
    pub fn verify(&self, file: ReferenceFile, now: UnixTime) -> Result<SignedReferenceValues, ReferenceError> {
        let signed = file.without_place().verify_signatures(&self.trust)?;
        signed.in_force(now)?;
        Ok(signed)
    }

    /// A file is durable, as the entry with this index.
    pub fn keep(&self, role: Role, file: Arc<ReferenceFile>, index: u64) {
        let newest = Arc::new(Newest { file, index, counted: OnceLock::new() });
        self.newest.write().unwrap_or_else(PoisonError::into_inner).insert(role, newest);
    }

    fn newest(&self, role: Role) -> Option<Arc<Newest>> {
        self.newest.read().unwrap_or_else(PoisonError::into_inner).get(&role).cloned()
    }

    /// The newest file of a role, with its place under the latest checkpoint.
    ///
    /// # Errors
    /// `reference.unknown` where none was published; storage failures.
    pub async fn logged(&self, role: Role, log: &LogReader) -> Result<ReferenceFile, Refused> {
        let newest = self.newest(role).ok_or_else(|| {
            Refused::of(
                ProblemStatus::NotFound,
                Party::Network,
                "reference.unknown",
                format!("no reference values were published for {}s", role.name()),
                "use those that network.toml pins, or have some published: `starminer reference publish`",
            )
        })?;
        newest.logged(log).await
    }

    /// The values that count for agents: those that the trust file pins, and the newest published ones while they are in force.
    ///
    /// # Errors
    /// Storage failures.
    pub async fn agents(&self, log: &LogReader, now: UnixTime) -> Result<Arc<ReferenceValues>, Refused> {
        let Some(newest) = self.newest(Role::Agent) else { return Ok(self.pinned.clone()) };
        let counted = match newest.counted.get() {
            Some(counted) => counted.clone(),
            None => match self.count(newest.logged(log).await?, now) {
                Ok(counted) => newest.counted.get_or_init(|| counted).clone(),
                Err(error) => {
                    tracing::warn!(%error, "the newest published reference values do not count");
                    return Ok(self.pinned.clone());
                }
            },
        };
        let in_force = counted.logged.statement().in_force(now).is_ok();
        Ok(if in_force { counted.joined } else { self.pinned.clone() })
    }

    fn count(&self, file: ReferenceFile, now: UnixTime) -> Result<Counted, Box<dyn std::error::Error>> {
        let opening = Opening { trust: &self.trust, role: Role::Agent, now, newest_seen: None };
        let logged = file.verify_signatures(&self.trust)?.verify_logged(&opening)?;
        let joined = Arc::new(logged.with_pinned(&self.pinned)?);
        Ok(Counted { logged: Arc::new(logged), joined })
    }
}

impl Newest {
    async fn logged(&self, log: &LogReader) -> Result<ReferenceFile, Refused> {
        let proof = log.proof(self.index, 0).await?;
        let (Some(entry), Some(inclusion)) = (proof.entry, proof.inclusion) else { return Err(Refused::internal()) };
        Ok(ReferenceFile::clone(&self.file).with_place(LogPlace { entry, inclusion, checkpoint: proof.checkpoint }))
    }
}
