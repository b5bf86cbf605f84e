//! Feeds libFuzzer's inputs to [`sealcast_fuzz::resume`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sealcast_fuzz::resume::check(data));
