//! Random system calls with random, plausible and hostile arguments, from many processes and threads.
//!
//! `fuzz_calls SEED ROUNDS CALLS`: each round forks a few workers, each with a few threads, each of which makes
//! so many calls. The first process is the canary: after each round it kills what is left and must be able to
//! reap it, and then to make ordinary calls. Only for a sandbox: the calls are made as root, and are meant.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use guest_tests::mem::{Map, PAGE};
use guest_tests::rng::Rng;
use guest_tests::runner::exit;
use guest_tests::{fs, proc, raw, sig, sys};

/// A call and the kinds of its arguments; see [`Fuzzer::argument`].
type Call = (i64, &'static [u8]);

macro_rules! calls {
    ($($nr:ident $kinds:literal),* $(,)?) => { &[$((libc::$nr, $kinds as &[u8])),*] };
}

/// Files and descriptors.
const FILES: &[Call] = calls![
    SYS_read b"fbn", SYS_write b"frn", SYS_pread64 b"fbno", SYS_pwrite64 b"frno", SYS_readv b"fvi",
    SYS_writev b"fvi", SYS_preadv b"fvio", SYS_pwritev b"fvio", SYS_preadv2 b"fvioog", SYS_pwritev2 b"fvioog",
    SYS_lseek b"foi", SYS_open b"pgm", SYS_openat b"dpgm", SYS_openat2 b"dprn", SYS_creat b"pm", SYS_close b"f",
    SYS_close_range b"ffg", SYS_memfd_create b"pg", SYS_dup b"f", SYS_dup2 b"ff", SYS_dup3 b"ffg",
    SYS_fcntl b"fF*", SYS_fcntl b"fFR", SYS_flock b"fi", SYS_ioctl b"fIr", SYS_ioctl b"f*r", SYS_stat b"pb",
    SYS_lstat b"pb", SYS_fstat b"fb", SYS_newfstatat b"dpbg", SYS_statx b"dpggb", SYS_statfs b"pb",
    SYS_fstatfs b"fb", SYS_access b"pi", SYS_faccessat b"dpi", SYS_faccessat2 b"dpig", SYS_chmod b"pm",
    SYS_fchmod b"fm", SYS_fchmodat b"dpm", SYS_chown b"puu", SYS_lchown b"puu", SYS_fchown b"fuu",
    SYS_fchownat b"dpuug", SYS_utime b"pr", SYS_utimes b"pr", SYS_futimesat b"dpr", SYS_utimensat b"dprg",
    SYS_truncate b"po", SYS_ftruncate b"fo", SYS_fallocate b"fgoo", SYS_setxattr b"pprng", SYS_getxattr b"ppbn",
    SYS_fgetxattr b"fpbn", SYS_fsetxattr b"fprng", SYS_listxattr b"pbn", SYS_flistxattr b"fbn",
    SYS_removexattr b"pp", SYS_fremovexattr b"fp", SYS_getdents b"fbn", SYS_getdents64 b"fbn", SYS_getcwd b"bn",
    SYS_chdir b"p", SYS_fchdir b"f", SYS_chroot b"p", SYS_umask b"m", SYS_mkdir b"pm", SYS_mkdirat b"dpm",
    SYS_mknod b"pg*", SYS_mknodat b"dpg*", SYS_symlink b"pp", SYS_symlinkat b"pdp", SYS_link b"pp",
    SYS_linkat b"dpdpg", SYS_unlink b"p", SYS_rmdir b"p", SYS_unlinkat b"dpg", SYS_rename b"pp",
    SYS_renameat b"dpdp", SYS_renameat2 b"dpdpg", SYS_readlink b"pbn", SYS_readlinkat b"dpbn", SYS_fsync b"f",
    SYS_fdatasync b"f", SYS_sync b"", SYS_syncfs b"f", SYS_sync_file_range b"foog", SYS_fadvise64 b"fooi",
    SYS_readahead b"fon", SYS_mount b"pppgr", SYS_umount2 b"pg", SYS_pivot_root b"pp", SYS_sendfile b"ffrn",
    SYS_splice b"frfrng", SYS_tee b"ffng", SYS_vmsplice b"fvig", SYS_copy_file_range b"frfrng",
    SYS_inotify_init1 b"g", SYS_inotify_add_watch b"fpg", SYS_inotify_rm_watch b"fi", SYS_pipe b"b",
    SYS_pipe2 b"bg", SYS_eventfd2 b"ng", SYS_timerfd_create b"kg", SYS_timerfd_settime b"fgRb",
    SYS_timerfd_gettime b"fb", SYS_signalfd4 b"frng", SYS_poll b"rii", SYS_ppoll b"riTrn",
    SYS_select b"ibbbt", SYS_pselect6 b"ibbbTr", SYS_epoll_create1 b"g", SYS_epoll_ctl b"fifr",
    SYS_epoll_wait b"fbii", SYS_epoll_pwait b"fbiirn", SYS_epoll_pwait2 b"fbiTrn", SYS_socket b"yY0",
    SYS_socket b"iii", SYS_socketpair b"yY0b", SYS_socketpair b"iiib", SYS_bind b"fSn", SYS_bind b"frn",
    SYS_connect b"fSn", SYS_connect b"frn", SYS_listen b"fi", SYS_accept4 b"fbrg", SYS_accept b"fbr",
    SYS_sendto b"frngSn", SYS_recvfrom b"fbngbr", SYS_sendmsg b"fHg", SYS_recvmsg b"fHg", SYS_sendmmsg b"fHig",
    SYS_recvmmsg b"fHigT", SYS_shutdown b"fi", SYS_getsockopt b"fiibr", SYS_setsockopt b"fiiRn",
    SYS_getsockname b"fbr", SYS_getpeername b"fbr", SYS_lsetxattr b"pprng", SYS_lgetxattr b"ppbn",
    SYS_llistxattr b"pbn", SYS_lremovexattr b"pp", SYS_fchmodat2 b"dpmg", SYS_inotify_init b"",
    SYS_epoll_create b"i", SYS_eventfd b"n", SYS_signalfd b"frn", SYS_acct b"p", SYS_swapon b"pg",
    SYS_name_to_handle_at b"dprbg", SYS_open_by_handle_at b"frg", SYS_fanotify_init b"gg", SYS_quotactl b"gpir",
];

/// Memory.
const MEMORY: &[Call] = calls![
    SYS_mmap b"anPMfo", SYS_mmap b"0nPMfo", SYS_mmap b"anPMfo", SYS_mprotect b"anP", SYS_munmap b"an", SYS_brk b"a",
    SYS_mremap b"anniA", SYS_msync b"ang", SYS_mincore b"anb", SYS_madvise b"ani", SYS_mlock b"an",
    SYS_munlock b"an", SYS_mlock2 b"ang", SYS_munlockall b"", SYS_mlockall b"g", SYS_membarrier b"gii",
    SYS_pkey_mprotect b"anPi", SYS_pkey_alloc b"gg", SYS_pkey_free b"i", SYS_remap_file_pages b"anPog",
    SYS_process_vm_readv b"Nviviz", SYS_process_vm_writev b"Nviviz", SYS_futex b"rgiTrn", SYS_futex b"rgiirn",
    SYS_set_robust_list b"rn", SYS_get_robust_list b"Nbb", SYS_rseq b"rngx", SYS_mbind b"anirng",
    SYS_userfaultfd b"g", SYS_shmget b"*ng", SYS_shmat b"iag", SYS_shmdt b"a", SYS_semget b"iig", SYS_semop b"iri",
    SYS_move_pages b"Nnrrrg", SYS_get_mempolicy b"bbiag", SYS_shmctl b"iir", SYS_semget b"0ig",
    SYS_semtimedop b"irnT", SYS_semctl b"iiir", SYS_semctl b"iiii", SYS_msgget b"0g", SYS_msgsnd b"irng",
    SYS_msgrcv b"ibnig", SYS_msgctl b"iir", SYS_mq_open b"pgmr", SYS_mq_open b"pgm0", SYS_mq_unlink b"p",
    SYS_mq_timedsend b"frniT", SYS_mq_timedreceive b"fbnbT", SYS_mq_notify b"fr", SYS_mq_getsetattr b"frb",
    SYS_io_submit b"air", SYS_io_getevents b"aiibT", SYS_io_destroy b"a", SYS_io_cancel b"arb",
];

/// Processes, signals, time, identity.
const PROCESSES: &[Call] = calls![
    SYS_fork b"", SYS_vfork b"", SYS_clone b"gArrr", SYS_clone b"G0rrr", SYS_clone3 b"Rn", SYS_execve b"prr",
    SYS_execveat b"dprrg", SYS_exit b"i", SYS_wait4 b"Nbgb", SYS_waitid b"iNbgb", SYS_set_tid_address b"r",
    SYS_pause b"", SYS_restart_syscall b"", SYS_getpgid b"N", SYS_getsid b"N", SYS_setsid b"", SYS_setpgid b"NN",
    SYS_setuid b"u", SYS_setgid b"u", SYS_setreuid b"uu", SYS_setregid b"uu", SYS_setresuid b"uuu",
    SYS_setresgid b"uuu", SYS_getresgid b"bbb", SYS_setfsgid b"u", SYS_sched_getscheduler b"N",
    SYS_sched_get_priority_max b"i", SYS_sched_get_priority_min b"i", SYS_pidfd_getfd b"ffg",
    SYS_getresuid b"bbb", SYS_setfsuid b"u", SYS_getgroups b"ib", SYS_setgroups b"nr", SYS_capget b"rb",
    SYS_capset b"rr", SYS_prctl b"Crrrr", SYS_prctl b"Ciiii", SYS_prctl b"V0anp",
    SYS_prctl b"Viarn", SYS_arch_prctl b"Xr", SYS_sched_yield b"",
    SYS_sched_getaffinity b"Nnb", SYS_sched_setaffinity b"Nnr", SYS_sched_setscheduler b"Nir",
    SYS_sched_getparam b"Nb", SYS_sched_setparam b"Nr", SYS_sched_rr_get_interval b"Nb", SYS_getpriority b"iN",
    SYS_setpriority b"iNi", SYS_ioprio_get b"iN", SYS_ioprio_set b"iNi", SYS_getrlimit b"ib", SYS_setrlimit b"iR",
    SYS_prlimit64 b"NiRb", SYS_getrusage b"ib", SYS_times b"b", SYS_uname b"b", SYS_sethostname b"rn",
    SYS_setdomainname b"rn", SYS_sysinfo b"b", SYS_getcpu b"bbb", SYS_getrandom b"bng", SYS_personality b"g",
    SYS_clock_gettime b"kb", SYS_clock_getres b"kb", SYS_clock_settime b"kR", SYS_clock_adjtime b"kR",
    SYS_gettimeofday b"bb",    SYS_settimeofday b"rr", SYS_time b"b", SYS_adjtimex b"R", SYS_nanosleep b"Tb", SYS_clock_nanosleep b"kiTb",
    SYS_getitimer b"ib", SYS_setitimer b"iRb", SYS_alarm b"i", SYS_timer_create b"krb", SYS_timer_settime b"iiRb",
    SYS_timer_gettime b"ib", SYS_timer_getoverrun b"i", SYS_timer_delete b"i", SYS_rt_sigaction b"srbn",
    SYS_rt_sigaction b"srb8", SYS_rt_sigprocmask b"irb8", SYS_rt_sigpending b"bn", SYS_rt_sigtimedwait b"rbTn",
    SYS_rt_sigqueueinfo b"Nsr", SYS_rt_tgsigqueueinfo b"NNsr", SYS_rt_sigsuspend b"rn", SYS_rt_sigreturn b"",
    SYS_sigaltstack b"rb", SYS_kill b"Ns", SYS_tkill b"Ns", SYS_tgkill b"NNs", SYS_ptrace b"iNrr",
    SYS_seccomp b"igr", SYS_unshare b"g", SYS_setns b"fg", SYS_pidfd_open b"Ng", SYS_pidfd_send_signal b"fsrg",
    SYS_kcmp b"NNiff", SYS_reboot b"xxir", SYS_syslog b"ibn", SYS_bpf b"irn", SYS_perf_event_open b"rNifg",
    SYS_io_uring_setup b"ir", SYS_io_setup b"ib", SYS_keyctl b"i*rr*", SYS_add_key b"pprni", SYS_iopl b"i",
    SYS_modify_ldt b"irn", SYS_kexec_load b"*irg", SYS_init_module b"rnp", SYS_vhangup b"", SYS_chroot b"p",
    SYS_sched_setattr b"NRg", SYS_sched_getattr b"Nbng", SYS_sysfs b"irb", SYS_ustat b"ib", SYS_swapoff b"p",
    SYS_rseq b"rngx", SYS_landlock_create_ruleset b"rng", SYS_close_range b"iig",
];

const PATHS: &[&[u8]] = &[
    b"f\0",
    b"d\0",
    b"d/f\0",
    b"l\0",
    b"d/../f\0",
    b"/\0",
    b".\0",
    b"..\0",
    b"\0",
    b"/proc/self/maps\0",
    b"/proc/self\0",
    b"/proc/1/status\0",
    b"/proc/self/fd/3\0",
    b"/dev/null\0",
    b"/dev/zero\0",
    b"/dev/full\0",
    b"/dev/ptmx\0",
    b"/dev/tty\0",
    b"/dev/urandom\0",
    b"/tmp\0",
    b"/tmp/x\0",
    b"/etc/passwd\0",
    b"/bin/sh\0",
    b"/bin/true\0",
    b"////f///\0",
    b"d/./././f\0",
    b"l/l/l/l\0",
    b"nothing/here\0",
    b"user.test\0",
    b"tmpfs\0",
    b"proc\0",
    b"overlay\0",
    b"bind\0",
    b"/sys\0",
    b"/dev/pts/0\0",
    b"/proc/self/exe\0",
    b"/proc/self/mem\0",
];

/// How many more processes the fuzzers may make; in memory that all share.
struct Shared {
    forks: &'static AtomicI64,
    calls: &'static AtomicU64,
}

struct Fuzzer {
    rng: Rng,
    shared: Shared,
    /// Readable and writable memory, full of numbers and pointers.
    buffer: usize,
    /// Addresses that are special.
    places: Vec<usize>,
    trace: bool,
}

const BUFFER: usize = 16 * PAGE;

impl Fuzzer {
    fn new(seed: u64, shared: Shared, trace: bool) -> Fuzzer {
        let map = |len, prot| {
            Map::new(0, len, prot, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0)
                .map_or(0, Map::leak)
        };
        let rw = libc::PROT_READ | libc::PROT_WRITE;
        let buffer = map(BUFFER + PAGE, rw);
        let _ = sys!(SYS_mprotect, buffer + BUFFER, PAGE, 0);
        let read_only = map(4 * PAGE, libc::PROT_READ);
        let hole = map(64 * PAGE, rw);
        let _ = sys!(SYS_munmap, hole + 8 * PAGE, 3 * PAGE);
        let places = vec![
            buffer,
            buffer + BUFFER,
            read_only,
            read_only + 4 * PAGE,
            hole,
            hole + 8 * PAGE,
            hole + 11 * PAGE,
            0,
            1,
            PAGE,
            0x7e00_0000_0000,
            0x7dff_ffff_f000,
            0x7fff_ffff_f000,
            0x7fff_ffff_e000,
            0x8000_0000_0000,
            0xffff_8000_0000_0000,
            0xffff_ffff_ff60_0000,
            usize::MAX,
            usize::MAX - 4095,
            Fuzzer::new as *const () as usize,
            core::ptr::from_ref(&places_of_stack()) as usize,
        ];
        let mut fuzzer = Fuzzer { rng: Rng::new(seed), shared, buffer, places, trace };
        fuzzer.refill();
        fuzzer
    }

    /// A number that is special somewhere.
    fn number(&mut self) -> usize {
        match self.rng.below(10) {
            0 => self.rng.below(16),
            1 => 1 << self.rng.below(64),
            2 => (1usize << self.rng.below(64)).wrapping_sub(self.rng.below(3)),
            3 => (self.rng.below(9)).wrapping_neg(),
            4 => self.rng.bits() as usize,
            5 => self.rng.bits() as u32 as usize,
            6 => self.pointer(),
            7 | 8 => self.rng.extreme() as usize,
            _ => self.rng.below(300) * [1, 8, 16, PAGE][self.rng.below(4)],
        }
    }

    /// Somewhere in the readable and writable memory, often near its end.
    fn good_pointer(&mut self) -> usize {
        match self.rng.below(4) {
            0 => self.buffer + BUFFER - self.rng.below(64),
            1 => self.buffer + self.rng.below(BUFFER),
            _ => self.buffer + self.rng.below(BUFFER / 64) * 64,
        }
    }

    fn pointer(&mut self) -> usize {
        let place = self.rng.below(self.places.len());
        let delta = if self.rng.one_in(2) { 0 } else { self.rng.below(4096) };
        if self.rng.one_in(2) {
            self.places[place].wrapping_add(delta)
        } else {
            self.places[place].wrapping_sub(delta)
        }
    }

    fn size(&mut self) -> usize {
        match self.rng.below(10) {
            0 => self.number(),
            1 => self.rng.below(1 << 20),
            2 => PAGE * self.rng.below(64),
            3 => 8,
            _ => self.rng.below(300),
        }
    }

    /// One argument: plausible for its kind, or (one in twelve) anything.
    fn argument(&mut self, kind: u8) -> usize {
        if self.rng.one_in(12) {
            return if self.rng.one_in(2) { self.number() } else { self.pointer() };
        }
        let rng = &mut self.rng;
        match kind {
            b'f' => rng.below(24),
            b'd' => {
                if rng.one_in(3) {
                    rng.below(24)
                } else {
                    libc::AT_FDCWD as isize as usize
                }
            }
            b'i' => {
                if rng.one_in(5) {
                    (rng.below(4)).wrapping_neg()
                } else {
                    rng.below(24)
                }
            }
            b'b' | b'r' => self.good_pointer(),
            b't' => {
                if rng.one_in(4) {
                    0
                } else {
                    self.good_pointer()
                }
            }
            b'T' => {
                let at = self.good_pointer() & !15;
                let at = at.min(self.buffer + BUFFER - 16);
                let time = match self.rng.below(20) {
                    0 => [self.rng.extreme(), self.rng.extreme()],
                    1 => [self.rng.extreme(), self.rng.bits() % 1_000_000_000],
                    2 => [1, 0],
                    _ => [0, self.rng.bits() % 3_000_000],
                };
                put(at, &time[0].to_le_bytes());
                put(at + 8, &time[1].to_le_bytes());
                at
            }
            b'v' => {
                let at = (self.good_pointer() & !15).min(self.buffer + BUFFER - 32 * 16);
                for n in 0..32 {
                    let base =
                        if self.rng.one_in(9) { self.pointer() } else { self.good_pointer() };
                    let len = if self.rng.one_in(9) { self.number() } else { self.rng.below(500) };
                    put(at + n * 16, &base.to_le_bytes());
                    put(at + n * 16 + 8, &len.to_le_bytes());
                }
                at
            }
            b'n' => self.size(),
            b'o' => match rng.below(4) {
                0 => self.number(),
                1 => PAGE * rng.below(16),
                _ => rng.below(9000),
            },
            b'p' => {
                let path = rng.pick(PATHS);
                let at = self.good_pointer().min(self.buffer + BUFFER - path.len());
                put(at, path);
                at
            }
            b'g' => match rng.below(4) {
                0 => 0,
                1 => 1 << rng.below(32),
                2 => (1 << rng.below(32)) | (1 << rng.below(32)) | rng.below(4),
                _ => rng.below(512),
            },
            b'G' => (1 << (8 + rng.below(24))) | (1 << (8 + rng.below(24))) | 17,
            b'm' => rng.below(0o10000),
            b'a' => match rng.below(4) {
                0 => self.pointer() & !(PAGE - 1),
                1 => self.pointer(),
                _ => self.buffer + rng.below(80) * PAGE,
            },
            b'A' => self.pointer() & !15,
            b'P' => rng.below(8),
            b'M' => rng.pick(&[0x22, 0x21, 0x22, 2, 1, 0x32, 0x100022, 0x122, 0x8022, 0x40022, 3]),
            b'I' => rng.pick(&[
                0x5401,
                0x5402,
                0x5403,
                0x540e,
                0x540f,
                0x5410,
                0x5411,
                0x5413,
                0x5414,
                0x541b,
                0x5421,
                0x5450,
                0x5451,
                0x5452,
                0x8004_5430,
                0x4004_5431,
                0x5441,
                0x8004_5440,
                0x5422,
                0x5429,
                0x8008_6601,
            ]),
            b'k' => rng.below(16),
            b'C' => {
                if rng.one_in(9) {
                    rng.pick(&[0x59616d61, 0x53564d41, 0x41555856])
                } else {
                    rng.below(80)
                }
            }
            b'X' => 0x1000 + rng.below(5),
            b's' => rng.below(66),
            b'u' => rng.pick(&[0, 0, 1, 1000, 65534, usize::MAX, u32::MAX as usize]),
            b'N' => match rng.below(8) {
                0 => 0,
                1 => usize::MAX - rng.below(40),
                2 => 1,
                3 | 4 => proc::pid() as usize,
                5 => proc::tid() as usize,
                _ => rng.below(60),
            },
            b'R' => {
                // A structure of numbers at the ends of their ranges, and of ordinary ones.
                let at = (self.good_pointer() & !7).min(self.buffer + BUFFER - 128);
                for n in 0..16 {
                    let value = match self.rng.below(3) {
                        0 => self.rng.extreme(),
                        1 => self.rng.below(100) as u64 | (self.rng.extreme() << 32),
                        _ => self.rng.below(100) as u64,
                    };
                    put(at + n * 8, &value.to_le_bytes());
                }
                at
            }
            b'F' => rng.pick(&[
                0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 15, 16, 17, 36, 37, 38, 1024, 1025, 1026,
                1028, 1029, 1030, 1031, 1032, 1033, 1034, 1035, 1036, 1037, 1038,
            ]),
            b'V' => rng.pick(&[0x5356_4d41, 0x5356_4d41, 35]),
            b'y' => rng.pick(&[1, 1, 1, 2, 10, 16]),
            b'Y' => rng.pick(&[1, 2, 5, 3, 0x801, 0x802, 0x805, 0x80801]),
            b'S' => {
                // An internet address of this host, or a unix one: a name without a file, or one with.
                let at = self.good_pointer().min(self.buffer + BUFFER - 110);
                let low = self.rng.below(4) as u8;
                match self.rng.below(4) {
                    0 => put(at, &[2, 0, 0x1b, low, 127, 0, 0, 1]),
                    1 => {
                        let mut addr = [0; 28];
                        (addr[0], addr[2], addr[3], addr[23]) = (10, 0x1b, low, 1);
                        put(at, &addr);
                    }
                    _ => put(at, &[1, 0, [0, b'f', b'd', b's'][self.rng.below(4)], low, 0]),
                }
                at
            }
            b'H' => {
                // `msghdr`: address, vectors, control data, flags; also the first of several.
                let at = (self.good_pointer() & !7).min(self.buffer + BUFFER - 4 * 64);
                for n in 0..4 {
                    let (name, vectors) = (self.argument(b'S'), self.argument(b'v'));
                    let control = self.argument(b'c');
                    let lens = [self.rng.below(120), self.rng.below(12), self.size()];
                    let parts = [name, lens[0], vectors, lens[1], control, lens[2], 0, 0];
                    for (word, part) in parts.iter().enumerate() {
                        put(at + n * 64 + word * 8, &part.to_le_bytes());
                    }
                }
                at
            }
            b'c' => {
                let at = (self.good_pointer() & !7).min(self.buffer + BUFFER - 24);
                let len = if self.rng.one_in(3) { self.number() } else { 24 };
                put(at, &len.to_le_bytes());
                put(at + 8, &1u32.to_le_bytes());
                put(at + 12, &(1 + self.rng.below(3) as u32).to_le_bytes());
                put(at + 16, &(self.rng.below(24) as u32).to_le_bytes());
                at
            }
            b'x' => rng.pick(&[0xfee1_dead, 672_274_793, 0x5305_3053]),
            b'8' => 8,
            b'0' | b'z' => 0,
            _ => self.number(),
        }
    }

    /// Fills the memory with numbers and pointers.
    fn refill(&mut self) {
        for _ in 0..400 {
            let at = self.buffer + self.rng.below(BUFFER / 8 - 1) * 8;
            match self.rng.below(5) {
                0 => {
                    let value = self.good_pointer();
                    put(at, &value.to_le_bytes());
                }
                1 => {
                    let value = self.number();
                    put(at, &value.to_le_bytes());
                }
                2 => {
                    let value = [self.rng.below(24) as u32, self.number() as u32];
                    put(at, &value[0].to_le_bytes());
                    put(at + 4, &value[1].to_le_bytes());
                }
                3 => put(at, &self.rng.extreme().to_le_bytes()),
                _ => put(at, &(self.rng.below(40)).to_le_bytes()),
            }
        }
    }

    fn call(&mut self) {
        let table = match self.rng.below(10) {
            0..5 => FILES,
            5..7 => MEMORY,
            _ => PROCESSES,
        };
        let (mut number, kinds) = table[self.rng.below(table.len())];
        let mut args = [0usize; 6];
        for (arg, kind) in args.iter_mut().zip(kinds.iter()) {
            *arg = self.argument(*kind);
        }
        if self.rng.one_in(60) {
            number = if self.rng.one_in(9) {
                self.rng.bits() as i64
            } else {
                self.rng.below(600) as i64
            };
            for arg in &mut args {
                let kind = self.rng.pick(b"fbrnpigoaNT*");
                *arg = self.argument(kind);
            }
        }
        let makes_process =
            matches!(number, libc::SYS_fork | libc::SYS_vfork | libc::SYS_clone | libc::SYS_clone3);
        let ends = matches!(number, libc::SYS_exit | libc::SYS_exit_group | libc::SYS_rt_sigreturn);
        if ends && !self.rng.one_in(20) {
            return;
        }
        if harms_canary(number, &args) {
            return;
        }
        if makes_process && self.shared.forks.fetch_sub(1, Ordering::Relaxed) <= 0 {
            return;
        }
        if self.trace {
            let line = format!("{}: {number} {args:x?}\n", proc::tid());
            let _ = fs::write(2, line.as_bytes());
        }
        self.shared.calls.fetch_add(1, Ordering::Relaxed);
        let _ = raw(number, args);
    }
}

/// Tells whether a call harms the canary: in `runsc do` the first process is like any other.
fn harms_canary(number: i64, args: &[usize; 6]) -> bool {
    let (to, signo) = match number {
        libc::SYS_kill | libc::SYS_tkill | libc::SYS_rt_sigqueueinfo => (args[0], args[1]),
        libc::SYS_tgkill | libc::SYS_rt_tgsigqueueinfo => (args[1], args[2]),
        // Its limits are its children's.
        libc::SYS_prlimit64 => return args[0] as i32 == 1 && args[2] != 0,
        // A tracer that ends while its tracee stops leaves it stopped; a pidfd is for signals.
        libc::SYS_ptrace => return args[1] as i32 == 1,
        libc::SYS_pidfd_open | libc::SYS_process_vm_writev => return args[0] as i32 == 1,
        _ => return false,
    };
    to as i32 == 1 && matches!(signo as i32, libc::SIGKILL | libc::SIGSTOP)
}

fn places_of_stack() -> [u8; 8] {
    [0; 8]
}

fn put(at: usize, bytes: &[u8]) {
    // SAFETY: into the fuzzer's own buffer; where a random call has unmapped that, the worker dies, which is
    // what it is there for.
    unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), at as *mut u8, bytes.len()) }
}

