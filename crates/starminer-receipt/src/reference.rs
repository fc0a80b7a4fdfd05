//! Published reference values: one file a role and version, signed by k of n release keys, and logged before it counts.
//!
//! Three types carry the order of the checks. A [`ReferenceFile`] was only parsed: nothing of it counts. [`SignedReferenceValues`] carry
//! signatures of as many of the verifier's own release keys as it asks for; that is what a coordinator demands before it logs them.
//! [`LoggedReferenceValues`] also stand in the verifier's log, are for the role asked about, in force, and no older than what the verifier has seen; values
//! can be read from them alone. A file brings signatures and proofs, never trust.
//!
//! Not here: how values are made (`starminer-hardware`, `predict`), and what evidence they are compared with (`starminer-verify`).
//! Specification: `specs/policy.md`, section "Published reference values".

use serde::{Deserialize, Serialize};
use starminer_log::{InclusionProof, ProofError, SignedCheckpoint, VerifyError, WitnessError};
use starminer_verify::{
    Digest, MAX_REFERENCE_NAME_BYTES, MAX_REFERENCE_VALUES_BYTES, NetworkId, PublicKey, ReferenceValue,
    ReferenceValues, ReferenceValuesError, UnixTime,
};

use crate::dsse::{Base64Bytes, Envelope, Signer, pre_authentication_encoding, verify_ed25519};
use crate::entry::{EntryKind, LogEntry};
use crate::network::{MAX_RELEASE_KEYS, NetworkTrust};

/// Longest file, in bytes: the longest values in base64, signatures and a proof.
pub const MAX_REFERENCE_FILE_BYTES: usize = 1 << 20;
/// Name and version of the format.
const FORMAT: &str = "starminer-reference-values/1";
/// The DSSE payload type.
const PAYLOAD_TYPE: &str = "application/vnd.starminer.reference-values.v1+json";
/// Longest payload: the values and what stands around them.
const MAX_PAYLOAD_BYTES: usize = MAX_REFERENCE_VALUES_BYTES + 1024;

/// The role of the programs that values are good for: what is good for one is not for the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Runs tasks.
    Agent,
    /// Releases keys for requesters who are offline.
    Broker,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 2] = [Self::Agent, Self::Broker];

    /// Its name in files and on command lines.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Broker => "broker",
        }
    }
}

/// What release keys sign.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReferenceStatement {
    /// 1.
    pub v: u32,
    /// The network that they are for: versions count within it.
    pub network: NetworkId,
    /// The role that they are for: versions count within it.
    pub role: Role,
    /// What they are, for people; as the name of a value.
    pub name: String,
    /// From 1. A later version replaces an earlier one whole.
    pub version: u64,
    /// In force from this time on.
    pub not_before: UnixTime,
    /// In force until this time.
    pub not_after: UnixTime,
    /// The values.
    pub values: ReferenceValues,
}

impl ReferenceStatement {
    /// Whether it is in force at that time.
    ///
    /// # Errors
    /// [`ReferenceError::NotYetInForce`], [`ReferenceError::Expired`].
    pub fn in_force(&self, now: UnixTime) -> Result<(), ReferenceError> {
        if now < self.not_before {
            Err(ReferenceError::NotYetInForce)
        } else if now > self.not_after {
            Err(ReferenceError::Expired)
        } else {
            Ok(())
        }
    }

    fn check(&self) -> Result<(), ReferenceError> {
        let printable = |b: u8| matches!(b, b' '..=b'~') && b != b'"' && b != b'\\';
        let named = (1..=MAX_REFERENCE_NAME_BYTES).contains(&self.name.len()) && self.name.bytes().all(printable);
        if self.v != 1 {
            Err(ReferenceError::Statement("its version of the form is not 1"))
        } else if !named {
            Err(ReferenceError::Statement("its name is not 1 to 64 characters of printable ASCII"))
        } else if self.version == 0 {
            Err(ReferenceError::Statement("versions count from 1"))
        } else if self.not_after <= self.not_before {
            Err(ReferenceError::Statement("it ends before it begins"))
        } else if self.values.values().is_empty() {
            Err(ReferenceError::Statement("it has no values"))
        } else {
            Ok(())
        }
    }
}

