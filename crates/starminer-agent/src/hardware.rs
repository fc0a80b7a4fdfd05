//! Which devices a node makes evidence with: the `[hardware]` section of `agent.toml`, and the attester that comes of it.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use starminer_attester::tpm::{AkKind, Certificate, EkKind, HashAlg, KnownEk, PcrIndex, TpmAddress};
use starminer_attester::{
    CpuTee, Gramine, JoinedAttester, LogError, Logs, NodeTpm, NodeTpmSettings, SELF_EXECUTABLE, SoftwareTee, TpmLog,
    measure_executable,
};
use starminer_receipt::{Envelope, FacilityStatement};
use starminer_verify::{BootId, NetworkId, NodeId, tagged_hash};
use starminer_wire::MAX_ENROLMENTS;

use crate::config::{AgentConfig, software_tee_settings};
use crate::error::AgentError;

/// Largest file of certificates, in bytes.
const MAX_CERTIFICATES_BYTES: u64 = 128 * 1024;
/// Largest file of a facility's statement, in bytes.
const MAX_STATEMENT_BYTES: u64 = 64 * 1024;
/// Most files of either sort. One statement of those that travel along is the node's own enrolment.
const MAX_CERTIFICATE_FILES: usize = 8;
const MAX_FACILITY_STATEMENTS: usize = MAX_ENROLMENTS - 1;

/// Which devices make evidence.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HardwareConfig {
    /// The CPU TEE.
    pub tee: TeeChoice,
    /// The folder that holds `sys` and `dev` where that is not `/`: of the logs, and of everything but the TPM's own address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root: Option<PathBuf>,
    /// What facilities state of this node's chip, each an envelope in a file; at most three. They travel with all evidence.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub facility_statements: Vec<PathBuf>,
    /// The TPM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tpm: Option<TpmConfig>,
}

/// Which CPU TEE takes part.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TeeChoice {
    /// The hardware that there is, else the software TEE if its file is named, else none.
    #[default]
    Auto,
    /// SEV-SNP or TDX through configfs-tsm.
    Tsm,
    /// SEV-SNP through `/dev/sev-guest`.
    SevGuest,
    /// SGX in Gramine.
    Gramine,
    /// The software TEE whose file `software_tee` names.
    SoftwareTee,
    /// None.
    None,
}

/// How the TPM takes part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TpmConfig {
    /// A device, `unix:` and the path of a socket, or `tcp:` with address and port.
    #[serde(with = "address")]
    pub address: TpmAddress,
    /// How the attestation key signs.
    pub key: KeyChoice,
    /// Which endorsement key. Left out: one that the TPM has a certificate of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endorsement_key: Option<EndorsementKeyChoice>,
    /// The bank that is quoted.
    pub bank: HashAlg,
    /// The registers that are quoted. Left out: 0 to 9 and 11, and 10 where the kernel's list goes along.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pcrs: Option<BTreeSet<PcrIndex>>,
    /// Files of certificates that the TPM does not hold, in PEM or DER, at most eight: of authorities above its endorsement key, of the
    /// root where it is a simulated one, or of the key itself.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub certificates: Vec<PathBuf>,
    /// The logs that go along where there are any.
    #[serde(with = "log_choice")]
    pub logs: LogChoice,
    /// Where the enrolment is kept.
    pub enrolment: PathBuf,
}

/// How an attestation key signs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyChoice {
    /// ECDSA on P-256.
    #[default]
    #[serde(rename = "ecdsa-p256")]
    EcdsaP256,
    /// RSASSA-PKCS1-v1_5, for TPMs without elliptic curves.
    #[serde(rename = "rsassa-2048")]
    Rsassa2048,
    /// RSASSA-PSS.
    #[serde(rename = "rsapss-2048")]
    Rsapss2048,
}

/// An endorsement key by its template.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum EndorsementKeyChoice {
    /// L-2.
    #[serde(rename = "p-256")]
    P256,
    /// H-3.
    #[serde(rename = "p-384")]
    P384,
    /// L-1.
    #[serde(rename = "rsa-2048")]
    Rsa2048,
}

/// Which logs go along: `"all"`, `"none"`, or a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogChoice {
    /// Every log that is there, as far as the quoted registers vouch for it.
    All,
    /// These.
    These(BTreeSet<TpmLog>),
}

impl Default for TpmConfig {
    fn default() -> Self {
        Self {
            address: TpmAddress::system(),
            key: KeyChoice::default(),
            endorsement_key: None,
            bank: HashAlg::Sha256,
            pcrs: None,
            certificates: Vec::new(),
            logs: LogChoice::All,
            enrolment: "enrolment.json".into(),
        }
    }
}

