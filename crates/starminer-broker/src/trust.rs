//! What a releaser trusts, put together from the spec that the requester signed and the network's trust file.

use starminer_receipt::{NetworkTrust, TaskSpec};
use starminer_verify::{Endorsements, Enrolments, TooManyRoots, TrustAnchors};

/// Anchors and endorsements for one decision.
#[derive(Debug, Clone)]
pub struct ReleaserTrust {
    /// Makers' roots, and the simulated roots that count here.
    pub anchors: TrustAnchors,
    /// Certificates and revocation lists of the makers.
    pub endorsements: Endorsements,
    /// What was found out about nodes when they joined, as the releaser verified it. None until it sets them.
    pub enrolments: Enrolments,
}

impl ReleaserTrust {
    /// For a requester or an auditor: simulated roots count only if its own trust file names them.
    ///
    /// # Errors
    /// More simulated roots than can be named.
    pub fn from_network(network: &NetworkTrust, endorsements: Endorsements) -> Result<Self, TooManyRoots> {
        let anchors = TrustAnchors::makers().with_simulated_roots(network.simulated_root_ids())?;
        Ok(Self { anchors, endorsements, enrolments: Enrolments::none() })
    }

    /// For a broker: it has no opinion of its own on simulated roots, the spec's signed policy has. What the policy does not name is refused.
    ///
    /// # Errors
    /// More simulated roots than can be named.
    pub fn from_spec(spec: &TaskSpec, endorsements: Endorsements) -> Result<Self, TooManyRoots> {
        let roots = spec.policy.fields().accepted_simulated_roots.iter().copied();
        let anchors = TrustAnchors::makers().with_simulated_roots(roots)?;
        Ok(Self { anchors, endorsements, enrolments: Enrolments::none() })
    }
}
