//! Sizes and offsets of structures, against the `libc` crate where it has the kernel's layout and
//! against numbers from the kernel's headers where it has its own.
#![expect(clippy::tests_outside_test_module, reason = "the whole crate is tests")]

use std::mem::{offset_of, size_of};

use syscalls::abi::signal::Siginfo;
use syscalls::abi::{
    capability, clone, elf, fs, futex, inotify, ioctl, ipc, mm, mount, poll, prctl, resource, rseq,
    sched, signal, socket, time, uts,
};
use syscalls::arch::x86_64::{Regs, sigframe};
use zerocopy::IntoBytes;

/// Compares the sizes of two structures and the offsets of members; `a = b` is one that has
/// another name in libc.
macro_rules! same {
    ($($ours:ty = $theirs:ty { $($field:ident $(= $their_field:ident)?),* $(,)? })*) => {$(
        assert_eq!(size_of::<$ours>(), size_of::<$theirs>(), "size of {}", stringify!($ours));
        $(assert_eq!(
            offset_of!($ours, $field),
            same!(@offset $theirs, $field $(, $their_field)?),
            "{}.{}", stringify!($ours), stringify!($field)
        );)*
    )*};
    (@offset $theirs:ty, $field:ident) => { offset_of!($theirs, $field) };
    (@offset $theirs:ty, $field:ident, $their_field:ident) => {
        offset_of!($theirs, $their_field)
    };
}

/// Compares the size of a structure and the offsets of members with numbers.
macro_rules! kernel {
    ($($ours:ty = $size:literal { $($field:ident = $offset:literal),* $(,)? })*) => {$(
        assert_eq!(size_of::<$ours>(), $size, "size of {}", stringify!($ours));
        $(assert_eq!(
            offset_of!($ours, $field), $offset,
            "{}.{}", stringify!($ours), stringify!($field)
        );)*
    )*};
}

#[test]
fn file_structures_have_the_layout_of_libc() {
    same! {
        fs::Stat = libc::stat {
            st_dev, st_ino, st_nlink, st_mode, st_uid, st_gid, st_rdev, st_size, st_blksize,
            st_blocks, st_atime, st_mtime, st_ctime,
        }
        fs::Statx = libc::statx {
            stx_mask, stx_blksize, stx_attributes, stx_nlink, stx_uid, stx_gid, stx_mode, stx_ino,
            stx_size, stx_blocks, stx_attributes_mask, stx_atime, stx_btime, stx_ctime, stx_mtime,
            stx_rdev_major, stx_rdev_minor, stx_dev_major, stx_dev_minor, stx_mnt_id,
            stx_dio_mem_align, stx_dio_offset_align,
        }
        fs::StatxTimestamp = libc::statx_timestamp { tv_sec, tv_nsec }
        fs::Statfs = libc::statfs {
            f_type, f_bsize, f_blocks, f_bfree, f_bavail, f_files, f_ffree, f_fsid, f_namelen,
            f_frsize, f_flags,
        }
        fs::Flock = libc::flock { l_type, l_whence, l_start, l_len, l_pid }
        fs::OpenHow = libc::open_how { flags, mode, resolve }
        fs::Utimbuf = libc::utimbuf { actime, modtime }
        inotify::InotifyEvent = libc::inotify_event { wd, mask, cookie, len }
        mount::MountAttr = libc::mount_attr { attr_set, attr_clr, propagation, userns_fd }
        ioctl::Winsize = libc::winsize { ws_row, ws_col, ws_xpixel, ws_ypixel }
        ioctl::Termios2 = libc::termios2 {
            c_iflag, c_oflag, c_cflag, c_lflag, c_line, c_cc, c_ispeed, c_ospeed,
        }
        poll::Pollfd = libc::pollfd { fd, events, revents }
        poll::EpollEvent = libc::epoll_event { events, data = u64 }
    }
    kernel! {
        fs::FOwnerEx = 8 { kind = 0, pid = 4 }
        fs::FileHandle = 8 { handle_bytes = 0, handle_type = 4 }
        ioctl::Termios = 36 { c_line = 16, c_cc = 17 }
        ioctl::Termio = 18 { c_line = 8, c_cc = 9 }
        ioctl::FileCloneRange = 32 { src_offset = 8, dest_offset = 24 }
        mm::CachestatRange = 16 { len = 8 }
        mm::Cachestat = 40 { nr_recently_evicted = 32 }
    }
    assert_eq!(offset_of!(libc::dirent64, d_name), fs::DIRENT64_NAME_OFFSET);
    assert_eq!(offset_of!(fs::Dirent64, d_name), fs::DIRENT64_NAME_OFFSET);
    assert_eq!(offset_of!(fs::Dirent64, d_type), offset_of!(libc::dirent64, d_type));
    assert_eq!(offset_of!(fs::Dirent64, d_reclen), offset_of!(libc::dirent64, d_reclen));
}

#[test]
fn device_numbers_are_those_of_libc() {
    for (major, minor) in [(0, 0), (1, 3), (136, 70_000), (5000, 1), (u32::MAX, u32::MAX)] {
        let dev = libc::makedev(major, minor);
        assert_eq!(fs::makedev(major, minor), dev);
        assert_eq!((fs::major(dev), fs::minor(dev)), (libc::major(dev), libc::minor(dev)));
    }
}

