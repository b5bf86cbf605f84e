//! Runs a short-lived program to its end, with a deadline.
//!
//! What lives here: the one way in which this module runs `id`, `initdb`, `kill` and the like. May be imported by the
//! other files of this module. Invariant: a program that was started is dead when the call returns or is dropped.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::timeout;

use super::error::EmbeddedError;

/// How much of a failed program's output an error keeps, in bytes.
const OUTPUT_BYTES_MAX: usize = 4096;

/// Runs a command, hands it `input` and returns what it printed, however it ended.
///
/// # Errors
///
/// [`EmbeddedError::Program`] when it cannot be run, [`EmbeddedError::ProgramTimeout`] after `limit`.
///
/// # Cancel safety
///
/// The program is killed when the future is dropped.
pub(super) async fn output(mut command: Command, input: &[u8], limit: Duration) -> Result<Output, EmbeddedError> {
    let program = PathBuf::from(command.as_std().get_program());
    let failed = |source| EmbeddedError::Program { program: program.clone(), source };
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().map_err(failed)?;
    let stdin = child.stdin.take();
    let run = async {
        if let Some(mut stdin) = stdin {
            // A program that ends without reading is judged by its exit status, not by the broken pipe.
            let _ = stdin.write_all(input).await;
        }
        child.wait_with_output().await
    };
    match timeout(limit, run).await {
        Ok(result) => result.map_err(failed),
        Err(_) => Err(EmbeddedError::ProgramTimeout { program: program.clone(), limit }),
    }
}

/// Runs a command that has to succeed and returns what it printed on its standard output, without outer white space.
///
/// # Errors
///
/// As [`output`], and [`EmbeddedError::ProgramFailed`] when it ends with anything but success.
///
/// # Cancel safety
///
/// As [`output`].
pub(super) async fn succeed(command: Command, input: &[u8], limit: Duration) -> Result<String, EmbeddedError> {
    let program = PathBuf::from(command.as_std().get_program());
    let output = output(command, input, limit).await?;
    if !output.status.success() {
        return Err(EmbeddedError::ProgramFailed { program, status: output.status, output: printed(&output) });
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Sends a signal, such as `INT`, to a process. A process that is already gone is no error.
///
/// # Errors
///
/// [`EmbeddedError::Program`] when the shell cannot be run.
///
/// # Cancel safety
///
/// The signal may or may not have been sent.
pub(super) async fn signal(pid: u32, name: &str) -> Result<(), EmbeddedError> {
    // The shell's own `kill` is on every system; the program of that name is not.
    let mut command = Command::new(Path::new("/bin/sh"));
    command.arg("-c").arg("kill -s \"$1\" \"$2\"").arg("sh").arg(name).arg(pid.to_string());
    output(command, b"", Duration::from_secs(5)).await.map(drop)
}

/// The end of what a program printed, errors last, in one piece of text.
fn printed(output: &Output) -> String {
    let mut text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if !text.is_empty() {
        text.push('\n');
    }
    text.push_str(String::from_utf8_lossy(&output.stderr).trim());
    let excess = text.len().saturating_sub(OUTPUT_BYTES_MAX);
    let start = text.ceil_char_boundary(excess);
    text.split_off(start)
}
