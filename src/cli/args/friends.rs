//! The arguments of recovery by friends.

use clap::Subcommand;

use super::AccountArgs;
use crate::protocol::ids::RecoveryRequestId;

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum FriendsCommand {
    /// Split your recovery code among friends: any K of them together can recover your account.
    ///
    /// With the password a new recovery code is made and printed, once; with --recovery-code the one that you have is
    /// split. Friends share a chat with you and have a password. What was shared before is replaced.
    #[command(after_help = "\
Examples:
  sealcast client friends share --of 2 bob carol dave
  echo \"$PASSWORD\" | sealcast client friends share --of 2 bob carol dave --password-stdin > code.txt
  echo \"$CODE\" | sealcast client friends share --of 3 bob carol dave erin --recovery-code --password-stdin

K friends together can take your account over: choose friends who would not, and K so that they hardly could. Compare
safety numbers with each of them before. To take a share back from somebody, share anew under a new code.")]
    Share {
        /// How many of them are needed, 2 or more.
        #[arg(long, value_name = "K")]
        of: u32,
        /// Who, 16 at most.
        #[arg(required = true)]
        usernames: Vec<String>,
        /// Take the password from the first line of standard input.
        #[arg(long)]
        password_stdin: bool,
        /// Split the recovery code that you have, which is asked for instead of the password.
        #[arg(long)]
        recovery_code: bool,
    },
    /// Show with whom your recovery code is shared.
    #[command(after_help = "\
Examples:
  sealcast client friends list")]
    List,
    /// List open requests: for your own account, and of friends who need your help.
    #[command(after_help = "\
Examples:
  sealcast client friends requests
  sealcast client --json friends requests | jq -r .request_id

A line is: request, whose account, when it was asked, how many friends have helped, what you can do; parted by tabs.
A friend's request can be approved a day after this device has seen it first, so look as soon as they call.")]
    Requests,
    /// Help a friend: give your share to their request, whose code they have told you.
    #[command(after_help = "\
Examples:
  sealcast client friends requests
  sealcast client friends approve 01900000-0000-7000-8000-000000000000 1234-5678-9012-3456-7890-1234

Take the code in person, or in a call in which you know each other; never from a message. Ask them something that only they
know. Who talks you into this has a part of their account.")]
    Approve {
        /// The request, as `friends requests` shows it.
        request: RecoveryRequestId,
        /// The code that your friend told you.
        code: String,
        /// Take the password of your own account from the first line of standard input.
        #[arg(long)]
        password_stdin: bool,
    },
    /// Cancel requests for your own account that you do not know of.
    #[command(after_help = "\
Examples:
  sealcast client friends requests
  sealcast client friends cancel 01900000-0000-7000-8000-000000000000

The first time it takes this device alone; if another one follows within thirty days, your password too.")]
    Cancel {
        /// Which.
        #[arg(required = true)]
        requests: Vec<RecoveryRequestId>,
        /// Take the password, should it be needed, from the first line of standard input.
        #[arg(long)]
        password_stdin: bool,
    },
    /// Recover an account with the help of friends: prints the request and its code, waits for them, sets a new password.
    ///
    /// Call your friends and tell them the code; after a day each of them can approve. This command may be ended meanwhile,
    /// and goes on with the same profile. At the end it prints a new recovery code, once.
    #[command(after_help = "\
Examples:
  sealcast client --profile ~/ada-new friends recover --server https://chat.example ada

Your friends then run: sealcast client friends approve REQUEST CODE")]
    Recover {
        #[command(flatten)]
        account: AccountArgs,
        /// Take the new password from the first line of standard input.
        #[arg(long)]
        password_stdin: bool,
    },
}
