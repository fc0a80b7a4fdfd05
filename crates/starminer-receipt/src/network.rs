//! The verifier's own trust: `network.toml`.
//!
//! A receipt never brings its own trust. Whoever verifies says in this file which log key and witnesses, which reference
//! values and which simulated roots count. No default pins a simulated root. Specification: `specs/network.md`.

use serde::{Deserialize, Serialize};
use starminer_log::{LogKey, WitnessKey};
use starminer_verify::{NetworkId, PublicKey, ReferenceValues, SimulatedRootId};

/// Most roots or witnesses.
const MAX_KEYS: usize = 64;
/// Most enrollers, and most facilities: as many as a spec names.
const MAX_ENROLLERS: usize = crate::spec::MAX_ENROLLERS;
/// Most release keys.
pub const MAX_RELEASE_KEYS: usize = 16;

/// Where and why a text is not the TOML that was wanted, in one line: the parser's own words draw the place over several.
pub fn toml_reason(text: &str, error: &toml::de::Error) -> String {
    let message = error.message().trim_end().replace('\n', ", ");
    match error.span().and_then(|span| text.get(..span.start)) {
        Some(before) => {
            let line = before.matches('\n').count() + 1;
            let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
            format!("line {line}, column {column}: {message}")
        }
        None => message,
    }
}

/// Why a trust file is unusable.
#[derive(Debug, thiserror::Error)]
pub enum NetworkTrustError {
    /// Too large.
    #[error("a trust file has at most {} bytes", NetworkTrust::MAX_BYTES)]
    TooLarge,
    /// Not TOML of this form.
    #[error("not a network trust file: {0}")]
    Malformed(String),
    /// The log key is no note verifier key.
    #[error("log.key is not a note verifier key")]
    BadLogKey,
    /// A witness key is no note verifier key.
    #[error("witness {index} is not a note verifier key")]
    BadWitnessKey {
        /// Its place in the file, from 0.
        index: usize,
    },
    /// More keys than anyone needs, or a quorum that they cannot reach.
    #[error("more than {MAX_KEYS} keys, or a witness quorum over the number of witnesses")]
    OutOfBounds,
    /// More release keys than [`MAX_RELEASE_KEYS`], one twice, or a threshold that is none of 1 to their number (0 without any).
    #[error("release keys are at most {MAX_RELEASE_KEYS}, each once, with a threshold of 1 to their number")]
    BadReleaseKeys,
}

/// A simulated root that this verifier accepts by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SimulatedRootEntry {
    /// For people.
    pub name: String,
    /// Which root, e.g. `software-tee:<hex>`.
    pub root: SimulatedRootId,
}

/// How to reach the coordinator, and by which key to know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CoordinatorEntry {
    /// `host:port`.
    pub address: String,
    /// Its identity key.
    pub key: PublicKey,
}

/// The log that counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogEntryKeys {
    /// Verifier key of the log, `origin+hash+base64` (C2SP signed-note).
    pub key: String,
    /// Verifier keys of witnesses (C2SP tlog-cosignature).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub witnesses: Vec<String>,
    /// How many witnesses must have cosigned before time and order are more than the coordinator's word.
    #[serde(default)]
    pub witness_quorum: usize,
}

/// The file as it stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TrustFile {
    name: String,
    network: NetworkId,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    release_keys: Vec<PublicKey>,
    #[serde(default, skip_serializing_if = "is_zero")]
    release_threshold: usize,
    coordinator: CoordinatorEntry,
    log: LogEntryKeys,
    #[serde(default)]
    simulated_root: Vec<SimulatedRootEntry>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    enrollers: Vec<PublicKey>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    facilities: Vec<PublicKey>,
    #[serde(default = "ReferenceValues::unset")]
    reference_values: ReferenceValues,
}

// The signature is serde's.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// What a verifier trusts.
#[derive(Debug, Clone)]
pub struct NetworkTrust {
    /// For people.
    pub name: String,
    /// The network.
    pub network: NetworkId,
    /// Its coordinator.
    pub coordinator: CoordinatorEntry,
    /// Its log.
    pub log: LogEntryKeys,
    /// Simulated roots that count here.
    pub simulated_roots: Vec<SimulatedRootEntry>,
    /// Whose word counts that a TPM was enrolled (`EnrolmentStatement`). None: nobody's.
    pub enrollers: Vec<PublicKey>,
    /// Whose word counts that a chip stands in a facility (`FacilityStatement`).
    pub facilities: Vec<PublicKey>,
    /// Measurements of agents that count here.
    pub reference_values: ReferenceValues,
    release_keys: Vec<PublicKey>,
    release_threshold: usize,
    log_key: LogKey,
    witness_keys: Vec<WitnessKey>,
}

impl NetworkTrust {
    /// Largest trust file, in bytes.
    pub const MAX_BYTES: usize = 256 * 1024;