/// Why published reference values do not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// Larger than [`MAX_REFERENCE_FILE_BYTES`].
    #[error("a file of reference values has at most {MAX_REFERENCE_FILE_BYTES} bytes")]
    TooLarge,
    /// Not JSON of this form, of another version, or with more signatures than there can be release keys.
    #[error("not a {FORMAT} file")]
    Malformed,
    /// The signed statement breaks a rule of its own.
    #[error("the statement is not one of reference values: {0}")]
    Statement(&'static str),
    /// The key has signed already.
    #[error("{0} has signed already")]
    SignedAlready(PublicKey),
    /// The verifier names no release keys, so that nobody's values count.
    #[error("the trust file names no release keys")]
    NoReleaseKeys,
    /// A signature under a release key does not verify.
    #[error("the signature of {0} does not verify")]
    BadSignature(PublicKey),
    /// Fewer release keys signed than have to.
    #[error("{have} of the release keys signed, {need} have to")]
    TooFewSignatures {
        /// How many did.
        have: usize,
        /// How many have to.
        need: usize,
    },
    /// For another network.
    #[error("the values are for another network")]
    OtherNetwork,
    /// For another role.
    #[error("the values are for the role {}", .0.name())]
    OtherRole(Role),
    /// Not in force yet.
    #[error("the values are not in force yet")]
    NotYetInForce,
    /// No longer in force.
    #[error("the values are no longer in force")]
    Expired,
    /// Older than what was seen before.
    #[error("version {version} is older than version {seen}, which was seen before")]
    Older {
        /// The file's.
        version: u64,
        /// What was seen.
        seen: u64,
    },
    /// Of the version that was seen before, with other content: release keys signed two.
    #[error("version {0} was seen before with other content")]
    Forked(u64),
    /// The file has no place in the log.
    #[error("the values are not logged")]
    NotLogged,
    /// The checkpoint is no checkpoint.
    #[error("the checkpoint is malformed")]
    Checkpoint,
    /// The log key of the trust file did not sign the checkpoint.
    #[error("the checkpoint does not verify")]
    CheckpointSignature(#[source] VerifyError),
    /// Too few of the trust file's witnesses cosigned it.
    #[error("too few witnesses cosigned the checkpoint")]
    Witnesses(#[source] WitnessError),
    /// The entry is not in the log.
    #[error("the entry is not in the log")]
    Inclusion(#[source] ProofError),
    /// The entry is not that of these values.
    #[error("the log entry is not of these values: {0}")]
    OtherEntry(&'static str),
    /// Logged later than the time by which they are judged.
    #[error("the values were logged after the time by which they are judged")]
    LoggedLater,
}

impl ReferenceError {
    /// A stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::TooLarge => "reference.too-large",
            Self::Malformed => "reference.malformed",
            Self::Statement(_) => "reference.statement",
            Self::SignedAlready(_) => "reference.signed-already",
            Self::NoReleaseKeys => "reference.no-release-keys",
            Self::BadSignature(_) => "reference.bad-signature",
            Self::TooFewSignatures { .. } => "reference.too-few-signatures",
            Self::OtherNetwork => "reference.other-network",
            Self::OtherRole(_) => "reference.other-role",
            Self::NotYetInForce => "reference.not-yet-in-force",
            Self::Expired => "reference.expired",
            Self::Older { .. } => "reference.older",
            Self::Forked(_) => "reference.forked",
            Self::NotLogged => "reference.not-logged",
            Self::Checkpoint | Self::CheckpointSignature(_) => "reference.checkpoint",
            Self::Witnesses(_) => "reference.witnesses",
            Self::Inclusion(_) => "reference.inclusion",
            Self::OtherEntry(_) => "reference.other-entry",
            Self::LoggedLater => "reference.logged-later",
        }
    }

    /// Whether nobody is at fault: it is too early for the values, or too late.
    #[must_use]
    pub const fn is_of_time(&self) -> bool {
        matches!(self, Self::NotYetInForce | Self::Expired | Self::LoggedLater)
    }

    /// What to do about it.
    #[must_use]
    pub const fn remedy(&self) -> &'static str {
        match self {
            Self::NoReleaseKeys => "put release_keys and release_threshold into network.toml, if you trust anybody's",
            Self::TooFewSignatures { .. } => "have more release keys sign: `starminer reference cosign`",
            Self::OtherNetwork | Self::OtherRole(_) => "give the file that is for this network and role",
            Self::NotYetInForce | Self::Expired | Self::Older { .. } => "give the version that is in force",
            Self::NotLogged => "have it published: values count once the log has them",
            Self::Forked(_) => "do not use either: ask the holders of the release keys why they signed both",
            _ => "do not use the file; get it again from where it was published",
        }
    }
}

/// Where a statement stands in the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogPlace {
    /// The entry's bytes.
    pub entry: Base64Bytes,
    /// That it is under the checkpoint.
    pub inclusion: InclusionProof,
    /// The checkpoint: a signed note, with cosignatures where there are any.
    pub checkpoint: String,
}

