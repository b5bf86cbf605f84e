//! Feeds libFuzzer's inputs to [`sealcast_fuzz::equality`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sealcast_fuzz::equality::check(data));
