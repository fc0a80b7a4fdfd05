//! What speaks for a node beside its evidence: the enrolment of its TPM, and what facilities state of its chip.
//!
//! The enrolment is kept over restarts together with the name of the endorsement key that it is about, so that at the next start no other TPM is
//! taken for this one ([`KeptEnrolment::known_ek`]), and the conversation is not held again. Nothing of it is secret. Specification: `specs/node.md`,
//! section "Enrolment".

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use starminer_attester::NodeTpm;
use starminer_attester::tpm::KnownEk;
use starminer_receipt::{EnrolmentStatement, Envelope};
use starminer_verify::{Digest, NetworkId, NodeId};

use crate::config::write_file;
use crate::error::AgentError;
use crate::hardware::read;

const FORMAT: &str = "starminer-enrolment/v1";
/// Largest file, in bytes.
const MAX_FILE_BYTES: u64 = 64 * 1024;
/// Longest name of a key: an algorithm and a hash.
const MAX_NAME_BYTES: usize = 66;

/// The file of an enrolment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeptEnrolment {
    format: String,
    /// Name of the endorsement key, in hexadecimal.
    ek_name: String,
    /// The signed `EnrolmentStatement`.
    enrolment: Envelope,
}

impl KeptEnrolment {
    /// Reads the file, if there is one.
    ///
    /// # Errors
    /// Where it cannot be read, or is no such file. A damaged file is not passed over: it says which TPM this node has.
    pub fn load(path: &Path) -> Result<Option<Self>, AgentError> {
        let bytes = match read(path, MAX_FILE_BYTES) {
            Err(AgentError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let kept: Self = serde_json::from_slice(&bytes).map_err(|_| AgentError::Enrolment { path: path.into() })?;
        let named =
            HEXLOWER.decode(kept.ek_name.as_bytes()).is_ok_and(|name| (1..=MAX_NAME_BYTES).contains(&name.len()));
        if kept.format != FORMAT || !named {
            return Err(AgentError::Enrolment { path: path.into() });
        }
        Ok(Some(kept))
    }

    /// The TPM that it is about: nobody else is talked to.
    pub fn known_ek(&self) -> KnownEk {
        // Read and seen to be hexadecimal when it was loaded.
        KnownEk::Name(HEXLOWER.decode(self.ek_name.as_bytes()).unwrap_or_default())
    }
}

/// An enrolment that this node has no use for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EnrolmentFault {
    #[error("the enrolment is not signed as it says")]
    Envelope,
    #[error("the enrolment is for another network")]
    Network,
    #[error("the enrolment is another node's")]
    Node,
    #[error("the enrolment is of another attestation key")]
    AttestationKey,
    #[error("the enrolment is of another endorsement key")]
    EndorsementKey,
}

/// The statements that travel with this node's evidence.
#[derive(Debug, Default)]
pub struct Statements {
    /// Where the enrolment is kept; nowhere in a node without a TPM.
    path: Option<PathBuf>,
    facilities: Vec<Envelope>,
    held: Mutex<Option<Envelope>>,
}

impl Statements {
    /// Those of facilities alone.
    pub fn new(facilities: Vec<Envelope>) -> Self {
        Self { path: None, facilities, held: Mutex::default() }
    }

    /// With a place for the enrolment, and what was kept there.
    #[must_use]
    pub fn with_enrolment(mut self, path: PathBuf, kept: Option<KeptEnrolment>) -> Self {
        self.path = Some(path);
        self.held = Mutex::new(kept.map(|kept| kept.enrolment));
        self
    }

    fn held(&self) -> MutexGuard<'_, Option<Envelope>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is an enrolment of this very key.
    pub(crate) fn is_enrolled(&self, tpm: &NodeTpm, network: NetworkId, node: NodeId) -> bool {
        self.held().as_ref().is_some_and(|held| check(held, tpm, network, node).is_ok())
    }

    /// All of them. An enrolment that was not checked against the TPM is not there: [`Self::forget`] takes it away.
    pub(crate) fn all(&self) -> Vec<Envelope> {
        self.held().iter().chain(&self.facilities).cloned().collect()
    }

    /// Sends the enrolment along no more. Its file stays until a new one takes its place, as it says which TPM this is.
    pub(crate) fn forget(&self) {
        *self.held() = None;
    }

    /// Keeps an enrolment, durably, if it is of this network, node and TPM.
    pub(crate) fn keep(
        &self,
        envelope: &Envelope,
        tpm: &NodeTpm,
        network: NetworkId,
        node: NodeId,
    ) -> Result<(), KeepError> {
        check(envelope, tpm, network, node)?;
        if self.held().as_ref() == Some(envelope) {
            return Ok(());
        }
        if let Some(path) = &self.path {
            let kept = KeptEnrolment {
                format: FORMAT.into(),
                ek_name: HEXLOWER.encode(tpm.ek_name()),
                enrolment: envelope.clone(),
            };
            let mut text = serde_json::to_vec(&kept).map_err(|_| EnrolmentFault::Envelope)?;
            text.push(b'\n');
            write_file(path, &text).map_err(KeepError::File)?;
        }
        *self.held() = Some(envelope.clone());
        Ok(())
    }
}

/// An enrolment was not kept.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeepError {
    #[error(transparent)]
    Fault(#[from] EnrolmentFault),
    #[error("the enrolment could not be written")]
    File(#[source] AgentError),
}

/// Whether it is of this network, node and TPM. Who may enrol is for whoever verifies evidence to say.
fn check(envelope: &Envelope, tpm: &NodeTpm, network: NetworkId, node: NodeId) -> Result<(), EnrolmentFault> {
    let statement = envelope.clone().open::<EnrolmentStatement>().map_err(|_| EnrolmentFault::Envelope)?;
    let certificate = tpm.certificates().first().map(|certificate| Digest::of(certificate));
    let rules = [
        (statement.network == network, EnrolmentFault::Network),
        (statement.node == node, EnrolmentFault::Node),
        (statement.ak_name.0 == tpm.ak_name().as_bytes(), EnrolmentFault::AttestationKey),
        (Some(statement.ek_certificate) == certificate, EnrolmentFault::EndorsementKey),
    ];
    rules.into_iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, fault)| Err(fault))
}
