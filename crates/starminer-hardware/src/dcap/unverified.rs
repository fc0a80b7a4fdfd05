//! What a caller has to know before it verifies: which endorsements and which root a quote asks for. Nothing of it is believed.

use crate::cert::Certificate;

use super::body::Body;
use super::endorsements::Endorsements;
use super::parse::{PCK_CHAIN, Quote};
use super::pck::{Platform, read_chain};

impl Quote {
    /// What the quote is about, as it stands.
    #[must_use]
    pub const fn unverified_body(&self) -> &Body {
        &self.body
    }

    /// The certificates that the quote brings along, as they stand; none where it has no chain that can be read.
    #[must_use]
    pub fn unverified_chain(&self) -> Vec<Certificate> {
        if self.certification.kind != PCK_CHAIN {
            return Vec::new();
        }
        read_chain(&self.certification.data).unwrap_or_default()
    }

    /// The platform that the first of [`Self::unverified_chain`] names.
    #[must_use]
    pub fn unverified_platform(&self) -> Option<Platform> {
        self.unverified_chain().first().and_then(|leaf| Platform::of(leaf).ok())
    }
}

impl Endorsements {
    /// Whether this file is the one to verify a quote of this kind and platform with. A file without TCB info serves nobody; where the quote does
    /// not name its platform, any file of its kind serves.
    #[must_use]
    pub fn serve(&self, quote: &Quote, platform: Option<&Platform>) -> bool {
        let Some(info) = &self.tcb_info else { return false };
        info.content.id == quote.unverified_body().tee().tcb_info()
            && platform
                .is_none_or(|platform| info.content.fmspc.eq_ignore_ascii_case(&super::pck::hex(&platform.fmspc)))
    }
}
