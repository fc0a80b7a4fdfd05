#!/usr/bin/env python3
"""Writes the JSON vectors of this directory.

A second implementation, straight from the texts and sharing no code with the crate: RFC 6962 section 2.1 by its
recursive definitions, notes and cosignatures by hand, Ed25519 from OpenSSL (Debian: python3-cryptography).
Deterministic: run it again and nothing changes. What a case must come to is written by hand, not computed.
"""
import base64
import copy
import hashlib
import json
import pathlib
import struct

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

HERE = pathlib.Path(__file__).parent


# -- RFC 6962 section 2.1, literally

def sha(data):
    return hashlib.sha256(data).digest()


def split(n):
    k = 1
    while k * 2 < n:
        k *= 2
    return k


def mth(d):
    if not d:
        return sha(b"")
    if len(d) == 1:
        return sha(b"\0" + d[0])
    k = split(len(d))
    return sha(b"\1" + mth(d[:k]) + mth(d[k:]))


def path(m, d):
    if len(d) == 1:
        return []
    k = split(len(d))
    return path(m, d[:k]) + [mth(d[k:])] if m < k else path(m - k, d[k:]) + [mth(d[:k])]


def subproof(m, d, whole):
    n = len(d)
    if m == n:
        return [] if whole else [mth(d)]
    k = split(n)
    if m <= k:
        return subproof(m, d[:k], whole) + [mth(d[k:])]
    return subproof(m - k, d[k:], False) + [mth(d[:k])]


def proof(m, d):
    return [] if m == 0 else subproof(m, d, True)


# -- C2SP signed-note, tlog-checkpoint, tlog-cosignature

def b64(data):
    return base64.b64encode(data).decode()


class Key:
    def __init__(self, name, seed, kind=1):
        self.name, self.seed, self.kind = name, seed, kind
        self.private = Ed25519PrivateKey.from_private_bytes(seed)
        self.public = self.private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    @property
    def id(self):
        return sha(self.name.encode() + b"\n" + bytes([self.kind]) + self.public)[:4]

    @property
    def vkey(self):
        return f"{self.name}+{self.id.hex()}+{b64(bytes([self.kind]) + self.public)}"

    def line(self, body):
        return self.raw_line(self.private.sign(body.encode()))

    def cosign(self, body, time, signed_time=None):
        message = f"cosignature/v1\ntime {time if signed_time is None else signed_time}\n{body}".encode()
        return self.raw_line(struct.pack(">Q", time) + self.private.sign(message))

    def raw_line(self, signature):
        return f"— {self.name} {b64(self.id + signature)}\n"


def body(origin, size, root):
    return f"{origin}\n{size}\n{b64(root)}\n"


def note(text, *lines):
    return text + "\n" + "".join(lines)


ORIGIN = "log.example/vectors"
LOG = Key(ORIGIN, bytes(range(32)))
OTHER_KEY = Key(ORIGIN, bytes(range(1, 33)))
OTHER_LOG = Key("log.example/other", bytes(range(2, 34)))
W1 = Key("witness.example/w1", b"\x11" * 32, 4)
W2 = Key("witness.example/w2", b"\x22" * 32, 4)
W3 = Key("witness.example/w3", b"\x33" * 32, 4)
# The reference tree of Certificate Transparency, in every implementation's tests since 2013.
CT = [bytes.fromhex(h) for h in ["", "00", "10", "2021", "3031", "40414243", "5051525354555657",
                                 "606162636465666768696a6b6c6d6e6f"]]


def numbered(n):
    return [b"entry %d" % i for i in range(n)]


def signed(entries, key=LOG, size=None):
    text = body(key.name, len(entries) if size is None else size, mth(entries))
    return note(text, key.line(text))


def hexes(hashes):
    return [h.hex() for h in hashes]


def packed_hex(data):
    """Hex in which a run of 64 equal bytes or more is written as `5a*65535`, between spaces."""
    out, start = [], 0
    while start < len(data):
        end = start
        while end < len(data) and data[end] == data[start]:
            end += 1
        if end - start >= 64:
            out.append(f" {data[start]:02x}*{end - start} ")
        else:
            out.append(data[start:end].hex())
        start = end
    return "".join(out).replace("  ", " ").strip()


def write(name, about, cases):
    names = [case["name"] for case in cases]
    assert len(set(names)) == len(names), name
    text = json.dumps({"about": about, "cases": cases}, indent=1, ensure_ascii=False)
    (HERE / f"{name}.json").write_text(text + "\n", encoding="utf-8")


# -- merkle.json

cases = [{"name": f"ct-reference-{n}", "entries_hex": [e.hex() for e in CT[:n]], "root": mth(CT[:n]).hex()}
         for n in range(9)]
cases += [{"name": f"numbered-{n}", "numbered": n, "root": mth(numbered(n)).hex()}
          for n in [9, 31, 32, 33, 255, 256, 257, 300, 511, 513, 1000]]
write("merkle", "Roots (RFC 6962 section 2.1). Entries are given, or are `entry 0`, `entry 1`, … in ASCII (`numbered`).",
      cases)

# -- inclusion.json

cases = []


def inclusion(name, expect, entries, index, entry=None, hashes=None, checkpoint=None, raw=None):
    cases.append({"name": name, "expect": expect, "key": LOG.vkey, "checkpoint": checkpoint or signed(entries),
                  "entry_hex": packed_hex(entries[index] if entry is None else entry),
                  "proof": raw if raw is not None else
                  {"index": index, "hashes": hexes(path(index, entries) if hashes is None else hashes)}})


