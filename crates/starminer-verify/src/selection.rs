//! Which endorsements one piece of evidence needs, taken out of a network's whole snapshot.
//!
//! A snapshot has thousands of devices' endorsements and ages them ([`Snapshot`]); what verification is given, and a receipt commits to, are the
//! few that the evidence at hand asks for. Nothing of the evidence is believed for that: whoever asks for others gets others, and they do
//! not fit. What there is not is named with where to fetch it.

use starminer_hardware::cert::{Certificate, Crl};
use starminer_hardware::dcap::Quote;
use starminer_hardware::endorsements::{Ages, DcapWants, Key, Missing, PckAuthority, RimId, Snapshot, SnpWants};
use starminer_hardware::snp::{Product, Report, SigningKey};
use starminer_hardware::tpm::ek;

use crate::endorsements::{EndorsementKind, Endorsements, EndorsementsError};
use crate::evidence::{Evidence, EvidenceKind};
use crate::parts::{GpuPart, SevSnpPart, TpmPart};
use crate::types::UnixTime;

/// What a snapshot had for one piece of evidence.
#[derive(Debug, Clone)]
pub struct Selection {
    /// To verify it with.
    pub endorsements: Endorsements,
    /// The same as files, to be handed on.
    pub files: Vec<(EndorsementKind, Vec<u8>)>,
    /// What was taken out of the snapshot, by name.
    pub used: Vec<Key>,
    /// What the evidence asks for and the snapshot does not have, or has too old. Most of it refuses; some is not asked for by any policy.
    pub missing: Vec<Missing>,
}

#[derive(Default)]
struct Files {
    files: Vec<(EndorsementKind, Vec<u8>)>,
    /// Whatever was asked for, had or not.
    asked: Vec<Key>,
    missing: Vec<Missing>,
}

impl Files {
    fn select(self, snapshot: &Snapshot, ages: &Ages, now_s: u64) -> Result<Selection, EndorsementsError> {
        let mut used: Vec<Key> = Vec::new();
        for key in self.asked {
            if !used.contains(&key) && snapshot.find(&key, ages, now_s).is_ok() {
                used.push(key);
            }
        }
        let endorsements = Endorsements::new(self.files.iter().map(|(kind, bytes)| (*kind, bytes)))?;
        Ok(Selection { endorsements, files: self.files, used, missing: self.missing })
    }

    fn certificates(&mut self, kind: EndorsementKind, certificates: &[Certificate]) {
        self.files.extend(certificates.iter().map(|certificate| (kind, certificate.der().to_vec())));
    }

    fn lists(&mut self, kind: EndorsementKind, lists: &[Crl]) {
        self.files.extend(lists.iter().map(|list| (kind, list.der().to_vec())));
    }
}

impl Evidence {
    /// Takes the endorsements for this evidence out of a snapshot, as of this time.
    ///
    /// # Errors
    /// They are more than [`Endorsements`] hold.
    pub fn select_endorsements(
        &self,
        snapshot: &Snapshot,
        ages: &Ages,
        now: UnixTime,
    ) -> Result<Selection, EndorsementsError> {
        let mut files = Files::default();
        let now_s = now.as_seconds();
        for part in &self.parts {
            let bytes = part.report.as_slice();
            match part.kind {
                EvidenceKind::SevSnp => sev_snp(bytes, snapshot, ages, now_s, &mut files),
                EvidenceKind::Tdx | EvidenceKind::Sgx => intel(bytes, snapshot, ages, now_s, &mut files),
                EvidenceKind::Tpm => tpm(bytes, snapshot, ages, now_s, &mut files),
                EvidenceKind::NvidiaGpu => gpu(bytes, snapshot, ages, now_s, &mut files),
                EvidenceKind::SoftwareTee | EvidenceKind::UefiLog | EvidenceKind::CcLog | EvidenceKind::ImaLog => {}
            }
        }
        files.select(snapshot, ages, now_s)
    }
}

fn sev_snp(bytes: &[u8], snapshot: &Snapshot, ages: &Ages, now_s: u64, files: &mut Files) {
    let Ok(part) = SevSnpPart::parse(bytes) else { return };
    let Ok(report) = Report::parse(&part.report) else { return };
    let (chip_id, tcb) = report.unverified_chip_and_tcb();
    let (product, signer) = report.unverified_product_and_key();
    // Reports before version 3 do not say: whatever there is for this chip is its own.
    let products = product.map_or_else(|| vec![Product::Milan, Product::Genoa, Product::Turin], |one| vec![one]);
    let brings_its_own = !part.certificates.is_empty();
    for one in products {
        let wants = SnpWants { product: one, signer, names: chip_id, tcb };
        files.asked.extend(wants.keys());
        let found = snapshot.snp(&wants, ages, now_s);
        files.certificates(EndorsementKind::AmdCertificates, &found.certificates);
        files.lists(EndorsementKind::AmdCrl, &found.crls);
        let needed = found.missing.into_iter().filter(|missing| match missing.what {
            // The authorities are compiled in.
            Key::AmdChain { .. } => false,
            // A VLEK's certificate comes from its cloud, and is not found by a chip.
            Key::AmdVcek { .. } | Key::AmdVlek { .. } => !brings_its_own && signer == SigningKey::Vcek,
            _ => true,
        });
        files.missing.extend(needed.filter(|_| product.is_some()));
    }
}

