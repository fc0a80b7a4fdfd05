//! Writes `vectors/vault/` anew: `cargo run --release -p starminer-vault --example write_vectors`.
//!
//! What each refusal must be is written down here by hand, and the test that reads the vectors holds the code to it.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::sync::Mutex;

use serde::Serialize;
use starminer_vault::object::{HEADER_LEN, Header, seal_bytes};
use starminer_vault::scratch::{Opening, PAGE_BYTES, ScratchOptions, Superblock};
use starminer_vault::{Salt, Scratch, ScratchContext, Sequence, TaskSecret, commit};

#[path = "../tests/vector_format/mod.rs"]
mod vector_format;
use vector_format::{
    Context, Keys, ObjectCommitment, Objects, PageRead, Piece, PlaintextCommitment, RefusedObject, STORE_HISTORY,
    ScratchCommitment, SealedObject, StoreCase, Stores, array, base64, hex, join, options, path, plaintext,
    store_image,
};

fn main() {
    fs::create_dir_all(path("")).unwrap();
    write("keys.json", &keys());
    write("object.json", &objects());
    write("scratch.json", &stores());
}

fn write(file: &str, vectors: &impl Serialize) {
    let mut json = serde_json::to_string_pretty(vectors).unwrap();
    json.push('\n');
    fs::write(path(file), json).unwrap();
}

fn repeat<const N: usize>(byte: u8) -> String {
    hex(&[byte; N])
}

fn context() -> Context {
    Context {
        secret: repeat::<32>(0x11),
        task: repeat::<16>(0x22),
        purpose: "input".into(),
        name: "input/data.csv".into(),
    }
}

fn keys() -> Keys {
    let plaintext_commitment = |secret: u8, task: u8, label: &str, digest: u8| {
        let made = commit(&TaskSecret::from_bytes([secret; 32]), &[task; 16], label, &[digest; 32]);
        PlaintextCommitment {
            secret: repeat::<32>(secret),
            task: repeat::<16>(task),
            label: label.into(),
            plain_sha256: repeat::<32>(digest),
            commitment: hex(&made),
        }
    };
    let object = |context: Context, salt: u8, chunk_size_log2: u8| {
        let salt_value = Salt::from_random([salt; 32]);
        let options = options(chunk_size_log2);
        let sealed = seal_bytes(&context.secret(), &context.object(), salt_value, options, b"");
        let commitment = hex(&Header::parse(&sealed.unwrap().0).unwrap().commitment);
        ObjectCommitment { context, salt: repeat::<32>(salt), chunk_size_log2, commitment }
    };
    let scratch = |name: &str, salt: u8| {
        let store = Mutex::new(Vec::new());
        let context = ScratchContext { task: [0x22; 16], name };
        let opening = Opening { salt: Salt::from_random([salt; 32]), attempt: 1 };
        let secret = TaskSecret::from_bytes([0x11; 32]);
        let made = Scratch::create(store, &secret, &context, opening, ScratchOptions::default());
        let mut made = made.unwrap();
        made.checkpoint().unwrap();
        let image = made.into_store().into_inner().unwrap();
        ScratchCommitment {
            secret: repeat::<32>(0x11),
            task: repeat::<16>(0x22),
            name: name.into(),
            salt: repeat::<32>(salt),
            commitment: hex(&Superblock::parse(&image).unwrap().commitment),
        }
    };
    let with = |change: &dyn Fn(&mut Context)| {
        let mut changed = context();
        change(&mut changed);
        changed
    };
    Keys {
        plaintext_commitments: vec![
            plaintext_commitment(0x11, 0x22, "input/data.csv", 0x44),
            plaintext_commitment(0x12, 0x22, "input/data.csv", 0x44),
            plaintext_commitment(0x11, 0x23, "input/data.csv", 0x44),
            plaintext_commitment(0x11, 0x22, "input/data.cs", 0x44),
            plaintext_commitment(0x11, 0x22, "input/data.csv", 0x45),
            plaintext_commitment(0x11, 0x22, "", 0x44),
            plaintext_commitment(0x11, 0x22, "Übersicht/日本.csv", 0x44),
        ],
        object_commitments: vec![
            object(context(), 0x33, 16),
            object(context(), 0x34, 16),
            object(context(), 0x33, 12),
            object(with(&|c| c.secret = repeat::<32>(0x12)), 0x33, 16),
            object(with(&|c| c.task = repeat::<16>(0x23)), 0x33, 16),
            object(with(&|c| c.purpose = "output".into()), 0x33, 16),
            object(with(&|c| c.purpose = "scratch".into()), 0x33, 16),
            object(with(&|c| c.purpose = "file".into()), 0x33, 16),
            object(with(&|c| c.name = "Übersicht/日本.csv".into()), 0x33, 16),
            object(with(&|c| c.name = String::new()), 0x33, 16),
            object(with(&|c| c.name = "x".repeat(1024)), 0x33, 16),
        ],
        scratch_commitments: vec![scratch("work", 0x33), scratch("", 0x33), scratch("work", 0x34)],
    }
}