for index, size in [(0, 1), (0, 8), (5, 8), (2, 3), (1, 5), (7, 8), (6, 7)]:
    inclusion(f"ct-reference-{index}-of-{size}", "ok", CT[:size], index)
for index, size in [(0, 257), (255, 257), (256, 257), (123, 300), (299, 300)]:
    inclusion(f"numbered-{index}-of-{size}", "ok", numbered(size), index)
good = path(5, CT)
inclusion("other-entry", "log.inclusion", CT, 5, entry=CT[4])
inclusion("entry-with-a-byte-more", "log.inclusion", CT, 5, entry=CT[5] + b"\0")
inclusion("leaf-hash-instead-of-entry", "log.inclusion", CT, 5, entry=sha(b"\0" + CT[5]))
inclusion("inner-node-as-entry", "log.inclusion", CT, 0,
          entry=sha(b"\0" + CT[0]) + sha(b"\0" + CT[1]), hashes=path(0, CT)[1:])
inclusion("hash-missing-at-the-leaf", "log.inclusion", CT, 5, hashes=good[1:])
inclusion("hash-missing-at-the-root", "log.inclusion", CT, 5, hashes=good[:-1])
inclusion("hash-more-at-the-leaf", "log.inclusion", CT, 5, hashes=[good[0]] + good)
inclusion("hash-more-at-the-root", "log.inclusion", CT, 5, hashes=good + [mth(CT)])
inclusion("hashes-swapped", "log.inclusion", CT, 5, hashes=[good[1], good[0], good[2]])
inclusion("hashes-reversed", "log.inclusion", CT, 5, hashes=good[::-1])
inclusion("no-hashes", "log.inclusion", CT, 5, hashes=[])
inclusion("last-bit-of-a-hash", "log.inclusion", CT, 5, hashes=good[:2] + [good[2][:31] + bytes([good[2][31] ^ 1])])
inclusion("index-of-the-sibling", "log.inclusion", CT, 5, raw={"index": 4, "hashes": hexes(good)})
inclusion("index-mirrored", "log.inclusion", CT, 5, raw={"index": 2, "hashes": hexes(good)})
inclusion("index-is-the-size", "log.proof-index", CT, 5, raw={"index": 8, "hashes": hexes(good)})
inclusion("index-far-outside", "log.proof-index", CT, 5, raw={"index": 2**64 - 1, "hashes": hexes(good)})
inclusion("empty-log", "log.proof-index", [b""], 0, checkpoint=signed([]))
inclusion("proof-for-a-smaller-tree", "log.inclusion", CT, 5, hashes=path(5, CT[:7]))
inclusion("proof-for-a-larger-tree", "log.inclusion", CT[:7], 5, hashes=path(5, CT))
inclusion("entry-too-long", "log.entry-too-long", CT, 5, entry=b"\0" * 65536)
inclusion("64-hashes", "log.inclusion", CT, 5, hashes=good + [mth([])] * 61)
inclusion("65-hashes", "malformed", CT, 5, hashes=good + [mth([])] * 62)
inclusion("upper-case-hex", "malformed", CT, 5, raw={"index": 5, "hashes": [h.hex().upper() for h in good]})
inclusion("short-hash", "malformed", CT, 5, raw={"index": 5, "hashes": [good[0].hex()[:62]]})
inclusion("long-hash", "malformed", CT, 5, raw={"index": 5, "hashes": [good[0].hex() + "00"]})
inclusion("base64-hash", "malformed", CT, 5, raw={"index": 5, "hashes": [b64(h) for h in good]})
inclusion("negative-index", "malformed", CT, 5, raw={"index": -1, "hashes": hexes(good)})
inclusion("index-as-text", "malformed", CT, 5, raw={"index": "5", "hashes": hexes(good)})
inclusion("index-with-a-fraction", "malformed", CT, 5, raw={"index": 5.5, "hashes": hexes(good)})
inclusion("no-index", "malformed", CT, 5, raw={"hashes": hexes(good)})
inclusion("unknown-field", "malformed", CT, 5, raw={"index": 5, "hashes": hexes(good), "size": 8})
write("inclusion", "Inclusion proofs (RFC 6962 section 2.1.1) against signed checkpoints. `malformed`: the proof is "
      "refused when read.", cases)

# -- consistency.json

cases = []


def consistency(name, expect, older, newer, hashes=None, older_note=None, newer_note=None, raw=None):
    if raw is None:
        raw = {"hashes": hexes(proof(len(older), newer) if hashes is None else hashes)}
    cases.append({"name": name, "expect": expect, "key": LOG.vkey, "older": older_note or signed(older),
                  "newer": newer_note or signed(newer), "proof": raw})


for m, n in [(1, 1), (1, 8), (2, 5), (6, 8), (4, 8), (7, 8), (3, 7), (8, 8)]:
    consistency(f"ct-reference-{m}-to-{n}", "ok", CT[:m], CT[:n])
consistency("from-empty", "ok", [], CT)
consistency("empty-to-empty", "ok", [], [])
big = numbered(300)
for m, n in [(255, 257), (256, 257), (128, 300), (299, 300)]:
    consistency(f"numbered-{m}-to-{n}", "ok", big[:m], big[:n])
