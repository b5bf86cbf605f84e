//! One direction of one connection.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};

use crate::Path;
use crate::stream::{Reader, Writer};

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Requests,
    Answers,
}

/// How a direction of a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// By one of its sides.
    Closed,
    /// By the proxy, after so many bytes.
    CutShort,
}

/// Bytes that are read at once.
const PIECE: usize = 16 * 1024;

/// Pieces on the way while a path delays.
const PIECES_ON_THE_WAY: usize = 256;

/// How long a path that limits the rate waits between two pieces.
const RATE_INTERVAL: Duration = Duration::from_millis(100);

struct Piece {
    bytes: Vec<u8>,
    read_at: Instant,
}

/// Carries bytes until one end closes. What was read while the path is held stays on the way.
pub(crate) async fn carry(
    mut from: Reader,
    mut to: Writer,
    direction: Direction,
    mut path: watch::Receiver<Path>,
) -> End {
    let (read, mut pieces) = mpsc::channel::<Piece>(PIECES_ON_THE_WAY);
    let mut held = path.clone();
    let reading = async move {
        let mut bytes = vec![0; PIECE];
        loop {
            // Held before reading too, so that the sender feels a full socket.
            if held.wait_for(|path| !is_held(*path, direction)).await.is_err() {
                return;
            }
            let Ok(count @ 1..) = from.read(&mut bytes).await else { return };
            let piece = Piece { bytes: bytes.iter().take(count).copied().collect(), read_at: Instant::now() };
            if read.send(piece).await.is_err() {
                return;
            }
        }
    };
    let writing = async {
        let mut left = None;
        while let Some(piece) = pieces.recv().await {
            match write(&mut to, piece, direction, &mut path, &mut left).await {
                Ok(None) => {}
                Ok(Some(end)) => return end,
                Err(_) => return End::Closed,
            }
        }
        let _ = to.shutdown().await;
        End::Closed
    };
    // The reader's end shows as the end of the pieces, once what it read is written.
    let reading = async {
        reading.await;
        std::future::pending().await
    };
    tokio::select! {
        end = writing => end,
        never = reading => never,
    }
}

const fn is_held(path: Path, direction: Direction) -> bool {
    match path {
        Path::Hold => true,
        Path::HoldAnswers => matches!(direction, Direction::Answers),
        Path::HoldRequests => matches!(direction, Direction::Requests),
        _ => false,
    }
}

/// Writes one piece in the manner of the path; gives the connection's end when the path makes it. An error is its end too.
async fn write(
    to: &mut Writer,
    piece: Piece,
    direction: Direction,
    path: &mut watch::Receiver<Path>,
    left: &mut Option<u64>,
) -> std::io::Result<Option<End>> {
    let closed = |_| std::io::Error::from(std::io::ErrorKind::BrokenPipe);
    path.wait_for(|path| !is_held(*path, direction)).await.map_err(closed)?;
    let now = *path.borrow();
    if !matches!(now, Path::CutAfter(_)) {
        *left = None;
    }
    match now {
        Path::Delay(delay) => {
            sleep_until(piece.read_at + delay).await;
            to.write_all(&piece.bytes).await?;
        }
        Path::Rate(bytes_per_s) => {
            let at_once = usize::try_from(bytes_per_s / 10).unwrap_or(usize::MAX).max(1);
            let mut parts = piece.bytes.chunks(at_once);
            for part in parts.by_ref() {
                to.write_all(part).await?;
                sleep(RATE_INTERVAL).await;
                // A path that is no longer slow is not to crawl to the end of a piece.
                if *path.borrow() != now {
                    break;
                }
            }
            for part in parts {
                to.write_all(part).await?;
            }
        }
        Path::ByteByByte => {
            for byte in piece.bytes.chunks(1) {
                to.write_all(byte).await?;
                tokio::task::yield_now().await;
            }
        }
        Path::CutAfter(bytes) if direction == Direction::Answers => {
            let left = left.get_or_insert(bytes);
            let pass = usize::try_from(*left).unwrap_or(usize::MAX).min(piece.bytes.len());
            to.write_all(piece.bytes.get(..pass).unwrap_or_default()).await?;
            *left = left.saturating_sub(pass as u64);
            if *left == 0 {
                return Ok(Some(End::CutShort));
            }
        }
        _ => to.write_all(&piece.bytes).await?,
    }
    Ok(None)
}
