//! One of every request at least, signed as its sender would sign it: whoever must be refused is refused all of them.
//!
//! A type of request that is new fails to compile in [`about`], and fails [`Scene::all`] until it is made here.

use std::collections::BTreeSet;

use sealcast::protocol::binary::Blob;
use sealcast::protocol::frame::{
    AddPolicy, AdvanceCursor, ChainFrom, ChangeMembership, Cursor, DeleteChat, Direction, Events, FetchArchives,
    FetchGroupKeys, FetchLinks, FetchProfile, FetchShare, FetchUserKeys, FurtherCopy, History, Keys, ListDeliveries,
    ListMembers, LookupUser, Nothing, Request, RequestInfoKey, RequestKeys, RequestProfileKey, Resume, RevokeSession,
    Sessions, SetAddPolicy, SetBlock, SetLabel, StageCopies, UploadBackups, UploadCopies, UploadInfoKeys, UploadLinks,
    UploadProfileKeys, UserEvents,
};
use sealcast::protocol::ids::{
    ChatId, GenerationNo, InfoKeyId, KeyId, MessageId, Place, RecoveryRequestId, Seq, ShareSetId, UserId,
};
use sealcast::protocol::membership::{Change, HistoryPolicy};
use sealcast::protocol::username::Username;

use super::chat::{View, copy_for};
use super::device::Device;

/// What a request is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About {
    /// Who is there.
    Login,
    /// One chat, which it names.
    Chat,
    /// Where one stands in one's chats.
    Standing,
    /// One's own account and sessions.
    Account,
    /// What anybody may know.
    Public,
}

/// What a request is about; a new type must be given its place.
pub const fn about(request: &Request) -> About {
    match request {
        Request::Authenticate(_) => About::Login,
        Request::ChangeMembership(_)
        | Request::DeleteChat(_)
        | Request::ListMembers(_)
        | Request::Send(_)
        | Request::StageCopies(_)
        | Request::History(_)
        | Request::Events(_)
        | Request::Keys(_)
        | Request::AdvanceCursor(_)
        | Request::Signal(_)
        | Request::ListDeliveries(_)
        | Request::RequestKeys(_)
        | Request::UploadCopies(_)
        | Request::RefuseCopy(_)
        | Request::SetChatInfo(_)
        | Request::UploadInfoKeys(_)
        | Request::RequestInfoKey(_)
        | Request::MakeGeneration(_)
        | Request::RefuseGeneration(_)
        | Request::FetchGroupKeys(_)
        | Request::UploadLinks(_)
        | Request::FetchLinks(_)
        | Request::FetchArchives(_)
        | Request::SetSecret(_)
        | Request::DeleteSecret(_)
        | Request::ListSecrets(_)
        | Request::FetchSecret(_)
        | Request::ConfirmSecret(_)
        | Request::FetchSecretLog(_) => About::Chat,
        Request::FetchUserKeys(_) => About::Public,
        Request::SetShares(_)
        | Request::FetchShare(_)
        | Request::ListRecoveryRequests(_)
        | Request::ReleaseShare(_)
        | Request::CancelRecoveryRequest(_) => About::Account,
        Request::Resume(_) => About::Standing,
        Request::ListSessions(_)
        | Request::ApproveSession(_)
        | Request::RevokeSession(_)
        | Request::FetchHandover(_)
        | Request::UploadBackups(_)
        | Request::FetchBackups(_)
        | Request::CreateChat(_)
        | Request::ListChats(_)
        | Request::SetLabel(_)
        | Request::DeleteAccount(_)
        | Request::FetchSettings(_)
        | Request::SetAddPolicy(_)
        | Request::SetProfile(_)
        | Request::FetchProfile(_)
        | Request::UploadProfileKeys(_)
        | Request::RequestProfileKey(_)
        | Request::SetBlock(_) => About::Account,
        Request::LookupUser(_) | Request::Ping(_) | Request::UserEvents(_) => About::Public,
    }
}

