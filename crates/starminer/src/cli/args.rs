//! Arguments of every command. Help teaches by example.

mod appraise;
mod disk;
mod doctor;
mod endorsements;
mod host;
mod image;
mod reference;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

pub use appraise::{AppraiseCommand, AuthorityArgs, JudgingArgs};
pub use disk::DiskCommand;
pub use doctor::DoctorArgs;
pub use endorsements::{EndorsementsCommand, ExportArgs, FetchArgs, ImportArgs, ListArgs, TrustArgs};
pub use host::{AccelArg, HostCommand, HostRunArgs, HostTeeArg, PrefixedAddress};
pub use image::{ImageBuildArgs, ImageCommand, ImageMeasureArgs, TeeArg};
pub use reference::{
    DirectBootArgs, PageOrderArg, ProgramKind, ReferenceCommand, ReferenceCosignArgs, ReferenceFetchArgs,
    ReferenceMergeArgs, ReferenceOutArgs, ReferencePcrsArgs, ReferenceProgramArgs, ReferencePublishArgs,
    ReferenceShowArgs, ReferenceSignArgs, ReferenceSnpArgs, ReferenceTdxArgs, ReferenceVerifyArgs, RoleArg, VmmArg,
};

/// Heading of the options that every command has.
const OUTPUT: &str = "Output";

/// A filter that the diagnostics understand, or why not.
fn filter(text: &str) -> Result<String, String> {
    match tracing_subscriber::EnvFilter::try_new(text) {
        Ok(_) => Ok(text.into()),
        Err(error) => Err(error.to_string()),
    }
}

