//! How a world begins, what breaks in it, and how it is mended at the end.

use sealcast::protocol::envelope::Seen;
use sealcast::protocol::ids::{ChangeNo, ChatId, Epoch, Seq, SessionId, UserId};
use sealcast::protocol::membership::{Actor, Change, MembershipChange, SignedChange, Target, chain_start};
use sealcast::store::batch::BatchLimits;

use super::client::ClientChat;
use super::database::{SessionRow, State, identity_key};
use super::fold::Fold;
use super::node::Node;
use super::world::{MILLI, SECOND, World};

impl World {
    /// Users, their sessions, chats and brokers, few of each.
    pub fn populate(&mut self) {
        let nodes = if self.rng.chance(200) { 2 } else { 1 };
        for _ in 0..nodes {
            let limits = BatchLimits {
                items_max: self.rng.between(1, 6) as usize,
                bytes_max: 1 << 20,
                queue_max: self.rng.between(4, 16) as usize,
            };
            let clock_off = self.rng.between(0, 4 * MILLI) as i64 - 2 * MILLI as i64;
            self.nodes.push(Node::new(limits, clock_off));
        }
        let mut sessions = Vec::new();
        for _ in 0..self.rng.between(2, 4) {
            let user_id = UserId(self.rng.id());
            self.users.push(user_id);
            for _ in 0..self.rng.between(1, 2) {
                let session_id = SessionId(self.rng.id());
                let is_short = self.rng.chance(200);
                let life = if is_short { self.rng.between(50, 900) * MILLI } else { 3_600 * SECOND };
                let row = SessionRow { user_id, state: State::Live, expired_at: self.now + life };
                self.db.sessions.insert(session_id, row);
                sessions.push((session_id, user_id));
            }
        }
        for _ in 0..self.rng.between(1, 2) {
            let chat_id = ChatId(self.rng.id());
            self.chats.push(chat_id);
            self.found(chat_id);
        }
        for (session_id, user_id) in sessions {
            self.add_client(session_id, user_id);
        }
        for client in &mut self.clients {
            for (chat_id, chat) in &self.db.chats {
                if chat.fold.members.contains_key(&client.user_id) {
                    client.chats.insert(*chat_id, ClientChat::of(Fold::of(*chat_id, &chat.log, u64::MAX)));
                }
            }
        }
        for node in 0..self.nodes.len() {
            self.after(100 * MILLI, "sweep", move |world| world.sweep(node));
        }
        self.after(5 * MILLI, "fault", Self::fault);
    }

    fn found(&mut self, chat_id: ChatId) {
        let owner = self.users[0];
        let session_id = self.db.live_sessions(owner)[0];
        let first = self.signed(chat_id, owner, session_id, Change::Create, owner);
        let now = self.now;
        self.db.found(chat_id, first, now);
        for user_id in self.users.clone().into_iter().skip(1) {
            if self.rng.chance(250) {
                continue;
            }
            let (roster_hash, epoch) = {
                let fold = &self.db.chats[&chat_id].fold;
                (fold.roster_hash(), Epoch::saturating(fold.epoch))
            };
            let can_manage = self.rng.chance(500);
            let change = Change::Add { can_write: true, can_manage, roster_hash, epoch };
            let signed = self.signed(chat_id, owner, session_id, change, user_id);
            let chat = &self.db.chats[&chat_id];
            let mut membership = chat.membership.clone();
            membership.apply(chat_id, chat.head.last_seq.next(), &signed).unwrap();
            self.db.change(chat_id, &signed, membership, now);
        }
    }

    fn signed(
        &mut self,
        chat_id: ChatId,
        by: UserId,
        session_id: SessionId,
        change: Change,
        target: UserId,
    ) -> SignedChange {
        let signature = self.signature();
        self.oracle.chat_of_change.insert(signature.as_ref().to_vec(), chat_id);
        let fold = self.db.chats.get(&chat_id).map(|chat| chat.fold.clone());
        let before = fold.unwrap_or_else(|| Fold::new(chat_id));
        let previous = if before.change_no == 0 { chain_start(chat_id) } else { before.change_hash };
        let change = MembershipChange {
            n: ChangeNo::saturating(before.change_no + 1),
            previous,
            seen: Seen { seq: Seq::saturating(before.seq), log_hash: before.log_hash },
            actor: Actor { user_id: by, session_id, identity_key: identity_key(by) },
            change,
            target: Target { user_id: target, identity_key: identity_key(target) },
        };
        SignedChange { change, signature }
    }

    /// Now and then something of the world at large happens.
    fn fault(&mut self) {
        if self.calm {
            return;
        }
        let pause = self.rng.between(5, 60) * MILLI;
        self.after(pause, "fault", Self::fault);
        let node = self.rng.below(self.nodes.len() as u64) as usize;
        match self.rng.below(100) {
            0..=3 if self.nodes[node].is_up => {
                self.kill(node);
                let down = self.rng.between(5, 120) * MILLI;
                self.after(down, "node starts", move |world| world.nodes[node].is_up = true);
            }
            4..=6 => {
                let until = self.now + self.rng.between(1, 100) * MILLI;
                self.tell(|_| "the database crashes".to_owned());
                self.db.crash(until);
            }
            7..=22 => {
                for chat_id in self.chats.clone() {
                    self.with_shell(node, chat_id, |shell, _| shell.passivate());
                }
            }
            23..=26 => {
                let user_id = self.users[self.rng.below(self.users.len() as u64) as usize];
                if self.db.live_sessions(user_id).len() < 3 {
                    self.add_session(user_id);
                }
            }
            27..=29 => {
                let live: Vec<SessionId> =
                    self.users.iter().flat_map(|user_id| self.db.live_sessions(*user_id)).collect();
                if live.len() > 2
                    && let Some(session_id) = self.rng.pick(&live)
                {
                    self.revoke_session(session_id);
                }
            }
            30..=34 => {
                let chat_id = self.chats[0];
                self.with_shell(node, chat_id, |shell, world| shell.refresh(world));
            }
            35..=44 if self.renews => {
                let live: Vec<SessionId> =
                    self.users.iter().flat_map(|user_id| self.db.live_sessions(*user_id)).collect();
                if let Some(session_id) = self.rng.pick(&live) {
                    self.renew_session(session_id);
                }
            }
            _ => {}
        }
    }

    /// Everything that is down comes back.
    pub fn mend(&mut self) {
        self.db.down_until = 0;
        self.nodes.iter_mut().for_each(|node| node.is_up = true);
    }
}
