//! Serves a [`Disk`] over NBD, as much of it as a client needs that asks for an export and reads, writes and flushes.
//!
//! Source: the NBD project's `doc/proto.md`, fixed newstyle handshake and simple replies. One thread for each
//! connection, which answers one request after the other.

use std::io::{Error, ErrorKind, Read, Result, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use crate::disk::{Disk, IoError};

const MAGIC: u64 = 0x4e42_444d_4147_4943;
const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
const REQUEST_MAGIC: u32 = 0x2560_9513;
const REPLY_MAGIC: u32 = 0x6744_6698;

/// Fixed newstyle, and no zeroes after the export's size.
const HANDSHAKE_FLAGS: u16 = 0b11;
const OPTION_ABORT: u32 = 2;
const OPTION_INFO: u32 = 6;
const OPTION_GO: u32 = 7;
const REPLY_ACK: u32 = 1;
const REPLY_INFO: u32 = 3;
const REPLY_UNSUPPORTED: u32 = 0x8000_0001;
const INFO_EXPORT: u16 = 0;

/// Has flags, knows `FLUSH` and the flag "force unit access".
const EXPORT_FLAGS: u16 = 0b1101;

const READ: u16 = 0;
const WRITE: u16 = 1;
const DISCONNECT: u16 = 2;
const FLUSH: u16 = 3;
const FORCE_UNIT_ACCESS: u16 = 1;

/// What a client gets that asks for something else (`EINVAL`).
const INVALID: u32 = 22;
/// What it gets from a disk that fails (`EIO`).
const IO: u32 = 5;

/// The longest request that is served, in bytes.
const LENGTH_MAX: u32 = 32 << 20;

/// Serves a disk to whoever comes to a Unix socket.
pub(crate) fn listen(socket: &Path, disk: Disk) -> Result<()> {
    let listener = UnixListener::bind(socket)?;
    std::thread::Builder::new().name("disk".to_owned()).spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let disk = disk.clone();
            // A client that goes away ends its own connection alone.
            std::thread::spawn(move || serve(stream, &disk));
        }
    })?;
    Ok(())
}

fn serve(mut stream: UnixStream, disk: &Disk) -> Result<()> {
    if shake_hands(&mut stream, disk)? {
        while answer(&mut stream, disk)? {}
    }
    Ok(())
}

/// Says whether the client has come to its export.
fn shake_hands(stream: &mut UnixStream, disk: &Disk) -> Result<bool> {
    stream.write_all(&MAGIC.to_be_bytes())?;
    stream.write_all(&OPTION_MAGIC.to_be_bytes())?;
    stream.write_all(&HANDSHAKE_FLAGS.to_be_bytes())?;
    let _client_flags: [u8; 4] = take(stream)?;
    loop {
        if u64::from_be_bytes(take(stream)?) != OPTION_MAGIC {
            return Err(ErrorKind::InvalidData.into());
        }
        let option = u32::from_be_bytes(take(stream)?);
        let length = u32::from_be_bytes(take(stream)?);
        skip(stream, length)?;
        match option {
            OPTION_GO | OPTION_INFO => {
                let mut info = Vec::new();
                info.extend(INFO_EXPORT.to_be_bytes());
                info.extend(disk.size().to_be_bytes());
                info.extend(EXPORT_FLAGS.to_be_bytes());
                reply_option(stream, option, REPLY_INFO, &info)?;
                reply_option(stream, option, REPLY_ACK, &[])?;
                if option == OPTION_GO {
                    return Ok(true);
                }
            }
            OPTION_ABORT => {
                reply_option(stream, option, REPLY_ACK, &[])?;
                return Ok(false);
            }
            _ => reply_option(stream, option, REPLY_UNSUPPORTED, &[])?,
        }
    }
}

fn reply_option(stream: &mut UnixStream, option: u32, kind: u32, data: &[u8]) -> Result<()> {
    let mut reply = Vec::new();
    reply.extend(OPTION_REPLY_MAGIC.to_be_bytes());
    reply.extend(option.to_be_bytes());
    reply.extend(kind.to_be_bytes());
    reply.extend(u32::try_from(data.len()).map_err(Error::other)?.to_be_bytes());
    reply.extend(data);
    stream.write_all(&reply)
}

/// Serves one request; says whether there may be another.
fn answer(stream: &mut UnixStream, disk: &Disk) -> Result<bool> {
    if u32::from_be_bytes(take(stream)?) != REQUEST_MAGIC {
        return Err(ErrorKind::InvalidData.into());
    }
    let flags = u16::from_be_bytes(take(stream)?);
    let kind = u16::from_be_bytes(take(stream)?);
    let cookie: [u8; 8] = take(stream)?;
    let at = u64::from_be_bytes(take(stream)?);
    let length = u32::from_be_bytes(take(stream)?);
    let is_inside = length <= LENGTH_MAX && at.checked_add(length.into()).is_some_and(|end| end <= disk.size());
    let mut data = vec![0; usize::try_from(length.min(LENGTH_MAX)).map_err(Error::other)?];
    let done = match kind {
        DISCONNECT => return Ok(false),
        READ if is_inside => disk.read(at, &mut data),
        WRITE if is_inside => {
            stream.read_exact(&mut data)?;
            let written = disk.write(at, &data);
            data.clear();
            if flags & FORCE_UNIT_ACCESS == 0 { written } else { written.and_then(|()| disk.flush()) }
        }
        FLUSH => disk.flush(),
        _ => {
            if kind == WRITE {
                skip(stream, length)?;
            }
            return reply(stream, INVALID, cookie, &[]).map(|()| true);
        }
    };
    match done {
        Ok(()) => reply(stream, 0, cookie, &data)?,
        Err(IoError) => reply(stream, IO, cookie, &[])?,
    }
    Ok(true)
}

fn reply(stream: &mut UnixStream, error: u32, cookie: [u8; 8], data: &[u8]) -> Result<()> {
    let mut reply = Vec::with_capacity(16 + data.len());
    reply.extend(REPLY_MAGIC.to_be_bytes());
    reply.extend(error.to_be_bytes());
    reply.extend(cookie);
    reply.extend(data);
    stream.write_all(&reply)
}

fn take<const N: usize>(stream: &mut UnixStream) -> Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn skip(stream: &mut UnixStream, length: u32) -> Result<()> {
    std::io::copy(&mut stream.take(length.into()), &mut std::io::sink()).map(drop)
}
