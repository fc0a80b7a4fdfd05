//! Signatures, chain, revocation, and that report and certificate speak of the same key.

use super::{
    claims::{Claims, CrlState, Names},
    known_links,
    report::{Report, SigningKey},
    signers,
    tcb::{Product, TcbVersion},
    vek::{Vek, looks_like_vek},
};
use crate::{
    cert::{
        Certificate, Chain, ChainOptions, Crl, Curve, Hash, Provenance, PublicKey, Roots, SignatureAlgorithm,
        build_chain_over,
    },
    check::{Checks, Verdict, Weight},
};

/// What came of verifying a report.
#[derive(Debug, Clone)]
#[must_use]
pub struct Verification {
    /// Every check, in the order in which they were made.
    pub checks: Checks,
    /// The report, if each of them held.
    pub verified: Option<Verified>,
}

/// A report that a key signed which AMD, or a root that the caller named, vouches for. Only verification makes one.
#[derive(Debug, Clone)]
pub struct Verified {
    claims: Claims,
}

impl Verified {
    /// What it says.
    #[must_use]
    pub const fn claims(&self) -> &Claims {
        &self.claims
    }
}

/// What came of verifying the certificate of a key.
#[derive(Debug, Clone)]
#[must_use]
pub struct KeyVerification {
    /// Every check, in the order in which they were made.
    pub checks: Checks,
    /// The key, if each of them held.
    pub key: Option<VerifiedKey>,
}

/// A key that a chain vouches for, kept for many reports. Its dates are checked anew with each.
#[derive(Debug, Clone)]
pub struct VerifiedKey {
    vek: Vek,
    key: PublicKey,
    provenance: Provenance,
    root: [u8; 32],
    not_before_s: i64,
    not_after_s: i64,
    crl: Option<CrlState>,
}

impl VerifiedKey {
    /// The line of processors.
    #[must_use]
    pub const fn product(&self) -> Product {
        self.vek.product
    }

    /// Which key it is.
    #[must_use]
    pub const fn signing_key(&self) -> SigningKey {
        self.vek.kind
    }

    /// What it was derived from.
    #[must_use]
    pub const fn tcb(&self) -> TcbVersion {
        self.vek.tcb
    }

    /// The chip that a VCEK names.
    #[must_use]
    pub fn chip_id(&self) -> Option<&[u8]> {
        self.vek.hardware_id.as_deref()
    }

    /// The cloud that a VLEK names.
    #[must_use]
    pub fn cloud_id(&self) -> Option<&str> {
        self.vek.cloud_id.as_deref()
    }

    /// Who stands behind the root.
    #[must_use]
    pub const fn provenance(&self) -> Provenance {
        self.provenance
    }

    /// Seconds since 1970 until which its certificates are valid.
    #[must_use]
    pub const fn not_after_s(&self) -> i64 {
        self.not_after_s
    }
}

const CERTIFICATES: &str = "snp.certificates";
const REPORT_KEY: &str = "snp.signing-key";
const CHIP: &str = "snp.chip-id";
const TCB: &str = "snp.tcb";
const PRODUCT: &str = "snp.product";
const CONSISTENCY: &str = "snp.consistency";
const CHAIN: &str = "snp.chain";
const CRL: &str = "snp.crl";
const SIGNATURE: &str = "snp.report-signature";

/// Verifies a report with the certificates and revocation lists that are given. AMD's authorities need not be among them.
///
/// Cheap checks come first; where one fails, signatures are not looked at.
pub fn verify(report: &Report, certificates: &[Certificate], crls: &[Crl], roots: &Roots, now_s: u64) -> Verification {
    let mut checks = Checks::new();
    let (certificate, vek) = match choose(report, certificates) {
        Ok(found) => found,
        Err(reason) => {
            checks.require(CERTIFICATES, Err(reason));
            return unfinished(checks, &[REPORT_KEY, CHIP, TCB, PRODUCT, CONSISTENCY, CHAIN, SIGNATURE]);
        }
    };
    checks.require(CERTIFICATES, Ok(format!("{} of {}", vek.kind.name(), vek.product_name)));
    if !matches(report, &vek, &mut checks) {
        return unfinished(checks, &[CHAIN, SIGNATURE]);
    }
    let Some(key) = vouch(certificate, vek, certificates, crls, roots, now_s, &mut checks) else {
        return unfinished(checks, &[SIGNATURE]);
    };
    sign_off(report, &key, checks)
}

