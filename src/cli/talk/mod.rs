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
#[cfg(test)]
mod model_tests;
mod screen;
mod slash;
mod text;
mod transcript;
mod view;

use super::error::CliError;
use super::print::Printer;
use crate::client::Client;
use crate::protocol::ids::ChatId;

/// Talks until its user ends it: on the screen if there is one and lines were not asked for.
///
/// `last` messages of the past come first in the line mode; the screen loads them as they are looked at.
pub(super) async fn talk(
    client: &Client,
    chat: ChatId,
    last: usize,
    is_lines: bool,
    printer: &Printer,
) -> Result<(), CliError> {
    if is_lines || printer.is_json() || !full::is_possible() {
        lines::talk(client, chat, last, printer).await
    } else {
        full::talk(client, chat, printer.paint.is_on()).await
    }
}
