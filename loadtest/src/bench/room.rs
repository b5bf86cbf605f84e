//! Sets up one chat: its members one after the other, by changes that its owner signs.

use anyhow::{Context, anyhow, bail};
use sealcast::protocol::envelope::Seen;
use sealcast::protocol::fold::ChatFold;
use sealcast::protocol::frame::{ChangeMembership, CreateChat, Events, Reply, Request};
use sealcast::protocol::ids::{ChangeNo, ChatId, Seq};
use sealcast::protocol::log::log_start;
use sealcast::protocol::membership::{Actor, Change, MembershipChange, SignedChange, Target, chain_start};

use super::member::{Asker, Member};

/// A chat with all its members, before the first message.
pub(crate) struct Room {
    pub(crate) chat_id: ChatId,
    pub(crate) fold: ChatFold,
    /// The log's end: what every sender has seen.
    pub(crate) seen: Seen,
}

impl Room {
    /// Makes a chat of some members, the first of whom owns it.
    pub(crate) async fn create(address: &str, members: &[Member]) -> anyhow::Result<Self> {
        let (owner, others) = members.split_first().ok_or_else(|| anyhow!("a chat of nobody"))?;
        let mut asker = owner.connect(address).await?;
        let chat_id = ChatId::generate();
        let founding = MembershipChange {
            n: ChangeNo::saturating(1),
            previous: chain_start(chat_id),
            seen: Seen { seq: Seq::default(), log_hash: log_start(chat_id) },
            actor: actor(owner),
            change: Change::Create,
            target: target(owner),
        };
        let change = signed(owner, chat_id, founding);
        let create = CreateChat { chat_id, change, name: None, info_keys: Vec::new() };
        asker.ask(Request::CreateChat(create)).await?;
        let mut room = Self::begin(&mut asker, chat_id).await?;
        for member in others {
            room.add(&mut asker, owner, member).await.context("adding a member")?;
        }
        if room.fold.recipients().len() != members.len() {
            bail!("{} recipients instead of {}", room.fold.recipients().len(), members.len());
        }
        Ok(room)
    }

    async fn begin(asker: &mut Asker, chat_id: ChatId) -> anyhow::Result<Self> {
        let Reply::Page(page) = asker.ask(events(chat_id, Seq::default())).await? else { bail!("no page") };
        let (first, rest) = page.entries.split_first().ok_or_else(|| anyhow!("an empty log"))?;
        let seen = Seen { seq: first.seq, log_hash: first.log_hash };
        let mut room = Self { chat_id, fold: ChatFold::begin(chat_id, &first.body)?, seen };
        for entry in rest {
            room.fold.apply(entry.seq, entry.created_at, &entry.body)?;
            room.seen = Seen { seq: entry.seq, log_hash: entry.log_hash };
        }
        Ok(room)
    }

    async fn add(&mut self, asker: &mut Asker, owner: &Member, member: &Member) -> anyhow::Result<()> {
        let membership = self.fold.membership();
        let change = MembershipChange {
            n: membership.head.next(),
            previous: membership.hash,
            seen: self.seen,
            actor: actor(owner),
            change: Change::Add {
                can_write: true,
                can_manage: false,
                roster_hash: self.fold.roster_hash(),
                epoch: self.fold.epoch(),
            },
            target: target(member),
        };
        let change = signed(owner, self.chat_id, change);
        let request = ChangeMembership { chat_id: self.chat_id, change, info_keys: Vec::new() };
        asker.ask(Request::ChangeMembership(request)).await?;
        let Reply::Page(page) = asker.ask(events(self.chat_id, self.seen.seq)).await? else { bail!("no page") };
        for entry in &page.entries {
            self.fold.apply(entry.seq, entry.created_at, &entry.body)?;
            self.seen = Seen { seq: entry.seq, log_hash: entry.log_hash };
        }
        Ok(())
    }
}

/// Changes that remove these members one after the other, each signed by the owner before the first is asked for.
pub(crate) fn removals(room: &Room, owner: &Member, removed: &[&Member]) -> Vec<Request> {
    let membership = room.fold.membership();
    let (mut n, mut previous) = (membership.head, membership.hash);
    let mut requests = Vec::new();
    for member in removed {
        n = n.next();
        let change = MembershipChange {
            n,
            previous,
            seen: room.seen,
            actor: actor(owner),
            change: Change::Remove,
            target: target(member),
        };
        let change = signed(owner, room.chat_id, change);
        previous = change.chain_hash(room.chat_id);
        let request = ChangeMembership { chat_id: room.chat_id, change, info_keys: Vec::new() };
        requests.push(Request::ChangeMembership(request));
    }
    requests
}

fn events(chat_id: ChatId, after: Seq) -> Request {
    Request::Events(Events { chat_id, after, before: Seq::saturating(u64::MAX) })
}

fn actor(member: &Member) -> Actor {
    Actor { user_id: member.user_id, session_id: member.session_id, identity_key: member.identity.public_key() }
}

fn target(member: &Member) -> Target {
    Target { user_id: member.user_id, identity_key: member.identity.public_key() }
}

fn signed(signer: &Member, chat_id: ChatId, change: MembershipChange) -> SignedChange {
    let signature = signer.secrets.sign(&change.signed_bytes(chat_id));
    SignedChange { change, signature }
}