    /// Parses `network.toml`.
    ///
    /// # Errors
    /// Every variant of [`NetworkTrustError`].
    pub fn parse(text: &str) -> Result<Self, NetworkTrustError> {
        if text.len() > Self::MAX_BYTES {
            return Err(NetworkTrustError::TooLarge);
        }
        let file: TrustFile =
            toml::from_str(text).map_err(|error| NetworkTrustError::Malformed(toml_reason(text, &error)))?;
        Self::new(file.name, file.network, file.coordinator, file.log, file.simulated_root, file.reference_values)?
            .with_enrollers(file.enrollers, file.facilities)?
            .with_release_keys(file.release_keys, file.release_threshold)
    }

    /// The same with those whose statements about nodes count.
    ///
    /// # Errors
    /// [`NetworkTrustError::OutOfBounds`].
    pub fn with_enrollers(
        self,
        enrollers: Vec<PublicKey>,
        facilities: Vec<PublicKey>,
    ) -> Result<Self, NetworkTrustError> {
        if enrollers.len() > MAX_ENROLLERS || facilities.len() > MAX_ENROLLERS {
            return Err(NetworkTrustError::OutOfBounds);
        }
        Ok(Self { enrollers, facilities, ..self })
    }

    /// Makes the trust from its parts.
    ///
    /// # Errors
    /// [`NetworkTrustError::BadLogKey`], [`NetworkTrustError::BadWitnessKey`], [`NetworkTrustError::OutOfBounds`].
    pub fn new(
        name: String,
        network: NetworkId,
        coordinator: CoordinatorEntry,
        log: LogEntryKeys,
        simulated_roots: Vec<SimulatedRootEntry>,
        reference_values: ReferenceValues,
    ) -> Result<Self, NetworkTrustError> {
        if simulated_roots.len() > MAX_KEYS
            || log.witnesses.len() > MAX_KEYS
            || log.witness_quorum > log.witnesses.len()
        {
            return Err(NetworkTrustError::OutOfBounds);
        }
        let log_key = LogKey::parse(&log.key).map_err(|_| NetworkTrustError::BadLogKey)?;
        let mut witness_keys = Vec::with_capacity(log.witnesses.len());
        for (index, key) in log.witnesses.iter().enumerate() {
            witness_keys.push(WitnessKey::parse(key).map_err(|_| NetworkTrustError::BadWitnessKey { index })?);
        }
        let (enrollers, facilities) = (Vec::new(), Vec::new());
        let (release_keys, release_threshold) = (Vec::new(), 0);
        Ok(Self {
            name,
            network,
            coordinator,
            log,
            simulated_roots,
            enrollers,
            facilities,
            reference_values,
            release_keys,
            release_threshold,
            log_key,
            witness_keys,
        })
    }

    /// The same, with the keys that sign reference values, and how many of them it takes.
    ///
    /// # Errors
    /// [`NetworkTrustError::BadReleaseKeys`].
    pub fn with_release_keys(mut self, keys: Vec<PublicKey>, threshold: usize) -> Result<Self, NetworkTrustError> {
        let twice = keys.iter().enumerate().any(|(index, key)| keys[..index].contains(key));
        let reachable = if keys.is_empty() { threshold == 0 } else { (1..=keys.len()).contains(&threshold) };
        if keys.len() > MAX_RELEASE_KEYS || twice || !reachable {
            return Err(NetworkTrustError::BadReleaseKeys);
        }
        (self.release_keys, self.release_threshold) = (keys, threshold);
        Ok(self)
    }

    /// The file's text.
    ///
    /// # Errors
    /// None in practice: the parts are strings, numbers and keys.
    pub fn encode(&self) -> Result<String, toml::ser::Error> {
        toml::to_string(&TrustFile {
            name: self.name.clone(),
            network: self.network,
            release_keys: self.release_keys.clone(),
            release_threshold: self.release_threshold,
            coordinator: self.coordinator.clone(),
            log: self.log.clone(),
            simulated_root: self.simulated_roots.clone(),
            enrollers: self.enrollers.clone(),
            facilities: self.facilities.clone(),
            reference_values: self.reference_values.clone(),
        })
    }

    /// The log's key.
    #[must_use]
    pub fn log_key(&self) -> &LogKey {
        &self.log_key
    }

    /// The keys that sign reference values; none where nobody's count.
    #[must_use]
    pub fn release_keys(&self) -> &[PublicKey] {
        &self.release_keys
    }

    /// How many of the release keys have to sign; 0 where there are none.
    #[must_use]
    pub fn release_threshold(&self) -> usize {
        self.release_threshold
    }

    /// The witnesses' keys.
    #[must_use]
    pub fn witness_keys(&self) -> &[WitnessKey] {
        &self.witness_keys
    }

    /// The simulated roots, without their names.
    pub fn simulated_root_ids(&self) -> impl Iterator<Item = SimulatedRootId> + '_ {
        self.simulated_roots.iter().map(|entry| entry.root)
    }
}
