//! CSV and the look at a model before it is decoded: tables of single inputs.

#![allow(clippy::unwrap_used)]

use super::csv::*;
use super::scan::scan;

/// All rows of `text`, fed `piece` bytes at a time.
fn rows(text: &[u8], piece: usize) -> Result<Vec<(u64, Vec<String>)>, CsvError> {
    let mut lines = Lines::new();
    let mut rows = Vec::new();
    let mut pieces = text.chunks(piece).chain([&[][..]]);
    loop {
        while lines.advance()? {
            let (row, line) = lines.line();
            let mut fields = Vec::new();
            split(row, line, &mut fields)?;
            rows.push((row, fields.iter().map(|field| String::from_utf8_lossy(field).into_owned()).collect()));
        }
        match pieces.next() {
            Some(piece) => lines.feed(piece),
            None => return Ok(rows),
        }
    }
}

/// Rows with their numbers, or the place and kind of an error.
type Expected<'e> = Result<&'e [(u64, &'e [&'e str])], (u64, usize, CsvProblem)>;

fn check_rows(text: &str, expected: Expected<'_>) {
    let expected = expected
        .map(|rows| {
            rows.iter().map(|(row, fields)| (*row, fields.iter().map(|f| f.to_string()).collect())).collect::<Vec<_>>()
        })
        .map_err(|(row, column, problem)| CsvError { row, column, problem });
    for piece in [1, 2, 3, 7, 64 * 1024] {
        assert_eq!(rows(text.as_bytes(), piece), expected, "{text:?} in pieces of {piece}");
    }
}

#[test]
fn csv_is_read_as_rfc_4180_says() {
    check_rows("", Ok(&[]));
    check_rows("a,b", Ok(&[(1, &["a", "b"])]));
    check_rows("a,b\r\n1,2\r\n", Ok(&[(1, &["a", "b"]), (2, &["1", "2"])]));
    check_rows("a\n\n\nb\n\n", Ok(&[(1, &["a"]), (4, &["b"])]));
    check_rows("a,,\n", Ok(&[(1, &["a", "", ""])]));
    check_rows(",", Ok(&[(1, &["", ""])]));
    check_rows("\"x,\"\"y\"\"\n2\",z\n3", Ok(&[(1, &["x,\"y\"\n2", "z"]), (2, &["3"])]));
    check_rows("\"\",\"\"\"\"\n", Ok(&[(1, &["", "\""])]));
    check_rows("a\n\"b", Err((2, 0, CsvProblem::Quote)));
    check_rows("a\nb,x\"y\"\n", Err((2, 2, CsvProblem::Quote)));
    check_rows("\"a\"b,c\n", Err((1, 1, CsvProblem::Quote)));
}

#[test]
fn lines_and_columns_are_bounded() {
    let long = "a".repeat(MAX_LINE_BYTES + 1);
    assert_eq!(rows(long.as_bytes(), 1 << 16).unwrap_err().problem, CsvProblem::LineTooLong);
    assert_eq!(rows(format!("{long}\n").as_bytes(), 1 << 22).unwrap_err().problem, CsvProblem::LineTooLong);
    assert_eq!(rows(&long.as_bytes()[1..], 1 << 16).unwrap().len(), 1);
    let wide = ",".repeat(MAX_COLUMNS);
    assert_eq!(rows(wide.as_bytes(), 1 << 16).unwrap_err().problem, CsvProblem::TooManyColumns);
    assert_eq!(rows(&wide.as_bytes()[1..], 1 << 16).unwrap()[0].1.len(), MAX_COLUMNS);
}

#[test]
fn numbers_are_finite_decimals() {
    for (text, expected) in [
        ("1", Some(1.0)),
        (" -1.5e3\t", Some(-1500.0)),
        (".5", Some(0.5)),
        ("+2.", Some(2.0)),
        ("1e-60", Some(0.0)),
        ("", None),
        (" ", None),
        ("nan", None),
        ("inf", None),
        ("1e39", None),
        ("0x10", None),
        ("1,5", None),
        ("1 2", None),
        ("e", None),
    ] {
        assert_eq!(number(text.as_bytes()), expected, "{text:?}");
    }
    assert_eq!(number(b"\xff"), None);
}

#[test]
fn fields_are_written_so_that_they_read_back() {
    for field in ["plain", "with,comma", "with \"quotes\"", "line\nbreak", "cr\r", ""] {
        let mut text = Vec::new();
        push_field(&mut text, field.as_bytes());
        text.extend_from_slice(b",end\n");
        assert_eq!(rows(&text, 5).unwrap(), [(1, vec![field.to_owned(), "end".to_owned()])], "{field:?}");
    }
}

