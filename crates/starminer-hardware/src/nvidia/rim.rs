//! NVIDIA's reference integrity manifests (RIM): signed lists of the measurements that a driver or a VBIOS leads to.
//!
//! A RIM is a SWID tag (ISO/IEC 19770-2) with an enveloped XML signature. Only the shape that NVIDIA ships is read: the root is the signed element, it has exactly
//! one `Meta`, `Entity` and `Payload`, and the one `Signature` is its last child with one reference, to the whole file. Everything that is read is therefore
//! beneath the signature, and there is nowhere to wrap it into. No schema is applied: what is not expected is refused.

use std::collections::BTreeMap;

use aws_lc_rs::digest::{Context, SHA256, SHA384, digest};
use data_encoding::{BASE64, HEXLOWER_PERMISSIVE};
use roxmltree::Node;

use super::spdm::{MAX_MEASUREMENT_LEN, SIGNATURE_LEN};
use super::xml::{self, canonical};
use crate::cert::{Certificate, CertificateError};

/// Most certificates in a signature.
pub const MAX_CERTIFICATES: usize = 8;
/// Most accepted values of one measurement.
pub const MAX_ALTERNATIVES: usize = 32;

const SWID: &str = "http://standards.iso.org/iso/19770/-2/2015/schema.xsd";
const DSIG: &str = "http://www.w3.org/2000/09/xmldsig#";
/// NVIDIA's namespace of measured SHA-384 values.
const HASH: &str = "http://www.w3.org/2001/04/xmlenc#sha384";

const C14N_10: &str = "http://www.w3.org/TR/2001/REC-xml-c14n-20010315";
const C14N_11: &str = "http://www.w3.org/2006/12/xml-c14n11";
const ENVELOPED: &str = "http://www.w3.org/2000/09/xmldsig#enveloped-signature";
const DIGEST: &str = "http://www.w3.org/2001/04/xmldsig-more#sha384";
const SIGNATURE: &str = "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha384";

/// Why a file is no RIM that can be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RimError {
    /// It is longer than any RIM.
    #[error("the RIM has more than {limit} bytes")]
    TooLarge {
        /// The most that is read, in bytes.
        limit: usize,
    },
    /// It is not well-formed.
    #[error("the RIM is not well-formed XML")]
    Malformed,
    /// It uses more of XML than NVIDIA's files do.
    #[error("the RIM is outside the part of XML that is accepted: {0}")]
    Outside(&'static str),
    /// An element or attribute is missing, doubled or not expected.
    #[error("the RIM does not have the expected form: {element}: {problem}")]
    Shape {
        /// The element.
        element: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A certificate in it cannot be read.
    #[error("a certificate of the RIM cannot be read")]
    Certificate(#[from] CertificateError),
    /// The signature is of a kind that is not accepted.
    #[error("the RIM's signature uses an algorithm that is not accepted: {0}")]
    Algorithm(&'static str),
}

impl RimError {
    /// A stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "rim-too-large",
            Self::Malformed => "rim-malformed",
            Self::Outside(_) => "rim-outside-subset",
            Self::Shape { .. } => "rim-shape",
            Self::Certificate(_) => "rim-certificate",
            Self::Algorithm(_) => "rim-algorithm",
        }
    }
}

/// What a RIM is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RimKind {
    /// A driver, named by its version (`550.144.03`).
    Driver,
    /// A VBIOS, named by its five-part version (`96.00.74.00.1c`).
    Vbios,
}

impl RimKind {
    /// The name in JSON and in names of checks.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Driver => "driver",
            Self::Vbios => "vbios",
        }
    }
}

/// The values that one measurement may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reference {
    /// Whether it is to be compared at all.
    pub active: bool,
    /// Any of them matches.
    pub values: Vec<Vec<u8>>,
}

