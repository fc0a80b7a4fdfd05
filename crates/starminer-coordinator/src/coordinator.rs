//! Opening a coordinator's state and serving it.

use std::fs::{File, TryLockError};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::time::Duration;

use starminer_log::LogSigner;
use starminer_receipt::{EntryKind, NetworkTrust, Role, SeenReferences};
use starminer_store::{Blobs, Database, Disk, Journal, LocalDisk, OpenError};
use starminer_tls::{
    Acceptor, AllowedPeers, HandshakeError, IdentityKey, IssueError, RotatingCertificate, Rotation, Side,
};
use starminer_verify::{Digest, NodeId, TaskId, UnixTime};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

use crate::board::Board;
use crate::brokers::Brokers;
use crate::clock::{Clock, NoRandomness, Randomness, SystemClock, SystemRandomness};
use crate::config::Config;
use crate::known_blobs::KnownBlobs;
use crate::ledger::{Ledger, LedgerError};
use crate::limits::{Buckets, Quotas};
use crate::log_reader::{Head, LogReader};
use crate::nodes::{Admission, AdmissionSetupError, Endorsing, EndorsingError};
use crate::pins::Pins;
use crate::presence::Presence;
use crate::published::Published;
use crate::routes::router;
use crate::server::{ServeError, Serving, serve};
use crate::shared::{IdentitySigner, Shared, load_task};
use crate::sweeper;
use crate::tasks::{Command, Event, EventBody, Standing, Tasks, kind_number};
use crate::writer::{Fatal, Writer, WriterHandle};

/// How long the last that use the database may take to let go of it when the coordinator stops.
const DATABASE_PATIENCE: Duration = Duration::from_secs(5);
/// Name of the database file.
const DATABASE_FILE: &str = "coordinator.db";
/// Name of the directory of blobs.
const BLOB_DIRECTORY: &str = "blobs";
/// Name of the directory of endorsements.
const ENDORSEMENT_DIRECTORY: &str = "endorsements";
/// Name of the file that is locked for as long as a process has the directory.
const LOCK_FILE: &str = "lock";
/// For people who find the marker. That it is there is all that counts.
const MARKER_TEXT: &str = "The log of this network was begun. While this file is here, a coordinator without the log's database does not start:\n\
    it would sign another history under the same key.\n";

