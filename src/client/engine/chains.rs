//! Reads users' chains in the background, in batches, and compares them with what the chats say.
//!
//! Delivery never waits for it. What looks wrong is looked at again: the log is read to where the server says that it
//! ends, then the chain once more, so that nobody is accused because news of two kinds crossed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::call::{expect_reply, spawn};
use super::members;
use super::state::{Shared, State};
use crate::client::chains::{Claim, Difference, Expected, compare, proven};
use crate::client::error::ClientError;
use crate::client::failure::VerificationFailure;
use crate::protocol::certificate::UserEvent;
use crate::protocol::frame::{ChainFrom, Chains, Cursor, Reply, Request, Resume, UserEvents};
use crate::protocol::ids::{ChatId, Seq, UserId};
use crate::protocol::limits::CHAINS_PER_REQUEST_MAX;
use crate::protocol::log::{EntryBody, SessionOut};
use crate::protocol::user_chain::UserChain;

/// Users whose chains are read in one round.
const USERS_PER_ROUND_MAX: usize = 1_000;

/// Parts of one answer's chains that are read in one round: what is longer goes on in the next.
const PARTS_MAX: usize = 200;

/// How long after the first entry that is to be compared a round begins: what comes together is read together.
const GATHERING: Duration = Duration::from_secs(5);

/// When the next round is due.
#[derive(Debug, Default)]
pub(crate) struct Schedule {
    last: Option<std::time::Instant>,
    is_running: bool,
}

impl Schedule {
    fn is_due(&self, has_claims: bool, interval: Duration) -> bool {
        let wait = if has_claims { GATHERING.min(interval) } else { interval };
        interval != Duration::MAX && !self.is_running && self.last.is_none_or(|last| last.elapsed() >= wait)
    }
}

/// Begins a round if one is due.
pub(crate) fn look_if_due(shared: &Arc<Shared>) {
    {
        let mut state = shared.lock();
        let has_claims = state.chains.has_claims();
        if state.chats.is_empty() || !state.chain_schedule.is_due(has_claims, shared.config.chains_interval) {
            return;
        }
        state.chain_schedule.is_running = true;
    }
    let task_shared = Arc::clone(shared);
    spawn(shared, async move {
        if let Err(error) = look(&task_shared).await {
            tracing::debug!(%error, "users' chains are not read now");
        }
        let mut state = task_shared.lock();
        state.chain_schedule = Schedule { last: Some(std::time::Instant::now()), is_running: false };
    });
}

/// One round. Gives what did not verify, each for the first time only.
pub(crate) async fn look(shared: &Arc<Shared>) -> Result<Vec<VerificationFailure>, ClientError> {
    let mut failures = Vec::new();
    let users = {
        let mut state = shared.lock();
        let own = state.account.me.user_id;
        let members: BTreeSet<UserId> =
            state.chats.values().flat_map(|chat| chat.log.fold().membership().members.keys().copied()).collect();
        state.chains.next_users(own, &members, USERS_PER_ROUND_MAX)
    };
    let good = read(shared, &users, &mut failures).await?;
    let suspects = shared.lock().suspects(&good);
    if !suspects.is_empty() {
        judge(shared, &suspects, &mut failures).await?;
    }
    for (chat_id, failure) in &failures {
        shared.alarm(*chat_id, None, *failure);
    }
    Ok(failures.into_iter().map(|(_, failure)| failure).collect())
}

/// Reads the chain of one user to its end.
///
/// # Errors
/// It does not verify, which is an alarm too; the server's refusals.
pub(crate) async fn read_now(shared: &Shared, user_id: UserId) -> Result<(), ClientError> {
    let mut failures = Vec::new();
    let good = read(shared, &BTreeSet::from([user_id]), &mut failures).await?;
    for (chat_id, failure) in &failures {
        shared.alarm(*chat_id, None, *failure);
    }
    match failures.first() {
        _ if good.contains(&user_id) => Ok(()),
        Some((_, failure)) => Err(ClientError::Verification(*failure)),
        None => Err(ClientError::UnknownUser),
    }
}

type Failures = Vec<(Option<ChatId>, VerificationFailure)>;

/// Reads the chains of users to their ends. Gives those that verify.
async fn read(
    shared: &Shared,
    users: &BTreeSet<UserId>,
    failures: &mut Failures,
) -> Result<BTreeSet<UserId>, ClientError> {
    let mut good = BTreeSet::new();
    let users: Vec<UserId> = users.iter().copied().collect();
    for batch in users.chunks(CHAINS_PER_REQUEST_MAX) {
        let mut expected: BTreeMap<UserId, Expected> = {
            let state = shared.lock();
            let expect =
                |user_id: &UserId| (*user_id, state.chains.expected(*user_id, state.account.chain_head(*user_id)));
            batch.iter().map(expect).collect()
        };
        let mut parts = 0;
        while !expected.is_empty() && parts < PARTS_MAX {
            parts += 1;
            let asked: Vec<ChainFrom> = expected
                .iter()
                .map(|(user_id, expected)| ChainFrom { user_id: *user_id, after: expected.after })
                .collect();
            let request = Request::UserEvents(UserEvents { users: asked });
            let chains = expect_reply!(shared.call(request).await??, Chains)?;
            shared.lock().take_chains(&mut expected, &chains, &mut good, failures);
        }
    }
    Ok(good)
}

