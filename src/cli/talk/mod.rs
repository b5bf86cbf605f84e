//! Talks in one chat: on the whole screen of a terminal, or line by line.
//!
//! Lives here: the model (what is shown and what is typed, pure), its layout and view (pure), the screen, the loop,
//! and the line mode. Imports the client wing; nothing else of the terminal client imports what is below.

mod act;
mod editor;
mod full;
mod layout;
mod lines;
mod model;
mod presence;
mod screen;
mod slash;
mod text;
mod transcript;
mod view;

use self::act::Acts;
use super::args::Receipts;
use super::error::CliError;
use super::print::Printer;
use crate::client::{Client, ReceiptsTo};
use crate::protocol::ids::ChatId;

/// How its user wants to talk.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wishes {
    /// So many messages of the past come first in the line mode; the screen loads them as they are looked at.
    pub(super) last: usize,
    /// Line by line on a terminal too.
    pub(super) is_lines: bool,
    /// Who learns how far they have read.
    pub(super) receipts: Option<Receipts>,
}

/// Talks until its user ends it: on the screen if there is one and lines were not asked for.
pub(super) async fn talk(client: &Client, chat: ChatId, wishes: Wishes, printer: &Printer) -> Result<(), CliError> {
    let is_lines = wishes.is_lines || printer.is_json() || !full::is_possible();
    let receipts_to = match wishes.receipts {
        Some(Receipts::Everybody) => Some(ReceiptsTo::Everybody),
        Some(Receipts::Own) => Some(ReceiptsTo::OwnDevices),
        Some(Receipts::Nobody) => None,
        None if is_lines => None,
        None => Some(ReceiptsTo::OwnDevices),
    };
    let (acts, told) = Acts::new(client.clone(), chat, receipts_to);
    if is_lines {
        lines::talk(client, chat, wishes.last, printer, acts, told).await
    } else {
        full::talk(client, chat, printer.paint.is_on(), acts, told).await
    }
}
