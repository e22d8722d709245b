//! System V IPC and POSIX message queues (`linux/ipc.h`, `linux/sem.h`, `linux/shm.h`, `linux/msg.h`,
//! `linux/mqueue.h`).
#![expect(missing_docs, reason = "the names are Linux's own")]

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

flags! {
    /// Flags of `shmget(2)` and its relatives, above the nine bits of the mode.
    pub struct IpcFlags: u32 as "IPC_" {
        CREAT = 0o1000;
        EXCL = 0o2000;
        NOWAIT = 0o4000;
    }
}
/// The key that always makes a new object.
pub const IPC_PRIVATE: i32 = 0;

constants! {
    /// Commands of all kinds of objects.
    IPC_CMD_NAMES: i32 {
        IPC_RMID = 0;
        IPC_SET = 1;
        IPC_STAT = 2;
        IPC_INFO = 3;
    }
}
/// A flag of commands that old libraries set.
pub const IPC_64: i32 = 0x100;

constants! {
    /// Further commands of `shmctl(2)`.
    SHM_CMD_NAMES: i32 {
        SHM_LOCK = 11;
        SHM_UNLOCK = 12;
        SHM_STAT = 13;
        SHM_INFO = 14;
        SHM_STAT_ANY = 15;
    }
}
flags! {
    /// Flags of `shmat(2)` and `shmget(2)`.
    pub struct ShmFlags: u32 as "SHM_" {
        RDONLY = 0o10000;
        RND = 0o20000;
        REMAP = 0o40000;
        EXEC = 0o100000;
        HUGETLB = 0o4000;
        NORESERVE = 0o10000;
    }
}
/// Set in the mode of a segment that is destroyed at the last detach.
pub const SHM_DEST: u32 = 0o1000;
/// Set in the mode of a locked segment.
pub const SHM_LOCKED: u32 = 0o2000;

constants! {
    /// Further commands of `semctl(2)`.
    SEM_CMD_NAMES: i32 {
        GETPID = 11;
        GETVAL = 12;
        GETALL = 13;
        GETNCNT = 14;
        GETZCNT = 15;
        SETVAL = 16;
        SETALL = 17;
        SEM_STAT = 18;
        SEM_INFO = 19;
        SEM_STAT_ANY = 20;
    }
}
/// Undoes the operation at exit: a flag of [`Sembuf`].
pub const SEM_UNDO: i16 = 0x1000;

constants! {
    /// Further commands of `msgctl(2)`.
    MSG_CMD_NAMES: i32 {
        MSG_STAT = 11;
        MSG_INFO = 12;
        MSG_STAT_ANY = 13;
    }
}
flags! {
    /// Flags of `msgrcv(2)` beside `IPC_NOWAIT`.
    pub struct MsgrcvFlags: u32 as "MSG_" {
        NOERROR = 0o10000;
        EXCEPT = 0o20000;
        COPY = 0o40000;
    }
}

/// Corresponds to `struct ipc64_perm`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct IpcPerm {
    pub key: i32,
    pub uid: u32,
    pub gid: u32,
    pub cuid: u32,
    pub cgid: u32,
    pub mode: u32,
    pub seq: u16,
    pub pad0: [u16; 3],
    pub unused: [u64; 2],
}

/// Corresponds to `struct shmid64_ds`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct ShmidDs {
    pub shm_perm: IpcPerm,
    pub shm_segsz: u64,
    pub shm_atime: i64,
    pub shm_dtime: i64,
    pub shm_ctime: i64,
    pub shm_cpid: i32,
    pub shm_lpid: i32,
    pub shm_nattch: u64,
    pub unused: [u64; 2],
}

/// Corresponds to `struct shminfo64`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Shminfo {
    pub shmmax: u64,
    pub shmmin: u64,
    pub shmmni: u64,
    pub shmseg: u64,
    pub shmall: u64,
    pub unused: [u64; 4],
}

/// Corresponds to `struct shm_info`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct ShmInfo {
    pub used_ids: i32,
    pub pad0: u32,
    pub shm_tot: u64,
    pub shm_rss: u64,
    pub shm_swp: u64,
    pub swap_attempts: u64,
    pub swap_successes: u64,
}

/// Corresponds to `struct semid64_ds` on x86-64.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct SemidDs {
    pub sem_perm: IpcPerm,
    pub sem_otime: i64,
    pub unused0: u64,
    pub sem_ctime: i64,
    pub unused1: u64,
    pub sem_nsems: u64,
    pub unused2: [u64; 2],
}

/// Corresponds to `struct sembuf`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Sembuf {
    pub sem_num: u16,
    pub sem_op: i16,
    pub sem_flg: i16,
}

/// Corresponds to `struct seminfo`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Seminfo {
    pub semmap: i32,
    pub semmni: i32,
    pub semmns: i32,
    pub semmnu: i32,
    pub semmsl: i32,
    pub semopm: i32,
    pub semume: i32,
    pub semusz: i32,
    pub semvmx: i32,
    pub semaem: i32,
}

/// Corresponds to `struct msqid64_ds`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct MsqidDs {
    pub msg_perm: IpcPerm,
    pub msg_stime: i64,
    pub msg_rtime: i64,
    pub msg_ctime: i64,
    pub msg_cbytes: u64,
    pub msg_qnum: u64,
    pub msg_qbytes: u64,
    pub msg_lspid: i32,
    pub msg_lrpid: i32,
    pub unused: [u64; 2],
}

/// Corresponds to `struct msginfo`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Msginfo {
    pub msgpool: i32,
    pub msgmap: i32,
    pub msgmax: i32,
    pub msgmnb: i32,
    pub msgmni: i32,
    pub msgssz: i32,
    pub msgtql: i32,
    pub msgseg: u16,
    pub pad0: u16,
}

/// Corresponds to `struct mq_attr`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct MqAttr {
    pub mq_flags: i64,
    pub mq_maxmsg: i64,
    pub mq_msgsize: i64,
    pub mq_curmsgs: i64,
    pub reserved: [i64; 4],
}