fn shared() -> Option<Shared> {
    let map = Map::anonymous(PAGE, libc::MAP_SHARED).ok()?;
    let addr = map.leak();
    // SAFETY: the page is mapped for good; both are only used atomically.
    unsafe {
        Some(Shared {
            forks: &*(addr as *const AtomicI64),
            calls: &*((addr + 64) as *const AtomicU64),
        })
    }
}

/// One worker process: threads that make calls until they have made enough or died.
fn work(seed: u64, calls: usize, shared: &Shared, trace: bool) -> ! {
    let mut rng = Rng::new(seed);
    if !rng.one_in(6)
        && let Ok(null) = fs::open(c"/dev/null", libc::O_RDWR)
    {
        let _ = sys!(SYS_dup2, null, 0);
        let _ = sys!(SYS_dup2, null, 1);
        if !trace {
            let _ = sys!(SYS_dup2, null, 2);
        }
    }
    let _ = sig::mask(libc::SIG_SETMASK, 0);
    // Whatever blocks is interrupted soon.
    let _ = sig::handle(libc::SIGALRM, sig::record, 0);
    let interval = [0u64, 3000, 0, 3000];
    let _ = sys!(SYS_setitimer, 0, &interval, 0);
    for signo in [libc::SIGPIPE, libc::SIGHUP, libc::SIGUSR1, libc::SIGUSR2, libc::SIGIO] {
        let _ = sig::plain(signo, 1);
    }
    let _ = sys!(SYS_mkdir, c"d", 0o777);
    let _ = sys!(SYS_symlink, c"d", c"l");
    let _ = fs::put(c"f", &[7; 9000]);
    let _ = fs::pipe(libc::O_NONBLOCK);
    let _ = sys!(SYS_eventfd2, 3, libc::O_NONBLOCK);
    let _ = sys!(SYS_epoll_create1, 0);
    let _ = sys!(SYS_timerfd_create, 1, libc::O_NONBLOCK);
    let _ = sys!(SYS_memfd_create, c"m", 2);
    let _ = sys!(SYS_socketpair, libc::AF_UNIX, libc::SOCK_SEQPACKET, 0, &mut [0i32; 2]);
    if let Ok(listener) =
        sys!(SYS_socket, libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_NONBLOCK, 0)
    {
        let _ = sys!(SYS_bind, listener, b"\x01\x00\x00f\x00", 5);
        let _ = sys!(SYS_listen, listener, 3);
    }
    for kind in [libc::SOCK_STREAM, libc::SOCK_DGRAM] {
        if let Ok(socket) = sys!(SYS_socket, libc::AF_INET, kind | libc::SOCK_NONBLOCK, 0) {
            let port = rng.below(4) as u8;
            let _ = sys!(
                SYS_bind,
                socket,
                &[2u8, 0, 0x1b, port, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0],
                16
            );
            let _ = sys!(SYS_listen, socket, 3);
        }
    }
    let _ = fs::open(c"f", libc::O_RDWR);
    let _ = fs::open(c".", libc::O_RDONLY);
    let _ = fs::open(c"/proc/self/stat", libc::O_RDONLY);
    let _ = fs::open(c"/dev/ptmx", libc::O_RDWR | libc::O_NOCTTY);
    let _ = sys!(SYS_signalfd4, -1, &u64::MAX, 8, libc::O_NONBLOCK);
    let n_threads = 1 + rng.below(3);
    let threads: Vec<_> = (0..n_threads as u64)
        .map(|thread| {
            let shared = Shared { forks: shared.forks, calls: shared.calls };
            let seed = seed.wrapping_mul(31).wrapping_add(thread);
            std::thread::spawn(move || {
                let mut fuzzer = Fuzzer::new(seed, shared, trace);
                for n in 0..calls {
                    if n % 64 == 63 {
                        fuzzer.refill();
                    }
                    fuzzer.call();
                }
            })
        })
        .collect();
    for thread in threads {
        let _ = thread.join();
    }
    exit(0)
}

