//! The program as an operator calls it.

use std::process::Stdio;

use serde_json::Value;

use super::super::support::broker::executable;
use super::super::support::within;

/// What a call came to.
pub struct Called {
    pub code: Option<i32>,
    pub table: String,
    pub complaint: String,
    pub json: Value,
}

impl Called {
    /// How often a kind was found.
    pub fn count(&self, kind: &str) -> u64 {
        let kinds = self.json["violations_by_kind"].as_array().unwrap();
        kinds.iter().filter(|found| found["kind"] == kind).map(|found| found["count"].as_u64().unwrap()).sum()
    }

    /// Entries that receivers refuse for a reason.
    pub fn refused(&self, reason: &str) -> u64 {
        let reasons = self.json["refused_by_receivers"].as_array().unwrap();
        reasons.iter().filter(|found| found["reason"] == reason).map(|found| found["count"].as_u64().unwrap()).sum()
    }

    /// That nothing is wrong.
    pub fn good(self) -> Self {
        assert_eq!((self.code, self.json["violation_count"].as_u64()), (Some(0), Some(0)), "{}", self.table);
        assert!(self.table.contains("violations: 0\n"), "{}", self.table);
        self
    }
}

/// Calls `sealcast verify` with settings from the environment.
pub async fn verify(settings: &[(&str, String)], arguments: &[&str]) -> Called {
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("report.json");
    let mut command = tokio::process::Command::new(executable());
    command.arg("verify").arg("--json").arg(&json).args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    command.envs(settings.iter().map(|(key, value)| (key, value)));
    let output = within("a verification", command.output()).await.unwrap();
    let json = std::fs::read(&json).map_or(Value::Null, |bytes| serde_json::from_slice(&bytes).unwrap());
    Called {
        code: output.status.code(),
        table: String::from_utf8(output.stdout).unwrap(),
        complaint: String::from_utf8(output.stderr).unwrap(),
        json,
    }
}

/// Verifies the database behind a connection string.
pub async fn verify_url(url: String, arguments: &[&str]) -> Called {
    verify(&[("SEALCAST__DATABASE__URL", url)], arguments).await
}
