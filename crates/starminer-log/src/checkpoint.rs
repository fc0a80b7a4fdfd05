//! Checkpoints: a log's signed statement of its size and root (C2SP tlog-checkpoint in a C2SP signed-note).
//!
//! [`Checkpoint`] is the statement, [`SignedCheckpoint`] a stranger's bytes in which nothing is checked but form, and
//! [`VerifiedCheckpoint`] the only type whose size and root may be relied on. One body has one encoding: extension lines,
//! leading zeroes and loose base64 are refused, so that the bytes are as good an identity as the fields.
//!
//! Not here: cosignatures (`cosignature`), proofs between checkpoints (`proof`), and which key to trust.

use signed_note::{Note, Signature};

use crate::{EMPTY_ROOT, Hash, KeyError, KeyName, LogKey, LogSigner, MAX_TREE_SIZE};

/// The longest signed checkpoint, in bytes: room for 16 post-quantum signatures, which every reader of notes must accept
/// (C2SP signed-note, "Format").
pub const MAX_NOTE_LEN: usize = 128 * 1024;

/// The most signature lines of a checkpoint, of known and unknown keys together.
pub const MAX_SIGNATURES: usize = 64;

/// Why bytes are not a signed checkpoint, or fields not a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// Longer than [`MAX_NOTE_LEN`].
    #[error("longer than a signed checkpoint may be")]
    TooLong,
    /// Not a signed note in its canonical encoding.
    #[error("not a signed note")]
    Note,
    /// More than [`MAX_SIGNATURES`] signature lines.
    #[error("too many signatures")]
    TooManySignatures,
    /// The note's text is not origin, size and root.
    #[error("not a checkpoint: a line each for origin, size and root")]
    Body,
    /// The first line is no [`KeyName`].
    #[error("the origin is not a key name")]
    Origin,
    /// Lines after the root, which C2SP discourages and this log never has.
    #[error("extension lines are not accepted")]
    Extension,
    /// The size is beyond [`MAX_TREE_SIZE`].
    #[error("the size is beyond 2^62")]
    Size,
    /// Size 0 with another root than [`EMPTY_ROOT`].
    #[error("the empty tree has another root")]
    EmptyRoot,
}

impl CheckpointError {
    /// The stable code of this refusal.
    pub fn code(&self) -> &'static str {
        match self {
            CheckpointError::TooLong => "log.note-too-long",
            CheckpointError::Note => "log.note-malformed",
            CheckpointError::TooManySignatures => "log.note-signatures",
            CheckpointError::Body => "log.checkpoint-malformed",
            CheckpointError::Origin => "log.checkpoint-origin",
            CheckpointError::Extension => "log.checkpoint-extension",
            CheckpointError::Size => "log.checkpoint-size",
            CheckpointError::EmptyRoot => "log.checkpoint-empty-root",
        }
    }
}

/// The signer is not the log that the checkpoint names. Code `log.origin`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the key of {signer} cannot sign for {origin}")]
pub struct SignError {
    /// The checkpoint's origin.
    pub origin: KeyName,
    /// The signer's name.
    pub signer: KeyName,
}

impl SignError {
    /// The stable code of this refusal.
    pub fn code(&self) -> &'static str {
        "log.origin"
    }
}

/// Why a signed checkpoint does not hold under a log key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// It is another log's checkpoint.
    #[error("a checkpoint of {claimed}, not of {expected}")]
    OtherOrigin {
        /// The trusted key's name.
        expected: KeyName,
        /// What the note says.
        claimed: KeyName,
    },
    /// No signature line names this key.
    #[error("not signed by the log's key")]
    NotSigned,
    /// The line that names this key is not its signature of the text.
    #[error("the log's signature is wrong")]
    BadSignature,
    /// More than one line names this key.
    #[error("the log's signature stands there twice")]
    DuplicateSignature,
}

impl VerifyError {
    /// The stable code of this refusal.
    pub fn code(&self) -> &'static str {
        match self {
            VerifyError::OtherOrigin { .. } => "log.origin",
            VerifyError::NotSigned => "log.not-signed",
            VerifyError::BadSignature => "log.signature",
            VerifyError::DuplicateSignature => "log.signature-duplicate",
        }
    }
}