#[test]
fn time_and_resource_structures_have_the_layout_of_libc() {
    same! {
        time::Timespec = libc::timespec { tv_sec, tv_nsec }
        time::Timeval = libc::timeval { tv_sec, tv_usec }
        time::Itimerspec = libc::itimerspec { it_interval, it_value }
        time::Itimerval = libc::itimerval { it_interval, it_value }
        time::Tms = libc::tms { tms_utime, tms_stime, tms_cutime, tms_cstime }
        resource::Rlimit = libc::rlimit64 { rlim_cur, rlim_max }
        uts::Utsname = libc::utsname { sysname, nodename, release, version, machine, domainname }
    }
    kernel! {
        time::Timezone = 8 { tz_dsttime = 4 }
        time::Timex = 208 { offset = 8, status = 40, time = 72, stabil = 120, tai = 160 }
        resource::Rusage = 144 { ru_stime = 16, ru_maxrss = 32, ru_nivcsw = 136 }
        uts::Sysinfo = 112 {
            loads = 8, totalram = 32, procs = 80, totalhigh = 88, freehigh = 96, mem_unit = 104,
        }
        sched::SchedParam = 4 {}
        sched::SchedAttr = 56 { sched_flags = 8, sched_nice = 16, sched_runtime = 24, sched_util_min = 48 }
    }
}

#[test]
fn socket_structures_have_the_layout_of_libc() {
    same! {
        socket::Iovec = libc::iovec { iov_base, iov_len }
        socket::Msghdr = libc::msghdr {
            msg_name, msg_namelen, msg_iov, msg_iovlen, msg_control, msg_controllen, msg_flags,
        }
        socket::Mmsghdr = libc::mmsghdr { msg_hdr, msg_len }
        socket::Cmsghdr = libc::cmsghdr { cmsg_len, cmsg_level, cmsg_type }
        socket::Ucred = libc::ucred { pid, uid, gid }
        socket::Linger = libc::linger { l_onoff, l_linger }
        socket::SockaddrUn = libc::sockaddr_un { sun_family, sun_path }
        socket::SockaddrIn = libc::sockaddr_in { sin_family, sin_port, sin_addr }
        socket::SockaddrIn6 = libc::sockaddr_in6 {
            sin6_family, sin6_port, sin6_flowinfo, sin6_addr, sin6_scope_id,
        }
        socket::SockaddrNl = libc::sockaddr_nl { nl_family, nl_pid, nl_groups }
        socket::Nlmsghdr = libc::nlmsghdr {
            nlmsg_len, nlmsg_type, nlmsg_flags, nlmsg_seq, nlmsg_pid,
        }
    }
    assert_eq!(socket::SOCKADDR_STORAGE_SIZE, size_of::<libc::sockaddr_storage>());
}

#[test]
fn signal_structures_have_the_layout_of_the_kernel() {
    same! {
        signal::Stackt = libc::stack_t { ss_sp, ss_flags, ss_size }
        signal::SignalfdSiginfo = libc::signalfd_siginfo {
            ssi_signo, ssi_pid, ssi_uid, ssi_fd, ssi_tid, ssi_band, ssi_overrun, ssi_trapno,
            ssi_status, ssi_int, ssi_ptr, ssi_utime, ssi_stime, ssi_addr, ssi_addr_lsb, ssi_syscall,
            ssi_call_addr, ssi_arch,
        }
    }
    kernel! {
        signal::Sigaction = 32 { handler = 0, flags = 8, restorer = 16, mask = 24 }
        Siginfo = 128 { si_errno = 4, si_code = 8, fields = 16 }
        signal::Sigevent = 64 { sigev_signo = 8, sigev_notify = 12, sigev_tid = 16 }
        signal::SigsetArgpack = 16 { size = 8 }
        sigframe::Sigcontext = 256 {
            rdi = 64, rsp = 120, rip = 128, eflags = 136, cs = 144, ss = 150, err = 152,
            trapno = 160, oldmask = 168, cr2 = 176, fpstate = 184,
        }
        sigframe::Ucontext = 304 {
            uc_link = 8, uc_stack = 16, uc_mcontext = 40, uc_sigmask = 296,
        }
        sigframe::RtSigframe = 440 { pretcode = 0, uc = 8, info = 312 }
        sigframe::FpxSwBytes = 48 { extended_size = 4, xfeatures = 8, xstate_size = 16 }
    }
    assert_eq!(size_of::<Siginfo>(), size_of::<libc::siginfo_t>());
}

/// Returns the 32-bit member of a record at an offset that the kernel's headers give.
fn word(info: &Siginfo, offset: usize) -> i32 {
    let bytes = info.as_bytes()[offset..offset + 4].try_into().expect("four bytes");
    i32::from_le_bytes(bytes)
}