/// Looks again at chats that differ from their users' chains: the log to its present end, then the chains.
async fn judge(
    shared: &Arc<Shared>,
    suspects: &BTreeMap<ChatId, BTreeSet<UserId>>,
    failures: &mut Failures,
) -> Result<(), ClientError> {
    let users: BTreeSet<UserId> = suspects.values().flatten().copied().collect();
    let before: BTreeMap<UserId, UserChain> = {
        let state = shared.lock();
        users.iter().filter_map(|user_id| Some((*user_id, state.chains.get(*user_id)?.clone()))).collect()
    };
    let ends: BTreeMap<ChatId, Seq> =
        members::list(shared).await?.chats.into_iter().map(|info| (info.chat_id, info.last_seq)).collect();
    let wanted: Vec<(ChatId, Seq)> =
        suspects.keys().filter_map(|chat_id| Some((*chat_id, *ends.get(chat_id)?))).collect();
    let cursors: Vec<Cursor> = {
        let state = shared.lock();
        let behind = |(chat_id, end): &(ChatId, Seq)| {
            let head = state.chats.get(chat_id)?.log.head().seq;
            (head < *end).then_some(Cursor { chat_id: *chat_id, seq: head })
        };
        wanted.iter().filter_map(behind).collect()
    };
    if !cursors.is_empty() {
        // Entries about sessions may wait in the store until the chat is used.
        let _ = shared.call(Request::Resume(Resume { cursors })).await?;
    }
    let mut read_to_the_end = Vec::new();
    for (chat_id, end) in wanted {
        if shared.folded(chat_id, end).await? {
            read_to_the_end.push(chat_id);
        }
    }
    read(shared, &users, failures).await?;
    let mut state = shared.lock();
    for chat_id in read_to_the_end {
        let Some(users) = suspects.get(&chat_id) else { continue };
        for (user_id, second) in state.differences(chat_id, users) {
            for difference in proven(&second, before.get(&user_id)) {
                if state.chains.accuse(chat_id, difference) {
                    failures.push((Some(chat_id), difference.failure()));
                }
            }
        }
    }
    Ok(())
}

impl State {
    /// Notes an entry of a user's chain that a chat's log shows, to be compared with the chain.
    pub(crate) fn claim(&mut self, chat_id: ChatId, body: &EntryBody) -> Result<(), VerificationFailure> {
        let (event, session_id) = match body {
            EntryBody::SessionIn(signed) => (UserEvent::Certificate(signed.clone()), signed.certificate.session_id),
            EntryBody::SessionOut(SessionOut::Revoked(signed)) => {
                (UserEvent::Revocation(signed.clone()), signed.revocation.session_id)
            }
            _ => return Ok(()),
        };
        let user_id = match &event {
            UserEvent::Certificate(signed) => signed.certificate.user_id,
            UserEvent::Revocation(signed) => signed.revocation.user_id,
            UserEvent::Deletion(signed) => signed.deletion.user_id,
        };
        let claim = Claim { hash: event.chain_hash(), session_id, chat_id };
        self.chains.claim(user_id, event.place(), claim)
    }

    /// Takes an answer. What is not finished stays in `expected`, to be asked for from where it ends.
    fn take_chains(
        &mut self,
        expected: &mut BTreeMap<UserId, Expected>,
        answer: &Chains,
        good: &mut BTreeSet<UserId>,
        failures: &mut Failures,
    ) {
        let mut going_on = BTreeMap::new();
        for (user_id, wanted) in std::mem::take(expected) {
            let Some(identity_key) = self.account.identity_of(user_id) else { continue };
            let nothing = crate::protocol::frame::Chain { user_id, events: Vec::new(), more: false };
            let part = answer.chains.iter().find(|chain| chain.user_id == user_id).unwrap_or(&nothing);
            let before = self.chains.get(user_id).map(UserChain::place);
            match self.chains.take(identity_key, &wanted, part) {
                Ok(true) => {
                    let next = self.chains.expected(user_id, None).after;
                    // A server that says that there is more and shows nothing is not asked for ever.
                    let has_moved = self.chains.get(user_id).map(UserChain::place) > before;
                    if has_moved || part.events.is_empty() {
                        going_on.insert(user_id, wanted.from(next));
                    }
                }
                Ok(false) => {
                    let settled = self.chains.settle(user_id, &wanted);
                    failures.extend(settled.into_iter().map(|(chat_id, failure)| (Some(chat_id), failure)));
                    if let Some(chain) = self.chains.get(user_id) {
                        let (place, hash) = (chain.place(), chain.hash());
                        self.is_account_dirty |= self.account.note_chain(user_id, place, hash);
                        good.insert(user_id);
                    }
                }
                Err(failure) => failures.push((None, failure)),
            }
        }
        *expected = going_on;
    }

    /// What a chat's recipients differ in from the chains of some users, as far as these are read.
    fn differences(&self, chat_id: ChatId, users: &BTreeSet<UserId>) -> BTreeMap<UserId, BTreeSet<Difference>> {
        let Some(chat) = self.chats.get(&chat_id) else { return BTreeMap::new() };
        let chain_of = |user_id| self.chains.get(user_id).filter(|_| users.contains(&user_id));
        compare(chat.log.fold(), self.account.me.user_id, self.now(), chain_of)
    }

    /// Chats whose recipients differ from their users' chains.
    fn suspects(&self, users: &BTreeSet<UserId>) -> BTreeMap<ChatId, BTreeSet<UserId>> {
        let mut suspects: BTreeMap<ChatId, BTreeSet<UserId>> = BTreeMap::new();
        for chat_id in self.chats.keys() {
            let differences = self.differences(*chat_id, users);
            if !differences.is_empty() {
                suspects.insert(*chat_id, differences.into_keys().collect());
            }
        }
        suspects
    }
}
