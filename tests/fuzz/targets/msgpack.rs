//! Feeds libFuzzer's inputs to [`sealcast_fuzz::msgpack`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sealcast_fuzz::msgpack::check(data));