#[test]
fn no_bytes_make_the_reader_panic() {
    let good = b"id,\"a \"\"b\"\"\",c\r\n1,2.5e-3,\"x\ny\"\n\n,,\n";
    for at in 0..good.len() {
        for byte in [b'"', b',', b'\n', b'\r', 0, 0xff, b'e'] {
            let mut text = good.to_vec();
            text[at] = byte;
            for piece in [1, 3, 64] {
                read_all(&text, piece);
                read_all(&text[..at], piece);
            }
        }
    }
}

/// A field of a protocol-buffers message.
fn field(number: u8, value: &[u8]) -> Vec<u8> {
    assert!(value.len() < 128);
    [&[number << 3 | 2, value.len() as u8], value].concat()
}

fn number_field(number: u8, value: u8) -> Vec<u8> {
    vec![number << 3, value]
}

fn model(graph: &[u8]) -> Vec<u8> {
    [number_field(1, 8), field(7, graph)].concat()
}

fn node(operator: &str, rest: &[u8]) -> Vec<u8> {
    field(1, &[field(4, operator.as_bytes()), rest.to_vec()].concat())
}

#[test]
fn models_are_judged_before_they_are_decoded() {
    let tensor = |dimensions: &[u8], rest: &[u8]| [field(1, dimensions), rest.to_vec()].concat();
    let with_initializer = |tensor: &[u8]| model(&[node("Relu", b""), field(5, tensor)].concat());
    let attribute = |content: &[u8]| model(&node("Relu", &field(5, content)));
    let graph_twice = [model(&node("Relu", b"")), field(7, &node("Loop", b""))].concat();
    for (what, bytes, expected) in [
        ("a model", model(&node("Relu", b"")), None),
        ("a tensor", with_initializer(&tensor(&[2, 3], &field(9, &[0; 24]))), None),
        ("nothing", vec![], Some("engine.onnx.not-a-model")),
        ("text", b"hello world, this is no model".to_vec(), Some("engine.onnx.not-a-model")),
        ("a zip file", b"PK\x03\x04\x14\0\0\0\x08\0".to_vec(), Some("engine.onnx.not-a-model")),
        ("an empty graph", model(b""), Some("engine.onnx.not-a-model")),
        ("no version", field(7, &node("Relu", b"")), Some("engine.onnx.not-a-model")),
        ("two graphs", graph_twice, Some("engine.onnx.not-a-model")),
        ("cut short", model(&node("Relu", b""))[..8].to_vec(), Some("engine.onnx.not-a-model")),
        ("a huge tensor", with_initializer(&tensor(&[0xff, 0xff, 0xff, 0x7f], b"")), Some("engine.onnx.not-a-model")),
        ("an overflowing tensor", with_initializer(&number_field(1, 127).repeat(10)), Some("engine.onnx.not-a-model")),
        ("an unknown operator", model(&node("Frobnicate", b"")), Some("engine.onnx.unsupported-op")),
        ("another domain", model(&node("Relu", &field(7, b"com.evil"))), Some("engine.onnx.unsupported-op")),
        ("randomness", model(&node("RandomNormal", b"")), Some("engine.onnx.unsupported-op")),
        ("a loop's body", attribute(&field(6, &node("Relu", b""))), Some("engine.onnx.unsupported-op")),
        ("another file", with_initializer(&tensor(&[1], &field(13, b"x"))), Some("engine.onnx.unsupported-model")),
        ("a file in an attribute", attribute(&field(5, &number_field(14, 1))), Some("engine.onnx.unsupported-model")),
        ("sparse tensors", model(&[node("Relu", b""), field(15, b"")].concat()), Some("engine.onnx.unsupported-model")),
    ] {
        let found = scan(&bytes, &|name| matches!(name, "Relu" | "RandomNormal" | "Loop"));
        assert_eq!(found.err().map(|refusal| refusal.code()), expected, "{what}");
    }
}

#[test]
fn a_model_of_too_many_parts_is_refused() {
    let nodes = node("Relu", b"").repeat(60_000);
    let mut bytes = number_field(1, 8);
    bytes.push(7 << 3 | 2);
    let mut len = nodes.len();
    while len >= 128 {
        bytes.push(len as u8 | 128);
        len >>= 7;
    }
    bytes.push(len as u8);
    bytes.extend(nodes);
    assert_eq!(scan(&bytes, &|_| true).unwrap_err().code(), "engine.onnx.too-large");
}

#[test]
fn no_bytes_make_the_scan_panic() {
    let good = model(&[node("Relu", &field(5, &field(5, &field(1, &[2, 3])))), field(5, &field(1, &[1]))].concat());
    for at in 0..good.len() {
        for byte in 0..=255 {
            let mut bytes = good.clone();
            bytes[at] = byte;
            let _ = scan(&bytes, &|_| true);
        }
        let _ = scan(&good[..at], &|_| true);
    }
}
