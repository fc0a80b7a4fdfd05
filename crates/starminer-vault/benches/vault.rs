//! scratchpad
use std::time::Instant;
use aws_lc_rs::aead::*;
use starminer_vault::{*, object::*};
fn key() -> LessSafeKey { LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[3;32]).unwrap()) }
fn nonce(i: u64) -> Nonce { let mut n=[0;12]; n[..8].copy_from_slice(&i.to_le_bytes()); Nonce::assume_unique_for_key(n) }
fn best(name: &str, bytes: usize, reps: usize, mut f: impl FnMut()) {
    let mut b = f64::MAX;
    for _ in 0..7 { let t=Instant::now(); for _ in 0..reps { f(); } b=b.min(t.elapsed().as_secs_f64()/reps as f64); }
    println!("{name:50} {:8.2} GB/s", bytes as f64/b/1e9);
}
fn main() {
    for (size, reps) in [(512<<10, 400), (8<<20, 40), (64<<20, 5)] {
        println!("--- {size}");
        let plain = vec![7u8; size];
        let mut buf = vec![7u8; size];
        let k = key(); 
        best("raw in place 64K", size, reps, || { for (i,c) in buf.chunks_mut(65536).enumerate() { k.seal_in_place_separate_tag(nonce(i as u64), Aad::empty(), c).unwrap(); } });
        best("raw out of place 64K", size, reps, || { let mut tag=[0;16]; for (i,(c,p)) in buf.chunks_mut(65536).zip(plain.chunks(65536)).enumerate() { k.seal_out_of_place_scatter(nonce(i as u64), Aad::empty(), p, c, &[], &mut tag).unwrap(); } });
        best("memcpy", size, reps, || { buf.copy_from_slice(&plain); std::hint::black_box(&mut buf); });
        best("blake3 whole", size, reps, || { std::hint::black_box(blake3::hash(&buf)); });
        best("blake3 512K+", size, reps, || { let mut h=blake3::Hasher::new(); h.update(&[0;80]); for c in buf.chunks(8*65552) { h.update(c); } std::hint::black_box(h.finalize()); });
        best("blake3 128K+", size, reps, || { let mut h=blake3::Hasher::new(); h.update(&[0;80]); for c in buf.chunks(2*65552) { h.update(c); } std::hint::black_box(h.finalize()); });
        best("blake3 64K aligned", size, reps, || { let mut h=blake3::Hasher::new(); for c in buf.chunks(65536) { h.update(c); } std::hint::black_box(h.finalize()); });
        best("blake3 512K aligned", size, reps, || { let mut h=blake3::Hasher::new(); for c in buf.chunks(8*65536) { h.update(c); } std::hint::black_box(h.finalize()); });
        let secret = TaskSecret::from_bytes([1;32]);
        let ctx = ObjectContext { task: [1;16], name: "x", purpose: Purpose::Input };
        let mut sealed = vec![0; sealed_len(size as u64, ChunkSize::DEFAULT).unwrap() as usize];
        for cid in [ContentIdMode::Skip, ContentIdMode::Compute] {
            let o = SealOptions { digests: Digests { content_id: cid, ..Default::default() }, ..Default::default() };
            best(&format!("seal_into {cid:?}"), size, reps, || { seal_into(&secret,&ctx,Salt::from_random([1;32]),o,&plain,&mut sealed).unwrap(); });
            let mut out = vec![0; size];
            best(&format!("open_into {cid:?}"), size, reps, || { open_into(&secret,&ctx,o.digests,&sealed,&mut out).unwrap(); });
        }
        let mut out = vec![0; size];
        let r = ObjectReader::open(&secret,&ctx,sealed.as_slice(), sealed.len() as u64).unwrap();
        best("reader.read_at whole", size, reps, || { r.read_at(0,&mut out).unwrap(); });
        best("seal_stream", size, reps, || { let mut v = std::io::Cursor::new(&mut sealed[..]); seal_stream(&secret,&ctx,Salt::from_random([1;32]),SealOptions::default(),&plain[..],&mut v).unwrap(); });
        best("open_stream", size, reps, || { let mut v = std::io::Cursor::new(&mut out[..]); open_stream(&secret,&ctx,Digests::default(),&sealed[..],&mut v).unwrap(); });
    }
}
