//! Identifiers that every crate of StarMiner shares, and the one way this system hashes structured data.
//!
//! Each identifier is a newtype over fixed-size bytes (or an integer), written as strict lowercase hexadecimal in text and
//! JSON. This module does not know what an identifier stands for: a [`PublicKey`] here is 32 bytes, not a checked curve
//! point, and nothing is secret. Source: `specs/evidence.md`, section "Shared forms".

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use aws_lc_rs::digest;
use data_encoding::HEXLOWER;
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

/// Why a text is not one of the identifiers of this module. The offending text is never repeated in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ParseIdError {
    /// The text has another length than the identifier: counted in bytes of UTF-8.
    #[error("expected {expected} characters, found {found}")]
    Length {
        /// Characters the identifier has (two for each byte).
        expected: usize,
        /// Bytes of UTF-8 that were found.
        found: usize,
    },
    /// A character that is not one of `0-9a-f`; upper case is refused, so that every identifier has one spelling.
    #[error("not lowercase hexadecimal")]
    NotLowercaseHex,
    /// Not a decimal number in canonical form (no sign, no leading zero), or out of range.
    #[error("not a decimal number in range")]
    NotANumber,
}

/// Reads exactly `N` bytes of strict lowercase hexadecimal.
fn parse_hex<const N: usize>(text: &str) -> Result<[u8; N], ParseIdError> {
    if text.len() != N * 2 {
        return Err(ParseIdError::Length { expected: N * 2, found: text.len() });
    }
    let mut bytes = [0u8; N];
    match HEXLOWER.decode_mut(text.as_bytes(), &mut bytes) {
        Ok(written) if written == N => Ok(bytes),
        _ => Err(ParseIdError::NotLowercaseHex),
    }
}

/// Deserializes anything with a strict `FromStr` from a JSON string.
struct TextVisitor<T>(std::marker::PhantomData<T>, &'static str);

impl<T: FromStr<Err = ParseIdError>> Visitor<'_> for TextVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.1)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }
}

macro_rules! hex_identifier {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// Length in bytes; the text form is twice as long.
            pub const LEN: usize = $len;

            /// The bytes.
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }

            /// Takes exactly [`Self::LEN`] bytes; `None` for any other length.
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self)
            }

            /// Lowercase hexadecimal, as in JSON and TOML.
            pub fn to_hex(&self) -> String {
                HEXLOWER.encode(&self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.to_hex())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.to_hex())
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                parse_hex(text).map(Self)
            }
        }

        impl AsRef<[u8]> for $name {
            fn as_ref(&self) -> &[u8] {
                &self.0
            }
        }

        impl From<[u8; $len]> for $name {
            fn from(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.to_hex())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_str(TextVisitor(
                    std::marker::PhantomData,
                    concat!("lowercase hexadecimal of ", stringify!($len), " bytes"),
                ))
            }
        }
    };
}

hex_identifier! {
    /// A SHA-256 digest (FIPS 180-4), 32 bytes.
    Digest, 32
}
hex_identifier! {
    /// An Ed25519 public key as encoded by RFC 8032, 32 bytes. Whether it is a point is known when it verifies something.
    PublicKey, 32
}
hex_identifier! {
    /// The identity of a network: 32 random bytes chosen when it was made.
    NetworkId, 32
}
hex_identifier! {
    /// A task: 16 random bytes chosen by the requester.
    TaskId, 16
}
hex_identifier! {
    /// One start of an agent: 16 random bytes that it draws when it starts.
    BootId, 16
}
hex_identifier! {
    /// What a releaser wants to see answered: 32 random bytes, one per attempt, consumed by the grant.
    Challenge, 32
}

impl Digest {
    /// SHA-256 of `bytes`, without a label. Statements over structured data use [`tagged_hash`] instead.
    pub fn of(bytes: &[u8]) -> Self {
        Self::from_ring(digest::digest(&digest::SHA256, bytes))
    }

    fn from_ring(value: digest::Digest) -> Self {
        let mut bytes = [0u8; 32];
        bytes.copy_from_slice(value.as_ref()); // SHA-256 has 32 bytes
        Self(bytes)
    }
}

/// A node (or a broker's agent): its long-lived Ed25519 identity key, which is also its TLS identity.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeId(pub PublicKey);

impl NodeId {
    /// The 32 bytes of the key.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0.0
    }

    /// The key itself.
    pub const fn public_key(&self) -> &PublicKey {
        &self.0
    }

    /// Lowercase hexadecimal, as in JSON and TOML.
    pub fn to_hex(&self) -> String {
        self.0.to_hex()
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeId({})", self.0)
    }
}

impl FromStr for NodeId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        text.parse().map(Self)
    }
}

impl AsRef<[u8]> for NodeId {
    fn as_ref(&self) -> &[u8] {
        &self.0.0
    }
}

impl From<PublicKey> for NodeId {
    fn from(key: PublicKey) -> Self {
        Self(key)
    }
}

/// Reads a decimal number in its one canonical spelling.
fn parse_decimal<T: FromStr + fmt::Display>(text: &str) -> Result<T, ParseIdError> {
    let value: T = text.parse().map_err(|_| ParseIdError::NotANumber)?;
    // `FromStr` of integers takes "+7" and "007"; an identifier has one spelling.
    if value.to_string() == text { Ok(value) } else { Err(ParseIdError::NotANumber) }
}

