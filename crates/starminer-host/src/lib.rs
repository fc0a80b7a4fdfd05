//! Runs a node's image under QEMU, as an SEV-SNP guest, a TDX guest or a plain machine with a TPM.
//!
//! Nobody has to trust it: a machine that was composed otherwise, or a program in this one's place, shows in what the node measures. So it is small, and does nothing that could be
//! left out: [`command`] composes QEMU's arguments, purely; [`found`] looks at what this machine has and chooses; [`children`] starts programs and ends them.
//!
//! What it deliberately does not do: hold keys, judge images, or keep a machine going after this program has ended.

pub mod children;
pub mod command;
pub mod found;

pub use children::{HostError, Running};
pub use command::{Accelerator, Boot, Machine, Tee, Tpm, TpmDevice};
pub use found::{Choice, Found, Wanted, choose};
