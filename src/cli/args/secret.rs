//! The arguments of group secrets.

use clap::{Args, Subcommand};

use crate::protocol::ids::ChatId;

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum SecretCommand {
    /// List the secrets: name, when it was set, by whom, and what is to be known of it.
    #[command(after_help = "\
Examples:
  sealcast client secret list $CHAT
  echo \"$PASSWORD\" | sealcast client --json secret list $CHAT --password-stdin | jq -r .name")]
    List {
        /// The chat's id.
        chat: ChatId,
        #[command(flatten)]
        unlocking: Unlocking,
    },
    /// Print a secret's value.
    #[command(after_help = "\
Examples:
  sealcast client secret get $CHAT door-code
  echo \"$PASSWORD\" | sealcast client secret get $CHAT deploy-key --password-stdin > key.pem")]
    Get {
        /// The chat's id.
        chat: ChatId,
        /// Its name, or its id.
        name: String,
        #[command(flatten)]
        unlocking: Unlocking,
    },
    /// Make a secret, or give it another value: the rest of standard input, or what is typed unseen.
    #[command(after_help = "\
Examples:
  sealcast client secret set $CHAT door-code
  (echo \"$PASSWORD\"; cat key.pem) | sealcast client secret set $CHAT deploy-key --password-stdin

Everything behind the password's line is the value, but for one newline at its end.")]
    Set {
        /// The chat's id.
        chat: ChatId,
        /// Its name.
        name: String,
        #[command(flatten)]
        unlocking: Unlocking,
    },
    /// Print what was done with the secrets, the newest first: when, who, what, which.
    #[command(after_help = "\
Examples:
  sealcast client secret log $CHAT
  sealcast client --json secret log $CHAT | jq -r 'select(.action == \"read\") | .user_id'")]
    Log {
        /// The chat's id.
        chat: ChatId,
    },
    /// Delete a secret; only who set it last and managers may.
    #[command(after_help = "\
Examples:
  sealcast client secret delete $CHAT door-code")]
    Delete {
        /// The chat's id.
        chat: ChatId,
        /// Its name, or its id.
        name: String,
        #[command(flatten)]
        unlocking: Unlocking,
    },
}

/// How this account's user key is opened.
#[derive(Debug, Clone, Copy, Args)]
pub(in crate::cli) struct Unlocking {
    /// Take the password from the first line of standard input.
    #[arg(long)]
    pub(in crate::cli) password_stdin: bool,
    /// By the recovery code instead of the password.
    #[arg(long)]
    pub(in crate::cli) recovery_code: bool,
}