/// Every membership change that can be asked of a chat that is there, by its word.
pub fn every_change(view: &View) -> Vec<Change> {
    let (roster_hash, epoch) = (view.fold.roster_hash(), view.fold.epoch());
    let changes = vec![
        Change::Add { can_write: true, can_manage: true, roster_hash, epoch },
        Change::Remove,
        Change::Leave,
        Change::SetRights { can_write: true, can_manage: true },
        Change::Transfer,
        Change::Rekey,
        Change::SetHistory { policy: HistoryPolicy::Shared },
    ];
    for change in &changes {
        // A new kind of change does not compile until it is in the list above.
        match change {
            Change::Add { .. }
            | Change::Remove
            | Change::Leave
            | Change::SetRights { .. }
            | Change::Transfer
            | Change::Rekey
            | Change::SetHistory { .. } => {}
            Change::Create | Change::Delete => panic!("a request of their own"),
        }
    }
    changes
}

/// Who asks, and of what.
pub struct Scene<'a> {
    /// Who asks.
    pub device: &'a Device,
    /// Another user.
    pub other: &'a Device,
    pub chat_id: ChatId,
    /// The chat as it was when the one who asks last saw it, or as its members see it.
    pub view: &'a View,
    /// A message of the other user's in it.
    pub message_id: MessageId,
    /// A key of the chat.
    pub key_id: KeyId,
}

