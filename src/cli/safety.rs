//! Shows the number that two users compare, to know that nobody stands between them.

use serde_json::json;

use super::error::CliError;
use super::paint::{Ink, Paint};
use super::print::Report;
use crate::client::{Client, ClientError};

/// Groups of digits on one line.
const GROUPS_PER_LINE: usize = 4;

/// The safety number of this user and another, and how it is compared.
pub(super) async fn report(client: &Client, username: &str, paint: Paint) -> Result<Vec<Report>, CliError> {
    let own = client.username();
    if own.as_str() == username {
        return Err(CliError::SafetyOfSelf);
    }
    client.live().await?;
    let user = client.lookup(username).await?;
    let number = client.safety_number(user.user_id).ok_or(ClientError::UnexpectedAnswer)?;
    let mut plain = format!("safety number of {own} and {username}:\n");
    for line in lines(&number) {
        plain.push_str(&format!("\n    {}", paint.on(Ink::Strong, &line)));
    }
    plain.push_str(&format!(
        "\n\n{username} sees the same number with `safety-number {own}`. Compare all of it in person or in a call.\n\
         If a digit differs, somebody stands between you: send nothing that matters."
    ));
    let object = json!({ "user_id": user.user_id, "username": username, "safety_number": number });
    Ok(vec![Report { plain, object }])
}

/// The groups of a number, on lines.
fn lines(number: &str) -> Vec<String> {
    let groups: Vec<&str> = number.split(' ').collect();
    groups.chunks(GROUPS_PER_LINE).map(|groups| groups.join("  ")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_stands_in_groups_that_can_be_read_out() {
        let number = (10_000..10_012).map(|group| group.to_string()).collect::<Vec<_>>().join(" ");
        assert_eq!(
            lines(&number),
            ["10000  10001  10002  10003", "10004  10005  10006  10007", "10008  10009  10010  10011"]
        );
    }
}