/// The attempt number of a lease; the fencing token of a task. Counts from 1; a greater one fences off the smaller.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Attempt(pub u32);

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Attempt({})", self.0)
    }
}

impl FromStr for Attempt {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        parse_decimal(text).map(Self)
    }
}

/// Milliseconds since 1970-01-01T00:00:00Z, without leap seconds. Always given by the caller; pure crates have no clock.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnixTime(pub u64);

impl UnixTime {
    /// The time `seconds` after the epoch; saturates at the end of representable time.
    pub const fn from_seconds(seconds: u64) -> Self {
        Self(seconds.saturating_mul(1000))
    }

    /// Milliseconds since the epoch.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// Whole seconds since the epoch, rounded down.
    pub const fn as_seconds(self) -> u64 {
        self.0 / 1000
    }

    /// This time and `later` milliseconds more; saturates, so that a hostile duration cannot wrap into the past.
    pub const fn saturating_add_millis(self, later: u64) -> Self {
        Self(self.0.saturating_add(later))
    }

    /// This time and a duration more; saturates likewise.
    pub fn saturating_add(self, later: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(later.as_millis()).unwrap_or(u64::MAX)))
    }

    /// How long ago `earlier` was; `None` where it lies in the future of this time.
    pub fn since(self, earlier: Self) -> Option<Duration> {
        self.0.checked_sub(earlier.0).map(Duration::from_millis)
    }
}

impl fmt::Display for UnixTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for UnixTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UnixTime({} ms)", self.0)
    }
}

impl FromStr for UnixTime {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        parse_decimal(text).map(Self)
    }
}

/// The hash of structured data everywhere in StarMiner: SHA-256 over `"starminer/<what>/v1"`, one zero byte, and then each
/// field as its length (`u32`, big-endian) and its bytes.
///
/// `what` names the statement (`"binding"`, `"posture"`, …) in lowercase letters, digits and `-`; no two statements
/// share one. Because lengths stand before the bytes, no two lists of fields hash alike by moving a boundary. A field
/// longer than `u32::MAX` bytes cannot occur (every field has a far smaller bound); its length would saturate.
pub fn tagged_hash(what: &str, fields: &[&[u8]]) -> Digest {
    let mut context = TaggedHasher::new(what);
    for field in fields {
        context.field(field);
    }
    context.finish()
}

/// [`tagged_hash`] fed field by field, for statements with many or computed fields.
#[derive(Clone)]
pub struct TaggedHasher(digest::Context);

impl TaggedHasher {
    /// Starts the statement `"starminer/<what>/v1"`.
    pub fn new(what: &str) -> Self {
        debug_assert!(
            !what.is_empty() && what.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'),
            "a label is lowercase letters, digits and '-'"
        );
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(b"starminer/");
        context.update(what.as_bytes());
        context.update(b"/v1\0");
        Self(context)
    }

    /// Appends one field: its length as `u32` big-endian, then its bytes.
    pub fn field(&mut self, bytes: &[u8]) -> &mut Self {
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        self.0.update(&length.to_be_bytes());
        self.0.update(bytes);
        self
    }

    /// The digest of what was appended.
    pub fn finish(self) -> Digest {
        Digest::from_ring(self.0.finish())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_text_has_one_spelling() {
        let cases: &[(&str, bool)] = &[
            (&"00".repeat(16), true),
            (&"ab".repeat(16), true),
            (&"AB".repeat(16), false),
            (&"0g".repeat(16), false),
            (&"00".repeat(15), false),
            (&"00".repeat(17), false),
            (" 000000000000000000000000000000ff", false),
            ("", false),
            (&"é".repeat(16), false),
        ];
        for (text, good) in cases {
            assert_eq!(text.parse::<TaskId>().is_ok(), *good, "{text}");
            let json = serde_json::to_string(text).unwrap();
            assert_eq!(serde_json::from_str::<TaskId>(&json).is_ok(), *good, "{json}");
        }
        for (text, good) in [("7", true), ("07", false), ("+7", false), ("-1", false), ("4294967296", false)] {
            assert_eq!(text.parse::<Attempt>().is_ok(), good, "{text}");
        }
    }

    #[test]
    fn text_and_json_return_the_same_value() {
        let id = NodeId(PublicKey([7; 32]));
        assert_eq!(id.to_string().parse::<NodeId>().unwrap(), id);
        assert_eq!(serde_json::from_str::<NodeId>(&serde_json::to_string(&id).unwrap()).unwrap(), id);
        assert_eq!(serde_json::to_string(&UnixTime(5)).unwrap(), "5");
        assert_eq!(format!("{:?}", TaskId([1; 16])), format!("TaskId({})", "01".repeat(16)));
    }

    #[test]
    fn the_hash_is_the_documented_bytes() {
        let mut bytes = b"starminer/binding/v1\0".to_vec();
        bytes.extend_from_slice(&[0, 0, 0, 2, b'a', b'b', 0, 0, 0, 0]);
        assert_eq!(tagged_hash("binding", &[b"ab", b""]), Digest::of(&bytes));
        assert_ne!(tagged_hash("binding", &[b"a", b"b"]), tagged_hash("binding", &[b"ab", b""]));
    }

    #[test]
    fn time_never_wraps() {
        assert_eq!(UnixTime(u64::MAX).saturating_add_millis(1), UnixTime(u64::MAX));
        assert_eq!(UnixTime(1).since(UnixTime(2)), None);
        assert_eq!(UnixTime(3).since(UnixTime(1)), Some(Duration::from_millis(2)));
    }
}
