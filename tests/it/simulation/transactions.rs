//! Transactions beside the writer's: loading a chat, changes of members and of sessions, copies that are refused; and
//! what a broker does when they are done.

use std::sync::atomic::Ordering;

use sealcast::broker::chat::state::CopyChange;
use sealcast::protocol::binary::{Hash, Signature};
use sealcast::protocol::certificate::{Revocation, Revoker, SignedRevocation};
use sealcast::protocol::error::{CloseCode, ErrorCode, Refusal};
use sealcast::protocol::ids::{ChatId, KeyId, Place, Seq, SessionId, Timestamp, UserId};
use sealcast::protocol::log::{EntryBody, SessionOut};
use sealcast::protocol::membership::{Change, MembershipError, SignedChange};
use sealcast::store::loaded::LoadedChat;
use sealcast::store::members::{Requester, unknown_chat};

use super::database::{SessionRow, State};
use super::rules::Rule;
use super::shell::ShellId;
use super::world::{MILLI, SECOND, World};

/// How long a transaction waits for a row.
const LOCK_TIMEOUT: u64 = SECOND;

/// What a change of members came to: `None` when nobody knows.
pub type ChangeResult = Option<Result<(u64, Vec<SessionId>), Refusal>>;

impl World {
    /// Loads a chat under its row's lock; what is due to expire in it is written down first.
    pub fn load_chat(
        &mut self,
        id: ShellId,
        since: Option<Seq>,
        then: impl FnOnce(&mut Self, Option<LoadedChat>) + 'static,
    ) {
        let there = self.delay();
        let until = self.now + LOCK_TIMEOUT;
        self.after(there, "load", move |world| {
            if !world.holds(Rule::LoadLocks) {
                let loaded = world.db.load(id.chat_id, since.map(Seq::get), world.now);
                let back = world.delay();
                return world.after(back, "loaded", move |world| then(world, Some(loaded)));
            }
            world.lock(vec![id.chat_id], until, move |world, tx| {
                let Some(tx) = tx else { return then(world, None) };
                let loaded = world.db.load(id.chat_id, since.map(Seq::get), world.now);
                world.db.unlock(tx);
                if loaded.expiry_due {
                    return world.expire_in_chat(id.node, id.chat_id, move |world, is_done| {
                        if is_done { world.load_chat(id, since, then) } else { then(world, None) }
                    });
                }
                let (crashes, back) = (world.db.crashes, world.delay());
                world.after(back, "loaded", move |world| {
                    let is_lost = world.db.crashes != crashes || world.breaks(15);
                    then(world, (!is_lost).then_some(loaded));
                });
            });
        });
    }

    fn expire_in_chat(&mut self, node: usize, chat_id: ChatId, then: impl FnOnce(&mut Self, bool) + 'static) {
        let now = self.now;
        let is_due = |id: &&SessionId| self.db.sessions[*id].expired_at <= now;
        let due = self.db.recipients(chat_id).keys().find(is_due).map(|id| self.db.sessions[id].user_id);
        match due {
            None => then(self, true),
            Some(user_id) => self.expire(node, user_id, move |world, is_done| {
                if is_done { world.expire_in_chat(node, chat_id, then) } else { then(world, false) }
            }),
        }
    }

    /// Writes down the expiries of a user that are due: each is an entry in each of the user's chats, with its epoch.
    pub fn expire(&mut self, node: usize, user_id: UserId, then: impl FnOnce(&mut Self, bool) + 'static) {
        let until = self.now + LOCK_TIMEOUT;
        let chats = self.db.chats_of(user_id);
        let locked = chats.clone();
        self.lock(chats, until, move |world, tx| {
            let Some(tx) = tx else { return then(world, false) };
            let apply = move |world: &mut Self| {
                if world.db.chats_of(user_id) != locked {
                    return Vec::new();
                }
                let now = world.now;
                let is_due = |id: &SessionId| world.db.sessions[id].expired_at <= now;
                let due: Vec<SessionId> = world.db.live_sessions(user_id).into_iter().filter(is_due).collect();
                for session_id in &due {
                    let out = SessionOut::Expired { user_id, session_id: *session_id };
                    world.tell(|_| format!("{session_id} expires"));
                    world.db.end_session(*session_id, now, out, State::Expired);
                }
                due
            };
            world.transact(node, tx, apply, move |world, gone| {
                let is_done = gone.is_some();
                if let Some(gone) = gone {
                    world.sessions_changed(node, user_id, gone, CloseCode::SessionExpired);
                }
                then(world, is_done);
            });
        });
    }

