//! What is said in a chat whose members are removed one after the other: sealed in advance for each roster that will be.
//!
//! Who is removed, and when in the order, is known before; so are epoch, recipients and roster hash after each removal.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use sealcast::protocol::binary::SigningKey;
use sealcast::protocol::ids::ChatId;

use super::super::member::Member;
use super::super::pool::{Audience, FIRST_ID, Pool};
use super::super::room::Room;
use super::super::wire::{Templates, Wire};

/// Request numbers of one roster's messages.
const IDS_EACH: u64 = 1 << 20;

/// Bytes of an identifier.
const ID_BYTES: usize = 16;

/// One of a sender's messages: for which roster, and which of those.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Line {
    pub(super) roster: usize,
    pub(super) number: usize,
}

impl Line {
    /// The number of its request.
    pub(super) const fn id(self) -> u64 {
        FIRST_ID + self.roster as u64 * IDS_EACH + self.number as u64
    }

    /// By the number of its request.
    pub(super) fn of(id: u64) -> Option<Self> {
        let id = id.checked_sub(FIRST_ID)?;
        Some(Self { roster: usize::try_from(id / IDS_EACH).ok()?, number: usize::try_from(id % IDS_EACH).ok()? })
    }
}

/// What one sender says.
pub(super) struct Part {
    /// By roster; the first message of each brings a new key.
    pub(super) pools: Vec<Pool>,
    pub(super) signing_key: SigningKey,
}

impl Part {
    pub(super) fn frame(&self, line: Line) -> Option<&[u8]> {
        self.pools.get(line.roster)?.frame(line.number)
    }

    pub(super) fn body(&self, line: Line) -> Option<&[u8]> {
        self.pools.get(line.roster)?.body(line.number)
    }
}

/// What all senders say, and how it is found again in what is delivered.
pub(super) struct Script {
    pub(super) chat_id: ChatId,
    pub(super) parts: Vec<Part>,
    pub(super) wire: Wire,
    by_id: HashMap<[u8; ID_BYTES], (usize, Line)>,
    /// Where a delivered body has the message's id.
    id_at: usize,
}

impl Script {
    /// Seals so many messages of each sender for each roster: as it is, and after each of the removals.
    pub(super) async fn write(
        room: &Room,
        members: &Arc<Vec<Member>>,
        senders: std::ops::Range<usize>,
        removed: std::ops::Range<usize>,
        messages: usize,
        body_bytes: usize,
    ) -> anyhow::Result<Self> {
        let mut audiences = vec![Audience::of(room)];
        for number in removed {
            let removed = members.get(number).context("a member who is not there")?;
            let next = audiences.last().map(|audience| audience.without(removed.session_id));
            audiences.extend(next);
        }
        let audiences = Arc::new(audiences);
        let mut sealing = Vec::new();
        for sender in senders {
            let (members, audiences) = (Arc::clone(members), Arc::clone(&audiences));
            sealing.push(tokio::task::spawn_blocking(move || {
                let sender = members.get(sender).context("a sender who is no member")?;
                let mut pools = Vec::new();
                for (roster, audience) in audiences.iter().enumerate() {
                    let first = Line { roster, number: 0 };
                    pools.push(Pool::sealed(audience, sender, messages, body_bytes, first.id())?);
                }
                anyhow::Ok(Part { pools, signing_key: sender.secrets.signing_public_key() })
            }));
        }
        let mut parts = Vec::new();
        for sealed in sealing {
            parts.push(sealed.await.context("sealing")??);
        }
        Self::index(room.chat_id, parts)
    }

    fn index(chat_id: ChatId, parts: Vec<Part>) -> anyhow::Result<Self> {
        let first = parts.first().and_then(|part| part.pools.first()).context("a chat without senders")?;
        let sample = first.sample()?;
        let wire = Wire::Broker(Box::new(Templates::learn(chat_id, &sample)?));
        let id = sample.message_id.0.into_bytes();
        let body = first.body(0).context("nothing to say")?;
        let id_at = body.windows(ID_BYTES).position(|bytes| bytes == id).context("an envelope without its id")?;
        let mut script = Self { chat_id, parts: Vec::new(), wire, by_id: HashMap::new(), id_at };
        for (sender, part) in parts.iter().enumerate() {
            for (roster, pool) in part.pools.iter().enumerate() {
                for number in 0..pool.len() {
                    let body = pool.body(number).ok_or_else(|| anyhow!("a message without a body"))?;
                    let id = script.id(body).context("a body without an id")?;
                    if script.by_id.insert(id, (sender, Line { roster, number })).is_some() {
                        bail!("two messages of one id");
                    }
                }
            }
        }
        script.parts = parts;
        Ok(script)
    }

    fn id(&self, body: &[u8]) -> Option<[u8; ID_BYTES]> {
        body.get(self.id_at..)?.first_chunk().copied()
    }

    /// Whose message a delivered body is, and which; nothing if it is not, byte for byte, one of those.
    pub(super) fn find(&self, body: &[u8]) -> Option<(usize, Line)> {
        let (sender, line) = *self.by_id.get(&self.id(body)?)?;
        body.starts_with(self.parts.get(sender)?.body(line)?).then_some((sender, line))
    }
}
