//! Waits, after the last message and the last fault, until everybody has read all there is, and compares it.
//!
//! Invariant: a session that ended is waited for too, until the log says so: from then on nobody owes it anything.

use std::collections::HashMap;
use std::time::Instant;

use anyhow::{Context, anyhow};
use sealcast::client::Client;
use sealcast::protocol::ids::{ChatId, SessionId};
use std::time::Duration;
use tokio::task::JoinSet;

use super::{HEAL_TIMEOUT, LOOK_INTERVAL, Run, devices};
use crate::load::churn::User;

impl Run {
    /// Waits until every member session was given each chat up to its end, and says so; tells how many were not.
    pub(super) async fn heal(&self, users: &[User], owners: &HashMap<ChatId, usize>) -> anyhow::Result<u64> {
        let deadline = Instant::now() + HEAL_TIMEOUT;
        let live = async {
            for device in devices(users) {
                // A client that is closed for good is told by its event, and its chats by their missing end.
                let _ = device.client.live().await;
            }
        };
        let _ = tokio::time::timeout(HEAL_TIMEOUT, live).await;
        let mut behind = 0;
        for chat_id in self.load.recorder.chats() {
            let owner = owners.get(&chat_id).and_then(|owner| users.get(*owner)).and_then(|user| user.devices.first());
            let client = &owner.ok_or_else(|| anyhow!("a chat without an owner"))?.client;
            loop {
                let chats = client.list_chats().await.context("listing chats")?;
                let end = chats.iter().find(|chat| chat.chat_id == chat_id).map(|chat| chat.last_seq.get());
                let end = end.ok_or_else(|| anyhow!("the owner does not have the chat any more"))?;
                let members = self.load.recorder.members(chat_id);
                let late = members.values().filter(|highest| **highest < end).count();
                if late > 0 && Instant::now() < deadline {
                    tokio::time::sleep(LOOK_INTERVAL).await;
                    continue;
                }
                for (session_id, _) in members.iter().filter(|(_, highest)| **highest >= end) {
                    self.load.recorder.last(*session_id, chat_id, end);
                }
                behind += u64::try_from(late)?;
                break;
            }
        }
        Ok(behind)
    }

    /// Counts sessions whose hash of a chat's log is not the owner's.
    pub(super) fn compare_heads(&self, users: &[User], owners: &HashMap<ChatId, usize>) -> u64 {
        let clients: HashMap<SessionId, &Client> =
            devices(users).map(|device| (device.session_id, &device.client)).collect();
        let mut differ = 0;
        for (chat_id, owner) in owners {
            let owner = users.get(*owner).and_then(|user| user.devices.first());
            let truth = owner.and_then(|device| device.client.head(*chat_id));
            let members = self.load.recorder.members(*chat_id);
            let heads = members.keys().filter_map(|session_id| clients.get(session_id)?.head(*chat_id));
            differ += heads.filter(|head| Some(*head) != truth).count() as u64;
        }
        differ
    }

    pub(super) async fn close(&self, users: &[User]) {
        let guests = self.guests.devices();
        let mut closing = JoinSet::new();
        for device in devices(users).chain(&guests) {
            let client = device.client.clone();
            closing.spawn(async move { client.close().await.is_ok() });
        }
        while closing.join_next().await.is_some() {}
        for device in devices(users).chain(&guests) {
            // Its last event is that it closed.
            while !device.listener.is_finished() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }
}
