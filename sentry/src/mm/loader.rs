//! From a file to a program: interpreters, segments, the first stack.
//!
//! [`find`] follows `#!` lines to an ELF file and its program interpreter, touching nothing;
//! [`load`] fills a fresh address space with them. Both run before the point of no return of
//! `execve(2)`, so whatever goes wrong is an ordinary error of the call.

pub(crate) mod elf;
pub(crate) mod script;
pub(crate) mod stack;

mod segments;

use std::sync::Arc;

use sentry_platform::{Context, HostCall};
use syscalls::abi::mm::ProtFlags;
use syscalls::abi::resource;
use syscalls::{Errno, SysResult, UserAddr};

use self::elf::Elf;
use self::stack::StackContent;
use super::MemoryManager;
use super::layout::{Chance, stack_size};
use super::space::map::{MapRequest, Placement};
use super::vma::{Backing, PROT_RWX, VmaFlags, page_up};
use crate::task::{Credentials, CurrentTask, time_namespace};
use crate::vfs::open::open_exec;
use crate::vfs::walk::{Walk, WalkFlags};
use crate::vfs::{OpenFile, SliceSink};

/// The bytes of a file that decide what it is: `BINPRM_BUF_SIZE`.
const HEAD_SIZE: usize = 256;

/// The most interpreters in a row.
const MAX_DEPTH: usize = 5;

/// A program and what it is to be started with.
pub(crate) struct Program {
    /// The ELF file.
    pub(crate) file: Arc<OpenFile>,
    elf: Elf,
    /// The program interpreter (`ld.so`), where the file names one.
    interpreter: Option<(Arc<OpenFile>, Elf)>,
    /// The arguments, with those that scripts have added.
    argv: Vec<Vec<u8>>,
    envp: Vec<Vec<u8>>,
    /// What `AT_EXECFN` says.
    execfn: Vec<u8>,
}

/// Where a loaded program starts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Entry {
    /// The instruction pointer.
    pub(crate) rip: u64,
    /// The stack pointer.
    pub(crate) rsp: u64,
    /// The host calls with which it starts.
    pub(crate) calls: Vec<HostCall>,
}

/// Finds what is to be executed for `file`, which was found as `filename`; an interpreter can open
/// that name only where it `is_reachable`.
///
/// # Errors
/// `ENOENT` for a script whose interpreter could not open it, `ENOEXEC` for an unknown format, `ELOOP` for too many interpreters, `ELIBBAD` for a program
/// interpreter that is none, and those of opening and reading files.
pub(crate) fn find(
    current: &CurrentTask,
    mut file: Arc<OpenFile>,
    filename: &[u8],
    mut argv: Vec<Vec<u8>>,
    envp: Vec<Vec<u8>>,
    is_reachable: bool,
) -> SysResult<Program> {
    let mut name = filename.to_vec();
    if argv.is_empty() {
        argv.push(Vec::new());
    }
    for _ in 0..=MAX_DEPTH {
        let mut head = [0; HEAD_SIZE];
        let n = read_at(current, &file, &mut head, 0)?;
        let head = head.get(..n).unwrap_or_default();
        let Some(line) = script::parse(head)? else {
            let elf = Elf::read(head, &mut |dst, offset| read_at(current, &file, dst, offset))?;
            let interpreter = match elf.interpreter() {
                Some(place) => Some(open_interpreter(current, &file, place)?),
                None => None,
            };
            let execfn = filename.to_vec();
            return Ok(Program { file, elf, interpreter, argv, envp, execfn });
        };
        if !is_reachable {
            return Err(Errno::ENOENT);
        }
        let mut with_script = vec![line.interpreter.clone()];
        with_script.extend(line.argument);
        with_script.push(name);
        with_script.extend(argv.into_iter().skip(1));
        argv = with_script;
        let path = Walk::from_cwd(current, WalkFlags::FOLLOW).resolve(&line.interpreter)?;
        file = open_exec(current, path)?;
        name = line.interpreter;
    }
    Err(Errno::ELOOP)
}