    /// `Broker::sessions_changed`, here at once and on other nodes a little later.
    fn sessions_changed(&mut self, node: usize, user_id: UserId, gone: Vec<SessionId>, code: CloseCode) {
        for other in 0..self.nodes.len() {
            let (life, gone, chats) = (self.nodes[other].life, gone.clone(), self.db.chats_of(user_id));
            let delay = if other == node { 0 } else { self.delay() };
            self.after(delay, "sessions changed", move |world| {
                if world.nodes[other].life != life {
                    return;
                }
                let is_theirs = |socket: &super::node::Socket| {
                    socket.node == other && socket.is_open && gone.contains(&socket.who.session_id)
                };
                let numbers: Vec<u64> =
                    world.sockets.iter().filter(|(_, socket)| is_theirs(socket)).map(|(id, _)| *id).collect();
                numbers.into_iter().for_each(|number| world.close(number, code));
                for chat_id in chats {
                    world.with_shell(other, chat_id, |shell, world| shell.refresh(world));
                }
            });
        }
    }

    /// Other nodes hear that a log has moved.
    fn refresh_others(&mut self, node: usize, chat_id: ChatId) {
        for other in (0..self.nodes.len()).filter(|other| *other != node) {
            let delay = self.delay();
            self.after(delay, "other node hears", move |world| {
                world.with_shell(other, chat_id, |shell, world| shell.refresh(world));
            });
        }
    }

    /// Newcomers who are connected here read the chat from their own addition on, unless they do by now.
    pub fn welcome(&mut self, node: usize, chat_id: ChatId, added_at: Seq, sessions: &[SessionId]) {
        self.tell(|_| format!("{sessions:?} are welcomed at {added_at}"));
        for socket in self.sockets.values().filter(|socket| socket.node == node && socket.is_open) {
            if sessions.contains(&socket.who.session_id) {
                socket.connection.welcome(chat_id, Seq::saturating(added_at.get().saturating_sub(1)));
            }
        }
    }

    /// Recipients who are connected here, have resumed, and came into the chat unseen read it from their joining on.
    pub fn welcome_unseen(&mut self, node: usize, chat_id: ChatId, chat: &LoadedChat) {
        for socket in self.sockets.values().filter(|socket| socket.node == node && socket.is_open) {
            let recipient = chat.recipients.get(&socket.who.session_id);
            let member = recipient.and_then(|recipient| chat.members.get(&recipient.user_id));
            let has_resumed = socket.connection.has_resumed.load(Ordering::Acquire);
            if let Some(member) = member.filter(|_| has_resumed && !socket.connection.is_in(chat_id)) {
                socket.connection.welcome(chat_id, Seq::saturating(member.joined_seq.get().saturating_sub(1)));
            }
        }
    }

    /// Makes a membership change by the real state machine, with its chat's row locked.
    pub fn change_membership(
        &mut self,
        node: usize,
        who: Requester,
        signed: Box<SignedChange>,
        then: impl FnOnce(&mut Self, ChangeResult) + 'static,
    ) {
        let (there, until) = (self.delay(), self.now + LOCK_TIMEOUT);
        self.after(there, "change", move |world| {
            let chat_id = world.chat_of(&signed);
            world.lock(vec![chat_id], until, move |world, tx| {
                let Some(tx) = tx else { return then(world, None) };
                let now = world.now;
                if world.db.expiry_due(chat_id, now) && world.db.page(who, chat_id, 0).is_some() {
                    world.db.unlock(tx);
                    return world.expire_in_chat(node, chat_id, move |world, is_done| {
                        if is_done { world.change_membership(node, who, signed, then) } else { then(world, None) }
                    });
                }
                let change = signed.clone();
                let life = world.nodes[node].life;
                let apply = move |world: &mut Self| {
                    let before = world.db.chats[&chat_id].log.len() as u64;
                    let result = world.judge_change(chat_id, who, &change, now);
                    if world.nodes[node].life != life
                        && let Some(chat) = world.db.chats.get_mut(&chat_id)
                    {
                        chat.orphans.extend(before + 1..=chat.log.len() as u64);
                    }
                    result
                };
                world.transact(node, tx, apply, move |world, result| {
                    let result = result.map(|result| {
                        let seq = result?;
                        let is_add = matches!(signed.change.change, Change::Add { .. });
                        let target = signed.change.target.user_id;
                        Ok((seq, if is_add { world.db.live_sessions(target) } else { Vec::new() }))
                    });
                    world.refresh_others(node, chat_id);
                    then(world, result);
                });
            });
        });
    }

