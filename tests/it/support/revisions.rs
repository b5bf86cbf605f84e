//! Edits and deletions by the bare protocol.

use sealcast::protocol::binary::{Blob, Signature};
use sealcast::protocol::envelope::{Envelope, MessageKind};
use sealcast::protocol::frame::Send;
use sealcast::protocol::ids::{ChatId, Counter, MessageId, Revision};

use super::chat::{SenderKey, View};
use super::device::Device;

impl Device {
    /// A revision of a message under a key, as an honest client seals it from this view.
    pub fn edit(&self, view: &View, key: &mut SenderKey, message_id: MessageId, revision: u64, data: &[u8]) -> Send {
        let mut send = self.seal(view, key, data);
        send.envelope.kind = MessageKind::Edit;
        send.envelope.message_id = message_id;
        send.envelope.revision = Revision::saturating(revision);
        self.sign_envelope(&mut send);
        send
    }

    /// The deletion of a message, as an honest client signs it from this view.
    pub fn deletion(&self, view: &View, chat_id: ChatId, message_id: MessageId, revision: u64) -> Send {
        let envelope = Envelope {
            kind: MessageKind::Delete,
            message_id,
            revision: Revision::saturating(revision),
            sender_id: self.user_id,
            sender_session_id: self.session_id,
            key_id: None,
            counter: Counter::default(),
            roster_hash: view.fold.roster_hash(),
            seen: view.seen,
            attachments: Vec::new(),
            data: None::<Blob>,
            purged: None,
            signature: Signature([0; 64]),
        };
        let mut send = Send { chat_id, envelope, new_key: None, add_copies: Vec::new(), archive: None };
        self.sign_envelope(&mut send);
        send
    }
}
