//! The smallest programs that do a part of a broker's work: what is left of the machine when nothing else is done.
//!
//! `server` takes connections and hands every frame to all members of a room, `frame` is the layout of RFC 6455, `sink`
//! says what becomes of a frame between its coming and its going: nothing at all, or one flushed commit. Nothing here
//! checks, decides or remembers anything, and nothing is bounded: these are no brokers.

mod frame;
mod postgres;
mod server;

use std::io::{Read, Write};
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use tokio::net::TcpListener;

use server::{Floor, Sink};

/// Options of the raw floor, and of the other too.
#[derive(Debug, Clone, Args)]
pub(crate) struct RawArgs {
    /// Payload bytes of a frame that is handed on.
    #[arg(long)]
    deliver_bytes: usize,
    /// Payload bytes of an answer.
    #[arg(long)]
    ack_bytes: usize,
}

/// Options of the Postgres floor.
#[derive(Debug, Clone, Args)]
pub(crate) struct PostgresArgs {
    #[command(flatten)]
    frames: RawArgs,
    /// Where Postgres keeps its files.
    #[arg(long)]
    data_dir: PathBuf,
}

/// Serves until standard input ends, and keeps nothing.
pub(crate) fn serve_raw(args: &RawArgs) -> anyhow::Result<()> {
    serve(args, None)
}

/// Serves until standard input ends, and commits each message before it is answered and handed on.
pub(crate) fn serve_postgres(args: PostgresArgs) -> anyhow::Result<()> {
    serve(&args.frames, Some(args.data_dir))
}

fn serve(frames: &RawArgs, data_dir: Option<PathBuf>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let (sink, postgres) = match data_dir {
            Some(data_dir) => {
                let (lanes, postgres) = postgres::start(data_dir).await?;
                (Sink::Lanes(lanes), Some(postgres))
            }
            None => (Sink::Nothing, None),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.context("listening")?;
        writeln!(std::io::stdout(), "listening on http://{}", listener.local_addr()?)?;
        let floor = Floor::new(frames.deliver_bytes, frames.ack_bytes, sink);
        let over = tokio::task::spawn_blocking(|| {
            let mut nothing = [0];
            // The parent writes nothing: the pipe ends when it does.
            while matches!(std::io::stdin().read(&mut nothing), Ok(1)) {}
        });
        tokio::select! {
            served = floor.serve(listener) => served?,
            over = over => over?,
        }
        match postgres {
            Some(postgres) => postgres.stop().await.context("stopping Postgres"),
            None => Ok(()),
        }
    })?;
    runtime.shutdown_background();
    Ok(())
}
