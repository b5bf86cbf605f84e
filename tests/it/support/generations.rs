//! User keys, group keys and archives by the bare protocol: signed for real, sealed to nobody.

use sealcast::protocol::binary::{Hash, Signature, WrappedKey};
use sealcast::protocol::certificate::Revoker;
use sealcast::protocol::frame::{self, Changed, MakeGeneration, RefuseGeneration, Reply, Request};
use sealcast::protocol::generation_link::GenerationLink;
use sealcast::protocol::group_key::{
    Archive, Generation, GenerationRefusal, GroupKeyWrap, SignedGeneration, SignedGenerationRefusal, SignedWithdrawal,
    Withdrawal, member_keys_hash, wraps_hash,
};
use sealcast::protocol::ids::{ChatId, GenerationNo, UserKeyId};

use super::chat::View;
use super::device::{Device, Socket, exchange_key, now, sign};
use sealcast::protocol::strongbox::PublicUserKey;

/// What a wrap could be: nobody looks but those who can open it.
fn wrapped() -> WrappedKey {
    let mut bytes = [0; WrappedKey::LENGTH];
    getrandom::fill(&mut bytes).unwrap();
    WrappedKey(bytes)
}

/// An archive for a generation.
pub fn archive(generation: GenerationNo) -> Archive {
    Archive { generation, key: wrapped() }
}

impl Device {
    /// The generation of this number, for the members and user keys of a view.
    pub fn generation(&self, view: &View, chat_id: ChatId, number: GenerationNo) -> MakeGeneration {
        let keys: Vec<PublicUserKey> = view.fold.member_keys().values().copied().collect();
        self.generation_for(&keys, view, chat_id, number)
    }

    /// The same for other user keys than those of the view.
    pub fn generation_for(
        &self,
        keys: &[PublicUserKey],
        view: &View,
        chat_id: ChatId,
        number: GenerationNo,
    ) -> MakeGeneration {
        let wrap = |key: &PublicUserKey| GroupKeyWrap { user_id: key.user_id, key_id: key.key_id, key: wrapped() };
        let wraps: Vec<GroupKeyWrap> = keys.iter().map(wrap).collect();
        let generation = Generation {
            number,
            session_id: self.session_id,
            change_no: view.fold.membership().head,
            member_keys_hash: member_keys_hash(keys.iter()),
            public_key: exchange_key().1,
            wraps_hash: wraps_hash(&wraps),
        };
        self.signed_generation(chat_id, generation, wraps)
    }

    /// Signs a generation, whatever it says.
    pub fn signed_generation(
        &self,
        chat_id: ChatId,
        generation: Generation,
        wraps: Vec<GroupKeyWrap>,
    ) -> MakeGeneration {
        let signature = sign(&self.signing, &generation.signed_bytes(chat_id));
        MakeGeneration { chat_id, generation: SignedGeneration { generation, signature }, wraps }
    }

    /// A refusal of a generation.
    pub fn generation_refusal(&self, chat_id: ChatId, number: GenerationNo) -> RefuseGeneration {
        let refusal = GenerationRefusal { number, session_id: self.session_id };
        let signature = sign(&self.signing, &refusal.signed_bytes(chat_id));
        RefuseGeneration { chat_id, refusal: SignedGenerationRefusal { refusal, signature } }
    }

    /// What only looks like the link of a generation to the one before, signed for real.
    pub fn generation_link(&self, chat_id: ChatId, generation: u64) -> GenerationLink {
        let mut link = GenerationLink {
            generation: GenerationNo::saturating(generation),
            key: wrapped(),
            linked_by_session_id: self.session_id,
            signature: NO_SIGNATURE,
        };
        link.signature = sign(&self.signing, &link.signed_bytes(chat_id));
        link
    }

    /// The withdrawal of a user key by this session.
    pub fn withdrawal(&self, key_id: UserKeyId) -> SignedWithdrawal {
        let revoker = Revoker::Session(self.session_id);
        let withdrawal = Withdrawal { user_id: self.user_id, key_id, revoker, created_at: now() };
        SignedWithdrawal { withdrawal, signature: sign(&self.signing, &withdrawal.signed_bytes()) }
    }

    /// Makes the generation that a view says is due.
    pub async fn make_generation(
        &self,
        socket: &mut Socket,
        view: &View,
        chat_id: ChatId,
    ) -> Result<Changed, frame::Error> {
        let due = view.fold.generation_due().expect("one is due");
        change(socket, Request::MakeGeneration(self.generation(view, chat_id, due))).await
    }
}

/// Asks for what is answered by a place in the log.
pub async fn change(socket: &mut Socket, request: Request) -> Result<Changed, frame::Error> {
    match socket.request(request).await? {
        Reply::Changed(changed) => Ok(changed),
        other => panic!("{other:?}"),
    }
}

/// A hash and a signature of nothing.
pub const NO_HASH: Hash = Hash([7; 32]);
pub const NO_SIGNATURE: Signature = Signature([7; 64]);
