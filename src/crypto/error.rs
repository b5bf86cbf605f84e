//! Says why sealing or opening failed, and no more than an attacker may know.

/// A ciphertext, copy or hand-over did not open.
///
/// One value for every reason: which of them it was is nobody's business.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("does not open")]
pub struct OpenError;

/// Nothing was sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// The recipient's key is not canonical or of small order; it counts as absent.
    #[error("the recipient's public key is unsound")]
    UnsoundKey,
    /// The library refused its input: too long, or a fault of this crate.
    #[error("the cipher refused its input")]
    Cipher,
}