/// What a log says of itself: at `size` entries, its root is `root`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    origin: KeyName,
    size: u64,
    root: Hash,
}

impl Checkpoint {
    /// A checkpoint of the log `origin`; the size is at most [`MAX_TREE_SIZE`], the empty tree's root is [`EMPTY_ROOT`].
    pub fn new(origin: KeyName, size: u64, root: Hash) -> Result<Self, CheckpointError> {
        if size > MAX_TREE_SIZE {
            return Err(CheckpointError::Size);
        }
        if size == 0 && root != EMPTY_ROOT {
            return Err(CheckpointError::EmptyRoot);
        }
        Ok(Checkpoint { origin, size, root })
    }

    /// The log.
    pub fn origin(&self) -> &KeyName {
        &self.origin
    }

    /// Number of entries.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The tree's root.
    pub fn root(&self) -> Hash {
        self.root
    }

    /// The note text that is signed: three lines, each with its newline (C2SP tlog-checkpoint, "Note text").
    pub fn body(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, self.root.to_base64())
    }

    /// Signs the checkpoint as the log that it names. The same checkpoint and key give the same bytes.
    pub fn sign(&self, signer: &LogSigner) -> Result<SignedCheckpoint, SignError> {
        if self.origin != *signer.name() {
            return Err(SignError { origin: self.origin.clone(), signer: signer.name().clone() });
        }
        let body = self.body();
        let signature = line(signer.name(), signer.id(), signer.sign(body.as_bytes()).to_vec());
        Ok(SignedCheckpoint::assemble(self.clone(), vec![signature]))
    }

    fn parse_body(text: &str) -> Result<Self, CheckpointError> {
        let mut lines = text.split('\n');
        let (Some(origin), Some(size_text), Some(root_text), Some(after)) =
            (lines.next(), lines.next(), lines.next(), lines.next())
        else {
            return Err(CheckpointError::Body);
        };
        if !after.is_empty() || lines.next().is_some() {
            return Err(CheckpointError::Extension);
        }
        let origin = KeyName::parse(origin).map_err(|_: KeyError| CheckpointError::Origin)?;
        if size_text.is_empty() || !size_text.bytes().all(|digit| digit.is_ascii_digit()) {
            return Err(CheckpointError::Body);
        }
        if size_text.len() > 1 && size_text.starts_with('0') {
            return Err(CheckpointError::Body);
        }
        // Only digits are left, so a failure is a number too large.
        let size: u64 = size_text.parse().map_err(|_| CheckpointError::Size)?;
        let root = Hash::from_base64(root_text).ok_or(CheckpointError::Body)?;
        Checkpoint::new(origin, size, root)
    }
}

/// A signature of a note; the name was checked when the key was made.
pub(crate) fn line(name: &KeyName, id: u32, signature: Vec<u8>) -> Signature {
    Signature::new(name.as_str().to_owned(), id, signature).expect("a key name is a valid signature name")
}

/// A signed checkpoint of which only the form is known. It gives out no size and no root before [`SignedCheckpoint::verify`].
#[derive(Clone, Debug, PartialEq)]
pub struct SignedCheckpoint {
    claimed: Checkpoint,
    signatures: Vec<Signature>,
    note: Vec<u8>,
}

impl Eq for SignedCheckpoint {}

impl SignedCheckpoint {
    pub(crate) fn assemble(claimed: Checkpoint, signatures: Vec<Signature>) -> Self {
        let mut note = claimed.body().into_bytes();
        note.push(b'\n');
        for signature in &signatures {
            note.extend(signature.to_bytes());
        }
        SignedCheckpoint { claimed, signatures, note }
    }

    /// Parses a note of at most [`MAX_NOTE_LEN`] bytes with at most [`MAX_SIGNATURES`] signatures. Anything that would
    /// not encode to the same bytes again is refused.
    pub fn parse(bytes: &[u8]) -> Result<Self, CheckpointError> {
        if bytes.len() > MAX_NOTE_LEN {
            return Err(CheckpointError::TooLong);
        }
        let note = Note::from_bytes(bytes).map_err(|_| CheckpointError::Note)?;
        let signatures = parse_lines(&bytes[note.text().len() + 1..])?;
        let text = std::str::from_utf8(note.text()).map_err(|_| CheckpointError::Note)?;
        let signed = SignedCheckpoint::assemble(Checkpoint::parse_body(text)?, signatures);
        // Strict base64 leaves no second encoding today; this holds it whatever the note parser learns to tolerate.
        if signed.note != bytes {
            return Err(CheckpointError::Note);
        }
        Ok(signed)
    }