/// A file of published reference values, not verified. Its JSON form is the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReferenceFile {
    format: String,
    envelope: Envelope,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    logged: Option<LogPlace>,
}

impl ReferenceFile {
    /// A file that nobody has signed yet.
    ///
    /// # Errors
    /// [`ReferenceError::Statement`].
    ///
    /// # Panics
    /// Never: a statement is strings and numbers.
    pub fn new(statement: &ReferenceStatement) -> Result<Self, ReferenceError> {
        statement.check()?;
        let payload = serde_json::to_vec(statement).expect("a statement is strings and numbers");
        Ok(Self { format: FORMAT.into(), envelope: Envelope::unsigned(PAYLOAD_TYPE, payload), logged: None })
    }

    /// Parses a file.
    ///
    /// # Errors
    /// [`ReferenceError::TooLarge`] and [`ReferenceError::Malformed`].
    pub fn parse(bytes: &[u8]) -> Result<Self, ReferenceError> {
        if bytes.len() > MAX_REFERENCE_FILE_BYTES {
            return Err(ReferenceError::TooLarge);
        }
        let file: Self = serde_json::from_slice(bytes).map_err(|_| ReferenceError::Malformed)?;
        let known = file.format == FORMAT
            && file.envelope.payload_type() == PAYLOAD_TYPE
            && file.envelope.payload().len() <= MAX_PAYLOAD_BYTES
            && file.envelope.signatures().len() <= MAX_RELEASE_KEYS;
        if known { Ok(file) } else { Err(ReferenceError::Malformed) }
    }

    /// The file's bytes: indented JSON, for people.
    ///
    /// # Panics
    /// Never: a file is strings, numbers and bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec_pretty(self).expect("a file is strings, numbers and bytes");
        bytes.push(b'\n');
        bytes
    }

    /// SHA-256 of the statement as it was signed: what the log knows it by. Signatures may be added without changing it.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.envelope.digest()
    }

    /// What the file says, believed by nobody yet: to be shown to whoever is about to sign it.
    ///
    /// # Errors
    /// [`ReferenceError::Malformed`], [`ReferenceError::Statement`].
    pub fn unverified(&self) -> Result<ReferenceStatement, ReferenceError> {
        let statement: ReferenceStatement =
            serde_json::from_slice(self.envelope.payload()).map_err(|_| ReferenceError::Malformed)?;
        statement.check()?;
        Ok(statement)
    }

    /// Whose signatures the file brings, verified or not.
    pub fn claimed_signers(&self) -> impl Iterator<Item = PublicKey> + '_ {
        self.envelope.signatures().map(|(key, _)| key)
    }

    /// Adds a signature.
    ///
    /// # Errors
    /// [`ReferenceError::SignedAlready`]; [`ReferenceError::BadSignature`] of a signature that is there; [`ReferenceError::Malformed`] where there are as many as there can be; those of [`Self::unverified`].
    pub fn sign(&mut self, signer: &impl Signer) -> Result<(), ReferenceError> {
        self.unverified()?;
        let key = signer.public_key();
        if self.claimed_signers().any(|other| other == key) {
            return Err(ReferenceError::SignedAlready(key));
        }
        if self.envelope.signatures().len() == MAX_RELEASE_KEYS {
            return Err(ReferenceError::Malformed);
        }
        // Nobody puts a name under what was altered since others signed it.
        let message = pre_authentication_encoding(PAYLOAD_TYPE, self.envelope.payload());
        for (key, signature) in self.envelope.signatures() {
            if !verify_ed25519(&key, &message, signature) {
                return Err(ReferenceError::BadSignature(key));
            }
        }
        self.envelope.add_signature(signer);
        Ok(())
    }

    /// Puts in where the values stand in the log.
    #[must_use]
    pub fn with_place(mut self, place: LogPlace) -> Self {
        self.logged = Some(place);
        self
    }

    /// Takes out where the values stand in the log: what is left is what was signed.
    #[must_use]
    pub fn without_place(mut self) -> Self {
        self.logged = None;
        self
    }

    /// Where the file says that the values stand in the log.
    #[must_use]
    pub fn place(&self) -> Option<&LogPlace> {
        self.logged.as_ref()
    }

    /// The entry by which these values are logged.
    #[must_use]
    pub fn log_entry(&self, at: UnixTime) -> LogEntry {
        LogEntry {
            v: 1,
            kind: EntryKind::Published,
            at,
            task: None,
            step: None,
            attempt: None,
            node: None,
            statement: self.digest(),
            annex: None,
            why: None,
            ends: false,
        }
    }

    /// Verifies that enough of the verifier's release keys signed, for its network. Signatures of other keys count for nothing.
    ///
    /// # Errors
    /// [`ReferenceError::NoReleaseKeys`], [`ReferenceError::BadSignature`], [`ReferenceError::TooFewSignatures`],
    /// [`ReferenceError::Malformed`], [`ReferenceError::Statement`], [`ReferenceError::OtherNetwork`].
    pub fn verify_signatures(self, trust: &NetworkTrust) -> Result<SignedReferenceValues, ReferenceError> {
        if trust.release_keys().is_empty() {
            return Err(ReferenceError::NoReleaseKeys);
        }
        let message = pre_authentication_encoding(PAYLOAD_TYPE, self.envelope.payload());
        let mut signers: Vec<PublicKey> = Vec::new();
        for (key, signature) in self.envelope.signatures() {
            // A key counts once however often it signed.
            if !trust.release_keys().contains(&key) || signers.contains(&key) {
                continue;
            }
            if !verify_ed25519(&key, &message, signature) {
                return Err(ReferenceError::BadSignature(key));
            }
            signers.push(key);
        }
        let (have, need) = (signers.len(), trust.release_threshold());
        if have < need {
            return Err(ReferenceError::TooFewSignatures { have, need });
        }
        let statement = self.unverified()?;
        if statement.network != trust.network {
            return Err(ReferenceError::OtherNetwork);
        }
        Ok(SignedReferenceValues { file: self, statement, signers })
    }
}

