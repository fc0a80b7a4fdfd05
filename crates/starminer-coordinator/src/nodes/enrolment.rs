//! Enrolment of TPMs: credentials that were sent, and what their answers show.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use starminer_receipt::{Base64Bytes, EnrolmentStatement};
use starminer_verify::{
    ACTIVATION_SECRET_BYTES, AkName, CredentialRandomness, Digest, Endorsements, NetworkId, NodeId, OfferedTpm, Party,
    PublicKey, Refusal, SimulatedRootId, TpmOffer, TrustAnchors, UnixTime, Verified, is_activated, offer_credential,
};
use starminer_wire::{EnrolmentChallenge, EnrolmentRequest};
use zeroize::Zeroizing;

use crate::clock::{NoRandomness, Randomness};

/// How long an answer is taken: making a key takes a discrete TPM up to a minute.
const ANSWER_MS: u64 = 5 * 60_000;
/// Most credentials that wait at a time; the oldest give way.
const WAITING_BOUND: usize = 1_024;

/// A credential that was sent.
struct Waiting {
    secret: Zeroizing<[u8; ACTIVATION_SECRET_BYTES]>,
    ak_name: AkName,
    ek_certificate: Digest,
    simulated_root: Option<SimulatedRootId>,
    sent_at: UnixTime,
}

/// The credentials that wait for their answers, one for each identity.
#[derive(Default)]
pub(super) struct Credentials {
    waiting: Mutex<HashMap<PublicKey, Waiting>>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials(…)")
    }
}

/// Why no credential is sent.
pub(super) enum NoCredential {
    /// The offer does not hold.
    Refused(Refusal),
    /// There is no randomness.
    Randomness(NoRandomness),
}

impl Credentials {
    /// Makes a credential for what a node offers; an earlier one of the same identity is void.
    pub(super) fn make(
        &self,
        node: PublicKey,
        request: &EnrolmentRequest,
        (endorsements, anchors): (&Endorsements, &TrustAnchors),
        randomness: &dyn Randomness,
        now: UnixTime,
    ) -> Result<EnrolmentChallenge, NoCredential> {
        let secret = Zeroizing::new(randomness.draw().map_err(NoCredential::Randomness)?);
        let wide = || -> Result<Zeroizing<[u8; 64]>, NoCredential> {
            let mut bytes = Zeroizing::new([0; 64]);
            for half in bytes.chunks_exact_mut(32) {
                half.copy_from_slice(&*Zeroizing::new(randomness.draw().map_err(NoCredential::Randomness)?));
            }
            Ok(bytes)
        };
        let credential = CredentialRandomness { seed: wide()?, ephemeral: wide()? };
        let certificates: Vec<&[u8]> = request.certificates.iter().map(|der| der.0.as_slice()).collect();
        let offer =
            TpmOffer { certificates: &certificates, ek_public: &request.ek_public.0, ak_public: &request.ak_public.0 };
        let OfferedTpm { ak_name, ek_certificate, simulated_root, credential } =
            offer_credential(offer, endorsements, anchors, &secret, credential, now).map_err(NoCredential::Refused)?;
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() >= WAITING_BOUND && !waiting.contains_key(&node) {
            let oldest = waiting.iter().min_by_key(|(_, wait)| wait.sent_at).map(|(key, _)| *key);
            if let Some(oldest) = oldest {
                waiting.remove(&oldest);
            }
        }
        waiting.insert(node, Waiting { secret, ak_name, ek_certificate, simulated_root, sent_at: now });
        Ok(EnrolmentChallenge {
            credential_blob: Base64Bytes(credential.credential_blob),
            encrypted_secret: Base64Bytes(credential.encrypted_secret),
            expires_at: now.saturating_add_millis(ANSWER_MS),
        })
    }

    /// Judges an answer. The credential is consumed, whatever the answer is.
    pub(super) fn take(&self, node: PublicKey, answer: &[u8], now: UnixTime) -> Result<Activated, Refusal> {
        let refused = |check, reason| {
            let remedy = "offer the TPM at /v1/node/enrolment again, and answer with the secret of that credential";
            Refusal::new(Party::Node, check, reason, remedy)
        };
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&node);
        let waiting = waiting
            .filter(|wait| now < wait.sent_at.saturating_add_millis(ANSWER_MS))
            .ok_or_else(|| refused("enrolment.no-credential", "no credential of this identity waits, or it expired"))?;
        if !is_activated(&waiting.secret, answer) {
            return Err(refused("tpm.activation", "the answer is not the secret: the keys are not in one TPM"));
        }
        Ok(Activated {
            ak_name: waiting.ak_name,
            ek_certificate: waiting.ek_certificate,
            simulated_root: waiting.simulated_root,
        })
    }
}

/// A TPM whose keys belong together.
#[derive(Debug)]
pub(super) struct Activated {
    pub(super) ak_name: AkName,
    ek_certificate: Digest,
    simulated_root: Option<SimulatedRootId>,
}

impl Activated {
    /// The statement about it, for the node whose evidence quoted with that very key; the chip whose evidence came with it is enrolled along.
    pub(super) fn statement(
        &self,
        network: NetworkId,
        node: NodeId,
        evidence: &Verified,
        enroller: PublicKey,
        now: UnixTime,
    ) -> Result<EnrolmentStatement, Refusal> {
        if evidence.binding().ak_name.as_ref() != Some(&self.ak_name) {
            return Err(Refusal::new(
                Party::Node,
                "enrolment.other-key",
                "the evidence is quoted with another key than the one that was activated",
                "send evidence of the key that was offered",
            ));
        }
        Ok(EnrolmentStatement {
            network,
            node,
            ak_name: Base64Bytes(self.ak_name.as_bytes().to_vec()),
            ek_certificate: self.ek_certificate,
            simulated_root: self.simulated_root,
            chip: evidence.device().chip(),
            enrolled_at: now,
            enroller,
        })
    }
}