/// A parsed RIM: nothing of it is believed yet.
#[derive(Debug, Clone)]
pub struct Rim {
    /// What it is about.
    pub(super) kind: RimKind,
    /// The version that it is for, in lower case.
    pub(super) version: String,
    /// The chip that it is for: `GH100`.
    pub(super) product: String,
    /// `GPU`.
    pub(super) edition: String,
    /// The identity of the tag.
    pub(super) tag_id: String,
    /// By the RIM's index, which begins at 0 where SPDM's begins at 1.
    pub(super) references: BTreeMap<u8, Reference>,
    /// SHA-384 of the canonical file without its signature.
    pub(super) content_digest: Vec<u8>,
    /// What the signature says that this digest is.
    pub(super) stated_digest: Vec<u8>,
    /// The canonical `SignedInfo`: what is signed.
    pub(super) signed_info: Vec<u8>,
    /// r and s.
    pub(super) signature: [u8; SIGNATURE_LEN],
    /// The signer's certificate and those above it.
    pub(super) certificates: Vec<Certificate>,
}

impl Rim {
    /// The version that it says it is for, unverified, in lower case.
    #[must_use]
    pub fn unverified_version(&self) -> &str {
        &self.version
    }

    /// The certificates that it brings along, unverified: the signer's first.
    #[must_use]
    pub fn unverified_certificates(&self) -> &[Certificate] {
        &self.certificates
    }

    /// Reads a RIM.
    ///
    /// # Errors
    /// [`RimError`] says what does not have the form of NVIDIA's files.
    pub fn parse(bytes: &[u8]) -> Result<Self, RimError> {
        let document = xml::read(bytes)?;
        let root = document.root_element();
        expect_name(root, SWID, "SoftwareIdentity")?;
        let [entity, meta, payload, signature] = children(root, "SoftwareIdentity")?;
        expect_name(entity, SWID, "Entity")?;
        expect_name(meta, SWID, "Meta")?;
        expect_name(payload, SWID, "Payload")?;
        expect_name(signature, DSIG, "Signature")?;
        expect_empty(entity, "Entity")?;
        expect_empty(meta, "Meta")?;

        let version = attribute(meta, "Meta", "colloquialVersion")?.to_ascii_lowercase();
        let signature = Signature::read(signature)?;
        Ok(Self {
            kind: if is_vbios_version(&version) { RimKind::Vbios } else { RimKind::Driver },
            version,
            product: attribute(meta, "Meta", "product")?.to_owned(),
            edition: attribute(meta, "Meta", "edition")?.to_owned(),
            tag_id: attribute(root, "SoftwareIdentity", "tagId")?.to_owned(),
            references: references(payload)?,
            content_digest: digest(&SHA384, &canonical(root, Some(signature.node))?).as_ref().to_vec(),
            stated_digest: signature.stated_digest,
            signed_info: signature.signed_info,
            signature: signature.value,
            certificates: signature.certificates,
        })
    }
}

impl Rim {
    /// SHA-256 of what is signed and of the signature over it.
    pub(super) fn signature_digest(&self) -> [u8; 32] {
        let mut context = Context::new(&SHA256);
        context.update(&self.signed_info);
        context.update(&self.signature);
        context.finish().as_ref().try_into().expect("SHA-256 has 32 bytes")
    }
}

/// Five two-digit parts.
fn is_vbios_version(version: &str) -> bool {
    let mut parts = 0;
    version.split('.').all(|part| {
        parts += 1;
        part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_hexdigit())
    }) && parts == 5
}

fn references(payload: Node<'_, '_>) -> Result<BTreeMap<u8, Reference>, RimError> {
    let shape = |problem| RimError::Shape { element: "Resource", problem };
    let mut references = BTreeMap::new();
    for resource in payload.children() {
        if is_space(resource) {
            continue;
        }
        expect_name(resource, SWID, "Resource")?;
        expect_empty(resource, "Resource")?;
        if attribute(resource, "Resource", "type")? != "Measurement" {
            return Err(shape("its type is not Measurement"));
        }
        let index = number(attribute(resource, "Resource", "index")?, u8::MAX.into())
            .and_then(|index| u8::try_from(index).ok())
            .ok_or_else(|| shape("its index is no number below 256"))?;
        let active = match attribute(resource, "Resource", "active")? {
            "True" => true,
            "False" => false,
            _ => return Err(shape("active is neither True nor False")),
        };
        let values = values(resource)?;
        if references.insert(index, Reference { active, values }).is_some() {
            return Err(shape("its index stands twice"));
        }
    }
    if references.values().any(|reference| reference.active) { Ok(references) } else { Err(shape("none is active")) }
}

