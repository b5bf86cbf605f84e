//! Finds out why keys have not come, and what of a chat can be opened here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::call::expect_reply;
use super::history::History;
use super::state::Shared;
use crate::client::coverage::{Coverage, CoverageRange, Openness};
use crate::client::error::ClientError;
use crate::protocol::frame::{FetchArchives, FetchGroupKeys, FetchLinks, OwnGroupKey, Reply, Request};
use crate::protocol::generation_link::GenerationLink;
use crate::protocol::ids::{ChatId, GenerationNo, KeyId, Seq};
use crate::protocol::limits::{ARCHIVES_PER_REQUEST_MAX, PAGE_ENTRIES_MAX};

/// What is to be hoped for of a key that has not come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hope {
    /// A session of a member holds a copy.
    pub(crate) has_holder: bool,
    /// There is an archive to a group key that was wrapped to a user key of this user, or that links lead to from one.
    pub(crate) has_archive: bool,
}

impl Hope {
    pub(crate) const fn openness(self) -> Openness {
        if self.has_holder || self.has_archive { Openness::NoCopyYet } else { Openness::KeyLost }
    }
}

/// How an entry was found, before it is known what is to be hoped for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Judged {
    Open,
    Purged,
    Refused,
    Locked(KeyId),
}

/// All group keys of a chat above a generation that were wrapped to user keys of this user.
pub(crate) async fn group_keys(
    shared: &Shared,
    chat_id: ChatId,
    mut after: GenerationNo,
) -> Result<Vec<OwnGroupKey>, ClientError> {
    let mut all = Vec::new();
    loop {
        let request = Request::FetchGroupKeys(FetchGroupKeys { chat_id, after });
        let page = expect_reply!(shared.call(request).await??, GroupKeys)?;
        let newest = page.keys.iter().map(|key| key.generation).max();
        all.extend(page.keys);
        match newest {
            Some(newest) if page.more && newest > after => after = newest,
            _ => return Ok(all),
        }
    }
}

/// All links between generations that this user may read, in order.
pub(crate) async fn links(shared: &Shared, chat_id: ChatId) -> Result<Vec<GenerationLink>, ClientError> {
    let (mut all, mut after) = (Vec::new(), GenerationNo::default());
    loop {
        let request = Request::FetchLinks(FetchLinks { chat_id, after });
        let page = expect_reply!(shared.call(request).await??, Links)?;
        let newest = page.links.iter().map(|link| link.generation).max();
        all.extend(page.links);
        match newest {
            Some(newest) if page.more && newest > after => after = newest,
            _ => return Ok(all),
        }
    }
}

/// What is to be hoped for of keys.
pub(crate) async fn hopes(
    shared: &Shared,
    chat_id: ChatId,
    key_ids: &BTreeSet<KeyId>,
) -> Result<BTreeMap<KeyId, Hope>, ClientError> {
    let mut hopes = BTreeMap::new();
    if key_ids.is_empty() {
        return Ok(hopes);
    }
    let own = group_keys(shared, chat_id, GenerationNo::default()).await?;
    let mut own: BTreeSet<GenerationNo> = own.into_iter().map(|key| key.generation).collect();
    if !own.is_empty() {
        for link in links(shared, chat_id).await?.iter().rev() {
            if own.contains(&link.generation) {
                own.insert(link.before());
            }
        }
    }
    let key_ids: Vec<KeyId> = key_ids.iter().copied().collect();
    for part in key_ids.chunks(ARCHIVES_PER_REQUEST_MAX) {
        let request = Request::FetchArchives(FetchArchives { chat_id, key_ids: part.to_vec() });
        for key in expect_reply!(shared.call(request).await??, Archives)?.keys {
            let has_archive = key.archives.iter().any(|archive| own.contains(&archive.generation));
            hopes.insert(key.announcement.announcement.key_id, Hope { has_holder: key.has_holder, has_archive });
        }
        for key_id in part {
            hopes.entry(*key_id).or_insert(Hope { has_holder: false, has_archive: false });
        }
    }
    Ok(hopes)
}

