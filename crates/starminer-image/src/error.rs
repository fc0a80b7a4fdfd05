//! Why an image is not built.

use std::io;
use std::path::PathBuf;

use crate::uki::StubError;

/// Why an image is not built.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// A file cannot be read, or is too large.
    #[error("{}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No stub that sections can be added to.
    #[error("{}", path.display())]
    Stub {
        /// Which.
        path: PathBuf,
        /// Why.
        source: StubError,
    },
    /// A stub of a version that is not taken.
    #[error("{} is a stub of systemd {}; 252 and 253 are taken", path.display(), version.map_or_else(|| "of unknown version".into(), |version| version.to_string()))]
    StubVersion {
        /// Which.
        path: PathBuf,
        /// What it says of itself.
        version: Option<u32>,
    },
    /// The image has no shared libraries and no loader for them.
    #[error("{} is not a static program for Linux on x86-64: {reason}", path.display())]
    Program {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: &'static str,
    },
    /// A library is not there.
    #[error("{} needs the library {name}, which is not installed", path.display())]
    NoLibrary {
        /// Which.
        name: String,
        /// What needs it.
        path: PathBuf,
    },
    /// No key that approves what successors of the image do with its disks.
    #[error("{}: {reason}", path.display())]
    PolicyKey {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: &'static str,
    },
    /// A module is not there.
    #[error("there is no module {name} (as an uncompressed .ko) in {}", dir.display())]
    NoModule {
        /// Which.
        name: String,
        /// Where.
        dir: PathBuf,
    },
    /// A file that is called a module is none.
    #[error("{} is no kernel module: {reason}", path.display())]
    Module {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: &'static str,
    },
    /// There are more modules than an image has.
    #[error("more modules than an image has ({0})")]
    TooManyModules(usize),
    /// A command line that a kernel would read otherwise.
    #[error("the command line is not one line of ASCII")]
    CommandLine,
    /// A file does not fit into an archive.
    #[error("{0} does not fit into an archive: a file has less than 4 GiB")]
    TooLarge(String),
    /// The compression failed.
    #[error("the initial file system cannot be compressed")]
    Compression(#[source] io::Error),
    /// What was built is no image that firmware would start, or what was signed is another one.
    #[error("the image is not as firmware reads it: {0}")]
    Inconsistent(String),
    /// `sbsign` is not installed.
    #[error("sbsign is not installed")]
    NoSigner,
    /// `sbsign` did not sign.
    #[error("sbsign did not sign: {0}")]
    NotSigned(String),
}

impl ImageError {
    /// A stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::File { .. } => "image.file",
            Self::Stub { .. } => "image.stub",
            Self::StubVersion { .. } => "image.stub-version",
            Self::Program { .. } => "image.program",
            Self::NoLibrary { .. } => "image.no-library",
            Self::PolicyKey { .. } => "image.policy-key",
            Self::NoModule { .. } => "image.no-module",
            Self::Module { .. } => "image.module",
            Self::TooManyModules(_) => "image.modules",
            Self::CommandLine => "image.command-line",
            Self::TooLarge(_) => "image.too-large",
            Self::Compression(_) => "image.compression",
            Self::Inconsistent(_) => "image.inconsistent",
            Self::NoSigner => "image.no-signer",
            Self::NotSigned(_) => "image.not-signed",
        }
    }

    /// What to do about it.
    #[must_use]
    pub const fn remedy(&self) -> &'static str {
        match self {
            Self::Program { .. } => "build it with `cargo xtask image-programs`",
            Self::NoLibrary { .. } => {
                "install the programs with the libraries that they need (Debian: cryptsetup-bin, e2fsprogs)"
            }
            Self::PolicyKey { .. } => {
                "make one: openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out policy.key"
            }
            Self::NoModule { .. } => "name modules of this kernel with --module, and their directory with --modules",
            Self::StubVersion { .. } => {
                "give the stub of systemd 252 or 253 (Debian 12: systemd-boot-efi): with later ones a host adds to the signed command line"
            }
            Self::Stub { .. } => "give systemd's linuxx64.efi.stub (Debian: systemd-boot-efi) with --stub",
            Self::NoSigner => "install it (Debian: sbsigntool), or build without --sign and sign where the key is",
            Self::NotSigned(_) => "give a key and its certificate, both as PEM",
            _ => "give other files and start again",
        }
    }
}
