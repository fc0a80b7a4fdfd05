//! What verifiers take out of a snapshot, each kind by what its evidence says it needs; and what is missing for it.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    admit::{File, hex, pem},
    age::Ages,
    item::{Absence, Item, Missing, Parsed},
    key::{Address, Key, PckAuthority, RimId},
    ocsp::Status,
    snapshot::{Snapshot, crl},
};
use crate::{
    cert::{
        Certificate, Crl, MAX_DEPTH, Roots,
        der::{Reader, only, tag},
    },
    dcap::{Endorsements, Tee},
    nvidia::Rim,
    snp::{Product, SigningKey, TcbVersion},
};

const AUTHORITY_INFORMATION: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 1, 1];
const CA_ISSUERS: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 0x30, 2];
const DISTRIBUTION_POINTS: &[u8] = &[0x55, 0x1d, 0x1f];
/// `uniformResourceIdentifier [6]` of a GeneralName.
const URI: u8 = 0x86;
/// The most addresses that are taken from one certificate.
const MAX_ADDRESSES: usize = 4;

/// What an SNP report needs.
#[derive(Debug, Clone, Copy)]
pub struct SnpWants<'a> {
    /// The line of processors.
    pub product: Product,
    /// Which key signed.
    pub signer: SigningKey,
    /// The chip, as in the report (64 bytes) or in its certificate; for VLEKs the cloud's name.
    pub names: &'a [u8],
    /// The reported TCB.
    pub tcb: TcbVersion,
}

impl SnpWants<'_> {
    /// The endorsements that it needs, in the order in which they rest on each other.
    #[must_use]
    pub fn keys(&self) -> Vec<Key> {
        let (product, signer, tcb) = (self.product, self.signer, self.tcb);
        let of_key = match signer {
            SigningKey::Vcek => {
                let length = super::key::chip_id_bytes(product).min(self.names.len());
                Key::AmdVcek { product, chip_id: self.names[..length].to_vec(), tcb }
            }
            SigningKey::Vlek => {
                Key::AmdVlek { product, cloud_id: String::from_utf8_lossy(self.names).into_owned(), tcb }
            }
        };
        vec![Key::AmdChain { product, signer }, of_key, Key::AmdCrl { product, signer }]
    }
}

/// Endorsements for an SNP report.
#[derive(Debug, Clone)]
pub struct SnpEndorsements {
    /// VCEK or VLEK and what stands above it.
    pub certificates: Vec<Certificate>,
    /// The list of the root.
    pub crls: Vec<Crl>,
    /// What there is not.
    pub missing: Vec<Missing>,
}

/// What a quote of Intel's needs.
#[derive(Debug, Clone, Copy)]
pub struct DcapWants {
    /// Enclave or trust domain.
    pub tee: Tee,
    /// The platform.
    pub fmspc: [u8; 6],
    /// Who issued the PCK certificate.
    pub ca: PckAuthority,
}

impl DcapWants {
    /// The endorsements that it needs, in the order in which they rest on each other.
    #[must_use]
    pub fn keys(&self) -> Vec<Key> {
        vec![
            Key::IntelRootCrl,
            Key::IntelPckCrl { ca: self.ca },
            Key::IntelTcbInfo { tee: self.tee, fmspc: self.fmspc },
            Key::IntelQeIdentity { tee: self.tee },
        ]
    }
}

/// Endorsements for a quote of Intel's.
#[derive(Debug, Clone)]
pub struct DcapEndorsements {
    /// As the verifier of quotes takes them.
    pub endorsements: Endorsements,
    /// The same as a file, for receipts and other tools.
    pub json: Vec<u8>,
    /// What there is not. A quote is refused for it.
    pub missing: Vec<Missing>,
}

/// Endorsements for the certificate of an endorsement key.
#[derive(Debug, Clone)]
pub struct TpmEndorsements {
    /// Authorities between it and a root.
    pub authorities: Vec<Certificate>,
    /// Lists of those authorities and of the root.
    pub crls: Vec<Crl>,
    /// What there is not.
    pub missing: Vec<Missing>,
}

/// Endorsements for evidence of NVIDIA's.
#[derive(Debug, Clone)]
pub struct NvidiaEndorsements {
    /// Manifests.
    pub rims: Vec<Rim>,
    /// SHA-256 of certificates that the responder says are revoked.
    pub revoked: Vec<[u8; 32]>,
    /// What there is not.
    pub missing: Vec<Missing>,
}