impl Scene<'_> {
    /// Every request that names a chat.
    pub fn of_chat(&self) -> Vec<Request> {
        let (device, chat_id, view) = (self.device, self.chat_id, self.view);
        let (start, end) = (Seq::default(), Seq::saturating(u64::MAX));
        let mut key = device.sender_key(view, chat_id);
        let key_ids = vec![self.key_id, KeyId::generate()];
        let copy = copy_for(device.session_id);
        let further = FurtherCopy { key_id: self.key_id, session_id: copy.session_id, key: copy.key };
        let mut requests = vec![
            Request::Send(Box::new(device.seal(view, &mut key, b"let me in"))),
            Request::Send(Box::new(device.edit(view, &mut key, self.message_id, 1, b"other words"))),
            Request::Send(Box::new(device.deletion(view, chat_id, self.message_id, 1))),
            Request::DeleteChat(DeleteChat {
                chat_id,
                change: device.change_from(view, chat_id, Change::Delete, device),
            }),
            Request::ListMembers(ListMembers { chat_id }),
            Request::StageCopies(StageCopies {
                chat_id,
                key_id: self.key_id,
                part: 0,
                parts: 1,
                copies: vec![copy_for(device.session_id)],
            }),
            Request::Events(Events { chat_id, after: start, before: end }),
            Request::Events(Events { chat_id, after: view.seen.seq, before: end }),
            Request::Keys(Keys { chat_id, key_ids: key_ids.clone() }),
            Request::AdvanceCursor(AdvanceCursor { chat_id, seq: start }),
            Request::AdvanceCursor(AdvanceCursor { chat_id, seq: view.seen.seq }),
            Request::Signal(device.signal(chat_id, self.key_id)),
            Request::ListDeliveries(ListDeliveries { chat_id }),
            Request::RequestKeys(RequestKeys { chat_id, key_ids }),
            Request::UploadCopies(UploadCopies { chat_id, copies: Vec::new() }),
            Request::UploadCopies(UploadCopies { chat_id, copies: vec![further] }),
            Request::RefuseCopy(device.copy_refusal(chat_id, self.key_id)),
            Request::SetChatInfo(Box::new(device.named(chat_id, 1, InfoKeyId::generate(), b"mine now"))),
            Request::UploadInfoKeys(UploadInfoKeys {
                chat_id,
                info_keys: vec![device.info_key_wrap(chat_id, InfoKeyId::generate(), device.session_id)],
                seal: None,
            }),
            Request::UploadInfoKeys(UploadInfoKeys {
                chat_id,
                info_keys: Vec::new(),
                seal: Some(device.info_key_seal(chat_id, InfoKeyId::generate(), GenerationNo::saturating(1))),
            }),
            Request::RequestInfoKey(RequestInfoKey { chat_id }),
            Request::MakeGeneration(device.generation(view, chat_id, GenerationNo::saturating(1))),
            Request::RefuseGeneration(device.generation_refusal(chat_id, GenerationNo::saturating(1))),
            Request::FetchGroupKeys(FetchGroupKeys { chat_id, after: GenerationNo::default() }),
            Request::UploadLinks(UploadLinks { chat_id, links: vec![device.generation_link(chat_id, 2)] }),
            Request::FetchLinks(FetchLinks { chat_id, after: GenerationNo::default() }),
            Request::FetchArchives(FetchArchives { chat_id, key_ids: vec![self.key_id] }),
        ];
        requests.extend(device.every_secret_request(chat_id));
        for seq in [start, view.seen.seq, view.seen.seq.next(), end] {
            for direction in [Direction::After, Direction::Before] {
                requests.push(Request::History(History { chat_id, direction, seq, limit: 200 }));
            }
        }
        for change in every_change(view) {
            for target in [device, self.other] {
                let change = device.change_from(view, chat_id, change.clone(), target);
                let info_keys = Vec::new();
                requests.push(Request::ChangeMembership(ChangeMembership { chat_id, change, info_keys }));
            }
        }
        assert!(requests.iter().all(|request| about(request) == About::Chat));
        requests
    }

    /// Every request but the login; `chain` is the own chain of who asks, and `pending` a session that waits.
    pub fn all(&self, chain: &Sessions, pending: &Device) -> Vec<Request> {
        let (device, other) = (self.device, self.other);
        let mut pending = pending.clone();
        pending.certify_at(chain.place.next(), chain.hash);
        let mut requests = self.of_chat();
        requests.extend([
            Request::Resume(Resume { cursors: vec![Cursor { chat_id: self.chat_id, seq: Seq::saturating(1) }] }),
            Request::ListSessions(Nothing {}),
            Request::ApproveSession(pending.approval()),
            Request::RevokeSession(RevokeSession {
                revocation: device.revocation(chain, device.session_id),
                withdrawal: None,
            }),
            Request::FetchHandover(Nothing {}),
            Request::UploadBackups(UploadBackups { session_id: device.session_id, backups: Vec::new() }),
            Request::FetchBackups(Nothing {}),
            Request::CreateChat(device.creation(ChatId::generate())),
            Request::ListChats(Nothing {}),
            Request::SetLabel(SetLabel { session_id: device.session_id, label: Some(Blob::from(vec![7; 40])) }),
            Request::DeleteAccount(device.account_deletion(chain)),
            Request::FetchSettings(Nothing {}),
            Request::SetAddPolicy(SetAddPolicy { policy: AddPolicy::Nobody }),
            Request::SetBlock(SetBlock { user_id: other.user_id, blocked: true }),
            Request::SetProfile(Box::new(device.profile(1, InfoKeyId::generate(), b"what I say"))),
            Request::FetchProfile(FetchProfile { user_id: other.user_id }),
            Request::UploadProfileKeys(UploadProfileKeys {
                keys: vec![device.profile_key_wrap(InfoKeyId::generate(), device.session_id)],
            }),
            Request::RequestProfileKey(RequestProfileKey { user_id: other.user_id }),
            Request::FetchUserKeys(FetchUserKeys { user_ids: vec![other.user_id] }),
            Request::SetShares(Box::new(device.shares_with(&[other.user_id, UserId::generate()]))),
            Request::FetchShare(FetchShare { user_id: other.user_id }),
            Request::ListRecoveryRequests(Nothing {}),
            Request::ReleaseShare(Box::new(device.released(RecoveryRequestId::generate(), ShareSetId::generate()))),
            Request::CancelRecoveryRequest(device.cancellation(RecoveryRequestId::generate())),
            Request::LookupUser(LookupUser { username: Username::parse(&other.username).unwrap() }),
            Request::Ping(Nothing {}),
            Request::UserEvents(UserEvents {
                users: vec![ChainFrom { user_id: other.user_id, after: Place::default() }],
            }),
        ]);
        let names: BTreeSet<&str> = requests.iter().map(Request::name).collect();
        let missing: Vec<_> =
            Request::NAMES.iter().filter(|name| **name != "authenticate" && !names.contains(**name)).collect();
        assert!(missing.is_empty(), "requests are left out: {missing:?}");
        requests
    }
}
