//! Roots, and who stands behind each.

use super::Certificate;

/// Who stands behind a root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Provenance {
    /// The maker: its root is compiled in.
    Genuine,
    /// Whoever the caller named.
    Simulated {
        /// SHA-256 of the root's DER.
        root: [u8; 32],
    },
}

impl Provenance {
    /// The name in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Genuine => "genuine",
            Self::Simulated { .. } => "simulated",
        }
    }
}

/// Roots, each with who stands behind it.
#[derive(Debug, Clone, Default)]
pub struct Roots(Vec<(Certificate, Provenance)>);

impl Roots {
    /// None: nothing verifies.
    #[must_use]
    pub const fn none() -> Self {
        Self(Vec::new())
    }

    /// Roots that are compiled in. Only modules of this crate can say so.
    pub(crate) fn compiled_in(certificates: impl IntoIterator<Item = Certificate>) -> Self {
        Self(certificates.into_iter().map(|certificate| (certificate, Provenance::Genuine)).collect())
    }

    /// Adds a root that the caller names: what chains to it is simulated, unless that very certificate is compiled in.
    pub fn add(&mut self, root: Certificate) {
        if !self.0.iter().any(|(known, _)| *known == root) {
            let provenance = Provenance::Simulated { root: root.fingerprint() };
            self.0.push((root, provenance));
        }
    }

    /// The same with a root that the caller names.
    #[must_use]
    pub fn with(mut self, root: Certificate) -> Self {
        self.add(root);
        self
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&Certificate, Provenance)> {
        self.0.iter().map(|(root, provenance)| (root, *provenance))
    }
}
