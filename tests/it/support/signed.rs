//! The rarer things a device signs, by the bare protocol: the end of an account, signals, refusals of copies.

use sealcast::protocol::binary::{Blob, Hash, Signature};
use sealcast::protocol::certificate::{Deletion, SignedDeletion};
use sealcast::protocol::frame::{DeleteAccount, RefuseCopy, Sessions, Signal};
use sealcast::protocol::ids::{ChatId, KeyId, SignalId};
use sealcast::protocol::keys::{CopyRefusal, RefusalReason, SignedRefusal};
use sealcast::protocol::signal::SignalEnvelope;

use super::device::{Device, now, sign};

impl Device {
    /// The end of the account, next in the chain as it stands.
    pub fn account_deletion(&self, chain: &Sessions) -> DeleteAccount {
        let deletion =
            Deletion { user_id: self.user_id, place: chain.place.next(), previous: chain.hash, created_at: now() };
        let signature = sign(&self.identity, &deletion.signed_bytes());
        DeleteAccount { deletion: SignedDeletion { deletion, signature } }
    }

    /// A signal under a key of this session, with bytes that only look encrypted.
    pub fn signal(&self, chat_id: ChatId, key_id: KeyId) -> Signal {
        let mut signal = SignalEnvelope {
            sender_id: self.user_id,
            sender_session_id: self.session_id,
            key_id,
            signal_id: SignalId::generate(),
            created_at: now(),
            data: Blob::from(vec![7; 60]),
            signature: Signature([0; 64]),
        };
        signal.signature = sign(&self.signing, &signal.signed_bytes(chat_id));
        Signal { chat_id, signal }
    }

    /// What this session says of a copy that does not open, whatever copy it has.
    pub fn copy_refusal(&self, chat_id: ChatId, key_id: KeyId) -> RefuseCopy {
        self.refusal_of(chat_id, key_id, Hash([7; 32]))
    }

    /// What this session says of one copy.
    pub fn refusal_of(&self, chat_id: ChatId, key_id: KeyId, copy_hash: Hash) -> RefuseCopy {
        let refusal =
            CopyRefusal { key_id, session_id: self.session_id, reason: RefusalReason::DoesNotOpen, copy_hash };
        let signature = sign(&self.signing, &refusal.signed_bytes(chat_id));
        RefuseCopy { chat_id, refusal: SignedRefusal { refusal, signature } }
    }
}
