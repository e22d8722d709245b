//! `runsc`: the OCI command line.

mod cgroup;
mod cli;
mod commands;
mod container;
mod hooks;
mod install;
mod log;
mod oom_score_adj;
mod sandbox;
mod spec;
mod sys;

use std::process::ExitCode;

use clap::Parser as _;

use cli::{Cli, Command};

/// A failure with an exit status of its own.
#[derive(Debug)]
struct ExitError {
    message: String,
    code: i32,
}

impl std::fmt::Display for ExitError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ExitError {}

fn main() -> ExitCode {
    // The programs that a sandbox is made of parse no flags: quick, and hidden from `--help`.
    let mut args = std::env::args();
    match args.nth(1).as_deref() {
        Some("boot") => return exit_code(commands::boot::run(args)),
        Some("monitor") => return exit_code(commands::monitor::run(args)),
        Some("gofer") => return exit_code(commands::gofer::run(args)),
        _ => {}
    }
    sys::keep_children();
    let cli = Cli::parse();
    if let Err(error) = log::open(&cli.global) {
        log::error(&format!("--log: opening the file: {error}"));
        return ExitCode::FAILURE;
    }
    exit_code(dispatch(cli))
}

fn dispatch(cli: Cli) -> anyhow::Result<i32> {
    let global = cli.global;
    match cli.command {
        Command::Create(args) => commands::create::run(&global, &args),
        Command::Debug(args) => commands::debug::run(&global, &args),
        Command::Delete(args) => commands::delete::run(&global, &args),
        Command::Do(args) => commands::r#do::run(&global, &args),
        Command::Events(args) => commands::events::run(&global, &args),
        Command::Exec(args) => commands::exec::run(&global, &args),
        Command::Features => commands::features::run(),
        Command::Help(args) => commands::help::run(&args),
        Command::Install(args) => commands::install::install(&args),
        Command::Kill(args) => commands::kill::run(&global, &args),
        Command::List(args) => commands::list::run(&global, &args),
        Command::Pause(args) => commands::pause::pause(&global, &args),
        Command::PortForward(args) => commands::port_forward::run(&global, &args),
        Command::Ps(args) => commands::ps::run(&global, &args),
        Command::Resume(args) => commands::pause::resume(&global, &args),
        Command::Run(args) => commands::run::run(&global, &args),
        Command::Spec(args) => commands::spec::run(&args),
        Command::Start(args) => commands::start::run(&global, &args),
        Command::State(args) => commands::state::run(&global, &args),
        Command::Uninstall(args) => commands::install::uninstall(&args),
        Command::Update(args) => commands::update::run(&global, &args),
        Command::Wait(args) => commands::wait::run(&global, &args),
    }
}

fn exit_code(result: anyhow::Result<i32>) -> ExitCode {
    let code = match result {
        Ok(code) => code,
        Err(error) => {
            log::error(&format!("{error:#}{}", remedy(&error)));
            error.downcast_ref::<ExitError>().map_or(1, |error| error.code)
        }
    };
    ExitCode::from(u8::try_from(code).unwrap_or(255))
}

/// Returns what helps against a failure that the host's limits cause, wherever it happened.
fn remedy(error: &anyhow::Error) -> &'static str {
    let io_error = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::raw_os_error)
    };
    match error.chain().find_map(io_error) {
        Some(libc::EMFILE) => ": raise the limit of open files (`ulimit -n`)",
        Some(libc::EAGAIN) => ": raise the limit of processes (`ulimit -u`, or pids of the cgroup)",
        _ => "",
    }
}
