//! What a releaser trusts, put together from the spec that the requester signed and the network's trust file.

use starminer_receipt::{NetworkTrust, TaskSpec};
use starminer_verify::{Endorsements, TrustAnchors};

/// Anchors and endorsements for one decision.
#[derive(Debug, Clone)]
pub struct ReleaserTrust {
    /// Makers' roots, and the simulated roots that count here.
    pub anchors: TrustAnchors,
    /// Certificates and revocation lists of the makers.
    pub endorsements: Endorsements,
}

impl ReleaserTrust {
    /// For a requester or an auditor: simulated roots count only if its own trust file names them.
    #[must_use]
    pub fn from_network(network: &NetworkTrust, endorsements: Endorsements) -> Self {
        Self { anchors: TrustAnchors::with_simulated_roots(&network.simulated_root_keys()), endorsements }
    }

    /// For a broker: it has no opinion of its own on simulated roots, the spec's signed policy has. What the policy does not name is refused.
    #[must_use]
    pub fn from_spec(spec: &TaskSpec, endorsements: Endorsements) -> Self {
        Self { anchors: TrustAnchors::with_simulated_roots(&spec.policy.accepted_simulated_roots), endorsements }
    }
}
