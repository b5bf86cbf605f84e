//! Loads a broker of Sealcast with real clients and real cryptography, and checks every promise on what they saw.
//!
//! Lives here: the command line and the exit code. `scenario` says what a run is made of, `run` is its steps, `load`
//! the clients and what they do, `nemesis` what is broken meanwhile, `ground` the broker and the Postgres that it all
//! stands on, `bench` how fast it is and `floor` what that is compared with, `restart` how all come back after one, `history` what happened, `check` the judgement of it, `report` the result. Imports the client library and
//! the protocol of `sealcast`, and its server only to be the broker in a process of its own.

mod args;
mod bench;
mod check;
mod floor;
mod ground;
mod history;
mod load;
mod nemesis;
mod report;
mod restart;
mod rng;
mod run;
mod scenario;

use std::fs::File;
use std::io::{BufReader, Write};
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use sealcast::telemetry::subscriber::LogFormat;

use args::{Arguments, CheckArgs, Command};
use scenario::Scenario;

/// As in the command `sealcast`, for this executable is also the broker that is measured.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Broker => ground::broker::serve().map(|()| true),
        Command::FloorRaw(args) => floor::serve_raw(&args).map(|()| true),
        Command::FloorPostgres(args) => floor::serve_postgres(args).map(|()| true),
        Command::Mixed(args) => run_load(args.scenario()),
        Command::Soak(args) => run_load(args.scenario()),
        Command::Torture(args) => run_load(args.scenario()),
        Command::Compare(args) => args.request().and_then(|request| bench::compare::run(&request)),
        Command::Idle(args) => bench::idle::run(args.connections, args.json.as_deref()).map(|()| true),
        Command::History(args) => bench::history::run(args.messages, args.pages, args.json.as_deref()).map(|()| true),
        Command::Rotate(args) => args.request().and_then(|request| bench::rotate::run(&request)),
        Command::Scale(args) => bench::scale::run(&args.request()),
        Command::Storm(args) => bench::storm::run(args.sessions, args.repeat, args.json.as_deref()),
        Command::Restart(args) => restart::run(args.sessions, args.repeat, args.json.as_deref()),
        Command::Check(args) => run_check(&args),
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

fn run_load(scenario: Scenario) -> anyhow::Result<bool> {
    if let Some(filter) = &scenario.outputs.client_log {
        sealcast::telemetry::subscriber::install(LogFormat::Text, filter)?;
    }
    let json = scenario.outputs.json.clone();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let report = runtime.block_on(run::run(scenario))?;
    std::io::stdout().write_all(report.table().as_bytes())?;
    if let Some(path) = json {
        report.write_json(&path)?;
    }
    Ok(report.failures().is_empty())
}

fn run_check(args: &CheckArgs) -> anyhow::Result<bool> {
    let mut records = Vec::new();
    for path in &args.files {
        let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
        records.extend(history::record::read(BufReader::new(file)).with_context(|| path.display().to_string())?);
    }
    if args.self_test {
        let trials = check::plant::self_test(&records);
        std::io::stdout().write_all(report::self_test_table(&trials).as_bytes())?;
        return Ok(trials.iter().all(check::plant::Trial::is_caught));
    }
    if let Some(damage) = args.plant {
        records =
            damage.planted(&records).with_context(|| format!("the history has no place for {}", damage.name()))?;
    }
    let verdict = check::check(&records);
    std::io::stdout().write_all(report::verdict_table(&verdict).as_bytes())?;
    Ok(verdict.is_clean() && verdict.acked > 0)
}
