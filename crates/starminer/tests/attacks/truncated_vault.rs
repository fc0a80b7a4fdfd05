//! A sealed file is cut, extended, reordered or damaged: `vault open` refuses and leaves no output behind.

use std::fs;

use crate::support::{must, starminer, text};

#[test]
fn damaged_files_open_to_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    must(["key", "new", "--secret", &text(&at("k"))]);
    let plain: Vec<u8> = (0..300_000_u32).map(|n| (n % 251) as u8).collect();
    fs::write(at("plain"), &plain).unwrap();
    must(["vault", "seal", "--key-file", &text(&at("k")), &text(&at("plain")), &text(&at("sealed"))]);
    must(["vault", "open", "--key-file", &text(&at("k")), &text(&at("sealed")), &text(&at("opened"))]);
    assert_eq!(fs::read(at("opened")).unwrap(), plain);
    let sealed = fs::read(at("sealed")).unwrap();
    let chunk = 65_536 + 16;
    let header = sealed.len() - plain.len() - 16 * plain.len().div_ceil(65_536);
    let mut swapped = sealed.clone();
    for n in 0..chunk {
        swapped.swap(header + n, header + chunk + n);
    }
    let mut flipped = sealed.clone();
    flipped[header + 3 * chunk] ^= 1;
    let cases: [(&str, Vec<u8>); 7] = [
        ("cut in a chunk", sealed[..sealed.len() - 1].to_vec()),
        ("cut between chunks", sealed[..header + 2 * chunk].to_vec()),
        ("header alone", sealed[..header].to_vec()),
        ("empty", Vec::new()),
        ("extended", [&sealed[..], b"x"].concat()),
        ("chunks swapped", swapped),
        ("one bit", flipped),
    ];
    for (name, bytes) in cases {
        fs::write(at("bad"), &bytes).unwrap();
        for input in [text(&at("bad")), "-".to_string()] {
            let out = at("never");
            let output = if input == "-" {
                let file = fs::File::open(at("bad")).unwrap();
                std::process::Command::new(crate::support::program())
                    .args(["vault", "open", "--key-file", &text(&at("k")), "-", &text(&out)])
                    .stdin(file)
                    .output()
                    .unwrap()
            } else {
                starminer(["vault", "open", "--key-file", &text(&at("k")), &input, &text(&out)])
            };
            assert_eq!(output.status.code(), Some(1), "{name}: {}", String::from_utf8_lossy(&output.stderr));
            assert!(!out.exists(), "{name}: output was left behind");
        }
    }
    must(["key", "new", "--secret", &text(&at("other"))]);
    let output =
        starminer(["vault", "open", "--key-file", &text(&at("other")), &text(&at("sealed")), &text(&at("never"))]);
    assert_eq!(output.status.code(), Some(1), "another key");
    let left: Vec<_> = fs::read_dir(dir.path())
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().contains("part"))
        .collect();
    assert!(left.is_empty(), "nothing half-written stays: {left:?}");
}
