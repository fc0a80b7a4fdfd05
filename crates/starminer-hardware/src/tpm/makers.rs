//! TPM makers, their ids (TCG Vendor ID Registry) and the roots of theirs that are compiled in (`roots/tpm`).

use std::sync::OnceLock;

use crate::cert::{Certificate, Roots};

/// A maker whose roots are compiled in.
#[derive(Debug, PartialEq, Eq)]
pub struct Maker {
    /// As in its TPMs' certificates and capabilities, without closing blanks: `NTC`.
    pub id: &'static str,
    /// For people.
    pub name: &'static str,
    roots: &'static [&'static [u8]],
}

macro_rules! roots {
    ($($file:literal),+ $(,)?) => {
        &[$(include_bytes!(concat!("../../roots/tpm/", $file, ".der"))),+]
    };
}

/// Which maker may stand above which root: a certificate that names another maker than its root's is refused.
static MAKERS: [Maker; 7] = [
    Maker { id: "AMD", name: "AMD", roots: roots!["amd-ftpm-ecc", "amd-ftpm-rsa"] },
    Maker { id: "ATML", name: "Atmel", roots: roots!["atmel"] },
    Maker { id: "IFX", name: "Infineon", roots: roots!["infineon-ek", "infineon-optiga-ecc", "infineon-optiga-rsa"] },
    Maker { id: "INTC", name: "Intel", roots: roots!["intel-ek"] },
    Maker {
        id: "NTC",
        name: "Nuvoton Technology",
        roots: roots![
            "nuvoton-1013",
            "nuvoton-1014",
            "nuvoton-1110",
            "nuvoton-1111",
            "nuvoton-2010",
            "nuvoton-2011",
            "nuvoton-2110",
            "nuvoton-2111",
            "nuvoton-ntc-01",
            "nuvoton-ntc-02",
            "nuvoton-ntc-arsuf-01",
        ],
    },
    Maker { id: "NTZ", name: "Nationz", roots: roots!["nationz"] },
    Maker { id: "STM", name: "STMicroelectronics", roots: roots!["stmicro-ecc-01", "stmicro-rsa"] },
];

/// The makers.
#[must_use]
pub fn makers() -> &'static [Maker] {
    &MAKERS
}

/// The maker whose root this is.
pub(super) fn of_root(root: &Certificate) -> Option<&'static Maker> {
    MAKERS.iter().find(|maker| maker.roots.contains(&root.der()))
}

/// All roots that are compiled in.
#[must_use]
pub fn roots() -> Roots {
    static ROOTS: OnceLock<Roots> = OnceLock::new();
    ROOTS
        .get_or_init(|| {
            let all = MAKERS.iter().flat_map(|maker| maker.roots);
            Roots::compiled_in(all.map(|der| Certificate::from_der(der).expect("a test reads every root")))
        })
        .clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_root_is_an_authority_and_one_makers() {
        let roots = roots();
        assert_eq!(roots.iter().count(), 21);
        for (root, _) in roots.iter() {
            assert!(root.is_ca(), "{root:?}");
            root.public_key().expect("a key that verifies");
            assert_eq!(MAKERS.iter().filter(|maker| maker.roots.contains(&root.der())).count(), 1, "{root:?}");
            assert!(of_root(root).is_some());
        }
    }
}
