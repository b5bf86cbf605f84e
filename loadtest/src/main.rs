//! Loads a broker of Sealcast with real clients and real cryptography, and checks every promise on what they saw.
//!
//! Lives here: the command line and the exit code. `mixed` is the scenario, on `setup`, `device`, `talk`, `churn`,
//! `rule`, `older`, `broker` and `trial`; `recorder` makes the history, `check` judges it, `probe` and `hoard` are what a removed device would
//! try, `report` tells the result. Imports the client library and the protocol of `sealcast`, and its server only to
//! be the broker in a process of its own.

mod args;
mod broker;
mod check;
mod churn;
mod device;
mod history;
mod hoard;
mod mixed;
mod older;
mod probe;
mod recorder;
mod report;
mod rng;
mod rule;
mod setup;
mod talk;
mod trial;

use std::fs::File;
use std::io::{BufReader, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use sealcast::telemetry::subscriber::LogFormat;

use args::{Arguments, Command, MixedArgs};

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Broker => broker::serve().map(|()| true),
        Command::Mixed(args) => run_mixed(args),
        Command::Check { files } => run_check(&files),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "loadtest: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run_mixed(args: MixedArgs) -> anyhow::Result<bool> {
    if let Some(filter) = &args.client_log {
        sealcast::telemetry::subscriber::install(LogFormat::Text, filter)?;
    }
    let json = args.json.clone();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let report = runtime.block_on(mixed::run(args))?;
    std::io::stdout().write_all(report.table().as_bytes())?;
    if let Some(path) = json {
        report.write_json(&path)?;
    }
    Ok(report.failures().is_empty())
}

fn run_check(files: &[PathBuf]) -> anyhow::Result<bool> {
    let mut records = Vec::new();
    for path in files {
        let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
        records.extend(history::read(BufReader::new(file)).with_context(|| path.display().to_string())?);
    }
    let verdict = check::check(&records);
    std::io::stdout().write_all(report::verdict_table(&verdict).as_bytes())?;
    Ok(verdict.is_clean() && verdict.acked > 0)
}
