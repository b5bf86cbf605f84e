//! Group secrets by the bare protocol: signed for real, sealed to nobody unless the test does it.

use sealcast::protocol::binary::{Blob, Hash};
use sealcast::protocol::canonical::sha256;
use sealcast::protocol::frame::{
    ConfirmSecret, DeleteSecret, FetchSecret, FetchSecretLog, ListSecrets, Reply, Request, SealedSecret, Secrets,
    SetSecret,
};
use sealcast::protocol::group_secret::{
    SecretDeletion, SecretRevision, SecretWrite, SignedSecret, SignedSecretDeletion,
};
use sealcast::protocol::ids::{ChatId, GenerationNo, Revision, SecretId, Seq};

use super::device::{Device, Socket, sign};
use super::generations::NO_SIGNATURE;

impl Device {
    /// The first revision of a secret of nothing.
    pub fn secret(&self, chat_id: ChatId, generation: GenerationNo) -> SetSecret {
        let (name, value) = (Blob::from(vec![7; 40]), Blob::from(vec![8; 60]));
        let secret = SecretRevision {
            secret_id: SecretId::generate(),
            revision: Revision::saturating(1),
            write: SecretWrite::Set,
            generation,
            changed_seq: Seq::saturating(1),
            session_id: self.session_id,
            previous: None,
            source: None,
            value_hash: sha256(value.as_ref()),
            name,
        };
        self.signed_secret(chat_id, secret, value)
    }

    /// The next revision of a secret.
    pub fn next_secret(&self, before: &SetSecret) -> SetSecret {
        let mut secret = before.secret.secret.clone();
        secret.previous = Some(before.secret.hash(before.chat_id));
        secret.revision = secret.revision.next();
        secret.session_id = self.session_id;
        secret.write = SecretWrite::Set;
        secret.source = None;
        self.signed_secret(before.chat_id, secret, before.value.clone())
    }

    /// The next revision of a secret, sealed again under a generation, made of the one before or of another.
    pub fn resealed(&self, before: &SetSecret, generation: GenerationNo, source: Option<Hash>) -> SetSecret {
        let mut next = self.next_secret(before).secret.secret;
        next.write = SecretWrite::Reseal;
        next.generation = generation;
        next.source = source.or(next.previous);
        self.signed_secret(before.chat_id, next, before.value.clone())
    }

    /// Signs a revision, whatever it says but for the value's hash.
    pub fn signed_secret(&self, chat_id: ChatId, mut secret: SecretRevision, value: Blob) -> SetSecret {
        secret.value_hash = sha256(value.as_ref());
        self.sign_secret(SetSecret { chat_id, secret: SignedSecret { secret, signature: NO_SIGNATURE }, value })
    }

    /// Signs a revision as it is.
    pub fn sign_secret(&self, mut set: SetSecret) -> SetSecret {
        set.secret.signature = sign(&self.signing, &set.secret.secret.signed_bytes(set.chat_id));
        set
    }

    /// One of each request about secrets.
    pub fn every_secret_request(&self, chat_id: ChatId) -> Vec<Request> {
        let secret = self.secret(chat_id, GenerationNo::saturating(1));
        let secret_id = secret.secret.secret.secret_id;
        vec![
            set(&secret),
            set(&self.resealed(&secret, GenerationNo::saturating(2), None)),
            Request::DeleteSecret(self.secret_deletion(&secret)),
            Request::ListSecrets(ListSecrets { chat_id, after: None }),
            Request::FetchSecret(FetchSecret { chat_id, secret_id }),
            Request::ConfirmSecret(ConfirmSecret { chat_id, secret_id, revision: Revision::saturating(1) }),
            Request::FetchSecretLog(FetchSecretLog { chat_id, before: None }),
        ]
    }

    /// The end of a secret whose newest revision this is.
    pub fn secret_deletion(&self, before: &SetSecret) -> DeleteSecret {
        let chat_id = before.chat_id;
        let deletion = SecretDeletion {
            secret_id: before.secret.secret.secret_id,
            revision: before.secret.secret.revision.next(),
            session_id: self.session_id,
            previous: before.secret.hash(chat_id),
        };
        let signature = sign(&self.signing, &deletion.signed_bytes(chat_id));
        DeleteSecret { chat_id, deletion: SignedSecretDeletion { deletion, signature } }
    }
}

/// A request to save a revision.
pub fn set(secret: &SetSecret) -> Request {
    Request::SetSecret(Box::new(secret.clone()))
}

/// One page of a chat's secrets.
pub async fn list_secrets(socket: &mut Socket, chat_id: ChatId, after: Option<SecretId>) -> Secrets {
    match socket.request(Request::ListSecrets(ListSecrets { chat_id, after })).await.unwrap() {
        Reply::Secrets(secrets) => secrets,
        other => panic!("{other:?}"),
    }
}

/// A secret with its value.
pub async fn fetch_secret(socket: &mut Socket, chat_id: ChatId, secret_id: SecretId) -> SealedSecret {
    match socket.request(Request::FetchSecret(FetchSecret { chat_id, secret_id })).await.unwrap() {
        Reply::Secret(secret) => *secret,
        other => panic!("{other:?}"),
    }
}