/// Why a coordinator cannot be opened. All of it is for its operator.
#[derive(Debug, thiserror::Error)]
pub enum CoordinatorError {
    /// The directory cannot be made or used.
    #[error("directory {path} cannot be used")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Another process has the directory.
    #[error("{path} is in use by another coordinator")]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// The log was begun, and the database does not have it.
    #[error("{marker} says that the log was begun, and {database} has nothing of it: to start would fork the log")]
    Lost {
        /// What says that it was begun.
        marker: PathBuf,
        /// Where it should be.
        database: PathBuf,
    },
    /// The database cannot be opened.
    #[error("state cannot be opened")]
    Database(#[from] OpenError),
    /// The database cannot be read.
    #[error("state cannot be read")]
    Read(#[from] starminer_store::ReadError),
    /// The log does not continue.
    #[error("the log cannot be continued")]
    Ledger(#[from] LedgerError),
    /// A task's events do not give a task.
    #[error("task {task} cannot be read back: the database is damaged")]
    Task {
        /// The task.
        task: TaskId,
    },
    /// A node's record is damaged.
    #[error("node {node} cannot be read back: the database is damaged")]
    Node {
        /// The node.
        node: NodeId,
    },
    /// Published reference values are damaged.
    #[error("published reference values cannot be read back: the database is damaged")]
    Published(#[source] crate::tasks::ReplayError),
    /// The trust file cannot be used.
    #[error("the network's trust file cannot be used")]
    Trust(#[from] AdmissionSetupError),
    /// The endorsements cannot be kept.
    #[error("the endorsements cannot be kept")]
    Endorsements(#[from] EndorsingError),
    /// The trust cannot be written, so its digest is not known.
    #[error("the network's trust cannot be written as a file")]
    TrustForm,
    /// No randomness.
    #[error(transparent)]
    Randomness(#[from] NoRandomness),
    /// No certificate could be issued.
    #[error("no TLS certificate can be issued")]
    Certificate(#[from] IssueError),
    /// TLS cannot be configured.
    #[error("TLS cannot be configured")]
    Tls(#[from] HandshakeError),
    /// The first entry could not be written.
    #[error("the log could not be begun: {0}")]
    Genesis(String),
}

impl CoordinatorError {
    /// A stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Directory { .. } => "storage.directory",
            Self::InUse { .. } => "coordinator.in-use",
            Self::Lost { .. } => "storage.lost",
            Self::Database(error) => error.code(),
            Self::Read(error) | Self::Ledger(LedgerError::Read(error)) => error.code(),
            Self::Ledger(_) | Self::Task { .. } | Self::Node { .. } | Self::Published(_) => "storage.damaged",
            Self::Trust(_) | Self::TrustForm => "network.unusable",
            Self::Endorsements(_) => "endorsements.unusable",
            Self::Randomness(_) | Self::Certificate(_) | Self::Tls(_) | Self::Genesis(_) => "coordinator.failed",
        }
    }

    /// What its operator can do.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Directory { .. } | Self::Endorsements(_) => "check free space and permissions",
            Self::InUse { .. } => "stop the one that runs there, or leave it to it",
            Self::Lost { .. } => {
                "restore the whole data directory from where it went; where it is gone, make a new network with `coordinator init`"
            }
            Self::Database(_)
            | Self::Read(_)
            | Self::Ledger(_)
            | Self::Task { .. }
            | Self::Node { .. }
            | Self::Published(_) => {
                "check permissions and the disk; if the database is damaged, restore the whole data directory as it was last: one that is \
                 older than what others have seen of the log forks it, and they will refuse it"
            }
            Self::Trust(_) | Self::TrustForm => "restore the network.toml that `coordinator init` wrote",
            Self::Randomness(_) | Self::Certificate(_) | Self::Tls(_) => "mend what it names and start again",
            Self::Genesis(_) => "check free space and the disk, and start again",
        }
    }
}

/// What a coordinator is made of.
pub struct Options {
    /// Settings.
    pub config: Config,
    /// Where its state lies; created where absent.
    pub directory: PathBuf,
    /// File that says that the log was begun. It lies outside `directory`, so that what takes the database away leaves it.
    pub marker: PathBuf,
    /// The network's own trust: its id, simulated roots and reference values. Decides admission alone.
    pub trust: NetworkTrust,
    /// The coordinator's identity: TLS, leases and its own reports.
    pub identity: Arc<IdentityKey>,
    /// The log's key.
    pub log: LogSigner,
    /// How often TLS certificates are replaced.
    pub rotation: Rotation,
    /// What it depends on beside its settings.
    pub environment: Environment,
}

/// Wraps the journal; see [`Environment::journal`].
pub type WrapJournal = Box<dyn FnOnce(Arc<Database>) -> Arc<dyn Journal> + Send>;

/// Time, randomness and storage, replaceable by tests.
pub struct Environment {
    /// Time of tasks and log.
    pub clock: Arc<dyn Clock>,
    /// Time of certificates.
    pub tls_clock: Arc<dyn starminer_tls::Clock>,
    /// Random bytes.
    pub randomness: Arc<dyn Randomness>,
    /// Writes of blobs.
    pub disk: Arc<dyn Disk>,
    /// What commits go through.
    pub journal: WrapJournal,
}

impl Default for Environment {
    fn default() -> Self {
        Self {
            clock: Arc::new(SystemClock::default()),
            tls_clock: Arc::new(starminer_tls::SystemClock),
            randomness: Arc::new(SystemRandomness::default()),
            disk: Arc::new(LocalDisk),
            journal: Box::new(|database| database),
        }
    }
}

impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Environment").field("clock", &self.clock).finish_non_exhaustive()
    }
}

/// A coordinator whose state is open and whose writer runs.
pub struct Coordinator {
    shared: Arc<Shared>,
    writer: tokio::task::JoinHandle<Result<(), Fatal>>,
    acceptor: Arc<Acceptor>,
    certificate: Arc<RotatingCertificate>,
    tls_clock: Arc<dyn starminer_tls::Clock>,
    stop: watch::Sender<bool>,
    /// Held until the process ends or the state is closed.
    lock: Option<File>,
}

impl std::fmt::Debug for Coordinator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Coordinator({})", self.shared.network)
    }
}

impl Coordinator {
    /// Opens or creates the state under `directory`, for this process alone, and takes up every task that has not ended. `marker` is
    /// [`Options::marker`]; `trust` is the network's own file and decides which nodes are admitted. Call within a tokio runtime.
    ///
    /// # Errors
    /// [`CoordinatorError`].
    pub async fn open(
        directory: &Path,
        marker: &Path,
        config: Config,
        trust: NetworkTrust,
        identity: IdentityKey,
        log: LogSigner,
    ) -> Result<Self, CoordinatorError> {
        let options = Options {
            config,
            directory: directory.into(),
            marker: marker.into(),
            trust,
            identity: Arc::new(identity),
            log,
            rotation: Rotation::default(),
            environment: Environment::default(),
        };
        // Before anything is made: whoever brings the directory back finds the place as it was.
        refuse_lost(directory, marker)?;
        let lock = take(directory)?;
        Ok(Self { lock: Some(lock), ..Self::open_with(options).await? })
    }

