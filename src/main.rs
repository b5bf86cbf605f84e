//! The command `sealcast`: arguments, settings, one call for each subcommand.

#[cfg(feature = "server")]
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// An actor-based real-time messaging broker for end-to-end encrypted chat.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Arguments {
    /// A file of settings; what it does not name keeps its default.
    #[cfg(feature = "server")]
    #[arg(long, global = true, value_name = "FILE", env = "SEALCAST_CONFIG")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve (the default).
    #[cfg(feature = "server")]
    Serve,
    /// Bring the database's schema up to date, and stop.
    #[cfg(feature = "server")]
    Migrate,
    /// Chat from the terminal.
    #[cfg(feature = "client")]
    Client(Box<sealcast::cli::ClientArgs>),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments) {
        Ok(code) => code,
        Err(error) => {
            use std::io::Write;
            let _ = writeln!(std::io::stderr(), "sealcast: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    match arguments.command {
        #[cfg(feature = "server")]
        Some(Command::Serve) | None => {
            sealcast::server::run(settings(arguments.config)?)?;
            Ok(ExitCode::SUCCESS)
        }
        #[cfg(feature = "server")]
        Some(Command::Migrate) => {
            sealcast::server::run_migrate(&settings(arguments.config)?)?;
            Ok(ExitCode::SUCCESS)
        }
        #[cfg(feature = "client")]
        Some(Command::Client(args)) => {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
            Ok(runtime.block_on(sealcast::cli::run(*args)))
        }
        #[cfg(not(feature = "server"))]
        None => {
            use clap::CommandFactory;
            Arguments::command().print_help()?;
            Ok(ExitCode::FAILURE)
        }
    }
}

#[cfg(feature = "server")]
fn settings(file: Option<PathBuf>) -> anyhow::Result<sealcast::config::Settings> {
    let settings = sealcast::config::Settings::load(file.as_deref())?;
    sealcast::telemetry::subscriber::install(settings.log.format, &settings.log.filter)?;
    Ok(settings)
}