/// Kills all other processes and reaps them; false where some do not go.
fn clear(deadline: Duration) -> bool {
    let started = Instant::now();
    loop {
        // As the first process of its pid namespace the canary is not among those.
        let _ = sys!(SYS_kill, -1, libc::SIGKILL);
        loop {
            match sys!(SYS_wait4, -1, 0, libc::WNOHANG | libc::__WALL, 0) {
                Ok(0) => break,
                Ok(_) | Err(libc::EINTR) => {}
                Err(_) => return true,
            }
        }
        if started.elapsed() > deadline {
            return false;
        }
        proc::sleep(Duration::from_millis(1));
    }
}

/// Makes ordinary calls.
fn canary() -> Result<(), i32> {
    let (reader, writer) = fs::pipe(0)?;
    let pid = proc::child(|| i32::from(fs::write(writer, b"alive").is_err()))?;
    let mut buf = [0; 5];
    fs::read(reader, &mut buf)?;
    fs::close(reader)?;
    fs::close(writer)?;
    let ended = proc::wait(pid)?;
    let map = Map::anonymous(16 * PAGE, libc::MAP_PRIVATE)?;
    map.bytes().fill(1);
    if ended == proc::End::Code(0) && &buf == b"alive" { Ok(()) } else { Err(0) }
}