fn open_interpreter(
    current: &CurrentTask,
    file: &Arc<OpenFile>,
    place: elf::InterpreterPath,
) -> SysResult<(Arc<OpenFile>, Elf)> {
    let mut name = vec![0; place.len];
    if read_at(current, file, &mut name, place.offset)? < name.len() {
        return Err(Errno::EIO);
    }
    if name.pop() != Some(0) {
        return Err(Errno::ENOEXEC);
    }
    let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
    name.truncate(end);
    let path = Walk::from_cwd(current, WalkFlags::FOLLOW).resolve(&name)?;
    let interpreter = open_exec(current, path)?;
    // The program alone must not be written to; an upgrade may write to the interpreter.
    interpreter.allow_write();
    let mut head = [0; HEAD_SIZE];
    let n = read_at(current, &interpreter, &mut head, 0)?;
    let head = head.get(..n).unwrap_or_default();
    let elf = Elf::read(head, &mut |dst, offset| read_at(current, &interpreter, dst, offset))
        .map_err(|errno| if errno == Errno::ENOEXEC { Errno::ELIBBAD } else { errno })?;
    Ok((interpreter, elf))
}

/// Reads up to `dst.len()` bytes; fewer only at the end of the file.
fn read_at(
    current: &CurrentTask,
    file: &OpenFile,
    dst: &mut [u8],
    offset: u64,
) -> SysResult<usize> {
    let mut done = 0;
    while done < dst.len() {
        let Some(rest) = dst.get_mut(done..) else { break };
        let mut sink = SliceSink::new(rest);
        let at = offset.checked_add(done as u64).ok_or(Errno::ENOEXEC)?;
        let n = file.file.read(current, &mut sink, at)?;
        if n == 0 {
            break;
        }
        done += n;
    }
    Ok(done)
}

/// Maps a program into the fresh address space of `context`, which becomes that of `mm`.
///
/// # Errors
/// `ENOMEM`, `EINVAL` where segments do not fit, `E2BIG` where the strings do not.
pub(crate) fn load(
    current: &CurrentTask,
    program: &Program,
    creds: &Credentials,
    is_secure: bool,
    mm: &Arc<MemoryManager>,
    context: &Arc<dyn Context>,
) -> SysResult<Entry> {
    let limits = current.memory_limits();
    let (stack_limit, address_space) = {
        let limits = current.group.limits.lock();
        (limits.soft(resource::RLIMIT_STACK), limits.soft(resource::RLIMIT_AS))
    };
    let chance = random_layout(current)?;
    let mut calls = Vec::new();
    mm.change_layout(|layout| layout.mmap_base = chance.mmap_base(stack_limit));

    let stack_top = chance.stack_top();
    // What is reserved counts as address space, which a stack on Linux does as it grows: a small
    // limit has to leave room for the program.
    let stack_len = stack_size(stack_limit.min(address_space / 8));
    let mut stack_prot = ProtFlags::READ | ProtFlags::WRITE;
    stack_prot.set(ProtFlags::EXEC, program.elf.wants_executable_stack());
    let mut request = MapRequest::anonymous(
        stack_top - stack_len,
        stack_len,
        Placement::FixedNoReplace,
        stack_prot,
    );
    request.flags = VmaFlags::GROWSDOWN | VmaFlags::NORESERVE;
    mm.prepare(&mut calls, |space, avoid, plan| space.map(&request, &limits, avoid, plan))?;

    let mut mapper = segments::Mapper { mm, limits: &limits, calls: &mut calls, zeros: Vec::new() };
    let placed = mapper.map_program(&program.file, &program.elf, &chance, program.is_dynamic())?;
    let interpreter = match &program.interpreter {
        Some((file, elf)) => Some(mapper.map_interpreter(file, elf)?),
        None => None,
    };
    let zeros = mapper.zeros;
    let clocks = current.namespaces().time_for_children.clone();
    let vdso_image = time_namespace::vdso(&current.kernel, &clocks);
    let vdso = map_vdso(mm, vdso_image.len() as u64, &mut calls)?;
    mm.change_layout(|layout| {
        layout.start_code = placed.start_code;
        layout.end_code = placed.end_code;
        layout.start_data = placed.start_data;
        layout.end_data = placed.end_data;
        layout.vdso = vdso.unwrap_or(0);
        let moves_apart = program.elf.is_position_independent() && !program.is_dynamic();
        let end = if moves_apart { Chance::default().program_base() } else { placed.end };
        layout.start_brk = chance.brk_start(page_up(end).unwrap_or(end));
        layout.brk = layout.start_brk;
    });

    let mut random = [0; 16];
    sentry_host::random::fill(&mut random)?;
    let content = StackContent {
        argv: &program.argv,
        envp: &program.envp,
        execfn: &program.execfn,
        random,
        auxv: stack::Facts {
            vdso,
            phdr: placed.phdr,
            phnum: program.elf.n_headers(),
            base: interpreter.as_ref().map_or(0, |placed| placed.bias),
            entry: placed.entry,
            ids: [
                creds.user_ns.shown_uid(creds.uid),
                creds.user_ns.shown_uid(creds.euid),
                creds.user_ns.shown_gid(creds.gid),
                creds.user_ns.shown_gid(creds.egid),
            ],
            is_secure,
        },
    };
    let image = stack::build(&content, stack_top, chance.sub_page)?;
    if stack_top - image.sp > stack_len {
        return Err(Errno::E2BIG);
    }

    context.call_now(&calls)?;
    let host = context.address_space();
    for (addr, len) in zeros {
        // As Linux, a tail that cannot be written is left as the file has it.
        let _ = host.write(UserAddr(addr), &vec![0; len]);
    }
    write_all(&*host, image.sp, &image.bytes)?;
    let mut calls = Vec::new();
    if let Some(vdso) = vdso {
        write_all(&*host, vdso, &vdso_image)?;
        let len = vdso_image.len() as u64;
        let prot = super::vma::host_prot(ProtFlags::READ | ProtFlags::EXEC);
        calls.push(HostCall::Mprotect { addr: vdso, len, prot });
    }
    mm.change_layout(|layout| image.describe(layout));
    mm.set_address_space(host);
    mm.set_exe(program.file.clone());
    let rip = interpreter.map_or(placed.entry, |placed| placed.entry);
    Ok(Entry { rip, rsp: image.sp, calls })
}