/// Verifies the certificate of a key by itself, so that many reports can be verified with it.
pub fn verify_key(certificates: &[Certificate], crls: &[Crl], roots: &Roots, now_s: u64) -> KeyVerification {
    let mut checks = Checks::new();
    let mut candidates = certificates.iter().filter(|certificate| looks_like_vek(certificate));
    let found = match (candidates.next(), candidates.next()) {
        (Some(certificate), None) => {
            Vek::read(certificate).map(|vek| (certificate, vek)).map_err(|error| error.to_string())
        }
        (None, _) => Err("no VCEK or VLEK among the certificates".to_owned()),
        (Some(_), Some(_)) => Err("more than one VCEK or VLEK among the certificates".to_owned()),
    };
    let key = match found {
        Err(reason) => {
            checks.require(CERTIFICATES, Err(reason));
            None
        }
        Ok((certificate, vek)) => {
            checks.require(CERTIFICATES, Ok(format!("{} of {}", vek.kind.name(), vek.product_name)));
            vouch(certificate, vek, certificates, crls, roots, now_s, &mut checks)
        }
    };
    KeyVerification { key: key.filter(|_| checks.hold()), checks }
}

/// Verifies a report with a key that was verified before.
pub fn verify_with_key(report: &Report, key: &VerifiedKey, now_s: u64) -> Verification {
    let mut checks = Checks::new();
    let now = i64::try_from(now_s).unwrap_or(i64::MAX);
    let current = now >= key.not_before_s && now <= key.not_after_s;
    let dates =
        format!("certificates verified before, valid {} to {}, and it is {now_s}", key.not_before_s, key.not_after_s);
    checks.require(CHAIN, if current { Ok(dates) } else { Err(dates) });
    match &key.crl {
        None => checks.not_checked(CRL, "no revocation list of this root was given"),
        Some(crl) => {
            let reason =
                format!("looked up before in a list that counts until {}, and it is {now_s}", crl.next_update_s);
            checks.require(CRL, if now <= crl.next_update_s { Ok(reason) } else { Err(reason) });
        }
    }
    let matching = matches(report, &key.vek, &mut checks);
    if !matching || !checks.hold() {
        return unfinished(checks, &[SIGNATURE]);
    }
    sign_off(report, key, checks)
}

/// Lists what was not looked at because something before did not hold.
fn unfinished(mut checks: Checks, left: &[&'static str]) -> Verification {
    for name in left {
        checks.push(*name, Verdict::NotChecked, Weight::Required, "not made, since a check before it does not hold");
    }
    Verification { checks, verified: None }
}

/// The certificate that fits the report best: its own, or else any, so that the checks can say what does not fit.
fn choose<'a>(report: &Report, certificates: &'a [Certificate]) -> Result<(&'a Certificate, Vek), String> {
    let mut other = None;
    let mut error = None;
    for certificate in certificates.iter().filter(|certificate| looks_like_vek(certificate)) {
        match Vek::read(certificate) {
            Ok(vek)
                if vek.kind == report.fields.signing_key && chip(report, &vek).is_ok() && tcb(report, &vek).is_ok() =>
            {
                return Ok((certificate, vek));
            }
            Ok(vek) => other = other.or(Some((certificate, vek))),
            Err(fault) => error = error.or(Some(format!("{}: {fault}", certificate.subject_name()))),
        }
    }
    other.ok_or_else(|| {
        error.unwrap_or_else(|| {
            let kind = report.fields.signing_key.name();
            format!(
                "no certificate of the {kind} among those given: fetch it from AMD's key service for this chip and TCB"
            )
        })
    })
}

/// Whether report and certificate speak of the same key, and the report agrees with itself.
fn matches(report: &Report, vek: &Vek, checks: &mut Checks) -> bool {
    let key = (report.fields.signing_key.name(), vek.kind.name());
    let same = checks.require(
        REPORT_KEY,
        if key.0 == key.1 {
            Ok(format!("the report is signed by a {}", key.0))
        } else {
            Err(format!("the report is signed by a {}, the certificate is of a {}", key.0, key.1))
        },
    );
    let product = checks.require(PRODUCT, product(report, vek.product));
    let chip = match chip(report, vek) {
        Ok(ChipMatch::Same) => checks.require(CHIP, Ok("the certificate names the chip of the report")),
        Ok(ChipMatch::Masked) => {
            checks.not_checked(CHIP, "the report withholds its chip id: the certificate alone names the chip");
            true
        }
        Ok(ChipMatch::Cloud) => {
            checks.not_checked(CHIP, "a VLEK names a cloud: nobody but the report says which chip");
            true
        }
        Err(reason) => checks.require(CHIP, Err(reason)),
    };
    let tcb = checks.require(TCB, tcb(report, vek));
    let consistent = checks.require(CONSISTENCY, consistency(report, vek.product));
    same && product && chip && tcb && consistent
}

