//! A host command with a deadline, a clean environment and captured output.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::{Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// The search path of every program under test: that of a Debian login, whatever the developer's is.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How long output may stay open after its program has ended, on a loaded machine.
const DRAIN: Duration = Duration::from_secs(60);

/// A command to run on the host.
#[derive(Debug, Clone)]
pub struct Cmd {
    argv: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    cwd: Option<PathBuf>,
    stdin: Vec<u8>,
    deadline: Duration,
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// With an exit code.
    Code(i32),
    /// By a signal.
    Signal(i32),
    /// Not within its deadline: it was killed.
    Deadline,
    /// Its output stayed open after its end: something that it started lives on.
    LeftBehind,
}

/// What can be seen of a program from outside.
#[derive(Clone, PartialEq, Eq)]
pub struct Output {
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
    /// How it ended.
    pub end: End,
}

impl Cmd {
    /// Describes a command; [`Cmd::run`] runs it.
    pub fn new<S: AsRef<OsStr>>(argv: impl IntoIterator<Item = S>) -> Cmd {
        Cmd {
            argv: argv.into_iter().map(|arg| arg.as_ref().to_owned()).collect(),
            env: [("PATH", PATH), ("HOME", "/root"), ("LANG", "C.UTF-8"), ("TERM", "dumb")]
                .map(|(name, value)| (name.into(), value.into()))
                .to_vec(),
            cwd: None,
            stdin: Vec::new(),
            deadline: Duration::from_secs(60),
        }
    }

    /// Sets an environment variable. Nothing is inherited.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Cmd {
        self.env.push((name.into(), value.as_ref().to_owned()));
        self
    }

    /// Sets the working directory.
    #[must_use]
    pub fn cwd(mut self, dir: impl Into<PathBuf>) -> Cmd {
        self.cwd = Some(dir.into());
        self
    }

    /// Sets standard input; it is empty otherwise.
    #[must_use]
    pub fn stdin(mut self, content: impl Into<Vec<u8>>) -> Cmd {
        self.stdin = content.into();
        self
    }

    /// Sets the time after which the program is killed.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Cmd {
        self.deadline = deadline;
        self
    }

    /// Returns the arguments.
    #[must_use]
    pub fn argv(&self) -> &[OsString] {
        &self.argv
    }

    /// Returns the environment.
    #[must_use]
    pub fn envs(&self) -> &[(OsString, OsString)] {
        &self.env
    }

    /// Returns the working directory.
    #[must_use]
    pub fn dir(&self) -> Option<&PathBuf> {
        self.cwd.as_ref()
    }

    /// Returns a command with other arguments and all else the same.
    #[must_use]
    pub fn with_argv(&self, argv: Vec<OsString>) -> Cmd {
        Cmd { argv, ..self.clone() }
    }

    /// Runs the command to its end or deadline.
    ///
    /// # Panics
    ///
    /// If the program cannot be started.
    #[must_use]
    #[track_caller]
    pub fn run(&self) -> Output {
        let mut child = self.spawn(Stdio::piped(), Stdio::piped());
        let stdout = reader(child.stdout.take());
        let stderr = reader(child.stderr.take());
        let mut end = wait(&mut child, self.deadline);
        let limit = Instant::now() + DRAIN;
        let collect = |from: &mpsc::Receiver<Vec<u8>>, end: &mut End| {
            let left = limit.saturating_duration_since(Instant::now());
            from.recv_timeout(left).unwrap_or_else(|_| {
                if *end != End::Deadline {
                    *end = End::LeftBehind;
                }
                Vec::new()
            })
        };
        let stdout = collect(&stdout, &mut end);
        let stderr = collect(&stderr, &mut end);
        if end == End::LeftBehind {
            kill_group(child.id());
        }
        Output { stdout, stderr, end }
    }

    /// Starts the command in a process group of its own; the caller waits for it.
    ///
    /// # Panics
    ///
    /// If the program cannot be started.
    #[must_use]
    #[track_caller]
    pub fn spawn(&self, stdout: Stdio, stderr: Stdio) -> Child {
        // Whoever runs the tests may ignore signals (`nohup`, a shell's background); the programs
        // under test are to start as from a terminal.
        let mut command = Command::new("/usr/bin/env");
        command.args(["--default-signal=HUP,INT,QUIT,TERM", "--"]).arg(&self.argv[0]);
        command
            .args(&self.argv[1..])
            .env_clear()
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(if self.stdin.is_empty() { Stdio::null() } else { Stdio::piped() })
            .stdout(stdout)
            .stderr(stderr)
            .process_group(0);
        if let Some(dir) = &self.cwd {
            command.current_dir(dir);
        }
        let mut child =
            command.spawn().unwrap_or_else(|error| panic!("cannot start {:?}: {error}", self.argv));
        if let Some(mut stdin) = child.stdin.take() {
            let content = self.stdin.clone();
            // A program need not read its input; then the pipe breaks, which is no failure.
            std::thread::spawn(move || stdin.write_all(&content));
        }
        child
    }
}

impl Output {
    /// Returns standard output as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Checks that the program ended well, and returns its standard output.
    ///
    /// # Panics
    ///
    /// If it did not.
    #[track_caller]
    pub fn success(self) -> String {
        assert!(self.end == End::Code(0), "the program failed: {self:?}");
        self.text()
    }
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:?}", self.end)?;
        writeln!(f, "--- stdout\n{}", String::from_utf8_lossy(&self.stdout))?;
        write!(f, "--- stderr\n{}", String::from_utf8_lossy(&self.stderr))
    }
}

/// Returns what runc printed without what it says of control groups that it could not remove at the first
/// attempt: that depends on how soon the processes that it has killed are gone.
#[must_use]
pub fn without_retries_of_runc(text: &str) -> String {
    let is_of_retries =
        |line: &str| line.starts_with("time=\"") && line.contains("msg=\"Failed to remove ");
    text.split_inclusive('\n').filter(|line| !is_of_retries(line)).collect()
}

/// Waits for a child; kills its process group at the deadline.
#[must_use]
pub fn wait(child: &mut Child, deadline: Duration) -> End {
    let limit = Instant::now() + deadline;
    let mut pause = Duration::from_micros(200);
    loop {
        match child.try_wait() {
            Ok(Some(status)) => {
                return status
                    .code()
                    .map_or_else(|| End::Signal(status.signal().unwrap_or_default()), End::Code);
            }
            Ok(None) if Instant::now() < limit => {}
            Ok(None) | Err(_) => {
                kill_group(child.id());
                let _ = child.kill();
                let _ = child.wait();
                return End::Deadline;
            }
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(5));
    }
}

/// Kills a process group. By the program, since this package has no `unsafe`.
fn kill_group(leader: u32) {
    let _ =
        Command::new("/bin/sh").args(["-c", &format!("kill -KILL -{leader} 2>/dev/null")]).status();
}

/// Reads a stream to its end in a thread.
fn reader(stream: Option<impl Read + Send + 'static>) -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    if let Some(mut stream) = stream {
        std::thread::spawn(move || {
            let mut content = Vec::new();
            let _ = stream.read_to_end(&mut content);
            let _ = sender.send(content);
        });
    }
    receiver
}
