//! `/proc/config.gz`: what this kernel is built with, in the words of Linux's configuration.
//!
//! Programs look here before they try something: an option stands here exactly if its calls are
//! served. The compressed file has stored blocks only.

/// The options, one in each line, after `CONFIG_`.
const OPTIONS: &str = "\
CC_VERSION_TEXT=\"rustc\"
LOCALVERSION=\"\"
DEFAULT_HOSTNAME=\"(none)\"
SWAP is not set
SYSVIPC=y
SYSVIPC_SYSCTL=y
POSIX_MQUEUE=y
POSIX_MQUEUE_SYSCTL=y
WATCH_QUEUE is not set
CROSS_MEMORY_ATTACH=y
AUDIT is not set
GENERIC_CLOCKEVENTS=y
HIGH_RES_TIMERS=y
BPF_SYSCALL is not set
PREEMPT=y
PREEMPT_DYNAMIC=y
PREEMPT_RT is not set
BSD_PROCESS_ACCT is not set
IKCONFIG=y
IKCONFIG_PROC=y
NUMA_BALANCING is not set
CGROUPS=y
NAMESPACES=y
UTS_NS=y
IPC_NS=y
TIME_NS=y
USER_NS=y
PID_NS=y
NET_NS=y
CHECKPOINT_RESTORE=y
SCHED_AUTOGROUP is not set
SYSCTL=y
MULTIUSER=y
SYSFS_SYSCALL=y
POSIX_TIMERS=y
PRINTK=y
FUTEX=y
FUTEX_PI=y
EPOLL=y
SIGNALFD=y
TIMERFD=y
EVENTFD=y
SHMEM=y
AIO=y
IO_URING is not set
ADVISE_SYSCALLS=y
MEMBARRIER=y
KCMP=y
RSEQ=y
CACHESTAT_SYSCALL=y
KALLSYMS is not set
PERF_EVENTS is not set
PROFILING is not set
KEXEC is not set
64BIT=y
X86_64=y
X86=y
MMU=y
SMP=y
NR_CPUS=64
NUMA=y
HZ=250
IA32_EMULATION is not set
X86_X32_ABI is not set
MODIFY_LDT_SYSCALL is not set
X86_IOPL_IOPERM is not set
KVM is not set
SECCOMP=y
SECCOMP_FILTER=y
MODULES is not set
BLOCK is not set
BINFMT_ELF=y
ELFCORE=y
CORE_DUMP_DEFAULT_ELF_HEADERS=y
BINFMT_SCRIPT=y
BINFMT_MISC is not set
COREDUMP=y
TRANSPARENT_HUGEPAGE=y
KSM is not set
MEMORY_FAILURE is not set
USERFAULTFD is not set
SECRETMEM is not set
NET=y
PACKET=y
UNIX=y
AF_UNIX_OOB=y
INET=y
IPV6=y
TUN is not set
VETH is not set
DEVTMPFS=y
DEVMEM is not set
TTY=y
UNIX98_PTYS=y
LEGACY_PTYS is not set
EXT4_FS is not set
XFS_FS is not set
FS_POSIX_ACL=y
EXPORTFS=y
FILE_LOCKING=y
MANDATORY_FILE_LOCKING is not set
FSNOTIFY=y
DNOTIFY=y
INOTIFY_USER=y
FANOTIFY is not set
QUOTA is not set
AUTOFS_FS is not set
FUSE_FS is not set
OVERLAY_FS=y
PROC_FS=y
PROC_SYSCTL=y
PROC_PAGE_MONITOR=y
PROC_CHILDREN=y
SYSFS=y
TMPFS=y
TMPFS_POSIX_ACL=y
TMPFS_XATTR=y
HUGETLBFS is not set
MEMFD_CREATE=y
KEYS=y
PERSISTENT_KEYRINGS is not set
BIG_KEYS=y
TRUSTED_KEYS is not set
ENCRYPTED_KEYS is not set
SECURITY is not set
SECURITY_LANDLOCK is not set
CRYPTO is not set
DEBUG_FS is not set
FTRACE is not set
";

/// The longest stored block.
const MAX_BLOCK: usize = 0xFFFF;

/// Returns the content of `/proc/config.gz`.
pub(super) fn compressed() -> Vec<u8> {
    gzip(text().as_bytes())
}

fn text() -> String {
    let mut out = String::from("#\n# Linux/x86 Kernel Configuration\n#\n");
    for line in OPTIONS.lines() {
        let is_unset = line.ends_with(" is not set");
        out.push_str(if is_unset { "# CONFIG_" } else { "CONFIG_" });
        out.push_str(line);
        out.push('\n');
    }
    out
}

/// Puts a text into the container format of gzip (RFC 1952), in stored blocks (RFC 1951, 3.2.4).
fn gzip(text: &[u8]) -> Vec<u8> {
    // Deflate, no flags, no time, no hints, Unix.
    let mut out = vec![0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 0, 3];
    let mut blocks = text.chunks(MAX_BLOCK).peekable();
    while let Some(block) = blocks.next() {
        out.push(u8::from(blocks.peek().is_none()));
        let n = u16::try_from(block.len()).unwrap_or(u16::MAX);
        out.extend_from_slice(&n.to_le_bytes());
        out.extend_from_slice(&(!n).to_le_bytes());
        out.extend_from_slice(block);
    }
    out.extend_from_slice(&crc32(text).to_le_bytes());
    out.extend_from_slice(&u32::try_from(text.len()).unwrap_or(0).to_le_bytes());
    out
}

/// The check sum of gzip.
fn crc32(text: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in text {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ if crc & 1 == 1 { 0xEDB8_8320 } else { 0 };
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::{crc32, gzip, text};

    #[test]
    fn crc_of_the_check_text_is_the_standards() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
    }

    #[test]
    fn gzip_of_a_short_text_is_one_final_block() {
        let made = gzip(b"ab");
        assert_eq!(made.get(10..17), Some(&[1, 2, 0, 0xFD, 0xFF, b'a', b'b'][..]));
        assert_eq!(made.get(21..), Some(&[2, 0, 0, 0][..]));
    }

    #[test]
    fn every_line_is_an_option_or_a_comment() {
        assert!(text().lines().all(|line| line.starts_with("CONFIG_") || line.starts_with('#')));
    }
}
