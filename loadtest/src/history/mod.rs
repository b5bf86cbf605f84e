//! Says what happened in a run.
//!
//! Lives here: `record` is one event and its line of text, `recorder` takes what the clients say, `standing` folds from
//! it who was a recipient from where to where, `tally` counts, `pause` finds the longest time without an
//! acknowledgement.

mod pause;
pub(crate) mod record;
pub(crate) mod recorder;
mod standing;
pub(crate) mod tally;
