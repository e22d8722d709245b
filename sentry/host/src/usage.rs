//! What the host has charged a process with: memory, faults, the processor time of each thread.
//!
//! Only `/proc` tells, and the sentry has no file system. So a process of its own, the *clerk*,
//! holds the process file system of the sentry's pid namespace. It is forked before the sentry locks
//! itself down, is asked by number and answers with numbers; its filter lets it open for reading,
//! read, write and end. Where the host gives no process file system, nothing is known.
//!
//! # Safety
//! The clerk is forked from a process with one thread, and makes raw host calls on local buffers
//! and its own two descriptors.
#![expect(unsafe_code, reason = "fork and host calls")]

use std::ffi::CStr;
use std::io::Write as _;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::{Mutex, OnceLock, PoisonError};

use syscalls::{Errno, SysResult};

use crate::filter::{self, Violation};
use crate::{Rule, stream};

const OPEN_FLAGS: u64 = (libc::O_RDONLY | libc::O_CLOEXEC) as u64;

/// Every host call of the clerk.
const CLERK_RULES: &[Rule] = &[
    Rule::any(libc::SYS_read),
    Rule::any(libc::SYS_write),
    Rule::when(libc::SYS_openat, &[(2, !0, OPEN_FLAGS)]),
    Rule::any(libc::SYS_close),
    // What the installation of the filter took and gives back.
    Rule::any(libc::SYS_munmap),
    Rule::any(libc::SYS_exit_group),
];

/// The clerk's descriptors.
const SOCKET: i32 = 0;
const PROC: i32 = 1;

/// The tid of a question that is about the whole process.
const WHOLE_PROCESS: i32 = 0;

const NS_PER_TICK: u64 = 10_000_000;
const N_WORDS: usize = 8;
const QUESTION_LEN: usize = 8;
const ANSWER_LEN: usize = N_WORDS * 8;

/// What a process has used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessUsage {
    /// Resident bytes of anonymous memory.
    pub anonymous: u64,
    /// Resident bytes of files.
    pub file: u64,
    /// Resident bytes of shared memory.
    pub shared: u64,
    /// The most bytes that have been resident at once.
    pub peak: u64,
    /// Bytes of page tables.
    pub page_tables: u64,
    /// Page faults without and with input.
    pub faults: (u64, u64),
}

impl ProcessUsage {
    /// Returns the resident bytes.
    pub fn resident(&self) -> u64 {
        self.anonymous.saturating_add(self.file).saturating_add(self.shared)
    }
}

/// What a thread has used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ThreadUsage {
    /// User and system time in nanoseconds.
    pub cpu_ns: (u64, u64),
    /// Page faults without and with input.
    pub faults: (u64, u64),
}

/// The sentry's end of the socket.
static CLERK: OnceLock<Mutex<OwnedFd>> = OnceLock::new();

/// Starts the clerk with a process file system. Only while this process has one thread, and before
/// it is locked down.
///
/// # Errors
/// Those of `socketpair(2)` and `clone(2)`.
pub fn start(proc: BorrowedFd<'_>) -> SysResult<()> {
    let mut ends = [0; 2];
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
    // SAFETY: the array has room for two descriptors.
    if unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, ends.as_mut_ptr()) } < 0 {
        return Err(crate::last_errno());
    }
    // SAFETY: two new descriptors that nobody else knows.
    let (own, clerks) = unsafe { (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])) };
    // Without a signal at its end, so that who waits for stubs does not meet it.
    // SAFETY: there are no other threads, whose locks the child would lack.
    match unsafe { libc::syscall(libc::SYS_clone, 0, 0, 0, 0, 0) } {
        0 => {
            take_places(clerks.as_fd(), proc);
            if filter::install(CLERK_RULES, Violation::Kill).is_ok() {
                serve();
            }
            exit();
        }
        pid if pid > 0 => {
            let _ = CLERK.set(Mutex::new(own));
            Ok(())
        }
        _ => Err(crate::last_errno()),
    }
}

/// Returns what a process of this pid namespace has used, `None` where the host does not tell.
pub fn process(pid: i32) -> Option<ProcessUsage> {
    let [known, anonymous, file, shared, peak, page_tables, minor, major] =
        ask(pid, WHOLE_PROCESS)?;
    (known != 0).then_some(ProcessUsage {
        anonymous,
        file,
        shared,
        peak,
        page_tables,
        faults: (minor, major),
    })
}

