//! Names and Ed25519 keys of logs and witnesses, and their vkey form (C2SP signed-note; tlog-cosignature for witnesses).
//!
//! A vkey is `<name>+<key id, 8 hex digits>+<base64 of type byte and public key>`; the type byte is 0x01 for a log's own
//! signature and 0x04 for a witness's timestamped cosignature. Every key here comes from the reader's own trust file or
//! was made here: whether to trust it, and where it is kept, is decided elsewhere. ECDSA and ML-DSA keys are not read.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use data_encoding::{BASE64, HEXLOWER};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use zeroize::Zeroizing;

/// The longest key name or origin, in bytes.
pub const MAX_KEY_NAME_LEN: usize = 255;

/// The longest vkey text, in bytes: a name, a plus sign, 8 digits, a plus sign, and 33 bytes in base64.
pub const MAX_VKEY_LEN: usize = MAX_KEY_NAME_LEN + 1 + 8 + 1 + 44;

/// Ed25519 over the note text (C2SP signed-note, "Signature types").
const TYPE_ED25519: u8 = 0x01;
/// Timestamped Ed25519 cosignature (C2SP tlog-cosignature, "Format").
const TYPE_COSIGNATURE: u8 = 0x04;

/// Why a key or a name was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not `<name>+<8 hex digits>+<base64>`, or longer than [`MAX_VKEY_LEN`].
    #[error("not a vkey")]
    Malformed,
    /// Empty, too long, or with spaces, plus signs or control characters.
    #[error("not a key name: 1 to 255 bytes without spaces, plus signs or control characters")]
    Name,
    /// Another type byte or another length of key than this kind has.
    #[error("not an Ed25519 key of this kind")]
    Kind,
    /// The key id is not that of name and key.
    #[error("the key id does not belong to name and key")]
    Id,
}

impl KeyError {
    /// The stable code of this refusal.
    pub fn code(&self) -> &'static str {
        match self {
            KeyError::Malformed => "log.key-malformed",
            KeyError::Name => "log.key-name",
            KeyError::Kind => "log.key-kind",
            KeyError::Id => "log.key-id",
        }
    }
}

/// The name of a signing party; a log's key name is also the origin of its checkpoints. 1 to 255 bytes of UTF-8 without
/// Unicode spaces, plus signs (C2SP signed-note, "Format") or control characters, so that it is safe to show.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyName(String);

impl KeyName {
    /// Checks and takes a name.
    pub fn parse(name: &str) -> Result<Self, KeyError> {
        let fits = name.len() <= MAX_KEY_NAME_LEN
            && signed_note::is_key_name_valid(name)
            && !name.chars().any(char::is_control);
        if fits { Ok(KeyName(name.to_owned())) } else { Err(KeyError::Name) }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for KeyName {
    type Err = KeyError;

    fn from_str(name: &str) -> Result<Self, KeyError> {
        KeyName::parse(name)
    }
}

impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyName({})", self.0)
    }
}

/// Name, public key and key id: what log and witness keys share.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct NoteKey {
    name: KeyName,
    public_key: [u8; 32],
    id: u32,
}

impl NoteKey {
    fn new(name: KeyName, public_key: [u8; 32], kind: u8) -> Self {
        let id = signed_note::key_id(name.as_str(), &typed(kind, &public_key));
        NoteKey { name, public_key, id }
    }

    fn parse(vkey: &str, kind: u8) -> Result<Self, KeyError> {
        if vkey.len() > MAX_VKEY_LEN {
            return Err(KeyError::Malformed);
        }
        // Base64 may hold plus signs too; a name never does, so the first two separate.
        let mut parts = vkey.splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(KeyError::Malformed);
        };
        let id: [u8; 4] =
            HEXLOWER.decode(id.as_bytes()).ok().and_then(|id| id.try_into().ok()).ok_or(KeyError::Malformed)?;
        let key = BASE64.decode(key.as_bytes()).map_err(|_| KeyError::Malformed)?;
        let name = KeyName::parse(name)?;
        let Some((&found, public_key)) = key.split_first() else { return Err(KeyError::Kind) };
        let public_key: [u8; 32] = public_key.try_into().map_err(|_| KeyError::Kind)?;
        if found != kind {
            return Err(KeyError::Kind);
        }
        let key = NoteKey::new(name, public_key, kind);
        if key.id != u32::from_be_bytes(id) {
            return Err(KeyError::Id);
        }
        Ok(key)
    }

    fn encode(&self, kind: u8) -> String {
        format!("{}+{:08x}+{}", self.name, self.id, BASE64.encode(&typed(kind, &self.public_key)))
    }

    /// RFC 8032 verification.
    fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.public_key).verify(message, signature).is_ok()
    }
}

