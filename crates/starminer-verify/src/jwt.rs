//! An EAR as a signed JWT, and the keys that sign them as a JWKS: what other RATS tools take.
//!
//! Writes only, with one algorithm: Ed25519 (`EdDSA`). The private key stays with the caller, who signs the bytes that it is given. Source: RFC 7515,
//! RFC 7517, RFC 7519, RFC 7638, RFC 8037; `specs/policy.md`, section "EAR".

use data_encoding::BASE64URL_NOPAD;
use serde_json::{Value, json};

use crate::appraise::AttestationResult;
use crate::types::{Digest, PublicKey};

impl AttestationResult {
    /// The EAR in the compact form of a JWS. `sign` gives the Ed25519 signature of `signer`'s key over the bytes that it is handed.
    pub fn to_jwt(&self, signer: &PublicKey, sign: impl FnOnce(&[u8]) -> [u8; 64]) -> String {
        ear_jwt(&self.to_ear_json(), signer, sign)
    }
}

/// The same of an EAR in JSON, as a receipt has it, by whoever verified that receipt: the bytes are signed as they are.
pub fn ear_jwt(ear_json: &[u8], signer: &PublicKey, sign: impl FnOnce(&[u8]) -> [u8; 64]) -> String {
    let header = format!(r#"{{"alg":"EdDSA","kid":"{}","typ":"JWT"}}"#, key_id(signer));
    let encode = |bytes: &[u8]| BASE64URL_NOPAD.encode(bytes);
    let signed = format!("{}.{}", encode(header.as_bytes()), encode(ear_json));
    let signature = encode(&sign(signed.as_bytes()));
    format!("{signed}.{signature}")
}

/// The name of a key in headers and key sets: its thumbprint (RFC 7638) with SHA-256.
pub fn key_id(key: &PublicKey) -> String {
    let x = BASE64URL_NOPAD.encode(key.as_bytes());
    BASE64URL_NOPAD.encode(Digest::of(format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#).as_bytes()).as_bytes())
}

/// The keys by which a verifier signs EARs, as a JWK set.
pub fn jwks<'a>(keys: impl IntoIterator<Item = &'a PublicKey>) -> Value {
    let key = |key: &PublicKey| {
        json!({
            "alg": "EdDSA", "crv": "Ed25519", "kid": key_id(key), "kty": "OKP", "use": "sig",
            "x": BASE64URL_NOPAD.encode(key.as_bytes()),
        })
    };
    json!({ "keys": keys.into_iter().map(key).collect::<Vec<_>>() })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// RFC 8037, appendices A.2 and A.3.
    #[test]
    fn the_thumbprint_of_the_example() {
        let x = BASE64URL_NOPAD.decode(b"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo").unwrap();
        let key = PublicKey::from_slice(&x).unwrap();
        assert_eq!(key_id(&key), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
        let set = jwks([&key]);
        assert_eq!(set["keys"][0]["x"], "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo");
        assert_eq!(set["keys"].as_array().unwrap().len(), 1);
    }
}