/// Returns what a thread of a process of this pid namespace has used, `None` where the host does
/// not tell.
pub fn thread(pid: i32, tid: i32) -> Option<ThreadUsage> {
    let [known, user, system, minor, major, ..] = ask(pid, tid)?;
    (known != 0).then_some(ThreadUsage { cpu_ns: (user, system), faults: (minor, major) })
}

fn ask(pid: i32, tid: i32) -> Option<[u64; N_WORDS]> {
    let socket = CLERK.get()?.lock().unwrap_or_else(PoisonError::into_inner);
    let socket = socket.as_fd();
    let mut question = [0; QUESTION_LEN];
    let (first, second) = question.split_at_mut(4);
    first.copy_from_slice(&pid.to_ne_bytes());
    second.copy_from_slice(&tid.to_ne_bytes());
    retry(|| stream::write(socket, &question)).ok()?;
    let mut answer = [0; ANSWER_LEN];
    let n = retry(|| stream::read(socket, &mut answer)).ok()?;
    let mut words = [0; N_WORDS];
    for (word, bytes) in words.iter_mut().zip(answer.as_chunks().0) {
        *word = u64::from_ne_bytes(*bytes);
    }
    (n == ANSWER_LEN).then_some(words)
}

/// A question that a signal interrupts must not leave its answer to the next one.
fn retry(mut call: impl FnMut() -> SysResult<usize>) -> SysResult<usize> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            result => return result,
        }
    }
}

/// Gives the clerk its descriptors and nothing else.
fn take_places(socket: BorrowedFd<'_>, proc: BorrowedFd<'_>) {
    // SAFETY: integers, and a C string; nobody uses the descriptors that are closed.
    unsafe {
        let high = |fd: BorrowedFd<'_>| libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 100);
        let (socket, proc) = (high(socket), high(proc));
        libc::dup2(socket, SOCKET);
        libc::dup2(proc, PROC);
        libc::syscall(libc::SYS_close_range, PROC + 1, u32::MAX, 0);
        libc::prctl(libc::PR_SET_NAME, c"runsc-clerk".as_ptr(), 0, 0, 0);
        libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0);
    }
}

fn exit() -> ! {
    // SAFETY: runs nothing of what the parent has registered.
    unsafe { libc::_exit(0) }
}

/// Answers until the sentry is gone.
fn serve() {
    // SAFETY: the descriptor is open for as long as the clerk lives.
    let socket = unsafe { BorrowedFd::borrow_raw(SOCKET) };
    let mut question = [0; QUESTION_LEN];
    while retry(|| stream::read(socket, &mut question)) == Ok(QUESTION_LEN) {
        let mut numbers = [0; 2];
        for (number, bytes) in numbers.iter_mut().zip(question.as_chunks().0) {
            *number = i32::from_ne_bytes(*bytes);
        }
        let [pid, tid] = numbers;
        let words = if tid == WHOLE_PROCESS { process_words(pid) } else { thread_words(pid, tid) };
        let mut answer = [0; ANSWER_LEN];
        for (bytes, word) in answer.as_chunks_mut().0.iter_mut().zip(words.unwrap_or_default()) {
            *bytes = word.to_ne_bytes();
        }
        if retry(|| stream::write(socket, &answer)).is_err() {
            return;
        }
    }
}

fn process_words(pid: i32) -> Option<[u64; N_WORDS]> {
    let mut buffer = [0; 4096];
    let status = read_file(&mut buffer, format_args!("{pid}/status"))?;
    let bytes = |name| field(status, name).saturating_mul(1024);
    let sizes = ["RssAnon:", "RssFile:", "RssShmem:", "VmHWM:", "VmPTE:"].map(bytes);
    let mut buffer = [0; 1024];
    let stat = Stat::parse(read_file(&mut buffer, format_args!("{pid}/stat"))?);
    let [anonymous, file, shared, peak, page_tables] = sizes;
    Some([1, anonymous, file, shared, peak, page_tables, stat.minor_faults, stat.major_faults])
}

fn thread_words(pid: i32, tid: i32) -> Option<[u64; N_WORDS]> {
    let mut buffer = [0; 1024];
    let stat = Stat::parse(read_file(&mut buffer, format_args!("{pid}/task/{tid}/stat"))?);
    let mut buffer = [0; 128];
    // The exact run time where the host's configuration has it, divided as the ticks are.
    let exact = read_file(&mut buffer, format_args!("{pid}/task/{tid}/schedstat"));
    let (user, system) = match exact {
        Some(text) => divide(first_number(text), stat.user_ticks, stat.system_ticks),
        None => (
            stat.user_ticks.saturating_mul(NS_PER_TICK),
            stat.system_ticks.saturating_mul(NS_PER_TICK),
        ),
    };
    Some([1, user, system, stat.minor_faults, stat.major_faults, 0, 0, 0])
}