    /// The note, byte for byte: what is served, stored and put into receipts.
    pub fn as_bytes(&self) -> &[u8] {
        &self.note
    }

    /// The note as text; notes are UTF-8.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.note).expect("a note is assembled from text")
    }

    /// The log that the note claims to be of: only good for finding the key to verify it with.
    pub fn claimed_origin(&self) -> &KeyName {
        &self.claimed.origin
    }

    /// Verifies the log's own signature. Signatures of keys other than `key` are left alone.
    pub fn verify(&self, key: &LogKey) -> Result<VerifiedCheckpoint, VerifyError> {
        if self.claimed.origin != *key.name() {
            return Err(VerifyError::OtherOrigin {
                expected: key.name().clone(),
                claimed: self.claimed.origin.clone(),
            });
        }
        let mut mine = self.signatures_of(key.name(), key.id());
        let signature = mine.next().ok_or(VerifyError::NotSigned)?;
        if mine.next().is_some() {
            return Err(VerifyError::DuplicateSignature);
        }
        if !key.verify(self.claimed.body().as_bytes(), signature) {
            return Err(VerifyError::BadSignature);
        }
        Ok(VerifiedCheckpoint { signed: self.clone(), key: key.clone() })
    }

    /// The signature bytes of every line that names this key.
    pub(crate) fn signatures_of<'a>(&'a self, name: &'a KeyName, id: u32) -> impl Iterator<Item = &'a [u8]> {
        self.signatures
            .iter()
            .filter(move |line| line.id() == id && line.name() == name.as_str())
            .map(Signature::signature)
    }
}

/// Parses signature lines, each with its newline.
pub(crate) fn parse_lines(bytes: &[u8]) -> Result<Vec<Signature>, CheckpointError> {
    let lines = bytes.strip_suffix(b"\n").ok_or(CheckpointError::Note)?;
    let mut signatures = Vec::new();
    for line in lines.split(|byte| *byte == b'\n') {
        if signatures.len() == MAX_SIGNATURES {
            return Err(CheckpointError::TooManySignatures);
        }
        signatures.push(Signature::from_bytes(line).map_err(|_| CheckpointError::Note)?);
    }
    Ok(signatures)
}

/// A checkpoint that the log's key signed. Made by [`SignedCheckpoint::verify`] alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedCheckpoint {
    signed: SignedCheckpoint,
    key: LogKey,
}

impl VerifiedCheckpoint {
    /// The log.
    pub fn origin(&self) -> &KeyName {
        &self.signed.claimed.origin
    }

    /// Number of entries.
    pub fn size(&self) -> u64 {
        self.signed.claimed.size
    }

    /// The tree's root.
    pub fn root(&self) -> Hash {
        self.signed.claimed.root
    }

    /// The statement.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.signed.claimed
    }

    /// The note that was verified.
    pub fn signed(&self) -> &SignedCheckpoint {
        &self.signed
    }

    /// The key that verified it.
    pub fn key(&self) -> &LogKey {
        &self.key
    }

    /// The same checkpoint with these lines in place of older ones of the same keys. The log's own line stays.
    pub(crate) fn with_lines(&self, lines: Vec<Signature>) -> Result<Self, CheckpointError> {
        let replaced = |old: &Signature| lines.iter().any(|new| new.id() == old.id() && new.name() == old.name());
        let mut signatures: Vec<Signature> =
            self.signed.signatures.iter().filter(|old| !replaced(old)).cloned().collect();
        signatures.extend(lines);
        if signatures.len() > MAX_SIGNATURES {
            return Err(CheckpointError::TooManySignatures);
        }
        let signed = SignedCheckpoint::assemble(self.signed.claimed.clone(), signatures);
        if signed.note.len() > MAX_NOTE_LEN {
            return Err(CheckpointError::TooLong);
        }
        Ok(VerifiedCheckpoint { signed, key: self.key.clone() })
    }
}