    fn chat_of(&self, signed: &SignedChange) -> ChatId {
        self.oracle.chat_of_change[&signed.signature.as_ref().to_vec()]
    }

    fn judge_change(
        &mut self,
        chat_id: ChatId,
        who: Requester,
        signed: &SignedChange,
        now: u64,
    ) -> Result<u64, Refusal> {
        let chat = &self.db.chats[&chat_id];
        let is_repeat = |entry: &&sealcast::protocol::log::LogEntry| matches!(&entry.body, EntryBody::Membership(stored) if stored == signed);
        let is_own = signed.change.actor.user_id == who.user_id;
        if let Some(stored) = chat.log.iter().find(is_repeat).filter(|_| is_own) {
            return Ok(stored.seq.get());
        }
        if !chat.membership.members.contains_key(&who.user_id) || self.db.sessions[&who.session_id].state != State::Live
        {
            return Err(unknown_chat());
        }
        let mut membership = chat.membership.clone();
        let seq = chat.head.last_seq.next();
        membership.apply(chat_id, seq, signed).map_err(|error| match error {
            MembershipError::NotMember => unknown_chat(),
            MembershipError::Conflict => Refusal::new(ErrorCode::EventConflict, "another change came first"),
            _ => Refusal::new(ErrorCode::CannotManage, "may not"),
        })?;
        if let Change::Add { roster_hash, epoch, .. } = &signed.change.change {
            if *roster_hash != chat.head.roster_hash || *epoch != chat.head.epoch {
                return Err(Refusal::new(ErrorCode::RosterChanged, "roster hash or epoch is not the current one"));
            }
            let target = signed.change.target.user_id;
            let is_over = |id: &SessionId| self.db.sessions[id].expired_at <= now;
            if self.db.live_sessions(target).iter().any(is_over) {
                return Err(Refusal::new(ErrorCode::StorageUnavailable, "an expiry comes first"));
            }
        }
        self.tell(|_| format!("{} {:?} {}", who.session_id, signed.change.change, signed.change.target.user_id));
        Ok(self.db.change(chat_id, signed, membership, now))
    }

    /// A user certifies a further session.
    pub fn add_session(&mut self, user_id: UserId) {
        let node = self.rng.below(self.nodes.len() as u64) as usize;
        let chats = self.db.chats_of(user_id);
        let (session_id, until) = (SessionId(self.rng.id()), self.now + LOCK_TIMEOUT);
        let locked = chats.clone();
        self.lock(chats, until, move |world, tx| {
            let Some(tx) = tx else { return };
            let apply = move |world: &mut Self| {
                let now = world.now;
                if world.db.chats_of(user_id) != locked {
                    return;
                }
                world.tell(|_| format!("{session_id} is a new session of {user_id}"));
                let row = SessionRow { user_id, state: State::Live, expired_at: now + 3_600 * SECOND };
                world.db.sessions.insert(session_id, row);
                for chat_id in locked {
                    let certificate = world.db.certificate(session_id);
                    world.db.append(chat_id, now, EntryBody::SessionIn(certificate));
                }
                world.add_client(session_id, user_id);
            };
            world.transact(node, tx, apply, move |world, result| {
                if result.is_some() {
                    world.sessions_changed(node, user_id, Vec::new(), CloseCode::SessionRevoked);
                }
            });
        });
    }