    /// As [`Self::open`], with another clock, randomness or storage. Other processes, and others in this one, are not kept out: that two
    /// write to one database is noticed when they do.
    ///
    /// # Errors
    /// [`CoordinatorError`].
    pub async fn open_with(options: Options) -> Result<Self, CoordinatorError> {
        let Options { config, directory, marker, trust, identity, log, rotation, environment } = options;
        let trust_digest = Digest::of(trust.encode().map_err(|_| CoordinatorError::TrustForm)?.as_bytes());
        let Environment { clock, tls_clock, randomness, disk, journal } = environment;
        let now = clock.now();
        let network = trust.network;
        refuse_lost(&directory, &marker)?;
        create_directory(&directory)?;
        let database = Arc::new(Database::open(&directory.join(DATABASE_FILE)).await?);
        let blob_directory = directory.join(BLOB_DIRECTORY);
        let blobs = Blobs::open(&blob_directory, config.partial_limits(), disk)
            .map_err(|source| CoordinatorError::Directory { path: blob_directory, source })?;
        let endorsing = Endorsing::open(&config.endorsements, &directory.join(ENDORSEMENT_DIRECTORY), now.wall)?;
        let (ledger, note) = Ledger::open(&database, log).await?;
        let is_new = ledger.size() == 0;
        if is_new && is_there(&marker)? {
            // Closed in order, so that no write-ahead log of it is left for the database that is restored.
            if let Some(database) = Arc::into_inner(database) {
                database.close().await;
            }
            return Err(CoordinatorError::Lost { marker, database: directory.join(DATABASE_FILE) });
        }
        let signer = Arc::new(IdentitySigner(identity.clone()));
        let last_at = UnixTime(database.last_event_at().await?.unwrap_or(0));
        let mut tasks = Tasks::new(network, signer, config.task_waits(), ledger.size(), last_at);
        let published = Arc::new(Published::new(trust.clone()));
        restore(&database, &mut tasks, &config, now).await?;
        restore_published(&database, &mut tasks, &published, ledger.size()).await?;
        let log = Arc::new(LogReader::new(
            database.clone(),
            Head { size: ledger.size(), note: note.into() },
            ledger.open_hashes(),
        ));
        let board = Arc::new(Board::default());
        let known: Vec<_> = tasks.known().cloned().collect();
        let nodes: Vec<_> = tasks.nodes().map(|(node, standing)| (*node, standing.clone())).collect();
        board.publish(&known, &nodes, ledger.size());
        let pins = Arc::new(Pins::default());
        let presence = Arc::new(Presence::new(config.waits.node_silence_ms, now));
        let quotas = Quotas::new(config.identity.blob_bytes, database.bytes_by_owner().await?);
        let epoch_bytes = randomness.draw()?;
        let writer = Writer {
            tasks,
            ledger,
            journal: journal(database.clone()),
            board: board.clone(),
            log: log.clone(),
            published: published.clone(),
            pins: pins.clone(),
            presence: presence.clone(),
            clock: clock.clone(),
            network,
        };
        let (handle, writer) = writer.start();
        if is_new {
            begin(&handle, trust_digest).await?;
        }
        // The first entry is durable, and nobody hears of it before this is, too: connections are taken by `serve` alone.
        mark(&marker)?;
        if let Some(rules) = config.hardware.as_ref().map(starminer_verify::HardwarePolicy::digest) {
            let logged = handle.execute(Command::Rules { policy: rules }).await;
            logged.map_err(|refused| CoordinatorError::Genesis(refused.refusal.to_string()))?;
        }
        let counters: Vec<_> = nodes.iter().map(|(node, standing)| (*node, standing.tpm.clone())).collect();
        let admission = Admission::new(
            trust,
            config.hardware.clone(),
            config.required_posture.clone(),
            config.waits.attestation_ms,
            IdentitySigner(identity.clone()),
            endorsing,
        )?;
        for (node, counters) in counters {
            admission.restore(node, counters);
        }
        let (stop, stopping) = watch::channel(false);
        let certificate =
            Arc::new(RotatingCertificate::new(identity, Side::Server, rotation, tls_clock.unix_seconds())?);
        let acceptor = Arc::new(Acceptor::new(certificate.clone(), AllowedPeers::Any, tls_clock.clone())?);
        let shared = Arc::new(Shared {
            network,
            clock: clock.clone(),
            randomness,
            database,
            blobs: Arc::new(blobs),
            board,
            log,
            pins,
            known_blobs: KnownBlobs::default(),
            presence,
            broker_presence: Arc::new(Presence::new(config.waits.node_silence_ms, now)),
            brokers: Arc::new(Brokers::default()),
            started_ms: now.mono_ms,
            admission,
            published,
            requests: Buckets::new(config.identity.requests_per_second.into(), config.identity.request_burst.into()),
            blob_bytes: Buckets::new(config.identity.blob_bytes_per_second, config.identity.blob_bytes_per_second),
            quotas,
            transfers: Semaphore::new(config.total.blob_transfers),
            writer: handle,
            polls: AtomicU64::new(1),
            body_bytes: AtomicUsize::new(0),
            epoch: u64::from_be_bytes(first_eight(&epoch_bytes)) & !0xffff_ffff,
            stopping,
            config,
        });
        Ok(Self { shared, writer, acceptor, certificate, tls_clock, stop, lock: None })
    }

