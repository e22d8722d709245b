//! Classic BPF (`net/core/filter.c`): programs that look at a message or a system call and return a number.
//!
//! A program is checked once, as Linux does: it only jumps forwards, ends with a return, and reads no
//! scratch memory that it has not written. So it comes to its end, whatever it looks at.

use syscalls::abi::prctl::SockFilter;
use syscalls::{Errno, SysResult};

/// The longest program.
pub(crate) const MAX_INSTRUCTIONS: usize = 4096;
/// How many words of scratch memory there are.
const N_WORDS: usize = 16;

/// Classes: the lowest three bits of a code.
const LD: u16 = 0;
const LDX: u16 = 1;
const ST: u16 = 2;
const STX: u16 = 3;
const ALU: u16 = 4;
const JMP: u16 = 5;
const RET: u16 = 6;
const MISC: u16 = 7;
/// Sizes of loads.
const H: u16 = 0x08;
const B: u16 = 0x10;
/// Modes of loads.
const IMM: u16 = 0x00;
const ABS: u16 = 0x20;
const IND: u16 = 0x40;
const MEM: u16 = 0x60;
const LEN: u16 = 0x80;
const MSH: u16 = 0xa0;
/// Arithmetic.
const ADD: u16 = 0x00;
const SUB: u16 = 0x10;
const MUL: u16 = 0x20;
const DIV: u16 = 0x30;
const OR: u16 = 0x40;
const AND: u16 = 0x50;
const LSH: u16 = 0x60;
const RSH: u16 = 0x70;
const NEG: u16 = 0x80;
const MOD: u16 = 0x90;
const XOR: u16 = 0xa0;
/// Jumps.
const JA: u16 = 0x00;
const JEQ: u16 = 0x10;
const JGT: u16 = 0x20;
const JGE: u16 = 0x30;
const JSET: u16 = 0x40;
/// The second operand is X, and not the instruction's constant.
const X: u16 = 0x08;
/// The result is A.
const A: u16 = 0x10;
/// Register transfers.
const TAX: u16 = 0x00;
const TXA: u16 = 0x80;

/// What a program looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Input {
    /// A `struct seccomp_data` of this many bytes: aligned words only.
    Call(u32),
    /// A message.
    Message,
}

/// How much a load reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Size {
    Word,
    Half,
    Byte,
}

/// A program that has been checked.
#[derive(Debug)]
pub(crate) struct Program(Box<[SockFilter]>);

impl Program {
    /// Checks a program.
    ///
    /// # Errors
    /// `EINVAL`.
    pub(crate) fn new(instructions: Vec<SockFilter>, input: Input) -> SysResult<Self> {
        let is_fine = !instructions.is_empty()
            && instructions.len() <= MAX_INSTRUCTIONS
            && instructions.last().is_some_and(|last| last.code & 7 == RET)
            && instructions.iter().enumerate().all(|(pc, it)| {
                is_known(it, input) && jumps_within(it, instructions.len().saturating_sub(pc + 1))
            })
            && reads_what_it_wrote(&instructions);
        if is_fine { Ok(Self(instructions.into())) } else { Err(Errno::EINVAL) }
    }

    /// Returns how many instructions there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns the instructions.
    pub(crate) fn instructions(&self) -> &[SockFilter] {
        &self.0
    }

    /// Runs the program on `len` bytes of which `load` gives what it asks for. Returns `None` where
    /// `load` does.
    pub(crate) fn run(
        &self,
        len: u32,
        mut load: impl FnMut(Size, u32) -> Option<u32>,
    ) -> Option<u32> {
        let (mut a, mut x, mut memory) = (0u32, 0u32, [0u32; N_WORDS]);
        let mut pc = 0usize;
        loop {
            let it = self.0.get(pc)?;
            pc = pc.checked_add(1)?;
            let word = |k: u32| usize::try_from(k).ok();
            match it.code & 7 {
                LD | LDX => {
                    let value = match it.code & 0xe0 {
                        IMM => it.k,
                        LEN => len,
                        MEM => *memory.get(word(it.k)?)?,
                        ABS => load(size(it.code), it.k)?,
                        IND => load(size(it.code), x.wrapping_add(it.k))?,
                        MSH => load(Size::Byte, it.k)?.wrapping_shl(2) & 0x3c,
                        _ => return None,
                    };
                    *(if it.code & 7 == LD { &mut a } else { &mut x }) = value;
                }
                ST => *memory.get_mut(word(it.k)?)? = a,
                STX => *memory.get_mut(word(it.k)?)? = x,
                ALU => {
                    match calculate(it.code & 0xf0, a, if it.code & X == 0 { it.k } else { x }) {
                        Some(result) => a = result,
                        // A division by zero ends the program.
                        None => return Some(0),
                    }
                }
                JMP => {
                    let with = if it.code & X == 0 { it.k } else { x };
                    let holds = match it.code & 0xf0 {
                        JA => {
                            pc = pc.checked_add(word(it.k)?)?;
                            continue;
                        }
                        JEQ => a == with,
                        JGT => a > with,
                        JGE => a >= with,
                        JSET => a & with != 0,
                        _ => return None,
                    };
                    pc = pc.checked_add(if holds { it.jt } else { it.jf }.into())?;
                }
                RET => return Some(if it.code & A == 0 { it.k } else { a }),
                _ if it.code & 0xf8 == TXA => a = x,
                _ => x = a,
            }
        }
    }
}

