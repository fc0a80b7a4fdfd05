//! The digests that are computed while an object passes by: BLAKE3 of what is sealed, SHA-256 of what is not.

use std::fmt;

use aws_lc_rs::digest;

use crate::object::layout::Layout;

/// The name of a blob: BLAKE3 of its bytes, which here are an object's ciphertext. Shown as lowercase hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContentId(pub [u8; 32]);

impl ContentId {
    /// The content id of `bytes`.
    pub fn of(bytes: &[u8]) -> ContentId {
        ContentId(*blake3::hash(bytes).as_bytes())
    }
}

impl fmt::Display for ContentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ContentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ContentId({self})")
    }
}

/// Whether the content id is computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ContentIdMode {
    /// It is.
    Compute,
    /// It is not: sealing and opening run at the speed of AES-GCM.
    #[default]
    Skip,
}

/// Whether the SHA-256 of the plaintext is computed. It is private: publish only [`crate::commit`] of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PlainDigestMode {
    /// It is. SHA-256 cannot be shared out, so that one thread's speed of it bounds the whole.
    Compute,
    /// It is not.
    #[default]
    Skip,
}

/// Which digests are computed; by default none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digests {
    /// BLAKE3 of the object.
    pub content_id: ContentIdMode,
    /// SHA-256 of the plaintext.
    pub plain_sha256: PlainDigestMode,
}

/// What is known of an object once all of it was sealed or opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedSummary {
    /// Length of the plaintext in bytes.
    pub plain_len: u64,
    /// Length of the object in bytes.
    pub sealed_len: u64,
    /// BLAKE3 of the object, if asked for.
    pub content_id: Option<ContentId>,
    /// SHA-256 of the plaintext, if asked for.
    pub plain_sha256: Option<[u8; 32]>,
}

impl SealedSummary {
    pub(crate) fn new(layout: &Layout, content: ContentHasher, plain: PlainHasher) -> Self {
        Self {
            plain_len: layout.plain_len(),
            sealed_len: layout.sealed_len(),
            content_id: content.finish(),
            plain_sha256: plain.finish(),
        }
    }
}

/// Bytes that BLAKE3 hashes side by side at its widest: 16 of its chunks.
const STRIDE: usize = 16 * blake3::CHUNK_LEN;

/// BLAKE3 of the object as far as it was seen, or nothing.
pub(crate) struct ContentHasher(Option<Box<Aligned>>);

/// Feeds BLAKE3 whole strides. Tags and header put everything off its borders, and each piece that begins or ends
/// within a stride would be hashed in narrow steps at a fraction of the speed.
struct Aligned {
    hasher: blake3::Hasher,
    started: [u8; STRIDE],
    started_len: usize,
}

impl Aligned {
    fn update(&mut self, mut bytes: &[u8]) {
        if self.started_len > 0 {
            let n = bytes.len().min(STRIDE - self.started_len);
            let (now, later) = bytes.split_at(n);
            self.started[self.started_len..][..n].copy_from_slice(now);
            self.started_len += n;
            bytes = later;
            if self.started_len < STRIDE {
                return;
            }
            self.hasher.update(&self.started);
        }
        let (whole, rest) = bytes.split_at(bytes.len() - bytes.len() % STRIDE);
        self.hasher.update(whole);
        self.started[..rest.len()].copy_from_slice(rest);
        self.started_len = rest.len();
    }
}

impl ContentHasher {
    pub(crate) fn new(mode: ContentIdMode) -> Self {
        Self(match mode {
            ContentIdMode::Compute => {
                Some(Box::new(Aligned { hasher: blake3::Hasher::new(), started: [0; STRIDE], started_len: 0 }))
            }
            ContentIdMode::Skip => None,
        })
    }

    pub(crate) fn update(&mut self, sealed: &[u8]) {
        if let Some(aligned) = &mut self.0 {
            aligned.update(sealed);
        }
    }

    fn finish(self) -> Option<ContentId> {
        self.0.map(|mut aligned| {
            let Aligned { hasher, started, started_len } = &mut *aligned;
            hasher.update(&started[..*started_len]);
            ContentId(*hasher.finalize().as_bytes())
        })
    }
}

/// SHA-256 of the plaintext as far as it was seen, or nothing.
pub(crate) struct PlainHasher(Option<digest::Context>);

impl PlainHasher {
    pub(crate) fn new(mode: PlainDigestMode) -> Self {
        Self(match mode {
            PlainDigestMode::Compute => Some(digest::Context::new(&digest::SHA256)),
            PlainDigestMode::Skip => None,
        })
    }

    pub(crate) fn update(&mut self, plain: &[u8]) {
        if let Some(context) = &mut self.0 {
            context.update(plain);
        }
    }

    fn finish(self) -> Option<[u8; 32]> {
        self.0.map(|context| {
            let mut sha256 = [0; 32];
            sha256.copy_from_slice(context.finish().as_ref());
            sha256
        })
    }
}
