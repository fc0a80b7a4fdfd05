//! SEV-SNP: a report with its certificates, over the batch.

use starminer_hardware::cert::Certificate;
use starminer_hardware::snp::{self, Names, Report};

use super::{
    SevSnpPart, Window, check_report_data, issues_itself, malformed, named_roots, provenance_of, refuse_unknown_roots,
    report_data_passes, seconds, verified,
};
use crate::check::Check;
use crate::enrolment::chip_digest;
use crate::evidence::EvidenceKind;
use crate::refusal::Refusal;
use crate::trust::{Provenance, SimulatedRootId};
use crate::types::Digest;
use crate::verify::Context;

const KIND: EvidenceKind = EvidenceKind::SevSnp;

pub(super) struct Parsed {
    report: Report,
    certificates: Vec<Certificate>,
}

/// What a verified SEV-SNP report claims; obtained from [`crate::Verified`] alone.
#[derive(Debug, Clone)]
pub struct SevSnpClaims {
    pub(crate) verified: Box<snp::Verified>,
}

impl SevSnpClaims {
    /// All that the report says.
    pub const fn claims(&self) -> &snp::Claims {
        self.verified.claims()
    }

    /// The chip, as [`chip_digest`] names it: known where a VCEK signed, which names it. Who has a VLEK's word alone does not know.
    pub fn chip(&self) -> Option<Digest> {
        let claims = self.claims();
        let id = claims.chip_id.as_deref().filter(|_| claims.names == Names::Chip)?;
        Some(chip_digest(KIND, id))
    }

    pub(crate) fn provenance(&self) -> Provenance {
        provenance_of(self.claims().provenance, SimulatedRootId::SevSnp)
    }
}

impl Parsed {
    pub(super) fn new(bytes: &[u8], report_data: &Digest) -> Result<Self, Refusal> {
        let part = SevSnpPart::parse(bytes).map_err(|error| malformed(KIND, error))?;
        let report = Report::parse(&part.report).map_err(|error| malformed(KIND, error))?;
        check_report_data(KIND, report.unverified_report_data(), report_data)?;
        let certificates = part.certificates.iter().map(|der| Certificate::from_der(der));
        let certificates = certificates.collect::<Result<_, _>>().map_err(|error| malformed(KIND, error))?;
        Ok(Self { report, certificates })
    }

    pub(super) fn verify(
        self,
        context: &Context<'_>,
        report_data: &Digest,
        checks: &mut Vec<Check>,
        windows: &mut Vec<Window>,
    ) -> Result<SevSnpClaims, Refusal> {
        let given = context.endorsements.snapshot();
        let certificates: Vec<Certificate> = self.certificates.iter().chain(&given.amd_certificates).cloned().collect();
        let roots = named_roots(snp::roots(), &certificates, context.trust_anchors, SimulatedRootId::SevSnp);
        refuse_unknown_roots(&self.certificates, &roots, SimulatedRootId::SevSnp)?;
        let offered: Vec<Certificate> =
            certificates.into_iter().filter(|certificate| !issues_itself(certificate)).collect();
        let verification = snp::verify(&self.report, &offered, &given.amd_crls, &roots, seconds(context.now));
        let found = verified(KIND, verification.verified, &verification.checks, checks)?;
        let claims = found.claims();
        check_report_data(KIND, &claims.report_data, report_data)?;
        report_data_passes(KIND, checks);
        let root = roots.iter().map(|(root, _)| root).find(|root| root.fingerprint() == claims.root);
        windows.push(
            Window::of_chains("SEV-SNP certificates and revocation lists", root, &given.amd_crls)
                .narrowed(claims.not_before_s, claims.not_after_s),
        );
        Ok(SevSnpClaims { verified: Box::new(found) })
    }
}
