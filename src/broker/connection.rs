//! One connection as the rest of the broker sees it: who it is, its outbox, and where it lags.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::sync::Notify;

use super::live_word::LiveWord;
use super::outbox::{Outbox, PushError};
use super::ready_frame::ReadyFrame;
use crate::protocol::codec::Encoding;
use crate::protocol::error::CloseCode;
use crate::protocol::frame::{Bye, ServerFrame};
use crate::protocol::ids::{ChatId, Seq};
use crate::protocol::limits::PAGE_BYTES_MAX;
use crate::store::members::Requester;

/// Bytes of data in a page, after which it ends early, while what waits for all connections is as much as may be.
const PRESSED_PAGE_BYTES: usize = 32 * 1024;

static NEXT: AtomicU64 = AtomicU64::new(1);

/// One WebSocket of a session, shared by all who send to it.
#[derive(Debug)]
pub struct Connection {
    /// Tells it from an older or newer connection of the same session.
    pub id: u64,
    /// How its frames are written.
    pub encoding: Encoding,
    /// What waits to be written to it.
    pub outbox: Arc<Outbox>,
    who: OnceLock<Requester>,
    barred_by: OnceLock<CloseCode>,
    chats: Mutex<BTreeMap<ChatId, Place>>,
    /// How often it was said that a chat lags.
    words: AtomicU64,
    /// Told when a chat begins to lag, when a resume ends, and when the connection does.
    pub wake: Notify,
    /// When it is told `live`.
    pub live: LiveWord,
    /// Set in the first resume, before the store is looked at: from then on it is handed what is new in all of its user's chats.
    pub has_resumed: AtomicBool,
    /// Held while a page is read for it: one at a time, so that its outbox holds one page and no more.
    pub reading: tokio::sync::Mutex<()>,
}

/// Where a connection stands in one chat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// New entries are handed over as they are committed.
    Live,
    /// It is about to be found live or behind.
    Standing,
    /// Entries after `after` are to be read from the store.
    Lagging {
        after: Seq,
        /// The store is known to have more.
        has_more: bool,
        /// The newest word that it lags. No two of a connection are the same, so that whoever brings it up to date sees
        /// one that came meanwhile, also after the chat was live, or forgotten, in between.
        word: u64,
    },
}

/// A chat that lags.
#[derive(Debug, Clone, Copy)]
pub struct Lagging {
    /// The chat.
    pub chat_id: ChatId,
    /// Entries after this one are to be read.
    pub after: Seq,
    /// Whether the store is known to have more.
    pub has_more: bool,
    word: u64,
}

