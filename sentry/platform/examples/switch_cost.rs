//! Measures what the platform costs: `cargo run --profile fast -p sentry-platform --example switch_cost`,
//! with `-- futex` for the doorbell without notifications.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::time::Instant;

use sentry_platform::systrap::{DoorbellChoice, Options, Systrap};
use sentry_platform::{
    Context, ContextOwner, Event, FastPathFacts, HostCall, PatchPermit, Platform,
};
use syscalls::UserAddr;

const CODE: u64 = 0x40_0000;
const STACK: u64 = 0x50_0000;

/// Serves every call at once, and some in a special way.
struct Owner {
    context: OnceLock<Arc<dyn Context>>,
    left: AtomicU64,
    done: Mutex<bool>,
    rung: Condvar,
}

impl Owner {
    fn new(calls: u64) -> Arc<Self> {
        Arc::new(Self {
            context: OnceLock::new(),
            left: AtomicU64::new(calls),
            done: Mutex::new(false),
            rung: Condvar::new(),
        })
    }

    fn wait(&self) {
        let mut done = self.done.lock().unwrap();
        while !*done {
            done = self.rung.wait(done).unwrap();
        }
        *done = false;
    }

    fn finish(&self) {
        *self.done.lock().unwrap() = true;
        self.rung.notify_all();
    }
}

impl ContextOwner for Owner {
    fn on_event(self: Arc<Self>, event: Event) {
        let context = self.context.get().unwrap();
        match event {
            Event::Syscall => {
                match context.syscall().number {
                    60 => return context.exit(),
                    // A child that ends at once: in a process, in a thread.
                    56 | 57 => {
                        let child = Self::new(u64::MAX);
                        let thread = context.syscall().number == 56;
                        let made = if thread {
                            context.clone_thread(child.clone())
                        } else {
                            context.fork(child.clone())
                        };
                        let made = made.unwrap();
                        let mut regs = made.regs();
                        regs.rip = CODE + 0x100;
                        made.set_regs(&regs);
                        if let Some(wish) = context.wants_patch() {
                            let room = wish.needs_room.then_some(CODE + 0x10_0000);
                            context.patch(Some(&PatchPermit { prot: 5, room }));
                        }
                        child.context.set(made.clone()).ok().unwrap();
                        made.resume(&[]);
                        CHILDREN.lock().unwrap().push((child, Arc::clone(&self)));
                        context.set_return(1);
                        context.resume(&[]);
                        return;
                    }
                    // Waits for the child.
                    61 => {
                        let mut children = CHILDREN.lock().unwrap();
                        if children.is_empty() {
                            drop(children);
                            context.set_return(0);
                            context.resume(&[]);
                        } else {
                            children[0].1 = Arc::clone(&self);
                            WAITING.store(1, Ordering::SeqCst);
                        }
                        return;
                    }
                    _ => {}
                }
                if let Some(wish) = context.wants_patch() {
                    let room = wish.needs_room.then_some(CODE + 0x10_0000);
                    context.patch(Some(&PatchPermit { prot: 5, room }));
                }
                if self.left.fetch_sub(1, Ordering::Relaxed) == 1 {
                    self.finish();
                    return;
                }
                context.set_return(7);
                context.resume(&[]);
            }
            Event::Exited { .. } => {
                let found = {
                    let mut children = CHILDREN.lock().unwrap();
                    let found = children.iter().position(|(child, _)| Arc::ptr_eq(child, &self));
                    found.map(|i| children.remove(i))
                };
                if let Some((_, parent)) = found
                    && WAITING.swap(0, Ordering::SeqCst) == 1
                {
                    let context = parent.context.get().unwrap();
                    context.set_return(0);
                    context.resume(&[]);
                }
                self.finish();
            }
            other => panic!("{other:?}"),
        }
    }
}

static CHILDREN: Mutex<Vec<(Arc<Owner>, Arc<Owner>)>> = Mutex::new(Vec::new());
static WAITING: AtomicU64 = AtomicU64::new(0);

fn map(addr: u64, len: u64, prot: i32) -> HostCall {
    HostCall::Mmap {
        addr,
        len,
        prot,
        flags: libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
        file: None,
        offset: 0,
    }
}

