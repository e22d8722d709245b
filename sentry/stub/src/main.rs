#![doc = include_str!("../README.md")]
#![no_std]
#![no_main]

mod entry;
mod frame;
mod host;
mod marshal;
mod patched;
mod serve;
mod signal;
mod start;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    host::exit_group(127)
}
