//! The rarer things a device signs, by the bare protocol: the end of an account, signals, refusals of copies.

use sealcast::protocol::binary::{Blob, Hash, Signature, WrappedKey};
use sealcast::protocol::certificate::{Deletion, SignedDeletion};
use sealcast::protocol::frame::{DeleteAccount, RefuseCopy, Sessions, SetChatInfo, SetProfile, Signal};
use sealcast::protocol::ids::{ChatId, GenerationNo, InfoKeyId, KeyId, Revision, Seq, SessionId, SignalId};
use sealcast::protocol::info::{SealedInfo, SignedInfo};
use sealcast::protocol::info_seal::InfoKeySeal;
use sealcast::protocol::keys::{CopyRefusal, InfoKeyWrap, RefusalReason, SignedRefusal};
use sealcast::protocol::profile::{ProfileKeyWrap, SealedProfile, SignedProfile};
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

    /// What a chat is called from revision `revision` on, with bytes that only look encrypted, and a wrap that only
    /// looks like one for this very session.
    pub fn named(&self, chat_id: ChatId, revision: u64, key_id: InfoKeyId, name: &[u8]) -> SetChatInfo {
        let info = SealedInfo {
            revision: Revision::saturating(revision),
            key_id,
            key_seq: Seq::default(),
            session_id: self.session_id,
            name: Some(Blob::from(name.to_vec())),
            description: None,
        };
        let info_keys = vec![self.info_key_wrap(chat_id, key_id, self.session_id)];
        SetChatInfo { chat_id, info: self.sign_info(chat_id, info), info_keys, seal: None }
    }

    /// Signs what a chat is called.
    pub fn sign_info(&self, chat_id: ChatId, info: SealedInfo) -> SignedInfo {
        let signature = sign(&self.signing, &info.signed_bytes(chat_id));
        SignedInfo { info, signature }
    }

    /// A wrap of an info key that only looks like one, signed for real.
    pub fn info_key_wrap(&self, chat_id: ChatId, key_id: InfoKeyId, session_id: SessionId) -> InfoKeyWrap {
        let mut wrap = InfoKeyWrap {
            session_id,
            key_id,
            key: WrappedKey([5; 80]),
            wrapped_by_session_id: self.session_id,
            signature: Signature([0; 64]),
        };
        wrap.signature = sign(&self.signing, &wrap.signed_bytes(chat_id));
        wrap
    }

    /// An info key that only looks sealed to a recovery key, signed for real.
    pub fn info_key_seal(&self, chat_id: ChatId, key_id: InfoKeyId, generation: GenerationNo) -> InfoKeySeal {
        let mut seal = InfoKeySeal {
            key_id,
            generation,
            key: WrappedKey([6; 80]),
            sealed_by_session_id: self.session_id,
            signature: Signature([0; 64]),
        };
        seal.signature = sign(&self.signing, &seal.signed_bytes(chat_id));
        seal
    }

    /// What this user says of themselves from revision `revision` on, with bytes that only look encrypted, and a wrap
    /// that only looks like one for this very session.
    pub fn profile(&self, revision: u64, key_id: InfoKeyId, name: &[u8]) -> SetProfile {
        let profile = SealedProfile {
            user_id: self.user_id,
            revision: Revision::saturating(revision),
            key_id,
            session_id: self.session_id,
            name: Some(Blob::from(name.to_vec())),
            email: None,
            description: None,
        };
        let keys = vec![self.profile_key_wrap(key_id, self.session_id)];
        SetProfile { profile: self.sign_profile(profile), keys, own_key: None }
    }

    /// Signs a profile.
    pub fn sign_profile(&self, profile: SealedProfile) -> SignedProfile {
        let signature = sign(&self.signing, &profile.signed_bytes());
        SignedProfile { profile, signature }
    }

    /// A wrap of this user's info key that only looks like one, signed for real.
    pub fn profile_key_wrap(&self, key_id: InfoKeyId, session_id: SessionId) -> ProfileKeyWrap {
        let mut wrap = ProfileKeyWrap {
            user_id: self.user_id,
            session_id,
            key_id,
            key: WrappedKey([5; 80]),
            wrapped_by_session_id: self.session_id,
            signature: Signature([0; 64]),
        };
        wrap.signature = sign(&self.signing, &wrap.signed_bytes());
        wrap
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
