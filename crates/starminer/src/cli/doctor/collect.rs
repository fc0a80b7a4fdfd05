//! What a machine has to show, collected: posture, a report of the TEE, a quote of the TPM, and the logs behind it. Nothing of it is judged here.
//!
//! All devices sign the same batch of two bindings, one with the TPM's key in it and one without, so that TEE and TPM can be judged each
//! alone and both together. Every device has a deadline. A TPM is enrolled on trial: it shows that it holds both keys, as it will have to
//! show the network.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use starminer_attester::tpm::{
    AkKind, AkPlace, AkSpec, Deadlines, EkKind, Properties, TpmAddress, TpmAttester, TpmAttesterSettings, TpmError,
    TpmOffer, TpmSettings,
};
use starminer_attester::{
    ConfigFs, Gramine, GramineError, HostCertificates, HostTree, LogError, Logs, SevGuest, SevGuestError,
    SnpCertificate, SnpCertificateKind, Tsm, TsmError, TsmProvider, TsmRequest,
};
use starminer_hardware::cert::Certificate;
use starminer_hardware::tpm::credential::{Randomness, make_credential};
use starminer_hardware::tpm::enrolment::SECRET_BYTES;
use starminer_hardware::tpm::{HashAlg, PcrIndex, PcrSelection, Public};
use starminer_requester::random_bytes;
use starminer_verify::parts::{SevSnpPart, TpmPart};
use starminer_verify::{
    AkName, BINDING_VERSION, Batch, Binding, BootId, Challenge, Digest, EvidenceKind, NetworkId, NodeId, PathStep,
    Posture, PublicKey, Purpose,
};
use zeroize::Zeroizing;

use crate::cli::home::with_sources;

/// Where a machine is looked at.
#[derive(Debug)]
pub struct Machine {
    /// Posture.
    pub host: HostTree,
    /// Logs of firmware and kernel.
    pub logs: Logs,
    /// configfs-tsm.
    pub tsm: Tsm,
    /// The driver of SEV-SNP guests.
    pub sev_guest: Result<SevGuest, SevGuestError>,
    /// Gramine's files.
    pub gramine: Gramine,
    /// The TPM.
    pub tpm: TpmAddress,
    /// Whether this process may read what root may.
    pub as_root: bool,
    /// For each device.
    pub patience: Duration,
}

impl Machine {
    /// The tree below `root`, and a TPM in it or elsewhere.
    pub fn at(root: &Path, tpm: Option<TpmAddress>, data_dir: Option<&Path>, patience: Duration) -> Self {
        let host = HostTree::at(root);
        Self {
            host: match data_dir {
                Some(dir) => host.with_job_storage(dir),
                None => host,
            },
            logs: Logs::at(root),
            tsm: Tsm::over(Arc::new(ConfigFs::at(root))).with_patience(patience),
            sev_guest: SevGuest::open(root).map(|device| device.with_patience(patience)),
            gramine: Gramine::at(root).with_patience(patience),
            tpm: tpm.unwrap_or_else(|| TpmAddress::Device(root.join("dev/tpmrm0"))),
            // What belongs to this process, it owns.
            as_root: std::fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0),
            patience,
        }
    }
}

/// As in a node's configuration; and an address of a socket, a socket's path, or a device.
pub fn tpm_address(text: &str) -> TpmAddress {
    // Before all else: the path of a socket is that of a device, as far as its form goes.
    if std::fs::metadata(text).is_ok_and(|meta| meta.file_type().is_socket()) {
        return TpmAddress::Unix(PathBuf::from(text));
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return TpmAddress::Tcp(address);
    }
    text.parse().unwrap_or_else(|_| TpmAddress::Device(PathBuf::from(text)))
}

/// Why something is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Absence {
    /// It was looked for, and is missing or does not work.
    Missing(String),
    /// Whether it is there or works could not be told.
    NotChecked(String),
}

/// A part of a CPU TEE.
#[derive(Debug, Clone)]
pub struct TeePart {
    /// Which TEE.
    pub kind: EvidenceKind,
    /// Through what it was asked.
    pub through: &'static str,
    /// As evidence carries it.
    pub part: Vec<u8>,
}

