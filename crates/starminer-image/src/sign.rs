//! Authenticode signatures, by `sbsign`.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::manifest::authenticode;
use crate::{ImageError, read};

/// Signs an image for Secure Boot with a key and its certificate, both PEM, and writes it to `signed`.
///
/// The signature says when it was made, so that signed images differ; what firmware measures of them does not, and that is checked here.
///
/// # Errors
/// [`ImageError::NoSigner`], [`ImageError::NotSigned`], [`ImageError::Inconsistent`], [`ImageError::File`].
pub fn sign(image: &Path, key: &Path, certificate: &Path, signed: &Path) -> Result<(), ImageError> {
    let arguments: [&OsStr; 7] = [
        "--key".as_ref(),
        key.as_ref(),
        "--cert".as_ref(),
        certificate.as_ref(),
        "--output".as_ref(),
        signed.as_ref(),
        image.as_ref(),
    ];
    let run = Command::new("sbsign").args(arguments).stdin(Stdio::null()).output();
    let output = run.map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => ImageError::NoSigner,
        _ => ImageError::NotSigned(error.to_string()),
    })?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        // Its last line is OpenSSL's; the first says what it was about.
        return Err(ImageError::NotSigned(said.lines().next().unwrap_or("it does not say why").to_owned()));
    }
    let (before, after) = (authenticode(&read(image)?)?, authenticode(&read(signed)?)?);
    if before != after {
        return Err(ImageError::Inconsistent("what firmware measures changed when it was signed".into()));
    }
    Ok(())
}
