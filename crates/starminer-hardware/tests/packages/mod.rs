//! Where cargo has unpacked a package that this workspace depends on.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// The samples of the crate `dcap-qvl`; `None` where cargo does not know.
pub fn samples_of_dcap_qvl() -> Option<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let arguments = ["metadata", "--format-version", "1", "--offline"];
    let said = Command::new(cargo).args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).output().ok()?.stdout;
    let metadata: Value = serde_json::from_slice(&said).ok()?;
    let package = metadata["packages"].as_array()?.iter().find(|package| package["name"] == "dcap-qvl")?;
    let samples = Path::new(package["manifest_path"].as_str()?).parent()?.join("sample");
    samples.is_dir().then_some(samples)
}
