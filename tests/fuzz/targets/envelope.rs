//! Feeds libFuzzer's inputs to [`sealcast_fuzz::envelope`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sealcast_fuzz::envelope::check(data));
