//! Random things that several processes do to each other, whose results must be the host's: process trees, groups,
//! sessions, stops and waits; and record locks.
//!
//! `fuzz_team processes|locks SEED STEPS [1]` prints digests as `fuzz_model` does. One process at a time is told to do
//! something, and what it sets off is over before the next: nothing that is printed depends on ids or time.

use std::fmt::Write;
use std::sync::atomic::{AtomicU32, Ordering};

use guest_tests::fs::{self, close};
use guest_tests::mem::zeroed;
use guest_tests::rng::{Log, Rng};
use guest_tests::runner::exit;
use guest_tests::team::{Answer, Order, PING, State, Team, plain};
use guest_tests::{SysResult, proc, sig, sys};

const FORK: i64 = 1;
const EXIT: i64 = 2;
const KILL: i64 = 3;
const SETPGID: i64 = 4;
const SETSID: i64 = 5;
const GETPGID: i64 = 6;
const GETSID: i64 = 7;
const GETPPID: i64 = 8;
const WAITID: i64 = 9;
const WAIT4: i64 = 10;
const SUBREAPER: i64 = 11;
const DEATH_SIGNAL: i64 = 12;
const CHILD_ACTION: i64 = 13;
const MASK: i64 = 14;

/// How a child is made: as an own group, as an own session, as a sibling, with another signal of its end.
const OWN_GROUP: i64 = 1;
const OWN_SESSION: i64 = 2;
const SIBLING: i64 = 4;
const OTHER_SIGNAL: i64 = 8;

/// How many `SIGUSR1` have arrived, and how many `SIGHUP`.
static SIGNALS: [AtomicU32; 2] = [AtomicU32::new(0), AtomicU32::new(0)];

extern "C" fn count(signo: i32, _info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    SIGNALS[usize::from(signo == libc::SIGHUP)].fetch_add(1, Ordering::SeqCst);
}

fn fork(team: &Team, seat: i64, how: i64) -> SysResult {
    let mut flags = if how & OTHER_SIGNAL != 0 { libc::SIGUSR1 } else { libc::SIGCHLD };
    if how & SIBLING != 0 {
        flags |= libc::CLONE_PARENT;
    }
    let pid = sys!(SYS_clone, flags, 0, 0, 0, 0)?;
    if pid == 0 {
        if how & OWN_GROUP != 0 {
            let _ = sys!(SYS_setpgid, 0, 0);
        }
        if how & OWN_SESSION != 0 {
            let _ = sys!(SYS_setsid);
        }
        team.serve(seat as usize, act);
    }
    Ok(pid)
}

fn wait_id(kind: i64, id: i64, options: i64) -> (SysResult, i64) {
    let mut info = [0i32; 32];
    let result = sys!(SYS_waitid, kind, id, &mut info, options, 0);
    // `si_pid`, `si_code`, `si_status`.
    let told = i64::from(info[2]) << 8 | i64::from(info[5] & 0xff);
    (result.map(|_| told as usize), i64::from(info[3]))
}

/// Carries out one order of the fuzzer of processes.
fn act(team: &Team, _seat: usize, order: &Order) -> (SysResult, i64) {
    let [what, a, b, c, ..] = *order;
    let result = match what {
        FORK => fork(team, a, b),
        EXIT => exit(a as i32),
        KILL => sys!(SYS_kill, a, b),
        SETPGID => sys!(SYS_setpgid, a, b),
        SETSID => sys!(SYS_setsid),
        GETPGID => sys!(SYS_getpgid, a),
        GETSID => sys!(SYS_getsid, a),
        GETPPID => sys!(SYS_getppid),
        WAITID => return wait_id(a, b, c),
        WAIT4 => {
            let mut status = 0i32;
            let result = sys!(SYS_wait4, a, &mut status, b, 0);
            return (Ok(status as usize), result.map_or_else(|e| -i64::from(e), |pid| pid as i64));
        }
        SUBREAPER => sys!(SYS_prctl, libc::PR_SET_CHILD_SUBREAPER, a, 0, 0, 0),
        DEATH_SIGNAL => sys!(SYS_prctl, libc::PR_SET_PDEATHSIG, a, 0, 0, 0),
        CHILD_ACTION => {
            let handler = usize::from(a == 1);
            let flags = [0, 0, libc::SA_NOCLDWAIT, libc::SA_NOCLDSTOP][a as usize % 4];
            let mut action = sig::action(libc::SIGCHLD).unwrap_or_else(|_| zeroed());
            (action.handler, action.flags) = (handler, flags as u64);
            sig::set(libc::SIGCHLD, &action).map(|_| 0)
        }
        PING => {
            let seen = SIGNALS.each_ref().map(|signal| signal.load(Ordering::SeqCst) as usize);
            Ok(seen[0] << 8 | seen[1])
        }
        MASK => sig::mask(a as i32, b as u64).map(|old| old as usize),
        _ => Err(libc::ENOSYS),
    };
    (result, 0)
}

