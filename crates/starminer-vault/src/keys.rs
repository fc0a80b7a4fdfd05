//! The key schedule: every key of a task from its 32-byte secret (`specs/vault.md`, section 2).
//!
//! HKDF-SHA256 (RFC 5869) with the random salt of the object or opening as its salt, and as its info a label and the
//! length-prefixed context. A key exists for one purpose, one task, one name and one salt; two that differ in any of
//! these are independent. Beside each encryption key stands a *key commitment*, because AES-GCM alone lets one
//! ciphertext be opened under two keys.
//!
//! Deliberately not here: randomness, storage of secrets, and passwords (the secret is uniformly random).

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::{constant_time, hkdf, hmac};
use zeroize::{Zeroize, Zeroizing};

/// Length of a task secret, of every key and of every commitment, in bytes.
pub const KEY_LEN: usize = 32;
/// Length of a salt in bytes.
pub const SALT_LEN: usize = 32;
/// Length of an AES-GCM tag in bytes.
pub const TAG_LEN: usize = 16;
/// Longest name of an object or scratch in bytes of UTF-8. A name goes into the key derivation whole.
pub const NAME_BYTES_MAX: usize = 1024;

const LABEL_OBJECT_KEY: &str = "starminer/vault/object-key/v1";
const LABEL_OBJECT_COMMITMENT: &str = "starminer/vault/object-commitment/v1";
const LABEL_SCRATCH_KEY: &str = "starminer/vault/scratch-key/v1";
const LABEL_SCRATCH_COMMITMENT: &str = "starminer/vault/scratch-commitment/v1";
const LABEL_PLAINTEXT_COMMITMENT: &str = "starminer/vault/plaintext-commitment/v1";

/// The root secret of one task: 32 uniformly random bytes, wiped when dropped.
///
/// It lives on the heap, so that moving the value leaves no copy behind. The same type carries the fresh secret that a
/// task's outputs are sealed under. `Debug` shows nothing of it.
pub struct TaskSecret {
    bytes: Box<Zeroizing<[u8; KEY_LEN]>>,
}

impl TaskSecret {
    /// Takes 32 bytes that a cryptographic generator made. The argument's own copy is wiped; copies that the caller
    /// made on the way are the caller's to wipe.
    pub fn from_bytes(mut bytes: [u8; KEY_LEN]) -> Self {
        let secret = Self { bytes: Box::new(Zeroizing::new(bytes)) };
        bytes.zeroize();
        secret
    }

    /// The secret itself, for sealing it to a key. The name is there to be searched for in review.
    pub fn expose(&self) -> &[u8; KEY_LEN] {
        &self.bytes
    }
}

impl fmt::Debug for TaskSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TaskSecret(redacted)")
    }
}

/// 32 fresh random bytes that make the keys of one object, or of one opening of a scratch, its own. Public once used.
///
/// Neither `Copy` nor `Clone`: a salt that seals two objects under one name would reuse every nonce.
#[derive(Debug, PartialEq, Eq)]
pub struct Salt([u8; SALT_LEN]);

impl Salt {
    /// Takes bytes that a cryptographic generator has just made and that nothing else will use.
    pub fn from_random(bytes: [u8; SALT_LEN]) -> Self {
        Self(bytes)
    }

    pub(crate) fn as_bytes(&self) -> &[u8; SALT_LEN] {
        &self.0
    }
}

/// What a key is for. Part of every derivation, so that keys of two purposes never coincide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Purpose {
    /// An input of a task, sealed by the requester.
    Input,
    /// An output or log of a task, sealed by the task process.
    Output,
    /// Intermediate state of a running task.
    Scratch,
    /// A stand-alone file, sealed by its owner on the command line.
    File,
}

impl Purpose {
    /// The byte that stands for the purpose in key derivations.
    pub fn code(self) -> u8 {
        match self {
            Purpose::Input => 1,
            Purpose::Output => 2,
            Purpose::Scratch => 3,
            Purpose::File => 4,
        }
    }
}

