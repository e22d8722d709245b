//! The options that only unix sockets have.

use std::sync::atomic::Ordering;

use syscalls::abi::socket::{SO_PEEK_OFF, SO_PEERCRED, SO_PEERPIDFD, SOL_SOCKET, Ucred};
use syscalls::{Errno, SysResult};
use zerocopy::IntoBytes;

use super::UnixSocket;
use crate::task::CurrentTask;

impl UnixSocket {
    /// Returns the bytes of an option.
    pub(super) fn get_option(
        &self,
        task: &CurrentTask,
        level: i32,
        name: i32,
    ) -> SysResult<Vec<u8>> {
        if level != SOL_SOCKET {
            return Err(Errno::EOPNOTSUPP);
        }
        let sender = self.state.lock().peer_sender.clone();
        match name {
            SO_PEERCRED => {}
            SO_PEERPIDFD => {
                let fd = sender.ok_or(Errno::ENODATA)?.pidfd(task)?;
                return Ok(fd.to_ne_bytes().to_vec());
            }
            SO_PEEK_OFF => {
                let offset = self.options.peek_offset.load(Ordering::Relaxed);
                return Ok(offset.to_ne_bytes().to_vec());
            }
            _ => return Err(Errno::ENOPROTOOPT),
        }
        let nobody = Ucred { pid: 0, uid: u32::MAX, gid: u32::MAX };
        let creds = sender.map_or(nobody, |sender| sender.seen_by(task));
        Ok(creds.as_bytes().to_vec())
    }
}
