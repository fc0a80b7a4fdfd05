//! Banks of platform configuration registers: one hash algorithm each (TPM 2.0 Library, part 2, `TPM_ALG_ID`).

use aws_lc_rs::digest::{self, SHA1_FOR_LEGACY_USE_ONLY, SHA256, SHA384, SHA512};

/// The longest digest of any bank.
pub const MAX_DIGEST_BYTES: usize = 64;

/// A hash algorithm for which a TPM keeps registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Bank {
    /// SHA-1: read because old logs have nothing else. Collisions of it can be bought, so that policies name it before it counts.
    Sha1,
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
    /// SM3-256 (GB/T 32905).
    Sm3,
}

impl Bank {
    /// All of them, in the order of their names' strength and age.
    pub const ALL: [Self; 5] = [Self::Sha1, Self::Sha256, Self::Sha384, Self::Sha512, Self::Sm3];

    /// The bank of a `TPM_ALG_ID`.
    #[must_use]
    pub const fn from_algorithm_id(id: u16) -> Option<Self> {
        match id {
            0x0004 => Some(Self::Sha1),
            0x000b => Some(Self::Sha256),
            0x000c => Some(Self::Sha384),
            0x000d => Some(Self::Sha512),
            0x0012 => Some(Self::Sm3),
            _ => None,
        }
    }

    /// The name in JSON and in policies, as tpm2-tools write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sha1 => "sha1",
            Self::Sha256 => "sha256",
            Self::Sha384 => "sha384",
            Self::Sha512 => "sha512",
            Self::Sm3 => "sm3_256",
        }
    }

    /// The bank of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|bank| bank.name() == name)
    }

    /// The length of its digests.
    #[must_use]
    pub const fn size_bytes(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 | Self::Sm3 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }

    pub(crate) const fn slot(self) -> usize {
        self as usize
    }

    /// The digest of the parts, one after the other.
    #[must_use]
    pub fn hash(self, parts: &[&[u8]]) -> Digest {
        let algorithm = match self {
            Self::Sha1 => &SHA1_FOR_LEGACY_USE_ONLY,
            Self::Sha256 => &SHA256,
            Self::Sha384 => &SHA384,
            Self::Sha512 => &SHA512,
            Self::Sm3 => return Digest::padded(self, &sm3(parts)),
        };
        // One call costs half of what a context with its allocations does, which shows in lists of thousands of short entries.
        let mut joined = [0; 2 * MAX_DIGEST_BYTES];
        let whole = match parts {
            [] => Some(&[][..]),
            [part] => Some(*part),
            [first, second] if first.len() + second.len() <= joined.len() => {
                joined[..first.len()].copy_from_slice(first);
                joined[first.len()..first.len() + second.len()].copy_from_slice(second);
                Some(&joined[..first.len() + second.len()])
            }
            _ => None,
        };
        if let Some(whole) = whole {
            return Digest::padded(self, digest::digest(algorithm, whole).as_ref());
        }
        let mut context = digest::Context::new(algorithm);
        for part in parts {
            context.update(part);
        }
        Digest::padded(self, context.finish().as_ref())
    }
}

fn sm3(parts: &[&[u8]]) -> [u8; 32] {
    use sm3::Digest as _;
    let mut hasher = sm3::Sm3::new();
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize().into()
}

/// A digest of one bank, or the value of one of its registers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest {
    bank: Bank,
    bytes: [u8; MAX_DIGEST_BYTES],
}

impl Digest {
    /// A digest of that bank, if the bytes are as many as it takes.
    #[must_use]
    pub fn new(bank: Bank, bytes: &[u8]) -> Option<Self> {
        (bytes.len() == bank.size_bytes()).then(|| Self::padded(bank, bytes))
    }

    /// As many of the bytes as the bank takes, with zeroes behind them where there are fewer.
    pub(crate) fn padded(bank: Bank, bytes: &[u8]) -> Self {
        let mut all = [0; MAX_DIGEST_BYTES];
        let kept = bytes.len().min(bank.size_bytes());
        all[..kept].copy_from_slice(&bytes[..kept]);
        Self { bank, bytes: all }
    }

    /// The same byte throughout.
    pub(crate) fn filled(bank: Bank, byte: u8) -> Self {
        Self::padded(bank, &[byte; MAX_DIGEST_BYTES])
    }

    /// The register's value once `measured` is extended into it.
    pub(crate) fn extended(&self, measured: &[u8]) -> Self {
        self.bank.hash(&[self.as_bytes(), measured])
    }

    /// With another last byte.
    pub(crate) fn with_last_byte(mut self, byte: u8) -> Self {
        self.bytes[self.bank.size_bytes() - 1] = byte;
        self
    }

    /// The bank.
    #[must_use]
    pub const fn bank(&self) -> Bank {
        self.bank
    }

    /// The bytes, as many as the bank takes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.bank.size_bytes()]
    }

    /// In lowercase hex.
    #[must_use]
    pub fn to_hex(&self) -> String {
        hex(self.as_bytes())
    }
}

impl std::fmt::Debug for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.bank.name(), self.to_hex())
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_of_abc() {
        for (bank, start) in [
            (Bank::Sha1, "a9993e364706816a"),
            (Bank::Sha256, "ba7816bf8f01cfea"),
            (Bank::Sha384, "cb00753f45a35e8b"),
            (Bank::Sha512, "ddaf35a193617aba"),
            (Bank::Sm3, "66c7f0f462eeedd9"),
        ] {
            let digest = bank.hash(&[b"a", b"bc"]);
            assert_eq!(bank.hash(&[b"abc"]), digest);
            assert_eq!(bank.hash(&[b"a", b"b", b"c"]), digest);
            assert_eq!(bank.hash(&[&[7; 100], &[7; 100]]), bank.hash(&[&[7; 200]]));
            assert!(digest.to_hex().starts_with(start), "{digest:?}");
            assert_eq!(digest.as_bytes().len(), bank.size_bytes());
            assert_eq!(Bank::from_name(bank.name()), Some(bank));
        }
    }
}