fn size(code: u16) -> Size {
    match code & 0x18 {
        H => Size::Half,
        B => Size::Byte,
        _ => Size::Word,
    }
}

fn calculate(operation: u16, a: u32, with: u32) -> Option<u32> {
    Some(match operation {
        ADD => a.wrapping_add(with),
        SUB => a.wrapping_sub(with),
        MUL => a.wrapping_mul(with),
        DIV => a.checked_div(with)?,
        MOD => a.checked_rem(with)?,
        OR => a | with,
        AND => a & with,
        XOR => a ^ with,
        LSH => a.wrapping_shl(with),
        RSH => a.wrapping_shr(with),
        _ => a.wrapping_neg(),
    })
}

/// Returns whether an instruction exists and has a sensible constant.
fn is_known(it: &SockFilter, input: Input) -> bool {
    let code = it.code;
    let is_constant = code & X == 0;
    match code & 7 {
        LD if code == LD | ABS => match input {
            Input::Call(len) => it.k.is_multiple_of(4) && it.k < len,
            Input::Message => true,
        },
        LD if [ABS | H, ABS | B, IND, IND | H, IND | B].contains(&(code & !7)) => {
            input == Input::Message
        }
        LD | LDX if code & !7 == MEM => usize::try_from(it.k).is_ok_and(|k| k < N_WORDS),
        LD | LDX if [IMM, LEN].contains(&(code & !7)) => true,
        LDX if code == LDX | MSH | B => input == Input::Message,
        ST | STX => code & !7 == 0 && usize::try_from(it.k).is_ok_and(|k| k < N_WORDS),
        ALU if code & !0xff != 0 => false,
        ALU => match code & 0xf0 {
            NEG => is_constant,
            // seccomp has no remainder.
            MOD if input != Input::Message => false,
            DIV | MOD => !is_constant || it.k != 0,
            LSH | RSH => !is_constant || it.k < 32,
            ADD | SUB | MUL | OR | AND | XOR => true,
            _ => false,
        },
        JMP if code & !0xff != 0 => false,
        JMP => match code & 0xf0 {
            JA => is_constant,
            JEQ | JGT | JGE | JSET => true,
            _ => false,
        },
        RET => code == RET || code == RET | A,
        MISC => code == MISC | TAX || code == MISC | TXA,
        _ => false,
    }
}

/// Returns whether a jump, if it is one, stays among the `left` instructions that follow.
fn jumps_within(it: &SockFilter, left: usize) -> bool {
    let is_within = |offset: u32| usize::try_from(offset).is_ok_and(|offset| offset < left);
    match it.code & 7 {
        JMP if it.code & 0xf0 == JA => is_within(it.k),
        JMP => is_within(it.jt.into()) && is_within(it.jf.into()),
        _ => true,
    }
}