/// The fuzzer of processes.
struct Processes {
    team: Team,
    rng: Rng,
    log: Log,
    states: Vec<State>,
}

impl Processes {
    /// Who can be told to do something: the first process always can.
    fn anybody(&mut self) -> usize {
        let live: Vec<usize> = (0..self.states.len())
            .filter(|seat| *seat == 0 || self.states[*seat] == State::Live)
            .collect();
        self.rng.pick(&live)
    }

    /// Any process that is or was.
    fn target(&mut self) -> i64 {
        let pids: Vec<i32> =
            self.team.members.iter().map(|member| member.pid).filter(|pid| *pid > 0).collect();
        i64::from(self.rng.pick(&pids))
    }

    fn names(&self, pid: i64) -> i64 {
        if pid <= 0 {
            return pid;
        }
        i32::try_from(pid)
            .ok()
            .and_then(|pid| self.team.seat_of(pid))
            .map_or(99, |seat| seat as i64)
    }

    /// Notes an answer, with seats for process ids.
    fn note(&mut self, order: &Order, answer: &Answer) {
        let [seat, _, mut value, mut more] = *answer;
        match order[0] {
            FORK if value > 0 => value = order[1],
            SETSID | GETPGID | GETSID | GETPPID => value = self.names(value),
            WAITID | WAIT4 => more = self.names(more),
            _ => {}
        }
        let result = usize::try_from(value).map_err(|_| -value as i32);
        self.log.result(&format!("{seat}:{}/{more}", order[0]), result);
    }

    /// Whether a signal would stop or end the first process.
    fn harms(&self, who: usize, target: i64, signo: i64) -> bool {
        let first = i64::from(self.team.members[0].pid);
        let group = match target {
            0 => sys!(SYS_getpgid, self.team.members[who].pid).map_or(0, |group| group as i64),
            _ => -target,
        };
        let harmless = [0, libc::SIGUSR1, libc::SIGCONT, libc::SIGHUP];
        !harmless.contains(&(signo as i32)) && (target == first || group == first)
    }

    fn kill_order(&mut self, who: usize) -> Order {
        let target = self.target();
        let target = match self.rng.below(6) {
            0 => 0,
            1 | 2 => -target,
            _ => target,
        };
        let signo = self.rng.pick(&[
            0,
            libc::SIGUSR1,
            libc::SIGSTOP,
            libc::SIGSTOP,
            libc::SIGTSTP,
            libc::SIGTTIN,
            libc::SIGCONT,
            libc::SIGCONT,
            libc::SIGCONT,
            libc::SIGTERM,
            libc::SIGKILL,
            libc::SIGHUP,
        ]);
        // Of several that end at once nobody knows which is the first to leave its children to another.
        let is_one = self.states.iter().enumerate().any(|(seat, state)| {
            i64::from(self.team.members[seat].pid) == target && *state == State::Live
        });
        let signo = match signo {
            libc::SIGTERM | libc::SIGKILL if !is_one => libc::SIGSTOP,
            _ => signo,
        };
        let signo = i64::from(signo);
        let signo = if self.harms(who, target, signo) { 0 } else { signo };
        [KILL, target, signo, 0, 0, 0]
    }