fn values(resource: Node<'_, '_>) -> Result<Vec<Vec<u8>>, RimError> {
    let shape = |problem| RimError::Shape { element: "Resource", problem };
    let size = number(attribute(resource, "Resource", "size")?, MAX_MEASUREMENT_LEN)
        .filter(|&size| size > 0)
        .ok_or_else(|| shape("its size is no number, zero or too large"))?;
    let count = number(attribute(resource, "Resource", "alternatives")?, MAX_ALTERNATIVES)
        .filter(|&count| count > 0)
        .ok_or_else(|| shape("alternatives is no number, zero or too large"))?;
    let stated = resource.attributes().filter(|attribute| attribute.namespace() == Some(HASH)).count();
    if stated != count {
        return Err(shape("it does not have as many values as alternatives"));
    }
    (0..count)
        .map(|at| {
            let hex = resource
                .attribute((HASH, format!("Hash{at}").as_str()))
                .ok_or_else(|| shape("its values are not numbered from 0"))?;
            let value = HEXLOWER_PERMISSIVE.decode(hex.as_bytes()).map_err(|_| shape("a value is not hexadecimal"))?;
            if value.len() == size { Ok(value) } else { Err(shape("a value is not of the stated size")) }
        })
        .collect()
}

/// The enveloped signature.
struct Signature<'a, 'input> {
    node: Node<'a, 'input>,
    signed_info: Vec<u8>,
    stated_digest: Vec<u8>,
    value: [u8; SIGNATURE_LEN],
    certificates: Vec<Certificate>,
}

impl<'a, 'input> Signature<'a, 'input> {
    fn read(node: Node<'a, 'input>) -> Result<Self, RimError> {
        let [info, value, key_info] = bare_children(node, "Signature")?;
        expect_name(info, DSIG, "SignedInfo")?;
        expect_name(value, DSIG, "SignatureValue")?;
        expect_name(key_info, DSIG, "KeyInfo")?;
        let stated_digest = signed_info(info)?;
        let value = binary(value, "SignatureValue")?
            .try_into()
            .map_err(|_| RimError::Shape { element: "SignatureValue", problem: "it is no P-384 signature" })?;
        Ok(Self {
            node,
            signed_info: canonical(info, None)?,
            stated_digest,
            value,
            certificates: certificates(key_info)?,
        })
    }
}

/// Holds `SignedInfo` to the one form that is accepted, and gives the digest that it states.
fn signed_info(info: Node<'_, '_>) -> Result<Vec<u8>, RimError> {
    let [canonicalization, method, reference] = bare_children(info, "SignedInfo")?;
    let canonicalization = algorithm(canonicalization, "CanonicalizationMethod")?;
    if canonicalization != C14N_10 && canonicalization != C14N_11 {
        return Err(RimError::Algorithm("canonicalization is not inclusive Canonical XML 1.0 or 1.1"));
    }
    if algorithm(method, "SignatureMethod")? != SIGNATURE {
        return Err(RimError::Algorithm("the signature is not ECDSA with SHA-384"));
    }
    expect_name(reference, DSIG, "Reference")?;
    let mut attributes = reference.attributes();
    match (attributes.next(), attributes.next()) {
        (Some(uri), None) if uri.namespace().is_none() && uri.name() == "URI" && uri.value().is_empty() => {}
        _ => return Err(RimError::Shape { element: "Reference", problem: "it is not a reference to the whole file" }),
    }
    let [transforms, method, value] = children(reference, "Reference")?;
    expect_name(transforms, DSIG, "Transforms")?;
    let [first, second] = bare_children(transforms, "Transforms")?;
    let second = algorithm(second, "Transform")?;
    if algorithm(first, "Transform")? != ENVELOPED || (second != C14N_10 && second != C14N_11) {
        return Err(RimError::Algorithm("the transforms are not an enveloped signature and inclusive Canonical XML"));
    }
    if algorithm(method, "DigestMethod")? != DIGEST {
        return Err(RimError::Algorithm("the digest is not SHA-384"));
    }
    expect_name(value, DSIG, "DigestValue")?;
    binary(value, "DigestValue")
}

