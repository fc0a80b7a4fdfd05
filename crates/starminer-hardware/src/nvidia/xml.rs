//! The part of XML that NVIDIA's signed files use, read strictly, and its canonical form.
//!
//! Parsing is `roxmltree`'s. Before it, [`read`] refuses everything that such files do without and that makes XML signatures go wrong: document types and with them
//! entities, character references, comments, CDATA sections, processing instructions, carriage returns, and elements with so many attributes that
//! a parser's search for duplicates would cost more than the signature. What is left has one canonical form, that of Canonical XML 1.0 and 1.1 alike
//! (they differ in the treatment of `xml:` attributes alone, and those are refused too): [`canonical`].

use roxmltree::{Document, Node, ParsingOptions};

use super::rim::RimError;

/// The longest file that is read. The real ones have 20 to 22 KiB.
pub const MAX_LEN: usize = 128 * 1024;
/// Most nodes (elements and texts) in it.
const MAX_NODES: u32 = 4096;
/// Most tags, opening and closing. The real files have about a hundred.
const MAX_TAGS: usize = 2048;
/// Most attributes of one element, counted as equals signs in its tag.
const MAX_ATTRIBUTES: usize = 64;
/// Most attributes of all elements, counted in the same way. The real files have about five hundred.
const MAX_ALL_ATTRIBUTES: usize = 4096;
/// Most namespace declarations in a file: a parser looks through all of them.
const MAX_NAMESPACES: usize = 32;
/// The deepest nesting of elements.
const MAX_DEPTH: usize = 8;
/// The longest XML declaration.
const MAX_DECLARATION: usize = 80;

/// Reads a file within that part.
pub(super) fn read(bytes: &[u8]) -> Result<Document<'_>, RimError> {
    if bytes.len() > MAX_LEN {
        return Err(RimError::TooLarge { limit: MAX_LEN });
    }
    let text = std::str::from_utf8(bytes).map_err(|_| RimError::Outside("it is not UTF-8"))?;
    let text = without_declaration(text)?;
    prescan(text.as_bytes())?;
    let options = ParsingOptions { allow_dtd: false, nodes_limit: MAX_NODES, ..ParsingOptions::default() };
    Document::parse_with_options(text, options).map_err(|_| RimError::Malformed)
}

/// An XML declaration is no part of the canonical form: it may say UTF-8, or nothing, and is left away.
fn without_declaration(text: &str) -> Result<&str, RimError> {
    let Some(rest) = text.strip_prefix("<?xml ") else { return Ok(text) };
    let problem = RimError::Outside("its XML declaration is not that of XML 1.0 in UTF-8");
    let Some(end) = rest.find("?>").filter(|&end| end <= MAX_DECLARATION) else { return Err(problem) };
    let (declaration, rest) = rest.split_at(end);
    let declaration = declaration.replace('\'', "\"").to_ascii_lowercase();
    match declaration.trim_end() {
        r#"version="1.0""# | r#"version="1.0" encoding="utf-8""# => Ok(&rest["?>".len()..]),
        _ => Err(problem),
    }
}

