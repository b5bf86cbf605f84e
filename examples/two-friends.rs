//! Lets two friends meet: registers both, makes a chat, sends, and receives on the other side.
//!
//! `cargo run --example two-friends -- http://127.0.0.1:8080` against a broker that runs there.

use std::io::{self, Write};
use std::sync::Arc;

use sealcast::client::{Body, Client, ClientConfig, Connector, Ephemeral, Event, NewAccount};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = std::env::args().nth(1).unwrap_or_else(|| "http://127.0.0.1:8080".to_owned());
    let config = ClientConfig::new(Connector::new(None)?);
    // Names of their own for each run; the profiles are gone when it ends.
    let suffix = std::process::id();
    let account = |name: &str| NewAccount { server: server.clone(), username: format!("{name}{suffix}"), ttl: None };
    let ann = Client::register(config.clone(), account("ann"), Arc::new(Ephemeral)).await?;
    let bob = Client::register(config, account("bob"), Arc::new(Ephemeral)).await?;

    let mut events = bob.events();
    let chat = ann.create_chat("Lunch").await?;
    ann.add_member(chat, bob.username().as_str(), true, false).await?;
    let sent = ann.send(chat, "Are you hungry?").await?;
    writeln!(io::stdout(), "sent as entry {} of the log", sent.seq)?;

    loop {
        let Ok(Some(event)) = events.next().await else { continue };
        match &*event {
            Event::Message(message) => {
                if let Body::Message { text, .. } = &message.body {
                    writeln!(io::stdout(), "bob reads: {text}")?;
                }
                break;
            }
            Event::Alarm(alarm) => return Err(alarm.failure.into()),
            Event::Closed(reason) => return Err((*reason).into()),
            _ => {}
        }
    }
    bob.close().await?;
    ann.close().await?;
    Ok(())
}
