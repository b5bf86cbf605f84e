//! Changes what holds in a chat while messages flow: rights, owner, keys, what newcomers may read; and deletes what
//! others wrote.
//!
//! Invariants: a chat that passed to a member comes back to its owner, who stays a member meanwhile; a member with
//! whom something is done is not taken out until it is over; the server's limits on rekeys and on changes of the
//! history policy are kept.

use std::sync::PoisonError;
use std::time::Duration;

use sealcast::client::{ClientError, SendError};
use sealcast::protocol::ids::ChatId;
use sealcast::protocol::membership::HistoryPolicy;
use tokio::task::JoinSet;

use super::Load;
use super::churn::{Changes, Churn};
use super::device::Device;
use super::talk::Talker;
use crate::rng::Rng;

/// Rekeys of a chat in a run: what the server allows in an hour.
pub(crate) const REKEYS_MAX: u32 = 6;

/// Changes of a chat's history policy in a run: what the server allows in a day.
pub(crate) const POLICIES_MAX: u32 = 2;

/// How long something holds before it is changed back.
const HOLD: Duration = Duration::from_millis(400);

/// Tries to give a chat back to its owner.
const RETURN_TRIES: u32 = 20;

/// A change.
#[derive(Debug, Clone, Copy)]
enum Rule {
    Rekey,
    Rights,
    Transfer,
    Policy,
    Moderate,
}

const RULES: [Rule; 5] = [Rule::Rekey, Rule::Rights, Rule::Transfer, Rule::Policy, Rule::Moderate];

/// Who does it, where, and to whom.
struct Parties {
    index: usize,
    chat_id: ChatId,
    owner: Device,
    owner_name: String,
    member: Device,
    member_name: String,
    user: usize,
}

impl Churn {
    /// Begins one change somewhere.
    pub(crate) fn rule(&self, load: &std::sync::Arc<Load>, rng: &mut Rng, tasks: &mut JoinSet<()>) {
        let Some(mut rule) = rng.pick(&RULES).copied() else { return };
        let Some((parties, policy)) = self.choose(&mut rule, rng) else { return };
        let (churn, load) = (self.clone(), std::sync::Arc::clone(load));
        tasks.spawn(async move {
            let done = match rule {
                Rule::Rekey => churn.rekey(&parties).await,
                Rule::Rights => churn.rights(&parties).await,
                Rule::Transfer => churn.transfer(&parties).await,
                Rule::Policy => churn.policy(&parties, policy).await,
                Rule::Moderate => moderate(&parties, &load).await,
            };
            if let Err(error) = done {
                churn.change(|changes| *changes.failed.entry(format!("{rule:?}: {error}")).or_default() += 1);
            }
            let mut rosters = churn.rosters.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(roster) = rosters.get_mut(parties.index) {
                roster.kept.remove(&parties.user);
            }
        });
    }

    /// Draws chat and member, and turns a change whose limit is used up into another.
    fn choose(&self, rule: &mut Rule, rng: &mut Rng) -> Option<(Parties, HistoryPolicy)> {
        let mut rosters = self.rosters.lock().unwrap_or_else(PoisonError::into_inner);
        let index = rng.below(rosters.len());
        let roster = rosters.get_mut(index)?;
        let free: Vec<usize> = roster.members.difference(&roster.kept).copied().collect();
        let user = rng.pick(&free).copied()?;
        let (owner, member) = (self.users.get(roster.owner)?, self.users.get(user)?);
        let parties = Parties {
            index,
            chat_id: roster.chat_id,
            owner: rng.pick(&owner.devices)?.clone(),
            owner_name: owner.username.clone(),
            member: rng.pick(&member.devices)?.clone(),
            member_name: member.username.clone(),
            user,
        };
        if matches!(rule, Rule::Transfer | Rule::Policy) && !roster.kept.is_empty() {
            *rule = Rule::Moderate;
        }
        if matches!(rule, Rule::Rekey) && roster.rekeys == REKEYS_MAX
            || matches!(rule, Rule::Policy) && roster.policies == POLICIES_MAX
        {
            *rule = Rule::Moderate;
        }
        let mut policy = HistoryPolicy::Shared;
        match rule {
            Rule::Rekey => roster.rekeys += 1,
            Rule::Policy => {
                policy = if roster.is_shared { HistoryPolicy::FromJoin } else { HistoryPolicy::Shared };
                roster.policies += 1;
            }
            _ => {}
        }
        roster.kept.insert(user);
        Some((parties, policy))
    }

    fn change(&self, change: impl FnOnce(&mut Changes)) {
        change(&mut self.changes.lock().unwrap_or_else(PoisonError::into_inner));
    }

    async fn rekey(&self, parties: &Parties) -> Result<(), ClientError> {
        parties.owner.client.rekey(parties.chat_id).await?;
        self.change(|changes| changes.rekeys += 1);
        Ok(())
    }

    /// Takes all rights from a member, gives them all, and ends with those of the beginning. Who owned the chat for a
    /// while manages it still, so that each of these is a change for them too.
    async fn rights(&self, parties: &Parties) -> Result<(), ClientError> {
        for (can_write, can_manage) in [(false, false), (true, true), (true, false)] {
            let owner = &parties.owner.client;
            owner.set_rights(parties.chat_id, &parties.member_name, can_write, can_manage).await?;
            self.change(|changes| changes.rights += 1);
            tokio::time::sleep(HOLD).await;
        }
        Ok(())
    }

    async fn transfer(&self, parties: &Parties) -> Result<(), ClientError> {
        parties.owner.client.transfer(parties.chat_id, &parties.member_name).await?;
        self.change(|changes| changes.transfers += 1);
        tokio::time::sleep(HOLD).await;
        let mut tries = 0;
        loop {
            match parties.member.client.transfer(parties.chat_id, &parties.owner_name).await {
                Ok(_) => break,
                Err(error) if tries == RETURN_TRIES => return Err(error),
                Err(_) => tries += 1,
            }
            tokio::time::sleep(HOLD).await;
        }
        self.change(|changes| changes.transfers += 1);
        Ok(())
    }

    async fn policy(&self, parties: &Parties, policy: HistoryPolicy) -> Result<(), ClientError> {
        parties.owner.client.set_history(parties.chat_id, policy).await?;
        self.change(|changes| changes.policies += 1);
        let mut rosters = self.rosters.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(roster) = rosters.get_mut(parties.index) {
            roster.is_shared = policy == HistoryPolicy::Shared;
        }
        Ok(())
    }
}

/// As the chat's owner deletes its newest message, whoever wrote it.
async fn moderate(parties: &Parties, load: &Load) -> Result<(), ClientError> {
    let Some((message_id, _)) = load.topics.newest(parties.chat_id) else { return Ok(()) };
    let owner = &parties.owner;
    let talker = Talker {
        client: &owner.client,
        session_id: owner.session_id,
        user_id: owner.client.user_id(),
        chat_id: parties.chat_id,
        recorder: &load.recorder,
        topics: &load.topics,
    };
    match talker.delete(message_id).await {
        // Its author was first.
        Ok(_) | Err(SendError::UnknownMessage | SendError::EditConflict { .. }) => Ok(()),
        Err(SendError::Closed(reason)) => Err(ClientError::Closed(reason)),
        Err(_) => Err(ClientError::UnexpectedAnswer),
    }
}