mod address {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};
    use starminer_attester::tpm::TpmAddress;

    pub(super) fn serialize<S: Serializer>(address: &TpmAddress, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(address)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<TpmAddress, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

mod log_choice {
    use std::collections::BTreeSet;

    use serde::{Deserialize, Deserializer, Serialize as _, Serializer, de::Error as _};
    use starminer_attester::TpmLog;

    use super::LogChoice;

    const WANTED: &str = "logs is \"all\", \"none\", or a list of \"uefi\" and \"ima\", each once";

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Text {
        Word(String),
        Names(Vec<String>),
    }

    pub(super) fn serialize<S: Serializer>(choice: &LogChoice, serializer: S) -> Result<S::Ok, S::Error> {
        match choice {
            LogChoice::All => "all".serialize(serializer),
            LogChoice::These(logs) => {
                let name = |log: &TpmLog| if *log == TpmLog::Uefi { "uefi" } else { "ima" };
                logs.iter().map(name).collect::<Vec<_>>().serialize(serializer)
            }
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<LogChoice, D::Error> {
        let names = match Text::deserialize(deserializer).map_err(|_| D::Error::custom(WANTED))? {
            Text::Word(word) if word == "all" => return Ok(LogChoice::All),
            Text::Word(word) if word == "none" => Vec::new(),
            Text::Word(_) => return Err(D::Error::custom(WANTED)),
            Text::Names(names) => names,
        };
        let mut logs = BTreeSet::new();
        for name in names {
            let log = match name.as_str() {
                "uefi" => TpmLog::Uefi,
                "ima" => TpmLog::Ima,
                _ => return Err(D::Error::custom(WANTED)),
            };
            if !logs.insert(log) {
                return Err(D::Error::custom(WANTED));
            }
        }
        Ok(LogChoice::These(logs))
    }
}

impl HardwareConfig {
    /// What is wrong with it, beside a software TEE's file or none.
    pub(crate) fn check(&self, has_software_tee: bool) -> Result<(), &'static str> {
        if self.tee == TeeChoice::SoftwareTee && !has_software_tee {
            return Err("hardware.tee is \"software-tee\" and software_tee names no file");
        }
        if self.tee == TeeChoice::None && self.tpm.is_none() {
            return Err("no device: hardware.tee is \"none\" and there is no hardware.tpm");
        }
        if self.facility_statements.len() > MAX_FACILITY_STATEMENTS {
            return Err("hardware.facility_statements has more than 3 files");
        }
        self.tpm.as_ref().map_or(Ok(()), TpmConfig::check)
    }

    /// Paths relative to `directory`.
    pub(crate) fn resolve(&mut self, directory: &Path) {
        let tpm = self.tpm.iter_mut().flat_map(|tpm| tpm.certificates.iter_mut().chain([&mut tpm.enrolment]));
        for path in self.root.iter_mut().chain(&mut self.facility_statements).chain(tpm) {
            *path = directory.join(&*path);
        }
    }

    fn root(&self) -> &Path {
        self.root.as_deref().unwrap_or(Path::new("/"))
    }

    /// What facilities state, read and seen to be for this network. Whether anybody trusts them is not for the node to say.
    pub(crate) fn facilities(&self, network: NetworkId) -> Result<Vec<Envelope>, AgentError> {
        let mut envelopes = Vec::new();
        for path in &self.facility_statements {
            let malformed = |reason: String| AgentError::Config { path: path.clone(), reason };
            let bytes = read(path, MAX_STATEMENT_BYTES)?;
            let envelope: Envelope =
                serde_json::from_slice(&bytes).map_err(|_| malformed("not an envelope with a statement".into()))?;
            let statement =
                envelope.clone().open::<FacilityStatement>().map_err(|error| malformed(error.to_string()))?;
            if statement.network != network {
                return Err(malformed("the facility's statement is for another network".into()));
            }
            envelopes.push(envelope);
        }
        Ok(envelopes)
    }
}

impl TpmConfig {
    fn check(&self) -> Result<(), &'static str> {
        let lists_ima = matches!(&self.logs, LogChoice::These(logs) if logs.contains(&TpmLog::Ima));
        let rules = [
            (self.bank != HashAlg::Sha1, "hardware.tpm.bank is sha1, for which nobody takes a quote"),
            (
                self.pcrs.as_ref().is_none_or(|pcrs| !pcrs.is_empty() && pcrs.iter().all(|pcr| pcr.get() < 24)),
                "hardware.tpm.pcrs is empty, or names a register above 23",
            ),
            (
                !lists_ima || self.pcrs.as_ref().is_none_or(|pcrs| pcrs.contains(&NodeTpmSettings::ima_pcr())),
                "hardware.tpm.logs has \"ima\" and hardware.tpm.pcrs lacks 10, which vouches for it",
            ),
            (self.certificates.len() <= MAX_CERTIFICATE_FILES, "hardware.tpm.certificates has more than 8 files"),
        ];
        rules.into_iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, what)| Err(what))
    }

    /// Which logs, and with them which registers: there has to be a list for its register to be quoted for its sake.
    fn logs_and_pcrs(&self, root: &Path) -> (BTreeSet<TpmLog>, BTreeSet<PcrIndex>) {
        let ima = NodeTpmSettings::ima_pcr();
        let has_ima = || !matches!(Logs::at(root).ima(), Err(LogError::Missing(_) | LogError::Unreadable { .. }));
        let mut logs = match &self.logs {
            LogChoice::All => BTreeSet::from([TpmLog::Uefi, TpmLog::Ima]),
            LogChoice::These(logs) => logs.clone(),
        };
        let pcrs = self.pcrs.clone().unwrap_or_else(|| {
            let mut pcrs = NodeTpmSettings::default_pcrs();
            if logs.contains(&TpmLog::Ima) && has_ima() {
                pcrs.insert(ima);
            }
            pcrs
        });
        if self.logs == LogChoice::All && !pcrs.contains(&ima) {
            logs.remove(&TpmLog::Ima);
        }
        (logs, pcrs)
    }

    /// The certificates in the files that are named.
    pub(crate) fn read_certificates(&self) -> Result<Vec<Certificate>, AgentError> {
        let mut certificates = Vec::new();
        for path in &self.certificates {
            let found = Certificate::read(&read(path, MAX_CERTIFICATES_BYTES)?);
            certificates
                .extend(found.map_err(|error| AgentError::Config { path: path.clone(), reason: error.to_string() })?);
        }
        Ok(certificates)
    }

    fn open(&self, root: &Path, network: NetworkId, node: NodeId, known_ek: KnownEk) -> Result<NodeTpm, AgentError> {
        let (logs, pcrs) = self.logs_and_pcrs(root);
        let opened = NodeTpm::open(&NodeTpmSettings {
            address: self.address.clone(),
            ek: self.endorsement_key.map(|choice| match choice {
                EndorsementKeyChoice::P256 => EkKind::P256,
                EndorsementKeyChoice::P384 => EkKind::P384,
                EndorsementKeyChoice::Rsa2048 => EkKind::Rsa2048,
            }),
            known_ek,
            ak: match self.key {
                KeyChoice::EcdsaP256 => AkKind::EcdsaP256,
                KeyChoice::Rsassa2048 => AkKind::Rsassa2048,
                KeyChoice::Rsapss2048 => AkKind::Rsapss2048,
            },
            // One key for each network and node, so that enrolments in two networks do not show that it is one machine.
            label: *tagged_hash("tpm-ak", &[network.as_bytes(), node.0.as_bytes()]).as_bytes(),
            bank: self.bank,
            pcrs,
            certificates: self.read_certificates()?,
            logs,
        });
        Ok(opened?)
    }
}

