//! Entry points for fuzz targets. Each takes any bytes and must return: no panic, no memory out of proportion.

use crate::{fs, onnx};

/// Looks at `data` as an ONNX model before decoding, and decodes it if it passes.
pub fn onnx_model(data: &[u8]) {
    let _ = onnx::check_model(data, 1 << 20);
}

/// Reads `data` as CSV, in pieces whose size its first byte chooses.
pub fn csv(data: &[u8]) {
    if let Some((&size, text)) = data.split_first() {
        onnx::read_all_csv(text, usize::from(size) + 1);
    }
}

/// Resolves `data` as a path in every grant. No answer is a file: there are none.
pub fn path(fs: &mut fs::TaskFs, data: &str) {
    for grant in fs::Grant::ALWAYS {
        if let Ok(root) = fs.open_grant(grant) {
            let found = fs.stat_at(&root, data);
            assert!(!matches!(found, Ok(stat) if stat.kind == fs::FileKind::File), "a file out of nowhere");
            let _ = fs.close(root);
        }
    }
}

/// Reads `data` as the tree of a committed state, over as many files of one byte as its first byte says. Returns how many bytes the state has.
///
/// # Errors
/// Why it is not taken up.
pub fn state_tree(data: &[u8]) -> Result<u64, fs::StateError> {
    let (&files, tree) = data.split_first().unwrap_or((&0, &[]));
    let state = fs::fuzzing::AnyState { tree: tree.to_vec(), files: files.into() };
    let mut fs = fs::TaskFs::new(fs::fuzzing::Nothing, 1 << 20);
    fs.add_state(state, 128)?;
    assert!(fs.state_bytes() <= 128, "more than the quota was taken up");
    assert_eq!(fs.commit_state(), Ok(()), "what was taken up can be written again");
    Ok(fs.state_bytes())
}