/// Reads a chat from where its user may, and puts together what was found.
pub(crate) async fn coverage(shared: &Arc<Shared>, chat_id: ChatId) -> Result<Coverage, ClientError> {
    shared.known(chat_id).await?;
    let readable_from = {
        let state = shared.lock();
        let chat = state.chats.get(&chat_id).ok_or(ClientError::UnknownChat)?;
        let member = chat.log.fold().membership().members.get(&state.account.me.user_id);
        member.map(|member| member.readable_from).ok_or(ClientError::UnknownChat)?
    };
    let mut history = History::new(Arc::clone(shared), chat_id)?;
    let mut judged = Vec::new();
    let mut at = Seq::saturating(readable_from.get().saturating_sub(1));
    loop {
        let page = history.after(at, PAGE_ENTRIES_MAX).await?;
        judged.append(&mut history.take_judged());
        if !page.more || page.up_to <= at {
            break;
        }
        at = page.up_to;
    }
    let locked: BTreeSet<KeyId> = judged
        .iter()
        .filter_map(|(_, judged)| match judged {
            Judged::Locked(key_id) => Some(*key_id),
            _ => None,
        })
        .collect();
    let hopes = hopes(shared, chat_id, &locked).await?;
    Ok(put_together(&judged, &hopes))
}

fn put_together(judged: &[(Seq, Judged)], hopes: &BTreeMap<KeyId, Hope>) -> Coverage {
    let mut coverage = Coverage { ranges: Vec::new(), recoverable: 0 };
    for (seq, judged) in judged {
        let openness = match judged {
            Judged::Open => Openness::Open,
            Judged::Purged => Openness::Purged,
            Judged::Refused => Openness::Refused,
            Judged::Locked(key_id) => {
                let hope = hopes.get(key_id).copied().unwrap_or(Hope { has_holder: false, has_archive: false });
                coverage.recoverable += u64::from(hope.has_archive);
                hope.openness()
            }
        };
        coverage.add(*seq, openness);
    }
    coverage
}

impl Coverage {
    /// Takes the next entry; what was passed over is not this user's to read.
    fn add(&mut self, seq: Seq, openness: Openness) {
        let next = self.ranges.last().map_or(Seq::saturating(1), |range| range.to.next());
        if seq > next {
            let to = Seq::saturating(seq.get().saturating_sub(1));
            self.ranges.push(CoverageRange { from: next, to, openness: Openness::BeforeJoin });
        }
        match self.ranges.last_mut() {
            Some(range) if range.openness == openness && range.to.next() == seq => range.to = seq,
            Some(range) if range.to >= seq => {}
            _ => self.ranges.push(CoverageRange { from: seq, to: seq, openness }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seq: u64) -> Seq {
        Seq::saturating(seq)
    }

    #[test]
    fn p8_every_entry_is_in_one_range_that_says_why_it_cannot_be_opened() {
        let (held, archived, lost) = (KeyId::generate(), KeyId::generate(), KeyId::generate());
        let hopes = BTreeMap::from([
            (held, Hope { has_holder: true, has_archive: false }),
            (archived, Hope { has_holder: false, has_archive: true }),
            (lost, Hope { has_holder: false, has_archive: false }),
        ]);
        let found = [
            Judged::Open,
            Judged::Locked(held),
            Judged::Locked(archived),
            Judged::Locked(lost),
            Judged::Locked(KeyId::generate()),
            Judged::Purged,
            Judged::Refused,
            Judged::Open,
            Judged::Open,
        ];
        let judged: Vec<(Seq, Judged)> = (4..).map(at).zip(found).collect();
        let coverage = put_together(&judged, &hopes);
        let ranges: Vec<_> =
            coverage.ranges.iter().map(|range| (range.from.get(), range.to.get(), range.openness.as_str())).collect();
        let expected = [
            (1, 3, "before_join"),
            (4, 4, "open"),
            (5, 6, "no_copy_yet"),
            (7, 8, "key_lost"),
            (9, 9, "purged"),
            (10, 10, "refused"),
            (11, 12, "open"),
        ];
        assert_eq!(ranges, expected);
        assert_eq!(coverage.recoverable, 1);
        assert_eq!(put_together(&[], &hopes), Coverage { ranges: Vec::new(), recoverable: 0 });
    }
}
