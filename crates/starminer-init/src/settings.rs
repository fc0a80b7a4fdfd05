//! What the host tells the node: files that systemd's stub measures (register 12) and puts into the initial file system.

use std::fs::{self, DirBuilder, File};
use std::io::Read as _;
use std::net::IpAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use crate::mounts::STATE;

/// Where the stub puts what it found in `\loader\credentials` of the partition that it was started from.
const PLACE: &str = "/.extra/global_credentials";
/// The trust file of the network that the node is for.
const NETWORK: &str = "network.toml";
/// [`NodeSettings`].
const NODE: &str = "node.toml";
/// Certificates that the TPM does not hold. May be missing.
const TPM_CERTIFICATES: &str = "tpm-certificates.pem";
/// Where the disk is mounted, below [`STATE`].
const DISK_PREFIX: &str = "disk/";
/// The enrolment of the node's TPM.
const ENROLMENT: &str = "enrolment.json";
/// The machine's TPM.
const TPM: &str = "/dev/tpmrm0";
/// Largest of these files, in bytes.
const MAX_BYTES: u64 = 256 * 1024;

/// `node.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeSettings {
    /// The machine's address and the length of its network's prefix: `10.0.2.15/24`.
    pub address: Address,
    /// Who forwards to other networks.
    pub gateway: Option<IpAddr>,
    /// Where job storage and the node's key are.
    #[serde(default)]
    pub storage: Storage,
    /// Tasks at a time.
    pub places: Option<u32>,
    /// `[limits]` of agent.toml, handed on as they are.
    #[serde(default)]
    limits: toml::Table,
}

/// Whether the host gave certificates for the machine's TPM.
struct HasCertificates(bool);

/// Where a node keeps what it keeps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Storage {
    /// In memory: nothing outlives the boot.
    #[default]
    Memory,
    /// On the node's disk, encrypted.
    Disk,
}

impl Storage {
    /// Its directory below [`STATE`], to be put before names of files.
    const fn prefix(self) -> &'static str {
        match self {
            Self::Memory => "",
            Self::Disk => DISK_PREFIX,
        }
    }
}

/// An address within its network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Address {
    /// The address.
    pub ip: IpAddr,
    /// Bits of the network.
    pub prefix_bits: u8,
}

impl TryFrom<String> for Address {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let wrong = "an address is written with the length of its prefix: 10.0.2.15/24";
        let (ip, bits) = text.split_once('/').ok_or(wrong)?;
        let ip: IpAddr = ip.parse().map_err(|_| wrong)?;
        let prefix_bits = bits.parse().map_err(|_| wrong)?;
        let most = if ip.is_ipv4() { 32 } else { 128 };
        if prefix_bits > most { Err(wrong) } else { Ok(Self { ip, prefix_bits }) }
    }
}

/// All of it.
pub struct Settings {
    /// `node.toml`.
    pub node: NodeSettings,
    network: Vec<u8>,
    tpm_certificates: Option<Vec<u8>>,
}

impl Settings {
    /// Reads them.
    pub fn read() -> Result<Self> {
        let node = read(NODE)?.with_context(|| format!("the host gave no {NODE}"))?;
        let node = String::from_utf8(node).with_context(|| format!("{NODE} is no text"))?;
        let node = toml::from_str(&node).with_context(|| NODE.to_owned())?;
        let network = read(NETWORK)?.with_context(|| format!("the host gave no {NETWORK}"))?;
        Ok(Self { node, network, tpm_certificates: read(TPM_CERTIFICATES)? })
    }

    /// Writes them down as the agent reads them, and says where its configuration is.
    pub fn write(&self) -> Result<PathBuf> {
        let state = Path::new(STATE);
        let data = state.join(format!("{}data", self.node.storage.prefix()));
        // On a disk it is there from the first start on.
        DirBuilder::new().mode(0o700).recursive(true).create(&data).with_context(|| data.display().to_string())?;
        let write = |name: &str, bytes: &[u8]| fs::write(state.join(name), bytes).with_context(|| name.to_owned());
        write(NETWORK, &self.network)?;
        if let Some(certificates) = &self.tpm_certificates {
            write(TPM_CERTIFICATES, certificates)?;
        }
        let tpm = Path::new(TPM).exists().then_some(HasCertificates(self.tpm_certificates.is_some()));
        let config = self.node.agent_config(tpm);
        write("agent.toml", config.to_string().as_bytes())?;
        Ok(state.join("agent.toml"))
    }
}