const CHUNK: usize = 4096;
const SEALED: usize = CHUNK + 16;

fn sealed_object(id: &str, context: Context, salt: u8, log2: u8, plain_len: usize) -> SealedObject {
    let salt_value = Salt::from_random([salt; 32]);
    let plain = plaintext(plain_len);
    let made = seal_bytes(&context.secret(), &context.object(), salt_value, options(log2), &plain);
    let (sealed, summary) = made.unwrap();
    SealedObject {
        id: id.into(),
        context,
        salt: repeat::<32>(salt),
        chunk_size_log2: log2,
        plain_len,
        plain_sha256: hex(&summary.plain_sha256.unwrap()),
        content_id: summary.content_id.unwrap().to_string(),
        sealed: hex(&sealed),
    }
}

fn cut(of: &str, from: usize, to: usize) -> Piece {
    Piece::Cut { of: of.into(), from, to }
}

fn literal(bytes: &[u8]) -> Piece {
    Piece::Literal { hex: hex(bytes) }
}

/// Chunk `index` of an object of four chunks, the last of 100 bytes.
fn chunk(of: &str, index: usize) -> Piece {
    let from = HEADER_LEN + index * SEALED;
    cut(of, from, if index == 3 { from + 116 } else { from + SEALED })
}

fn objects() -> Objects {
    let mut other_name = context();
    other_name.name = "input/other.csv".into();
    let objects = vec![
        sealed_object("empty", context(), 0x33, 12, 0),
        sealed_object("one-byte", context(), 0x33, 12, 1),
        sealed_object("small-in-64-KiB", context(), 0x33, 16, 1000),
        sealed_object("small-in-1-MiB", context(), 0x33, 20, 1000),
        sealed_object("one-full-chunk", context(), 0x33, 12, CHUNK),
        sealed_object("one-chunk-and-a-byte", context(), 0x33, 12, CHUNK + 1),
        sealed_object("long", context(), 0x33, 12, 3 * CHUNK + 100),
        sealed_object("other-salt", context(), 0x34, 12, 3 * CHUNK + 100),
        sealed_object("other-name", other_name, 0x33, 12, 3 * CHUNK + 100),
    ];
    let mut refused = Refused { objects: &objects, cases: Vec::new() };
    refused.headers();
    refused.contexts();
    refused.chunks();
    refused.lengths();
    let refused = refused.cases;
    Objects { objects, refused }
}

struct Refused<'a> {
    objects: &'a [SealedObject],
    cases: Vec<RefusedObject>,
}

