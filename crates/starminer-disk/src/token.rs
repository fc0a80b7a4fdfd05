//! The token in a disk's header: the sealed key, and what helps to say why it does not open. Anybody may read and write it: the TPM judges, not this file.

use std::collections::BTreeMap;

use data_encoding::{BASE64, HEXLOWER};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use starminer_attester::tpm::Sealed;

use crate::header::TOKEN;

/// Most seals at a time: that of an image, and that of its successor while it takes over.
pub const MAX_SEALS: usize = 2;

/// The sealed key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    #[serde(rename = "type")]
    kind: String,
    keyslots: Vec<String>,
    version: u32,
    /// Whose derived key is mixed in, if any's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mixed: Option<String>,
    /// Each opens the disk by itself.
    pub seals: Vec<Seal>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seal {
    public: String,
    private: String,
    creation: String,
    ticket: String,
    /// What it is sealed to.
    pub to: SealedTo,
    /// What the registers held then, in hexadecimal: says which differ, and decides nothing.
    pub registers: BTreeMap<u8, String>,
}

/// What a key is sealed to, besides the TPM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum SealedTo {
    /// Registers 0, 7 and 11: this very image.
    Image {},
    /// Registers 0 and 7, and an image that its maker approved.
    Maker {
        /// SHA-256 of the maker's key, hex.
        key: String,
        /// What the image has to be approved for.
        security_version: u32,
        /// The highest value of the counter with which it opens.
        epoch: u64,
        /// The maker's approval of the image that sealed it, for this security version: r and s, base64.
        approval: String,
    },
}

impl Seal {
    /// Puts it together.
    pub fn new(sealed: &Sealed, to: SealedTo, registers: BTreeMap<u8, String>) -> Self {
        let [public, private, creation, ticket] =
            [&sealed.public, &sealed.private, &sealed.creation, &sealed.ticket].map(|bytes| BASE64.encode(bytes));
        Self { public, private, creation, ticket, to, registers }
    }

    /// The sealed secret. `None` where it is no such text.
    pub fn sealed(&self) -> Option<Sealed> {
        let bytes = |text: &str| BASE64.decode(text.as_bytes()).ok();
        Some(Sealed {
            public: bytes(&self.public)?,
            private: bytes(&self.private)?,
            creation: bytes(&self.creation)?,
            ticket: bytes(&self.ticket)?,
        })
    }

    /// What the image has to be approved for; 0 where nobody approves.
    pub const fn security_version(&self) -> u32 {
        match self.to {
            SealedTo::Image {} => 0,
            SealedTo::Maker { security_version, .. } => security_version,
        }
    }
}

impl Token {
    /// Of these seals.
    pub fn new(mixed: Option<String>, seals: Vec<Seal>) -> Self {
        Self { kind: TOKEN.into(), keyslots: vec!["0".into()], version: 1, mixed, seals }
    }

    /// From a header. `None` where it is none.
    pub fn parse(value: &Value) -> Option<Self> {
        let token: Self = serde_json::from_value(value.clone()).ok()?;
        let ours = token.kind == TOKEN && token.version == 1 && token.keyslots == ["0"];
        (ours && (1..=MAX_SEALS).contains(&token.seals.len())).then_some(token)
    }

    /// As it stands in a header.
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("text and numbers")
    }
}

/// A digest in hexadecimal.
pub fn hex_sha256(bytes: &[u8]) -> String {
    HEXLOWER.encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes).as_ref())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn tokens_read_back_and_strange_ones_do_not() {
        let sealed = Sealed { public: vec![1, 2], private: vec![3], creation: vec![4], ticket: vec![5] };
        let maker = SealedTo::Maker { key: "ab".into(), security_version: 3, epoch: 9, approval: "AA==".into() };
        let registers = BTreeMap::from([(7, "00".into())]);
        let seals = [SealedTo::Image {}, maker].map(|to| Seal::new(&sealed, to, registers.clone())).to_vec();
        let token = Token::new(Some("sev-snp".into()), seals);
        let value: Value = serde_json::from_slice(&token.encode()).unwrap();
        let again = Token::parse(&value).unwrap();
        assert_eq!(again, token);
        assert_eq!((again.seals[0].security_version(), again.seals[1].security_version()), (0, 3));
        assert_eq!(again.seals[0].sealed().unwrap(), sealed);
        for (field, strange) in [
            ("type", Value::from("systemd-tpm2")),
            ("version", 2.into()),
            ("keyslots", Value::from(vec!["1"])),
            ("seals", Value::Array(vec![])),
            ("seals", Value::Array(vec![value["seals"][0].clone(); 3])),
            ("more", 1.into()),
        ] {
            let mut altered = value.clone();
            altered[field] = strange;
            assert_eq!(Token::parse(&altered), None, "{field}");
        }
        let mut altered = value.clone();
        altered["seals"][0]["to"] = serde_json::json!({"anybody": {}});
        assert_eq!(Token::parse(&altered), None);
    }
}
