//! What a node is told at its start, and the files that make a node.

use std::fs::{self, DirBuilder};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use starminer_attester::{SimulatedRoot, SoftwareTee, SoftwareTeeSettings};
use starminer_receipt::{NetworkTrust, toml_reason};
use starminer_tls::IdentityKey;
use starminer_verify::software_tee::{ChipId, DebugMode, MemoryEncryption};
use starminer_verify::{BootId, Digest, NodeId, PublicKey, UnixTime};
use zeroize::Zeroizing;

use crate::error::AgentError;
use crate::hardware::HardwareConfig;

/// Name of the configuration file in a node's directory.
pub const CONFIG_FILE: &str = "agent.toml";
/// Name of the software TEE's file in it.
const SOFTWARE_TEE_FILE: &str = "software-tee.key";
/// Largest configuration file, in bytes.
const MAX_CONFIG_BYTES: u64 = 64 * 1024;
/// Largest trust file, in bytes.
const MAX_TRUST_BYTES: u64 = 256 * 1024;
/// Most tasks at a time.
const MAX_PLACES: u32 = 1024;
/// The least that a WebAssembly program has, in bytes.
const WASM_PAGE_BYTES: u64 = 65_536;
/// How long the software TEE of a new node is certified for: ten years, for want of anyone who renews it.
const DEVICE_CERTIFICATE_MS: u64 = 10 * 365 * 24 * 60 * 60 * 1000;
/// Version of the software TEE's trusted base.
pub(crate) const SOFTWARE_TEE_TCB: u64 = 1;

/// What a node is told at its start (`agent.toml`). Relative paths are relative to the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentConfig {
    /// The trust file (`network.toml`): the coordinator and its key.
    pub network: PathBuf,
    /// The node's identity key.
    pub identity: PathBuf,
    /// Key and certificate of the software TEE, where one takes part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub software_tee: Option<PathBuf>,
    /// Where ciphertext of running tasks lies. Nothing in it outlives a task, and nothing is kept over a restart.
    pub data_dir: PathBuf,
    /// Tasks at a time, 1 to 1024.
    #[serde(default = "default_places")]
    pub places: u32,
    /// Bounds of this node.
    #[serde(default)]
    pub limits: NodeLimits,
    /// The devices that make evidence. Left out: the software TEE alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hardware: Option<HardwareConfig>,
}

/// What this node has for one task, and for itself. A task that asks for more is left to other nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NodeLimits {
    /// Guest memory of one task.
    pub memory_bytes: u64,
    /// Scratch of one task.
    pub scratch_bytes: u64,
    /// State of one task, which is kept while the task lasts, also when the agent does not run.
    pub state_bytes: u64,
    /// Outputs of one task.
    pub output_bytes: u64,
    /// Sealed workload and inputs of one task together.
    pub input_bytes: u64,
    /// Compiled programs that are kept in memory for later tasks of their owners.
    pub compiled_cache_bytes: u64,
    /// Task processes that are started ahead of time; never more than there are places.
    pub warm_processes: u32,
    /// How long running tasks may go on when the node is told to stop.
    pub shutdown_ms: u64,
}

fn default_places() -> u32 {
    4
}

impl Default for NodeLimits {
    fn default() -> Self {
        Self {
            memory_bytes: 4 << 30,
            scratch_bytes: 64 << 30,
            state_bytes: 1 << 30,
            output_bytes: 16 << 30,
            input_bytes: 64 << 30,
            compiled_cache_bytes: 256 << 20,
            warm_processes: 4,
            shutdown_ms: 10_000,
        }
    }
}

impl AgentConfig {
    /// Reads a configuration file.
    ///
    /// # Errors
    /// [`AgentError::File`], [`AgentError::Config`].
    pub fn load(path: &Path) -> Result<Self, AgentError> {
        let text = read_text(path, MAX_CONFIG_BYTES)?;
        let mut config: Self = toml::from_str(&text)
            .map_err(|source| AgentError::Config { path: path.into(), reason: toml_reason(&text, &source) })?;
        config.check().map_err(|reason| AgentError::Config { path: path.into(), reason: reason.into() })?;
        let directory = path.parent().unwrap_or_else(|| Path::new("")).to_path_buf();
        let files = [&mut config.network, &mut config.identity, &mut config.data_dir];
        for file in files.into_iter().chain(&mut config.software_tee) {
            *file = directory.join(&*file);
        }
        if let Some(hardware) = &mut config.hardware {
            hardware.resolve(&directory);
        }
        Ok(config)
    }

