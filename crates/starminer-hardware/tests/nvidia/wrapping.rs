//! Manifests whose signature is moved, wrapped or weakened, and XML that goes beyond what is read. The file is genuine; what is done to it is not.

use starminer_hardware::nvidia::{MAX_RIM_LEN, Rim};

use super::support::{NOW_S, data, rim_refusal};

fn genuine() -> String {
    String::from_utf8(data("vbios_96.00.74.00.1C.swidtag")).unwrap()
}

/// The signature element, as it stands.
fn signature(text: &str) -> &str {
    let start = text.find("<ds:Signature ").unwrap();
    let end = text.find("</ds:Signature>").unwrap() + "</ds:Signature>".len();
    &text[start..end]
}

/// Replaces what has to be there.
fn swap(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "{from} is not in the file");
    text.replacen(from, to, 1)
}

#[test]
fn signatures_cannot_be_moved_or_weakened() {
    let text = genuine();
    assert_eq!(rim_refusal(text.as_bytes(), NOW_S), None);

    let body = &text[text.find("<ns0:Payload").unwrap()..text.find("<ds:Signature").unwrap()];
    let forged_body = body.replacen("active=\"True\"", "active=\"False\"", 1);
    let root = &text[..=text.find('>').unwrap()];
    let unsigned = text.replacen(signature(&text), "", 1);
    let forged = unsigned.replacen(body.trim_end(), forged_body.trim_end(), 1);
    let close = "</SoftwareIdentity>";
    let cases = [
        // The genuine file inside of another root, which is the one that is read.
        ("wrapped whole", format!("{root}{}{close}", text.trim_end()), "rim-shape"),
        (
            "wrapped, the signature outside",
            format!("{root}{}{}{close}", unsigned.trim_end(), signature(&text)),
            "rim-shape",
        ),
        (
            "forged, the genuine one in an Object",
            swap(
                &forged,
                close,
                &format!(
                    "{}{close}",
                    swap(
                        signature(&text),
                        "</ds:Signature>",
                        &format!("<ds:Object>{}</ds:Object></ds:Signature>", unsigned.trim_end())
                    )
                ),
            ),
            "rim-shape",
        ),
        (
            "a reference by name",
            swap(&swap(&text, "URI=\"\"", "URI=\"#a\""), " corpus=", " Id=\"a\" corpus="),
            "rim-shape",
        ),
        ("a reference by pointer", swap(&text, "URI=\"\"", "URI=\"#xpointer(/)\""), "rim-shape"),
        ("no reference URI", swap(&text, " URI=\"\"", ""), "rim-shape"),
        ("a reference with a type", swap(&text, "URI=\"\"", "URI=\"\" Type=\"\""), "rim-shape"),
        (
            "two payloads, the forged one first",
            swap(&text, body.trim_end(), &format!("{}{body}", forged_body.trim_end())),
            "rim-shape",
        ),
        (
            "two payloads, the forged one last",
            swap(&text, body.trim_end(), &format!("{body}{}", forged_body.trim_end())),
            "rim-shape",
        ),
        ("two signatures", swap(&text, signature(&text), &signature(&text).repeat(2)), "rim-shape"),
        ("no signature", unsigned.clone(), "rim-shape"),
        ("the signature first", swap(&unsigned, root, &format!("{root}{}", signature(&text))), "rim-shape"),
        (
            "the signature in the payload",
            swap(&unsigned, "</ns0:Payload>", &format!("{}</ns0:Payload>", signature(&text))),
            "rim-shape",
        ),
        ("forged", swap(&text, "active=\"True\"", "active=\"False\""), "nvidia.rim-digest"),
        ("another version", swap(&text, "96.00.74.00.1C", "96.00.9F.00.01"), "nvidia.rim-digest"),
        (
            "one more resource",
            swap(
                &text,
                "</ns0:Payload>",
                "<ns0:Resource type=\"Measurement\" index=\"77\" active=\"True\" alternatives=\"1\" ns2:Hash0=\"00\" size=\"1\"/></ns0:Payload>",
            ),
            "nvidia.rim-digest",
        ),
        ("an index twice", swap(&text, "index=\"1\" ", "index=\"0\" "), "rim-shape"),
        (
            "another namespace of the values",
            swap(&text, "xmlns:ns2=\"http://www.w3.org/2001/04/xmlenc#sha384\"", "xmlns:ns2=\"urn:a\""),
            "rim-shape",
        ),
        ("a value more than is said", swap(&text, "alternatives=\"4\"", "alternatives=\"3\""), "rim-shape"),
        ("a weaker digest", swap(&text, "xmldsig-more#sha384", "xmldsig#sha1"), "rim-algorithm"),
        ("a weaker signature", swap(&text, "xmldsig-more#ecdsa-sha384", "xmldsig-more#ecdsa-sha1"), "rim-algorithm"),
        (
            "a shared secret",
            swap(
                &text,
                "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha384",
                "http://www.w3.org/2000/09/xmldsig#hmac-sha1",
            ),
            "rim-algorithm",
        ),
        (
            "exclusive canonicalization",
            swap(&text, "http://www.w3.org/2006/12/xml-c14n11", "http://www.w3.org/2001/10/xml-exc-c14n#"),
            "rim-algorithm",
        ),
        (
            "canonicalization with comments",
            swap(&text, "http://www.w3.org/2006/12/xml-c14n11", "http://www.w3.org/2006/12/xml-c14n11#WithComments"),
            "rim-algorithm",
        ),
        (
            "a transform that selects",
            swap(
                &text,
                "http://www.w3.org/2000/09/xmldsig#enveloped-signature",
                "http://www.w3.org/TR/1999/REC-xpath-19991116",
            ),
            "rim-algorithm",
        ),
        (
            "one more transform",
            swap(
                &text,
                "</ds:Transforms>",
                "<ds:Transform Algorithm=\"http://www.w3.org/TR/1999/REC-xslt-19991116\"/></ds:Transforms>",
            ),
            "rim-shape",
        ),
        (
            "no transform",
            swap(&text, "<ds:Transform Algorithm=\"http://www.w3.org/2000/09/xmldsig#enveloped-signature\"/>", ""),
            "rim-shape",
        ),
        (
            "a truncated output",
            swap(
                &text,
                "ecdsa-sha384\"/>",
                "ecdsa-sha384\"><ds:HMACOutputLength>0</ds:HMACOutputLength></ds:SignatureMethod>",
            ),
            "rim-shape",
        ),
        (
            "the same canonical form by the older name",
            swap(
                &text,
                "<ds:CanonicalizationMethod Algorithm=\"http://www.w3.org/2006/12/xml-c14n11\"",
                "<ds:CanonicalizationMethod Algorithm=\"http://www.w3.org/TR/2001/REC-xml-c14n-20010315\"",
            ),
            "nvidia.rim-signature",
        ),
        (
            "no certificates",
            {
                let start = text.find("<ds:X509Certificate>").unwrap();
                let end = text.find("</ds:X509Data>").unwrap();
                format!("{}{}", &text[..start], &text[end..])
            },
            "rim-shape",
        ),
        ("a key value", swap(&text, "<ds:KeyInfo>", "<ds:KeyInfo><ds:KeyName>a</ds:KeyName>"), "rim-shape"),
        ("text in the signature", swap(&text, "<ds:KeyInfo>", "a<ds:KeyInfo>"), "rim-shape"),
        ("text in the payload", swap(&text, "</ns0:Payload>", "a</ns0:Payload>"), "rim-shape"),
        ("a child of a certificate", swap(&text, "<ds:X509Certificate>", "<ds:X509Certificate><a/>"), "rim-shape"),
        ("an unfinished digest", swap(&text, "</ds:DigestValue>", "=</ds:DigestValue>"), "rim-shape"),
    ];
    for (name, case, code) in cases {
        assert_eq!(rim_refusal(case.as_bytes(), NOW_S).as_deref(), Some(code), "{name}");
    }
}

