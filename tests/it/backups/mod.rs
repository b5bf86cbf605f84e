//! Keys of older sessions in the hands of newer ones of the same user: who may hand them on, what they open, and what a
//! thief has of them.

#[cfg(feature = "client")]
mod history;
#[cfg(feature = "client")]
mod lies;
mod requests;
#[cfg(feature = "client")]
mod terminal;
#[cfg(feature = "client")]
mod theft;
