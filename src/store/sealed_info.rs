//! What names of chats and users' profiles have in common: sealed parts, and wraps of the keys that open them.

use crate::protocol::binary::Blob;
use crate::protocol::error::{ErrorCode, Refusal};

/// Checks each part against its limit in bytes.
///
/// # Errors
/// `too_large`, with the limit of the first part that is above its own.
pub(super) fn check_parts(parts: &[(&Option<Blob>, usize)], too_long: &'static str) -> Result<(), Refusal> {
    let is_too_long = |(part, limit): &&(&Option<Blob>, usize)| part.as_ref().is_some_and(|part| part.len() > *limit);
    match parts.iter().find(is_too_long) {
        Some((_, limit)) => Err(Refusal::limit(ErrorCode::TooLarge, too_long, *limit as u64)),
        None => Ok(()),
    }
}

/// Checks how many wraps of an info key one request brings.
///
/// # Errors
/// `too_large`.
pub(super) fn check_wrap_count(count: usize, limit: usize) -> Result<(), Refusal> {
    if count > limit {
        return Err(Refusal::limit(ErrorCode::TooLarge, "too many wraps of the info key", limit as u64));
    }
    Ok(())
}

/// A part as it is stored.
pub(super) fn part_bytes(part: &Option<Blob>) -> Option<Vec<u8>> {
    part.as_ref().map(|part| part.as_ref().to_vec())
}