good = proof(6, CT)
forked = CT[:3] + [b"another"] + CT[4:]
consistency("entry-changed", "log.consistency", forked[:6], CT, hashes=good)
consistency("entry-changed-with-its-own-proof", "log.consistency", CT[:6], forked, hashes=proof(6, forked))
consistency("entry-removed", "log.consistency", CT[:6], CT[1:], hashes=proof(6, CT[1:]))
consistency("hash-missing-first", "log.consistency", CT[:6], CT, hashes=good[1:])
consistency("hash-missing-last", "log.consistency", CT[:6], CT, hashes=good[:-1])
consistency("hash-more-first", "log.consistency", CT[:6], CT, hashes=[good[0]] + good)
consistency("hash-more-last", "log.consistency", CT[:6], CT, hashes=good + [good[-1]])
consistency("old-root-in-front-of-a-power-of-two", "log.consistency", CT[:4], CT, hashes=[mth(CT[:4])] + proof(4, CT))
consistency("hashes-swapped", "log.consistency", CT[:6], CT, hashes=[good[1], good[0], good[2]])
consistency("no-hashes", "log.consistency", CT[:6], CT, hashes=[])
consistency("last-bit-of-a-hash", "log.consistency", CT[:6], CT,
            hashes=good[:2] + [good[2][:31] + bytes([good[2][31] ^ 1])])
consistency("proof-of-other-sizes", "log.consistency", CT[:5], CT, hashes=good)
consistency("equal-with-hashes", "log.consistency", CT, CT, hashes=[mth(CT)])
consistency("from-empty-with-hashes", "log.consistency", [], CT, hashes=[mth(CT)])
consistency("shrinks", "log.proof-order", CT, CT[:6], hashes=good)
consistency("shrinks-to-empty", "log.proof-order", CT, [], hashes=[])
consistency("same-size-other-root", "log.fork", CT, forked, hashes=[])
consistency("64-hashes", "log.consistency", CT[:6], CT, hashes=good + [mth([])] * 61)
consistency("65-hashes", "malformed", CT[:6], CT, hashes=good + [mth([])] * 62)
consistency("unknown-field", "malformed", CT[:6], CT, raw={"hashes": hexes(good), "index": 5})
consistency("no-field", "malformed", CT[:6], CT, raw={})
write("consistency", "Consistency proofs (RFC 6962 section 2.1.2) between signed checkpoints of one log.", cases)

# -- checkpoints.json

cases = []
TEXT = body(ORIGIN, 8, mth(CT))
LINE = LOG.line(TEXT)
ROOT = b64(mth(CT))


def checkpoint(name, expect, data, key=LOG, **more):
    case = {"name": name, "expect": expect, "key": key.vkey}
    case.update({"note_hex": packed_hex(data)} if isinstance(data, bytes) else {"note": data})
    case.update(more)
    cases.append(case)


def resigned(name, expect, text):
    """The log did sign this; form alone must refuse it."""
    checkpoint(name, expect, note(text, LOG.line(text)))


checkpoint("good", "ok", note(TEXT, LINE), size=8, root=mth(CT).hex())
checkpoint("empty-tree", "ok", signed([]), size=0, root=mth([]).hex())
checkpoint("unknown-signature-beside", "ok", note(TEXT, LINE, W1.cosign(TEXT, 1700000000)), size=8, root=mth(CT).hex())
checkpoint("unknown-signature-before", "ok", note(TEXT, OTHER_LOG.line(TEXT), LINE), size=8, root=mth(CT).hex())
checkpoint("same-name-other-key-beside", "ok", note(TEXT, OTHER_KEY.line(TEXT), LINE), size=8, root=mth(CT).hex())
checkpoint("wrong-signature-of-an-unknown-key", "ok", note(TEXT, LINE, W1.raw_line(b"\0" * 72)), size=8,
           root=mth(CT).hex())
largest = body(ORIGIN, 2**62, mth(CT))
checkpoint("largest-size", "ok", note(largest, LOG.line(largest)), size=2**62, root=mth(CT).hex())
checkpoint("64-signatures", "ok", note(TEXT, LINE, *[W1.cosign(TEXT, t) for t in range(1, 64)]), size=8,
           root=mth(CT).hex())
checkpoint("65-signatures", "log.note-signatures", note(TEXT, LINE, *[W1.cosign(TEXT, t) for t in range(1, 65)]))
checkpoint("too-long", "log.note-too-long", note(TEXT, LINE, f"— x {b64(bytes(98304))}\n").encode())
checkpoint("other-log", "log.origin", note(TEXT, LINE), key=OTHER_LOG)
checkpoint("origin-of-another-log-under-this-key", "log.origin",
           note(body("log.example/other", 8, mth(CT)), LOG.line(body("log.example/other", 8, mth(CT)))))
checkpoint("signed-by-another-key-of-that-name", "log.not-signed", note(TEXT, OTHER_KEY.line(TEXT)))
checkpoint("signed-by-the-key-under-another-name", "log.not-signed", note(TEXT, Key("x", LOG.seed).line(TEXT)))
checkpoint("log-key-as-witness-type", "log.not-signed", note(TEXT, Key(ORIGIN, LOG.seed, 4).cosign(TEXT, 1700000000)))
checkpoint("cosignature-only", "log.not-signed", note(TEXT, W1.cosign(TEXT, 1700000000)))
checkpoint("signature-of-another-size", "log.signature", note(body(ORIGIN, 9, mth(CT)), LINE))
checkpoint("signature-of-another-root", "log.signature", note(body(ORIGIN, 8, mth(forked)), LINE))
checkpoint("signature-without-final-newline", "log.signature",
           note(TEXT, LOG.raw_line(LOG.private.sign(TEXT[:-1].encode()))))
