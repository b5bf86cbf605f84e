//! What is open for a session that has just come online: mostly nothing, and that is found out at one stroke.

use std::collections::BTreeSet;

use futures_util::future::{try_join, try_join3, try_join4};

use super::Store;
use super::copies::{OpenRequest, open_requests};
use super::error::Failure;
use super::info::{LackingInfoKey, chats_lacking_to, open_info_key_requests};
use super::info_seals::open_seals;
use super::members::Requester;
use super::profile_readers::{HolderOf, profile_holders_for, profile_revision};
use super::recovery_requests::recovery_requests;
use crate::protocol::frame::RecoveryRequest;
use crate::protocol::ids::{ChatId, Revision};

/// What is open for a session; each list is bounded.
#[derive(Debug, Default)]
pub struct OpenFor {
    /// Sender keys that others lack and it may hand on.
    pub requests: Vec<OpenRequest>,
    /// Chats whose info key it lacks.
    pub info_keys_lacking: BTreeSet<ChatId>,
    /// Info keys that others lack and it holds.
    pub info_key_requests: Vec<LackingInfoKey>,
    /// Info keys that it holds and that are not sealed to their chats' recovery keys.
    pub seals: Vec<LackingInfoKey>,
    /// Who holds the keys of profiles that it cannot read.
    pub profile_holders: Vec<HolderOf>,
    /// The newest revision of its user's own profile.
    pub profile: Option<Revision>,
    /// Requests to recover an account that concern its user.
    pub recovery_requests: Vec<RecoveryRequest>,
}

impl Store {
    /// What is open for a session.
    ///
    /// # Errors
    /// A session that is not live, or [`StoreError`](super::StoreError).
    pub async fn open_for(&self, who: Requester) -> Result<OpenFor, Failure> {
        self.read("open_for", async |tx| {
            // All on their way at once: one after the other they would cost a session that comes back seven round trips.
            let keys = try_join4(
                open_requests(tx, who),
                chats_lacking_to(tx, who),
                open_info_key_requests(tx, who),
                open_seals(tx, who),
            );
            let people =
                try_join3(profile_holders_for(tx, who), profile_revision(tx, who.user_id), recovery_requests(tx, who));
            let (keys, people) = try_join(keys, people).await?;
            let (requests, info_keys_lacking, info_key_requests, seals) = keys;
            let (profile_holders, profile, recovery_requests) = people;
            Ok(OpenFor {
                requests,
                info_keys_lacking,
                info_key_requests,
                seals,
                profile_holders,
                profile,
                recovery_requests,
            })
        })
        .await
    }
}
