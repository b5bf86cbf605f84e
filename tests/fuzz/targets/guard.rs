//! Feeds libFuzzer's inputs to [`sealcast_fuzz::guard`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sealcast_fuzz::guard::check(data));
