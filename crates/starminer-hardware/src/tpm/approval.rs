//! Approvals of a TPM's policies: what the maker of an image signs, so that its successors open what it sealed (`TPM2_PolicyAuthorize`).
//!
//! Pure: digests as a TPM makes them in a policy session (Part 3, 23), and signatures that it verifies. The commands are `starminer_attester::tpm`'s, the
//! form of the file and what it is for `specs/disk.md`'s.

use aws_lc_rs::{
    digest,
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, UnparsedPublicKey,
    },
};

use data_encoding::BASE64;
use serde::{Deserialize, Serialize};

use super::HashAlg;

/// `TPM_CC_PolicyPCR`.
const POLICY_PCR: u32 = 0x17f;
/// Before the point in a `SubjectPublicKeyInfo` of a key on P-256 (RFC 5480): algorithm, curve, bit string.
const SPKI_P256: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
/// An uncompressed point: 4, x, y.
const POINT_BYTES: usize = 65;

/// First field of [`DiskPolicy`] as a file.
pub const DISK_POLICY_FORMAT: &str = "starminer-disk-policy/1";
/// First field of [`Approvals`] as a file.
pub const APPROVALS_FORMAT: &str = "starminer-disk-approvals/1";
/// Highest security version: it counts holes that were closed, not releases.
pub const MAX_SECURITY_VERSION: u32 = 255;

/// What an approval is for: disks of images of this security version.
#[must_use]
pub fn disk_reference(security_version: u32) -> [u8; 32] {
    sha256(&[b"starminer/disk/v1\0", &security_version.to_be_bytes()])
}

/// What an image says about its disk. It is part of what is measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskPolicy {
    /// Whose approvals count.
    pub key: ApprovalKey,
    /// Disks that it seals open to images that are approved for this.
    pub security_version: u32,
}

/// What travels beside an image, since it is over what was measured of it: an approval for disks of each security version from 0 to its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approvals(Vec<[u8; 64]>);

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PolicyFile {
    format: String,
    key: String,
    security_version: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ApprovalsFile {
    format: String,
    approvals: Vec<String>,
}

impl DiskPolicy {
    /// From its file. `None` where it is none.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let file: PolicyFile = serde_json::from_slice(bytes).ok()?;
        let key = ApprovalKey::from_spki(&BASE64.decode(file.key.as_bytes()).ok()?)?;
        let known = file.format == DISK_POLICY_FORMAT && file.security_version <= MAX_SECURITY_VERSION;
        known.then_some(Self { key, security_version: file.security_version })
    }

    /// As a file.
    ///
    /// # Panics
    /// Never: there is nothing in it that JSON does not have.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let key = BASE64.encode(&self.key.to_spki());
        let file = PolicyFile { format: DISK_POLICY_FORMAT.into(), key, security_version: self.security_version };
        serde_json::to_vec(&file).expect("text and a number")
    }
}

impl Approvals {
    /// Approves an image by what register 11 holds of it. `None` where the system gives no randomness, or the version is too high.
    #[must_use]
    pub fn make(signer: &ApprovalSigner, register_11: &[u8; 32], security_version: u32) -> Option<Self> {
        if security_version > MAX_SECURITY_VERSION {
            return None;
        }
        let policy = policy_of_register(11, register_11);
        let each = (0..=security_version).map(|version| signer.approve(&policy, &disk_reference(version)));
        each.collect::<Option<_>>().map(Self)
    }

    /// The one for disks of this version.
    #[must_use]
    pub fn of(&self, security_version: u32) -> Option<&[u8; 64]> {
        self.0.get(usize::try_from(security_version).ok()?)
    }

