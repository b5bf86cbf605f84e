//! One chat: its rules as plain data, and the actor that runs them.

pub mod actor;
pub mod fan_out;
pub mod messages;
pub mod staging;
pub mod state;