impl Connection {
    /// A connection that has not logged in.
    #[must_use]
    pub fn new(encoding: Encoding, outbox: Arc<Outbox>) -> Arc<Self> {
        Arc::new(Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            encoding,
            outbox,
            who: OnceLock::new(),
            barred_by: OnceLock::new(),
            chats: Mutex::new(BTreeMap::new()),
            words: AtomicU64::new(0),
            wake: Notify::new(),
            live: LiveWord::default(),
            has_resumed: AtomicBool::new(false),
            reading: tokio::sync::Mutex::new(()),
        })
    }

    /// Who it is, once it has logged in.
    #[must_use]
    pub fn who(&self) -> Option<Requester> {
        self.who.get().copied()
    }

    /// Notes who it is; the first word counts.
    pub fn log_in(&self, who: Requester) {
        let _ = self.who.set(who);
    }

    /// Writes a frame for this connection's encoding.
    #[must_use]
    pub fn frame(&self, frame: &ServerFrame) -> ReadyFrame {
        ready(self.encoding, frame)
    }

    /// Sends an answer or whatever else must not be left out. A connection that takes not even those is closed.
    pub fn push_reply(&self, frame: &ServerFrame) {
        if self.outbox.push_reply(&self.frame(frame)) == Err(PushError::Full) {
            self.close(CloseCode::Overloaded);
        }
    }

    /// Bytes of data that a page for it may have now.
    #[must_use]
    pub fn page_bytes(&self) -> usize {
        if self.outbox.is_pressed() { PRESSED_PAGE_BYTES } else { PAGE_BYTES_MAX }
    }

    /// Closes it, after what waits has been written.
    pub fn close(&self, code: CloseCode) {
        self.outbox.close(code.number(), code.as_str());
        self.wake.notify_one();
    }

    /// Closes it, and takes nothing more from it: what it sends on until it is gone counts no more.
    pub fn bar(&self, code: CloseCode) {
        let _ = self.barred_by.set(code);
        self.close(code);
    }

    /// Why nothing is taken from it any more, if that is so.
    #[must_use]
    pub fn barred_by(&self) -> Option<CloseCode> {
        self.barred_by.get().copied()
    }

    /// Tells it to come back after a time, and closes it, because the process is going.
    pub fn say_bye(&self, retry_after_ms: u64) {
        self.push_reply(&ServerFrame::Bye(Bye { retry_after_ms }));
        self.close(CloseCode::Restart);
    }

    /// Notes that entries of a chat after `after` are to be read from the store. A chat that lags already keeps
    /// its place: only its reader moves it.
    pub fn lag(&self, chat_id: ChatId, after: Seq) {
        self.lag_by(chat_id, after, false);
    }

    /// The same, by the word of the store, whose newest entry is this.
    pub fn lag_behind(&self, chat_id: ChatId, after: Seq, last_seq: Seq) {
        self.lag_by(chat_id, after, after < last_seq);
    }

    fn lag_by(&self, chat_id: ChatId, after: Seq, store_has_more: bool) {
        let (mut chats, new_word) = (self.lock(), self.next_word());
        match chats.entry(chat_id).or_insert(Place::Standing) {
            Place::Lagging { word, has_more, .. } => {
                *word = new_word;
                *has_more |= store_has_more;
            }
            place @ (Place::Live | Place::Standing) => {
                *place = Place::Lagging { after, has_more: store_has_more, word: new_word };
            }
        }
        drop(chats);
        self.wake.notify_one();
    }

    /// Notes that it is about to stand in a chat: its end must find the chat, and a word that it lags must not be
    /// lost. Says whether it was in the chat before.
    pub fn stand(&self, chat_id: ChatId) -> bool {
        self.lock().insert(chat_id, Place::Standing).is_some()
    }

    /// Notes that it is not known whether a chat in which it was about to stand is its user's. One that it was in before is
    /// read from `after` on, and whoever reads finds out; another is forgotten, unless it was said meanwhile that it lags.
    /// Says whether it is forgotten.
    #[must_use]
    pub fn give_up_standing(&self, chat_id: ChatId, was_in: bool, after: Seq) -> bool {
        if was_in {
            self.lag(chat_id, after);
        }
        !was_in && self.forget_standing(chat_id)
    }

    /// Whether it stands in a chat, live or not.
    #[must_use]
    pub fn is_in(&self, chat_id: ChatId) -> bool {
        self.lock().contains_key(&chat_id)
    }

    /// Notes that its user is in a chat anew and reads from `after` on, unless it reads the chat by now. One that is just
    /// being told apart, or is being read for, is told so too: what is looked at for it may be from before.
    pub fn welcome(&self, chat_id: ChatId, after: Seq) {
        let (mut chats, new_word) = (self.lock(), self.next_word());
        match chats.entry(chat_id).or_insert(Place::Standing) {
            Place::Live => {}
            place @ Place::Standing => *place = Place::Lagging { after, has_more: false, word: new_word },
            Place::Lagging { word, .. } => *word = new_word,
        }
        drop(chats);
        self.wake.notify_one();
    }

    /// Forgets a chat unless it was said meanwhile that the chat lags; says whether it is forgotten.
    #[must_use]
    pub fn forget_standing(&self, chat_id: ChatId) -> bool {
        let mut chats = self.lock();
        let is_told_otherwise = chats.get(&chat_id).is_some_and(|place| *place != Place::Standing);
        if !is_told_otherwise {
            chats.remove(&chat_id);
        }
        !is_told_otherwise
    }

    /// Forgets a chat that was read for, unless a word came meanwhile, as that its user is in it anew; says whether it is
    /// forgotten.
    #[must_use]
    pub fn forget_lagging(&self, lagging: Lagging) -> bool {
        let mut chats = self.lock();
        let is_told_otherwise = chats.get(&lagging.chat_id).is_some_and(|place| match place {
            Place::Live | Place::Standing => true,
            Place::Lagging { word, .. } => *word != lagging.word,
        });
        if !is_told_otherwise {
            chats.remove(&lagging.chat_id);
        }
        !is_told_otherwise
    }

    /// Notes that a chat in which it stood is live, unless it lags by now.
    pub fn stood(&self, chat_id: ChatId) {
        if let Some(place @ Place::Standing) = self.lock().get_mut(&chat_id) {
            *place = Place::Live;
        }
    }

    /// Moves on the place of a chat that lags, unless it is another by now, or none: the chat was forgotten meanwhile, and
    /// maybe joined anew. Then what was read of it is not to be shown any more, and `false` says so.
    #[must_use]
    pub fn advance(&self, lagging: Lagging, after: Seq, has_more: bool) -> bool {
        let mut chats = self.lock();
        match chats.get_mut(&lagging.chat_id) {
            Some(Place::Lagging { after: at, has_more: store_has_more, .. }) if *at == lagging.after => {
                (*at, *store_has_more) = (after, has_more);
                true
            }
            _ => false,
        }
    }

    /// Notes that a chat that lagged has caught up, unless it was said to lag again meanwhile.
    pub fn caught_up(&self, lagging: Lagging) {
        if let Some(place @ Place::Lagging { .. }) = self.lock().get_mut(&lagging.chat_id)
            && matches!(place, Place::Lagging { word, .. } if *word == lagging.word)
        {
            *place = Place::Live;
        }
    }

    /// Forgets a chat.
    pub fn forget(&self, chat_id: ChatId) {
        self.lock().remove(&chat_id);
    }

    /// A chat that lags.
    #[must_use]
    pub fn next_lagging(&self) -> Option<Lagging> {
        self.lock().iter().find_map(|(chat_id, place)| match place {
            Place::Lagging { after, has_more, word } => {
                Some(Lagging { chat_id: *chat_id, after: *after, has_more: *has_more, word: *word })
            }
            Place::Live | Place::Standing => None,
        })
    }

    /// Its chats, live or not.
    #[must_use]
    pub fn chats(&self) -> Vec<ChatId> {
        self.lock().keys().copied().collect()
    }

    fn next_word(&self) -> u64 {
        self.words.fetch_add(1, Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ChatId, Place>> {
        self.chats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes a frame once for all connections of an encoding.
#[must_use]
pub fn ready(encoding: Encoding, frame: &ServerFrame) -> ReadyFrame {
    match encoding.encode(frame) {
        Ok(bytes) => match encoding {
            Encoding::Json => ReadyFrame::text(&bytes),
            Encoding::MessagePack => ReadyFrame::binary(&bytes),
        },
        Err(error) => {
            // The types of this crate can all be written; should one not be, its readers see the gap and fetch it.
            tracing::error!(error = &error as &dyn std::error::Error, "frame not written");
            ReadyFrame::ping(&[])
        }
    }
}

#[cfg(test)]
mod tests;