/// Items that can be used, and what is missing.
struct Finder<'a> {
    snapshot: &'a Snapshot,
    ages: &'a Ages,
    now_s: u64,
    missing: Vec<Missing>,
}

impl<'a> Finder<'a> {
    fn find(&mut self, key: &Key) -> Option<&'a Item> {
        match self.snapshot.find(key, self.ages, self.now_s) {
            Ok(item) => Some(item),
            Err(missing) => {
                self.missing.push(missing);
                None
            }
        }
    }
}

impl Snapshot {
    const fn finder<'a>(&'a self, ages: &'a Ages, now_s: u64) -> Finder<'a> {
        Finder { snapshot: self, ages, now_s, missing: Vec::new() }
    }

    /// For an SNP report.
    #[must_use]
    pub fn snp(&self, wants: &SnpWants<'_>, ages: &Ages, now_s: u64) -> SnpEndorsements {
        let mut finder = self.finder(ages, now_s);
        let (mut certificates, mut crls) = (Vec::new(), Vec::new());
        for key in wants.keys() {
            match finder.find(&key).map(|item| &item.parsed) {
                Some(Parsed::Certificates(found)) => certificates.extend_from_slice(found),
                Some(Parsed::Crl(list)) => crls.push((**list).clone()),
                _ => {}
            }
        }
        SnpEndorsements { certificates, crls, missing: finder.missing }
    }

    /// For a quote of Intel's.
    #[must_use]
    pub fn dcap(&self, wants: &DcapWants, ages: &Ages, now_s: u64) -> DcapEndorsements {
        let mut finder = self.finder(ages, now_s);
        let mut file = File::new();
        for key in wants.keys() {
            let Some(item) = finder.find(&key) else { continue };
            let chain = item.chain.as_ref().and_then(|chain| Certificate::read(chain.bytes()).ok());
            let chain = Value::from(pem(&chain.unwrap_or_default()));
            let mut put = |name: &str, value: Value| file.insert(name.to_owned(), value);
            match (&key, &item.parsed) {
                (Key::IntelRootCrl, _) => {
                    put("root_ca_crl", hex(item.content.bytes()));
                }
                (Key::IntelPckCrl { .. }, _) => {
                    put("pck_crl", hex(item.content.bytes()));
                    put("pck_crl_issuer_chain", chain);
                }
                (Key::IntelTcbInfo { .. }, Parsed::Signed { text, signature }) => {
                    put("tcb_info", text.clone().into());
                    put("tcb_info_signature", signature.clone().into());
                    put("tcb_info_issuer_chain", chain);
                }
                (_, Parsed::Signed { text, signature }) => {
                    put("qe_identity", text.clone().into());
                    put("qe_identity_signature", signature.clone().into());
                    put("qe_identity_issuer_chain", chain);
                }
                _ => {}
            }
        }
        let json = Value::Object(file).to_string().into_bytes();
        // Each part was read in this way before it was kept.
        let endorsements = Endorsements::parse(&json).unwrap_or_else(|_| Endorsements::none());
        DcapEndorsements { endorsements, json, missing: finder.missing }
    }

    /// For the certificate of an endorsement key, of which nothing is believed: authorities are followed upwards by name, to one of the roots.
    #[must_use]
    pub fn tpm(&self, ek: &Certificate, roots: &Roots, ages: &Ages, now_s: u64) -> TpmEndorsements {
        let mut finder = self.finder(ages, now_s);
        let mut authorities: Vec<Certificate> = Vec::new();
        let mut crls: Vec<Crl> = Vec::new();
        let mut last = ek.clone();
        for _ in 0..MAX_DEPTH {
            for item in self.tpm_items().filter(|item| item.state(ages, now_s).is_ok()) {
                if let Some(list) = crl(item).filter(|list| list.issuer() == last.issuer() && !crls.contains(list)) {
                    crls.push(list.clone());
                }
            }
            let covered = crls.iter().any(|list| list.issuer() == last.issuer());
            for url in revocation_lists(&last).into_iter().filter(|_| !covered) {
                finder.find(&Key::TpmCrl { url });
            }
            if last.issuer() == last.subject() || roots.iter().any(|(root, _)| root.subject() == last.issuer()) {
                break;
            }
            let usable = self.tpm_items().filter(|item| item.state(ages, now_s).is_ok());
            let next = usable.filter_map(|item| match &item.parsed {
                Parsed::Certificates(certificates) => certificates.first(),
                _ => None,
            });
            let above: Vec<Certificate> =
                next.filter(|next| next.subject() == last.issuer() && !authorities.contains(next)).cloned().collect();
            let Some(next) = above.first().cloned() else {
                for url in issuers(&last) {
                    finder.find(&Key::TpmAuthority { url });
                }
                break;
            };
            authorities.extend(above);
            last = next;
        }
        TpmEndorsements { authorities, crls, missing: finder.missing }
    }