checkpoint("signature-with-blank-line", "log.signature",
           note(TEXT, LOG.raw_line(LOG.private.sign((TEXT + "\n").encode()))))
checkpoint("signature-a-byte-short", "log.signature", note(TEXT, LOG.raw_line(LOG.private.sign(TEXT.encode())[:63])))
checkpoint("signature-a-byte-long", "log.signature", note(TEXT, LOG.raw_line(LOG.private.sign(TEXT.encode()) + b"\0")))
L = 2**252 + 27742317777372353535851937790883648493
sig = LOG.private.sign(TEXT.encode())
s_plus_l = sig[:32] + (int.from_bytes(sig[32:], "little") + L).to_bytes(32, "little")
checkpoint("signature-not-reduced", "log.signature", note(TEXT, LOG.raw_line(s_plus_l)))
checkpoint("signature-of-zeroes", "log.signature", note(TEXT, LOG.raw_line(b"\0" * 64)))
checkpoint("signature-twice", "log.signature-duplicate", note(TEXT, LINE, LINE))
checkpoint("signature-wrong-then-right", "log.signature-duplicate", note(TEXT, LOG.raw_line(b"\0" * 64), LINE))

resigned("extension-line", "log.checkpoint-extension", TEXT + "extension\n")
resigned("size-with-leading-zero", "log.checkpoint-malformed", f"{ORIGIN}\n08\n{ROOT}\n")
resigned("size-with-plus", "log.checkpoint-malformed", f"{ORIGIN}\n+8\n{ROOT}\n")
resigned("size-negative", "log.checkpoint-malformed", f"{ORIGIN}\n-8\n{ROOT}\n")
resigned("size-with-space", "log.checkpoint-malformed", f"{ORIGIN}\n8 \n{ROOT}\n")
resigned("size-hex", "log.checkpoint-malformed", f"{ORIGIN}\n0x8\n{ROOT}\n")
resigned("size-in-other-digits", "log.checkpoint-malformed", f"{ORIGIN}\n٨\n{ROOT}\n")
resigned("size-beyond-bound", "log.checkpoint-size", f"{ORIGIN}\n{2**62 + 1}\n{ROOT}\n")
resigned("size-beyond-64-bits", "log.checkpoint-size", f"{ORIGIN}\n{2**64 + 8}\n{ROOT}\n")
resigned("root-short", "log.checkpoint-malformed", f"{ORIGIN}\n8\n{b64(mth(CT)[:31])}\n")
resigned("root-long", "log.checkpoint-malformed", f"{ORIGIN}\n8\n{b64(mth(CT) + bytes(1))}\n")
resigned("root-unpadded", "log.checkpoint-malformed", f"{ORIGIN}\n8\n{ROOT.rstrip('=')}\n")
resigned("root-in-hex", "log.checkpoint-malformed", f"{ORIGIN}\n8\n{mth(CT).hex()}\n")
alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
loose = ROOT[:42] + alphabet[alphabet.index(ROOT[42]) | 1] + "="
resigned("root-with-unused-bits", "log.checkpoint-malformed", f"{ORIGIN}\n8\n{loose}\n")
URL_ROOT = base64.urlsafe_b64encode(b"\xff" * 32).decode()
resigned("root-url-alphabet", "log.checkpoint-malformed", f"{ORIGIN}\n8\n{URL_ROOT}\n")
resigned("two-lines", "log.checkpoint-malformed", f"{ORIGIN}\n8\n")
resigned("one-line", "log.checkpoint-malformed", f"{ORIGIN}\n")
resigned("origin-with-space", "log.checkpoint-origin", f"log example\n8\n{ROOT}\n")
resigned("origin-with-plus", "log.checkpoint-origin", f"log+example\n8\n{ROOT}\n")
resigned("origin-with-no-break-space", "log.checkpoint-origin", f"log\u00a0example\n8\n{ROOT}\n")
resigned("origin-with-delete", "log.checkpoint-origin", f"log\u007fexample\n8\n{ROOT}\n")
resigned("origin-too-long", "log.checkpoint-origin", f"{'x' * 256}\n8\n{ROOT}\n")
resigned("empty-tree-other-root", "log.checkpoint-empty-root", f"{ORIGIN}\n0\n{ROOT}\n")
resigned("carriage-returns", "log.note-malformed", f"{ORIGIN}\r\n8\r\n{ROOT}\r\n")

