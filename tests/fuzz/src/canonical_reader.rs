//! Reads canonical bytes back: whoever can do that knows that no two contents are signed as the same bytes.
//!
//! Written from `docs/protocol.md`, not from the writer.

use uuid::Uuid;

/// The fields of canonical bytes, in order.
pub(crate) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    /// Begins with the label and the version, which must be these.
    pub(crate) fn begin(bytes: &'a [u8], label: &str) -> Self {
        let mut fields = Self(bytes);
        assert_eq!(fields.bytes(), label.as_bytes(), "label");
        assert_eq!(fields.u64(), 1, "version");
        fields
    }

    pub(crate) fn bytes(&mut self) -> &'a [u8] {
        let (length, rest) = self.0.split_first_chunk::<4>().expect("a length");
        let length = usize::try_from(u32::from_be_bytes(*length)).expect("a length fits in memory");
        let (field, rest) = rest.split_at_checked(length).expect("a field as long as it says");
        self.0 = rest;
        field
    }

    pub(crate) fn u64(&mut self) -> u64 {
        u64::from_be_bytes(self.bytes().try_into().expect("8 bytes"))
    }

    pub(crate) fn id(&mut self) -> Uuid {
        Uuid::from_bytes(self.bytes().try_into().expect("16 bytes"))
    }

    /// An identifier, or none where the field is empty.
    pub(crate) fn optional_id(&mut self) -> Option<Uuid> {
        let field = self.bytes();
        (!field.is_empty()).then(|| Uuid::from_bytes(field.try_into().expect("16 bytes")))
    }

    pub(crate) fn array<const N: usize>(&mut self) -> [u8; N] {
        self.bytes().try_into().expect("bytes of this length")
    }

    pub(crate) fn end(self) {
        assert!(self.0.is_empty(), "nothing may follow the last field");
    }
}
