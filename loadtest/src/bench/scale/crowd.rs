//! What else a broker has to carry while it is measured: chats that are stored, chats that are loaded, connections at rest.

use anyhow::{Context, bail};
use futures_util::{StreamExt, TryStreamExt};
use sealcast::protocol::frame::{Request, StageCopies};
use sealcast::protocol::ids::{ChatId, KeyId};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::super::idle::rest;
use super::super::member::{Asker, Member};
use super::super::server::found_chat;

/// Members of a chat that is only there.
const STORED_MEMBERS: usize = 2;

/// Members of a chat of those who rest.
const RESTING_MEMBERS: usize = 5;

/// Requests that are asked before an answer is waited for.
const ASKED_AT_ONCE: usize = 64;

/// Chats and connections that are made at the same time.
const AT_ONCE: usize = 16;

/// The tables that hold a chat nobody has written in; references need no check, for all is copied.
const COPY: &str = "SET session_replication_role = replica; \
    CREATE TEMPORARY TABLE copies AS SELECT gen_random_uuid() AS id FROM generate_series(1, {count}); \
    INSERT INTO chats SELECT (jsonb_populate_record(c, jsonb_build_object('id', n.id))).* \
        FROM chats c, copies n WHERE c.id = '{of}'; \
    INSERT INTO user_in_chat SELECT (jsonb_populate_record(c, jsonb_build_object('chat_id', n.id))).* \
        FROM user_in_chat c, copies n WHERE c.chat_id = '{of}'; \
    INSERT INTO chat_events SELECT (jsonb_populate_record(c, jsonb_build_object('chat_id', n.id))).* \
        FROM chat_events c, copies n WHERE c.chat_id = '{of}'; \
    ANALYZE";

/// Chats of two users, who are connected and ask for nothing but to have them loaded.
pub(super) struct Chats {
    client: tokio_postgres::Client,
    template: ChatId,
    asker: Asker,
    stored: usize,
    loaded: Vec<Uuid>,
}

impl Chats {
    pub(super) async fn begin(address: &str, database_url: &str, number: usize) -> anyhow::Result<Self> {
        let (room, members) = found_chat(address, STORED_MEMBERS, number).await?;
        let owner = members.first().context("a chat of nobody")?;
        let (client, connection) = tokio_postgres::connect(database_url, tokio_postgres::NoTls).await?;
        tokio::spawn(connection);
        let asker = owner.connect(address).await?;
        Ok(Self { client, template: room.chat_id, asker, stored: 1, loaded: Vec::new() })
    }

    /// Sees to it that so many are stored.
    pub(super) async fn store(&mut self, count: usize) -> anyhow::Result<()> {
        let missing = count.saturating_sub(self.stored);
        if missing > 0 {
            let of = self.template.0.to_string();
            let copy = COPY.replace("{count}", &missing.to_string()).replace("{of}", &of);
            self.client.batch_execute(&copy).await.context("copying a chat")?;
            // By itself, for it runs in no transaction.
            self.client.batch_execute("DROP TABLE copies").await?;
            self.client.batch_execute("VACUUM").await?;
            self.stored = count;
        }
        Ok(())
    }

    /// Sees to it that so many are loaded.
    pub(super) async fn load(&mut self, count: usize) -> anyhow::Result<()> {
        self.store(count + 1).await?;
        let limit = i64::try_from(count)?;
        let chats =
            "SELECT c.id FROM chats c JOIN chats t ON t.id = $1 AND c.log_hash = t.log_hash ORDER BY c.id LIMIT $2";
        let rows = self.client.query(chats, &[&self.template.0, &limit]).await?;
        let loaded: std::collections::HashSet<Uuid> = self.loaded.iter().copied().collect();
        let missing: Vec<Uuid> = rows.iter().map(|row| row.get(0)).filter(|id| !loaded.contains(id)).collect();
        for some in missing.chunks(ASKED_AT_ONCE) {
            // Copies of no key: refused by the chat, which is loaded for it.
            let request = |id: &Uuid| {
                let (chat_id, key_id) = (ChatId(*id), KeyId::generate());
                Request::StageCopies(StageCopies { chat_id, key_id, part: 0, parts: 1, copies: Vec::new() })
            };
            self.asker.ask_all(some.iter().map(request)).await.context("loading chats")?;
        }
        self.loaded.extend(missing);
        if self.loaded.len() < count {
            bail!("{} chats loaded instead of {count}", self.loaded.len());
        }
        Ok(())
    }
}

/// Connections that rest.
#[derive(Default)]
pub(super) struct Resting {
    tasks: JoinSet<anyhow::Result<()>>,
    members: Vec<Member>,
    chats: usize,
}

impl Resting {
    /// Sees to it that there are so many; `number` names their users.
    pub(super) async fn grow(&mut self, address: &str, count: usize, number: usize) -> anyhow::Result<()> {
        let chats = count.div_ceil(RESTING_MEMBERS);
        let founded = futures_util::stream::iter(self.chats..chats);
        let founded = founded.map(|chat| found_chat(address, RESTING_MEMBERS, number + chat));
        let founded: Vec<_> = founded.buffered(AT_ONCE).try_collect().await.context("making chats")?;
        self.chats = self.chats.max(chats);
        let members: Vec<Member> = founded.into_iter().flat_map(|(_, members)| members).collect();
        let connected = futures_util::stream::iter(&members).map(|member| member.connect_live(address));
        let connected: Vec<_> = connected.buffered(AT_ONCE).try_collect().await.context("connecting")?;
        for connection in connected {
            self.tasks.spawn_local(rest(connection));
        }
        self.members.extend(members);
        Ok(())
    }

    /// Whether all are still there.
    pub(super) fn check(&mut self) -> anyhow::Result<()> {
        match self.tasks.try_join_next() {
            None => Ok(()),
            Some(ended) => ended.context("a connection")?.context("a connection that was to rest"),
        }
    }
}
