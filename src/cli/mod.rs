//! The terminal client: one command, one connection, one exit code.
//!
//! Lives here: arguments, commands, output. Imports the client wing and the protocol. Results go to standard
//! output, one line of standard error says why a command failed. It never prompts.

mod args;
mod command;
mod error;
mod print;
mod read;

pub use args::ClientArgs;
pub use command::run;