    /// A user revokes a session.
    pub fn revoke_session(&mut self, session_id: SessionId) {
        let node = self.rng.below(self.nodes.len() as u64) as usize;
        let user_id = self.db.sessions[&session_id].user_id;
        let chats = self.db.chats_of(user_id);
        let locked = chats.clone();
        let until = self.now + LOCK_TIMEOUT;
        self.lock(chats, until, move |world, tx| {
            let Some(tx) = tx else { return };
            let apply = move |world: &mut Self| {
                if world.db.chats_of(user_id) != locked || world.db.sessions[&session_id].state != State::Live {
                    return Vec::new();
                }
                let revocation = Revocation {
                    user_id,
                    place: Place::saturating(2),
                    previous: Hash([0; 32]),
                    session_id,
                    revoker: Revoker::Identity,
                    created_at: Timestamp::default(),
                };
                let out = SessionOut::Revoked(SignedRevocation { revocation, signature: Signature([0; 64]) });
                let now = world.now;
                world.tell(|_| format!("{session_id} is revoked"));
                world.db.end_session(session_id, now, out, State::Revoked);
                vec![session_id]
            };
            world.transact(node, tx, apply, move |world, gone| {
                if let Some(gone) = gone {
                    world.sessions_changed(node, user_id, gone, CloseCode::SessionRevoked);
                }
            });
        });
    }

    /// A live session gets a later certificate over the same keys; if its time is over, its end comes first.
    pub fn renew_session(&mut self, session_id: SessionId) {
        let node = self.rng.below(self.nodes.len() as u64) as usize;
        let user_id = self.db.sessions[&session_id].user_id;
        let chats = self.db.chats_of(user_id);
        let locked = chats.clone();
        let until = self.now + LOCK_TIMEOUT;
        self.lock(chats, until, move |world, tx| {
            let Some(tx) = tx else { return };
            let apply = move |world: &mut Self| {
                if world.db.chats_of(user_id) != locked || world.db.sessions[&session_id].state != State::Live {
                    return;
                }
                let now = world.now;
                let is_over = world.db.sessions[&session_id].expired_at <= now;
                world.tell(|_| format!("{session_id} is renewed, over: {is_over}"));
                if is_over {
                    world.db.end_session(session_id, now, SessionOut::Expired { user_id, session_id }, State::Expired);
                }
                let row = SessionRow { user_id, state: State::Live, expired_at: now + 3_600 * SECOND };
                world.db.sessions.insert(session_id, row);
                for chat_id in locked {
                    let certificate = world.db.certificate(session_id);
                    world.db.append(chat_id, now, EntryBody::SessionIn(certificate));
                }
            };
            world.transact(node, tx, apply, move |world, result| {
                if result.is_some() {
                    world.sessions_changed(node, user_id, Vec::new(), CloseCode::SessionRevoked);
                }
            });
        });
    }

    /// A recipient says that its copy is bad.
    pub fn refuse_copy(&mut self, node: usize, chat_id: ChatId, key_id: KeyId, session_id: SessionId) {
        let until = self.now + LOCK_TIMEOUT;
        self.lock(vec![chat_id], until, move |world, tx| {
            let Some(tx) = tx else { return };
            let apply = move |world: &mut Self| world.db.void_copy(chat_id, key_id, session_id);
            world.transact(node, tx, apply, move |world, is_voided| {
                if is_voided == Some(true) {
                    world.with_shell(node, chat_id, |shell, world| {
                        shell.copy_changed(key_id, session_id, CopyChange::Voided, world);
                    });
                }
            });
        });
    }

    /// The sweep of a node writes down what is due.
    pub fn sweep(&mut self, node: usize) {
        let now = self.now;
        let is_due = |row: &&SessionRow| row.state == State::Live && row.expired_at <= now;
        let due = self.db.sessions.values().find(is_due).map(|row| row.user_id);
        if let Some(user_id) = due.filter(|_| self.nodes[node].is_up) {
            self.expire(node, user_id, |_, _| {});
        }
        let pause = if self.calm { 200 * MILLI } else { self.rng.between(100, 600) * MILLI };
        self.after(pause, "sweep", move |world| world.sweep(node));
    }
}