fn certificates(key_info: Node<'_, '_>) -> Result<Vec<Certificate>, RimError> {
    let [data] = bare_children(key_info, "KeyInfo")?;
    expect_name(data, DSIG, "X509Data")?;
    expect_no_attributes(data, "X509Data")?;
    let mut certificates = Vec::new();
    for child in data.children().filter(|&child| !is_space(child)) {
        expect_name(child, DSIG, "X509Certificate")?;
        certificates.push(Certificate::from_der(&binary(child, "X509Certificate")?)?);
        if certificates.len() > MAX_CERTIFICATES {
            return Err(RimError::Shape { element: "X509Data", problem: "it has too many certificates" });
        }
    }
    if certificates.is_empty() {
        return Err(RimError::Shape { element: "X509Data", problem: "it has no certificate" });
    }
    Ok(certificates)
}

/// The one algorithm that an element names, and nothing else in it.
fn algorithm<'a>(node: Node<'a, '_>, element: &'static str) -> Result<&'a str, RimError> {
    expect_name(node, DSIG, element)?;
    expect_empty(node, element)?;
    let mut attributes = node.attributes();
    match (attributes.next(), attributes.next()) {
        (Some(only), None) if only.namespace().is_none() && only.name() == "Algorithm" => Ok(only.value()),
        _ => Err(RimError::Shape { element, problem: "it does not just name an algorithm" }),
    }
}

/// The base64 text of an element. Line breaks may stand in it.
fn binary(node: Node<'_, '_>, element: &'static str) -> Result<Vec<u8>, RimError> {
    expect_no_attributes(node, element)?;
    let mut text = Vec::new();
    for child in node.children() {
        if !child.is_text() {
            return Err(RimError::Shape { element, problem: "it is not text alone" });
        }
        text.extend(child.text().unwrap_or_default().bytes().filter(|&byte| byte != b'\n' && byte != b' '));
    }
    BASE64.decode(&text).map_err(|_| RimError::Shape { element, problem: "it is not base64" })
}

/// Exactly so many elements, and but space between them.
fn children<'a, 'input, const N: usize>(
    node: Node<'a, 'input>,
    element: &'static str,
) -> Result<[Node<'a, 'input>; N], RimError> {
    let shape = |problem| RimError::Shape { element, problem };
    let mut found = Vec::with_capacity(N);
    for child in node.children().filter(|&child| !is_space(child)) {
        if !child.is_element() {
            return Err(shape("text stands between its elements"));
        }
        if found.len() == N {
            return Err(shape("it has more elements than expected"));
        }
        found.push(child);
    }
    found.try_into().map_err(|_| shape("it has fewer elements than expected"))
}

/// As [`children`], of an element without attributes.
fn bare_children<'a, 'input, const N: usize>(
    node: Node<'a, 'input>,
    element: &'static str,
) -> Result<[Node<'a, 'input>; N], RimError> {
    expect_no_attributes(node, element)?;
    children(node, element)
}

fn expect_name(node: Node<'_, '_>, namespace: &str, name: &'static str) -> Result<(), RimError> {
    if node.has_tag_name((namespace, name)) {
        Ok(())
    } else {
        Err(RimError::Shape { element: name, problem: "it is missing, or something else stands in its place" })
    }
}

fn expect_empty(node: Node<'_, '_>, element: &'static str) -> Result<(), RimError> {
    if node.has_children() { Err(RimError::Shape { element, problem: "it is not empty" }) } else { Ok(()) }
}

fn expect_no_attributes(node: Node<'_, '_>, element: &'static str) -> Result<(), RimError> {
    if node.attributes().next().is_some() {
        return Err(RimError::Shape { element, problem: "it has attributes" });
    }
    Ok(())
}

fn attribute<'a>(node: Node<'a, '_>, element: &'static str, name: &'static str) -> Result<&'a str, RimError> {
    node.attribute(name)
        .filter(|value| !value.is_empty() && value.len() <= 128 && value.bytes().all(|byte| byte.is_ascii_graphic()))
        .ok_or(RimError::Shape { element, problem: "an attribute is missing, empty or not as expected" })
}

fn is_space(node: Node<'_, '_>) -> bool {
    node.is_text() && node.text().unwrap_or_default().bytes().all(|byte| matches!(byte, b' ' | b'\n' | b'\t'))
}

/// A decimal number as such files write it: digits alone, no leading zero.
fn number(text: &str, most: usize) -> Option<usize> {
    let plain =
        text.len() <= 4 && text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if !plain {
        return None;
    }
    text.parse().ok().filter(|&number| number <= most)
}