impl Program {
    fn is_dynamic(&self) -> bool {
        self.interpreter.is_some()
    }
}

fn write_all(host: &dyn sentry_platform::AddressSpace, addr: u64, bytes: &[u8]) -> SysResult<()> {
    if host.write(UserAddr(addr), bytes)? == bytes.len() { Ok(()) } else { Err(Errno::EFAULT) }
}

/// Maps memory for the vDSO, which the host has writable until it is filled.
fn map_vdso(mm: &MemoryManager, len: u64, calls: &mut Vec<HostCall>) -> SysResult<Option<u64>> {
    let len = page_up(len).ok_or(Errno::ENOMEM)?;
    if len == 0 {
        return Ok(None);
    }
    let prot = ProtFlags::READ | ProtFlags::WRITE;
    let mut request = MapRequest::anonymous(0, len, Placement::Hint, prot);
    request.backing = Backing::Special("[vdso]");
    request.flags = VmaFlags::DONTEXPAND;
    request.max_prot = PROT_RWX;
    let none = super::space::MemoryLimits {
        address_space: u64::MAX,
        data: u64::MAX,
        memlock: u64::MAX,
        may_lock: true,
    };
    let addr = mm.prepare(calls, |space, avoid, plan| {
        let addr = space.map(&request, &none, avoid, plan)?;
        let range = addr..addr.saturating_add(len);
        space.tree.update(&range, |_, vma| vma.prot = ProtFlags::READ | ProtFlags::EXEC);
        Ok(addr)
    })?;
    Ok(Some(addr))
}

/// `ADDR_NO_RANDOMIZE` of `personality(2)`.
const ADDR_NO_RANDOMIZE: u32 = 0x0004_0000;

fn random_layout(current: &CurrentTask) -> SysResult<Chance> {
    if current.misc.lock().personality & ADDR_NO_RANDOMIZE != 0 {
        return Ok(Chance::default());
    }
    let mut bytes = [0; 40];
    sentry_host::random::fill(&mut bytes)?;
    let mut words = bytes.chunks_exact(8).map(|word| {
        let mut value = [0; 8];
        value.copy_from_slice(word);
        u64::from_le_bytes(value)
    });
    let mut next = || words.next().unwrap_or(0);
    Ok(Chance { stack: next(), mmap: next(), program: next(), brk: next(), sub_page: next() })
}
