//! Endorsements for the evidence of this network's nodes: taken from memory, fetched behind its back.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use starminer_endorsements::{
    Fetcher, Limits, Politeness, Prefetcher, ServerRoots, SetupError, Sources, Store, StoreError, SystemClock, Want,
    system_jitter,
};
use starminer_hardware::endorsements::{Ages, Snapshot, Trust};
use starminer_receipt::Base64Bytes;
use starminer_verify::{Endorsements, Evidence, Refusal, Selection, UnixTime};

/// Where endorsements come from and how old they may get.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EndorsementConfig {
    /// Where they are kept; the coordinator's own directory where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub directory: Option<PathBuf>,
    /// Whether makers are asked for what evidence needs. Without, only what was imported counts.
    pub fetch: bool,
    /// The makers' services, or caches of them.
    pub sources: Sources,
    /// How old they may get.
    pub ages: Ages,
}

impl Default for EndorsementConfig {
    fn default() -> Self {
        Self { directory: None, fetch: true, sources: Sources::default(), ages: Ages::default() }
    }
}

/// Why there are no endorsements.
#[derive(Debug, thiserror::Error)]
pub enum EndorsingError {
    /// The directory cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Nothing can be fetched.
    #[error(transparent)]
    Setup(#[from] SetupError),
}

/// Gives each evidence its endorsements. No network and no disk on the way.
#[derive(Debug)]
pub(crate) struct Endorsing {
    store: Store,
    prefetcher: Option<Prefetcher>,
    ages: Ages,
}

impl Endorsing {
    /// Opens what was kept. Blocks.
    pub(crate) fn open(
        config: &EndorsementConfig,
        default_directory: &Path,
        now: UnixTime,
    ) -> Result<Self, EndorsingError> {
        let directory = config.directory.as_deref().unwrap_or(default_directory);
        let (store, loaded) = Store::open(directory, Trust::genuine(), now.as_seconds())?;
        for (key, refusal) in &loaded.dropped {
            tracing::info!(%key, %refusal, "an endorsement that was kept does not hold any more");
        }
        let prefetcher = config.fetch.then(|| {
            let fetcher = Fetcher::new(
                config.sources.clone(),
                &ServerRoots::Web,
                Politeness::default(),
                Limits::default(),
                Arc::new(SystemClock),
                system_jitter(),
            )?;
            Ok::<_, SetupError>(Prefetcher::new(store.clone(), fetcher, config.ages.clone()))
        });
        Ok(Self { store, prefetcher: prefetcher.transpose()?, ages: config.ages.clone() })
    }

    /// What fetches, to be run beside.
    pub(crate) fn prefetcher(&self) -> Option<Prefetcher> {
        self.prefetcher.clone()
    }

    /// What was fetched for the certificates of a TPM.
    pub(crate) fn of_tpm(&self, certificates: &[Base64Bytes], now: UnixTime) -> Result<Endorsements, Refusal> {
        let certificates: Vec<&[u8]> = certificates.iter().map(|der| der.0.as_slice()).collect();
        let selection = starminer_verify::select_for_tpm(&certificates, &self.store.snapshot(), &self.ages, now)?;
        self.want(&selection);
        Ok(selection.endorsements)
    }

    /// What this evidence is verified with. What is missing will be fetched, and is there the next time.
    pub(crate) fn select(&self, evidence: &Evidence, now: UnixTime) -> Result<Selection, Refusal> {
        let selection = evidence.select_endorsements(&self.store.snapshot(), &self.ages, now)?;
        self.want(&selection);
        Ok(selection)
    }

    /// The same once more with the snapshot that it is out of.
    pub(crate) fn kept(&self, evidence: &Evidence, now: UnixTime) -> Result<(Selection, Snapshot), Refusal> {
        let snapshot = self.store.snapshot();
        Ok((evidence.select_endorsements(&snapshot, &self.ages, now)?, snapshot))
    }

    /// How old endorsements may get.
    pub(crate) const fn ages(&self) -> &Ages {
        &self.ages
    }

    fn want(&self, selection: &Selection) {
        let Some(prefetcher) = &self.prefetcher else { return };
        for missing in &selection.missing {
            // What is nowhere to be had comes with the evidence, or not at all: verification says so.
            let _ = prefetcher.want([Want::from(missing.what.clone())]);
        }
    }
}
