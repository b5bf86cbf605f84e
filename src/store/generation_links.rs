//! Links between generations of a group key: stored once, given to who may read what the older one protects.
//!
//! Invariants: N1 a link is stored if the older generation was made in the stretch of shared history that goes on: what a
//! newcomer reads by it begins where theirs does. N2 it is given to members alone whose readable range has that place in
//! it. N3 the first one of a generation stays.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::Store;
use super::copies::member;
use super::error::Failure;
use super::head::ChatHead;
use super::members::{Requester, turn_away, unknown_chat};
use super::rows::{bigint, fixed, get, id, number, number_of};
use super::transaction::Transaction;
use crate::protocol::error::{ErrorCode, Refusal};
use crate::protocol::frame::{FetchLinks, Links, UploadLinks};
use crate::protocol::generation_link::GenerationLink;
use crate::protocol::ids::{ChatId, GenerationNo, Seq, SessionId};
use crate::protocol::limits::LINKS_PER_REQUEST_MAX;

impl Store {
    /// Stores links where there are none.
    ///
    /// # Errors
    /// `too_large`, `unknown_chat`, `malformed`, `bad_signature`, `history_not_allowed`, a requester that is not live, or
    /// [`super::StoreError`].
    pub async fn upload_links(&self, who: Requester, request: &UploadLinks) -> Result<(), Failure> {
        let (chat_id, links) = (request.chat_id, &request.links);
        if links.len() > LINKS_PER_REQUEST_MAX {
            let limit = LINKS_PER_REQUEST_MAX as u64;
            return Err(Refusal::limit(ErrorCode::TooLarge, "too many links in one request", limit).into());
        }
        self.write("upload_links", async |tx| {
            turn_away(tx, who, chat_id).await?;
            let Some(head) = ChatHead::lock(tx, chat_id).await? else { return Err(unknown_chat().into()) };
            let (signing_key, _) = member(tx, who, chat_id).await?;
            let generations: BTreeSet<GenerationNo> = links.iter().map(|link| link.generation).collect();
            if generations.len() != links.len() {
                return Err(Refusal::new(ErrorCode::Malformed, "two links of one generation").into());
            }
            let is_signed = |link: &GenerationLink| {
                link.linked_by_session_id == who.session_id && link.verifies(chat_id, &signing_key)
            };
            if !links.iter().all(is_signed) {
                return Err(Refusal::new(ErrorCode::BadSignature, "a link does not verify").into());
            }
            let made = places(tx, chat_id, links).await?;
            // The one after it was made later, so it is in the same stretch (N1).
            let is_shared = |link: &GenerationLink| {
                let (Some(since), Some(before)) = (head.shared_since, made.get(&link.before())) else { return false };
                *before > since && made.contains_key(&link.generation)
            };
            if !links.iter().all(is_shared) {
                let message = "the two generations are not of one stretch of shared history that goes on";
                return Err(Refusal::new(ErrorCode::HistoryNotAllowed, message).into());
            }
            insert(tx, chat_id, links).await
        })
        .await
    }

    /// Reads links between generations whose messages a member may read.
    ///
    /// # Errors
    /// `unknown_chat`, a requester that is not live, or [`super::StoreError`].
    pub async fn links(&self, who: Requester, request: &FetchLinks) -> Result<Links, Failure> {
        self.read("links", async |tx| {
            turn_away(tx, who, request.chat_id).await?;
            let (_, readable_from) = member(tx, who, request.chat_id).await?;
            let statement = "SELECT l.generation, l.key, l.linked_by_session_id, l.signature FROM generation_links l \
                 WHERE l.chat_id = $1 AND l.generation > $2 AND EXISTS (SELECT 1 FROM group_keys k \
                     WHERE k.group_id = l.chat_id AND k.generation = l.generation - 1 AND k.seq >= $3) \
                 ORDER BY l.generation LIMIT $4";
            let one_more = i64::try_from(LINKS_PER_REQUEST_MAX).unwrap_or(i64::MAX).saturating_add(1);
            let (after, from) = (bigint(request.after), bigint(readable_from));
            let rows = tx.query(statement, &[&request.chat_id.0, &after, &from, &one_more]).await?;
            let mut links = Vec::new();
            for row in rows.iter().take(LINKS_PER_REQUEST_MAX) {
                links.push(GenerationLink {
                    generation: number(row, "generation")?,
                    key: fixed(row, "key")?,
                    linked_by_session_id: id(row, "linked_by_session_id", SessionId)?,
                    signature: fixed(row, "signature")?,
                });
            }
            Ok(Links { links, more: rows.len() > LINKS_PER_REQUEST_MAX })
        })
        .await
    }
}

/// Where in the log the generations were made that links join, as far as somebody who was a member then has an account.
async fn places(
    tx: &Transaction<'_>,
    chat_id: ChatId,
    links: &[GenerationLink],
) -> Result<BTreeMap<GenerationNo, Seq>, Failure> {
    let numbers: BTreeSet<i64> = links.iter().flat_map(|link| [link.generation, link.before()]).map(bigint).collect();
    let numbers: Vec<i64> = numbers.into_iter().collect();
    let statement = "SELECT generation, min(seq) AS seq FROM group_keys \
         WHERE group_id = $1 AND generation = ANY($2) AND seq IS NOT NULL GROUP BY generation";
    let mut places = BTreeMap::new();
    for row in tx.query(statement, &[&chat_id.0, &numbers]).await? {
        places.insert(number(&row, "generation")?, number_of(get(&row, "seq")?, "group_keys.seq")?);
    }
    Ok(places)
}

/// Stores links where there are none (N3).
async fn insert(tx: &Transaction<'_>, chat_id: ChatId, links: &[GenerationLink]) -> Result<(), Failure> {
    let (mut generations, mut keys) = (Vec::new(), Vec::<&[u8]>::new());
    let (mut by, mut signatures) = (Vec::<Uuid>::new(), Vec::<&[u8]>::new());
    for link in links {
        generations.push(bigint(link.generation));
        keys.push(link.key.as_ref());
        by.push(link.linked_by_session_id.0);
        signatures.push(link.signature.as_ref());
    }
    let statement = "INSERT INTO generation_links (chat_id, generation, key, linked_by_session_id, signature) \
         SELECT $1, * FROM unnest($2::bigint[], $3::bytea[], $4::uuid[], $5::bytea[]) ON CONFLICT DO NOTHING";
    tx.execute(statement, &[&chat_id.0, &generations, &keys, &by, &signatures]).await?;
    Ok(())
}
