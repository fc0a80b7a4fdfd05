//! SGX and TDX: a quote over the batch, and for a trust domain the log behind its registers.

use starminer_hardware::cert;
use starminer_hardware::dcap::{self, Body, Quote, Tee};
use starminer_hardware::event_log::{self, EventLog, Registers};

use super::{
    Window, check_report_data, malformed, named_roots, provenance_of, refuse_unknown_roots, report_data_passes,
    seconds, verified,
};
use crate::check::Check;
use crate::enrolment::chip_digest;
use crate::evidence::EvidenceKind;
use crate::refusal::Refusal;
use crate::trust::{Provenance, SimulatedRootId};
use crate::types::Digest;
use crate::verify::Context;

pub(super) struct Parsed {
    kind: EvidenceKind,
    quote: Quote,
}

/// What a verified quote of a trust domain claims; obtained from [`crate::Verified`] alone.
#[derive(Debug, Clone)]
pub struct TdxClaims {
    pub(crate) quote: Box<dcap::Verified>,
    /// The log that leads to the registers. Appraisal of registers by their events starts here.
    pub(crate) log: Option<Box<event_log::Verified>>,
}

impl TdxClaims {
    /// All that the quote says.
    pub const fn claims(&self) -> &dcap::Claims {
        self.quote.claims()
    }

    /// What firmware and boot loader measured, where a log was given.
    pub fn log(&self) -> Option<&event_log::Verified> {
        self.log.as_deref()
    }

    /// The platform, as [`chip_digest`] names it.
    pub fn chip(&self) -> Digest {
        chip_digest(EvidenceKind::Tdx, &self.claims().platform().ppid)
    }

    /// MRTD and RTMR 0 to 3, one after the other: what reference values hold.
    pub fn measurement(&self) -> Vec<u8> {
        let Some(report) = self.claims().tdx() else { return Vec::new() };
        [&report.mr_td].into_iter().chain(&report.rtmrs).flatten().copied().collect()
    }

    pub(crate) fn provenance(&self) -> Provenance {
        provenance_of(self.quote.provenance(), SimulatedRootId::Intel)
    }
}

/// What a verified quote of an enclave claims; obtained from [`crate::Verified`] alone.
#[derive(Debug, Clone)]
pub struct SgxClaims {
    pub(crate) quote: Box<dcap::Verified>,
}

impl SgxClaims {
    /// All that the quote says.
    pub const fn claims(&self) -> &dcap::Claims {
        self.quote.claims()
    }

    /// The platform, as [`chip_digest`] names it.
    pub fn chip(&self) -> Digest {
        chip_digest(EvidenceKind::Sgx, &self.claims().platform().ppid)
    }

    /// MRENCLAVE: what reference values hold.
    pub fn measurement(&self) -> Vec<u8> {
        self.claims().sgx().map_or_else(Vec::new, |report| report.mr_enclave.to_vec())
    }

    pub(crate) fn provenance(&self) -> Provenance {
        provenance_of(self.quote.provenance(), SimulatedRootId::Intel)
    }
}

impl Parsed {
    pub(super) fn new(kind: EvidenceKind, bytes: &[u8], report_data: &Digest) -> Result<Self, Refusal> {
        let quote = Quote::parse(bytes).map_err(|error| malformed(kind, error))?;
        match (quote.unverified_body(), kind) {
            (Body::Sgx(_), EvidenceKind::Sgx) | (Body::Tdx(_), EvidenceKind::Tdx) => {}
            (Body::Sgx(_) | Body::Tdx(_), _) => return Err(malformed(kind, "the quote is of the other kind of TEE")),
        }
        check_report_data(kind, quote.unverified_body().report_data(), report_data)?;
        Ok(Self { kind, quote })
    }

    fn verify(
        &self,
        context: &Context<'_>,
        report_data: &Digest,
        checks: &mut Vec<Check>,
        windows: &mut Vec<Window>,
    ) -> Result<Box<dcap::Verified>, Refusal> {
        let chain = self.quote.unverified_chain();
        let roots: cert::Roots = named_roots(dcap::roots(), &chain, context.trust_anchors, SimulatedRootId::Intel);
        refuse_unknown_roots(&chain, &roots, SimulatedRootId::Intel)?;
        let platform = self.quote.unverified_platform();
        let none = dcap::Endorsements::none();
        let endorsements = context.endorsements.snapshot().intel.iter();
        let endorsements = endorsements.rev().find(|one| one.serve(&self.quote, platform.as_ref())).unwrap_or(&none);
        let verification = dcap::verify(&self.quote, endorsements, &roots, seconds(context.now));
        let found = verified(self.kind, verification.verified, &verification.checks, checks)?;
        check_report_data(self.kind, found.claims().body().report_data(), report_data)?;
        report_data_passes(self.kind, checks);
        let second = |at_s: u64| i64::try_from(at_s).unwrap_or(i64::MAX);
        let until_s = found.expiries().first().map_or(i64::MIN, |expiry| second(expiry.at_s));
        let what = match found.claims().body().tee() {
            Tee::Sgx => "the SGX quote's certificates and endorsements",
            Tee::Tdx => "the TDX quote's certificates and endorsements",
        };
        windows.push(Window::of(what).narrowed(second(found.from_s()), until_s));
        Ok(Box::new(found))
    }

    pub(super) fn verify_sgx(
        self,
        context: &Context<'_>,
        report_data: &Digest,
        checks: &mut Vec<Check>,
        windows: &mut Vec<Window>,
    ) -> Result<SgxClaims, Refusal> {
        Ok(SgxClaims { quote: self.verify(context, report_data, checks, windows)? })
    }

    pub(super) fn verify_tdx(
        self,
        log: Option<&[u8]>,
        context: &Context<'_>,
        report_data: &Digest,
        checks: &mut Vec<Check>,
        windows: &mut Vec<Window>,
    ) -> Result<TdxClaims, Refusal> {
        const LOG: EvidenceKind = EvidenceKind::CcLog;
        let parsed = log.map(EventLog::parse).transpose().map_err(|error| malformed(LOG, error))?;
        let quote = self.verify(context, report_data, checks, windows)?;
        let log = match (parsed, quote.claims().tdx()) {
            (None, _) => None,
            (Some(_), None) => return Err(malformed(LOG, "an enclave has no registers")),
            (Some(log), Some(report)) => {
                let verification = event_log::verify(&log, Registers::Rtmrs(&report.rtmrs));
                Some(Box::new(verified(LOG, verification.verified, &verification.checks, checks)?))
            }
        };
        Ok(TdxClaims { quote, log })
    }
}