fn say(text: &str) {
    let mut rest = text.as_bytes();
    let started = Instant::now();
    while !rest.is_empty() && started.elapsed() < Duration::from_secs(5) {
        match fs::write(1, rest) {
            Ok(n) => rest = &rest[n..],
            // A worker may have made the description non-blocking, or filled the pipe.
            Err(_) => proc::sleep(Duration::from_millis(1)),
        }
    }
}

fn main() {
    let numbers: Vec<u64> = std::env::args().skip(1).filter_map(|arg| arg.parse().ok()).collect();
    let [seed, rounds, calls, ..] = numbers[..] else {
        say("usage: fuzz_calls SEED ROUNDS CALLS [TRACE]\n");
        exit(2);
    };
    if proc::pid() != 1 {
        say("fuzz_calls: not the first process of a container\n");
        exit(2);
    }
    let trace = numbers.len() > 3;
    // A worker may well panic; only the canary matters.
    std::panic::set_hook(Box::new(|_| {}));
    let _ = sig::mask(libc::SIG_SETMASK, u64::MAX);
    let Some(shared) = shared() else { exit(2) };
    for round in 0..rounds {
        shared.forks.store(40, Ordering::Relaxed);
        let seed = seed.wrapping_mul(1_000_003).wrapping_add(round);
        let dir = std::ffi::CString::new(format!("/tmp/fuzz-{round}")).unwrap_or_default();
        let _ = sys!(SYS_mkdir, dir.as_c_str(), 0o777);
        let mut workers = 0;
        for worker in 0..4 {
            let made = proc::child(|| {
                let _ = sys!(SYS_setsid);
                let _ = sys!(SYS_chdir, dir.as_c_str());
                work(seed.wrapping_mul(7).wrapping_add(worker), calls as usize, &shared, trace)
            });
            workers += u32::from(made.is_ok());
        }
        let started = Instant::now();
        while workers > 0 && started.elapsed() < Duration::from_millis(1500) {
            match sys!(SYS_wait4, -1, 0, libc::WNOHANG | libc::__WALL, 0) {
                Ok(0) => proc::sleep(Duration::from_millis(1)),
                Ok(_) => workers -= 1,
                Err(_) => break,
            }
        }
        if !clear(Duration::from_secs(10)) {
            say(&format!("\nfuzz: round {round}: processes that do not end\n"));
            exit(1);
        }
        if let Err(errno) = canary() {
            say(&format!("\nfuzz: round {round}: canary: {errno}\n"));
            exit(1);
        }
    }
    let calls = shared.calls.load(Ordering::Relaxed);
    let enough = if calls > rounds { "enough calls" } else { "no calls" };
    let _ = fs::write(2, format!("{calls} calls\n").as_bytes());
    say(&format!("\nfuzz: survived, {enough}\n"));
    exit(0);
}
