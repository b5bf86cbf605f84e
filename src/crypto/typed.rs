//! Writes secrets as people copy them: base 32 in Crockford's alphabet, in groups of four.

use zeroize::Zeroize;

/// Digits and letters without I, L, O, U, which are taken for others.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

const GROUP_CHARACTERS: usize = 4;

/// Writes bytes, a multiple of five of them.
pub(super) fn write(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2 + 1);
    for (index, value) in five_bits(bytes).enumerate() {
        if index > 0 && index % GROUP_CHARACTERS == 0 {
            text.push('-');
        }
        text.push(ALPHABET.get(usize::from(value)).copied().map_or('0', char::from));
    }
    text
}

/// Reads what a person typed into bytes, a multiple of five of them: any case, with or without hyphens and spaces; O
/// is 0, I and L are 1.
pub(super) fn read(text: &str, bytes: &mut [u8]) -> Option<()> {
    let mut values = Vec::with_capacity(text.len());
    for character in text.chars().filter(|character| !character.is_whitespace() && *character != '-') {
        let plain = match character.to_ascii_uppercase() {
            'O' => '0',
            'I' | 'L' => '1',
            other => other,
        };
        values.push(ALPHABET.iter().position(|letter| char::from(*letter) == plain)? as u64);
    }
    if values.len() != bytes.len() * 8 / 5 {
        return None;
    }
    for (bytes, group) in bytes.chunks_mut(5).zip(values.chunks(8)) {
        let bits = group.iter().fold(0_u64, |bits, value| bits << 5 | value);
        bytes.copy_from_slice(bits.to_be_bytes().last_chunk::<5>()?);
    }
    values.zeroize();
    Some(())
}

fn five_bits(bytes: &[u8]) -> impl Iterator<Item = u8> {
    bytes.chunks(5).flat_map(|chunk| {
        let bits = chunk.iter().fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
        (0..8).rev().map(move |place| (bits >> (5 * place) & 31).to_le_bytes()[0])
    })
}
