//! Arguments of `appraise …`.

use std::path::PathBuf;

use clap::Subcommand;

/// Heading of the options that say by what is judged.
const JUDGING: &str = "Judging";

/// `appraise` commands.
#[derive(Debug, Subcommand)]
pub enum AppraiseCommand {
    /// A report of AMD SEV-SNP: signature, certificates, revocation, TCB.
    #[command(after_help = "\
Examples:
  starminer appraise snp --report report.bin --cert vcek.pem
  starminer appraise snp --report report.bin --cert vcek.der --crl milan.crl --policy policy.toml
  starminer appraise snp --report - --cert *.pem --at 2026-05-01T00:00:00Z --json < report.bin

VCEK (or VLEK) comes from AMD's key service for this chip and TCB; AMD's own authorities are built
in. Certificates are PEM or DER in any order, told apart by content.")]
    Snp(SnpArgs),
    /// A quote of Intel SGX or TDX, told apart by the quote.
    #[command(after_help = "\
Examples:
  starminer appraise dcap --quote quote.dat --endorsements collateral.json
  starminer appraise dcap --quote quote.dat --endorsements collateral.json --eventlog ccel.bin
  starminer appraise dcap --quote quote.dat --endorsements tcb.json identity.json \\
      --crl root.crl pck.crl --cert tcb-signer.pem pck-ca.pem

Endorsements are JSON as dcap-qvl writes it, or what Intel's service answers (tcbInfo,
enclaveIdentity) with lists and chains in files of their own. Every TCB status but Revoked verifies
and is told; a policy says which are accepted.")]
    Dcap(DcapArgs),
    /// The certificate of a TPM's endorsement key.
    #[command(after_help = "\
Examples:
  starminer appraise tpm-ek --cert ek.der
  starminer appraise tpm-ek --cert ek.pem --ca intermediate.pem
  starminer appraise tpm-ek --cert ek.der --ca swtpm-root.pem --json

Makers' roots are built in. A root that you name with --ca counts, and is SIMULATED.")]
    TpmEk(TpmEkArgs),
    /// A quote of a TPM, with the logs that explain it.
    #[command(after_help = "\
Examples:
  starminer appraise tpm --quote q.msg --signature q.sig --ak ak.pub --nonce 00112233
  starminer appraise tpm --quote q.msg --signature q.sig --ak ak.pub --nonce 00112233 \\
      --pcrs q.pcrs --eventlog binary_bios_measurements --ima ascii_runtime_measurements

As tpm2_quote writes them: -m is --quote, -s --signature, -o --pcrs. The key is its public area
(tpm2_createak -u): a bare key in PEM will do, but then nothing shows that a TPM holds it. A log
that the quote does not vouch for refuses.")]
    Tpm(TpmArgs),
    /// A UEFI event log: registers per bank, Secure Boot, what was started.
    #[command(after_help = "\
Examples:
  starminer appraise eventlog --log binary_bios_measurements
  starminer appraise eventlog --log binary_bios_measurements --pcrs pcrs.json --json

Without --pcrs the log is its own word. They are JSON, {\"sha256\": {\"0\": \"hex\", …}}, or what
tpm2_quote -o writes; `appraise tpm` takes them from a quote.")]
    Eventlog(EventlogArgs),
    /// An IMA measurement list: register 10, entries, violations.
    #[command(after_help = "\
Examples:
  starminer appraise ima --log ascii_runtime_measurements
  starminer appraise ima --log binary_runtime_measurements --pcrs pcrs.json --policy policy.toml")]
    Ima(EventlogArgs),
    /// Evidence of NVIDIA's confidential-computing GPUs.
    #[command(after_help = "\
Examples:
  starminer appraise nvidia --evidence gpu.json
  starminer appraise nvidia --evidence gpu.json --rim driver.xml vbios.xml --nonce 0011…eeff

Evidence is what NVIDIA's tools write. Measurements are compared with manifests (RIM) of the very
driver and VBIOS; without one that is not checked.")]
    Nvidia(NvidiaArgs),
}

/// By what and when it is judged.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = JUDGING)]
pub struct JudgingArgs {
    /// Judge as of this time: RFC 3339, or seconds since 1970 [default: now].
    #[arg(long, value_name = "TIME")]
    pub at: Option<String>,
    /// What is asked for (TOML); without it signatures, chains, dates and consistency decide.
    #[arg(long, value_name = "FILE")]
    pub policy: Option<PathBuf>,
}

/// Roots and revocation lists.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = JUDGING)]
pub struct AuthorityArgs {
    /// Your own authorities, PEM or DER. A root among them counts, and is SIMULATED. Repeatable.
    #[arg(long = "ca", value_name = "FILE", num_args = 1..)]
    pub roots: Vec<PathBuf>,
    /// Revocation lists, PEM or DER. Repeatable.
    #[arg(long = "crl", value_name = "FILE", num_args = 1..)]
    pub crls: Vec<PathBuf>,
}