    fn wait_order(&mut self) -> Order {
        let target = self.target();
        let special = self.rng.pick(&[0, 0, libc::__WALL, libc::__WCLONE, libc::__WNOTHREAD]);
        if self.rng.one_in(2) {
            let kind = self.rng.pick(&[libc::P_ALL, libc::P_PID, libc::P_PGID]) as i64;
            let mut options = libc::WNOHANG | special;
            for option in [libc::WEXITED, libc::WEXITED, libc::WSTOPPED, libc::WCONTINUED] {
                options |= if self.rng.one_in(2) { option } else { 0 };
            }
            options |= if self.rng.one_in(4) { libc::WNOWAIT } else { 0 };
            return [WAITID, kind, target, i64::from(options), 0, 0];
        }
        let mut options = libc::WNOHANG | special;
        for option in [libc::WUNTRACED, libc::WCONTINUED] {
            options |= if self.rng.one_in(2) { option } else { 0 };
        }
        let target = match self.rng.below(4) {
            0 => 0,
            1 => -target,
            2 => target,
            _ => -1,
        };
        [WAIT4, target, i64::from(options), 0, 0, 0]
    }

    fn choose(&mut self, who: usize) -> Order {
        let free = (1..self.states.len()).find(|seat| self.states[*seat] == State::Gone);
        let (target, other) = (self.target(), self.target());
        match self.rng.below(24) {
            0..5 if let Some(seat) = free => {
                let mut how = 0;
                for (option, often) in
                    [(OWN_GROUP, 3), (OWN_SESSION, 8), (SIBLING, 8), (OTHER_SIGNAL, 8)]
                {
                    how |= if self.rng.one_in(often) { option } else { 0 };
                }
                // The first one's parent is not of the team.
                how &= if who == 0 { !SIBLING } else { !0 };
                [FORK, seat as i64, how, 0, 0, 0]
            }
            5 if who != 0 => [EXIT, self.rng.below(256) as i64, 0, 0, 0, 0],
            6..11 => self.kill_order(who),
            // The first one stays where it is.
            11 | 12 if target != i64::from(self.team.members[0].pid) => {
                let own = i64::from(self.team.members[who].pid);
                let to = self.rng.pick(&[0, target, other, own]);
                [SETPGID, target, to, 0, 0, 0]
            }
            13 if who != 0 => [SETSID, 0, 0, 0, 0, 0],
            14 => [GETPGID, target, 0, 0, 0, 0],
            15 => [GETSID, target, 0, 0, 0, 0],
            16 => [GETPPID, 0, 0, 0, 0, 0],
            17 => match self.rng.below(4) {
                0 if who != 0 => [SUBREAPER, self.rng.below(2) as i64, 0, 0, 0, 0],
                1 if who != 0 => {
                    let signo = self.rng.pick(&[0, libc::SIGUSR1, libc::SIGHUP, libc::SIGSTOP]);
                    [DEATH_SIGNAL, i64::from(signo), 0, 0, 0, 0]
                }
                2 => [CHILD_ACTION, self.rng.below(4) as i64, 0, 0, 0, 0],
                _ => {
                    let signals = [libc::SIGUSR1, libc::SIGTERM, libc::SIGTSTP, libc::SIGCONT];
                    let set = sig::bit(self.rng.pick(&signals));
                    let set = if who == 0 { 0 } else { set };
                    [MASK, self.rng.below(3) as i64, set as i64, 0, 0, 0]
                }
            },
            _ => self.wait_order(),
        }
    }

    fn step(&mut self) {
        let who = self.anybody();
        let order = self.choose(who);
        if self.log.is_verbose() {
            let names = order.map(|number| self.names(number.abs()) * number.signum());
            let _ = write!(self.log.recent, " {who}: {order:x?}, seats {names:?}:");
        }
        let (mut number, mut heard) = (0, Vec::new());
        if who == 0 {
            let (result, more) = act(&self.team, 0, &order);
            heard.push([0, 0, plain(result), more]);
        } else {
            number = self.team.order(who, order);
            heard = self.team.hear(who);
        }
        // A newborn must have its seat before it is waited for.
        let own = heard.iter().find(|answer| answer[1] == number && order[0] == FORK);
        if let Some(pid) = own.map(|answer| answer[2]).filter(|pid| *pid > 0) {
            self.team.seat(order[1] as usize, pid as i32);
        }
        let (late, states, counts) = self.team.settle();
        heard.extend(late);
        heard.sort_unstable_by_key(|answer| answer[1]);
        for answer in &heard {
            if answer[1] == number {
                self.note(&order, answer);
            } else if answer[1] != 0 {
                // From a member that was stopped meanwhile.
                self.log.result(&format!("late {}", answer[0]), Ok(0));
            }
        }
        let shown: String = states
            .iter()
            .map(|state| match state {
                State::Live => 'L',
                State::Stopped => 'T',
                State::Zombie => 'Z',
                State::Gone => '-',
            })
            .collect();
        self.states = states;
        let counts: Vec<String> = counts.iter().map(|count| format!("{count:x}")).collect();
        self.log.result(&format!("{shown} {}", counts.join(",")), Ok(0));
        self.log.step();
    }
}

