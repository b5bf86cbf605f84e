//! What users say of themselves: told to who may read it when it changes, and its key asked of the user's own sessions.
//!
//! Pushes are small and may be lost: what they say can be fetched at any time. Each session that lacks a key is found
//! when it comes online, comes into a chat, or when a session of the user who has the key comes online.

use super::Broker;
use super::connection::Connection;
use crate::protocol::frame::{
    Nothing, ProfileChanged, Reply, RequestProfileKey, ServerFrame, SetProfile, UploadProfileKeys,
};
use crate::protocol::ids::{Revision, SessionId, UserId};
use crate::store::Failure;
use crate::store::members::Requester;
use crate::store::profile_readers::HolderOf;

impl Broker {
    /// Saves a user's profile, and tells its readers.
    ///
    /// # Errors
    /// What [`Store::set_profile`](crate::store::Store::set_profile) refuses.
    pub async fn set_profile(&self, who: Requester, request: &SetProfile) -> Result<Reply, Failure> {
        self.store.set_profile(who, request).await?;
        // Also after a repeat: the first may have ended between its commit and this. In the background: readers may be
        // many, and the one who saves waits for none of them.
        let broker = self.clone();
        actix::spawn(async move {
            broker.tell_profile_changed(who.user_id, None).await;
            broker.ask_for_profile_key(who.user_id).await;
        });
        Ok(Reply::Done(Nothing {}))
    }

    /// Stores wraps of a user's info key, and tells who lacked it.
    ///
    /// # Errors
    /// What [`Store::upload_profile_keys`](crate::store::Store::upload_profile_keys) refuses.
    pub async fn upload_profile_keys(&self, who: Requester, request: &UploadProfileKeys) -> Result<Reply, Failure> {
        let stored = self.store.upload_profile_keys(who, request).await?;
        if !stored.is_empty() {
            self.tell_profile_changed(who.user_id, Some(&stored)).await;
            // There may be more than one request takes.
            self.ask_for_profile_key(who.user_id).await;
        }
        Ok(Reply::Done(Nothing {}))
    }

    /// Notes that the wrap that a session was given is of no use, and asks its user's sessions for another one.
    ///
    /// # Errors
    /// What [`Store::request_profile_key`](crate::store::Store::request_profile_key) refuses.
    pub async fn request_profile_key(&self, who: Requester, request: &RequestProfileKey) -> Result<Reply, Failure> {
        self.store.request_profile_key(who, request).await?;
        self.ask_for_profile_key(request.user_id).await;
        Ok(Reply::Done(Nothing {}))
    }

    /// Tells a session that has come online of its user's own profile and of who lacks its key.
    pub async fn tell_profile(&self, connection: &Connection, user_id: UserId, revision: Revision) {
        let changed = ServerFrame::ProfileChanged(ProfileChanged { user_id, revision });
        if connection.outbox.try_push(&connection.frame(&changed)).is_ok() {
            self.ask_for_profile_key(user_id).await;
        }
    }

    /// Finds what newcomers of a chat and its members lack of one another's info keys. In the background: the chat does
    /// not wait for it.
    pub fn show_newcomers_profiles(&self, newcomers: &[SessionId]) {
        let connections = newcomers.iter().filter_map(|session_id| self.directory.connection(*session_id));
        let connected: Vec<Requester> = connections.filter_map(|connection| connection.who()).collect();
        if connected.is_empty() {
            return;
        }
        let broker = self.clone();
        actix::spawn(async move {
            let mut asked = None;
            for who in connected {
                broker.ask_profile_keys_for(who).await;
                if asked.replace(who.user_id) != Some(who.user_id) {
                    broker.ask_for_profile_key(who.user_id).await;
                }
            }
        });
    }

    /// Finds who lacks a user's info key because they may read the profile again. In the background.
    pub fn profile_is_open_to_more(&self, user_id: UserId) {
        let broker = self.clone();
        actix::spawn(async move { broker.ask_for_profile_key(user_id).await });
    }

    /// Asks the sessions of other users for the info keys that one session lacks.
    async fn ask_profile_keys_for(&self, reader: Requester) {
        if let Ok(holders) = self.store.profile_holders_for(reader).await {
            self.ask_for_profile_keys(holders);
        }
    }

    /// Asks sessions of other users for the info keys that they hold and one lacks.
    pub fn ask_for_profile_keys(&self, holders: Vec<HolderOf>) {
        for found in holders {
            self.push_to(found.holder, &ServerFrame::ProfileKeyRequested(found.requested));
        }
    }

    /// Asks one of a user's connected sessions that hold the user's info key for those who lack it.
    async fn ask_for_profile_key(&self, user_id: UserId) {
        let Ok(Some((requested, holders))) = self.store.lacking_profile_key(user_id).await else { return };
        if let Some(holder) = holders.into_iter().find(|holder| self.directory.connection(*holder).is_some()) {
            self.push_to(holder, &ServerFrame::ProfileKeyRequested(requested));
        }
    }

    /// Tells readers of a profile that it was saved or that its key has come: those that are named, or all.
    async fn tell_profile_changed(&self, user_id: UserId, among: Option<&[SessionId]>) {
        let Ok(Some((revision, readers))) = self.store.profile_audience(user_id).await else { return };
        let frame = ServerFrame::ProfileChanged(ProfileChanged { user_id, revision });
        for session_id in readers {
            if among.is_none_or(|among| among.contains(&session_id)) {
                self.push_to(session_id, &frame);
            }
        }
    }
}