    /// The writer, for those who measure it without the network around it.
    #[must_use]
    pub fn writer(&self) -> WriterHandle {
        self.shared.writer.clone()
    }

    /// Serves connections of `listener` until `shutdown` resolves; then lets everything under way end, and closes the state.
    ///
    /// # Errors
    /// [`ServeError`] where the writer cannot go on.
    pub async fn serve(self, listener: TcpListener, shutdown: impl Future<Output = ()>) -> Result<(), ServeError> {
        let Self { shared, mut writer, acceptor, certificate, tls_clock, stop, lock: _lock } = self;
        let _rotation = certificate.spawn_rotation(tls_clock);
        let sweeper = tokio::spawn(sweeper::run(shared.clone(), stop.subscribe()));
        let serving =
            Serving { shared: shared.clone(), router: router(shared.clone()), acceptor, stopping: stop.subscribe() };
        let server = tokio::spawn(serve(serving, listener));
        let prefetching = shared.admission.prefetcher().map(|prefetcher| tokio::spawn(prefetcher.run()));
        let drain = Duration::from_millis(shared.config.waits.drain_ms);
        let ended = tokio::select! {
            () = shutdown => None,
            ended = &mut writer => Some(ended),
        };
        stop.send_replace(true);
        if tokio::time::timeout(drain + Duration::from_secs(1), server).await.is_err() {
            tracing::warn!("the server did not stop in time");
        }
        let _ = sweeper.await;
        if let Some(prefetching) = prefetching {
            prefetching.abort();
        }
        // The last handles: the writer does what waits, and ends.
        let database = shared.database.clone();
        drop(shared);
        let ended = match ended {
            Some(ended) => ended,
            None => writer.await,
        };
        // Answers that were given up let go of it a moment later. A file that closes by itself, any time later, would take the write-ahead log of
        // whatever lies in its place by then.
        let until = tokio::time::Instant::now() + DATABASE_PATIENCE;
        while Arc::strong_count(&database) > 1 && tokio::time::Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        match Arc::into_inner(database) {
            Some(database) => database.close().await,
            None => tracing::warn!("the database is still in use, and closes when the program ends"),
        }
        match ended {
            Ok(ended) => Ok(ended?),
            Err(panicked) => Err(Fatal::Panicked(panicked.to_string()).into()),
        }
    }
}

fn create_directory(directory: &Path) -> Result<(), CoordinatorError> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory);
    made.map_err(|source| CoordinatorError::Directory { path: directory.into(), source })
}

