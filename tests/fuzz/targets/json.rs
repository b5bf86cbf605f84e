//! Feeds libFuzzer's inputs to [`sealcast_fuzz::json`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sealcast_fuzz::json::check(data));