    fn check(&self) -> Result<(), &'static str> {
        if !(1..=MAX_PLACES).contains(&self.places) {
            return Err("places is not between 1 and 1024");
        }
        if self.limits.warm_processes == 0 {
            return Err("limits.warm_processes is 0");
        }
        if self.limits.memory_bytes < WASM_PAGE_BYTES {
            return Err("limits.memory_bytes is less than 65536, in which no program fits");
        }
        match &self.hardware {
            None if self.software_tee.is_none() => Err("no device: neither software_tee nor hardware is set"),
            None => Ok(()),
            Some(hardware) => hardware.check(self.software_tee.is_some()),
        }
    }

    /// Reads the trust file that the configuration names.
    pub(crate) fn trust(&self) -> Result<NetworkTrust, AgentError> {
        let text = read_text(&self.network, MAX_TRUST_BYTES)?;
        NetworkTrust::parse(&text).map_err(|source| AgentError::Trust { path: self.network.clone(), source })
    }
}

fn read_text(path: &Path, most_bytes: u64) -> Result<String, AgentError> {
    use std::io::Read as _;
    let error = |source| AgentError::File { path: path.into(), source };
    let mut text = String::new();
    // A pipe would be waited for.
    if !fs::metadata(path).map_err(error)?.is_file() {
        return Err(error(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")));
    }
    let read =
        fs::File::open(path).and_then(|file| file.take(most_bytes + 1).read_to_string(&mut text)).map_err(error)?;
    if read as u64 > most_bytes {
        return Err(error(io::ErrorKind::FileTooLarge.into()));
    }
    Ok(text)
}

/// Makes a node's directory: identity key, a software TEE certified by `software_tee_root` where one is given, a copy of the trust file, and
/// the configuration with the devices of `hardware`. Returns who the node is.
///
/// # Errors
/// [`AgentError::Exists`] where there is a node already; [`AgentError::Config`] where no device is left, or a file of certificates has none;
/// [`AgentError::File`] and the errors of keys and certificates. Before any but the last nothing is made.
pub fn init(
    dir: &Path,
    network: &NetworkTrust,
    software_tee_root: Option<&SimulatedRoot>,
    hardware: Option<HardwareConfig>,
) -> Result<NodeId, AgentError> {
    let config_path = dir.join(CONFIG_FILE);
    if config_path.exists() {
        return Err(AgentError::Exists { path: config_path });
    }
    let config = AgentConfig {
        network: "network.toml".into(),
        identity: "node.key".into(),
        software_tee: software_tee_root.map(|_| SOFTWARE_TEE_FILE.into()),
        data_dir: "data".into(),
        places: default_places(),
        limits: NodeLimits::default(),
        hardware,
    };
    config.check().map_err(|reason| AgentError::Config { path: config_path.clone(), reason: reason.into() })?;
    let file = |path: PathBuf| move |source| AgentError::File { path, source };
    if let Some(tpm) = config.hardware.as_ref().and_then(|hardware| hardware.tpm.as_ref()) {
        tpm.read_certificates()?;
    }
    for dir in [dir.to_path_buf(), dir.join(&config.data_dir)] {
        DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(file(dir.clone()))?;
    }
    // A start that was interrupted left its keys behind, and they are as good as new ones: no configuration named them.
    let identity = IdentityKey::load_or_create(&dir.join(&config.identity))?;
    let tee_path = dir.join(SOFTWARE_TEE_FILE);
    if let Some(root) = software_tee_root.filter(|_| !tee_path.exists()) {
        new_software_tee(root)?.save(&tee_path).map_err(|source| AgentError::Device { path: tee_path, source })?;
    }
    let trust = network
        .encode()
        .map_err(|_| AgentError::Config { path: config.network.clone(), reason: "cannot be written".into() })?;
    write_file(&dir.join(&config.network), trust.as_bytes())?;
    let text = toml::to_string(&config)
        .map_err(|_| AgentError::Config { path: config_path.clone(), reason: "cannot be written".into() })?;
    // Last: a directory with a configuration is a whole node.
    write_file(&config_path, text.as_bytes())?;
    Ok(NodeId(PublicKey(identity.public())))
}

/// A new software TEE, certified by `root`: what a node or a broker attests with where there is no hardware.
///
/// # Errors
/// The root did not sign, or there is no randomness.
pub fn new_software_tee(root: &SimulatedRoot) -> Result<SoftwareTee, AgentError> {
    let seed = Zeroizing::new(crate::random::bytes::<32>()?);
    let request = SoftwareTee::request(&seed, ChipId(crate::random::bytes()?));
    let now = now();
    // An hour of grace, for a verifier whose clock is behind.
    let not_before = UnixTime(now.0.saturating_sub(60 * 60 * 1000));
    let certificate = root
        .certify(&request, not_before, now.saturating_add_millis(DEVICE_CERTIFICATE_MS))
        .map_err(AgentError::Certify)?;
    // Settings belong to one start and are not saved.
    SoftwareTee::new(&seed, certificate, software_tee_settings(BootId([0; 16]), Digest([0; 32])))
        .map_err(AgentError::Certify)
}

/// How this agent's software TEE presents itself.
#[must_use]
pub fn software_tee_settings(boot: BootId, measurement: Digest) -> SoftwareTeeSettings {
    SoftwareTeeSettings {
        boot,
        measurement,
        debug: DebugMode::Off,
        memory_encryption: MemoryEncryption::Claimed,
        tcb_version: SOFTWARE_TEE_TCB,
    }
}

/// Puts a file in its place, whole and durable, with mode 0600.
pub(crate) fn write_file(path: &Path, bytes: &[u8]) -> Result<(), AgentError> {
    let error = |source| AgentError::File { path: path.into(), source };
    let temporary = path.with_extension("new");
    let mut file =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary).map_err(error)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(error)?;
    fs::rename(&temporary, path).map_err(error)?;
    // The name lives in the directory, which has to be durable as well.
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::File::open(directory).and_then(|directory| directory.sync_all()).map_err(error)
}

/// The machine's clock.
pub(crate) fn now() -> UnixTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixTime(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use starminer_attester::TpmLog;
    use starminer_attester::tpm::PcrIndex;

    use super::*;
    use crate::hardware::{EndorsementKeyChoice, LogChoice, TeeChoice, TpmConfig};

    #[test]
    fn a_configuration_is_written_as_it_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(CONFIG_FILE);
        let tpm = TpmConfig {
            address: "unix:/run/tpm.sock".parse().unwrap(),
            endorsement_key: Some(EndorsementKeyChoice::Rsa2048),
            pcrs: Some([0, 7, 10].into_iter().filter_map(PcrIndex::new).collect()),
            certificates: vec!["/ca.pem".into()],
            logs: LogChoice::These([TpmLog::Ima].into()),
            enrolment: "/enrolment.json".into(),
            ..TpmConfig::default()
        };
        let config = AgentConfig {
            network: "/n".into(),
            identity: "/k".into(),
            software_tee: None,
            data_dir: "/d".into(),
            places: 3,
            limits: NodeLimits::default(),
            hardware: Some(HardwareConfig {
                tee: TeeChoice::None,
                root: Some("/r".into()),
                tpm: Some(tpm),
                ..HardwareConfig::default()
            }),
        };
        fs::write(&path, toml::to_string(&config).unwrap()).unwrap();
        assert_eq!(AgentConfig::load(&path).unwrap(), config);
    }

    #[test]
    fn paths_are_relative_to_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(CONFIG_FILE);
        let text = "network = \"n\"\nidentity = \"/k\"\ndata_dir = \"d\"\n[hardware]\nroot = \"r\"\nfacility_statements = [\"f\"]\n[hardware.tpm]\ncertificates = [\"c\", \"/c\"]\n";
        fs::write(&path, text).unwrap();
        let hardware = AgentConfig::load(&path).unwrap().hardware.unwrap();
        let here = |name: &str| directory.path().join(name);
        assert_eq!((hardware.root, hardware.facility_statements), (Some(here("r")), vec![here("f")]));
        let tpm = hardware.tpm.unwrap();
        assert_eq!((tpm.certificates, tpm.enrolment), (vec![here("c"), "/c".into()], here("enrolment.json")));
    }

    #[test]
    fn a_configuration_is_read_strictly() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(CONFIG_FILE);
        let good = "network = \"n.toml\"\nidentity = \"/k\"\nsoftware_tee = \"t\"\ndata_dir = \"d\"\n";
        let check = |text: &str, wanted: Option<&str>| {
            fs::write(&path, text).unwrap();
            match (AgentConfig::load(&path), wanted) {
                (Ok(config), None) => {
                    assert_eq!(config.network, directory.path().join("n.toml"));
                    assert_eq!(config.identity, Path::new("/k"));
                }
                (Err(AgentError::Config { reason, .. }), Some(wanted)) => assert!(reason.contains(wanted), "{reason}"),
                (found, _) => panic!("{text}: {found:?}"),
            }
        };
        check(good, None);
        check(&format!("{good}places = 9\n[limits]\nmemory_bytes = 65536\n"), None);
        check(&format!("{good}places = 0\n"), Some("places"));
        check(&format!("{good}places = 9999\n"), Some("places"));
        check(&format!("{good}[limits]\nwarm_processes = 0\n"), Some("warm_processes"));
        check(&format!("{good}[limits]\nmemory_bytes = 65535\n"), Some("memory_bytes"));
        check(&format!("{good}colour = 1\n"), Some("line 5, column 1: unknown field `colour`"));
        check(&format!("{good}[limits]\ncolour = 1\n"), Some("colour"));
        check("network = \"n\"\n", Some("identity"));

        let bare = "network = \"n.toml\"\nidentity = \"/k\"\ndata_dir = \"d\"\n";
        check(bare, Some("no device"));
        let tpm = |lines: &str| format!("{bare}[hardware]\ntee = \"none\"\n[hardware.tpm]\n{lines}");
        for good in [
            format!("{bare}[hardware]\n"),
            format!("{good}[hardware]\ntee = \"software-tee\"\nroot = \"tree\"\nfacility_statements = [\"f\"]\n"),
            format!("{good}[hardware]\ntee = \"sev-guest\"\n"),
            tpm(""),
            tpm(
                "address = \"unix:/run/tpm.sock\"\nkey = \"rsapss-2048\"\nendorsement_key = \"p-384\"\nbank = \"sha384\"\n",
            ),
            tpm(
                "address = \"tcp:127.0.0.1:2321\"\npcrs = [0, 7, 10]\nlogs = [\"uefi\", \"ima\"]\ncertificates = [\"c\"]\n",
            ),
            tpm("pcrs = [0, 7]\nlogs = \"all\"\nenrolment = \"e\"\n"),
            tpm("pcrs = [7]\nlogs = \"none\"\n"),
        ] {
            check(&good, None);
        }
        for (bad, wanted) in [
            (format!("{bare}[hardware]\ntee = \"none\"\n"), "no device"),
            (format!("{bare}[hardware]\ntee = \"software-tee\"\n"), "software_tee names no file"),
            (format!("{bare}[hardware]\ntee = \"enclave\"\n"), "enclave"),
            (format!("{bare}[hardware]\ncolour = 1\n"), "colour"),
            (format!("{good}[hardware]\nfacility_statements = [\"1\", \"2\", \"3\", \"4\"]\n"), "more than 3"),
            (tpm("colour = 1\n"), "colour"),
            (tpm("address = \"tpm0\"\n"), "address of a TPM"),
            (tpm("address = \"unix:run/tpm.sock\"\n"), "address of a TPM"),
            (tpm("address = \"tcp:localhost\"\n"), "address of a TPM"),
            (tpm("key = \"rsa\"\n"), "rsa"),
            (tpm("endorsement_key = \"p-521\"\n"), "p-521"),
            (tpm("bank = \"sha1\"\n"), "sha1"),
            (tpm("bank = \"md5\"\n"), "md5"),
            (tpm("pcrs = []\n"), "empty"),
            (tpm("pcrs = [24]\n"), "above 23"),
            (tpm("pcrs = [99]\n"), "99"),
            (tpm("logs = \"some\"\n"), "logs is"),
            (tpm("logs = [\"uefi\", \"uefi\"]\n"), "logs is"),
            (tpm("logs = [\"boot\"]\n"), "logs is"),
            (tpm("pcrs = [0]\nlogs = [\"ima\"]\n"), "lacks 10"),
            (tpm(&format!("certificates = [{}]\n", "\"c\",".repeat(9))), "more than 8"),
        ] {
            check(&bad, Some(wanted));
        }
        fs::write(&path, vec![b'#'; 70_000]).unwrap();
        assert!(matches!(AgentConfig::load(&path), Err(AgentError::File { .. })));
    }
}