checkpoint("nothing", "log.note-malformed", "")
checkpoint("text-alone", "log.note-malformed", TEXT)
checkpoint("text-and-blank-line", "log.note-malformed", TEXT + "\n")
checkpoint("no-blank-line", "log.note-malformed", TEXT + LINE)
checkpoint("no-final-newline", "log.note-malformed", note(TEXT, LINE)[:-1])
checkpoint("blank-line-at-the-end", "log.note-malformed", note(TEXT, LINE) + "\n")
checkpoint("blank-line-between-signatures", "log.checkpoint-extension", note(TEXT, LINE, "\n", LINE))
checkpoint("hyphen-for-dash", "log.note-malformed", note(TEXT, LINE.replace("—", "-")))
checkpoint("two-spaces", "log.note-malformed", note(TEXT, LINE.replace("— ", "—  ")))
checkpoint("signature-without-name", "log.note-malformed", note(TEXT, LINE.replace(f" {ORIGIN}", "")))
checkpoint("signature-trailing-space", "log.note-malformed", note(TEXT, LINE.replace("\n", " \n")))
checkpoint("signature-not-base64", "log.note-malformed", note(TEXT, f"— {ORIGIN} !!!!\n"))
checkpoint("signature-unpadded", "log.note-malformed", note(TEXT, LINE.rstrip("=\n") + "\n"))
checkpoint("signature-empty", "log.note-malformed", note(TEXT, f"— {ORIGIN} {b64(LOG.id)}\n"))
checkpoint("carriage-return-in-signatures", "log.note-malformed", note(TEXT, LINE.replace("\n", "\r\n")))
checkpoint("tab-in-text", "log.note-malformed", note(TEXT.replace("\n8\n", "\n8\t\n"), LINE))
checkpoint("not-utf8", "log.note-malformed", b"\xff" + note(TEXT, LINE).encode())
checkpoint("byte-order-mark", "log.origin", "\ufeff" + note(TEXT, LINE))
checkpoint("nul", "log.note-malformed", note(TEXT, LINE) + "\0")
write("checkpoints", "Signed checkpoints (C2SP signed-note, tlog-checkpoint) under one log key. `note_hex` where the "
      "bytes are not text.", cases)

# -- cosignatures.json

cases = []
T1, T2 = 1700000000, 1700000060
C1, C2 = W1.cosign(TEXT, T1), W2.cosign(TEXT, T2)


def cosigned(name, expect, lines, witnesses=(W1, W2, W3), quorum=1, key=LOG, **more):
    case = {"name": name, "expect": expect, "key": key.vkey, "note": note(TEXT, LINE, *lines),
            "witnesses": [w.vkey for w in witnesses], "quorum": quorum}
    case.update(more)
    cases.append(case)


one = [{"witness": W1.name, "time_seconds": T1}]
two = one + [{"witness": W2.name, "time_seconds": T2}]
cosigned("one-of-one", "ok", [C1], witnesses=[W1], cosigned=one)
cosigned("two-of-three", "ok", [C2, C1], quorum=2, cosigned=two)
cosigned("quorum-of-none", "ok", [], quorum=0, cosigned=[])
cosigned("unknown-witness-ignored", "ok", [C1, C2], witnesses=[W1], cosigned=one)
cosigned("wrong-line-of-unknown-witness-ignored", "ok", [C1, W2.raw_line(b"\0" * 72)], witnesses=[W1], cosigned=one)
cosigned("time-1", "ok", [W1.cosign(TEXT, 1)], cosigned=[{"witness": W1.name, "time_seconds": 1}])
cosigned("time-largest", "ok", [W1.cosign(TEXT, 2**63 - 1)],
         cosigned=[{"witness": W1.name, "time_seconds": 2**63 - 1}])
cosigned("none", "log.quorum", [])
cosigned("one-of-two", "log.quorum", [C1], quorum=2)
cosigned("quorum-over-witnesses", "log.quorum", [C1, C2], witnesses=[W1, W2], quorum=3)
cosigned("only-unknown", "log.quorum", [C2], witnesses=[W1])
cosigned("same-name-other-key", "log.quorum", [Key(W1.name, b"\x44" * 32, 4).cosign(TEXT, T1)], witnesses=[W1])
cosigned("same-key-other-name", "log.quorum", [Key("w", W1.seed, 4).cosign(TEXT, T1)], witnesses=[W1])
cosigned("plain-signature-of-witness-key", "log.quorum", [Key(W1.name, W1.seed, 1).line(TEXT)], witnesses=[W1])
cosigned("plain-signature-under-cosignature-id", "log.cosignature",
         [W1.raw_line(struct.pack(">Q", T1) + W1.private.sign(TEXT.encode()))])
cosigned("without-time", "log.cosignature", [W1.raw_line(W1.private.sign(TEXT.encode()))])
cosigned("time-changed", "log.cosignature", [W1.cosign(TEXT, T1 + 1, signed_time=T1)])
cosigned("time-little-endian", "log.cosignature",
         [W1.raw_line(struct.pack("<Q", T1) + base64.b64decode(C1.split(" ")[2])[12:])])
cosigned("time-with-leading-zero", "log.cosignature", [W1.cosign(TEXT, T1, signed_time=f"0{T1}")])
cosigned("time-zero", "log.cosignature-time", [W1.cosign(TEXT, 0)])
cosigned("time-beyond", "log.cosignature-time", [W1.cosign(TEXT, 2**63)])
cosigned("of-another-checkpoint", "log.cosignature", [W1.cosign(body(ORIGIN, 9, mth(CT)), T1)])
cosigned("of-another-log", "log.cosignature", [W1.cosign(body("log.example/other", 8, mth(CT)), T1)])
cosigned("without-header", "log.cosignature",
         [W1.raw_line(struct.pack(">Q", T1) + W1.private.sign(f"time {T1}\n{TEXT}".encode()))])
