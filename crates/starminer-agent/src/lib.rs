//! The node's agent: supervises tasks inside the enclave, each in a process of its own.
//!
//! ```text
//! agent (long-lived)                                task process (one task, one life)
//! lease from the feed ───────── spec, lease ──────► makes its two keys
//! binding → device → evidence ◄──── public keys ───
//! ciphertext from the coordinator ──── objects ───►
//! grant from the feed ──── evidence, grant ───────► opens, runs, seals, signs the report, ends
//! countersigns, closing evidence, uploads ◄─ report
//! ```
//!
//! The agent sees statements, public keys, digests and ciphertext, never plaintext, a task secret or a task's private key.
//! [`run_if_task_process`] has to be the first call of `main` in every program that runs a node, because a task process is
//! that program again. Specification: `specs/node.md`.
//!
//! Not here: releasing keys (`starminer-broker`), judging evidence (`starminer-verify`), the server's side of the API.

mod config;
mod enrolment;
mod error;
mod hardware;
mod posture;
mod protocol;
mod random;
mod supervisor;
mod task;

use std::future::Future;
use std::sync::Arc;

use starminer_attester::tpm::{KnownEk, TpmError};
use starminer_attester::{Attester as _, DeviceError, HostTree, JoinedAttester};
use starminer_client::{CoordinatorClient, Transport};
use starminer_receipt::SigningKey;
use starminer_sandbox::{Program, harden_supervisor};
use starminer_tls::{Clock, Connector, IdentityKey, PeerIdentity, RotatingCertificate, Rotation, Side, SystemClock};
use starminer_verify::{BootId, NetworkId, NodeId, PublicKey};

pub use config::{AgentConfig, CONFIG_FILE, NodeLimits, init, new_software_tee, software_tee_settings};
pub use error::AgentError;
pub use hardware::{EndorsementKeyChoice, HardwareConfig, KeyChoice, LogChoice, TeeChoice, TpmConfig};
pub use random::NoRandomness;
pub use task::run_if_task_process;

/// Runs a node until `shutdown` is over: leases come in, tasks run, reports go out. Call within a multi-thread tokio runtime.
/// `admitted` is called once, when the coordinator has admitted the node.
///
/// When told to stop it takes no more leases, lets running tasks go on for a bounded time, and gives the rest up with a
/// report. Everything that happens to single tasks is reported, not returned.
///
/// # Errors
/// What keeps the node from starting.
pub async fn run(
    config: AgentConfig,
    admitted: impl FnOnce() + Send + 'static,
    shutdown: impl Future<Output = ()>,
) -> Result<(), AgentError> {
    harden_supervisor()?;
    let trust = config.trust()?;
    let identity = Arc::new(IdentityKey::load(&config.identity)?);
    let node = NodeId(PublicKey(identity.public()));
    // Before the devices, which a second process here would wait for.
    drop(supervisor::JobDir::take(&config.data_dir)?);
    let (opening, network) = (config.clone(), trust.network);
    let opened = tokio::task::spawn_blocking(move || devices(&opening, network, node)).await;
    let (device, statements) = opened.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?;
    let tee = device.tee().map_or("none", |tee| tee.name());
    tracing::info!(tee, tpm = device.tpm().is_some(), "the devices that make evidence");

    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let rotation = Rotation::default();
    let certificate =
        Arc::new(RotatingCertificate::new(Arc::clone(&identity), Side::Client, rotation, clock.unix_seconds())?);
    let _rotation = certificate.spawn_rotation(Arc::clone(&clock));
    let connector = Arc::new(Connector::new(Arc::clone(&certificate), clock));
    let address: Arc<str> = trust.coordinator.address.as_str().into();
    let transport = Transport::new(address, PeerIdentity(trust.coordinator.key.0), connector);
    let upstream = supervisor::Coordinator { client: CoordinatorClient::new(transport), certificate };

    let parts = supervisor::Parts {
        upstream,
        network: trust.network,
        coordinator: trust.coordinator.key,
        identity: SigningKey::from_seed(&zeroize::Zeroizing::new(*identity.seed())),
        device: Arc::new(device),
        statements,
        host: HostTree::machine(),
        program: Program::Itself,
        data_dir: config.data_dir,
        places: config.places,
        limits: config.limits,
        admitted: Box::new(admitted),
    };
    supervisor::serve(parts, shutdown).await
}

/// Opens the devices, with the TPM that was enrolled where one was, and what speaks for them. Blocks.
fn devices(
    config: &AgentConfig,
    network: NetworkId,
    node: NodeId,
) -> Result<(JoinedAttester, enrolment::Statements), AgentError> {
    let boot = BootId(random::bytes()?);
    let facilities = config.hardware.as_ref().map(|hardware| hardware.facilities(network)).transpose()?;
    let statements = enrolment::Statements::new(facilities.unwrap_or_default());
    let Some(tpm) = config.hardware.as_ref().and_then(|hardware| hardware.tpm.as_ref()) else {
        return Ok((hardware::open(config, network, node, boot, KnownEk::FirstUse)?, statements));
    };
    let kept = enrolment::KeptEnrolment::load(&tpm.enrolment)?;
    let known_ek = kept.as_ref().map_or(KnownEk::FirstUse, enrolment::KeptEnrolment::known_ek);
    let device = hardware::open(config, network, node, boot, known_ek).map_err(|error| match error {
        AgentError::Hardware(source @ DeviceError::Tpm(TpmError::OtherEndorsementKey)) => {
            AgentError::OtherTpm { path: tpm.enrolment.clone(), source }
        }
        other => other,
    })?;
    Ok((device, statements.with_enrolment(tpm.enrolment.clone(), kept)))
}

/// For this crate's own integration tests: the channel's messages, so that a test can play the agent, and the supervisor
/// without a network, so that it can play the coordinator. No stable interface.
#[doc(hidden)]
pub mod testing {
    pub use crate::enrolment::{KeptEnrolment, Statements};
    pub use crate::protocol::{CompiledRecord, FromTask, MAX_OBJECTS_PER_MESSAGE, Phase, ToTask};
    pub use crate::supervisor::{Parts, Upstream, serve};
    pub use crate::task::ProcessLimits;

    use starminer_attester::JoinedAttester;
    use starminer_verify::{NetworkId, NodeId};

    use crate::{AgentConfig, AgentError};

    /// What [`crate::run`] opens before it talks to anybody.
    ///
    /// # Errors
    /// As there.
    pub fn devices(
        config: &AgentConfig,
        network: NetworkId,
        node: NodeId,
    ) -> Result<(JoinedAttester, Statements), AgentError> {
        crate::devices(config, network, node)
    }
}
