//! Turns columns into the protocol's types and back.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_postgres::Row;
use uuid::Uuid;

use super::error::StoreError;
use crate::protocol::ids::Timestamp;

/// A protocol number as Postgres' bigint; protocol numbers are below 2^53, so none is lost.
pub fn bigint(value: impl Into<u64>) -> i64 {
    i64::try_from(value.into()).unwrap_or(i64::MAX)
}

/// Reads a column of one type.
///
/// # Errors
/// [`StoreError::Corrupt`] when it is of another.
pub fn get<'a, T: tokio_postgres::types::FromSql<'a>>(row: &'a Row, column: &'static str) -> Result<T, StoreError> {
    row.try_get(column).map_err(|_| StoreError::Corrupt { what: column })
}

/// Reads a bigint column as a protocol number.
///
/// # Errors
/// [`StoreError::Corrupt`] when it is negative or too large.
pub fn number<T: TryFrom<u64>>(row: &Row, column: &'static str) -> Result<T, StoreError> {
    let value: i64 = get(row, column)?;
    number_of(value, column)
}

/// Turns a bigint into a protocol number.
///
/// # Errors
/// [`StoreError::Corrupt`] when it is negative or too large.
pub fn number_of<T: TryFrom<u64>>(value: i64, what: &'static str) -> Result<T, StoreError> {
    let corrupt = || StoreError::Corrupt { what };
    T::try_from(u64::try_from(value).map_err(|_| corrupt())?).map_err(|_| corrupt())
}

/// Reads a bytea column of fixed length.
///
/// # Errors
/// [`StoreError::Corrupt`] when it has another length.
pub fn fixed<T: for<'a> TryFrom<&'a [u8]>>(row: &Row, column: &'static str) -> Result<T, StoreError> {
    let bytes: &[u8] = get(row, column)?;
    T::try_from(bytes).map_err(|_| StoreError::Corrupt { what: column })
}

/// Reads a bytea column that may be null.
///
/// # Errors
/// [`StoreError::Corrupt`] when it has another length.
pub fn fixed_or_null<T: for<'a> TryFrom<&'a [u8]>>(row: &Row, column: &'static str) -> Result<Option<T>, StoreError> {
    let bytes: Option<&[u8]> = get(row, column)?;
    bytes.map(|bytes| T::try_from(bytes).map_err(|_| StoreError::Corrupt { what: column })).transpose()
}

/// Reads a uuid column as one of the identifiers.
///
/// # Errors
/// [`StoreError::Corrupt`] when it is null.
pub fn id<T>(row: &Row, column: &'static str, wrap: impl FnOnce(Uuid) -> T) -> Result<T, StoreError> {
    get(row, column).map(wrap)
}

/// Reads a timestamptz column.
///
/// # Errors
/// [`StoreError::Corrupt`] when it is before 1970.
pub fn timestamp(row: &Row, column: &'static str) -> Result<Timestamp, StoreError> {
    timestamp_of(get(row, column)?, column)
}

/// Turns Postgres' time into the protocol's, exact to the microsecond.
///
/// # Errors
/// [`StoreError::Corrupt`] when it is before 1970.
pub fn timestamp_of(time: SystemTime, what: &'static str) -> Result<Timestamp, StoreError> {
    let since = time.duration_since(UNIX_EPOCH).map_err(|_| StoreError::Corrupt { what })?;
    let micros = u64::try_from(since.as_micros()).map_err(|_| StoreError::Corrupt { what })?;
    Timestamp::new(micros).map_err(|_| StoreError::Corrupt { what })
}

/// Turns the protocol's time into Postgres'.
pub fn system_time(time: Timestamp) -> SystemTime {
    UNIX_EPOCH + Duration::from_micros(time.get())
}

/// Writes a signed part of a log as it is stored: MessagePack with field names.
///
/// # Errors
/// [`StoreError::Corrupt`] cannot happen for this crate's types.
pub fn pack<T: Serialize>(value: &T, what: &'static str) -> Result<Vec<u8>, StoreError> {
    rmp_serde::to_vec_named(value).map_err(|_| StoreError::Corrupt { what })
}

/// Reads what [`pack`] wrote.
///
/// # Errors
/// [`StoreError::Corrupt`] when it is something else.
pub fn unpack<T: DeserializeOwned>(bytes: &[u8], what: &'static str) -> Result<T, StoreError> {
    rmp_serde::from_slice(bytes).map_err(|_| StoreError::Corrupt { what })
}