impl Refused<'_> {
    fn len(&self, of: &str) -> usize {
        self.objects.iter().find(|object| object.id == of).unwrap().sealed.len() / 2
    }

    fn add(&mut self, id: &str, pieces: Vec<Piece>, error: &str, stream: (&str, usize)) {
        self.cases.push(RefusedObject {
            id: id.into(),
            context: context(),
            pieces,
            error: format!("vault.object.{error}"),
            stream_error: format!("vault.object.{}", stream.0),
            stream_gives: stream.1,
        });
    }

    /// `long` with the bytes at `at` replaced.
    fn replace(&mut self, id: &str, at: usize, bytes: &[u8], error: &str, stream_gives: usize) {
        let pieces = vec![cut("long", 0, at), literal(bytes), cut("long", at + bytes.len(), self.len("long"))];
        self.add(id, pieces, error, (error, stream_gives));
    }

    /// `long` with one bit of the byte at `at` flipped.
    fn flip(&mut self, id: &str, at: usize, error: &str, stream_gives: usize) {
        let long = self.objects.iter().find(|object| object.id == "long").unwrap();
        let byte: [u8; 1] = array(&long.sealed[2 * at..2 * at + 2]);
        self.replace(id, at, &[byte[0] ^ 1], error, stream_gives);
    }

    fn headers(&mut self) {
        self.replace("magic", 0, b"smobject", "not-an-object", 0);
        self.replace("version-0", 8, &[0, 0], "version", 0);
        self.replace("version-2", 8, &[0, 2], "version", 0);
        self.replace("version-256", 8, &[1, 0], "version", 0);
        self.replace("chunk-size-2-KiB", 10, &[11], "chunk-size", 0);
        self.replace("chunk-size-2-MiB", 10, &[21], "chunk-size", 0);
        self.replace("chunk-size-0", 10, &[0], "chunk-size", 0);
        self.replace("chunk-size-other", 10, &[13], "key", 0);
        self.replace("reserved-first", 11, &[1], "reserved", 0);
        self.replace("reserved-last", 15, &[0x80], "reserved", 0);
        self.flip("salt-first", 16, "key", 0);
        self.flip("salt-last", 47, "key", 0);
        self.flip("commitment-first", 48, "key", 0);
        self.flip("commitment-last", 79, "key", 0);
        self.replace("commitment-zero", 48, &[0; 32], "key", 0);
    }

    fn contexts(&mut self) {
        let whole = vec![cut("long", 0, self.len("long"))];
        let mut with = |id: &str, change: &dyn Fn(&mut Context)| {
            self.add(id, whole.clone(), "key", ("key", 0));
            if let Some(case) = self.cases.last_mut() {
                change(&mut case.context);
            }
        };
        with("another-secret", &|c| c.secret = repeat::<32>(0x12));
        with("another-task", &|c| c.task = repeat::<16>(0x23));
        with("another-purpose", &|c| c.purpose = "output".into());
        with("another-name", &|c| c.name = "input/other.csv".into());
        with("a-shorter-name", &|c| c.name = "input/data.cs".into());
        with("a-name-in-other-case", &|c| c.name = "input/Data.csv".into());
        with("no-name", &|c| c.name = String::new());
    }

    fn chunks(&mut self) {
        self.flip("first-chunk-first-byte", HEADER_LEN, "chunk", 0);
        self.flip("first-chunk-last-byte", HEADER_LEN + CHUNK - 1, "chunk", 0);
        self.flip("first-chunk-tag", HEADER_LEN + CHUNK, "chunk", 0);
        self.flip("second-chunk", HEADER_LEN + SEALED + 7, "chunk", CHUNK);
        self.flip("third-chunk-tag-end", HEADER_LEN + 3 * SEALED - 1, "chunk", 2 * CHUNK);
        self.flip("last-chunk", HEADER_LEN + 3 * SEALED, "end", 3 * CHUNK);
        self.flip("last-chunk-tag-end", self.len("long") - 1, "end", 3 * CHUNK);
        let header = cut("long", 0, HEADER_LEN);
        let long = |order: [usize; 4]| -> Vec<Piece> {
            let chunks = order.iter().map(|index| chunk("long", *index));
            std::iter::once(header.clone()).chain(chunks).collect()
        };
        self.add("first-two-swapped", long([1, 0, 2, 3]), "chunk", ("chunk", 0));
        self.add("middle-two-swapped", long([0, 2, 1, 3]), "chunk", ("chunk", CHUNK));
        self.add("second-repeated", long([0, 1, 1, 3]), "chunk", ("chunk", 2 * CHUNK));
        for (id, other) in [("other-salt", "other-salt"), ("other-name", "other-name")] {
            for index in [0, 1, 3] {
                let mut pieces = long([0, 1, 2, 3]);
                pieces[index + 1] = chunk(other, index);
                let error = if index == 3 { "end" } else { "chunk" };
                let id = format!("chunk-{index}-of-{id}");
                self.add(&id, pieces, error, (error, index * CHUNK));
            }
            let mut pieces = long([0, 1, 2, 3]);
            pieces[0] = cut(other, 0, HEADER_LEN);
            // Under the other salt the header is genuine, and none of the chunks is.
            let (error, stream) = if other == "other-salt" { ("end", "chunk") } else { ("key", "key") };
            self.add(&format!("header-of-{id}"), pieces, error, (stream, 0));
        }
    }

    fn lengths(&mut self) {
        let long = self.len("long");
        let mut cut_to = |len: usize, error: &str, stream: (&str, usize)| {
            self.add(&format!("cut-to-{len}"), vec![cut("long", 0, len)], error, stream);
        };
        cut_to(0, "length", ("length", 0));
        cut_to(79, "length", ("length", 0));
        cut_to(80, "length", ("length", 0));
        cut_to(81, "length", ("length", 0));
        cut_to(95, "length", ("length", 0));
        cut_to(96, "end", ("end", 0));
        cut_to(97, "end", ("end", 0));
        cut_to(HEADER_LEN + SEALED - 1, "end", ("end", 0));
        cut_to(HEADER_LEN + SEALED, "end", ("end", 0));
        cut_to(HEADER_LEN + SEALED + 1, "length", ("length", CHUNK));
        cut_to(HEADER_LEN + SEALED + 16, "length", ("length", CHUNK));
        cut_to(HEADER_LEN + SEALED + 17, "end", ("end", CHUNK));
        cut_to(HEADER_LEN + 3 * SEALED, "end", ("end", 2 * CHUNK));
        cut_to(HEADER_LEN + 3 * SEALED + 16, "length", ("length", 3 * CHUNK));
        cut_to(long - 1, "end", ("end", 3 * CHUNK));

        let mut drop_chunks = |id: &str, indices: &[usize], error: &str, stream: (&str, usize)| {
            let mut pieces = vec![cut("long", 0, HEADER_LEN)];
            pieces.extend(indices.iter().map(|index| chunk("long", *index)));
            self.add(id, pieces, error, stream);
        };
        drop_chunks("without-the-first", &[1, 2, 3], "end", ("chunk", 0));
        drop_chunks("without-the-third", &[0, 1, 3], "end", ("end", 2 * CHUNK));
        drop_chunks("only-the-last", &[3], "end", ("end", 0));

        let mut extend = |id: &str, of: &str, more: Piece, error: &str, stream: (&str, usize)| {
            let pieces = vec![cut(of, 0, self.len(of)), more];
            self.add(id, pieces, error, stream);
        };
        extend("long-and-a-zero", "long", literal(&[0]), "end", ("end", 3 * CHUNK));
        extend("long-and-its-last-chunk", "long", chunk("long", 3), "end", ("end", 3 * CHUNK));
        extend("full-and-a-zero", "one-full-chunk", literal(&[0]), "length", ("chunk", 0));
        extend("full-and-16-zeros", "one-full-chunk", literal(&[0; 16]), "length", ("chunk", 0));
        extend("full-and-17-zeros", "one-full-chunk", literal(&[0; 17]), "end", ("chunk", 0));
        extend("empty-and-a-zero", "empty", literal(&[0]), "end", ("end", 0));
        let empty_chunk = cut("empty", HEADER_LEN, HEADER_LEN + 16);
        extend("full-and-an-empty-chunk", "one-full-chunk", empty_chunk, "length", ("chunk", 0));
    }
}

