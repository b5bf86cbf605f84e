//! Says what is measured: a file of `scenarios/` for each.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use serde::Deserialize;

/// The scenarios that come with the program.
const BUILT_IN: [(&str, &str); 3] = [
    ("fanout", include_str!("../../scenarios/fanout.toml")),
    ("many-chats", include_str!("../../scenarios/many-chats.toml")),
    ("latency", include_str!("../../scenarios/latency.toml")),
];

/// Sessions of a chat that the generator can be.
const SESSIONS_MAX: usize = 10_000;

/// What is measured.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Plan {
    pub(crate) name: String,
    pub(crate) chats: usize,
    /// Members of each chat, with one connected session each.
    pub(crate) sessions_per_chat: usize,
    /// Those of them who send.
    pub(crate) senders_per_chat: usize,
    /// Messages of a sender that may wait for their answer.
    pub(crate) window: usize,
    /// Messages in a second in all, by a plan; 0 is as fast as answers come.
    pub(crate) rate: u32,
    /// Bytes of a text.
    pub(crate) body_bytes: usize,
    /// Messages of each sender that are sealed in advance, for each second of the run. A run in which a sender comes to
    /// its end says so.
    pub(crate) sealed_per_sender_and_s: usize,
    /// Before measuring.
    pub(crate) warm_up_s: f64,
    /// Measured, unless the command line says otherwise.
    pub(crate) seconds: f64,
    /// Of so many messages one is opened, by each session that looks at its clock.
    pub(crate) opened_one_in: usize,
    /// Of so many sessions one looks at its clock for every message.
    pub(crate) timed_one_in: usize,
    /// When messages are sealed.
    #[serde(default)]
    pub(crate) crypto: Crypto,
}

/// When messages are sealed, and how many of them are opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Crypto {
    /// Sealed and signed before the clock runs; one in many is opened.
    #[default]
    Replay,
    /// Sealed and signed when it is sent; each session verifies and opens each.
    Full,
}

impl Plan {
    /// One that comes with the program, or a file.
    pub(crate) fn load(name: &str) -> anyhow::Result<Self> {
        let text = match BUILT_IN.iter().find(|(known, _)| *known == name) {
            Some((_, text)) => (*text).to_owned(),
            None => std::fs::read_to_string(Path::new(name)).with_context(|| {
                let names: Vec<&str> = BUILT_IN.iter().map(|(name, _)| *name).collect();
                format!("{name} is no scenario ({}) and no file", names.join(", "))
            })?,
        };
        let plan: Self = toml::from_str(&text).with_context(|| format!("reading the scenario {name}"))?;
        plan.check().with_context(|| format!("the scenario {name}"))?;
        Ok(plan)
    }

    fn check(&self) -> anyhow::Result<()> {
        let least = [
            ("chats", self.chats, 1),
            ("sessions_per_chat", self.sessions_per_chat, 1),
            ("senders_per_chat", self.senders_per_chat, 1),
            ("window", self.window, 1),
            ("sealed_per_sender_and_s", self.sealed_per_sender_and_s, 1),
            ("opened_one_in", self.opened_one_in, 1),
            ("timed_one_in", self.timed_one_in, 1),
        ];
        for (name, value, least) in least {
            if value < least {
                bail!("{name} must be at least {least}");
            }
        }
        if self.senders_per_chat > self.sessions_per_chat {
            bail!("senders_per_chat must be at most sessions_per_chat");
        }
        if self.sessions_per_chat > SESSIONS_MAX {
            bail!("sessions_per_chat must be at most {SESSIONS_MAX}");
        }
        if !self.warm_up_s.is_finite() || !self.seconds.is_finite() || self.warm_up_s < 0.0 || self.seconds <= 0.0 {
            bail!("warm_up_s must not be negative, and seconds must be more than 0");
        }
        Ok(())
    }

    /// The same with all the cryptography at its time.
    pub(crate) fn with_crypto(self, crypto: Crypto) -> Self {
        match crypto {
            Crypto::Replay => self,
            Crypto::Full => Self { crypto, opened_one_in: 1, timed_one_in: 1, ..self },
        }
    }

    /// Messages to be sealed for each sender.
    pub(crate) fn sealed_per_sender(&self) -> usize {
        self.sealed_per_sender_and_s
            * usize::try_from((self.warm_up() + self.measured()).as_secs() + 1).unwrap_or(usize::MAX)
    }

    pub(crate) fn warm_up(&self) -> Duration {
        Duration::from_secs_f64(self.warm_up_s)
    }

    pub(crate) fn measured(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_scenarios_are_read_and_mistakes_are_named() {
        for (name, text) in BUILT_IN {
            assert_eq!(Plan::load(name).unwrap().name, name);
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("scenario.toml");
            for (from, to) in [
                ("window = ", "windows = "),
                ("chats = ", "chats = -"),
                ("senders_per_chat = ", "senders_per_chat = 999"),
            ] {
                std::fs::write(&path, text.replacen(from, to, 1)).unwrap();
                assert!(Plan::load(&path.to_string_lossy()).is_err(), "{name} with {to}");
            }
        }
        assert!(Plan::load("no-such").unwrap_err().to_string().contains("fanout"));
    }
}
