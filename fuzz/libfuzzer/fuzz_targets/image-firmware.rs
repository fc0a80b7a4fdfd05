//! `image-firmware` under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| starminer_fuzz::run("image-firmware", data));