cosigned("with-the-log-signature-in-the-message", "log.cosignature", [W1.cosign(TEXT + "\n" + LINE, T1)])
cosigned("one-good-one-wrong", "log.cosignature", [C1, W2.raw_line(struct.pack(">Q", T2) + b"\0" * 64)])
cosigned("a-byte-short", "log.cosignature", [W1.raw_line(base64.b64decode(C1.split(" ")[2])[4:-1])])
cosigned("a-byte-long", "log.cosignature", [W1.raw_line(base64.b64decode(C1.split(" ")[2])[4:] + b"\0")])
cosigned("twice", "log.cosignature-duplicate", [C1, W1.cosign(TEXT, T2)])
cosigned("twice-the-same", "log.cosignature-duplicate", [C1, C1])
cosigned("two-witnesses-with-one-key", "log.witness-duplicate-key", [C1],
         witnesses=[W1, Key("witness.example/again", W1.seed, 4)])
cosigned("witness-listed-twice", "log.witness-duplicate-key", [C1], witnesses=[W1, W1])
cosigned("log-as-its-own-witness", "log.witness-is-log",
         [Key("witness.example/self", LOG.seed, 4).cosign(TEXT, T1)],
         witnesses=[Key("witness.example/self", LOG.seed, 4)])
write("cosignatures", "Witness cosignatures (C2SP tlog-cosignature, Ed25519). The checkpoint itself verifies under `key`.",
      cases)

# -- keys.json

cases = []


def vkey(name, expect, text, kind="log", **more):
    cases.append({"name": name, "kind": kind, "expect": expect, "vkey": text, **more})


def plus(key, name=None, id=None, blob=None):
    blob = bytes([key.kind]) + key.public if blob is None else blob
    return f"{key.name if name is None else name}+{key.id.hex() if id is None else id}+{b64(blob)}"


vkey("log", "ok", LOG.vkey, seed_hex=LOG.seed.hex(), public_key_hex=LOG.public.hex())
vkey("witness", "ok", W1.vkey, "witness", seed_hex=W1.seed.hex(), public_key_hex=W1.public.hex())
peter = Key("PeterNeumann", base64.b64decode("AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz")[1:])
vkey("go-note-example", "ok", "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
     seed_hex=peter.seed.hex(), public_key_hex=peter.public.hex())
sumdb = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8"
vkey("go-checksum-database", "ok", sumdb, public_key_hex=base64.b64decode(sumdb.split("+", 2)[2])[1:].hex())
long_name = Key("x" * 255, LOG.seed)
vkey("longest-name", "ok", long_name.vkey, seed_hex=LOG.seed.hex(), public_key_hex=LOG.public.hex())
vkey("witness-key-as-log", "log.key-kind", W1.vkey)
vkey("log-key-as-witness", "log.key-kind", LOG.vkey, "witness")
vkey("ml-dsa-type", "log.key-kind", plus(LOG, blob=b"\x06" + LOG.public), "witness")
vkey("ecdsa-type", "log.key-kind", plus(LOG, blob=b"\x02" + LOG.public))
vkey("key-a-byte-short", "log.key-kind", plus(LOG, blob=b"\x01" + LOG.public[:31]))
vkey("key-missing", "log.key-kind", plus(LOG, blob=b""))
vkey("type-alone", "log.key-kind", plus(LOG, blob=b"\x01"))
vkey("other-id", "log.key-id", plus(LOG, id=OTHER_KEY.id.hex()))
vkey("other-name", "log.key-id", plus(LOG, name="log.example/other"))
vkey("other-key", "log.key-id", plus(LOG, blob=b"\x01" + OTHER_KEY.public))
vkey("name-empty", "log.key-name", plus(LOG, name=""))
vkey("name-with-space", "log.key-name", plus(LOG, name="log example"))
vkey("name-with-ideographic-space", "log.key-name", plus(LOG, name="log\u3000example"))
vkey("name-with-newline", "log.key-name", plus(LOG, name="log\nexample"))
vkey("name-with-escape", "log.key-name", plus(LOG, name="log\u001b[2J"))
vkey("name-too-long", "log.key-malformed", plus(LOG, name="x" * 256))
vkey("name-with-plus", "log.key-malformed", plus(LOG, name="log+example"))
vkey("id-upper-case", "log.key-malformed", plus(LOG, id=LOG.id.hex().upper()) if LOG.id.hex().upper() != LOG.id.hex()
     else plus(LOG, id="ABCDEF01"))
vkey("id-short", "log.key-malformed", plus(LOG, id=LOG.id.hex()[:6]))
vkey("id-long", "log.key-malformed", plus(LOG, id=LOG.id.hex() + "00"))
vkey("two-parts", "log.key-malformed", f"{ORIGIN}+{LOG.id.hex()}")
vkey("nothing", "log.key-malformed", "")
vkey("base64-unpadded-tail", "log.key-malformed", LOG.vkey + "=")
vkey("trailing-newline", "log.key-malformed", LOG.vkey + "\n")
vkey("private-key", "log.key-malformed", f"PRIVATE+KEY+{ORIGIN}+{LOG.id.hex()}+{b64(bytes([1]) + LOG.seed)}")
write("keys", "vkeys (C2SP signed-note; tlog-cosignature for witnesses). `seed_hex` where the private key is known.", cases)

# -- tiles.json