/// What a TPM showed.
#[derive(Debug, Clone)]
pub struct TpmShown {
    /// As evidence carries it; without a certificate there is none.
    pub part: Option<TpmPart>,
    /// Name of the attestation key.
    pub ak_name: AkName,
    /// `TPM2B_PUBLIC` of the endorsement key.
    pub ek_public: Vec<u8>,
    /// Whether it gave the secret of a credential for both keys, or why not.
    pub activated: Result<(), String>,
    /// What it says of itself.
    pub properties: Properties,
    /// The bank that was quoted.
    pub bank: HashAlg,
}

/// A binding and where it stands in the batch.
#[derive(Debug, Clone)]
pub struct Place {
    /// The binding.
    pub binding: Binding,
    /// Its path.
    pub path: Vec<PathStep>,
}

/// Everything that was found.
#[derive(Debug)]
pub struct Collected {
    /// Of the host.
    pub posture: Posture,
    /// The binding without a TPM's key.
    pub plain: Place,
    /// That with it, where there is a TPM.
    pub with_tpm: Option<Place>,
    /// The CPU TEE's report.
    pub tee: Result<TeePart, Absence>,
    /// The TPM's quote.
    pub tpm: Result<TpmShown, Absence>,
    /// The log of firmware.
    pub uefi: Result<Vec<u8>, Absence>,
    /// The log of a trust domain's firmware.
    pub cc: Result<Vec<u8>, Absence>,
    /// The kernel's measurements.
    pub ima: Result<Vec<u8>, Absence>,
    /// Whether this process may read what root may.
    pub as_root: bool,
}

/// What is collected for.
#[derive(Debug)]
pub struct Asked {
    /// The network that evidence is bound to.
    pub network: NetworkId,
    /// PCRs that a policy wants, besides those that are always quoted.
    pub pcrs: BTreeSet<PcrIndex>,
    /// Their bank.
    pub bank: HashAlg,
}