fn stores() -> Stores {
    let (image, [first, second]) = store_image();
    let whole = StoreCase {
        id: "untouched".into(),
        secret: repeat::<32>(0x11),
        task: repeat::<16>(0x22),
        name: "work".into(),
        salt: repeat::<32>(0x34),
        attempt: 2,
        at_least: second.0,
        pieces: vec![cut("image", 0, image.len())],
        open_error: None,
        reads: vec![plain(0, 0xb0), plain(1, 0xa1)],
    };
    let mut cases = StoreCases { image: &image, whole, cases: Vec::new() };
    cases.openings(first);
    cases.superblocks(first);
    cases.pages();
    let cases = cases.cases;
    Stores { history: STORE_HISTORY.into(), image: base64(&image), cases }
}

fn plain(page: u64, byte: u8) -> PageRead {
    PageRead { file: 1, page, plain: Some(byte), error: None }
}

fn page_error(page: u64, error: &str) -> PageRead {
    PageRead { file: 1, page, plain: None, error: Some(format!("vault.scratch.{error}")) }
}

struct StoreCases<'a> {
    image: &'a [u8],
    whole: StoreCase,
    cases: Vec<StoreCase>,
}

impl StoreCases<'_> {
    fn add(&mut self, id: &str, change: impl FnOnce(&mut StoreCase)) {
        let mut case = StoreCase { id: id.into(), ..self.whole.clone() };
        change(&mut case);
        self.cases.push(case);
    }

    fn refused(&mut self, id: &str, error: &str, change: impl FnOnce(&mut StoreCase)) {
        self.add(id, |case| {
            change(case);
            case.open_error = Some(format!("vault.scratch.{error}"));
            case.reads.clear();
        });
    }

    /// The image with the bytes at `at` replaced.
    fn replaced(&self, at: usize, with: Piece) -> Vec<Piece> {
        let len = join(std::slice::from_ref(&with), |_| self.image).len();
        let mut pieces = vec![cut("image", 0, at), with];
        if at + len < self.image.len() {
            pieces.push(cut("image", at + len, self.image.len()));
        }
        pieces
    }

    fn flipped(&self, at: usize) -> Vec<Piece> {
        self.replaced(at, literal(&[self.image[at] ^ 1]))
    }

    fn openings(&mut self, first: Sequence) {
        self.add("untouched", |_| ());
        self.add("nothing-remembered", |case| case.at_least = 0);
        self.add("an-older-checkpoint-remembered", |case| case.at_least = first.0);
        self.refused("a-newer-checkpoint-remembered", "rolled-back", |case| case.at_least += 1);
        self.refused("a-later-attempt-remembered", "rolled-back", |case| case.at_least = 2 << 32);
        self.refused("the-same-attempt", "attempt", |case| case.attempt = 1);
        self.refused("an-earlier-attempt", "attempt", |case| case.attempt = 0);
        self.refused("the-same-salt", "salt-reused", |case| case.salt = repeat::<32>(0x33));
        self.refused("another-secret", "key", |case| case.secret = repeat::<32>(0x12));
        self.refused("another-task", "key", |case| case.task = repeat::<16>(0x23));
        self.refused("another-name", "key", |case| case.name = "walk".into());
    }

    fn superblocks(&mut self, first: Sequence) {
        // The newer superblock is in slot 1, and the older one stands behind whatever happens to it.
        for (id, at) in [
            ("magic", 0),
            ("version", 9),
            ("page-size", 10),
            ("reserved", 15),
            ("salt", 16),
            ("commitment", 79),
            ("sequence", 87),
            ("generation", 95),
            ("root-length", 99),
            ("root", 110),
            ("root-tag", 155),
        ] {
            let pieces = self.flipped(PAGE_BYTES + at);
            let copy = pieces.clone();
            self.refused(&format!("newer-superblock-{id}"), "rolled-back", |case| case.pieces = copy);
            self.add(&format!("newer-superblock-{id}-not-remembered"), |case| {
                case.pieces = pieces;
                case.at_least = first.0;
                case.reads = vec![plain(0, 0xa0), plain(1, 0xa1)];
            });
        }
        let pieces = self.flipped(100);
        self.add("older-superblock-altered", |case| case.pieces = pieces);
        let pieces = self.replaced(PAGE_BYTES, cut("image", 0, PAGE_BYTES));
        self.refused("older-superblock-in-both-slots", "rolled-back", |case| case.pieces = pieces);
        let swapped = vec![
            cut("image", PAGE_BYTES, 2 * PAGE_BYTES),
            cut("image", 0, PAGE_BYTES),
            cut("image", 2 * PAGE_BYTES, self.image.len()),
        ];
        self.add("superblocks-swapped", |case| case.pieces = swapped);
        let both = |at: usize, bytes: &[u8]| {
            vec![
                cut("image", 0, at),
                literal(bytes),
                cut("image", at + bytes.len(), PAGE_BYTES + at),
                literal(bytes),
                cut("image", PAGE_BYTES + at + bytes.len(), self.image.len()),
            ]
        };
        let cases = [
            ("no-superblocks", "no-checkpoint", both(0, &[0; 8])),
            ("both-superblocks-version-2", "version", both(8, &[0, 2])),
            ("both-superblocks-other-salt", "key", both(16, &[9; 32])),
            ("both-superblocks-sequence", "superblock", both(80, &[0xff; 8])),
            ("both-superblocks-root-too-long", "superblock", both(96, &[0, 0, 0xff, 0x8d])),
            ("both-superblocks-root-shorter", "superblock", both(96, &[0, 0, 0, 39])),
            ("both-superblocks-root-empty", "superblock", both(96, &[0, 0, 0, 0])),
        ];
        for (id, error, pieces) in cases {
            self.refused(id, error, |case| case.pieces = pieces);
        }
        self.refused("empty-store", "no-checkpoint", |case| case.pieces = Vec::new());
        self.refused("superblocks-only", "truncated", |case| {
            case.pieces = vec![cut("image", 0, 2 * PAGE_BYTES)];
        });
    }

    fn pages(&mut self) {
        let slot = |number: usize| number * PAGE_BYTES;
        let of_slot = |number: usize| cut("image", slot(number), slot(number + 1));
        let page_0 = || vec![page_error(0, "page"), plain(1, 0xa1)];
        let page_1 = || vec![plain(0, 0xb0), page_error(1, "page")];
        let pieces = self.replaced(slot(5), of_slot(2));
        self.add("older-page-put-back", |case| (case.pieces, case.reads) = (pieces, page_0()));
        let pieces = self.replaced(slot(5), of_slot(3));
        self.add("page-1-in-place-of-0", |case| (case.pieces, case.reads) = (pieces, page_0()));
        let pieces = self.replaced(slot(3), of_slot(5));
        self.add("page-0-in-place-of-1", |case| (case.pieces, case.reads) = (pieces, page_1()));
        let pieces = self.replaced(slot(3), of_slot(6));
        self.add("directory-in-place-of-1", |case| (case.pieces, case.reads) = (pieces, page_1()));
        for (id, at) in [("first", 0), ("last", PAGE_BYTES - 1)] {
            let pieces = self.flipped(slot(5) + at);
            self.add(&format!("page-0-{id}-byte"), |case| (case.pieces, case.reads) = (pieces, page_0()));
            let pieces = self.flipped(slot(6) + at);
            self.refused(&format!("directory-{id}-byte"), "directory", |case| case.pieces = pieces);
        }
        let pieces = self.flipped(slot(2));
        self.add("unused-slot-altered", |case| case.pieces = pieces);
        let pieces = self.replaced(slot(6), of_slot(4));
        self.refused("older-directory", "directory", |case| case.pieces = pieces);
        let pieces = self.replaced(slot(6), of_slot(3));
        self.refused("page-in-place-of-directory", "directory", |case| case.pieces = pieces);
        for len in [slot(7) - 1, slot(6), slot(5), slot(3) + 1] {
            let pieces = vec![cut("image", 0, len)];
            self.refused(&format!("cut-to-{len}"), "truncated", |case| case.pieces = pieces);
        }
        let mut longer = self.whole.pieces.clone();
        longer.push(literal(&[0xff; 100]));
        self.add("extended", |case| case.pieces = longer);
    }
}