impl NodeSettings {
    /// Where the agent keeps its enrolment, once it has one.
    pub fn enrolment(&self) -> PathBuf {
        Path::new(STATE).join(format!("{}{ENROLMENT}", self.storage.prefix()))
    }

    /// `agent.toml`: the machine's TEE where it has one, and its TPM, where it has one, with every register that the image's start fills. What it has to have is for whoever appraises.
    fn agent_config(&self, tpm: Option<HasCertificates>) -> toml::Table {
        let at = |name: &str| format!("{}{name}", self.storage.prefix());
        let mut config = toml::Table::from_iter([
            ("network".to_owned(), NETWORK.into()),
            ("identity".to_owned(), at("node.key").into()),
            ("data_dir".to_owned(), at("data").into()),
        ]);
        // The machine's TEE is found without another word.
        let mut hardware = toml::Table::new();
        if let Some(HasCertificates(has_certificates)) = tpm {
            let mut tpm = toml::Table::new();
            tpm.insert("pcrs".into(), (0..=12).collect::<Vec<i64>>().into());
            tpm.insert("enrolment".into(), at(ENROLMENT).into());
            if has_certificates {
                tpm.insert("certificates".into(), vec![TPM_CERTIFICATES].into());
            }
            hardware.insert("tpm".into(), tpm.into());
        }
        config.insert("hardware".into(), hardware.into());
        if let Some(places) = self.places {
            config.insert("places".into(), i64::from(places).into());
        }
        if !self.limits.is_empty() {
            config.insert("limits".into(), self.limits.clone().into());
        }
        config
    }
}

/// A file of the host's, if there is one.
fn read(name: &str) -> Result<Option<Vec<u8>>> {
    let path = format!("{PLACE}/{name}.cred");
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).context(path),
    };
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).with_context(|| path.clone())?;
    ensure!(bytes.len() as u64 <= MAX_BYTES, "{path} has more than {MAX_BYTES} bytes");
    Ok(Some(bytes))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_strictly() {
        let parse = |text: &str| toml::from_str::<NodeSettings>(text);
        let node = parse("address = \"10.0.2.15/24\"\ngateway = \"10.0.2.2\"\nplaces = 2\n").unwrap();
        assert_eq!(node.address, Address { ip: "10.0.2.15".parse().unwrap(), prefix_bits: 24 });
        assert_eq!(parse("address = \"fd00::15/64\"\n").unwrap().storage, Storage::Memory);
        let on_disk = parse("address = \"10.0.2.15/24\"\nstorage = \"disk\"\n").unwrap();
        assert_eq!(on_disk.storage, Storage::Disk);
        assert_eq!(on_disk.enrolment(), Path::new("/run/starminer/disk/enrolment.json"));
        let config = on_disk.agent_config(Some(HasCertificates(false)));
        assert_eq!(config["identity"].as_str(), Some("disk/node.key"));
        assert_eq!(config["data_dir"].as_str(), Some("disk/data"));
        assert_eq!(config["hardware"]["tpm"]["enrolment"].as_str(), Some("disk/enrolment.json"));
        for bad in [
            "",
            "address = \"10.0.2.15\"\n",
            "address = \"10.0.2.15/33\"\n",
            "address = \"10.0.2.15/-1\"\n",
            "address = \"host/24\"\n",
            "address = \"10.0.2.15/24\"\ngateway = \"gate\"\n",
            "address = \"10.0.2.15/24\"\nshell = true\n",
            "address = \"10.0.2.15/24\"\nstorage = \"elsewhere\"\n",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_agent_gets_the_tpm_and_what_the_host_may_choose() {
        let node: NodeSettings =
            toml::from_str("address = \"10.0.2.15/24\"\nplaces = 2\n[limits]\nmemory_bytes = 65536\n").unwrap();
        let config = node.agent_config(Some(HasCertificates(true))).to_string();
        let config: toml::Table = config.parse().unwrap();
        assert_eq!(config["places"].as_integer(), Some(2));
        assert_eq!(config["limits"]["memory_bytes"].as_integer(), Some(65536));
        let tpm = &config["hardware"]["tpm"];
        assert_eq!(tpm["pcrs"].as_array().unwrap().len(), 13);
        assert_eq!(tpm["certificates"].as_array().unwrap()[0].as_str(), Some(TPM_CERTIFICATES));
        assert!(node.agent_config(Some(HasCertificates(false)))["hardware"]["tpm"].get("certificates").is_none());
        // Without a TPM there is the section all the same: without it, an agent has no devices at all, and does not start.
        assert_eq!(node.agent_config(None)["hardware"].as_table(), Some(&toml::Table::new()));
    }
}