/// Commits to a plaintext without revealing anything about it: HMAC-SHA256, under a key derived from the task's
/// secret, of a label and the plaintext's SHA-256. Whoever has the secret can check it; nobody else can test a guess.
///
/// `label` says what the plaintext is, e.g. `input/data.csv`. `plain_sha256` is the digest of the whole plaintext.
/// (`specs/vault.md`, section 2.3)
pub fn commit(secret: &TaskSecret, task: &[u8; 16], label: &str, plain_sha256: &[u8; 32]) -> [u8; KEY_LEN] {
    let key = expand(
        &hkdf::Salt::none(hkdf::HKDF_SHA256).extract(secret.expose()),
        &info(LABEL_PLAINTEXT_COMMITMENT, &[task]),
    );
    let mut mac = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key.as_slice()));
    for field in [label.as_bytes(), plain_sha256] {
        mac.update(&field_len(field));
        mac.update(field);
    }
    let mut commitment = [0; KEY_LEN];
    commitment.copy_from_slice(mac.sign().as_ref());
    commitment
}

/// An AES-256-GCM key and the public commitment to it.
pub(crate) struct CommittedKey {
    key: LessSafeKey,
    commitment: [u8; KEY_LEN],
}

impl CommittedKey {
    /// The keys of one object: `fixed` is the part of its header before the salt (`specs/vault.md`, section 2.1).
    pub(crate) fn for_object(
        secret: &TaskSecret,
        salt: &[u8; SALT_LEN],
        fixed: &[u8],
        task: &[u8; 16],
        purpose: Purpose,
        name: &str,
    ) -> Self {
        let context: [&[u8]; 4] = [fixed, task, &[purpose.code()], name.as_bytes()];
        Self::derive(secret, salt, &info(LABEL_OBJECT_KEY, &context), &info(LABEL_OBJECT_COMMITMENT, &context))
    }

    /// The keys of one opening of a scratch (`specs/vault.md`, section 2.2).
    pub(crate) fn for_scratch(secret: &TaskSecret, salt: &[u8; SALT_LEN], task: &[u8; 16], name: &str) -> Self {
        let context: [&[u8]; 3] = [task, &[Purpose::Scratch.code()], name.as_bytes()];
        Self::derive(secret, salt, &info(LABEL_SCRATCH_KEY, &context), &info(LABEL_SCRATCH_COMMITMENT, &context))
    }

    fn derive(secret: &TaskSecret, salt: &[u8; SALT_LEN], key_info: &[u8], commitment_info: &[u8]) -> Self {
        let prk = hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(secret.expose());
        let key = expand(&prk, key_info);
        let commitment = *expand(&prk, commitment_info);
        let key = UnboundKey::new(&AES_256_GCM, key.as_slice()).expect("AES-256-GCM takes a key of 32 bytes");
        Self { key: LessSafeKey::new(key), commitment }
    }

    pub(crate) fn commitment(&self) -> &[u8; KEY_LEN] {
        &self.commitment
    }

    /// Whether `commitment` is the one of this key, compared in constant time.
    pub(crate) fn matches(&self, commitment: &[u8; KEY_LEN]) -> bool {
        constant_time::verify_slices_are_equal(&self.commitment, commitment).is_ok()
    }

    /// Encrypts in place and returns the tag. The caller guarantees that this key has never sealed with this nonce.
    pub(crate) fn seal_in_place(&self, nonce: [u8; 12], aad: &[u8], in_out: &mut [u8]) -> [u8; TAG_LEN] {
        let tag = self
            .key
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(aad), in_out)
            .expect("AES-256-GCM seals whatever is shorter than 64 GiB");
        let mut bytes = [0; TAG_LEN];
        bytes.copy_from_slice(tag.as_ref());
        bytes
    }

    /// Encrypts `plain` into `sealed`, which is as long, and returns the tag. Same duty on the nonce as above.
    pub(crate) fn seal_to(&self, nonce: [u8; 12], aad: &[u8], plain: &[u8], sealed: &mut [u8]) -> [u8; TAG_LEN] {
        let mut tag = [0; TAG_LEN];
        self.key
            .seal_out_of_place_scatter(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(aad),
                plain,
                sealed,
                &[],
                &mut tag,
            )
            .expect("both buffers have one length, shorter than 64 GiB");
        tag
    }

    /// Decrypts in place; when the tag does not match, wipes the buffer and returns false.
    #[must_use]
    pub(crate) fn open_in_place(&self, nonce: [u8; 12], aad: &[u8], tag: &[u8], in_out: &mut [u8]) -> bool {
        let opened = self
            .key
            .open_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(aad), tag, in_out)
            .is_ok();
        if !opened {
            in_out.fill(0);
        }
        opened
    }

    /// Decrypts `sealed` into `plain`, which is as long; when the tag does not match, wipes `plain` and returns false.
    #[must_use]
    pub(crate) fn open_to(&self, nonce: [u8; 12], aad: &[u8], tag: &[u8], sealed: &[u8], plain: &mut [u8]) -> bool {
        let opened = self
            .key
            .open_separate_gather(Nonce::assume_unique_for_key(nonce), Aad::from(aad), sealed, tag, plain)
            .is_ok();
        if !opened {
            plain.fill(0);
        }
        opened
    }
}

