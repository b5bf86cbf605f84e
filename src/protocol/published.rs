//! Reads published test vectors at run time from beside the checkout, for tests alone.

use std::path::PathBuf;

use serde_json::Value;

/// The vectors of a file; none, and a word of that, where the folder is not there.
#[expect(clippy::print_stderr, reason = "a skipped test must be seen")]
pub(crate) fn vectors(file: &str) -> Option<Vec<Value>> {
    let folder = std::env::var_os("SEALCAST_VECTORS")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/vectors"), PathBuf::from);
    let Ok(text) = std::fs::read_to_string(folder.join(file)) else {
        eprintln!("SKIPPED: the published vectors {file} are not there; set SEALCAST_VECTORS");
        return None;
    };
    Some(serde_json::from_str(&text).unwrap())
}

/// The vectors of RFC 9807 appendix C for the group in use, two real ones and a made-up one; none where they are not there.
pub(crate) fn opaque_vectors() -> Vec<Value> {
    let Some(all) = vectors("rfc9807-opaque.json") else { return Vec::new() };
    let of_group: Vec<Value> = all.into_iter().filter(|vector| vector["config"]["Group"] == "ristretto255").collect();
    assert_eq!(of_group.len(), 3);
    of_group
}

/// The bytes of a value in hexadecimal; none where there is no value.
pub(crate) fn hex(value: &Value) -> Vec<u8> {
    let text = value.as_str().unwrap_or_default();
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

/// Gives what the vectors say was drawn, and nothing else.
pub(crate) struct Script(std::collections::VecDeque<u8>);

impl Script {
    pub(crate) fn of(parts: &[&[u8]]) -> Self {
        Self(parts.concat().into())
    }
}

impl rand_core_v06::RngCore for Script {
    fn next_u32(&mut self) -> u32 {
        let mut bytes = [0; 4];
        self.fill_bytes(&mut bytes);
        u32::from_le_bytes(bytes)
    }

    fn next_u64(&mut self) -> u64 {
        let mut bytes = [0; 8];
        self.fill_bytes(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            *byte = self.0.pop_front().expect("more is drawn than the vector has");
        }
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), rand_core_v06::Error> {
        self.fill_bytes(bytes);
        Ok(())
    }
}

impl rand_core_v06::CryptoRng for Script {}
