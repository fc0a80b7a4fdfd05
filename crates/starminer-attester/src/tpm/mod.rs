//! The TPM as a device: the attester's half of `starminer_hardware::tpm`.
//!
//! [`Tpm`] talks to a TPM 2.0 through the kernel's resource manager or an emulator's socket, over a session salted to its endorsement key: what
//! matters is authenticated in both directions, and secrets are encrypted. [`TpmAttester`] makes a quote over the root
//! of a batch of bindings, and answers an enrolment. TCG TPM 2.0 Library, Parts 1 to 3; EK Credential Profile 2.5;
//! `specs/hardware.md`, section "TPM: the device".
//!
//! Not here: judging any of it, event logs, and the form in which evidence is sent. Nothing here is asynchronous.

mod attester;
mod ek;
mod error;
mod frame;
mod keys;
mod link;
mod nv;
mod quote;
mod seal;
mod session;
mod settings;
mod transport;
mod wire;

use std::fmt;

use starminer_hardware::tpm::Public;

pub use attester::{TpmAttester, TpmAttesterSettings, TpmEvidence, TpmOffer};
pub use ek::EkKind;
pub use error::{Command, ResponseCode, TpmError};
pub use keys::{Ak, AkKind, AkPlace, AkSpec};

pub use nv::{CERTIFICATE_BYTES_MAX, CounterReaders, EkCertificates};
pub use quote::{ClockTime, Properties, RawQuote};
pub use seal::{MadeUnder, PolicyStep, SECRET_BYTES_MAX, Sealed};
pub use settings::{Authorization, Deadlines, KnownEk, TpmSettings};
pub use starminer_hardware::{
    cert::{Certificate, CertificateError},
    tpm::{HashAlg, PcrIndex},
};
pub use tpm2_protocol::data::TpmRcBase;
pub use transport::{ParseTpmAddressError, TpmAddress};

/// An open TPM.
///
/// Methods block, each command at most as long as [`Deadlines`] says: not for an asynchronous task's thread. Keys and
/// sessions go when it is dropped. What a killed process left goes with its file descriptor (`/dev/tpmrm0`), or when
/// the next user opens (a plain socket).
///
/// Errors of the TPM are not authenticated. Behind a forged one the session may be out of step, and every later command
/// is refused with `TPM_RC_AUTH_FAIL` or `TPM_RC_BAD_AUTH`: open it anew, as [`TpmAttester`] does.
pub struct Tpm {
    link: link::Link,
    ek: Public,
    ek_name: Vec<u8>,
    ek_area: Vec<u8>,
}

impl fmt::Debug for Tpm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tpm").field("address", &self.link.settings.address).finish_non_exhaustive()
    }
}

impl Tpm {
    /// Opens a TPM, finds or makes its endorsement key, and starts a session salted to it.
    ///
    /// # Errors
    /// Where there is no TPM, it does not answer, or has another endorsement key than expected.
    pub fn open(settings: TpmSettings) -> Result<Self, TpmError> {
        let mut link = link::Link::open(settings)?;
        // The endorsement key is made over an unsalted session: what authorises that is not sent, and what comes back
        // is public.
        link.use_unsalted()?;
        let ek = ek::load_ek(&mut link)?;
        if let KnownEk::Name(name) = &link.settings.known_ek
            && *name != ek.entity.name
        {
            return Err(TpmError::OtherEndorsementKey);
        }
        link.use_salted(ek.entity.handle, &ek.public)?;
        ek.unload(&mut link)?;
        Ok(Self { link, ek: ek.public, ek_name: ek.entity.name, ek_area: ek.area })
    }

    /// Whether the connection is whole. A broken one is not mended: open a new one.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.link.is_open()
    }

    /// The endorsement key.
    #[must_use]
    pub const fn ek(&self) -> &Public {
        &self.ek
    }

    /// Its name.
    #[must_use]
    pub fn ek_name(&self) -> &[u8] {
        &self.ek_name
    }

    /// Its `TPM2B_PUBLIC`, as the TPM gave it.
    #[must_use]
    pub fn ek_tpm2b(&self) -> Vec<u8> {
        wire::Writer::new().sized(&self.ek_area).finish().to_vec()
    }
}
