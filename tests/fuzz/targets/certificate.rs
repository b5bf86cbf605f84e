//! Feeds libFuzzer's inputs to [`sealcast_fuzz::certificate`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sealcast_fuzz::certificate::check(data));
