//! Transactions beside the writer's: members are added, removed, leave; sessions are revoked, expire, come in; users get
//! other keys.
//!
//! Each takes two steps: it begins, with its user's row locked; then it locks its chats' rows, reads, judges, writes and
//! commits. The second is one step, since a chat's row stays locked from the first read to the commit.

use sealcast::protocol::log::{EntryBody, SessionOut};
use sealcast::protocol::membership::{Change, MembershipChange};

use super::people::{
    Chat, NOW, Session, User, certificate, expired_at, revocation, session_id, sibling, user_id, user_of,
};
use super::rules::Rule;
use super::set::Set;
use super::store::{Refused, SessionRow, State, Store, change_of, sign_change};
use super::user_keys::knows_halves;

/// What is asked. A change of members is signed by a session as it knew the log at a view, and may come in much later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Request {
    Add {
        chat: Chat,
        actor: Session,
        target: User,
        view: usize,
    },
    Remove {
        chat: Chat,
        actor: Session,
        target: User,
        view: usize,
    },
    Leave {
        chat: Chat,
        actor: Session,
        view: usize,
    },
    /// A session is revoked, and its user's key withdrawn with it, or not.
    Revoke {
        session: Session,
        withdraws: bool,
    },
    Expire {
        user: User,
    },
    /// A new session is certified, or one that was gets a new certificate over the same keys, before its time has run out
    /// or after.
    Certify {
        session: Session,
    },
    /// A user's strongbox gets its first user key, or another active one.
    ReplaceUserKey {
        user: User,
    },
}

/// A transaction that has begun.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Transaction {
    pub request: Request,
    /// What it read at its beginning: the user's chats and live sessions. Used where a rule is dropped.
    early: (Vec<Chat>, Set),
}

/// What a transaction comes to.
pub enum Outcome {
    /// It is refused, and has changed nothing.
    Refused,
    /// It is committed; those who follow the logs may refuse what it wrote.
    Committed(Result<(), Refused>),
}

impl Request {
    /// Whose row it locks.
    pub const fn user(self) -> User {
        match self {
            Self::Add { target, .. } | Self::Remove { target, .. } => target,
            Self::Leave { actor: session, .. } | Self::Revoke { session, .. } | Self::Certify { session } => {
                user_of(session)
            }
            Self::Expire { user } | Self::ReplaceUserKey { user } => user,
        }
    }

    const fn locks_user_at_once(self, dropped: Option<Rule>) -> bool {
        !matches!(
            (self, dropped),
            (Self::Revoke { .. }, Some(Rule::RevocationLocksUser | Rule::UsersAreLockedFirst))
                | (Self::Add { .. }, Some(Rule::AdditionReadsAfterLock))
                | (Self::ReplaceUserKey { .. }, Some(Rule::UserKeyLocksUser))
        )
    }

    const fn locks_user_later(self, dropped: Option<Rule>) -> bool {
        let never = matches!(dropped, Some(Rule::RevocationLocksUser | Rule::UserKeyLocksUser));
        !self.locks_user_at_once(dropped) && !never
    }

    fn chats(self, store: &Store) -> Vec<Chat> {
        match self {
            Self::Add { chat, .. } | Self::Remove { chat, .. } | Self::Leave { chat, .. } => vec![chat],
            Self::Revoke { .. } | Self::Expire { .. } | Self::Certify { .. } | Self::ReplaceUserKey { .. } => {
                store.chats_of(self.user())
            }
        }
    }
}

impl Transaction {
    pub fn begin(store: &Store, request: Request) -> Self {
        Self { request, early: (request.chats(store), store.live(request.user())) }
    }

    /// Whose row it holds while it waits for its second step.
    pub fn user_held(&self, dropped: Option<Rule>) -> Option<User> {
        self.request.locks_user_at_once(dropped).then(|| self.request.user())
    }

    /// Which chats' rows it holds while it waits for its second step: none, as long as users are locked first.
    pub fn chats_held(&self, dropped: Option<Rule>) -> &[Chat] {
        match (self.request, dropped) {
            (Request::Revoke { .. }, Some(Rule::UsersAreLockedFirst)) => &self.early.0,
            _ => &[],
        }
    }

