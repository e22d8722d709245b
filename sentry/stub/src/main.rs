#![doc = include_str!("../README.md")]
#![no_std]
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "registers, addresses and results of calls are the same 64 bits here"
)]
#![no_main]

mod doorbell;
mod entry;
mod fast;
mod files;
mod frame;
mod host;
mod marshal;
mod patched;
mod rings;
mod serve;
mod signal;
mod start;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    host::exit_group(127)
}