/// Takes the directory for this process.
fn take(directory: &Path) -> Result<File, CoordinatorError> {
    create_directory(directory)?;
    let path = directory.join(LOCK_FILE);
    let unusable = |source| CoordinatorError::Directory { path: path.clone(), source };
    let mut options = File::options();
    let lock = options.create(true).truncate(false).write(true).mode(0o600).open(&path).map_err(unusable)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(CoordinatorError::InUse { path: directory.into() }),
        Err(TryLockError::Error(source)) => Err(unusable(source)),
    }
}

fn is_there(path: &Path) -> Result<bool, CoordinatorError> {
    path.try_exists().map_err(|source| CoordinatorError::Directory { path: path.into(), source })
}

/// Refuses a directory whose database is missing or has no bytes although the log was begun.
fn refuse_lost(directory: &Path, marker: &Path) -> Result<(), CoordinatorError> {
    let database = directory.join(DATABASE_FILE);
    // A database in which anything was ever committed has its first page: the change to the write-ahead log is written to the file.
    let has_bytes = is_there(&database)? && std::fs::metadata(&database).is_ok_and(|found| found.len() > 0);
    if !has_bytes && is_there(marker)? {
        return Err(CoordinatorError::Lost { marker: marker.into(), database });
    }
    Ok(())
}

/// Writes, durably, that the log was begun.
fn mark(marker: &Path) -> Result<(), CoordinatorError> {
    let unusable = |source| CoordinatorError::Directory { path: marker.into(), source };
    let mut file = match File::options().write(true).create_new(true).mode(0o600).open(marker) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => return Ok(()),
        Err(error) => return Err(unusable(error)),
    };
    file.write_all(MARKER_TEXT.as_bytes()).and_then(|()| file.sync_all()).map_err(unusable)?;
    let parent = marker.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent).and_then(|parent| parent.sync_all()).map_err(unusable)
}

fn first_eight(bytes: &[u8; 32]) -> [u8; 8] {
    let mut first = [0; 8];
    first.copy_from_slice(&bytes[..8]);
    first
}

/// Takes up open tasks, and what is known of nodes.
async fn restore(
    database: &Database,
    tasks: &mut Tasks,
    config: &Config,
    now: crate::clock::Now,
) -> Result<(), CoordinatorError> {
    for id in database.open_tasks().await? {
        let id = TaskId(id);
        let task = load_task(database, &id, now).await.ok().flatten().ok_or(CoordinatorError::Task { task: id })?;
        tasks.restore_task(task);
    }
    for row in database.nodes(config.total.nodes).await? {
        let node = NodeId(starminer_verify::PublicKey(row.node));
        let mut standing: Standing =
            serde_json::from_slice(&row.standing).map_err(|_| CoordinatorError::Node { node })?;
        // What ended while the coordinator was away ended with the leases of that time: no news for the log.
        match standing.valid_until.0.checked_sub(now.wall.0).filter(|left| *left > 0) {
            Some(left_ms) => {
                standing.valid_until_ms = now.mono_ms.saturating_add(left_ms.min(config.waits.attestation_ms))
            }
            None => standing.valid_until = UnixTime(0),
        }
        tasks.restore_node(node, standing);
    }
    tasks.commit();
    Ok(())
}

/// Takes up the newest reference values of each role.
async fn restore_published(
    database: &Database,
    tasks: &mut Tasks,
    published: &Published,
    size: u64,
) -> Result<(), CoordinatorError> {
    let (kind, mut below, mut missing) = (kind_number(EntryKind::Published), size, Role::ALL.to_vec());
    while let Some(row) = database.newest_event(kind, below).await? {
        below = row.index;
        let event = Event::from_row(&row).map_err(CoordinatorError::Published)?;
        let EventBody::Published { role, file } = event.body else { continue };
        if !missing.contains(&role) {
            continue;
        }
        missing.retain(|other| *other != role);
        // Its signatures counted when it was taken. Whether they do by today's release keys is asked when it is used; that later versions
        // follow it is so in any case.
        let damaged = |_| CoordinatorError::Published(crate::tasks::ReplayError::Damaged { index: row.index });
        let version = file.unverified().map_err(damaged)?.version;
        tasks.restore_published(role, SeenReferences { version, digest: file.digest() });
        published.keep(role, file, row.index);
        if missing.is_empty() {
            break;
        }
    }
    Ok(())
}

async fn begin(writer: &WriterHandle, trust: Digest) -> Result<(), CoordinatorError> {
    let genesis = writer.execute(Command::Genesis { trust }).await;
    genesis.map(|_| ()).map_err(|refused| CoordinatorError::Genesis(refused.refusal.to_string()))
}
