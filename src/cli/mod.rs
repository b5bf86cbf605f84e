//! The terminal client: one command, one connection, one exit code.
//!
//! Lives here: arguments, commands, output. Imports the client wing and the protocol. Results go to standard
//! output, one line of standard error says why a command failed and what to do next. Only `account
//! delete` asks for something, and only `talk` holds the terminal.

mod account;
mod args;
mod chats;
mod clock;
mod command;
mod error;
mod friends;
mod group_secrets;
mod messages;
mod paint;
mod passwords;
mod print;
mod profile;
mod qr;
mod read;
mod safety;
mod secrets;
mod sessions;
mod talk;
mod words;

pub use args::ClientArgs;
pub use command::run;
