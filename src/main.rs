//! The command `sealcast`: arguments, settings, one call for each subcommand.

#[cfg(any(feature = "client", feature = "server"))]
use std::path::PathBuf;
use std::process::ExitCode;

#[cfg(any(feature = "client", not(feature = "server")))]
use clap::CommandFactory;
use clap::{Parser, Subcommand};

/// Many threads hand small buffers to each other: the system's allocator takes a tenth of the broker's time for it.
#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

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

/// What is verified, and where the result goes.
#[cfg(feature = "server")]
#[derive(Debug, clap::Args)]
struct VerifyArgs {
    #[command(flatten)]
    settings: SettingsFile,
    /// Violations to list; all are counted.
    #[arg(long, value_name = "N", default_value_t = 100)]
    list: usize,
    /// Where the result goes as JSON too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// What the operator wants, and how it is shown.
#[cfg(feature = "server")]
#[derive(Debug, clap::Args)]
struct AdminArgs {
    #[command(flatten)]
    settings: SettingsFile,
    /// Print JSON: an array of objects for a list, else an object.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: sealcast::server::admin::AdminCommand,
}

#[cfg(feature = "server")]
#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Print the settings that are in force, without passwords, or every mistake with its place.
    ///
    /// Reads the defaults, the file, and the environment, as the broker does, and the files of the certificate. Without
    /// --config it takes ./config.toml, where there is one. Exits with 0 if a broker could use them, 1 if not.
    Check(SettingsFile),
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve (the default).
    #[cfg(feature = "server")]
    Serve(SettingsFile),
    /// Bring the database's schema up to date, and stop.
    #[cfg(feature = "server")]
    Migrate(SettingsFile),
    /// Look at the settings.
    #[cfg(feature = "server")]
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Recompute what the database must keep, print counts, and list what is wrong.
    ///
    /// Reads alone, chat by chat, also beside a broker that serves: order, hashes and times of every log, the members,
    /// rights, recipients and epoch that it comes to, messages, keys and copies, users' chains, signatures, purged data.
    /// Exits with 0 if all of it holds, 1 if not, 2 if it could not be verified.
    #[cfg(feature = "server")]
    #[command(after_help = "\
Examples:
  sealcast verify                              # the private database, served or not
  sealcast verify --config FILE                # with the broker's settings
  SEALCAST__DATABASE__URL='host=127.0.0.1 user=sealcast dbname=restored' sealcast verify
  sealcast verify --list 1000 --json found.json && echo good")]
    Verify(VerifyArgs),
    /// See and do what an operator may: users, sessions, invitations, chats, storage.
    ///
    /// Works through the database, beside a broker that serves, which notices within a second or two, or without one.
    /// Cannot read what is sealed, make a key or sign for anybody; what it forces on a chat, the chat's members see.
    #[cfg(feature = "server")]
    #[command(after_help = "\
Examples:
  sealcast admin users list
  sealcast admin users suspend ada
  sealcast admin users delete ada --yes
  sealcast admin sessions disconnect ada
  sealcast admin invitations create --uses 5 --days 30
  sealcast admin --json chats list --by age --limit 10
  sealcast admin --config /etc/sealcast/config.toml storage")]
    Admin(AdminArgs),
    /// Chat from the terminal.
    #[cfg(feature = "client")]
    Client(Box<sealcast::cli::ClientArgs>),
    /// Print the manual page, or write those of all subcommands.
    #[cfg(feature = "client")]
    #[command(after_help = "\
Examples:
  sealcast man | man -l -
  sealcast man --folder /usr/local/share/man/man1")]
    Man {
        /// Where a page for each subcommand goes, instead of one page on standard output.
        #[arg(long, value_name = "FOLDER")]
        folder: Option<PathBuf>,
    },
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
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

fn complain(error: &anyhow::Error) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "sealcast: {error:#}");
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
        #[cfg(feature = "server")]
        Some(Command::Config(ConfigCommand::Check(file))) => check_config(file.or(arguments.settings)),
        #[cfg(feature = "server")]
        Some(Command::Verify(args)) => Ok(verify(args, arguments.settings).unwrap_or_else(|error| {
            complain(&error);
            ExitCode::from(NOT_VERIFIED)
        })),
        #[cfg(feature = "server")]
        Some(Command::Admin(args)) => admin(args, arguments.settings),
        #[cfg(feature = "client")]
        Some(Command::Client(args)) => {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
            Ok(runtime.block_on(sealcast::cli::run(*args)))
        }
        #[cfg(feature = "client")]
        Some(Command::Man { folder: Some(folder) }) => {
            use anyhow::Context;
            clap_mangen::generate_to(Arguments::command(), &folder)
                .with_context(|| format!("writing manual pages into {}", folder.display()))?;
            Ok(ExitCode::SUCCESS)
        }
        #[cfg(feature = "client")]
        Some(Command::Man { folder: None }) => {
            use std::io::Write;
            let mut page = Vec::new();
            clap_mangen::Man::new(Arguments::command()).render(&mut page)?;
            std::io::stdout().write_all(&page)?;
            Ok(ExitCode::SUCCESS)
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
    let path = file.config.clone();
    sealcast::server::run(settings(file)?, path.as_deref())?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(feature = "server")]
fn check_config(file: SettingsFile) -> anyhow::Result<ExitCode> {
    use std::io::Write;
    use std::path::Path;
    let beside = || Path::new("config.toml").is_file().then(|| PathBuf::from("config.toml"));
    let settings = sealcast::config::Settings::load(file.config.or_else(beside).as_deref())?;
    sealcast::server::check(&settings)?;
    std::io::stdout().write_all(settings.effective()?.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(feature = "server")]
fn admin(args: AdminArgs, ahead: SettingsFile) -> anyhow::Result<ExitCode> {
    use std::io::Write;

    use sealcast::server::admin::{as_json, as_text, run_admin};
    let outcome = run_admin(&settings(args.settings.or(ahead))?, &args.command)?;
    let text = if args.json { as_json(&outcome) } else { as_text(&outcome) };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// The exit code of `verify` when nothing can be said of the database: neither that it is good nor that it is not.
#[cfg(feature = "server")]
const NOT_VERIFIED: u8 = 2;

#[cfg(feature = "server")]
fn verify(args: VerifyArgs, ahead: SettingsFile) -> anyhow::Result<ExitCode> {
    use std::io::Write;

    use anyhow::Context;
    use sealcast::verify::print;
    let report = sealcast::server::run_verify(&settings(args.settings.or(ahead))?, args.list)?;
    if let Some(file) = &args.json {
        std::fs::write(file, print::json(&report)?).with_context(|| format!("writing {}", file.display()))?;
    }
    std::io::stdout().write_all(print::table(&report).as_bytes())?;
    Ok(if report.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[cfg(feature = "server")]
fn settings(file: SettingsFile) -> anyhow::Result<sealcast::config::Settings> {
    let settings = sealcast::config::Settings::load(file.config.as_deref())?;
    sealcast::telemetry::subscriber::install(settings.log.format, &settings.log.filter)?;
    Ok(settings)
}