/// Divides a run time in the proportion of two counts of ticks.
fn divide(total: u64, user_ticks: u64, system_ticks: u64) -> (u64, u64) {
    let ticks = u128::from(user_ticks) + u128::from(system_ticks);
    if ticks == 0 {
        return (total, 0);
    }
    let user = u128::from(total) * u128::from(user_ticks) / ticks;
    let user = u64::try_from(user).unwrap_or(total);
    (user, total.saturating_sub(user))
}

/// Reads a file of the process file system, as far as it fits.
fn read_file<'a>(buffer: &'a mut [u8], path: std::fmt::Arguments<'_>) -> Option<&'a [u8]> {
    let mut name = [0; 64];
    let mut rest = &mut name[..];
    write!(rest, "{path}\0").ok()?;
    let name = CStr::from_bytes_until_nul(&name).ok()?;
    // SAFETY: the clerk's descriptor, a C string and flags; the raw call, because the C library's
    // function adds a flag.
    let fd = unsafe { libc::syscall(libc::SYS_openat, PROC, name.as_ptr(), OPEN_FLAGS, 0) };
    let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0)?;
    let mut len = 0;
    while let Some(room) = buffer.get_mut(len..)
        && !room.is_empty()
    {
        // SAFETY: the buffer is writable for its whole length.
        let n = unsafe { libc::read(fd, room.as_mut_ptr().cast(), room.len()) };
        match usize::try_from(n) {
            Ok(n @ 1..) => len += n,
            _ => break,
        }
    }
    // SAFETY: the descriptor is this function's. Not an `OwnedFd`, whose drop may look whether it
    // is open.
    unsafe { libc::close(fd) };
    buffer.get(..len)
}

/// Fields of `/proc/PID/stat`.
#[derive(Default)]
struct Stat {
    minor_faults: u64,
    major_faults: u64,
    user_ticks: u64,
    system_ticks: u64,
}

impl Stat {
    /// Parses what follows the name, which may hold anything, a parenthesis included.
    fn parse(text: &[u8]) -> Self {
        let end = text.iter().rposition(|byte| *byte == b')').unwrap_or(0);
        let rest = text.get(end..).unwrap_or_default();
        let mut fields = rest.split(|byte| *byte == b' ').skip(1).map(first_number);
        // The state is the third field.
        let mut nth = |skip: usize| fields.nth(skip).unwrap_or(0);
        Self {
            minor_faults: nth(7),
            major_faults: nth(1),
            user_ticks: nth(1),
            system_ticks: nth(0),
        }
    }
}

/// Returns the number behind `name` in a file of lines.
fn field(text: &[u8], name: &str) -> u64 {
    let mut lines = text.split(|byte| *byte == b'\n');
    lines.find_map(|line| line.strip_prefix(name.as_bytes())).map_or(0, first_number)
}

/// Returns the number at the start of `text`, after blanks.
fn first_number(text: &[u8]) -> u64 {
    let digits = text.trim_ascii_start().iter().take_while(|byte| byte.is_ascii_digit());
    digits.fold(0, |number: u64, digit| {
        number.saturating_mul(10).saturating_add(u64::from(digit - b'0'))
    })
}

#[cfg(test)]
mod tests {
    use super::{Stat, divide, field, first_number};

    #[test]
    fn stat_is_read_behind_the_name() {
        let stat = Stat::parse(b"12 (a ) b 1) S 1 2 3 0 -1 4194560 77 88 5 99 11 22 33 44 20 0");
        assert_eq!((stat.minor_faults, stat.major_faults), (77, 5));
        assert_eq!((stat.user_ticks, stat.system_ticks), (11, 22));
        assert_eq!(Stat::parse(b"").user_ticks, 0);
    }

    #[test]
    fn fields_of_status_are_found() {
        let status = b"Name:\tx\nVmHWM:\t    1234 kB\nRssAnon:\t 12 kB\n";
        assert_eq!(field(status, "VmHWM:"), 1234);
        assert_eq!(field(status, "RssFile:"), 0);
        assert_eq!(first_number(b"99999999999999999999999"), u64::MAX);
    }

    #[test]
    fn run_time_is_divided_as_ticks_are() {
        assert_eq!(divide(1000, 3, 1), (750, 250));
        assert_eq!(divide(1000, 0, 0), (1000, 0));
        assert_eq!(divide(u64::MAX, u64::MAX, u64::MAX), (u64::MAX / 2, u64::MAX / 2 + 1));
    }
}
