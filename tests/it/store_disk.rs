//! A disk in memory that fails when told to, and remembers every write, so that a power cut can be made of it.

use std::io;
use std::sync::{Mutex, MutexGuard};

use redb::StorageBackend;

/// How a disk fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The medium is broken.
    Broken,
    /// There is no room.
    Full,
}

/// One change of the disk.
#[derive(Debug, Clone)]
pub(crate) enum Op {
    Write(u64, Vec<u8>),
    SetLen(u64),
    Sync,
}

#[derive(Debug, Default)]
struct State {
    bytes: Vec<u8>,
    log: Vec<Op>,
    n_ops: usize,
    /// Fails at this change, counted from the arming; `true` = and at all after it.
    armed: Option<(usize, Fault, bool)>,
    fired: bool,
}

/// The disk.
#[derive(Debug, Default)]
pub(crate) struct FaultDisk(Mutex<State>);

impl FaultDisk {
    pub(crate) fn with(bytes: Vec<u8>) -> Self {
        Self(Mutex::new(State { bytes, ..State::default() }))
    }
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }
    /// From now on the `n`th change fails (1 = the next), and if `forever` all after it.
    pub(crate) fn arm(&self, n: usize, fault: Fault, forever: bool) {
        let mut s = self.state();
        (s.n_ops, s.armed, s.fired) = (0, Some((n, fault, forever)), false);
    }
    /// From now on nothing fails.
    pub(crate) fn heal(&self) {
        self.state().armed = None;
    }
    /// Whether the fault came.
    pub(crate) fn fired(&self) -> bool {
        self.state().fired
    }
    /// What a killed process leaves: everything written, synced or not.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.state().bytes.clone()
    }
    /// Every change since the disk was made.
    pub(crate) fn log(&self) -> Vec<Op> {
        self.state().log.clone()
    }
    pub(crate) fn n_logged(&self) -> usize {
        self.state().log.len()
    }
    fn change(&self, op: Op) -> io::Result<()> {
        let mut s = self.state();
        s.n_ops += 1;
        if let Some((n, fault, forever)) = s.armed
            && (s.n_ops == n || (forever && s.n_ops > n))
        {
            s.fired = true;
            return Err(match fault {
                Fault::Broken => io::Error::from_raw_os_error(5),
                Fault::Full => io::Error::from(io::ErrorKind::StorageFull),
            });
        }
        apply(&mut s.bytes, &op);
        s.log.push(op);
        Ok(())
    }
}

/// Carries a change out.
pub(crate) fn apply(bytes: &mut Vec<u8>, op: &Op) {
    match op {
        Op::Write(offset, data) => {
            let end = *offset as usize + data.len();
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            bytes[*offset as usize..end].copy_from_slice(data);
        }
        Op::SetLen(len) => bytes.resize(*len as usize, 0),
        Op::Sync => {}
    }
}

impl StorageBackend for FaultDisk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state().bytes.len() as u64)
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let s = self.state();
        let end = offset as usize + out.len();
        let from = s.bytes.get(offset as usize..end).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(from);
        Ok(())
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(Op::SetLen(len))
    }
    fn sync_data(&self) -> io::Result<()> {
        self.change(Op::Sync)
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change(Op::Write(offset, data.to_vec()))
    }
}