/// The version of a role's values that a verifier has seen last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SeenReferences {
    /// Its number.
    pub version: u64,
    /// Its digest: release keys that sign two of one number are caught.
    pub digest: Digest,
}

impl SeenReferences {
    /// Whether this version may follow what was seen before of its role: a later one, or the very same.
    ///
    /// # Errors
    /// [`ReferenceError::Older`], [`ReferenceError::Forked`].
    pub fn may_follow(self, newest_seen: Option<Self>) -> Result<(), ReferenceError> {
        let Some(seen) = newest_seen else { return Ok(()) };
        if self.version < seen.version {
            return Err(ReferenceError::Older { version: self.version, seen: seen.version });
        }
        if self.version == seen.version && self.digest != seen.digest {
            return Err(ReferenceError::Forked(self.version));
        }
        Ok(())
    }
}

/// What a verifier knows when it opens a file.
#[derive(Debug, Clone, Copy)]
pub struct Opening<'a> {
    /// Its trust.
    pub trust: &'a NetworkTrust,
    /// The role that it asks about.
    pub role: Role,
    /// The time by which it judges.
    pub now: UnixTime,
    /// The newest version of that role that it has seen; `None` where it has no memory.
    pub newest_seen: Option<SeenReferences>,
}

/// Reference values that enough release keys signed. They do not count before they are logged, so that they cannot be read from here.
#[derive(Debug, Clone)]
pub struct SignedReferenceValues {
    file: ReferenceFile,
    statement: ReferenceStatement,
    signers: Vec<PublicKey>,
}

impl SignedReferenceValues {
    /// Parses a file and verifies all of it.
    ///
    /// # Errors
    /// Every variant of [`ReferenceError`] but [`ReferenceError::SignedAlready`].
    pub fn open(bytes: &[u8], opening: &Opening<'_>) -> Result<LoggedReferenceValues, ReferenceError> {
        ReferenceFile::parse(bytes)?.verify_signatures(opening.trust)?.verify_logged(opening)
    }

    /// The role that they are for.
    #[must_use]
    pub fn role(&self) -> Role {
        self.statement.role
    }

