//! Which services there are, and where.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use starminer_hardware::endorsements::{Key, Service};

use crate::address::Base;

/// The services. By default the makers' own; each can be replaced by a cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sources {
    /// AMD's key distribution service.
    pub amd_kds: Base,
    /// Intel's provisioning certification service, or any PCCS.
    pub intel_pcs: Base,
    /// The list of Intel's root: the whole address. With a PCCS, its `/sgx/certification/v4/rootcacrl`.
    pub intel_root_crl: Base,
    /// NVIDIA's service of manifests.
    pub nvidia_rim: Base,
    /// NVIDIA's OCSP responder: the whole address.
    pub nvidia_ocsp: Base,
    /// Hosts that certificates of TPMs may name, and where each is asked. Other hosts are never asked.
    pub tpm: BTreeMap<String, Base>,
}

/// Hosts that makers' certificates name.
const TPM_HOSTS: [&str; 7] = [
    "ftpm.amd.com",
    "pki.infineon.com",
    "sw-center.st.com",
    "trustedservices.intel.com",
    "tsci.intel.com",
    "upgrades.intel.com",
    "www.nuvoton.com",
];

impl Default for Sources {
    fn default() -> Self {
        let base = |text: &str| text.parse().expect("a test reads the defaults");
        Self {
            amd_kds: base("https://kdsintf.amd.com"),
            intel_pcs: base("https://api.trustedservices.intel.com"),
            intel_root_crl: base("https://certificates.trustedservices.intel.com/IntelSGXRootCA.der"),
            nvidia_rim: base("https://rim.attestation.nvidia.com"),
            nvidia_ocsp: base("https://ocsp.ndis.nvidia.com"),
            tpm: TPM_HOSTS.into_iter().map(|host| (host.to_owned(), base(&format!("https://{host}")))).collect(),
        }
    }
}

impl Sources {
    /// Where an endorsement is had, and the path there; none where its maker does not publish it, or at a host that is not configured.
    pub(crate) fn place(&self, key: &Key) -> Option<(&Base, String)> {
        let location = key.location()?;
        let (base, behind) = match (location.service, key) {
            (Service::AmdKds, _) => (&self.amd_kds, location.path),
            (Service::IntelPcs, _) => (&self.intel_pcs, location.path),
            (Service::IntelRootCrl, _) => (&self.intel_root_crl, location.path),
            (Service::NvidiaRim, _) => (&self.nvidia_rim, location.path),
            (Service::NvidiaOcsp, _) => (&self.nvidia_ocsp, String::new()),
            (Service::TpmMaker, Key::TpmAuthority { url } | Key::TpmCrl { url }) => {
                (self.tpm.get(&url.host().to_ascii_lowercase())?, url.path().to_owned())
            }
            (Service::TpmMaker, _) => return None,
        };
        Some((base, base.path(&behind)))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        let sources = Sources::default();
        let place =
            |key: &str| sources.place(&key.parse().unwrap()).map(|(base, path)| format!("{}{path}", base.authority()));
        assert_eq!(place("amd/crl/genoa/vcek").unwrap(), "kdsintf.amd.com/vcek/v1/Genoa/crl");
        assert_eq!(place("intel/root-crl").unwrap(), "certificates.trustedservices.intel.com/IntelSGXRootCA.der");
        assert_eq!(place("tpm/crl/http://ftpm.amd.com/pki/aia/1").unwrap(), "ftpm.amd.com/pki/aia/1");
        assert_eq!(place("tpm/crl/http://169.254.169.254/latest"), None);
        assert_eq!(place("tpm/crl/https://ftpm.amd.com:22/x"), None);
        assert_eq!(place("amd/vlek/genoa/61/0000000000000000"), None);
        assert_eq!(place(&format!("nvidia/ocsp/{}/01", "00".repeat(32))).unwrap(), "ocsp.ndis.nvidia.com/");
    }
}