fn intel(bytes: &[u8], snapshot: &Snapshot, ages: &Ages, now_s: u64, files: &mut Files) {
    let Ok(quote) = Quote::parse(bytes) else { return };
    let Some(platform) = quote.unverified_platform() else { return };
    let authorities = [PckAuthority::Processor, PckAuthority::Platform];
    let Some(ca) = authorities.into_iter().find(|ca| ca.name() == platform.ca_name()) else { return };
    let wants = DcapWants { tee: quote.unverified_body().tee(), fmspc: platform.fmspc, ca };
    let found = snapshot.dcap(&wants, ages, now_s);
    files.asked.extend(wants.keys());
    files.files.push((EndorsementKind::Intel, found.json));
    files.missing.extend(found.missing);
}

/// The same for the certificates of a TPM that is to be enrolled: its endorsement key's first, in DER.
///
/// # Errors
/// They are more than [`Endorsements`] hold.
pub fn select_for_tpm(
    certificates: &[&[u8]],
    snapshot: &Snapshot,
    ages: &Ages,
    now: UnixTime,
) -> Result<Selection, EndorsementsError> {
    let mut files = Files::default();
    tpm_certificates(certificates.iter().copied(), snapshot, ages, now.as_seconds(), &mut files);
    files.select(snapshot, ages, now.as_seconds())
}

fn tpm(bytes: &[u8], snapshot: &Snapshot, ages: &Ages, now_s: u64, files: &mut Files) {
    let Ok(part) = TpmPart::parse(bytes) else { return };
    tpm_certificates(part.ek_certificates.iter().map(Vec::as_slice), snapshot, ages, now_s, files);
}

fn tpm_certificates<'c>(
    certificates: impl Iterator<Item = &'c [u8]>,
    snapshot: &Snapshot,
    ages: &Ages,
    now_s: u64,
    files: &mut Files,
) {
    let certificates: Vec<Certificate> =
        certificates.filter_map(|der| Some(Certificate::from_der_prefix(der).ok()?.0)).collect();
    let Some((key, above)) = certificates.split_first() else { return };
    // Up to what the part brings along, and from the last of it upwards.
    for certificate in [key].into_iter().chain(above) {
        let found = snapshot.tpm(certificate, &ek::roots(), ages, now_s);
        files.certificates(EndorsementKind::TpmCertificates, &found.authorities);
        files.lists(EndorsementKind::TpmCrl, &found.crls);
        // They are found by name of the issuer, and named by where they were had.
        let ders: Vec<&[u8]> =
            found.authorities.iter().map(Certificate::der).chain(found.crls.iter().map(Crl::der)).collect();
        let items = snapshot.items().filter(|item| matches!(item.key(), Key::TpmAuthority { .. } | Key::TpmCrl { .. }));
        files.asked.extend(items.filter(|item| ders.contains(&item.content().bytes())).map(|item| item.key().clone()));
        files.missing.extend(found.missing);
    }
}

fn gpu(bytes: &[u8], snapshot: &Snapshot, ages: &Ages, now_s: u64, files: &mut Files) {
    let Ok(part) = GpuPart::parse(bytes) else { return };
    let stated = part.stated_versions();
    let rims: Vec<RimId> = snapshot
        .items()
        .filter_map(|item| match item.key() {
            Key::NvidiaRim { id } => Some(id.clone()),
            _ => None,
        })
        .filter(|id| stated.iter().any(|version| is_of_version(id.as_str(), version)))
        .collect();
    let chain: Vec<Certificate> = part.certificates.iter().filter_map(|der| Certificate::from_der(der).ok()).collect();
    let found = snapshot.nvidia(&rims, &[&chain], ages, now_s);
    files.asked.extend(rims.iter().map(|id| Key::NvidiaRim { id: id.clone() }));
    files.asked.extend(
        chain
            .windows(2)
            .map(|pair| Key::NvidiaOcsp { issuer: pair[1].fingerprint(), serial: pair[0].serial().to_vec() }),
    );
    for id in &rims {
        if let Ok(item) = snapshot.find(&Key::NvidiaRim { id: id.clone() }, ages, now_s) {
            files.files.push((EndorsementKind::NvidiaRim, item.content().bytes().to_vec()));
        }
    }
    files.files.extend(found.revoked.iter().map(|sha256| (EndorsementKind::NvidiaRevoked, sha256.to_vec())));
    files.missing.extend(found.missing);
}

/// `NV_GPU_DRIVER_GH100_550.144.03`, and of a VBIOS its version without dots: `NV_GPU_VBIOS_1010_0200_882_96009F0001`.
fn is_of_version(id: &str, version: &str) -> bool {
    let last = id.rsplit('_').next().unwrap_or_default();
    last.eq_ignore_ascii_case(version) || last.eq_ignore_ascii_case(&version.replace('.', ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manifests_are_found_by_what_their_names_end_in() {
        for (id, version, is) in [
            ("NV_GPU_DRIVER_GH100_550.144.03", "550.144.03", true),
            ("NV_GPU_DRIVER_GH100_550.144.03", "550.144.0", false),
            ("NV_GPU_DRIVER_GH100_1550.144.03", "550.144.03", false),
            ("NV_GPU_VBIOS_1010_0200_882_96009F0001", "96.00.9f.00.01", true),
            ("NV_GPU_VBIOS_1010_0200_882_96009F0001", "96.00.9f.00.02", false),
        ] {
            assert_eq!(is_of_version(id, version), is, "{id} {version}");
        }
    }
}