    /// From its file, behind which zeroes may stand. `None` where it is none.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let file: ApprovalsFile = serde_json::from_slice(bytes.get(..end)?).ok()?;
        let bounded = file.format == APPROVALS_FORMAT && file.approvals.len() <= MAX_SECURITY_VERSION as usize + 1;
        let read = |text: &String| BASE64.decode(text.as_bytes()).ok()?.try_into().ok();
        bounded.then(|| file.approvals.iter().map(read).collect::<Option<_>>()).flatten().map(Self)
    }

    /// As a file.
    ///
    /// # Panics
    /// Never: there is nothing in it that JSON does not have.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let approvals = self.0.iter().map(|signature| BASE64.encode(signature)).collect();
        serde_json::to_vec(&ApprovalsFile { format: APPROVALS_FORMAT.into(), approvals }).expect("text")
    }
}

/// The digest of a policy session that a register of the SHA-256 bank was asked of, and nothing else.
#[must_use]
pub fn policy_of_register(register: u8, value: &[u8; 32]) -> [u8; 32] {
    // TPML_PCR_SELECTION of one bank with three bytes of registers.
    let mut selection = vec![0, 0, 0, 1];
    selection.extend(HashAlg::Sha256.id().to_be_bytes());
    selection.push(3);
    let bits = 1_u32.checked_shl(register.into()).unwrap_or_default().to_le_bytes();
    selection.extend(&bits[..3]);
    sha256(&[&[0; 32], &POLICY_PCR.to_be_bytes(), &selection, &sha256(&[value])])
}

/// What an approval of this policy signs (Part 3, 23.16): `H(policy ‖ reference)`, signed as a digest.
#[must_use]
pub fn approved(policy: &[u8; 32], reference: &[u8; 32]) -> Vec<u8> {
    [policy.as_slice(), reference].concat()
}

/// A key whose approvals count: ECDSA on P-256, which every TPM verifies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApprovalKey([u8; POINT_BYTES]);

impl ApprovalKey {
    /// From a `SubjectPublicKeyInfo`. `None` where it is no key on P-256.
    #[must_use]
    pub fn from_spki(spki: &[u8]) -> Option<Self> {
        let point: [u8; POINT_BYTES] = spki.strip_prefix(&SPKI_P256)?.try_into().ok()?;
        (point[0] == 4).then_some(Self(point))
    }

    /// As a `SubjectPublicKeyInfo`.
    #[must_use]
    pub fn to_spki(&self) -> Vec<u8> {
        [&SPKI_P256[..], &self.0].concat()
    }

    /// Both coordinates.
    #[must_use]
    pub fn coordinates(&self) -> (&[u8], &[u8]) {
        self.0[1..].split_at(32)
    }

    /// Whether `signature` (r and s) approves this policy under this reference.
    #[must_use]
    pub fn approves(&self, policy: &[u8; 32], reference: &[u8; 32], signature: &[u8]) -> bool {
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &self.0);
        key.verify(&approved(policy, reference), signature).is_ok()
    }
}

/// The half of an [`ApprovalKey`] that its maker keeps.
pub struct ApprovalSigner(EcdsaKeyPair);

/// No key on P-256 in PKCS #8.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no private key on P-256 in PKCS #8")]
pub struct NoApprovalKey;

impl ApprovalSigner {
    /// From PKCS #8.
    ///
    /// # Errors
    /// Where it is none.
    pub fn from_pkcs8(pkcs8: &[u8]) -> Result<Self, NoApprovalKey> {
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8).map(Self).map_err(|_| NoApprovalKey)
    }

    /// The public half.
    ///
    /// # Panics
    /// Never: keys on P-256 have one form.
    #[must_use]
    pub fn key(&self) -> ApprovalKey {
        ApprovalKey(self.0.public_key().as_ref().try_into().expect("an uncompressed point on P-256 has 65 bytes"))
    }

    /// Approves this policy under this reference: r and s. `None` where the system gives no randomness.
    #[must_use]
    pub fn approve(&self, policy: &[u8; 32], reference: &[u8; 32]) -> Option<[u8; 64]> {
        // The library makes a nonce of its own; nothing that is named by what it signs depends on it.
        self.0.sign(&SystemRandom::new(), &approved(policy, reference)).ok()?.as_ref().try_into().ok()
    }
}

fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    parts.iter().for_each(|part| context.update(part));
    let mut result = [0; 32];
    result.copy_from_slice(context.finish().as_ref());
    result
}
