//! Confidential-computing GPUs of NVIDIA: measurement reports of Hopper and Blackwell, and the signed manifests that say what they should measure.
//!
//! [`Evidence::parse`] reads what NVIDIA's tools serialize, [`Rim::parse`] a reference integrity manifest; [`verify`] holds chains, signatures, nonces and inner
//! consistency against the roots, and [`appraise`] the measurements and the state against a [`Policy`].
//!
//! Deliberately absent: switches (NVSwitch) and Rubin, whose evidence has other forms; OCSP, of which only the outcome can be given ([`Endorsements::revoked`]);
//! and fetching of anything. Nothing here says that the CPU and the GPU share a machine: the nonce has to be the binding.
//!
//! Formats and check names: `specs/hardware.md`, section "NVIDIA".

mod appraise;
mod claims;
mod device;
mod dice;
mod evidence;
mod opaque;
mod rim;
mod spdm;
mod verify;
mod xml;

pub use appraise::{Nvdec0, Policy, Requirement, appraise};
pub use claims::{Claims, GpuClaims, RimClaims};
pub use evidence::{Architecture, Evidence, MAX_CERTIFICATES, MAX_GPUS, MAX_LEN as MAX_EVIDENCE_LEN, ParseError};
pub use opaque::{FWID_LEN, Mode};
pub use rim::{MAX_ALTERNATIVES, Rim, RimError, RimKind};
pub use spdm::{MAX_MEASUREMENT_LEN, MAX_OPAQUE_LEN, MAX_REPORT_LEN, NONCE_LEN};
pub use verify::{Endorsements, MAX_RIMS, Nonce, Roots, Verification, Verified, verify, verify_rim};
pub use xml::MAX_LEN as MAX_RIM_LEN;