fn typed(kind: u8, public_key: &[u8; 32]) -> [u8; 33] {
    let mut bytes = [kind; 33];
    bytes[1..].copy_from_slice(public_key);
    bytes
}

/// A private key with its name. AWS-LC holds the key and wipes it when freed.
struct NoteSigner {
    key: NoteKey,
    pair: Ed25519KeyPair,
}

impl NoteSigner {
    fn from_seed(name: KeyName, seed: &[u8; 32], kind: u8) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).expect("any 32 bytes are an Ed25519 seed");
        let public_key = pair.public_key().as_ref().try_into().expect("an Ed25519 public key has 32 bytes");
        NoteSigner { key: NoteKey::new(name, public_key, kind), pair }
    }

    /// Ed25519 is deterministic: the same key and message always give the same bytes.
    fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.pair.sign(message).as_ref().try_into().expect("an Ed25519 signature has 64 bytes")
    }
}

macro_rules! public_key {
    ($(#[$doc:meta])* $key:ident, $kind:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $key(NoteKey);

        impl $key {
            /// The key of this name.
            pub fn new(name: KeyName, public_key: [u8; 32]) -> Self {
                $key(NoteKey::new(name, public_key, $kind))
            }

            /// Parses a vkey of at most [`MAX_VKEY_LEN`] bytes; the key id must be right and the base64 canonical.
            pub fn parse(vkey: &str) -> Result<Self, KeyError> {
                NoteKey::parse(vkey, $kind).map($key)
            }

            /// The vkey: the inverse of `parse`.
            pub fn encode(&self) -> String {
                self.0.encode($kind)
            }

            /// The key's name.
            pub fn name(&self) -> &KeyName {
                &self.0.name
            }

            /// The Ed25519 public key.
            pub fn public_key(&self) -> &[u8; 32] {
                &self.0.public_key
            }

            /// The key id that signature lines carry.
            pub fn id(&self) -> u32 {
                self.0.id
            }

            pub(crate) fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
                self.0.verify(message, signature)
            }
        }

        impl FromStr for $key {
            type Err = KeyError;

            fn from_str(vkey: &str) -> Result<Self, KeyError> {
                $key::parse(vkey)
            }
        }

        impl fmt::Display for $key {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.encode())
            }
        }

        impl fmt::Debug for $key {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($key))
            }
        }

        impl Serialize for $key {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $key {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
    };
}

public_key! {
    /// The public key of a log. Its name is the origin of the log's checkpoints. A vkey string in TOML and JSON.
    LogKey, TYPE_ED25519
}

public_key! {
    /// The public key of a witness: a party that cosigns checkpoints it found consistent. A vkey string in TOML and JSON.
    WitnessKey, TYPE_COSIGNATURE
}

macro_rules! signer {
    ($(#[$doc:meta])* $signer:ident, $key:ident, $kind:ident) => {
        $(#[$doc])*
        pub struct $signer(NoteSigner);

        impl $signer {
            /// The signer of this Ed25519 seed (RFC 8032, the 32-byte private key).
            pub fn from_seed(name: KeyName, seed: &[u8; 32]) -> Self {
                $signer(NoteSigner::from_seed(name, seed, $kind))
            }

            /// A new signer from 32 fresh random bytes, with the seed for the caller to store.
            pub fn generate(name: KeyName, random: [u8; 32]) -> (Self, Zeroizing<[u8; 32]>) {
                let seed = Zeroizing::new(random);
                ($signer::from_seed(name, &seed), seed)
            }

            /// The public key.
            pub fn key(&self) -> $key {
                $key(self.0.key.clone())
            }

            /// The name it signs under.
            pub fn name(&self) -> &KeyName {
                &self.0.key.name
            }

            pub(crate) fn id(&self) -> u32 {
                self.0.key.id
            }

            pub(crate) fn sign(&self, message: &[u8]) -> [u8; 64] {
                self.0.sign(message)
            }
        }

        impl fmt::Debug for $signer {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({}, secret)", stringify!($signer), self.0.key.name)
            }
        }
    };
}

signer! {
    /// The private key of a log: signs its checkpoints, deterministically.
    LogSigner, LogKey, TYPE_ED25519
}

signer! {
    /// The private key of a witness: signs timestamped cosignatures. One key per witness, since a v1 cosignature does not
    /// commit to the name.
    WitnessSigner, WitnessKey, TYPE_COSIGNATURE
}