/// Opens the devices that the configuration names. Blocks.
pub(crate) fn open(
    config: &AgentConfig,
    network: NetworkId,
    node: NodeId,
    boot: BootId,
    known_ek: KnownEk,
) -> Result<JoinedAttester, AgentError> {
    let software = || -> Result<Option<CpuTee>, AgentError> {
        let Some(path) = &config.software_tee else { return Ok(None) };
        let settings = software_tee_settings(boot, measure_executable(SELF_EXECUTABLE)?);
        let tee =
            SoftwareTee::load(path, settings).map_err(|source| AgentError::Device { path: path.clone(), source })?;
        Ok(Some(tee.into()))
    };
    let Some(hardware) = &config.hardware else {
        return Ok(JoinedAttester::new(boot, software()?, None, "/")?);
    };
    let root = hardware.root();
    let tee = match hardware.tee {
        TeeChoice::Auto => match CpuTee::find(root)? {
            Some(tee) => Some(tee),
            None => software()?,
        },
        TeeChoice::Tsm => Some(CpuTee::tsm_at(root)?),
        TeeChoice::SevGuest => Some(CpuTee::sev_guest(root)?),
        TeeChoice::Gramine => Some(CpuTee::gramine(Gramine::at(root))?),
        TeeChoice::SoftwareTee => software()?,
        TeeChoice::None => None,
    };
    let tpm = hardware.tpm.as_ref().map(|tpm| tpm.open(root, network, node, known_ek)).transpose()?;
    Ok(JoinedAttester::new(boot, tee, tpm, root)?)
}

pub(crate) fn read(path: &Path, most_bytes: u64) -> Result<Vec<u8>, AgentError> {
    let error = |source| AgentError::File { path: path.into(), source };
    let mut bytes = Vec::new();
    // A pipe would be waited for.
    if !fs::metadata(path).map_err(error)?.is_file() {
        return Err(error(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")));
    }
    fs::File::open(path).and_then(|file| file.take(most_bytes + 1).read_to_end(&mut bytes)).map_err(error)?;
    if bytes.len() as u64 > most_bytes {
        return Err(error(io::ErrorKind::FileTooLarge.into()));
    }
    Ok(bytes)
}
