//! Recovery by friends: shares for them, requests for their help, and how a device that has nothing comes back.
//!
//! Lives here: what goes wrong with it; each of the three parties has a file. The friend's client keeps the window: it
//! gives nothing away before it has known a request for [`ClientConfig::recovery_window`], whatever the server says.
//!
//! [`ClientConfig::recovery_window`]: super::config::ClientConfig::recovery_window

mod help;
mod recover;
mod seen;
mod share;

use std::time::Duration;

pub use help::{HeldRequest, KnownRequest};
pub(super) use help::{on_cancelled, on_requested};
pub use recover::{Bad, FriendRecovery, Gathered, Progress};
pub(super) use seen::SeenRequests;
pub use share::{OwnShares, SharedWith};

use crate::protocol::username::Username;

/// Why recovery by friends does not go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FriendsError {
    /// No chat is shared with them.
    #[error("no chat is shared with {0}")]
    NotAFriend(Username),
    /// They have no password, and so no key to wrap a share to.
    #[error("{0} has no password, so no key that a share could be wrapped to")]
    NoUserKey(Username),
    /// Their user key was not signed by the identity key that is known of them.
    #[error("the server shows a key of {0} that is not theirs")]
    ForeignKey(Username),
    /// The numbers make no set.
    #[error("{needed} of {count} makes no recovery: 2 are needed at least, of 16 friends at most")]
    Numbers {
        /// Shares that would recover.
        needed: u32,
        /// Friends.
        count: usize,
    },
    /// Nothing is shared with friends.
    #[error("nothing is shared with friends")]
    NothingShared,
    /// No request of that id is open, or it is none of this user's concern.
    #[error("there is no such request that is open: it was cancelled, is too old, or concerns somebody else")]
    UnknownRequest,
    /// The code is not that of the request: it was mistyped, or the server shows another request than the one that was
    /// made.
    #[error("the code is not that of this request")]
    WrongCode,
    /// The name of the request is not that of the user whom it is about, as far as this client knows.
    #[error("the request names somebody else than whom it is about")]
    OtherUser,
    /// The window is not over.
    #[error("not yet: this device has known of the request for less than the window, {} are left", words(*.left))]
    TooEarly {
        /// How long there is to wait.
        left: Duration,
    },
    /// The share that this user holds does not open, or is not the one that was made.
    #[error("the share that is kept for you does not open, or is not the one that was made")]
    BadShare,
    /// The request was cancelled by one of the account's sessions.
    #[error("the request was cancelled by a session of the account")]
    Cancelled,
    /// The request is too old.
    #[error("the request is over: it was kept for seven days")]
    Over,
    /// The account that the server shows is not the one whose code the friends gave.
    #[error("what the friends gave is not of the account that the server shows")]
    OtherAccount,
    /// The new password holds; only the login is left.
    #[error("the new password holds already, and this device is to log in with it")]
    AlreadyReset,
    /// The new password does not hold yet.
    #[error("there is no new password yet")]
    NotReset,
}

/// A time for people: hours and minutes, or seconds.
fn words(time: Duration) -> String {
    let seconds = time.as_secs();
    match (seconds / 3_600, seconds % 3_600 / 60) {
        (0, 0) => format!("{} s", seconds.max(1)),
        (0, minutes) => format!("{minutes} min"),
        (hours, minutes) => format!("{hours} h {minutes} min"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_that_is_left_is_told_in_words() {
        let seconds = Duration::from_secs;
        assert_eq!(words(Duration::from_millis(1)), "1 s");
        assert_eq!(words(seconds(59)), "59 s");
        assert_eq!(words(seconds(60)), "1 min");
        assert_eq!(words(seconds(86_340)), "23 h 59 min");
        assert_eq!(words(seconds(86_400)), "24 h 0 min");
    }
}