    /// For evidence of NVIDIA's: its manifests, and the states of its certificates, leaf first, root last.
    #[must_use]
    pub fn nvidia(&self, rims: &[RimId], chains: &[&[Certificate]], ages: &Ages, now_s: u64) -> NvidiaEndorsements {
        let mut finder = self.finder(ages, now_s);
        let found = rims.iter().filter_map(|id| finder.find(&Key::NvidiaRim { id: id.clone() }));
        let rims = found.filter_map(|item| Rim::parse(item.content.bytes()).ok()).collect();
        let mut revoked = BTreeSet::new();
        for pair in chains.iter().flat_map(|chain| chain.windows(2)) {
            let [certificate, issuer] = pair else { continue };
            let key = Key::NvidiaOcsp { issuer: issuer.fingerprint(), serial: certificate.serial().to_vec() };
            if let Some(Parsed::Ocsp(Status::Revoked)) = finder.find(&key).map(|item| &item.parsed) {
                revoked.insert(certificate.fingerprint());
            }
        }
        NvidiaEndorsements { rims, revoked: revoked.into_iter().collect(), missing: finder.missing }
    }

    /// Which of these keys cannot be used at this time.
    #[must_use]
    pub fn missing<'a>(&self, keys: impl IntoIterator<Item = &'a Key>, ages: &Ages, now_s: u64) -> Vec<Missing> {
        keys.into_iter().filter_map(|key| self.find(key, ages, now_s).err()).collect()
    }
}

impl Missing {
    /// One that was never had.
    #[must_use]
    pub const fn never(what: Key) -> Self {
        Self { what, why: Absence::NotFetched }
    }
}

fn address(bytes: &[u8]) -> Option<Address> {
    Address::new(str::from_utf8(bytes).ok()?)
}

/// Where a certificate says that its issuer's is (authorityInfoAccess). Nothing vouches for it.
#[must_use]
pub fn issuers(certificate: &Certificate) -> Vec<Address> {
    let Some(extension) = certificate.extension(AUTHORITY_INFORMATION) else { return Vec::new() };
    let Ok(mut list) = only(extension.value, tag::SEQUENCE) else { return Vec::new() };
    let mut found = Vec::new();
    while let Ok(mut entry) = list.inside(tag::SEQUENCE) {
        let is_issuer = entry.content(tag::OID) == Ok(CA_ISSUERS);
        let place = entry.any().ok().filter(|place| is_issuer && place.tag == URI);
        found.extend(place.and_then(|place| address(place.content)));
    }
    found.truncate(MAX_ADDRESSES);
    found
}

/// Where a certificate says that lists of its issuer are (cRLDistributionPoints). Nothing vouches for it.
#[must_use]
pub fn revocation_lists(certificate: &Certificate) -> Vec<Address> {
    let Some(extension) = certificate.extension(DISTRIBUTION_POINTS) else { return Vec::new() };
    let Ok(mut list) = only(extension.value, tag::SEQUENCE) else { return Vec::new() };
    let mut found = Vec::new();
    while let Ok(mut point) = list.inside(tag::SEQUENCE) {
        let Ok(Some(name)) = point.optional(tag::CONTEXT_0) else { continue };
        let Ok(Some(full)) = Reader::new(name).optional(tag::CONTEXT_0) else { continue };
        let mut names = Reader::new(full);
        while let Ok(name) = names.any() {
            found.extend(address(name.content).filter(|_| name.tag == URI));
        }
    }
    found.truncate(MAX_ADDRESSES);
    found
}
