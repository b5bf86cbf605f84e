//! Measures how fast a broker is, as a ratio to floors that are measured beside it.
//!
//! The clients here are no library clients: these would use more of the machine than the broker. Messages are sealed and
//! signed before the clock runs (`pool`), so that a client only writes ready frames and compares what it reads with what was
//! sealed; one in many is opened. Lives here: `plan` says what is measured, `member` and `room` set it up by the bare
//! protocol, `wire` tells frames apart by their fixed parts, `drive` runs it on one thread, `server` is what it is run
//! against, `remote` a broker that runs elsewhere, `compare` runs servers in turn and makes ratios, `report` prints them, `page` and
//! `chart` draw them, `over_time` keeps latencies by the second, `progress` shows how far a run is, `idle` weighs connections that do
//! nothing, `history` reads a long log, `rotate` removes members of a busy chat, `scale` asks what a message costs, `storm` lets
//! everybody come back at once.

mod chart;
pub(crate) mod compare;
pub(crate) mod connection;
mod drive;
mod figures;
pub(crate) mod history;
pub(crate) mod idle;
mod member;
mod over_time;
mod page;
pub(crate) mod plan;
mod pool;
mod progress;
pub(crate) mod remote;
mod report;
mod room;
pub(crate) mod rotate;
pub(crate) mod scale;
mod server;
pub(crate) mod storm;
mod wire;
