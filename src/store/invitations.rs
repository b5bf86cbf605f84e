//! Invitations: codes that let somebody register, a number of times and for a time.
//!
//! A code has 128 random bits, so its SHA-256 alone is kept: whoever reads the table can register nobody.

use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::Store;
use super::error::{Failure, StoreError};
use super::rows::get;
use super::transaction::Transaction;
use crate::protocol::error::{ErrorCode, Refusal};

/// Random bytes in a code.
const CODE_BYTES: usize = 16;

/// Characters of a code that is looked up at most: what is longer is none.
const CODE_LENGTH_MAX: usize = 64;

impl Store {
    /// Makes an invitation for so many registrations; gives its id, and the code that is shown this once.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn create_invitation(&self, uses: u32, lasts_s: u64) -> Result<(Uuid, String), Failure> {
        let code = new_code().ok_or(StoreError::Corrupt { what: "the system's randomness" })?;
        let uses = i32::try_from(uses).unwrap_or(i32::MAX);
        #[expect(clippy::cast_precision_loss, reason = "seconds of a life, far below 2^52")]
        let lasts_s = lasts_s as f64;
        let made = self.write("create_invitation", async |tx| {
            let insert = "INSERT INTO invitations (code_hash, uses_left, expires_at) \
                 VALUES ($1, $2, clock_timestamp() + make_interval(secs => $3)) \
                 RETURNING id";
            Ok(get::<Uuid>(&tx.query_one(insert, &[&hash(&code), &uses, &lasts_s]).await?, "id")?)
        });
        Ok((made.await?, code))
    }

    /// Forgets invitations that ran out a month ago.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn forget_invitations(&self) -> Result<(), Failure> {
        self.write("forget_invitations", async |tx| {
            let delete = "DELETE FROM invitations WHERE expires_at < statement_timestamp() - interval '30 days'";
            tx.execute(delete, &[]).await?;
            Ok(())
        })
        .await
    }

    /// Deletes an invitation; says whether it was there. Who has registered with it stays.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn revoke_invitation(&self, id: Uuid) -> Result<bool, Failure> {
        self.write("revoke_invitation", async |tx| {
            Ok(tx.execute("DELETE FROM invitations WHERE id = $1", &[&id]).await? > 0)
        })
        .await
    }
}

/// Refuses whoever has no code that is good now: looked at before anything else of a registration, so that its answer tells
/// strangers nothing of who is there.
pub(super) async fn require_good(tx: &Transaction<'_>, code: Option<&str>) -> Result<(), Failure> {
    let Some(code) = code else { return Err(needed().into()) };
    let good = "SELECT 1 FROM invitations WHERE code_hash = $1 AND uses_left > 0 AND expires_at > clock_timestamp()";
    if code.len() <= CODE_LENGTH_MAX && tx.query_opt(good, &[&hash(code)]).await?.is_some() {
        return Ok(());
    }
    Err(invalid().into())
}

/// Uses a code up once, in the transaction of its registration: of two at once for the last use one waits and finds none.
pub(super) async fn use_up(tx: &Transaction<'_>, code: Option<&str>) -> Result<(), Failure> {
    let Some(code) = code else { return Err(needed().into()) };
    let update = "UPDATE invitations SET uses_left = uses_left - 1 \
         WHERE code_hash = $1 AND uses_left > 0 AND expires_at > clock_timestamp()";
    if code.len() <= CODE_LENGTH_MAX && tx.execute(update, &[&hash(code)]).await? == 1 {
        return Ok(());
    }
    Err(invalid().into())
}

const fn needed() -> Refusal {
    Refusal::new(ErrorCode::InvitationNeeded, "registering takes the code of an invitation")
}

const fn invalid() -> Refusal {
    Refusal::new(ErrorCode::InvitationInvalid, "the code is none, used up or run out")
}

/// The refusal of every registration.
pub(super) const fn closed() -> Refusal {
    Refusal::new(ErrorCode::RegistrationClosed, "nobody can register here now")
}

/// What of a code is kept. Spaces around it and the hyphens in it are for people.
fn hash(code: &str) -> Vec<u8> {
    let plain: String = code.chars().filter(|sign| *sign != '-' && !sign.is_whitespace()).collect();
    Sha256::digest(plain.to_ascii_lowercase().as_bytes()).to_vec()
}

/// 128 random bits in hexadecimal digits, in groups of four; none when the system has no randomness to give.
fn new_code() -> Option<String> {
    let mut bytes = [0_u8; CODE_BYTES];
    getrandom::fill(&mut bytes).ok()?;
    let groups: Vec<String> =
        bytes.chunks(2).map(|pair| pair.iter().map(|byte| format!("{byte:02x}")).collect()).collect();
    Some(groups.join("-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_random_and_read_however_it_is_typed() {
        let (one, other) = (new_code().unwrap(), new_code().unwrap());
        assert_ne!(one, other);
        assert_eq!(one.replace('-', "").len(), CODE_BYTES * 2);
        assert_eq!(hash(&one), hash(&format!(" {} ", one.replace('-', "").to_uppercase())));
        assert_ne!(hash(&one), hash(&other));
    }
}