cases = []


def good_path(text, level, index, width):
    cases.append({"name": text, "expect": "ok", "path": text, "level": level, "index": index, "width": width})


def bad_path(name, text, expect="log.tile-path"):
    cases.append({"name": name, "expect": expect, "path": text})


good_path("tile/0/000", 0, 0, 256)
good_path("tile/0/000.p/1", 0, 0, 1)
good_path("tile/0/000.p/255", 0, 0, 255)
good_path("tile/1/999", 1, 999, 256)
good_path("tile/2/x001/000.p/17", 2, 1000, 17)
good_path("tile/0/x001/x234/067", 0, 1234067, 256)
good_path("tile/0/x001/x234/067.p/8", 0, 1234067, 8)
good_path("tile/0/x999/999", 0, 999999, 256)
good_path("tile/7/000.p/64", 7, 0, 64)
good_path("tile/0/x018/x014/x398/x509/x481/983", 0, 2**54 - 1, 256)
good_path("tile/entries/000", "entries", 0, 256)
good_path("tile/entries/x001/x234/067.p/8", "entries", 1234067, 8)
good_path("tile/entries/x018/x014/x398/x509/x481/983.p/255", "entries", 2**54 - 1, 255)
for name, text in [
    ("nothing", ""), ("leading-slash", "/tile/0/000"), ("no-index", "tile/0"), ("empty-index", "tile/0/"),
    ("trailing-slash", "tile/0/000/"), ("empty-group", "tile/0/x001//000"), ("go-layout", "tile/8/0/000"),
    ("go-data", "tile/data/000"), ("upper-case", "TILE/0/000"), ("level-with-zero", "tile/00/000"),
    ("level-with-sign", "tile/+0/000"), ("level-negative", "tile/-1/000"), ("level-64", "tile/64/000"),
    ("level-hex", "tile/a/000"), ("level-empty", "tile//000"), ("index-short", "tile/0/0"), ("index-long", "tile/0/0000"),
    ("index-four-digits", "tile/0/1234"), ("index-with-x-last", "tile/0/x000"), ("index-without-x", "tile/0/001/234"),
    ("index-with-leading-group", "tile/0/x000/001"), ("index-negative", "tile/0/-01"), ("index-plus", "tile/0/+01"),
    ("index-capital-x", "tile/0/X001/234"), ("index-other-digits", "tile/0/٠٠٠"), ("width-0", "tile/0/000.p/0"),
    ("width-256", "tile/0/000.p/256"), ("width-with-zero", "tile/0/000.p/01"), ("width-empty", "tile/0/000.p/"),
    ("width-missing", "tile/0/000.p"), ("width-negative", "tile/0/000.p/-1"), ("width-huge", "tile/0/000.p/99999999999"),
    ("width-twice", "tile/0/000.p/1.p/1"), ("width-in-the-middle", "tile/0/x001.p/1/000"), ("dots", "tile/0/../0/000"),
    ("percent", "tile/0/00%30"), ("nul", "tile/0/000\0"), ("newline", "tile/0/000\n"), ("query", "tile/0/000?x"),
    ("entries-width-0", "tile/entries/000.p/0"), ("entries-index-short", "tile/entries/1"), ("entry", "tile/entry/000"),
    ("checkpoint", "checkpoint"), ("too-long", "tile/0/" + "x000/" * 20 + "000"),
    ("index-beyond-64-bits", "tile/0/x018/x446/x744/x073/x709/x551/616"),
]:
    bad_path(name, text)
bad_path("index-beyond-the-largest-tree", "tile/0/x018/x014/x398/x509/x481/984", "log.out-of-tree")
bad_path("index-largest-64-bits", "tile/0/x018/x446/x744/x073/x709/x551/615", "log.out-of-tree")
bad_path("level-7-wider-than-any-tree", "tile/7/000.p/65", "log.out-of-tree")
bad_path("level-7-index-that-overflows", "tile/7/x072/x057/x594/x037/x927/936", "log.out-of-tree")
bad_path("level-8", "tile/8/000.p/1", "log.out-of-tree")
bad_path("level-63", "tile/63/000", "log.out-of-tree")
bad_path("entries-beyond-the-largest-tree", "tile/entries/x018/x014/x398/x509/x481/984.p/1", "log.out-of-tree")


def index_path(n):
    groups = [f"{n % 1000:03}"]
    while n >= 1000:
        n //= 1000
        groups.insert(0, f"x{n % 1000:03}")
    return "/".join(groups)