/// Confidential computing on hardware that nobody has to trust.
#[derive(Debug, Parser)]
#[command(
    name = "starminer",
    version,
    about,
    propagate_version = true,
    max_term_width = 110,
    after_help = "\
Examples:
  starminer demo                  watch three real jobs go through a network of five processes
  starminer run --wasm app.wasm -i data.csv -o out/ --accept-simulated 'demo software TEE'
  starminer verify out/*.receipt --network network.toml
  starminer appraise snp --report report.bin --cert vcek.pem

Exit codes:
  0  done; verify: every claim proven; appraise: verified
  1  refused or failed: a task failed, a claim is refuted, evidence is refused
  2  the call or a file is unusable
  3  verify: something is unanchored
  4  the other side does not answer, or is not who it should be
  5  this machine failed: disk, memory, permissions
  130  interrupted by Ctrl-C; 129, 143 by SIGHUP, SIGTERM"
)]
pub struct Args {
    /// Print one JSON document for scripts instead of text for people.
    #[arg(long, global = true, help_heading = OUTPUT)]
    pub json: bool,
    /// Print results only: no progress, no story.
    #[arg(long, short, global = true, help_heading = OUTPUT)]
    pub quiet: bool,
    /// Diagnostics on standard error: error, warn, info, debug, trace, or a filter such as `starminer_agent=debug`.
    #[arg(long, global = true, default_value = "warn", value_name = "FILTER", value_parser = filter, help_heading = OUTPUT)]
    pub diagnostics: String,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Every command.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create a network in a directory, run three real jobs through it, and prove the claims.
    Demo(DemoArgs),
    /// Seal a job, submit it, verify the node, release the key, wait, open the result, keep the receipt.
    Run(RunArgs),
    /// Submit a job and go offline: a broker, verified first, releases the key.
    #[command(after_help = "\
Examples:
  starminer submit --detach job.toml
  starminer submit --detach --onnx model.onnx -i patients.csv --id-column patient -o out/
  starminer result TASK           later: fetch, open and verify; TASK is what `submit` printed

The broker proves itself before anything is sealed to it. It releases the key to a node that meets
the policy; it cannot open the result, which is sealed to you.")]
    Submit(RunArgs),
    /// Where tasks stand.
    #[command(after_help = "\
Examples:
  starminer status                every open task of this home
  starminer status 3f2a           one of them; a unique beginning of its id is enough
  starminer status --json")]
    Status(StatusArgs),
    /// The standard output and error of a finished task.
    #[command(after_help = "\
Examples:
  starminer logs 3f2a             fetched, opened and verified with the result, as `result` does
  starminer logs 3f2a --json")]
    Logs(TaskArgs),
    /// Fetch and open the result of a task, and write its receipt; works after a crash of this program, too.
    Result(ResultArgs),
    /// End a task.
    #[command(after_help = "\
Examples:
  starminer cancel 3f2a           its node gives it up
  starminer result 3f2a           its receipt says who ended it")]
    Cancel(TaskArgs),
    /// Verify a receipt offline, by your own trust.
    Verify(VerifyArgs),
    /// Judge hardware evidence in files, offline: SEV-SNP, SGX, TDX, TPM, event logs, IMA, NVIDIA.
    #[command(
        subcommand,
        after_help = "\
Examples:
  starminer appraise snp --report report.bin --cert vcek.pem
  starminer appraise dcap --quote quote.dat --endorsements collateral.json --policy policy.toml
  starminer appraise eventlog --log binary_bios_measurements --json

Exit codes: 0 verified, 1 refused, 2 the call cannot be made. Without --policy signatures, chains,
dates and consistency decide, and what was not given is listed as not checked. With one, everything
that it asks for has to be shown; examples/policy/hardware.toml has every option."
    )]
    Appraise(AppraiseCommand),
    /// What hardware makers publish: fetched, listed, carried to where there is no network.
    #[command(
        subcommand,
        after_help = "\
Examples:
  starminer endorsements fetch store/ amd/crl/milan/vcek
  starminer endorsements list store/
  starminer endorsements export store/ bundle.json
  starminer endorsements import offline-store/ bundle.json"
    )]
    Endorsements(EndorsementsCommand),
    /// Reference values: what good machines measure; made, signed, published, verified.
    #[command(
        subcommand,
        after_help = "\
Examples:
  starminer reference snp --firmware OVMF.fd --vcpus 1,2,4 --cpu EPYC-v4 --out values.json
  starminer reference sign --key release1.key --network network.toml --role agent --version 5 \\
      --name 'agent 0.1' values.json --out agent.references
  starminer reference cosign --key release2.key agent.references
  starminer reference verify --network network.toml agent.references
  starminer reference publish agent.references

Values come from the files that are started, before any machine has started them. They count once
as many release keys signed as network.toml asks for, and the log has them. What is not set denies."
    )]
    Reference(ReferenceCommand),
    /// Run a node's image under QEMU: as an SEV-SNP guest, a TDX guest, or a machine with a TPM.
    #[command(
        subcommand,
        after_help = "\
Examples:
  starminer host run image --state node1 --vars my_VARS.fd --credentials told
  starminer host run image --state node1 --tee snp --credentials told --dry-run"
    )]
    Host(HostCommand),
    /// The measured image of a node: firmware, kernel and agent as one chain that a TPM records.
    #[command(
        subcommand,
        after_help = "\
Examples:
  starminer image build --out image --sign db.key --cert db.crt
  starminer image build --out image --kernel k/boot/vmlinuz-6.1.0-56-cloud-amd64 --json
  starminer image measure image --firmware OVMF_CODE_4M.fd --vars my_VARS.fd --out values.json"
    )]
    Image(ImageCommand),
    /// Seal and open files.
    #[command(
        subcommand,
        after_help = "\
Examples:
  starminer key new --secret vault.key
  starminer vault seal --key-file vault.key data.csv data.csv.sealed
  starminer vault open --key-file vault.key data.csv.sealed data.csv"
    )]
    Vault(VaultCommand),
    /// Identity keys, and secrets to seal files with.
    #[command(
        subcommand,
        after_help = "\
Examples:
  starminer key new me.key        an identity: what others know you by
  starminer key new --secret k    a secret to seal files with
  starminer key show me.key       the public half"
    )]
    Key(KeyCommand),
    /// The coordinator: tasks, leases, blobs and the public log.
    #[command(
        subcommand,
        after_help = "\
Examples:
  starminer coordinator init net/coordinator --name lab --software-tee
  starminer coordinator run net/coordinator"
    )]
    Coordinator(CoordinatorCommand),
    /// The broker: releases keys for requesters who are offline.
    #[command(
        subcommand,
        after_help = "\
Examples:
  starminer broker init net/broker --network net/coordinator/network.toml \\
      --software-tee-root net/coordinator/software-tee-root.key
  starminer broker run net/broker"
    )]
    Broker(BrokerCommand),
    /// A provider's node.
    #[command(
        subcommand,
        after_help = "\
Examples:
  starminer node init net/node1 --network net/coordinator/network.toml \\
      --software-tee-root net/coordinator/software-tee-root.key
  starminer node doctor           what this machine can prove, and what it lacks
  starminer node run net/node1"
    )]
    Node(NodeCommand),
}

/// Arguments of `demo`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  starminer demo                  in a temporary directory, removed at the end
  starminer demo --dir net --keep leave the network running and print what to try next")]
pub struct DemoArgs {
    /// Where to create the network; must be empty or absent. A temporary directory otherwise.
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Leave the network running.
    #[arg(long)]
    pub keep: bool,
}

/// How sensitive a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SensitivityArg {
    /// Nothing to hide.
    Public,
    /// Should not leak.
    Sensitive,
    /// Must not leak.
    Confidential,
}

/// What a node has to prove.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TierArg {
    /// Nothing.
    None,
    /// A TPM that was enrolled.
    Identified,
    /// Its boot, too.
    Measured,
    /// A CPU TEE.
    Confidential,
    /// A CPU TEE on a measured host.
    Hardened,
}

/// Where a requester keeps its things.
#[derive(Debug, Clone, clap::Args)]
pub struct HomeArgs {
    /// The requester's directory: identity.key, network.toml, journal [default: ~/.starminer].
    #[arg(long, value_name = "DIR", env = "STARMINER_HOME")]
    pub home: Option<PathBuf>,
    /// The network's trust file, if not the one in the home directory.
    #[arg(long, value_name = "FILE")]
    pub network: Option<PathBuf>,
}

/// Arguments of `run` and `submit`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  starminer run job.toml          everything from a file, as below
  starminer run --wasm app.wasm -i data.csv -o out/ --accept-simulated 'demo software TEE'
  starminer run --onnx model.onnx -i patients.csv --id-column patient -o out/ \\
      --accept-simulated 'demo software TEE'
  starminer run job.toml -i *.txt -- --top 20    options win over the file; what follows -- goes
                                                 to the program

A job file (paths are relative to it; every table can be left out):
  wasm = \"wordcount.wasm\"         # or: onnx = \"model.onnx\"
  inputs = [\"notes.txt\"]
  output = \"out\"
  args = [\"--top\", \"20\"]
  [limits]
  fuel = 2_000_000_000
  memory_mib = 256
  timeout_seconds = 60
  [policy]
  accept_simulated = [\"demo software TEE\"]

The policy is tier `confidential` on genuine hardware. A simulated TEE is refused unless you name
its root with --accept-simulated; a node whose operator may read memory is refused unless you say
--operator-may-read-memory.")]
pub struct RunArgs {
    /// A job file; options given beside it win over it.
    #[arg(value_name = "JOB.toml")]
    pub job: Option<PathBuf>,
    /// The wasm program: a component or a preview-1 module.
    #[arg(long, value_name = "FILE", conflicts_with = "onnx")]
    pub wasm: Option<PathBuf>,
    /// The ONNX model.
    #[arg(long, value_name = "FILE")]
    pub onnx: Option<PathBuf>,
    /// Input files, seen as /in/NAME; a directory gives each file in it, and may have no folders. Repeatable.
    #[arg(short, long = "input", value_name = "PATH", num_args = 1..)]
    pub inputs: Vec<PathBuf>,
    /// Where to write outputs and the receipt [default: out].
    #[arg(short, long = "output", value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// ONNX: the column that names a row; it is copied, not fed to the model.
    #[arg(long, value_name = "NAME")]
    pub id_column: Option<String>,
    /// Environment variable of the program, NAME=VALUE. Repeatable.
    #[arg(long, value_name = "NAME=VALUE")]
    pub env: Vec<String>,
    /// Fuel: about one unit a wasm instruction [default: 20000000000].
    #[arg(long, value_name = "UNITS")]
    pub fuel: Option<u64>,
    /// Memory of the guest in MiB [default: 512].
    #[arg(long, value_name = "MIB")]
    pub memory: Option<u64>,
    /// Longest run, in seconds [default: 600].
    #[arg(long, value_name = "SECONDS")]
    pub timeout: Option<u64>,
    /// Make results equal bit for bit on every machine.
    #[arg(long)]
    pub portable: bool,
    /// Give the program the host's clock.
    #[arg(long)]
    pub grant_clock: bool,
    /// Give the program the host's randomness.
    #[arg(long)]
    pub grant_random: bool,
    /// How much it would matter if the job leaked [default: confidential]; what matters more is served first.
    #[arg(long, value_enum)]
    pub sensitivity: Option<SensitivityArg>,
    /// Accept evidence of this simulated root, by its name in network.toml. Repeatable. Not for secrets.
    #[arg(long, value_name = "NAME")]
    pub accept_simulated: Vec<String>,
    /// Accept nodes whose operator can read the task's memory (tier `measured` and below).
    #[arg(long)]
    pub operator_may_read_memory: bool,
    /// The least that a node has to reach; `confidential` otherwise. Less than that only with --operator-may-read-memory, which alone asks
    /// for `measured`.
    #[arg(long, value_name = "TIER")]
    pub minimum_tier: Option<TierArg>,
    /// Leave the task with a broker and return. `submit` needs it: the task secret is handed to somebody else.
    #[arg(long)]
    pub detach: bool,
    /// Release through this broker (its signing key); the first that proves itself otherwise.
    #[arg(long, value_name = "KEY")]
    pub broker: Option<String>,
    /// Home and network.
    #[command(flatten)]
    pub home: HomeArgs,
    /// Arguments of the program.
    #[arg(last = true, value_name = "ARGS")]
    pub args: Vec<String>,
}

/// Names a task, or all that are open.
#[derive(Debug, clap::Args)]
pub struct StatusArgs {
    /// The task, or a unique beginning of it.
    #[arg(value_name = "TASK")]
    pub task: Option<String>,
    /// Home and network.
    #[command(flatten)]
    pub home: HomeArgs,
}

/// Names a task.
#[derive(Debug, clap::Args)]
pub struct TaskArgs {
    /// The task, or a unique beginning of it.
    #[arg(value_name = "TASK")]
    pub task: String,
    /// Home and network.
    #[command(flatten)]
    pub home: HomeArgs,
}

/// Arguments of `result`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  starminer result 3f2a           into the directory that `run` or `submit` was told
  starminer result 3f2a -o out/")]
pub struct ResultArgs {
    /// The task, or a unique beginning of it.
    #[arg(value_name = "TASK")]
    pub task: String,
    /// Where to write outputs and the receipt; otherwise where `run` was told to.
    #[arg(short, long = "output", value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Home and network.
    #[command(flatten)]
    pub home: HomeArgs,
}

/// Arguments of `verify`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  starminer verify out/3f2a.receipt --network network.toml
  starminer verify a.receipt b.receipt --network network.toml --json
  starminer verify a.receipt --network network.toml --references agent.references
  starminer verify a.receipt --network network.toml --token a.jwt --key me.key
  starminer verify a.receipt      without trust of your own: links are checked, roots unanchored

With --quiet the exit code alone tells.

Exit codes: 0 every claim proven, 1 one refuted, 2 a file is unusable, 3 something is unanchored.
A SIMULATED receipt is proven only where your network.toml names its root.")]
pub struct VerifyArgs {
    /// Receipt files; - is standard input.
    #[arg(required = true, value_name = "FILE")]
    pub receipts: Vec<PathBuf>,
    /// Your own trust: log and witness keys, reference values, simulated roots you accept. A receipt never brings its own.
    #[arg(long, value_name = "FILE")]
    pub network: Option<PathBuf>,
    /// Published reference values (`reference fetch`), which count where they did when the node was judged.
    #[arg(long, value_name = "FILE", requires = "network")]
    pub references: Option<PathBuf>,
    /// Writes the attestation result of a proven receipt as a JWT (an EAR), signed by you: what other RATS tools read.
    #[arg(long, value_name = "FILE", requires = "key")]
    pub token: Option<PathBuf>,
    /// The identity key that signs it; `key show --jwks` prints the key set that verifies it.
    #[arg(long, value_name = "FILE", requires = "token")]
    pub key: Option<PathBuf>,
}

/// `vault` commands.
#[derive(Debug, Subcommand)]
pub enum VaultCommand {
    /// Seal a file: AES-256-GCM in authenticated chunks.
    #[command(after_help = "\
Examples:
  starminer key new --secret vault.key
  starminer vault seal --key-file vault.key data.csv data.csv.sealed
  tar c dir | starminer vault seal --key-file vault.key - - | ssh backup 'cat > dir.tar.sealed'")]
    Seal(VaultArgs),
    /// Open a sealed file; nothing of a damaged chunk is given out.
    #[command(after_help = "\
Examples:
  starminer vault open --key-file vault.key data.csv.sealed data.csv
  ssh backup 'cat dir.tar.sealed' | starminer vault open --key-file vault.key - - | tar x

A file appears at OUT only when all of it is good. To standard output each chunk goes once it is
verified: if the exit code is not 0, what came out is a beginning only.")]
    Open(VaultArgs),
}

/// Arguments of `vault seal` and `vault open`.
#[derive(Debug, clap::Args)]
pub struct VaultArgs {
    /// File with the secret (`starminer key new --secret`).
    #[arg(long, value_name = "FILE")]
    pub key_file: PathBuf,
    /// Name bound to the content; must be the same when opening.
    #[arg(long, default_value = "", value_name = "NAME")]
    pub name: String,
    /// Also print the content id (BLAKE3 of the sealed bytes).
    #[arg(long)]
    pub content_id: bool,
    /// Overwrite OUT.
    #[arg(long, short)]
    pub force: bool,
    /// Input file; - is standard input.
    #[arg(value_name = "IN")]
    pub input: PathBuf,
    /// Output file; - is standard output.
    #[arg(value_name = "OUT")]
    pub output: PathBuf,
}

impl VaultArgs {
    /// Whether standard output is the output, so that nothing else may be written to it.
    pub fn writes_stdout(&self) -> bool {
        self.output.as_os_str() == "-"
    }
}

/// `key` commands.
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Make a key in a file of its own, readable by you alone.
    New(KeyNewArgs),
    /// Show the public half.
    Show(KeyShowArgs),
}

/// Arguments of `key new`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  starminer key new me.key
  starminer key new --secret vault.key

The file is never overwritten, and its content never printed.")]
pub struct KeyNewArgs {
    /// A symmetric secret for `vault` instead of an identity.
    #[arg(long)]
    pub secret: bool,
    /// Where to write it; must not exist.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
}

/// Arguments of `key show`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  starminer key show me.key
  starminer key show me.key --json")]
pub struct KeyShowArgs {
    /// The key file.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// As a JWK set (RFC 7517), for whoever verifies tokens that the key signed (`verify --token`).
    #[arg(long)]
    pub jwks: bool,
}

/// `coordinator` commands.
#[derive(Debug, Subcommand)]
pub enum CoordinatorCommand {
    /// Create a network: keys, log, trust file.
    Init(CoordinatorInitArgs),
    /// Run the coordinator of a network, until it is asked to stop (SIGTERM or Ctrl-C).
    #[command(after_help = "\
Examples:
  starminer coordinator run net/coordinator
  starminer coordinator run net/coordinator --diagnostics info")]
    Run(ServiceRunArgs),
}

/// Arguments of `coordinator init`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  starminer coordinator init net/coordinator --name lab --listen 127.0.0.1:7443 --software-tee
  starminer coordinator init net/coordinator --listen 0.0.0.0:7443 --address lab.example.org:7443
  starminer coordinator run net/coordinator")]
pub struct CoordinatorInitArgs {
    /// Directory of the coordinator; must be empty or absent.
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// Name of the network, for people.
    #[arg(long, default_value = "starminer", value_name = "NAME")]
    pub name: String,
    /// Address to listen on.
    #[arg(long, default_value = "127.0.0.1:7443", value_name = "ADDRESS:PORT")]
    pub listen: SocketAddr,
    /// Where others find it, for the trust file; the address of --listen otherwise.
    #[arg(long, value_name = "HOST:PORT")]
    pub address: Option<String>,
    /// Make a root for simulated TEEs, too. What it certifies is SIMULATED for ever.
    #[arg(long)]
    pub software_tee: bool,
    /// Root certificate of emulated TPMs (PEM or DER), swtpm's authority say; can be given again. What it certifies is SIMULATED for ever.
    #[arg(long, value_name = "FILE")]
    pub tpm_root: Vec<PathBuf>,
    /// Program whose measurement is a reference value; this very program otherwise.
    #[arg(long, value_name = "FILE")]
    pub agent: Option<PathBuf>,
}

/// Arguments of `… run`.
#[derive(Debug, clap::Args)]
pub struct ServiceRunArgs {
    /// Directory that `init` made.
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// Stop when standard input ends, too: when whoever started it is gone.
    #[arg(long)]
    pub until_stdin_ends: bool,
}

/// `broker` commands.
#[derive(Debug, Subcommand)]
pub enum BrokerCommand {
    /// Prepare a broker on a TEE.
    #[command(after_help = "\
Examples:
  starminer broker init net/broker --network net/coordinator/network.toml \\
      --software-tee-root net/coordinator/software-tee-root.key
  starminer broker run net/broker")]
    Init(EnclaveInitArgs),
    /// Run it, until it is asked to stop (SIGTERM or Ctrl-C).
    #[command(after_help = "\
Examples:
  starminer broker run net/broker
  starminer broker run net/broker --diagnostics info")]
    Run(ServiceRunArgs),
}

/// `node` commands.
#[derive(Debug, Subcommand)]
pub enum NodeCommand {
    /// Prepare a node on a TEE.
    #[command(after_help = "\
Examples:
  starminer node init net/node1 --network net/coordinator/network.toml \\
      --software-tee-root net/coordinator/software-tee-root.key
  starminer node init net/node2 --network network.toml --tpm /dev/tpmrm0
  starminer node run net/node1")]
    Init(NodeInitArgs),
    /// What this machine can prove: the tier it reaches, each check it lacks and how to mend it, and until when.
    Doctor(DoctorArgs),
    /// Run it, until it is asked to stop (SIGTERM or Ctrl-C).
    Run(NodeRunArgs),
    /// The encrypted disk of a node whose image was measured.
    #[command(
        subcommand,
        after_help = "\
Examples:
  starminer node disk status /dev/disk/by-partlabel/starminer-data"
    )]
    Disk(DiskCommand),
}

/// Arguments of `node run`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  starminer node run net/node1
  starminer node run net/node1 --places 4")]
pub struct NodeRunArgs {
    /// Directory that `init` made.
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// How many tasks at a time; as many as agent.toml says otherwise.
    #[arg(long, value_name = "N")]
    pub places: Option<u32>,
    /// Stop when standard input ends, too: when whoever started it is gone.
    #[arg(long)]
    pub until_stdin_ends: bool,
}

/// Arguments of `node init`.
#[derive(Debug, clap::Args)]
pub struct NodeInitArgs {
    /// What it has in common with a broker.
    #[command(flatten)]
    pub enclave: EnclaveInitArgs,
    /// The machine's TPM: a device, or swtpm's socket as unix:PATH or tcp:ADDRESS:PORT.
    #[arg(long, value_name = "ADDRESS")]
    pub tpm: Option<String>,
    /// Certificates between the TPM's own and its root, where the TPM does not hold them (PEM or DER); can be given again.
    #[arg(long, value_name = "FILE", requires = "tpm")]
    pub tpm_certificate: Vec<PathBuf>,
}

/// Arguments of `node init` and `broker init`.
#[derive(Debug, clap::Args)]
pub struct EnclaveInitArgs {
    /// Directory; must be empty or absent.
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// The network's trust file.
    #[arg(long, value_name = "FILE")]
    pub network: PathBuf,
    /// Root key that certifies a simulated TEE for this machine. Its evidence is SIMULATED.
    #[arg(long, value_name = "FILE")]
    pub software_tee_root: Option<PathBuf>,
}