fn product(report: &Report, product: Product) -> Result<String, String> {
    match report.cpu_product {
        None => Ok(format!("{} by the certificate; version {} does not say", product.name(), report.fields.version)),
        Some(cpu) if cpu == product => Ok(format!("{} by certificate and CPUID", product.name())),
        Some(cpu) => Err(format!("{} by CPUID, {} by the certificate", cpu.name(), product.name())),
    }
}

enum ChipMatch {
    Same,
    Masked,
    Cloud,
}

fn chip(report: &Report, vek: &Vek) -> Result<ChipMatch, &'static str> {
    let Some(hardware_id) = vek.hardware_id.as_deref() else { return Ok(ChipMatch::Cloud) };
    if report.chip_id_masked() {
        return Ok(ChipMatch::Masked);
    }
    // Turin's id has 8 bytes, and the rest of the field is zero.
    let same = report
        .fields
        .chip_id
        .split_at_checked(hardware_id.len())
        .is_some_and(|(id, rest)| id == hardware_id && rest.iter().all(|&byte| byte == 0));
    if same { Ok(ChipMatch::Same) } else { Err("the certificate names another chip than the report") }
}

fn tcb(report: &Report, vek: &Vek) -> Result<String, String> {
    let (reported, certified) = (report.fields.reported_tcb, vek.tcb);
    let shown = certified.components(vek.product);
    if reported == certified {
        Ok(format!("certificate and report say {shown}"))
    } else {
        Err(format!("the certificate says {shown}, the report {}", reported.components(vek.product)))
    }
}

/// What the firmware sees to in every report.
fn consistency(report: &Report, product: Product) -> Result<&'static str, &'static str> {
    let fields = &report.fields;
    let tcbs = [fields.reported_tcb, fields.committed_tcb, fields.current_tcb, fields.launch_tcb];
    let current = fields.current_tcb.components(product);
    let rules = [
        (tcbs.iter().all(|tcb| tcb.reserved_are_zero(product)), "reserved bytes of a TCB version are set"),
        (current.at_least(&fields.committed_tcb.components(product)), "the committed TCB is above the current one"),
        (current.at_least(&fields.reported_tcb.components(product)), "the reported TCB is above the current one"),
        (fields.current_version >= fields.committed_version, "the committed version is above the current one"),
        (
            fields.policy.abi() <= (fields.current_version.major, fields.current_version.minor),
            "the guest policy asks for a newer firmware",
        ),
        (fields.policy.smt() || !fields.platform.smt(), "SMT is on, against the guest policy"),
        (
            !fields.policy.rapl_disabled() || fields.platform.rapl_disabled(),
            "power readings are on, against the guest policy",
        ),
        (
            !fields.policy.ciphertext_hiding() || fields.platform.ciphertext_hiding(),
            "ciphertext hiding is off, against the guest policy",
        ),
        (fields.author_key || fields.author_key_digest == [0; 48], "an author key's digest without an author key"),
        (
            fields.policy.migration_agent() || fields.report_id_ma == Claims::NO_MIGRATION_AGENT,
            "a migration agent, against the guest policy",
        ),
    ];
    match rules.iter().find(|(holds, _)| !holds) {
        Some((_, reason)) => Err(reason),
        None => Ok("the report agrees with itself"),
    }
}

/// Builds the chain and looks it up in the revocation lists.
fn vouch(
    certificate: &Certificate,
    vek: Vek,
    certificates: &[Certificate],
    crls: &[Crl],
    roots: &Roots,
    now_s: u64,
    checks: &mut Checks,
) -> Option<VerifiedKey> {
    let given: Vec<&Certificate> = certificates.iter().filter(|certificate| !looks_like_vek(certificate)).collect();
    let known = signers();
    let others = given.iter().filter(|certificate| !known.contains(certificate));
    let intermediates: Vec<Certificate> = known.iter().chain(others.copied()).cloned().collect();
    let built = build_chain_over(certificate, &intermediates, roots, now_s, &ChainOptions::default(), known_links())
        .map_err(|error| error.to_string())
        .and_then(|chain| check_chain(chain, &vek, &given));
    let (chain, key) = match built {
        Ok(built) => built,
        Err(reason) => {
            checks.require(CHAIN, Err(reason));
            return None;
        }
    };
    checks.require(CHAIN, Ok(format!("{} ({})", chain.root().subject_name(), chain.provenance().name())));
    let crl = match look_up(&chain, crls, now_s) {
        Ok(Some(state)) => {
            checks.require(CRL, Ok(format!("not revoked, by a list that counts until {}", state.next_update_s)));
            Some(state)
        }
        Ok(None) => {
            checks.not_checked(CRL, "no revocation list of this root was given");
            None
        }
        Err(reason) => {
            checks.require(CRL, Err(reason));
            return None;
        }
    };
    Some(VerifiedKey {
        vek,
        key,
        provenance: chain.provenance(),
        root: chain.root().fingerprint(),
        not_before_s: chain.certificates().iter().map(Certificate::not_before_s).max().unwrap_or(i64::MAX),
        not_after_s: chain.not_after_s(),
        crl,
    })
}

