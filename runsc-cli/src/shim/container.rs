//! What a shim knows of its containers and their processes.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;
use std::process::Command;
use std::time::SystemTime;

use serde::Deserialize;

use super::memory::Watch;
use super::options::Options;
use super::server::Reply;
use super::stdio::{Paths, Streams};
use super::wire::Writer;

/// Where `runsc` writes its errors, in the bundle.
const LOG: &str = "log.json";

/// How much of the end of a log is looked at.
const LOG_TAIL: u64 = 16 << 10;

/// The states of a process, with their numbers in `containerd.v1.types.Status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Created = 1,
    Running = 2,
    Stopped = 3,
    Paused = 4,
}

/// How and when a process has ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Exit {
    pub(crate) code: u32,
    pub(crate) at: SystemTime,
}

/// The first process of a container, or one of exec.
#[derive(Debug)]
pub(crate) struct Process {
    /// The monitor's, which ends as the process does; zero before there is one.
    pub(crate) pid: u32,
    pub(crate) paths: Paths,
    pub(crate) streams: Streams,
    /// Whether `start` is under way: till it is done the end of the process is not told.
    pub(crate) is_starting: bool,
    pub(crate) has_started: bool,
    pub(crate) exit: Option<Exit>,
    /// Whether the exit has been told.
    pub(crate) is_told: bool,
    pub(crate) waiters: Vec<Reply>,
    /// What exec is to start, in JSON.
    pub(crate) spec: Vec<u8>,
}

impl Process {
    pub(crate) fn new(paths: Paths, streams: Streams) -> Self {
        Self {
            pid: 0,
            paths,
            streams,
            is_starting: false,
            has_started: false,
            exit: None,
            is_told: false,
            waiters: Vec::new(),
            spec: Vec::new(),
        }
    }

    pub(crate) fn status(&self) -> Status {
        match (self.is_told, self.has_started) {
            (true, _) => Status::Stopped,
            (false, true) => Status::Running,
            (false, false) => Status::Created,
        }
    }

    /// Tells whether the process runs: has begun to, and has not ended.
    pub(crate) fn is_running(&self) -> bool {
        self.pid != 0 && self.exit.is_none()
    }
}

/// A container.
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) id: String,
    pub(crate) bundle: PathBuf,
    pub(crate) options: Options,
    pub(crate) init: Process,
    pub(crate) execs: BTreeMap<String, Process>,
    pub(crate) is_paused: bool,
    /// How many calls of `runsc kill` are under way.
    pub(crate) n_signals: u32,
    pub(crate) memory: Option<Watch>,
}

impl Container {
    /// Returns a process; an empty id is the container's first.
    pub(crate) fn process(&mut self, exec: &str) -> Option<&mut Process> {
        if exec.is_empty() { Some(&mut self.init) } else { self.execs.get_mut(exec) }
    }

    pub(crate) fn processes(&mut self) -> impl Iterator<Item = (&str, &mut Process)> {
        let execs = self.execs.iter_mut().map(|(id, process)| (id.as_str(), process));
        std::iter::once(("", &mut self.init)).chain(execs)
    }

    /// Returns a call of the runtime, without its subcommand.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.options.binary);
        command.arg("--root").arg(&self.options.root);
        command.arg("--log").arg(self.bundle.join(LOG)).args(["--log-format", "json"]);
        command.args(&self.options.flags).current_dir(&self.bundle);
        command
    }

    /// Returns the last error that the runtime has logged.
    pub(crate) fn last_error(&self) -> String {
        let read = || -> std::io::Result<String> {
            let mut file = fs::File::open(self.bundle.join(LOG))?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL)))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        let text = read().unwrap_or_default();
        let lines = text.lines().rev().filter_map(|line| serde_json::from_str(line).ok());
        let error = lines.into_iter().find(|line: &Line| line.level == "error");
        error.map_or_else(|| "the runtime has failed without an error".into(), |line| line.msg)
    }
}

#[derive(Deserialize)]
struct Line {
    level: String,
    msg: String,
}

/// Returns the fields of an exit: code and time.
pub(crate) fn put_exit(message: Writer, code: u64, at: u64, exit: Option<Exit>) -> Writer {
    match exit {
        Some(exit) => {
            message.number(code, exit.code).message(at, &super::events::timestamp(exit.at))
        }
        None => message,
    }
}
