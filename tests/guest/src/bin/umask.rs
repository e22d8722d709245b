//! `umask(2)` where it is called again and again: who shares the mask, and who sees it.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use guest_tests::fs::{close, pipe, read, stat, text, write};
use guest_tests::proc::{End, in_child, wait};
use guest_tests::quick;
use guest_tests::rng::Rng;
use guest_tests::{Outcome, check, eq, ok, sys};
use libc::{CLONE_FS, O_CREAT, O_WRONLY};

/// How often the mask is changed until it is changed again and again.
const LIVELY: usize = 150;

/// Changes the mask; returns the one before.
fn umask(mask: usize) -> usize {
    quick::umask([mask, 0, 0, 0]).unwrap_or(usize::MAX)
}

/// Changes the mask many times; it is `mask` afterwards.
fn enliven(mask: usize) -> Outcome {
    umask(0);
    for i in 1..LIVELY {
        eq!(umask(i), i - 1);
    }
    eq!(umask(mask), LIVELY - 1);
    Ok(())
}

/// Checks who sees the mask, and leaves it as it is.
fn is_seen(mask: usize) -> Outcome {
    let status = ok!(text(c"/proc/thread-self/status"));
    let line = format!("Umask:\t{mask:04o}");
    check!(status.lines().any(|told| told == line), "no {line}");
    let fd = ok!(sys!(SYS_open, c"made", O_CREAT | O_WRONLY, 0o7777)) as i32;
    ok!(close(fd));
    eq!(ok!(stat(c"made")).st_mode as usize & 0o777, 0o777 & !mask);
    ok!(sys!(SYS_unlink, c"made"));
    ok!(sys!(SYS_mkdir, c"made", 0o777));
    eq!(ok!(stat(c"made")).st_mode as usize & 0o777, 0o777 & !mask);
    ok!(sys!(SYS_rmdir, c"made"));
    Ok(())
}

fn everybody_sees_it() -> Outcome {
    let mut random = Rng::new(5);
    enliven(0)?;
    let mut mask = 0;
    for _ in 0..3000 {
        let next = random.below(0o1000);
        eq!(umask(next), mask);
        mask = next;
        if random.one_in(30) {
            is_seen(mask)?;
        }
        if random.one_in(200) {
            eq!(ok!(sys!(SYS_umask, 0o22)), mask);
            mask = 0o22;
        }
    }
    for given in [0o7000, 0o7777, usize::MAX, 1 << 40, 0xffff_fe00] {
        eq!(umask(given), mask);
        mask = given & 0o777;
        is_seen(mask)?;
        enliven(mask)?;
    }
    Ok(())
}

fn child_has_its_own() -> Outcome {
    enliven(0o12)?;
    for _ in 0..3 {
        in_child(|| {
            eq!(umask(0o34), 0o12);
            is_seen(0o34)?;
            enliven(0o56)?;
            is_seen(0o56)?;
            in_child(|| {
                eq!(umask(0o77), 0o56);
                Ok(())
            })?;
            eq!(umask(0), 0o56);
            Ok(())
        })?;
        is_seen(0o12)?;
        enliven(0o12)?;
    }
    Ok(())
}

fn processes_share_it() -> Outcome {
    enliven(0o12)?;
    for _ in 0..4 {
        // Without the memory.
        let pid = ok!(sys!(SYS_clone, CLONE_FS | libc::SIGCHLD, 0, 0, 0, 0)) as i32;
        if pid == 0 {
            let mut went_well = umask(0o34) == 0o12 && is_seen(0o34).is_ok();
            went_well &= enliven(0o56).is_ok() && is_seen(0o56).is_ok();
            let _ = sys!(SYS_exit_group, i32::from(!went_well));
        }
        eq!(ok!(wait(pid)), End::Code(0));
        is_seen(0o56)?;
        eq!(umask(0o12), 0o56);
        enliven(0o12)?;
    }
    Ok(())
}

/// The turns of one of two processes that change the mask in turn.
fn take_turns(is_first: bool, own: i32, other: i32) -> Outcome {
    for turn in 0..100 {
        if (turn % 2 == 0) != is_first {
            continue;
        }
        if turn != 0 {
            eq!(ok!(read(own, &mut [0])), 1);
        }
        eq!(umask(turn + 1), turn);
        for _ in 0..if turn % 20 < 2 { LIVELY } else { 0 } {
            eq!(umask(turn + 1), turn + 1);
        }
        eq!(ok!(write(other, &[0])), 1);
    }
    Ok(())
}

fn processes_change_it_in_turn() -> Outcome {
    let (mine, theirs) = (ok!(pipe(0)), ok!(pipe(0)));
    enliven(0)?;
    let pid = ok!(sys!(SYS_clone, CLONE_FS | libc::SIGCHLD, 0, 0, 0, 0)) as i32;
    if pid == 0 {
        let result = take_turns(false, theirs.0, mine.1);
        let _ = sys!(SYS_exit_group, i32::from(result.is_err()));
    }
    take_turns(true, mine.0, theirs.1)?;
    eq!(ok!(wait(pid)), End::Code(0));
    is_seen(100)?;
    for fd in [mine.0, mine.1, theirs.0, theirs.1] {
        ok!(close(fd));
    }
    Ok(())
}

fn threads_share_it() -> Outcome {
    enliven(0)?;
    // Each mask that was there is handed out once.
    const N: usize = 256;
    let all: Vec<AtomicBool> = (0..2 * N).map(|_| AtomicBool::new(false)).collect();
    let start = Barrier::new(2);
    for round in 0..20 {
        umask(0);
        for seen in &all {
            seen.store(false, SeqCst);
        }
        std::thread::scope(|scope| {
            let threads = [0, 1].map(|half| {
                let (all, start) = (&all, &start);
                scope.spawn(move || {
                    start.wait();
                    let own = half * N..(half + 1) * N;
                    own.filter(|mask| *mask != 0).all(|mask| {
                        all.get(umask(mask)).is_some_and(|seen| !seen.swap(true, SeqCst))
                    })
                })
            });
            threads.into_iter().all(|thread| thread.join().unwrap_or(false))
        })
        .then_some(())
        .ok_or_else(|| format!("a mask was there twice in round {round}"))?;
        let last = umask(0);
        check!(all.get(last).is_some_and(|seen| !seen.swap(true, SeqCst)));
        check!(all.iter().all(|seen| seen.load(SeqCst)), "a mask was lost");
        enliven(0)?;
    }
    Ok(())
}

fn thread_with_its_own() -> Outcome {
    enliven(0o12)?;
    let steps = Barrier::new(2);
    std::thread::scope(|scope| {
        let other = scope.spawn(|| {
            enliven(0o12)?;
            ok!(sys!(SYS_unshare, CLONE_FS));
            eq!(umask(0o34), 0o12);
            enliven(0o34)?;
            steps.wait();
            steps.wait();
            is_seen(0o34)?;
            eq!(umask(0o70), 0o34);
            enliven(0o70)
        });
        steps.wait();
        let before = umask(0o56);
        let own = enliven(0o56);
        steps.wait();
        other.join().unwrap_or_else(|_| Err("panicked".to_owned()))?;
        own?;
        eq!(before, 0o12);
        is_seen(0o56)?;
        eq!(umask(0o22), 0o56);
        Ok(())
    })
}

guest_tests::cases!(
    everybody_sees_it,
    child_has_its_own,
    processes_share_it,
    processes_change_it_in_turn,
    threads_share_it,
    thread_with_its_own,
);
