//! A disk in memory that knows what was flushed: it fails, hangs, and loses its power.
//!
//! Lives here: [`Disk`], its content and its health. It is served over NBD by `nbd`, so that `nbdfuse` can make a file
//! of it which a loop device mounts. Invariant: a flush that was answered has made durable every write answered
//! before it; of what was written after it any part may outlive a cut.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// What is written at once, in bytes.
const BLOCK: usize = 4096;

/// What a power cut does not tear, in bytes.
const SECTOR: usize = 512;

type Block = Box<[u8; BLOCK]>;

/// What a disk does with requests, those that wait included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Health {
    /// It serves them.
    #[default]
    Good,
    /// It answers each write and each flush with an I/O error.
    Failing,
    /// It answers no write and no flush.
    Hanging,
    /// It has no power: each request is an error.
    Off,
}

/// A disk; cheap to clone.
#[derive(Debug, Clone)]
pub struct Disk(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    size: u64,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    health: Health,
    /// What outlives a cut.
    flushed: HashMap<u64, Block>,
    /// What was written since.
    written: BTreeMap<u64, Block>,
    waiting: usize,
}

/// The disk did not do it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IoError;

impl Disk {
    /// An empty disk of so many bytes, served at a Unix socket for as long as the process lives.
    ///
    /// # Errors
    /// What the system says of the socket.
    pub fn serve(size: u64, socket: &Path) -> std::io::Result<Self> {
        let shared = Shared { size, state: Mutex::default(), changed: Condvar::new() };
        let disk = Self(Arc::new(shared));
        crate::nbd::listen(socket, disk.clone())?;
        Ok(disk)
    }

    /// Sets its health. What waits is served by the new one.
    pub fn set(&self, health: Health) {
        self.lock().health = health;
        self.0.changed.notify_all();
    }

    /// Cuts the power: every request fails from now on. Of what was not flushed some blocks are kept, some are lost and
    /// some are torn, as `seed` says; gives how many they are.
    pub fn cut(&self, seed: u64) -> usize {
        let mut state = self.lock();
        state.health = Health::Off;
        let mut chance = Chance(seed | 1);
        let written = std::mem::take(&mut state.written);
        let count = written.len();
        for (at, new) in written {
            let sectors = match chance.next() % 8 {
                0..4 => 0,
                4..7 => BLOCK / SECTOR,
                _ => usize::try_from(chance.next() % 8).unwrap_or(0),
            };
            if sectors > 0 {
                let old = state.flushed.entry(at).or_insert_with(empty);
                for (old, new) in old.iter_mut().zip(new.iter()).take(sectors * SECTOR) {
                    *old = *new;
                }
            }
        }
        self.0.changed.notify_all();
        count
    }

    /// Requests that wait because the disk hangs.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.lock().waiting
    }

    pub(crate) fn size(&self) -> u64 {
        self.0.size
    }

    pub(crate) fn read(&self, at: u64, out: &mut [u8]) -> Result<(), IoError> {
        let state = self.lock();
        if state.health == Health::Off {
            return Err(IoError);
        }
        for piece in pieces(at, out.len()) {
            let Some(out) = out.get_mut(piece.outer.clone()) else { return Err(IoError) };
            let block = state.written.get(&piece.block).or_else(|| state.flushed.get(&piece.block));
            match block.and_then(|block| block.get(piece.inner.clone())) {
                Some(bytes) => out.copy_from_slice(bytes),
                None => out.fill(0),
            }
        }
        Ok(())
    }

    pub(crate) fn write(&self, at: u64, bytes: &[u8]) -> Result<(), IoError> {
        let mut state = self.healthy()?;
        let State { flushed, written, .. } = &mut *state;
        for piece in pieces(at, bytes.len()) {
            let old = || flushed.get(&piece.block).cloned().unwrap_or_else(empty);
            let block = written.entry(piece.block).or_insert_with(old);
            let (Some(to), Some(from)) = (block.get_mut(piece.inner), bytes.get(piece.outer)) else {
                return Err(IoError);
            };
            to.copy_from_slice(from);
        }
        Ok(())
    }

    pub(crate) fn flush(&self) -> Result<(), IoError> {
        let mut state = self.healthy()?;
        let written = std::mem::take(&mut state.written);
        state.flushed.extend(written);
        Ok(())
    }

    /// Waits while the disk hangs.
    fn healthy(&self) -> Result<MutexGuard<'_, State>, IoError> {
        let mut state = self.lock();
        while state.health == Health::Hanging {
            state.waiting += 1;
            state = self.0.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.waiting -= 1;
        }
        if state.health == Health::Good { Ok(state) } else { Err(IoError) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The part of a request that lies in one block.
struct Piece {
    block: u64,
    inner: std::ops::Range<usize>,
    outer: std::ops::Range<usize>,
}

fn pieces(at: u64, length: usize) -> impl Iterator<Item = Piece> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done >= length {
            return None;
        }
        let place = at + done as u64;
        let start = usize::try_from(place % BLOCK as u64).unwrap_or(0);
        let count = (BLOCK - start).min(length - done);
        let piece = Piece { block: place / BLOCK as u64, inner: start..start + count, outer: done..done + count };
        done += count;
        Some(piece)
    })
}

fn empty() -> Block {
    Box::new([0; BLOCK])
}

/// Numbers that a seed makes again (xorshift).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk() -> Disk {
        Disk(Arc::new(Shared { size: 1 << 20, state: Mutex::default(), changed: Condvar::new() }))
    }

    fn read(disk: &Disk, at: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![9; length];
        disk.read(at, &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn what_was_flushed_outlives_every_cut_and_what_was_not_is_lost_torn_or_kept() {
        let (mut lost, mut torn, mut kept) = (0, 0, 0);
        for seed in 0..200 {
            let disk = disk();
            disk.write(100, &[1; 5000]).unwrap();
            disk.flush().unwrap();
            disk.write(8192, &[2; BLOCK]).unwrap();
            assert_eq!(read(&disk, 99, 3), [0, 1, 1]);
            assert_eq!(read(&disk, 8191, 2), [0, 2]);
            disk.cut(seed * 7919);
            assert!(disk.write(0, &[1]).is_err() && disk.flush().is_err() && disk.read(0, &mut [0]).is_err());
            disk.set(Health::Good);
            assert_eq!(read(&disk, 100, 5000), [1; 5000]);
            match read(&disk, 8192, BLOCK).iter().filter(|byte| **byte == 2).count() {
                0 => lost += 1,
                BLOCK => kept += 1,
                some => {
                    assert_eq!(some % SECTOR, 0);
                    torn += 1;
                }
            }
        }
        assert!(lost > 20 && torn > 5 && kept > 20, "{lost} {torn} {kept}");
    }

    #[test]
    fn a_disk_that_hangs_answers_when_it_is_well_again() {
        let disk = disk();
        disk.set(Health::Hanging);
        let other = disk.clone();
        let writer = std::thread::spawn(move || other.write(0, &[5]));
        while disk.waiting() == 0 {
            std::thread::yield_now();
        }
        assert_eq!(read(&disk, 0, 1), [0]);
        disk.set(Health::Good);
        writer.join().unwrap().unwrap();
        assert_eq!(read(&disk, 0, 1), [5]);
        disk.set(Health::Failing);
        assert_eq!(disk.flush(), Err(IoError));
    }
}
