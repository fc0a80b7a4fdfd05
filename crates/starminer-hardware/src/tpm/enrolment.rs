//! Enrolment of a TPM, the half of whoever admits it: is this attestation key in the TPM that the maker certified?
//!
//! The node sends the certificate of its endorsement key, that key and its attestation key, all public. If the
//! certificate chains to a root ([`super::ek::verify`]) and the keys are what they should be, it gets a credential;
//! whoever sends back the secret in it has both keys in one TPM. Who asks draws the secret and keeps it with the key's
//! name until the answer comes; it is good for one answer.

use aws_lc_rs::constant_time::verify_slices_are_equal;

use super::{
    Public,
    credential::{Credential, CredentialError, Randomness, make_credential},
    ek,
    quote::ak_attributes,
};
use crate::Checks;

/// Bytes of the secret in a credential: what fits every endorsement key.
pub const SECRET_BYTES: usize = 32;

/// All checks, and the credential if they hold.
#[derive(Debug, Clone)]
pub struct Challenge {
    /// Every check that was made.
    pub checks: Checks,
    /// What to send to the node. Only where all checks passed.
    pub credential: Option<Credential>,
}

/// Makes the credential for an attestation key, if certificate, endorsement key and attestation key are good.
///
/// # Errors
/// Where a good endorsement key cannot be encrypted to, or the ephemeral key is out of range.
pub fn challenge(
    certificate: &ek::Verified,
    ek: &Public,
    ak: &Public,
    secret: &[u8; SECRET_BYTES],
    randomness: Randomness,
) -> Result<Challenge, CredentialError> {
    let mut checks = certificate.endorses(ek);
    ak_attributes(&mut checks, ak);
    let credential = if checks.hold() { Some(make_credential(ek, &ak.name(), secret, randomness)?) } else { None };
    Ok(Challenge { checks, credential })
}

/// Judges the node's answer: `tpm.activation` holds if it is the secret (compared in constant time).
#[must_use]
pub fn confirm(secret: &[u8; SECRET_BYTES], answer: &[u8]) -> Checks {
    let mut checks = Checks::new();
    checks.require(
        "tpm.activation",
        match verify_slices_are_equal(secret, answer) {
            Ok(()) => Ok("the TPM with the certified endorsement key holds the attestation key"),
            Err(_) => Err("the answer is not the credential's secret: the keys are not in one TPM"),
        },
    );
    checks
}