impl fmt::Debug for CommittedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CommittedKey(redacted)")
    }
}

/// `label ‖ 0x00`, then each field as u32-BE length and bytes: no two contexts encode alike.
fn info(label: &str, fields: &[&[u8]]) -> Vec<u8> {
    let mut info = Vec::with_capacity(160);
    info.extend_from_slice(label.as_bytes());
    info.push(0);
    for field in fields {
        info.extend_from_slice(&field_len(field));
        info.extend_from_slice(field);
    }
    info
}

fn field_len(field: &[u8]) -> [u8; 4] {
    u32::try_from(field.len()).expect("names are bounded and labels short").to_be_bytes()
}

fn expand(prk: &hkdf::Prk, info: &[u8]) -> Zeroizing<[u8; KEY_LEN]> {
    let mut out = Zeroizing::new([0; KEY_LEN]);
    prk.expand(&[info], hkdf::HKDF_SHA256)
        .and_then(|okm| okm.fill(out.as_mut_slice()))
        .expect("32 bytes are within what HKDF-SHA256 gives");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const TASK: [u8; 16] = [7; 16];

    fn secret(byte: u8) -> TaskSecret {
        TaskSecret::from_bytes([byte; 32])
    }

    #[test]
    fn debug_shows_no_secret() {
        assert_eq!(format!("{:?}", secret(0xab)), "TaskSecret(redacted)");
        let key = CommittedKey::for_scratch(&secret(0xab), &[1; 32], &TASK, "x");
        assert_eq!(format!("{key:?}"), "CommittedKey(redacted)");
    }

    #[test]
    fn every_field_changes_the_commitment() {
        let object = |secret_byte, salt: u8, fixed: &[u8], task: u8, purpose, name: &str| {
            *CommittedKey::for_object(&secret(secret_byte), &[salt; 32], fixed, &[task; 16], purpose, name).commitment()
        };
        let mut seen = vec![
            object(1, 1, b"h", 1, Purpose::Input, "a"),
            object(2, 1, b"h", 1, Purpose::Input, "a"),
            object(1, 2, b"h", 1, Purpose::Input, "a"),
            object(1, 1, b"i", 1, Purpose::Input, "a"),
            object(1, 1, b"h", 2, Purpose::Input, "a"),
            object(1, 1, b"h", 1, Purpose::Output, "a"),
            object(1, 1, b"h", 1, Purpose::Scratch, "a"),
            object(1, 1, b"h", 1, Purpose::File, "a"),
            object(1, 1, b"h", 1, Purpose::Input, "b"),
            object(1, 1, b"h", 1, Purpose::Input, ""),
        ];
        for scratch in [("a", 1), ("b", 1), ("a", 2)] {
            seen.push(*CommittedKey::for_scratch(&secret(1), &[1; 32], &[scratch.1; 16], scratch.0).commitment());
        }
        let all = seen.len();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), all);
    }

    #[test]
    fn commitments_depend_on_secret_task_label_and_plaintext() {
        let base = commit(&secret(1), &TASK, "input/a", &[9; 32]);
        assert_eq!(base, commit(&secret(1), &TASK, "input/a", &[9; 32]));
        assert_ne!(base, commit(&secret(2), &TASK, "input/a", &[9; 32]));
        assert_ne!(base, commit(&secret(1), &[8; 16], "input/a", &[9; 32]));
        assert_ne!(base, commit(&secret(1), &TASK, "input/b", &[9; 32]));
        assert_ne!(base, commit(&secret(1), &TASK, "input/a", &[8; 32]));
    }

    #[test]
    fn a_failed_open_leaves_nothing_in_the_buffer() {
        let key = CommittedKey::for_scratch(&secret(1), &[1; 32], &TASK, "x");
        let mut data = *b"sixteen bytes!!!";
        let mut tag = key.seal_in_place([0; 12], b"aad", &mut data);
        tag[0] ^= 1;
        let mut plain = [0xff; 16];
        assert!(!key.open_to([0; 12], b"aad", &tag, &data, &mut plain));
        assert_eq!(plain, [0; 16]);
        assert!(!key.open_in_place([0; 12], b"aad", &tag, &mut data));
        assert_eq!(data, [0; 16]);
    }
}
