//! What a releaser trusts, put together from the spec that the requester signed and the network's trust file.

use starminer_receipt::{NetworkTrust, TaskSpec};
use starminer_verify::{TooManyRoots, TrustAnchors};

/// The roots that count in a decision. Endorsements and enrolments come with the evidence, signed by their makers and by enrollers whom the
/// spec names.
#[derive(Debug, Clone)]
pub struct ReleaserTrust {
    /// Makers' roots, and the simulated roots that count here.
    pub anchors: TrustAnchors,
}

impl ReleaserTrust {
    /// For a requester or an auditor: simulated roots count only if its own trust file names them.
    ///
    /// # Errors
    /// More simulated roots than can be named.
    pub fn from_network(network: &NetworkTrust) -> Result<Self, TooManyRoots> {
        let anchors = TrustAnchors::makers().with_simulated_roots(network.simulated_root_ids())?;
        Ok(Self { anchors })
    }

    /// For a broker: it has no opinion of its own on simulated roots, the spec's signed policy has. What the policy does not name is refused.
    ///
    /// # Errors
    /// More simulated roots than can be named.
    pub fn from_spec(spec: &TaskSpec) -> Result<Self, TooManyRoots> {
        let roots = spec.policy.fields().accepted_simulated_roots.iter().copied();
        let anchors = TrustAnchors::makers().with_simulated_roots(roots)?;
        Ok(Self { anchors })
    }
}