/// Returns whether every word of memory is written, on each way, before it is read.
fn reads_what_it_wrote(instructions: &[SockFilter]) -> bool {
    let mut written_at = vec![u16::MAX; instructions.len()];
    let mut written = 0u16;
    for (pc, it) in instructions.iter().enumerate() {
        written &= written_at.get(pc).copied().unwrap_or(0);
        let bit = 1u16.checked_shl(it.k).unwrap_or(0);
        let mut arrive = |offset: u32| {
            let target = usize::try_from(offset)
                .ok()
                .and_then(|offset| pc.checked_add(offset)?.checked_add(1));
            if let Some(mask) = target.and_then(|target| written_at.get_mut(target)) {
                *mask &= written;
            }
        };
        match it.code & 7 {
            ST | STX => written |= bit,
            LD | LDX if it.code & 0xe0 == MEM && written & bit == 0 => return false,
            JMP if it.code & 0xf0 == JA => {
                arrive(it.k);
                written = u16::MAX;
            }
            JMP => {
                arrive(it.jt.into());
                arrive(it.jf.into());
                written = u16::MAX;
            }
            _ => {}
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn i(code: u16, jt: u8, jf: u8, k: u32) -> SockFilter {
        SockFilter { code, jt, jf, k }
    }

    fn program(instructions: &[SockFilter]) -> SysResult<Program> {
        Program::new(instructions.to_vec(), Input::Call(64))
    }

    fn run(instructions: &[SockFilter], words: &[u32]) -> Option<u32> {
        program(instructions)
            .expect("a good program")
            .run(64, |_, offset| words.get(usize::try_from(offset / 4).expect("small")).copied())
    }

    #[test]
    fn programs_calculate() {
        let sum = [
            i(LD | ABS, 0, 0, 0),
            i(MISC | TAX, 0, 0, 0),
            i(LD | ABS, 0, 0, 4),
            i(ALU | ADD | X, 0, 0, 0),
        ];
        let end = [i(RET | A, 0, 0, 0)];
        assert_eq!(run(&[&sum[..], &end].concat(), &[3, 4]), Some(7));
        let divided =
            [&sum[..], &[i(LDX | IMM, 0, 0, 0), i(ALU | DIV | X, 0, 0, 0)], &end].concat();
        assert_eq!(run(&divided, &[3, 4]), Some(0));
        let kept =
            [&sum[..], &[i(ST, 0, 0, 15), i(LD | IMM, 0, 0, 1), i(LD | MEM, 0, 0, 15)], &end]
                .concat();
        assert_eq!(run(&kept, &[3, 4]), Some(7));
        assert_eq!(run(&[i(LD | ABS, 0, 0, 4), i(RET | A, 0, 0, 0)], &[3]), None);
    }

    #[test]
    fn programs_branch() {
        let branch =
            [i(LD | ABS, 0, 0, 0), i(JMP | JGT, 1, 0, 10), i(RET, 0, 0, 1), i(RET, 0, 0, 2)];
        assert_eq!((run(&branch, &[10]), run(&branch, &[11])), (Some(1), Some(2)));
        let skip = [i(JMP | JA, 0, 0, 1), i(RET, 0, 0, 1), i(RET, 0, 0, 2)];
        assert_eq!(run(&skip, &[]), Some(2));
    }

    #[test]
    fn bad_programs_are_refused() {
        let ret = i(RET, 0, 0, 0);
        for bad in [
            vec![],
            vec![i(LD | IMM, 0, 0, 0)],
            vec![i(JMP | JA, 0, 0, 1), ret],
            vec![i(JMP | JA, 0, 0, u32::MAX), ret],
            vec![i(JMP | JEQ, 1, 0, 0), ret],
            vec![i(LD | ABS, 0, 0, 64), ret],
            vec![i(LD | ABS, 0, 0, 2), ret],
            vec![i(LD | ABS | H, 0, 0, 0), ret],
            vec![i(LD | IND, 0, 0, 0), ret],
            vec![i(LD | MEM, 0, 0, 0), ret],
            vec![i(ST, 0, 0, 16), ret],
            vec![i(ALU | DIV, 0, 0, 0), ret],
            vec![i(ALU | LSH, 0, 0, 32), ret],
            vec![i(ALU | MOD, 0, 0, 1), ret],
            vec![i(0xffff, 0, 0, 0), ret],
            // One way leads past the write.
            vec![i(JMP | JEQ, 0, 1, 0), i(ST, 0, 0, 0), i(LD | MEM, 0, 0, 0), ret],
            vec![ret; MAX_INSTRUCTIONS + 1],
        ] {
            assert_eq!(program(&bad).err(), Some(Errno::EINVAL), "{bad:?}");
        }
        assert!(program(&vec![ret; MAX_INSTRUCTIONS]).is_ok());
        let written = [i(ST, 0, 0, 0), i(JMP | JEQ, 0, 0, 0), i(LD | MEM, 0, 0, 0), ret];
        assert!(program(&written).is_ok());
    }
}
