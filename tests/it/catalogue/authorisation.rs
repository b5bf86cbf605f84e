//! Authorisation: Z1 to Z14.

mod edges;
mod keys;
mod removed;
mod rights;
mod strangers;