fn start(platform: &dyn Platform, owner: &Arc<Owner>, code: &[u8]) -> Arc<dyn Context> {
    let context = platform.create(owner.clone()).unwrap();
    owner.context.set(context.clone()).ok().unwrap();
    context.call_now(&[map(CODE, 0x1000, 5 | 2), map(STACK - 0x1000, 0x1000, 3)]).unwrap();
    let space = context.address_space();
    space.write(UserAddr(CODE), code).unwrap();
    // exit
    space.write(UserAddr(CODE + 0x100), &[0xb8, 60, 0, 0, 0, 0x0f, 0x05]).unwrap();
    let mut regs = context.regs();
    (regs.rip, regs.rsp) = (CODE, STACK);
    context.set_regs(&regs);
    context
}

fn loop_of(code: &[u8]) -> Vec<u8> {
    let mut code = code.to_vec();
    code.extend([0xe9]);
    code.extend((-(i32::try_from(code.len()).unwrap() + 4)).to_le_bytes());
    code
}

fn main() {
    let is_futex = std::env::args().any(|word| word == "futex");
    let doorbell = if is_futex { DoorbellChoice::Futex } else { DoorbellChoice::Notify };
    let platform: Arc<dyn Platform> = Arc::new(Systrap::new(Options { doorbell }).unwrap());
    let server = Arc::clone(&platform);
    let serving = std::thread::spawn(move || server.serve());

    let n = 100_000;
    // mov $1000, %eax; syscall
    let trapped = loop_of(&[0xb8, 0xe8, 3, 0, 0, 0x0f, 0x05]);
    // mov $1000, %rax; syscall, in the long form that is not patched
    let unpatched = loop_of(&[0x48, 0xc7, 0xc0, 0xe8, 3, 0, 0, 0x0f, 0x05]);
    for (name, code) in [("trapped", &unpatched), ("patched", &trapped)] {
        for _ in 0..3 {
            let owner = Owner::new(n);
            let context = start(&*platform, &owner, code);
            let begun = Instant::now();
            context.resume(&[]);
            owner.wait();
            println!("{name} call: {} ns", begun.elapsed().as_nanos() / u128::from(n));
            context.exit();
            owner.wait();
        }
    }
    // Ten million times getpid, then another call.
    let mut code = vec![0xbb];
    code.extend(10_000_000_u32.to_le_bytes());
    code.extend([
        0xb8, 39, 0, 0, 0, 0x0f, 0x05, 0xff, 0xcb, 0x75, 0xf5, 0xb8, 0xe8, 3, 0, 0, 0x0f, 0x05,
    ]);
    let owner = Owner::new(5);
    let context = start(&*platform, &owner, &loop_of(&code));
    context.set_fast_path(Some(FastPathFacts { pid: 1, ..FastPathFacts::default() }));
    let begun = Instant::now();
    context.resume(&[]);
    owner.wait();
    println!("answered in the stub: {} ns / 100", begun.elapsed().as_nanos() / 100_000 / 2);
    context.exit();
    owner.wait();
    for (name, number) in [("fork + exit + wait", 57), ("thread create + exit + wait", 56)] {
        let n = 2000;
        let code = loop_of(&[
            0xb8, number, 0, 0, 0, 0x0f, 0x05, 0xb8, 61, 0, 0, 0, 0x0f, 0x05, 0xb8, 0xe8, 3, 0, 0,
            0x0f, 0x05,
        ]);
        let owner = Owner::new(n);
        let context = start(&*platform, &owner, &code);
        let begun = Instant::now();
        context.resume(&[]);
        owner.wait();
        println!("{name}: {} ns", begun.elapsed().as_nanos() / u128::from(n));
        context.exit();
        owner.wait();
    }
    let n: u32 = 500;
    let begun = Instant::now();
    for _ in 0..n {
        let owner = Owner::new(1);
        let context = start(&*platform, &owner, &trapped);
        context.resume(&[]);
        owner.wait();
        context.exit();
        owner.wait();
    }
    println!(
        "new address space with two mappings, one call and exit: {} ns",
        (begun.elapsed() / n).as_nanos()
    );
    platform.shutdown();
    serving.join().unwrap();
}
