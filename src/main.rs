//! The command `sealcast`: arguments, settings, one call for each subcommand.

#[cfg(feature = "server")]
use std::path::PathBuf;
use std::process::ExitCode;

#[cfg(any(feature = "client", not(feature = "server")))]
use clap::CommandFactory;
use clap::{Parser, Subcommand};

/// An actor-based real-time messaging broker for end-to-end encrypted chat.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Arguments {
    #[cfg(feature = "server")]
    #[command(flatten)]
    settings: SettingsFile,
    #[command(subcommand)]
    command: Option<Command>,
}

/// Where the broker's settings come from.
#[cfg(feature = "server")]
#[derive(Debug, clap::Args)]
struct SettingsFile {
    /// A file of settings; what it does not name keeps its default.
    #[arg(long, value_name = "FILE", env = "SEALCAST_CONFIG")]
    config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve (the default).
    #[cfg(feature = "server")]
    Serve(SettingsFile),
    /// Bring the database's schema up to date, and stop.
    #[cfg(feature = "server")]
    Migrate(SettingsFile),
    /// Chat from the terminal.
    #[cfg(feature = "client")]
    Client(Box<sealcast::cli::ClientArgs>),
    /// Print what makes a shell complete this command.
    #[cfg(feature = "client")]
    #[command(after_help = "\
Examples:
  sealcast completions bash > ~/.local/share/bash-completion/completions/sealcast
  sealcast completions zsh > ~/.zfunc/_sealcast          # a folder of $fpath
  sealcast completions fish > ~/.config/fish/completions/sealcast.fish")]
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
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
        None => serve(arguments.settings),
        #[cfg(feature = "server")]
        Some(Command::Serve(file)) => serve(file.or(arguments.settings)),
        #[cfg(feature = "server")]
        Some(Command::Migrate(file)) => {
            sealcast::server::run_migrate(&settings(file.or(arguments.settings))?)?;
            Ok(ExitCode::SUCCESS)
        }
        #[cfg(feature = "client")]
        Some(Command::Client(args)) => {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
            Ok(runtime.block_on(sealcast::cli::run(*args)))
        }
        #[cfg(feature = "client")]
        Some(Command::Completions { shell }) => {
            use std::io::Write;
            // Written in one piece: the generator would panic where its reader has gone.
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), env!("CARGO_BIN_NAME"), &mut script);
            std::io::stdout().write_all(&script)?;
            Ok(ExitCode::SUCCESS)
        }
        #[cfg(not(feature = "server"))]
        None => {
            Arguments::command().print_help()?;
            Ok(ExitCode::FAILURE)
        }
    }
}

#[cfg(feature = "server")]
impl SettingsFile {
    /// The file named after the subcommand counts before the one named ahead of it.
    fn or(self, ahead: Self) -> Self {
        Self { config: self.config.or(ahead.config) }
    }
}

#[cfg(feature = "server")]
fn serve(file: SettingsFile) -> anyhow::Result<ExitCode> {
    sealcast::server::run(settings(file)?)?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(feature = "server")]
fn settings(file: SettingsFile) -> anyhow::Result<sealcast::config::Settings> {
    let settings = sealcast::config::Settings::load(file.config.as_deref())?;
    sealcast::telemetry::subscriber::install(settings.log.format, &settings.log.filter)?;
    Ok(settings)
}
