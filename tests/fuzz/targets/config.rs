//! Feeds libFuzzer's inputs to [`sealcast_fuzz::config`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sealcast_fuzz::config::check(data));