#[test]
fn xml_beyond_the_subset_is_refused() {
    let text = genuine();
    for (name, case) in [
        ("a document type", format!("<!DOCTYPE SoftwareIdentity>{text}")),
        ("an entity", format!("<!DOCTYPE a [<!ENTITY b \"c\">]>{text}")),
        ("an external entity", format!("<!DOCTYPE a SYSTEM \"file:///etc/passwd\">{text}")),
        ("a comment", swap(&text, "96.00.74", "96.00<!-- -->.74")),
        ("a comment in the signature", swap(&text, "</ds:DigestValue>", "<!-- --></ds:DigestValue>")),
        ("a processing instruction", swap(&text, "<ns0:Payload", "<?a b?><ns0:Payload")),
        ("a CDATA section", swap(&text, "</ns0:Payload>", "<![CDATA[ ]]></ns0:Payload>")),
        ("a character reference", swap(&text, "\"GH100\"", "\"GH10&#48;\"")),
        ("a carriage return", swap(&text, "\n", "\r\n")),
        ("an xml: attribute", swap(&text, "<ns0:Payload", "<ns0:Payload xml:id=\"a\"")),
        ("a namespace taken back", swap(&text, "<ns0:Entity ", "<ns0:Entity xmlns=\"\" ")),
        ("another encoding", format!("<?xml version=\"1.0\" encoding=\"UTF-16\"?>{text}")),
        ("another version", format!("<?xml version=\"1.1\"?>{text}")),
        ("a byte order mark and a declaration later", format!(" <?xml version=\"1.0\"?>{text}")),
        ("nesting", format!("{}{}", "<a>".repeat(20), "</a>".repeat(20))),
    ] {
        let error = Rim::parse(case.as_bytes()).expect_err(name);
        assert!(["rim-outside-subset", "rim-malformed", "rim-shape"].contains(&error.code()), "{name}: {error}");
    }
    let mut latin = text.into_bytes();
    latin[200] = 0xe9;
    assert_eq!(Rim::parse(&latin).expect_err("not UTF-8").code(), "rim-outside-subset");
}

