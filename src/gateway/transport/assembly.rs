//! Puts messages together from their fragments.
//!
//! Pure: bytes in, messages or a violation out; floor 5. The guard has already judged the order of frames and the sum of
//! their declared lengths. The checks here repeat the ones that memory depends on.

use bytes::Bytes;

use super::inbound::{MessageKind, Violation};

/// The message being put together, if any.
#[derive(Debug)]
pub(super) struct Assembly {
    bytes_max: usize,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    kind: MessageKind,
    data: Vec<u8>,
    /// How much of a text is known to be valid UTF-8, so that each byte is judged once.
    valid_bytes: usize,
}

impl Assembly {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, open: None }
    }

    /// Starts a message with its first fragment.
    ///
    /// # Errors
    /// Another message is open, or the fragment is already too large or not UTF-8.
    pub(super) fn start(&mut self, kind: MessageKind, data: &[u8]) -> Result<(), Violation> {
        if self.open.is_some() {
            return Err(Violation::Protocol("message inside a message"));
        }
        self.open = Some(Open { kind, data: Vec::new(), valid_bytes: 0 });
        self.add(data)
    }

    /// Adds a fragment that is not the last.
    ///
    /// # Errors
    /// No message is open, it grows too large, or its text is not UTF-8.
    pub(super) fn add(&mut self, data: &[u8]) -> Result<(), Violation> {
        let Some(open) = &mut self.open else {
            return Err(Violation::Protocol("continuation of nothing"));
        };
        if open.data.len().saturating_add(data.len()) > self.bytes_max {
            return Err(Violation::TooLarge);
        }
        open.data.extend_from_slice(data);
        open.check_text(false)
    }

    /// Adds the last fragment and gives the whole message.
    ///
    /// # Errors
    /// As [`Assembly::add`]; and a text that ends within a character.
    pub(super) fn finish(&mut self, data: &[u8]) -> Result<(MessageKind, Bytes), Violation> {
        self.add(data)?;
        let Some(mut open) = self.open.take() else {
            return Err(Violation::Protocol("continuation of nothing"));
        };
        open.check_text(true)?;
        // Boxed first: it gives back what growing by doubling took too much.
        Ok((open.kind, Bytes::from(open.data.into_boxed_slice())))
    }
}

impl Open {
    fn check_text(&mut self, is_whole: bool) -> Result<(), Violation> {
        if self.kind == MessageKind::Binary {
            return Ok(());
        }
        match std::str::from_utf8(self.data.get(self.valid_bytes..).unwrap_or_default()) {
            Ok(_) => self.valid_bytes = self.data.len(),
            // No error length: the text ends within a character, which the next fragment may complete.
            Err(error) if error.error_len().is_none() && !is_whole => self.valid_bytes += error.valid_up_to(),
            Err(_) => return Err(Violation::Utf8),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_may_be_cut_within_a_character_but_not_end_there() {
        let text = "κόσμε 🎈";
        for cut in 0..=text.len() {
            let (head, tail) = text.as_bytes().split_at(cut);
            let mut assembly = Assembly::new(100);
            assembly.start(MessageKind::Text, head).unwrap();
            assembly.add(b"").unwrap();
            assert_eq!(assembly.finish(tail), Ok((MessageKind::Text, Bytes::from_static(text.as_bytes()))));
        }
        let mut assembly = Assembly::new(100);
        assembly.start(MessageKind::Text, &[0xF0, 0x9F]).unwrap();
        assert_eq!(assembly.finish(b""), Err(Violation::Utf8));
    }

    #[test]
    fn bad_text_is_refused_at_its_fragment_and_binary_is_not_judged() {
        let mut assembly = Assembly::new(100);
        assembly.start(MessageKind::Text, b"fine").unwrap();
        assert_eq!(assembly.add(&[0xFF]), Err(Violation::Utf8));
        let mut assembly = Assembly::new(100);
        assembly.start(MessageKind::Binary, &[0xFF]).unwrap();
        assert_eq!(assembly.finish(&[0xFE]), Ok((MessageKind::Binary, Bytes::from_static(&[0xFF, 0xFE]))));
    }

    #[test]
    fn the_sum_is_capped_and_the_order_kept() {
        let mut assembly = Assembly::new(4);
        assert!(matches!(assembly.add(b""), Err(Violation::Protocol(_))));
        assembly.start(MessageKind::Binary, b"abc").unwrap();
        assert!(matches!(assembly.start(MessageKind::Binary, b""), Err(Violation::Protocol(_))));
        assert_eq!(assembly.finish(b"d").unwrap().1, "abcd");
        assembly.start(MessageKind::Binary, b"abc").unwrap();
        assert_eq!(assembly.finish(b"de"), Err(Violation::TooLarge));
    }
}
