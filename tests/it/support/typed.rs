//! Commands of the terminal client that are typed something: passwords and codes, line by line.

use std::io::Write;
use std::process::Stdio;

use super::within;
use crate::terminal::{Done, Profile};

/// Runs a command with lines of input.
pub async fn with_input(profile: &Profile, arguments: &[&str], input: &str) -> Done {
    let mut command = profile.command(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let input = input.to_owned();
    let run = tokio::task::spawn_blocking(move || {
        let mut child = command.spawn().unwrap();
        // One that has said no has closed its input.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        child.wait_with_output().unwrap()
    });
    let output = within("a command", run).await.unwrap();
    Done {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Runs what must succeed.
pub async fn ok(profile: &Profile, arguments: &[&str], input: &str) -> Done {
    let done = with_input(profile, arguments, input).await;
    assert_eq!(done.code, Some(0), "{arguments:?}: {}", done.stderr);
    done
}

/// Runs what must fail, perhaps beside news; gives what it says.
pub async fn fails_beside_news(profile: &Profile, arguments: &[&str], input: &str) -> String {
    let done = with_input(profile, arguments, input).await;
    assert_eq!(done.code, Some(1), "{arguments:?}: {}", done.stdout);
    done.stderr
}

/// Runs what must fail; gives its one line.
pub async fn fails(profile: &Profile, arguments: &[&str], input: &str) -> String {
    let said = fails_beside_news(profile, arguments, input).await;
    assert_eq!(said.lines().count(), 1, "{arguments:?}: one line, not {said:?}");
    said
}