#[test]
fn a_declaration_changes_nothing() {
    let text = genuine();
    for declaration in [
        "<?xml version=\"1.0\"?>",
        "<?xml version='1.0' encoding='UTF-8'?>\n",
        "<?xml version=\"1.0\" encoding=\"utf-8\" ?>",
    ] {
        assert_eq!(rim_refusal(format!("{declaration}{text}").as_bytes(), NOW_S), None, "{declaration}");
    }
    // Order of attributes, quotes and blanks within tags are no part of the canonical form either.
    let other = swap(
        &text,
        "name=\"NVIDIA Corporation\" role=\"softwareCreator tagCreator\"/>",
        "role='softwareCreator tagCreator'\n name = 'NVIDIA Corporation'></ns0:Entity >",
    );
    assert_eq!(rim_refusal(other.as_bytes(), NOW_S), None);
}

#[test]
fn bombs_are_refused_before_they_cost_anything() {
    let open = "<a b=\"\">";
    let bombs = [
        ("too long", vec![b' '; MAX_RIM_LEN + 1], "rim-too-large"),
        (
            "attributes",
            format!("<a {}/>", (0..12_000).map(|at| format!("b{at}=\"\" ")).collect::<String>()).into_bytes(),
            "rim-outside-subset",
        ),
        (
            "namespaces",
            (0..5_000).map(|at| format!("<a xmlns:n{at}=\"a\">")).collect::<String>().into_bytes(),
            "rim-outside-subset",
        ),
        ("nesting", open.repeat(MAX_RIM_LEN / open.len()).into_bytes(), "rim-outside-subset"),
        ("nesting of few", open.repeat(20).into_bytes(), "rim-malformed"),
        ("siblings", format!("<a>{}</a>", "<b/>".repeat(30_000)).into_bytes(), "rim-outside-subset"),
        ("laughs", b"<!DOCTYPE a [<!ENTITY b \"cc\"><!ENTITY d \"&b;&b;\">]><a>&d;</a>".to_vec(), "rim-outside-subset"),
    ];
    for (name, bomb, code) in bombs {
        let error = Rim::parse(&bomb).expect_err(name);
        assert_eq!(error.code(), code, "{name}: {error}");
    }
}