fn processes(rng: Rng, log: Log, steps: usize) -> Option<()> {
    for signo in [libc::SIGUSR1, libc::SIGHUP] {
        sig::handle(signo, count, libc::SA_RESTART).ok()?;
    }
    sys!(SYS_prctl, libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0).ok()?;
    let team = Team::new(8).ok()?;
    let states = vec![State::Gone; 8];
    let mut fuzzer = Processes { team, rng, log, states };
    for _ in 0..steps {
        fuzzer.step();
    }
    fuzzer.team.end();
    fuzzer.log.end();
    Some(())
}

/// A record lock: command, file, kind, start, length.
const LOCK: i64 = 1;
const FLOCK: i64 = 2;
const REOPEN: i64 = 3;
const DUP_AND_CLOSE: i64 = 4;
const FORK_AND_CLOSE: i64 = 5;

/// What each member has open: the two files by itself, then both as all of them have them.
const OWN: [i32; 2] = [200, 201];
const SHARED: [i32; 2] = [202, 203];
const FILES: [&std::ffi::CStr; 2] = [c"one", c"two"];

fn open_at(fd: i32, file: usize) -> SysResult {
    let opened = fs::open(FILES[file], libc::O_RDWR)?;
    let result = sys!(SYS_dup2, opened, fd);
    close(opened)?;
    result
}

fn is_waiting(command: i64) -> bool {
    [libc::F_SETLKW, libc::F_OFD_SETLKW].contains(&(command as i32))
}

/// Carries out one order of the fuzzer of locks.
fn act_on_locks(team: &Team, seat: usize, order: &Order) -> (SysResult, i64) {
    let [what, a, fd, b, c, number] = *order;
    let result = match what {
        PING => Ok(0),
        LOCK => {
            let (start, len) = (c >> 16, i64::from(c as i16));
            let (kind, command) = (b & 3, a);
            if is_waiting(command) {
                team.about_to_wait(seat, number);
            }
            let mut lock: libc::flock = zeroed();
            (lock.l_type, lock.l_start, lock.l_len) = (kind as i16, start, len);
            let result = sys!(SYS_fcntl, fd, command, &mut lock);
            let seen = lock.l_start << 24 | lock.l_len << 4 | i64::from(lock.l_type);
            return (result.map(|_| seen as usize), i64::from(lock.l_pid));
        }
        FLOCK => sys!(SYS_flock, fd, a),
        REOPEN => open_at(fd as i32, (fd as i32 - OWN[0]) as usize),
        DUP_AND_CLOSE => sys!(SYS_dup, fd).and_then(|fd| close(fd as i32).map(|()| 0)),
        FORK_AND_CLOSE => proc::child(|| close(fd as i32).map_or(1, |()| 0))
            .and_then(proc::wait)
            .map(|end| usize::from(end == proc::End::Code(0))),
        _ => Err(libc::ENOSYS),
    };
    (result, 0)
}

/// The fuzzer of locks.
struct Locks {
    team: Team,
    rng: Rng,
    log: Log,
}