/// Arguments of `appraise snp`.
#[derive(Debug, clap::Args)]
pub struct SnpArgs {
    /// The attestation report, 1184 bytes; - is standard input.
    #[arg(long, value_name = "FILE")]
    pub report: PathBuf,
    /// Certificates that come with it: VCEK or VLEK, and AMD's authorities if you have them. Repeatable.
    #[arg(long = "cert", value_name = "FILE", num_args = 1..)]
    pub certificates: Vec<PathBuf>,
    /// Roots and lists.
    #[command(flatten)]
    pub authorities: AuthorityArgs,
    /// Time and policy.
    #[command(flatten)]
    pub judging: JudgingArgs,
}

/// Arguments of `appraise dcap`.
#[derive(Debug, clap::Args)]
pub struct DcapArgs {
    /// The quote; - is standard input.
    #[arg(long, value_name = "FILE")]
    pub quote: PathBuf,
    /// What Intel publishes about the platform, in JSON. Repeatable.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub endorsements: Vec<PathBuf>,
    /// Certificates that the endorsements leave out: chains of PCK, TCB signer, PCK authority. Repeatable.
    #[arg(long = "cert", value_name = "FILE", num_args = 1..)]
    pub certificates: Vec<PathBuf>,
    /// The event log of a trust domain (CCEL), to be led to its registers.
    #[arg(long, value_name = "FILE")]
    pub eventlog: Option<PathBuf>,
    /// Roots and lists.
    #[command(flatten)]
    pub authorities: AuthorityArgs,
    /// Time and policy.
    #[command(flatten)]
    pub judging: JudgingArgs,
}

/// Arguments of `appraise tpm-ek`.
#[derive(Debug, clap::Args)]
pub struct TpmEkArgs {
    /// The certificate, PEM or DER; authorities may be beside it. - is standard input. Repeatable.
    #[arg(long = "cert", value_name = "FILE", required = true, num_args = 1..)]
    pub certificates: Vec<PathBuf>,
    /// Roots and lists.
    #[command(flatten)]
    pub authorities: AuthorityArgs,
    /// Time and policy.
    #[command(flatten)]
    pub judging: JudgingArgs,
}

/// Arguments of `appraise tpm`.
#[derive(Debug, clap::Args)]
pub struct TpmArgs {
    /// The attested structure; - is standard input.
    #[arg(long, value_name = "FILE")]
    pub quote: PathBuf,
    /// The signature over it.
    #[arg(long, value_name = "FILE")]
    pub signature: PathBuf,
    /// The attestation key: its public area, or the key alone in PEM or DER.
    #[arg(long, value_name = "FILE")]
    pub ak: PathBuf,
    /// The nonce that was asked with.
    #[arg(long, value_name = "HEX")]
    pub nonce: String,
    /// Values of the quoted registers: JSON, or what tpm2_quote -o writes.
    #[arg(long, value_name = "FILE")]
    pub pcrs: Option<PathBuf>,
    /// The UEFI event log.
    #[arg(long, value_name = "FILE")]
    pub eventlog: Option<PathBuf>,
    /// The IMA measurement list, binary or text.
    #[arg(long, value_name = "FILE")]
    pub ima: Option<PathBuf>,
    /// Time and policy.
    #[command(flatten)]
    pub judging: JudgingArgs,
}

/// Arguments of `appraise eventlog` and `appraise ima`.
#[derive(Debug, clap::Args)]
pub struct EventlogArgs {
    /// The log; - is standard input.
    #[arg(long, value_name = "FILE")]
    pub log: PathBuf,
    /// Register values that it has to lead to: JSON, or what tpm2_quote -o writes.
    #[arg(long, value_name = "FILE")]
    pub pcrs: Option<PathBuf>,
    /// Time and policy.
    #[command(flatten)]
    pub judging: JudgingArgs,
}

/// Arguments of `appraise nvidia`.
#[derive(Debug, clap::Args)]
pub struct NvidiaArgs {
    /// The evidence, JSON; - is standard input.
    #[arg(long, value_name = "FILE")]
    pub evidence: PathBuf,
    /// Signed manifests of driver and VBIOS (RIM). Repeatable.
    #[arg(long = "rim", value_name = "FILE", num_args = 1..)]
    pub rims: Vec<PathBuf>,
    /// The nonce that was asked with, 32 bytes.
    #[arg(long, value_name = "HEX")]
    pub nonce: Option<String>,
    /// Your own roots for manifests; --ca is for devices. Repeatable.
    #[arg(long = "rim-ca", value_name = "FILE", num_args = 1.., help_heading = JUDGING)]
    pub rim_roots: Vec<PathBuf>,
    /// Roots and lists.
    #[command(flatten)]
    pub authorities: AuthorityArgs,
    /// Time and policy.
    #[command(flatten)]
    pub judging: JudgingArgs,
}
