//! A team of processes that do what the first of them says, one thing at a time: what the fuzzers of processes and
//! locks are made of.
//!
//! Each member reads orders from a pipe of its own and answers through one that all share. An order may stop or end
//! its member, or others: [`Team::settle`] waits until what has been set off is over.

use crate::fs::{self, read};
use crate::mem::zeroed;
use crate::{SysResult, proc, runner, sys};

/// What a member is told: what to do, and with what.
pub type Order = [i64; 6];
/// What a member says: who, which order (its number), the result or the negative error, and something more.
pub type Answer = [i64; 4];

/// An order that asks how the member is; it must be one that changes nothing.
pub const PING: i64 = 0;
/// What a member says when it is about to wait.
const ABOUT_TO_WAIT: i64 = i64::MIN;

/// What becomes of the members, as far as anybody sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It can be told to do something.
    Live,
    /// It is stopped.
    Stopped,
    /// It has ended and waits to be reaped.
    Zombie,
    /// It is not there.
    Gone,
}

/// One seat of the team.
#[derive(Debug)]
pub struct Member {
    /// The process in this seat, zero for none so far.
    pub pid: i32,
    orders: (i32, i32),
    /// How many orders have not been answered.
    open: usize,
}

/// The first process and its members; the seat with the number zero is its own.
#[derive(Debug)]
pub struct Team {
    /// The seats.
    pub members: Vec<Member>,
    answers: (i32, i32),
    sent: i64,
}

fn bytes_of<const N: usize>(numbers: &[i64; N]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_ne_bytes()).collect()
}

fn numbers_of<const N: usize>(bytes: &[u8]) -> [i64; N] {
    let mut words = bytes.chunks_exact(8);
    core::array::from_fn(|_| {
        words.next().and_then(|word| word.try_into().ok()).map_or(0, i64::from_ne_bytes)
    })
}

/// Returns a result as one number: negative for an error.
pub fn plain(result: SysResult) -> i64 {
    result.map_or_else(|errno| -i64::from(errno), |value| value as i64)
}

fn is_readable(fd: i32) -> bool {
    let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    sys!(SYS_poll, &mut poll, 1, 0) == Ok(1)
}

impl Team {
    /// Makes a team with so many seats, all empty but the first.
    pub fn new(seats: usize) -> Result<Team, i32> {
        let mut members = Vec::new();
        for _ in 0..seats {
            members.push(Member { pid: 0, orders: fs::pipe(0)?, open: 0 });
        }
        members[0].pid = proc::pid();
        Ok(Team { members, answers: fs::pipe(0)?, sent: 0 })
    }

    /// What the process in `seat` does from now on: it carries out orders until it ends.
    pub fn serve(&self, seat: usize, act: impl Fn(&Team, usize, &Order) -> (SysResult, i64)) -> ! {
        loop {
            let mut bytes = [0u8; 48];
            match read(self.members[seat].orders.0, &mut bytes) {
                Ok(48) => {}
                Err(libc::EINTR) => continue,
                _ => runner::exit(99),
            }
            let order: Order = numbers_of(&bytes);
            let (result, more) = act(self, seat, &order);
            self.say(seat, order[5], result, more);
        }
    }

    /// Says that the order of this number is one that may wait.
    pub fn about_to_wait(&self, seat: usize, number: i64) {
        self.tell(&[seat as i64, number, ABOUT_TO_WAIT, 0]);
    }

    fn say(&self, seat: usize, number: i64, result: SysResult, more: i64) {
        self.tell(&[seat as i64, number, plain(result), more]);
    }

    fn tell(&self, answer: &Answer) {
        let answer = bytes_of(answer);
        // At once, whatever signals come: it is shorter than a pipe's unit.
        while sys!(SYS_write, self.answers.1, &answer[..], answer.len()) == Err(libc::EINTR) {}
    }

    /// Puts a new process into a seat.
    pub fn seat(&mut self, seat: usize, pid: i32) {
        let member = &mut self.members[seat];
        member.pid = pid;
        member.open = 0;
        // Orders that the one before it has not read.
        while is_readable(member.orders.0) {
            let _ = read(member.orders.0, &mut [0u8; 48]);
        }
    }

    /// Returns the seat of a process.
    pub fn seat_of(&self, pid: i32) -> Option<usize> {
        self.members.iter().rposition(|member| member.pid == pid && pid > 0)
    }