/// One pass over the bytes, before anything is allocated. Within a tag, `<` cannot stand (not even quoted), so that counts begin anew with each.
fn prescan(bytes: &[u8]) -> Result<(), RimError> {
    let (mut equals, mut all_equals, mut tags, mut namespaces) = (0, 0, 0, 0);
    for (at, &byte) in bytes.iter().enumerate() {
        match byte {
            b'&' => return Err(RimError::Outside("it has entities or character references")),
            b'\r' => return Err(RimError::Outside("it has carriage returns")),
            b'<' => match bytes.get(at + 1) {
                Some(b'!') => return Err(RimError::Outside("it has a document type, a comment or a CDATA section")),
                Some(b'?') => return Err(RimError::Outside("it has processing instructions")),
                _ => {
                    equals = 0;
                    tags += 1;
                    if tags > MAX_TAGS {
                        return Err(RimError::Outside("it has too many elements"));
                    }
                }
            },
            b'=' => {
                equals += 1;
                all_equals += 1;
                if equals > MAX_ATTRIBUTES || all_equals > MAX_ALL_ATTRIBUTES {
                    return Err(RimError::Outside("it has too many attributes"));
                }
            }
            b'x' if bytes[at..].starts_with(b"xmlns") => {
                namespaces += 1;
                if namespaces > MAX_NAMESPACES {
                    return Err(RimError::Outside("it declares too many namespaces"));
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// The canonical form of an element and all beneath it but one element (the signature itself, which an enveloped signature does not cover).
///
/// Inclusive: the outermost element carries every namespace that is in force where it stands.
pub(super) fn canonical(apex: Node<'_, '_>, without: Option<Node<'_, '_>>) -> Result<Vec<u8>, RimError> {
    let mut out = Vec::with_capacity(apex.range().len() * 9 / 8);
    element(&mut out, apex, true, without, 0)?;
    Ok(out)
}

fn element(
    out: &mut Vec<u8>,
    node: Node<'_, '_>,
    apex: bool,
    without: Option<Node<'_, '_>>,
    depth: usize,
) -> Result<(), RimError> {
    if depth > MAX_DEPTH {
        return Err(RimError::Outside("its elements are nested too deep"));
    }
    let name = qualified_name(node)?;
    out.push(b'<');
    out.extend_from_slice(name.as_bytes());
    namespaces(out, node, apex)?;
    attributes(out, node)?;
    out.push(b'>');
    for child in node.children() {
        if Some(child) == without {
            continue;
        }
        if child.is_element() {
            element(out, child, false, without, depth + 1)?;
        } else if child.is_text() {
            escape(out, child.text().unwrap_or_default(), false);
        } else {
            return Err(RimError::Outside("it has nodes that are neither elements nor text"));
        }
    }
    out.extend_from_slice(b"</");
    out.extend_from_slice(name.as_bytes());
    out.push(b'>');
    Ok(())
}

/// The name of an element as it is written, prefix included: two prefixes may stand for one namespace, and canonical XML keeps them apart.
fn qualified_name<'a>(node: Node<'a, '_>) -> Result<&'a str, RimError> {
    let tag = &node.document().input_text()[node.range()];
    let name = tag.strip_prefix('<').ok_or(RimError::Malformed)?;
    let end = name.find([' ', '\t', '\n', '/', '>']).ok_or(RimError::Malformed)?;
    Ok(&name[..end])
}

/// Namespace declarations that the parent does not already have in force, by prefix, the default one first.
fn namespaces(out: &mut Vec<u8>, node: Node<'_, '_>, apex: bool) -> Result<(), RimError> {
    let above = if apex { None } else { node.parent_element() };
    let mut declared = Vec::new();
    for namespace in node.namespaces() {
        let prefix = namespace.name().unwrap_or_default();
        if prefix == "xml" {
            continue;
        }
        if namespace.uri().is_empty() {
            return Err(RimError::Outside("it takes a namespace back"));
        }
        let known = above.is_some_and(|parent| {
            parent.namespaces().any(|other| other.name() == namespace.name() && other.uri() == namespace.uri())
        });
        if !known {
            declared.push((prefix, namespace.uri()));
        }
    }
    declared.sort_unstable();
    for (prefix, uri) in declared {
        out.extend_from_slice(b" xmlns");
        if !prefix.is_empty() {
            out.push(b':');
            out.extend_from_slice(prefix.as_bytes());
        }
        out.extend_from_slice(b"=\"");
        escape(out, uri, true);
        out.push(b'"');
    }
    Ok(())
}

/// Attributes by namespace and local name, those without a namespace first.
fn attributes(out: &mut Vec<u8>, node: Node<'_, '_>) -> Result<(), RimError> {
    let text = node.document().input_text();
    let mut attributes = Vec::new();
    for attribute in node.attributes() {
        let name = &text[attribute.range_qname()];
        if name.starts_with("xml:") {
            return Err(RimError::Outside("it has xml: attributes"));
        }
        attributes.push((attribute.namespace().unwrap_or_default(), attribute.name(), name, attribute.value()));
    }
    attributes.sort_unstable();
    for (_, _, name, value) in attributes {
        out.push(b' ');
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"=\"");
        escape(out, value, true);
        out.push(b'"');
    }
    Ok(())
}

fn escape(out: &mut Vec<u8>, text: &str, attribute: bool) {
    for &byte in text.as_bytes() {
        match byte {
            b'&' => out.extend_from_slice(b"&amp;"),
            b'<' => out.extend_from_slice(b"&lt;"),
            b'>' if !attribute => out.extend_from_slice(b"&gt;"),
            b'"' if attribute => out.extend_from_slice(b"&quot;"),
            b'\t' if attribute => out.extend_from_slice(b"&#x9;"),
            b'\n' if attribute => out.extend_from_slice(b"&#xA;"),
            b'\r' => out.extend_from_slice(b"&#xD;"),
            other => out.push(other),
        }
    }
}
