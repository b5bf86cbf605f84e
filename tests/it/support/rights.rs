//! Rights, ownership, history and accounts by the bare protocol.

use sealcast::protocol::frame::{
    self, AddPolicy, Changed, ChatInfo, Nothing, Reply, Request, SetAddPolicy, SetBlock, Settings,
};
use sealcast::protocol::ids::{ChatId, UserId};
use sealcast::protocol::membership::{Change, HistoryPolicy};

use super::chat::change_membership;
use super::device::{Device, Socket};
use super::link::sessions;

impl Device {
    /// Makes a change, signed for the place where the log stands now.
    pub async fn make(
        &self,
        socket: &mut Socket,
        chat_id: ChatId,
        change: Change,
        target: &Self,
    ) -> Result<Changed, frame::Error> {
        let change = self.change(socket, chat_id, change, target).await;
        change_membership(socket, chat_id, change).await
    }

    pub async fn set_rights(
        &self,
        socket: &mut Socket,
        chat_id: ChatId,
        target: &Self,
        (can_write, can_manage): (bool, bool),
    ) -> Result<Changed, frame::Error> {
        self.make(socket, chat_id, Change::SetRights { can_write, can_manage }, target).await
    }

    pub async fn transfer(&self, socket: &mut Socket, chat_id: ChatId, target: &Self) -> Result<Changed, frame::Error> {
        self.make(socket, chat_id, Change::Transfer, target).await
    }

    pub async fn rekey(&self, socket: &mut Socket, chat_id: ChatId) -> Result<Changed, frame::Error> {
        self.make(socket, chat_id, Change::Rekey, self).await
    }

    pub async fn set_history(
        &self,
        socket: &mut Socket,
        chat_id: ChatId,
        policy: HistoryPolicy,
    ) -> Result<Changed, frame::Error> {
        self.make(socket, chat_id, Change::SetHistory { policy }, self).await
    }

    /// Ends the account, as the chain stands now.
    pub async fn delete_account(&self, socket: &mut Socket) -> Result<Reply, frame::Error> {
        let deletion = self.account_deletion(&sessions(socket).await);
        socket.request(Request::DeleteAccount(deletion)).await
    }
}

pub async fn set_policy(socket: &mut Socket, policy: AddPolicy) {
    let reply = socket.request(Request::SetAddPolicy(SetAddPolicy { policy })).await.unwrap();
    assert_eq!(reply, Reply::Done(Nothing {}));
}

pub async fn set_block(socket: &mut Socket, user_id: UserId, blocked: bool) -> Result<Reply, frame::Error> {
    socket.request(Request::SetBlock(SetBlock { user_id, blocked })).await
}

pub async fn settings(socket: &mut Socket) -> Settings {
    match socket.request(Request::FetchSettings(Nothing {})).await.unwrap() {
        Reply::Settings(settings) => settings,
        other => panic!("{other:?}"),
    }
}

/// A chat as the session's user lists it.
pub async fn listed(socket: &mut Socket, chat_id: ChatId) -> Option<ChatInfo> {
    match socket.request(Request::ListChats(Nothing {})).await.unwrap() {
        Reply::Chats(chats) => chats.chats.into_iter().find(|info| info.chat_id == chat_id),
        other => panic!("{other:?}"),
    }
}