    /// Version and digest.
    #[must_use]
    pub fn seen(&self) -> SeenReferences {
        SeenReferences { version: self.statement.version, digest: self.file.digest() }
    }

    /// The file.
    #[must_use]
    pub fn file(&self) -> &ReferenceFile {
        &self.file
    }

    /// Whether they are in force at that time.
    ///
    /// # Errors
    /// [`ReferenceError::NotYetInForce`], [`ReferenceError::Expired`].
    pub fn in_force(&self, now: UnixTime) -> Result<(), ReferenceError> {
        self.statement.in_force(now)
    }

    /// Verifies everything else: role, version, dates, and the place in the verifier's log.
    ///
    /// # Errors
    /// [`ReferenceError::OtherRole`], those of [`SeenReferences::may_follow`] and [`Self::in_force`], and those about the log.
    pub fn verify_logged(self, opening: &Opening<'_>) -> Result<LoggedReferenceValues, ReferenceError> {
        let Opening { trust, role, now, newest_seen } = *opening;
        if self.statement.network != trust.network {
            return Err(ReferenceError::OtherNetwork);
        }
        if self.statement.role != role {
            return Err(ReferenceError::OtherRole(self.statement.role));
        }
        // Before the dates: that an old version has ended is no reason to go without the newest.
        self.seen().may_follow(newest_seen)?;
        self.in_force(now)?;
        let place = self.file.logged.as_ref().ok_or(ReferenceError::NotLogged)?;
        let checkpoint = SignedCheckpoint::parse(place.checkpoint.as_bytes())
            .map_err(|_| ReferenceError::Checkpoint)?
            .verify(trust.log_key())
            .map_err(ReferenceError::CheckpointSignature)?;
        if trust.log.witness_quorum > 0 {
            checkpoint
                .verify_witnesses(trust.witness_keys(), trust.log.witness_quorum)
                .map_err(ReferenceError::Witnesses)?;
        }
        let included =
            checkpoint.verify_inclusion(&place.entry.0, &place.inclusion).map_err(ReferenceError::Inclusion)?;
        let entry = LogEntry::parse(&place.entry.0).map_err(ReferenceError::OtherEntry)?;
        if entry != self.file.log_entry(entry.at) {
            return Err(ReferenceError::OtherEntry("it says something else, or of another file"));
        }
        if entry.at > now {
            return Err(ReferenceError::LoggedLater);
        }
        Ok(LoggedReferenceValues { index: included.index(), logged_at: entry.at, signed: self })
    }
}

/// Reference values that count. Only [`SignedReferenceValues::verify_logged`] makes them.
#[derive(Debug, Clone)]
pub struct LoggedReferenceValues {
    signed: SignedReferenceValues,
    index: u64,
    logged_at: UnixTime,
}

impl LoggedReferenceValues {
    /// What the release keys signed.
    #[must_use]
    pub fn statement(&self) -> &ReferenceStatement {
        &self.signed.statement
    }

    /// The values.
    #[must_use]
    pub fn values(&self) -> &ReferenceValues {
        &self.signed.statement.values
    }

    /// The values, and those that the verifier pins on its own in its trust file.
    ///
    /// # Errors
    /// [`ReferenceValuesError::TooMany`].
    pub fn with_pinned(&self, pinned: &ReferenceValues) -> Result<ReferenceValues, ReferenceValuesError> {
        let mut all: Vec<ReferenceValue> = self.values().values().to_vec();
        let known = |value: &ReferenceValue| self.values().find(value.kind, value.measurement.as_bytes()).is_some();
        all.extend(pinned.values().iter().filter(|value| !known(value)).cloned());
        ReferenceValues::new(all)
    }

    /// The file, with its place in the log.
    #[must_use]
    pub fn file(&self) -> &ReferenceFile {
        &self.signed.file
    }

    /// The release keys that signed.
    #[must_use]
    pub fn signers(&self) -> &[PublicKey] {
        &self.signed.signers
    }

    /// Version and digest, for the verifier to remember.
    #[must_use]
    pub fn seen(&self) -> SeenReferences {
        self.signed.seen()
    }

    /// The index of their entry in the log: whatever was decided by them stands behind it.
    #[must_use]
    pub fn index(&self) -> u64 {
        self.index
    }

    /// When they were logged, by the log.
    #[must_use]
    pub fn logged_at(&self) -> UnixTime {
        self.logged_at
    }
}
