//! Feeds libFuzzer's inputs to [`sealcast_fuzz::unwrap`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sealcast_fuzz::unwrap::check(data));