impl Locks {
    fn choose(&mut self) -> Order {
        let file = self.rng.below(2);
        let fd = if self.rng.one_in(3) { SHARED[file] } else { OWN[file] };
        match self.rng.below(20) {
            0 => [REOPEN, 0, i64::from(OWN[file]), 0, 0, 0],
            1 => [DUP_AND_CLOSE, 0, i64::from(fd), 0, 0, 0],
            2 => [FORK_AND_CLOSE, 0, i64::from(fd), 0, 0, 0],
            3..6 => {
                let how = self.rng.pick(&[libc::LOCK_SH, libc::LOCK_EX, libc::LOCK_UN, 0, 3]);
                [FLOCK, i64::from(how | libc::LOCK_NB), i64::from(fd), 0, 0, 0]
            }
            _ => {
                let command = self.rng.pick(&[
                    libc::F_SETLK,
                    libc::F_SETLK,
                    libc::F_SETLKW,
                    libc::F_SETLKW,
                    libc::F_GETLK,
                    libc::F_OFD_SETLK,
                    libc::F_OFD_SETLKW,
                    libc::F_OFD_GETLK,
                ]);
                let kind = self.rng.pick(&[0, 0, 1, 1, 1, 2, 2]);
                let start = self.rng.below(60) as i64;
                let len = match self.rng.below(8) {
                    0 => 0,
                    1 => -(self.rng.below(40) as i64),
                    _ => 1 + self.rng.below(30) as i64,
                };
                [LOCK, i64::from(command), i64::from(fd), kind, start << 16 | len & 0xffff, 0]
            }
        }
    }

    /// Lets members wait until one does something without waiting, then ends all waits.
    fn step(&mut self) {
        let mut heard: Vec<Answer> = Vec::new();
        let mut waiting: Vec<usize> = Vec::new();
        let mut files: Vec<i64> = Vec::new();
        loop {
            let idle: Vec<usize> = (1..5).filter(|seat| !waiting.contains(seat)).collect();
            let (who, order) = (self.rng.pick(&idle), self.choose());
            let may_wait = order[0] == LOCK && is_waiting(order[1]);
            // Who of two that wait for one file gets it first is nobody's promise.
            if may_wait && (files.contains(&(order[2] & 1)) || waiting.len() > 2) {
                continue;
            }
            self.team.order(who, order);
            heard.extend(self.team.hear_or_wait(who, may_wait));
            if self.team.is_idle(who) {
                break;
            }
            waiting.push(who);
            files.push(order[2] & 1);
        }
        for seat in waiting {
            let _ = sys!(SYS_kill, self.team.members[seat].pid, libc::SIGUSR1);
            heard.extend(self.team.hear(seat));
        }
        heard.sort_unstable_by_key(|answer| answer[1]);
        for [seat, _, value, more] in heard {
            let result = usize::try_from(value).map_err(|_| -value as i32);
            let other = i32::try_from(more).ok().and_then(|pid| self.team.seat_of(pid));
            self.log.result(
                &format!("{seat}/{}", other.map_or(more.min(0), |seat| seat as i64)),
                result,
            );
        }
        self.log.step();
    }
}

fn locks(rng: Rng, log: Log, steps: usize) -> Option<()> {
    sig::handle(libc::SIGUSR1, count, 0).ok()?;
    let mut team = Team::new(5).ok()?;
    for file in 0..2 {
        fs::put(FILES[file], &[0; 40]).ok()?;
        open_at(SHARED[file], file).ok()?;
    }
    for seat in 1..5 {
        let pid = proc::child(|| {
            for (file, own) in OWN.iter().enumerate() {
                let _ = open_at(*own, file);
            }
            team.serve(seat, act_on_locks)
        });
        team.seat(seat, pid.ok()?);
    }
    let mut fuzzer = Locks { team, rng, log };
    for _ in 0..steps {
        fuzzer.step();
    }
    fuzzer.team.end();
    fuzzer.log.end();
    Some(())
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let number = |n: usize| arguments.get(n).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    let (seed, steps) = (number(2), number(3) as usize);
    // Not the first process of a container, and of no session but its own.
    let pid = proc::child(|| {
        let dir = format!("/tmp/team-{}", proc::pid());
        let _ = std::fs::create_dir_all(&dir);
        let _ = std::env::set_current_dir(&dir);
        let _ = sys!(SYS_setsid);
        let (rng, log) = (Rng::new(seed), Log::new(number(4) > 0));
        let done = match arguments.get(1).map(String::as_str) {
            Some("processes") => processes(rng, log, steps),
            Some("locks") => locks(rng, log, steps),
            _ => None,
        };
        let _ = std::env::set_current_dir("/");
        let _ = std::fs::remove_dir_all(&dir);
        i32::from(done.is_none())
    });
    match pid.and_then(proc::wait) {
        Ok(proc::End::Code(0)) => exit(0),
        _ => {
            let _ = fs::write_all(2, b"usage: fuzz_team processes|locks SEED STEPS [1]\n");
            exit(2);
        }
    }
}
