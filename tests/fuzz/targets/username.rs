//! Feeds libFuzzer's inputs to [`sealcast_fuzz::username`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sealcast_fuzz::username::check(data));