    /// Whether others stand in the way of its second step.
    pub fn is_blocked(&self, store: &Store, others: &[Self], dropped: Option<Rule>) -> bool {
        let chats = self.chats(store, dropped);
        let waits_for_user = self.request.locks_user_later(dropped);
        others.iter().filter(|other| *other != self).any(|other| {
            let holds_user = other.user_held(dropped) == Some(self.request.user());
            waits_for_user && holds_user || other.chats_held(dropped).iter().any(|chat| chats.contains(chat))
        })
    }

    fn chats(&self, store: &Store, dropped: Option<Rule>) -> Vec<Chat> {
        match (self.request, dropped) {
            (Request::Revoke { .. }, Some(Rule::RevocationLocksUser))
            | (Request::ReplaceUserKey { .. }, Some(Rule::UserKeyLocksUser)) => self.early.0.clone(),
            _ => self.request.chats(store),
        }
    }

    /// Whether its second step would be refused, if it came now.
    pub fn is_refused(&self, store: &Store, dropped: Option<Rule>) -> bool {
        let expiry_counts = dropped != Some(Rule::ExpiryIsJudged);
        match self.request {
            Request::Add { chat, view, .. } => {
                let row = &store.chats[chat];
                let view = &row.views[view];
                let is_anchored =
                    view.folded.fold.roster_hash() == row.head.roster_hash && view.epoch() == row.head.epoch;
                let is_over = self.newcomers(store, dropped).iter().any(|session| store.sessions[session].is_over);
                !is_anchored && dropped != Some(Rule::AdditionIsAnchored)
                    || is_over && expiry_counts
                    || !self.may_change(store, dropped)
            }
            Request::Remove { .. } | Request::Leave { .. } => !self.may_change(store, dropped),
            Request::Revoke { session, withdraws } => {
                let must_withdraw = knows_halves(session)
                    && store.user_keys[user_of(session)].active().is_some()
                    && dropped != Some(Rule::RevocationWithdraws);
                must_withdraw && !withdraws || !matches!(store.sessions[session].state, State::Live | State::Expired)
            }
            Request::ReplaceUserKey { .. } => false,
            Request::Expire { user } => !store.live(user).iter().any(|session| store.sessions[session].is_over),
            Request::Certify { session } => {
                store.sessions[session].state == State::Revoked && dropped != Some(Rule::RevokedStaysOut)
            }
        }
    }

    /// The real state machine says whether a change may be made; an expiry that is due comes before any.
    fn may_change(&self, store: &Store, dropped: Option<Rule>) -> bool {
        let Some((chat, actor, change)) = self.change(store) else { return false };
        let expiry_due = store.expiry_due(chat) && dropped != Some(Rule::ExpiryIsJudged);
        store.may_act(actor) && store.chats[chat].membership.check(&change).is_ok() && !expiry_due
    }

    /// The change of members that is asked for, who signs it, and where.
    fn change(&self, store: &Store) -> Option<(Chat, Session, MembershipChange)> {
        let (chat, actor, target, view) = match self.request {
            Request::Add { chat, actor, target, view } | Request::Remove { chat, actor, target, view } => {
                (chat, actor, target, view)
            }
            Request::Leave { chat, actor, view } => (chat, actor, user_of(actor), view),
            Request::Revoke { .. }
            | Request::Expire { .. }
            | Request::Certify { .. }
            | Request::ReplaceUserKey { .. } => return None,
        };
        let view = &store.chats[chat].views[view];
        let (roster_hash, epoch) = (view.folded.fold.roster_hash(), view.epoch());
        let change = match self.request {
            Request::Add { .. } => Change::Add { can_write: true, can_manage: true, roster_hash, epoch },
            Request::Remove { .. } => Change::Remove,
            _ => Change::Leave,
        };
        Some((chat, actor, change_of(chat, Some(view), actor, change, target)))
    }

    fn newcomers(&self, store: &Store, dropped: Option<Rule>) -> Set {
        match (self.request, dropped) {
            (Request::Add { .. }, Some(Rule::AdditionReadsAfterLock)) => self.early.1,
            (Request::Add { target, .. }, _) => store.live(target),
            _ => Set::default(),
        }
    }