def all_tiles(size):
    found, level = [], 0
    while size >> (8 * level):
        hashes = size >> (8 * level)
        found += [f"tile/{level}/{index_path(n)}" for n in range(hashes // 256)]
        if hashes % 256:
            found.append(f"tile/{level}/{index_path(hashes // 256)}.p/{hashes % 256}")
        level += 1
    return found


for size in [0, 1, 255, 256, 257, 300, 65535, 65536, 65537, 70000]:
    tiles = all_tiles(size)
    cases.append({"name": f"tiles-of-{size}", "expect": "tree", "size": size, "count": len(tiles),
                  "digest": sha("\n".join(tiles).encode()).hex()})
entries = numbered(300)
cases.append({"name": "content-level-0", "expect": "content", "numbered": 300, "path": "tile/0/001.p/44",
              "content_hex": b"".join(sha(b"\0" + e) for e in entries[256:]).hex()})
cases.append({"name": "content-level-1", "expect": "content", "numbered": 300, "path": "tile/1/000.p/1",
              "content_hex": mth(entries[:256]).hex()})
write("tiles", "Paths, sets and content of tiles (C2SP tlog-tiles). `tree`: all tiles of a tree of that size, lowest level "
      "first; `digest` is the SHA-256 of their paths joined by newlines.", cases)

# -- bundles.json

cases = []


def bundle(name, expect, width, content, entries=None, index=0):
    case = {"name": name, "expect": expect, "index": index, "width": width, "content_hex": packed_hex(content)}
    if entries is not None:
        case["entries_hex"] = [packed_hex(e) for e in entries]
    cases.append(case)


def packed(entries):
    return b"".join(struct.pack(">H", len(e)) + e for e in entries)


bundle("reference", "ok", 8, packed(CT), CT)
bundle("empty-entry", "ok", 1, b"\0\0", [b""])
bundle("longest-entry", "ok", 1, packed([b"\x5a" * 65535]), [b"\x5a" * 65535])
bundle("full", "ok", 256, packed(numbered(256)), numbered(256), index=3)
bundle("nothing", "log.bundle-truncated", 1, b"")
bundle("half-a-length", "log.bundle-truncated", 1, b"\0")
bundle("length-alone", "log.bundle-truncated", 1, b"\0\1")
bundle("entry-a-byte-short", "log.bundle-truncated", 8, packed(CT)[:-1])
bundle("an-entry-missing", "log.bundle-truncated", 8, packed(CT[:7]))
bundle("an-entry-more", "log.bundle-trailing", 7, packed(CT))
bundle("a-byte-more", "log.bundle-trailing", 8, packed(CT) + b"\0")
bundle("little-endian", "log.bundle-truncated", 1, b"\2\0ab")
bundle("width-0", "log.bundle-width", 0, b"")
bundle("width-257", "log.bundle-width", 257, packed(numbered(257)))
bundle("beyond-the-largest-tree", "log.out-of-tree", 1, b"\0\0", index=2**54)
bundle("index-overflows", "log.out-of-tree", 1, b"\0\0", index=2**64 - 1)
write("bundles", "Entry bundles (C2SP tlog-tiles, log entries).", cases)

# -- remembered.json

cases = []


def remember(name, expect, remembered, offered, hashes, offered_key=None):
    cases.append({"name": name, "expect": expect, "key": LOG.vkey, "offered_key": (offered_key or LOG).vkey,
                  "remembered": remembered, "offered": offered, "proof": {"hashes": hexes(hashes)}})


remember("grown", "grown", signed(CT[:6]), signed(CT), proof(6, CT))
remember("grown-from-empty", "grown", signed([]), signed(CT), [])
remember("unchanged", "unchanged", signed(CT), signed(CT), [])
remember("unchanged-with-cosignature", "unchanged", signed(CT), note(TEXT, LINE, C1), [])
remember("rolled-back", "log.rolled-back", signed(CT), signed(CT[:6]), proof(6, CT))
remember("rolled-back-to-empty", "log.rolled-back", signed(CT), signed([]), [])
remember("fork", "log.fork", signed(CT), signed(forked), [])
remember("fork-with-some-proof", "log.fork", signed(CT), signed(forked), proof(6, CT))
remember("fork-that-grew", "log.consistency", signed(CT[:6]), signed(forked), proof(6, forked))
remember("grown-without-proof", "log.consistency", signed(CT[:6]), signed(CT), [])
remember("other-log", "log.other-log", signed(CT[:6]), signed(CT, key=OTHER_LOG), proof(6, CT), OTHER_LOG)
remember("other-key-of-the-log", "log.other-log", signed(CT[:6]), signed(CT, key=OTHER_KEY), proof(6, CT), OTHER_KEY)
write("remembered", "A client that remembers one checkpoint is offered another. Both verify under their keys.", cases)

# -- forks.json

cases = []


def fork(name, expect, first, second, key=LOG, raw=None):
    cases.append({"name": name, "expect": expect, "key": key.vkey,
                  "proof": raw if raw is not None else {"first": first, "second": second}})


fork("fork", "ok", signed(CT), signed(forked))
fork("fork-with-cosignature", "ok", note(TEXT, LINE, C1), signed(forked))
fork("same-note", "log.fork-none", signed(CT), signed(CT))
fork("same-checkpoint-other-lines", "log.fork-none", signed(CT), note(TEXT, LINE, C1))
fork("other-sizes", "log.fork-sizes", signed(CT), signed(CT[:6]))
fork("second-signed-by-another-key", "log.not-signed", signed(CT), signed(forked, key=OTHER_KEY))
fork("second-of-another-log", "log.origin", signed(CT), signed(forked, key=OTHER_LOG))
fork("under-another-key", "log.not-signed", signed(CT), signed(forked), key=OTHER_KEY)
fork("second-altered", "log.signature", signed(CT), signed(CT).replace("\n8\n", "\n9\n"))
fork("second-no-note", "log.note-malformed", signed(CT), "")
fork("one-note", "malformed", None, None, raw={"first": signed(CT)})
fork("unknown-field", "malformed", None, None, raw={"first": signed(CT), "second": signed(forked), "third": ""})
write("forks", "Portable proofs that a log signed two trees of one size.", cases)