/// Asks everything there is. `starts` is told what takes time.
pub fn collect(machine: &Machine, asked: &Asked, starts: impl Fn(&'static str)) -> Collected {
    starts("reading the machine's settings");
    let posture = Posture::new(Vec::new(), machine.host.collect()).unwrap_or_else(|_| Posture::unstated());
    starts("opening the TPM");
    let tpm = open_tpm(machine, asked);
    let random_key = || PublicKey(random_bytes());
    let plain = Binding {
        network: asked.network,
        challenge: Challenge(random_bytes()),
        purpose: Purpose::Admission,
        spec: None,
        node: NodeId(random_key()),
        attempt: None,
        boot: BootId(random_bytes()),
        task_key: None,
        report_key: None,
        agent_key: random_key(),
        tls_key: random_key(),
        ak_name: None,
        posture: posture.digest(),
        subject: None,
    };
    debug_assert_eq!(BINDING_VERSION, 1, "the fields above are those of version 1");
    let with_tpm = tpm.as_ref().ok().map(|open| Binding { ak_name: Some(open.ak_name.clone()), ..plain.clone() });
    let mut bindings = vec![plain];
    bindings.extend(with_tpm);
    let digests: Vec<Digest> = bindings.iter().map(Binding::digest).collect();
    let batch = Batch::new(&digests).expect("one or two bindings are a batch");
    let report_data = batch.report_data();
    let mut places = bindings.into_iter().zip(batch.into_paths()).map(|(binding, path)| Place { binding, path });
    let plain = places.next().expect("the first binding is there");
    let with_tpm = places.next();

    starts("asking the TEE for a report");
    let tee = tee(machine, &report_data);
    starts("having the TPM make a quote");
    let tpm = tpm.and_then(|open| open.shown(&report_data));
    // After the quote: a log may have more than was quoted, and never less.
    starts("reading logs");
    Collected {
        posture,
        plain,
        with_tpm,
        tee,
        tpm,
        uefi: machine.logs.uefi().map_err(of_log),
        cc: machine.logs.ccel().map_err(of_log),
        ima: machine.logs.ima().map_err(of_log),
        as_root: machine.as_root,
    }
}

fn of_log(error: LogError) -> Absence {
    let reason = with_sources(&error);
    match error {
        LogError::Unreadable { .. } => Absence::NotChecked(reason),
        LogError::Missing(_) | LogError::TooLong(_) | LogError::Malformed(_) => Absence::Missing(reason),
    }
}

fn may_be_denied(source: &std::io::Error, reason: String) -> Absence {
    match source.kind() {
        std::io::ErrorKind::PermissionDenied => Absence::NotChecked(reason),
        _ => Absence::Missing(reason),
    }
}

/// A report through the first interface that is there: configfs-tsm, the SEV driver, Gramine.
fn tee(machine: &Machine, report_data: &Digest) -> Result<TeePart, Absence> {
    let mut padded = [0; 64];
    padded[..32].copy_from_slice(report_data.as_bytes());
    let snp = |report: Vec<u8>, certificates: &[SnpCertificate], through| {
        // What the driver gives besides certificates of the chain has no place in evidence.
        let of_chain = |one: &&SnpCertificate| {
            use SnpCertificateKind::{Ark, Ask, Vcek, Vlek};
            matches!(one.kind, Vcek | Vlek | Ask | Ark)
        };
        let certificates = certificates.iter().filter(of_chain).map(|one| one.bytes.clone()).take(3).collect();
        TeePart { kind: EvidenceKind::SevSnp, through, part: SevSnpPart { report, certificates }.encode() }
    };
    match machine.tsm.report(&TsmRequest::new(padded)) {
        Ok(answer) => {
            return Ok(match answer.provider {
                TsmProvider::SevGuest => snp(answer.report, &answer.certificates, "configfs-tsm (sev_guest)"),
                TsmProvider::TdxGuest => {
                    TeePart { kind: EvidenceKind::Tdx, through: "configfs-tsm (tdx_guest)", part: answer.report }
                }
            });
        }
        Err(TsmError::Missing) => {}
        Err(error) => {
            let reason = with_sources(&error);
            return Err(match &error {
                TsmError::Io { source, .. } => may_be_denied(source, reason),
                _ => Absence::Missing(reason),
            });
        }
    }
    match &machine.sev_guest {
        Ok(device) => {
            let answer = device.report(padded, 0, HostCertificates::Wanted);
            return answer
                .map(|answer| snp(answer.report, &answer.certificates, "/dev/sev-guest"))
                .map_err(|error| Absence::Missing(with_sources(&error)));
        }
        Err(SevGuestError::Missing) => {}
        Err(error) => {
            let reason = with_sources(error);
            return Err(match error {
                SevGuestError::Open(source) => may_be_denied(source, reason),
                _ => Absence::Missing(reason),
            });
        }
    }
    match machine.gramine.quote(padded) {
        Ok(quote) => Ok(TeePart { kind: EvidenceKind::Sgx, through: "Gramine", part: quote.quote }),
        Err(GramineError::Missing) => Err(Absence::Missing(
            "no TEE offers reports: neither configfs-tsm, nor /dev/sev-guest, nor Gramine".to_owned(),
        )),
        Err(error) => Err(Absence::Missing(with_sources(&error))),
    }
}

/// A TPM with its attestation key.
struct OpenTpm {
    attester: TpmAttester,
    ak_name: AkName,
    offer: TpmOffer,
    kind: EkKind,
    properties: Properties,
    bank: HashAlg,
}

fn of_tpm(error: &TpmError) -> Absence {
    let reason = with_sources(error);
    match error {
        TpmError::Denied { .. } => Absence::NotChecked(reason),
        _ => Absence::Missing(reason),
    }
}

/// Opens the TPM with an endorsement key that it has a certificate for.
fn open_tpm(machine: &Machine, asked: &Asked) -> Result<OpenTpm, Absence> {
    let mut indices: BTreeSet<PcrIndex> = (0..=11).filter_map(PcrIndex::new).collect();
    indices.extend(&asked.pcrs);
    let bits = indices.iter().fold(0, |bits, index| bits | 1 << index.get());
    let selection = PcrSelection { bank: asked.bank, bits };
    let open = |kind, ak| {
        let deadlines = Deadlines { key: machine.patience, other: machine.patience.min(Deadlines::default().other) };
        let tpm = TpmSettings { ek: kind, deadlines, ..TpmSettings::new(machine.tpm.clone()) };
        let label = Digest::of(b"starminer node doctor").0;
        let ak = AkSpec { kind: ak, place: AkPlace::Endorsement, label };
        TpmAttester::open(TpmAttesterSettings { tpm, ak, pcrs: vec![selection] })
    };
    let mut kind = EkKind::P256;
    let mut attester = match open(kind, AkKind::EcdsaP256) {
        // Some TPMs know RSA alone.
        Err(TpmError::Refused { .. } | TpmError::KeyForm) => {
            kind = EkKind::Rsa2048;
            open(kind, AkKind::Rsassa2048)
        }
        opened => opened,
    }
    .map_err(|error| of_tpm(&error))?;
    let mut offer = attester.offer().map_err(|error| of_tpm(&error))?;
    // The key has to be the one that its maker certified.
    let certified = |offer: &TpmOffer, kind| offer.certificates.keys.iter().any(|(of, _)| *of == kind);
    if !certified(&offer, kind)
        && let Some(other) = EkKind::ALL.into_iter().find(|other| certified(&offer, *other))
    {
        kind = other;
        let ak = if other == EkKind::Rsa2048 { AkKind::Rsassa2048 } else { AkKind::EcdsaP256 };
        drop(attester);
        attester = open(kind, ak).map_err(|error| of_tpm(&error))?;
        offer = attester.offer().map_err(|error| of_tpm(&error))?;
    }
    let properties = attester.with_tpm(|tpm| tpm.properties()).map_err(|error| of_tpm(&error))?;
    let ak_name = AkName::from_bytes(attester.ak_name())
        .ok_or_else(|| Absence::Missing("the attestation key's name is longer than any".to_owned()))?;
    Ok(OpenTpm { attester, ak_name, offer, kind, properties, bank: asked.bank })
}

impl OpenTpm {
    fn shown(self, report_data: &Digest) -> Result<TpmShown, Absence> {
        let quote = self.attester.quote(report_data.as_bytes()).map_err(|error| match &error {
            TpmError::Refused { .. } | TpmError::Restless(_) | TpmError::Quote { .. } => {
                Absence::Missing(format!("no quote over the {} bank: {}", self.bank.name(), with_sources(&error)))
            }
            _ => of_tpm(&error),
        })?;
        let activated = self.activated();
        let mut certificates = self.certificates().into_iter().peekable();
        let part = certificates.peek().is_some().then(|| TpmPart {
            attest: quote.quote,
            signature: quote.signature,
            // Evidence carries the bare structure, without its length.
            ak_public: quote.ak_public.get(2..).unwrap_or_default().to_vec(),
            pcr_values: quote.pcrs.iter().flat_map(|(_, _, value)| value.to_vec()).collect(),
            ek_certificates: certificates.collect(),
        });
        Ok(TpmShown {
            part,
            ak_name: self.ak_name,
            ek_public: self.offer.ek_public,
            activated,
            properties: self.properties,
            bank: self.bank,
        })
    }

    /// The endorsement key's certificate, without what lies behind it, and those between.
    fn certificates(&self) -> Vec<Vec<u8>> {
        let key = self.offer.certificates.keys.iter().find(|(kind, _)| *kind == self.kind);
        let Some((key, _)) = key.and_then(|(_, bytes)| Certificate::from_der_prefix(bytes).ok()) else {
            return Vec::new();
        };
        let mut found = vec![key.der().to_vec()];
        let mut rest = self.offer.certificates.chain.as_slice();
        while let Ok((certificate, behind)) = Certificate::from_der_prefix(rest) {
            found.push(certificate.der().to_vec());
            rest = behind;
        }
        found
    }

    /// What a network asks for when a TPM is enrolled: that it opens a credential which only a TPM with both keys can open.
    fn activated(&self) -> Result<(), String> {
        let ek = Public::parse(&self.offer.ek_public).map_err(|error| error.to_string())?;
        let secret: [u8; SECRET_BYTES] = random_bytes();
        let randomness = Randomness { seed: Zeroizing::new(wide()), ephemeral: Zeroizing::new(wide()) };
        let credential =
            make_credential(&ek, self.attester.ak_name(), &secret, randomness).map_err(|error| error.to_string())?;
        let answer = self.attester.activate(&credential).map_err(|error| with_sources(&error))?;
        match starminer_hardware::tpm::enrolment::confirm(&secret, &answer).hold() {
            true => Ok(()),
            false => Err("its answer is not the credential's secret".to_owned()),
        }
    }
}

fn wide() -> [u8; 64] {
    let mut bytes = [0; 64];
    bytes[..32].copy_from_slice(&random_bytes::<32>());
    bytes[32..].copy_from_slice(&random_bytes::<32>());
    bytes
}