    /// Its second step.
    pub fn finish(&self, store: &mut Store, dropped: Option<Rule>) -> Outcome {
        if self.is_refused(store, dropped) {
            return Outcome::Refused;
        }
        let chats = self.chats(store, dropped);
        Outcome::Committed(match self.request {
            Request::Revoke { session, withdraws } => revoke(store, &chats, (session, withdraws), dropped),
            Request::Expire { user } => expire(store, &chats, store.live(user), dropped),
            Request::Certify { session } => certify(store, &chats, session, dropped),
            Request::ReplaceUserKey { user } => {
                store.replace_user_key(user, dropped);
                in_each(store, &chats, |store, chat| store.show_user_key(chat, user, dropped))
            }
            Request::Add { .. } | Request::Remove { .. } | Request::Leave { .. } => {
                let Some((chat, actor, change)) = self.change(store) else { return Outcome::Refused };
                let newcomers = self.newcomers(store, dropped);
                store.change(chat, &sign_change(chat, actor, change), newcomers, dropped)
            }
        })
    }
}

fn revoke(
    store: &mut Store,
    chats: &[Chat],
    (session, withdraws): (Session, bool),
    dropped: Option<Rule>,
) -> Result<(), Refused> {
    let (user, before) = (user_of(session), store.sessions[session].state);
    // By the sibling, or by the identity key where there is none that could sign.
    let signer = Some(sibling(session)).filter(|signer| store.may_act(*signer));
    store.places[user] += 1;
    let signed = revocation(session, store.places[user], signer);
    store.sessions[session].state = State::Revoked;
    let keys = &mut store.user_keys[user];
    let withdrawn = keys.active().filter(|_| withdraws);
    keys.is_withdrawn |= withdrawn.is_some();
    if knows_halves(session) {
        keys.known_outside = keys.newest;
    }
    if before == State::Expired && withdrawn.is_none() {
        return Ok(());
    }
    let body = EntryBody::SessionOut(SessionOut::Revoked(signed));
    in_each(store, chats, |store, chat| {
        if let Some(number) = withdrawn {
            store.hide_user_key(chat, (user, number), signer, dropped)?;
        }
        if before == State::Expired { Ok(()) } else { store.append(chat, NOW, body.clone(), dropped) }
    })
}

fn expire(store: &mut Store, chats: &[Chat], live: Set, dropped: Option<Rule>) -> Result<(), Refused> {
    let due = Set::of(live.iter().filter(|session| store.sessions[*session].is_over));
    let latest = due.iter().map(|session| expired_at(store.sessions[session].place).get()).max().unwrap_or(NOW);
    for session in due.iter() {
        store.sessions[session].state = State::Expired;
    }
    in_each(store, chats, |store, chat| {
        due.iter().try_for_each(|session| {
            let user_id = user_id(user_of(session));
            let out = SessionOut::Expired { user_id, session_id: session_id(session) };
            store.append(chat, latest, EntryBody::SessionOut(out), dropped)
        })
    })
}

fn certify(store: &mut Store, chats: &[Chat], session: Session, dropped: Option<Rule>) -> Result<(), Refused> {
    // After its time has run out a session goes out before it comes in.
    let (before, now) = (store.sessions[session], store.entry_time(session));
    if before.state == State::Live && before.is_over && dropped != Some(Rule::ExpiredGoesOutFirst) {
        expire(store, chats, Set::of([session]), dropped)?;
    }
    let user = user_of(session);
    store.places[user] += 1;
    let place = store.places[user];
    store.sessions[session] = SessionRow { state: State::Live, place, is_over: false };
    if dropped == Some(Rule::ComingInIsLogged) {
        return Ok(());
    }
    let body = EntryBody::SessionIn(certificate(session, place));
    in_each(store, chats, |store, chat| store.append(chat, now, body.clone(), dropped))
}

fn in_each(
    store: &mut Store,
    chats: &[Chat],
    append: impl Fn(&mut Store, Chat) -> Result<(), Refused>,
) -> Result<(), Refused> {
    for chat in chats {
        append(store, *chat)?;
    }
    chats.iter().for_each(|chat| store.seal(*chat));
    Ok(())
}
