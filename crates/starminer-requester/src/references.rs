//! Published reference values: fetched, verified by the home's own trust, and the newest version remembered.
//!
//! Three things are asked of an answer: it verifies as `starminer_receipt::SignedReferenceValues` demands, it is no older than what this
//! home has seen, and its checkpoint continues the log that this home remembers.

use std::path::Path;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use starminer_receipt::{
    LoggedReferenceValues, Opening, ReferenceError, ReferenceFile, Role, SeenReferences, SignedReferenceValues,
};
use starminer_verify::{NetworkId, Party, ReferenceValues, Refusal};

use crate::home::HomeError;
use crate::requester::{Requester, RequesterError};

/// Longest memory of what was seen.
const MAX_MEMORY_BYTES: usize = 1024;

/// What a file says that remembers the newest version of a role's reference values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReferenceMemory {
    /// The network.
    pub network: NetworkId,
    /// The role.
    pub role: Role,
    /// The newest version that was seen.
    pub seen: SeenReferences,
}

impl ReferenceMemory {
    /// Reads a memory; `None` where nothing was seen yet. One that cannot be read is no reason to forget.
    ///
    /// # Errors
    /// [`HomeError::Io`]; [`HomeError::References`] where it is of another network or role, or not a memory.
    pub fn read(path: &Path, network: NetworkId, role: Role) -> Result<Option<Self>, HomeError> {
        let bytes = match crate::home::read_bounded(path, MAX_MEMORY_BYTES) {
            Ok(bytes) => bytes,
            Err(source) if source.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(HomeError::Io { path: path.into(), source }),
        };
        let memory = serde_json::from_slice::<Self>(&bytes).ok();
        let memory = memory.filter(|memory| memory.network == network && memory.role == role);
        memory.map(Some).ok_or_else(|| HomeError::References { path: path.into() })
    }

    /// The file's bytes.
    ///
    /// # Panics
    /// Never: a memory is strings and numbers.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a memory is strings and numbers")
    }
}

/// What a network has published for a role.
#[derive(Debug, Clone)]
pub enum PublishedValues {
    /// Nothing; or the trust file names no release keys, so that nobody's values count.
    Nothing,
    /// Values that do not count at this time.
    NotAtThisTime(ReferenceError),
    /// Values that count.
    Count(Box<LoggedReferenceValues>),
}

impl Requester {
    /// Fetches and verifies what the network has published for a role.
    ///
    /// # Errors
    /// The coordinator cannot be reached; what it gives does not verify, is older than what this home has seen, or stands in another log.
    pub async fn published(&self, role: Role) -> Result<PublishedValues, RequesterError> {
        if self.network().release_keys().is_empty() {
            return Ok(PublishedValues::Nothing);
        }
        match self.client().references(role).await? {
            Some(file) => self.take_published(&file, role).await,
            None => match self.seen_references(role)? {
                None => Ok(PublishedValues::Nothing),
                Some(seen) => Err(RequesterError::Refused(Refusal::new(
                    Party::Coordinator,
                    "reference.withheld",
                    format!(
                        "the coordinator says that none were published, and version {} was seen before",
                        seen.version
                    ),
                    "ask its operator where it went; it may be hiding a newer one, too",
                ))),
            },
        }
    }

    /// Has a file published that enough release keys signed, and verifies that the log has it.
    ///
    /// # Errors
    /// It does not count by this home's own trust; the coordinator refuses it; those of [`Self::published`].
    pub async fn publish(&self, file: &ReferenceFile) -> Result<PublishedValues, RequesterError> {
        let signed = file.clone().without_place().verify_signatures(self.network()).map_err(refused)?;
        signed.in_force(self.now()).map_err(refused)?;
        let answer = self.client().publish_references(Bytes::from(signed.file().encode())).await?;
        self.take_published(&answer, signed.role()).await
    }

    async fn take_published(&self, file: &[u8], role: Role) -> Result<PublishedValues, RequesterError> {
        let (trust, now, newest_seen) = (self.network(), self.now(), self.seen_references(role)?);
        let values = match SignedReferenceValues::open(file, &Opening { trust, role, now, newest_seen }) {
            Ok(values) => values,
            Err(error) if error.is_of_time() => return Ok(PublishedValues::NotAtThisTime(error)),
            Err(error) => return Err(refused(error)),
        };
        if let Some(place) = values.file().place() {
            self.see_checkpoint(&place.checkpoint).await?;
        }
        let memory = ReferenceMemory { network: trust.network, role, seen: values.seen() };
        tokio::task::block_in_place(|| self.home().remember_references(&memory))?;
        Ok(PublishedValues::Count(Box::new(values)))
    }

    fn seen_references(&self, role: Role) -> Result<Option<SeenReferences>, RequesterError> {
        let memory = tokio::task::block_in_place(|| self.home().seen_references(self.network().network, role))?;
        Ok(memory.map(|memory| memory.seen))
    }

    /// The values that count for brokers: those that the trust file pins, and those that were published for brokers.
    pub(crate) async fn broker_values(&self) -> Result<ReferenceValues, RequesterError> {
        let pinned = &self.network().reference_values;
        match self.published(Role::Broker).await? {
            PublishedValues::Count(values) => join_pinned(&values, pinned),
            PublishedValues::Nothing | PublishedValues::NotAtThisTime(_) => Ok(pinned.clone()),
        }
    }
}

/// Published values and those that a trust file pins.
///
/// # Errors
/// They are more than one set takes.
pub fn join_pinned(
    values: &LoggedReferenceValues,
    pinned: &ReferenceValues,
) -> Result<ReferenceValues, RequesterError> {
    values.with_pinned(pinned).map_err(|error| {
        RequesterError::Refused(Refusal::new(
            Party::Requester,
            "reference.values",
            error.to_string(),
            "pin fewer values in network.toml",
        ))
    })
}

fn refused(error: ReferenceError) -> RequesterError {
    let reason = starminer_client::error_chain(&error);
    RequesterError::Refused(Refusal::new(Party::Network, error.code(), reason, error.remedy()))
}
