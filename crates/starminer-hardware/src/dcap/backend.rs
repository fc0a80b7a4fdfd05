//! What `dcap-qvl` is run with: this crate's certificates, and aws-lc-rs beneath.

use dcap_qvl::config::{Config, CryptoProvider, EcdsaSigEncoder, ParsedCert, PckCa, X509Codec};
use dcap_qvl::verify::QuoteVerifier;
use rustls_pki_types::SignatureVerificationAlgorithm;

use crate::cert::{Certificate, der};

use super::endorsements::Endorsements;
use super::verify::Verified;

pub(super) struct Backend;

impl Config for Backend {
    type X509 = Self;
    type SigEncoder = Self;
    type Crypto = Self;
}

impl X509Codec for Backend {
    type Parsed<'a> = Parsed;

    fn from_der(der: &[u8]) -> anyhow::Result<Parsed> {
        Ok(Parsed(Certificate::from_der(der)?))
    }
}

pub(super) struct Parsed(Certificate);

impl ParsedCert for Parsed {
    fn pck_ca(&self) -> Option<PckCa> {
        pck_ca(&self.0)
    }

    fn extension(&self, oid: &[u8]) -> anyhow::Result<Option<Vec<u8>>> {
        Ok(self.0.extension(oid).map(|extension| extension.value.to_vec()))
    }
}

/// Which of Intel's two authorities for PCK certificates issued this one.
pub(super) fn pck_ca(certificate: &Certificate) -> Option<PckCa> {
    let issuer = certificate.issuer_name();
    if issuer.contains("CN=Intel SGX PCK Platform CA") {
        Some(PckCa::Platform)
    } else if issuer.contains("CN=Intel SGX PCK Processor CA") {
        Some(PckCa::Processor)
    } else {
        None
    }
}

impl EcdsaSigEncoder for Backend {
    fn encode_ecdsa_sig(r: &[u8], s: &[u8]) -> anyhow::Result<Vec<u8>> {
        let pair = [der::encode_unsigned(r), der::encode_unsigned(s)].concat();
        Ok(der::encode(der::tag::SEQUENCE, &pair))
    }
}

impl CryptoProvider for Backend {
    fn sig_algo() -> &'static dyn SignatureVerificationAlgorithm {
        webpki::aws_lc_rs::ECDSA_P256_SHA256
    }

    fn sha256(data: &[u8]) -> [u8; 32] {
        digest(&aws_lc_rs::digest::SHA256, data)
    }

    fn sha384(data: &[u8]) -> [u8; 48] {
        digest(&aws_lc_rs::digest::SHA384, data)
    }
}

/// A digest of as many bytes as its algorithm yields.
pub(super) fn digest<const N: usize>(algorithm: &'static aws_lc_rs::digest::Algorithm, data: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(aws_lc_rs::digest::digest(algorithm, data).as_ref());
    out
}

/// What `dcap-qvl` says of the same quote and endorsements, on its own.
///
/// It is no part of [`super::verify`]: it verifies endorsements anew each time, gives one text for whatever it refuses, and refuses by a trust
/// domain's attributes and for SGX in quotes of version 4 and 5, which here is for the policy. Whoever wants a second opinion gets it here.
///
/// # Errors
/// It refuses, or comes to another status or other advisories: why.
pub fn second_opinion(
    quote: &[u8],
    endorsements: &Endorsements,
    root: &Certificate,
    now_s: u64,
    verified: &Verified,
) -> Result<(), String> {
    let collateral = endorsements.collateral().ok_or("the endorsements are not complete")?;
    let report = QuoteVerifier::<Backend>::new_with_config(root.der().to_vec())
        .allow_debug(true)
        .allow_service_td(true)
        .verify(quote, &collateral, now_s)
        .map_err(|error| format!("{error:#}"))?;
    let ours = &verified.claims().tcb;
    if report.status != ours.status.to_string() || report.advisory_ids != ours.advisories {
        return Err(format!(
            "dcap-qvl finds {} with {:?}, not {} with {:?}",
            report.status, report.advisory_ids, ours.status, ours.advisories
        ));
    }
    Ok(())
}
