//! Reads, after all faults healed, what newcomers may read of the time before they joined.
//!
//! Invariant: who was added under a shared history comes to read everything back to where it began: the keys are asked
//! for, and some member who has them is connected.

use std::time::Instant;

use futures_util::{StreamExt, stream};
use sealcast::client::{Client, ClientError};
use sealcast::protocol::ids::ChatId;
use sealcast::protocol::limits::PAGE_ENTRIES_MAX;

use super::{HEAL_TIMEOUT, LOOK_INTERVAL, Run};
use crate::load::churn::User;

/// Sessions that read back, evenly chosen from all that may: in a long run each has tens of thousands of entries to open.
const READERS_MAX: usize = 48;

/// How many of them read at once.
const AT_ONCE: usize = 4;

/// How newcomers fared.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Older {
    /// Sessions that read.
    pub(crate) readers: u64,
    /// Messages from before their joining that they opened.
    pub(crate) opened: u64,
    /// Messages for which no key came in time.
    pub(crate) locked: u64,
}

impl Run {
    /// Sessions of those who were added under a shared history, and are members still, read back.
    pub(crate) async fn read_older(&self, users: &[User], newcomers: &[(ChatId, usize)]) -> Result<Older, ClientError> {
        let mut readers = Vec::new();
        for (chat_id, user) in newcomers {
            let members = self.load.recorder.members(*chat_id);
            let devices = users.get(*user).into_iter().flat_map(|user| &user.devices);
            let devices = devices.filter(|device| members.contains_key(&device.session_id));
            readers.extend(devices.map(|device| (&device.client, *chat_id)));
        }
        let every = readers.len().div_ceil(READERS_MAX).max(1);
        let deadline = Instant::now() + HEAL_TIMEOUT;
        let chosen = readers.into_iter().step_by(every);
        let reading = chosen.map(|(client, chat_id)| self.read_back_until(client, chat_id, deadline));
        let mut reading = stream::iter(reading).buffer_unordered(AT_ONCE);
        let mut older = Older::default();
        while let Some(read) = reading.next().await {
            let (opened, locked) = read?;
            older.readers += 1;
            older.opened += opened;
            older.locked += locked;
        }
        Ok(older)
    }

    /// Reads back until every key has come, or it is too late for them.
    async fn read_back_until(
        &self,
        client: &Client,
        chat_id: ChatId,
        deadline: Instant,
    ) -> Result<(u64, u64), ClientError> {
        loop {
            let (opened, locked) = self.read_back(client, chat_id).await?;
            if locked == 0 || Instant::now() >= deadline {
                return Ok((opened, locked));
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    async fn read_back(&self, client: &Client, chat_id: ChatId) -> Result<(u64, u64), ClientError> {
        let mut history = client.history(chat_id).await?;
        let (mut before, mut opened, mut locked) = (history.start(), 0, 0);
        loop {
            let page = history.before(before, PAGE_ENTRIES_MAX).await?;
            opened += (page.messages.len() + page.edits.len()) as u64;
            locked += page.locked;
            for alarm in &page.alarms {
                self.load.recorder.alarm_of_page(alarm);
            }
            if !page.more {
                return Ok((opened, locked));
            }
            before = page.after.next();
        }
    }
}
