//! The generations of a chat's group key as its log shows them, and the making of the next one.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::client::error::UNSIGNED;
use crate::client::keyring::Me;
use crate::crypto::group_key::GroupKey;
use crate::protocol::binary::{ExchangeKey, SigningKey};
use crate::protocol::fold::ChatFold;
use crate::protocol::frame::MakeGeneration;
use crate::protocol::group_key::{Generation, SignedGeneration, member_keys_hash, wraps_hash};
use crate::protocol::ids::{GenerationNo, Seq, SessionId};

/// A generation that the log shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Made {
    /// The recovery key.
    pub(crate) public_key: ExchangeKey,
    /// The session that made it.
    pub(crate) maker: SessionId,
    /// Its place; 0 in a profile from before it was kept.
    #[serde(default)]
    pub(crate) seq: Seq,
}

/// Every generation of a log that verified.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Generations(BTreeMap<GenerationNo, Made>);

impl Generations {
    /// Notes one that was folded.
    pub(crate) fn note(&mut self, seq: Seq, generation: &Generation) {
        let made = Made { public_key: generation.public_key, maker: generation.session_id, seq };
        self.0.insert(generation.number, made);
    }

    /// Those that were made after a place of the log.
    pub(crate) fn after(&self, seq: Seq) -> impl Iterator<Item = GenerationNo> + '_ {
        self.0.iter().filter(move |(_, made)| made.seq > seq).map(|(number, _)| *number)
    }

    pub(crate) fn get(&self, number: GenerationNo) -> Option<Made> {
        self.0.get(&number).copied()
    }
}

/// The fold of a log up to a place, with the generations and the sessions on the way.
#[derive(Debug, Clone)]
pub(crate) struct Folded {
    pub(crate) fold: ChatFold,
    pub(crate) generations: Generations,
    /// What every session signs with that ever was a recipient.
    pub(crate) signers: BTreeMap<SessionId, SigningKey>,
}

/// Makes the generation that is due, if one is and this session may: for the members' user keys as the fold knows them.
/// The group key itself is forgotten with the end of this call, this session's own too.
pub(crate) fn make(fold: &ChatFold, me: &Me) -> Option<MakeGeneration> {
    let number = fold.generation_due()?;
    if !fold.recipients().contains_key(&me.session_id) {
        return None;
    }
    let chat_id = fold.chat_id();
    let key = GroupKey::generate();
    let mut wraps = Vec::with_capacity(fold.member_keys().len());
    for member in fold.member_keys().values() {
        // The fold takes no unsound user key, so this does not fail.
        wraps.push(key.wrap(chat_id, number, member).ok()?);
    }
    let generation = Generation {
        number,
        session_id: me.session_id,
        change_no: fold.membership().head,
        member_keys_hash: member_keys_hash(fold.member_keys().values()),
        public_key: key.recovery().public_key(),
        wraps_hash: wraps_hash(&wraps),
    };
    let mut generation = SignedGeneration { generation, signature: UNSIGNED };
    generation.signature = me.secrets.sign(&generation.generation.signed_bytes(chat_id));
    Some(MakeGeneration { chat_id, generation, wraps })
}