/// VEK, ASK or ASVK, ARK: all of the product that the VEK says, and a key on P-384.
fn check_chain(chain: Chain, vek: &Vek, given: &[&Certificate]) -> Result<(Chain, PublicKey), String> {
    let product = vek.product.name();
    let signer = match vek.kind {
        SigningKey::Vcek => format!("SEV-{product}"),
        SigningKey::Vlek => format!("SEV-VLEK-{product}"),
    };
    let wanted = [signer, format!("ARK-{product}")];
    let found: Vec<Option<String>> = chain.certificates().iter().skip(1).map(Certificate::common_name).collect();
    if !found.iter().map(Option::as_deref).eq(wanted.iter().map(|name| Some(name.as_str()))) {
        return Err(format!("a {} of {product} is issued by {} and {}", vek.kind.name(), wanted[0], wanted[1]));
    }
    // Whoever brings authorities means them: with those of another product, report and certificates do not belong together.
    if !given.is_empty() && !given.iter().any(|certificate| chain.certificates().contains(certificate)) {
        return Err("none of the authorities given is the certificate's".to_owned());
    }
    let key = chain.leaf().public_key().map_err(|error| error.to_string())?;
    match key.ec() {
        Some((Curve::P384, _)) => Ok((chain, key)),
        _ => Err("its key is not on P-384".to_owned()),
    }
}

/// Looks the chain up in every list of its root.
fn look_up(chain: &Chain, crls: &[Crl], now_s: u64) -> Result<Option<CrlState>, String> {
    let mut newest: Option<&Crl> = None;
    for list in crls.iter().filter(|list| list.issuer() == chain.root().subject()) {
        let verified = list.verify(chain.root(), now_s).map_err(|error| error.to_string())?;
        if let Some(revoked) = chain.certificates().iter().find(|certificate| verified.revokes(certificate)) {
            return Err(format!("{} is revoked", revoked.subject_name()));
        }
        if newest.is_none_or(|newest| newest.this_update_s() < list.this_update_s()) {
            newest = Some(list);
        }
    }
    Ok(newest.map(|list| CrlState {
        number: list.number().map(<[u8]>::to_vec),
        this_update_s: list.this_update_s(),
        next_update_s: list.next_update_s().unwrap_or(i64::MIN),
    }))
}

/// The last check, and the most telling one.
fn sign_off(report: &Report, key: &VerifiedKey, mut checks: Checks) -> Verification {
    let result = key.key.verify(SignatureAlgorithm::EcdsaFixed(Hash::Sha384), report.signed(), report.signature());
    checks.require(
        SIGNATURE,
        match result {
            Ok(()) => Ok(format!("made by the {}", key.vek.kind.name())),
            Err(error) => Err(error.to_string()),
        },
    );
    let verified = checks.hold().then(|| Verified { claims: claims(report, key) });
    Verification { checks, verified }
}

fn claims(report: &Report, key: &VerifiedKey) -> Claims {
    let fields = &report.fields;
    let masked = report.chip_id_masked();
    let (names, chip_id) = match &key.vek.hardware_id {
        Some(hardware_id) => (Names::Chip, Some(hardware_id.clone())),
        None => (Names::Cloud, (!masked).then(|| fields.chip_id.to_vec())),
    };
    Claims {
        provenance: key.provenance,
        root: key.root,
        not_before_s: key.not_before_s,
        not_after_s: key.not_after_s,
        crl: key.crl.clone(),
        report_version: fields.version,
        product: key.vek.product,
        product_name: key.vek.product_name.clone(),
        signing_key: fields.signing_key,
        names,
        chip_id,
        chip_id_masked: masked,
        cloud_id: key.vek.cloud_id.clone(),
        reported_tcb: fields.reported_tcb,
        committed_tcb: fields.committed_tcb,
        current_tcb: fields.current_tcb,
        launch_tcb: fields.launch_tcb,
        current_version: fields.current_version,
        committed_version: fields.committed_version,
        policy: fields.policy,
        platform: fields.platform,
        vmpl: fields.vmpl,
        guest_svn: fields.guest_svn,
        family_id: fields.family_id,
        image_id: fields.image_id,
        measurement: fields.measurement,
        report_data: fields.report_data,
        host_data: fields.host_data,
        id_key_digest: fields.id_key_digest,
        author_key: fields.author_key,
        author_key_digest: fields.author_key_digest,
        report_id: fields.report_id,
        report_id_ma: fields.report_id_ma,
        cpuid: fields.cpuid,
        mitigations: fields.mitigations,
    }
}