    /// Returns what is seen of the process in a seat.
    pub fn state(&self, seat: usize) -> State {
        let pid = self.members[seat].pid;
        let mut letter = if pid == 0 { None } else { proc::state(pid) };
        // It is over, but can be named until it is removed.
        while letter == Some('X') {
            pause();
            letter = proc::state(pid);
        }
        match letter {
            None => State::Gone,
            Some('T' | 't') => State::Stopped,
            Some('Z') => State::Zombie,
            Some(_) => State::Live,
        }
    }

    /// Gives an order; returns its number.
    pub fn order(&mut self, seat: usize, mut order: Order) -> i64 {
        if order[0] != PING {
            self.sent += 1;
            order[5] = self.sent;
        }
        self.members[seat].open += 1;
        let _ = fs::write_all(self.members[seat].orders.1, &bytes_of(&order));
        order[5]
    }

    /// Takes an answer that has come.
    fn answer(&mut self) -> Option<Answer> {
        if !is_readable(self.answers.0) {
            return None;
        }
        let mut bytes = [0u8; 32];
        let n = read(self.answers.0, &mut bytes).ok()?;
        let answer: Answer = numbers_of(&bytes);
        let member = self.members.get_mut(usize::try_from(answer[0]).ok()?)?;
        if answer[2] != ABOUT_TO_WAIT {
            member.open = member.open.saturating_sub(1);
        }
        (n == bytes.len()).then_some(answer)
    }

    /// Waits until a member answers, or until it cannot.
    pub fn hear(&mut self, seat: usize) -> Vec<Answer> {
        let mut heard = Vec::new();
        while self.members[seat].open > 0 {
            match self.answer() {
                Some(answer) => heard.push(answer),
                None if self.state(seat) == State::Live => pause(),
                // What it has said before is there by now.
                None => match self.answer() {
                    Some(answer) => heard.push(answer),
                    None => break,
                },
            }
        }
        heard
    }

    /// Waits until a member has answered or, where it may, waits in what it was told; returns what has been said.
    pub fn hear_or_wait(&mut self, seat: usize, may_wait: bool) -> Vec<Answer> {
        let mut heard: Vec<Answer> = Vec::new();
        let (mut is_about_to, mut asleep) = (false, 0);
        while self.members[seat].open > 0 && asleep < 4 {
            if let Some(answer) = self.answer() {
                asleep = 0;
                if answer[2] == ABOUT_TO_WAIT {
                    is_about_to = true;
                } else {
                    heard.push(answer);
                }
                continue;
            }
            let is_asleep = proc::state(self.members[seat].pid) == Some('S');
            asleep = if may_wait && is_about_to && is_asleep { asleep + 1 } else { 0 };
            pause();
        }
        heard
    }

    /// Returns whether a member has answered all orders.
    pub fn is_idle(&self, seat: usize) -> bool {
        self.members[seat].open == 0
    }

    /// Waits until every member is idle, stopped or gone, and says what it was late with; returns the answers, how
    /// things stand, and what the members have said to that.
    pub fn settle(&mut self) -> (Vec<Answer>, Vec<State>, Vec<i64>) {
        let mut heard = Vec::new();
        let mut before = Vec::new();
        loop {
            let mut said = vec![0; self.members.len()];
            for seat in 1..self.members.len() {
                if self.state(seat) == State::Live {
                    self.order(seat, [PING, 0, 0, 0, 0, 0]);
                    heard.extend(self.hear(seat));
                }
            }
            while let Some(answer) = self.answer() {
                heard.push(answer);
            }
            // Those to pings have no number.
            heard.retain(|answer: &Answer| {
                if answer[1] == 0 {
                    said[answer[0] as usize] = answer[2];
                }
                answer[1] != 0
            });
            let states: Vec<State> = (0..self.members.len()).map(|seat| self.state(seat)).collect();
            if states == before {
                heard.sort_unstable_by_key(|answer| answer[1]);
                return (heard, states, said);
            }
            before = states;
        }
    }

    /// Ends all members.
    pub fn end(&mut self) {
        for member in &self.members[1..] {
            if member.pid > 0 {
                let _ = sys!(SYS_kill, member.pid, libc::SIGKILL);
            }
        }
        let mut status = 0i32;
        while sys!(SYS_wait4, -1, &mut status, libc::__WALL, 0) != Err(libc::ECHILD) {}
    }
}

fn pause() {
    let time: libc::timespec = libc::timespec { tv_nsec: 100_000, ..zeroed() };
    let _ = sys!(SYS_nanosleep, &time, 0);
}