#[test]
fn signal_records_hold_their_fields_where_the_kernel_has_them() {
    let info = Siginfo::kill(10, 0, 11, 12);
    assert_eq!((word(&info, 0), word(&info, 16), word(&info, 20)), (10, 11, 12));
    let info = Siginfo::queue(10, signal::SI_QUEUE, 11, 12, 13);
    assert_eq!((word(&info, 8), word(&info, 16), word(&info, 24)), (-1, 11, 13));
    let info = Siginfo::child(1, 11, 12, 13, 14, 15);
    assert_eq!((word(&info, 0), word(&info, 16), word(&info, 20)), (signal::SIGCHLD, 11, 12));
    assert_eq!((word(&info, 24), word(&info, 32), word(&info, 40)), (13, 14, 15));
    let info = Siginfo::fault(11, 1, 12);
    assert_eq!((word(&info, 16), info.addr()), (12, 12));
    let info = Siginfo::timer(14, 3, 4, 5);
    assert_eq!((word(&info, 16), word(&info, 20), word(&info, 24)), (3, 4, 5));
    let info = Siginfo::poll(29, 1, 7, 8);
    assert_eq!((word(&info, 16), word(&info, 24)), (7, 8));
    let info = Siginfo::seccomp(9, 16, 17, 18);
    assert_eq!((word(&info, 4), word(&info, 16)), (9, 16));
    assert_eq!((word(&info, 24), word(&info, 28)), (17, 18));
}

#[test]
fn process_structures_have_the_layout_of_the_kernel() {
    same! {
        Regs = libc::user_regs_struct {
            r15, r14, r13, r12, rbp, rbx, r11, r10, r9, r8, rax, rcx, rdx, rsi, rdi, orig_rax, rip,
            cs, eflags, rsp, ss, fs_base, gs_base, ds, es, fs, gs,
        }
        clone::CloneArgs = libc::clone_args {
            flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid,
            set_tid_size, cgroup,
        }
        prctl::SockFilter = libc::sock_filter { code, jt, jf, k }
        prctl::SockFprog = libc::sock_fprog { len, filter }
        prctl::SeccompNotif = libc::seccomp_notif { id, pid, flags, data }
        prctl::SeccompNotifResp = libc::seccomp_notif_resp { id, val, error, flags }
        prctl::SeccompNotifSizes = libc::seccomp_notif_sizes { seccomp_notif, seccomp_notif_resp, seccomp_data }
        prctl::SeccompNotifAddfd = libc::seccomp_notif_addfd { id, flags, srcfd, newfd, newfd_flags }
        prctl::SeccompData = libc::seccomp_data { nr, arch, instruction_pointer, args }
        elf::Ehdr = libc::Elf64_Ehdr {
            e_ident, e_type, e_machine, e_version, e_entry, e_phoff, e_shoff, e_flags, e_ehsize,
            e_phentsize, e_phnum, e_shentsize, e_shnum, e_shstrndx,
        }
        elf::Phdr = libc::Elf64_Phdr {
            p_type, p_flags, p_offset, p_vaddr, p_paddr, p_filesz, p_memsz, p_align,
        }
        elf::Shdr = libc::Elf64_Shdr {
            sh_name, sh_type, sh_flags, sh_addr, sh_offset, sh_size, sh_link, sh_info, sh_addralign,
            sh_entsize,
        }
        elf::Sym = libc::Elf64_Sym { st_name, st_info, st_other, st_shndx, st_value, st_size }
    }
    kernel! {
        elf::Dyn = 16 { d_val = 8 }
        elf::Nhdr = 12 { n_type = 8 }
        futex::FutexWaitv = 24 { uaddr = 8, flags = 16 }
        futex::RobustListHead = 24 { futex_offset = 8, list_op_pending = 16 }
        capability::CapUserHeader = 8 { pid = 4 }
        capability::CapUserData = 12 { permitted = 4, inheritable = 8 }
        capability::VfsNsCapData = 24 { data = 4, rootid = 20 }
        rseq::Rseq = 32 { cpu_id = 4, rseq_cs = 8, flags = 16, node_id = 20, mm_cid = 24 }
        rseq::RseqCs = 32 { start_ip = 8, post_commit_offset = 16, abort_ip = 24 }
    }
}

#[test]
fn ipc_structures_have_the_layout_of_the_kernel() {
    kernel! {
        ipc::IpcPerm = 48 { uid = 4, mode = 20, seq = 24 }
        ipc::SemidDs = 104 { sem_otime = 48, sem_ctime = 64, sem_nsems = 80 }
        ipc::ShmidDs = 112 { shm_segsz = 48, shm_atime = 56, shm_cpid = 80, shm_nattch = 88 }
        ipc::MsqidDs = 120 { msg_stime = 48, msg_cbytes = 72, msg_lspid = 96 }
        ipc::Sembuf = 6 { sem_op = 2, sem_flg = 4 }
        ipc::Seminfo = 40 { semaem = 36 }
        ipc::Msginfo = 32 { msgseg = 28 }
        ipc::Shminfo = 72 { shmall = 32 }
        ipc::ShmInfo = 48 { shm_tot = 8, swap_successes = 40 }
        ipc::MqAttr = 64 { mq_curmsgs = 24 }
    }
}
