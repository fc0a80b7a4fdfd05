//! What this machine has to run a node with, and what follows from it.
//!
//! Sources: Linux `arch/x86/kvm/svm/sev.c` (`sev_snp`), `arch/x86/kvm/vmx/tdx.c` (`tdx`): parameters of the modules that say whether such guests can be started.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::Path;

use crate::command::Accelerator;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// The best that there is.
    Auto,
    /// AMD SEV-SNP.
    Snp,
    /// Intel TDX.
    Tdx,
    /// No TEE.
    None,
}

/// Which kind of machine is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// AMD SEV-SNP.
    Snp,
    /// Intel TDX.
    Tdx,
    /// No TEE.
    None,
}

/// What was found: each there and usable, or why not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// KVM.
    pub kvm: Result<(), String>,
    /// SEV-SNP guests.
    pub snp: Result<(), String>,
    /// TDX guests.
    pub tdx: Result<(), String>,
}

/// What is run, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// The kind.
    pub kind: Kind,
    /// What runs it.
    pub accelerator: Accelerator,
    /// Why, for people.
    pub why: String,
}

impl Found {
    /// Looks; `root` is where `dev` and `sys` are.
    #[must_use]
    pub fn look(root: &Path) -> Self {
        let device = |name: &str| {
            let place = root.join("dev").join(name);
            let opened = OpenOptions::new().read(true).write(true).open(&place);
            opened.map(drop).map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => format!("there is no /dev/{name}"),
                io::ErrorKind::PermissionDenied => format!("/dev/{name} is not for this user"),
                _ => format!("/dev/{name}: {error}"),
            })
        };
        let parameter = |module: &str, name: &str| {
            let place = root.join("sys/module").join(module).join("parameters").join(name);
            match fs::read_to_string(place) {
                Ok(text) if matches!(text.trim(), "Y" | "1") => Ok(()),
                Ok(_) => Err(format!("the parameter {name} of {module} is off")),
                Err(_) => Err(format!("{module} has no parameter {name}")),
            }
        };
        Self {
            kvm: device("kvm"),
            snp: parameter("kvm_amd", "sev_snp").and_then(|()| device("sev")),
            tdx: parameter("kvm_intel", "tdx"),
        }
    }
}

/// Chooses. `accelerator` overrules what was found.
///
/// # Errors
/// Why what is asked for cannot be run here.
pub fn choose(wanted: Wanted, accelerator: Option<Accelerator>, found: &Found) -> Result<Choice, String> {
    let kvm = match accelerator {
        Some(Accelerator::Tcg) => Err("software was asked for".to_owned()),
        Some(Accelerator::Kvm) => Ok(()),
        None => found.kvm.clone(),
    };
    let guest = |kind: Kind, name: &str, there: &Result<(), String>| {
        kvm.clone()?;
        there.clone()?;
        Ok::<_, String>(Choice { kind, accelerator: Accelerator::Kvm, why: format!("this machine has {name}") })
    };
    let snp = || guest(Kind::Snp, "SEV-SNP", &found.snp);
    let tdx = || guest(Kind::Tdx, "TDX", &found.tdx);
    let plain = || match &kvm {
        Ok(()) => Choice { kind: Kind::None, accelerator: Accelerator::Kvm, why: "there is KVM".to_owned() },
        Err(why) => Choice {
            kind: Kind::None,
            accelerator: Accelerator::Tcg,
            why: format!("in software, which is slow: {why}"),
        },
    };
    match wanted {
        Wanted::Snp => snp().map_err(|why| format!("no SEV-SNP guest can be run: {why}")),
        Wanted::Tdx => tdx().map_err(|why| format!("no TDX guest can be run: {why}")),
        Wanted::None => Ok(plain()),
        Wanted::Auto => Ok(match (snp(), tdx()) {
            (Ok(choice), _) | (_, Ok(choice)) => choice,
            (Err(snp), Err(tdx)) => {
                let Choice { kind, accelerator, why } = plain();
                Choice { kind, accelerator, why: format!("{why}; no SEV-SNP: {snp}; no TDX: {tdx}") }
            }
        }),
    }
}

#[cfg(test)]
#[path = "found_tests.rs"]
mod tests;
