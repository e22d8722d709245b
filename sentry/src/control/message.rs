//! Requests and responses of the control protocol.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::config::network::NetworkConfig;
use crate::config::{ContainerConfig, ProcessConfig};

/// What `runsc` sends: a request, and the container that it is about.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Addressed<'a> {
    /// The container's name in the state directory.
    pub container: Cow<'a, str>,
    /// What is asked.
    pub request: Cow<'a, Request>,
}

/// What `runsc` asks of a sentry.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case")]
pub enum Request {
    /// Answers when the container has been created: root and mounts stand, the program is loaded.
    Created,
    /// Makes the host process of which the processes of a further container are made, and answers
    /// with its number: time to put it into the container's control groups.
    Prepare,
    /// Creates a further container, for which the same connection has prepared. Its descriptors come
    /// with the request: those of the gofer, then the first process's, at least three. Answers when
    /// the container has been created. It does not outlive the connection.
    Create {
        /// What to create.
        config: Box<ContainerConfig>,
        /// How many of the descriptors are the gofer's.
        n_gofers: usize,
    },
    /// Gives the sandbox its network, once and before `Start`. The packet sockets of the interfaces
    /// come with the request, in order.
    Network {
        /// Interfaces and routes.
        network: NetworkConfig,
    },
    /// Says that this connection's owner is in the container's network namespace and makes listening
    /// sockets there, for each `Listen` that it is sent.
    ServeDoors,
    /// Answers a `Listen`, with the socket where there could be one.
    Door {
        /// The port.
        port: u16,
        /// Whether of `::1`.
        is_v6: bool,
    },
    /// Connects to a port of the sandbox: the stream socket that comes with the request is the
    /// connection.
    Connect {
        /// The port.
        port: u16,
    },
    /// Lets the first process run. Answers when it does.
    Start,
    /// Asks for the container's status.
    Status,
    /// Answers when the container has stopped.
    Wait,
    /// Sends a signal to the first process or to all.
    Signal {
        /// The number.
        signo: i32,
        /// Whether every process of the container gets it.
        all: bool,
    },
    /// Sends a signal that a terminal would have sent to the foreground process group of the
    /// container, or to the first process where it has no terminal.
    ForegroundSignal {
        /// The number.
        signo: i32,
    },
    /// Lists the processes.
    Processes,
    /// Lists the threads, and what each is doing.
    Threads,
    /// Lists the calls and flags that the sandbox has met and does not serve.
    Unsupported,
    /// Starts a further process. Its descriptors, at least three, come with the request. Answers
    /// when it runs, and once more when it has ended. Signals over this connection go to this
    /// process from then on, and it does not outlive the connection.
    Execute {
        /// What to start.
        process: Box<ProcessConfig>,
    },
    /// Keeps every process from running. Answers with the status, which is `Paused` when all have
    /// stopped; else the request is to be repeated.
    Pause,
    /// Ends a pause.
    Resume,
    /// Changes limits: those that there are.
    Limit {
        /// Bytes of memory that the guest is told it has.
        memory: Option<u64>,
        /// Processes and threads.
        tasks: Option<u64>,
    },
    /// Kills every process of the container at once.
    Shutdown,
}

/// A sentry's answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "re", rename_all = "kebab-case")]
pub enum Response {
    /// Done.
    Done,
    /// The request could not be served.
    Failed {
        /// One line that says why.
        message: String,
        /// The exit status that a command line gives where there is no better one.
        exit_code: i32,
    },
    /// The container's status.
    Status {
        /// The status.
        status: ContainerStatus,
    },
    /// The sandbox is ready for a further container.
    Prepared {
        /// The number, in the sentry's pid namespace, of the process of which its others are made.
        host_pid: u32,
    },
    /// Asks whoever has sent `ServeDoors` for a socket that listens at a loopback address.
    Listen {
        /// The port.
        port: u16,
        /// Whether at `::1`.
        is_v6: bool,
    },
    /// A process has been started.
    Executed {
        /// Its id in the container's pid namespace.
        pid: u32,
    },
    /// The processes.
    Processes {
        /// In the order of their ids.
        processes: Vec<ProcessInfo>,
    },
    /// The threads.
    Threads {
        /// In the order of their ids.
        threads: Vec<ThreadInfo>,
    },
    /// The calls and flags that are not served.
    Unsupported {
        /// Each with how often it was met, in the order of their names.
        counts: Vec<(String, u64)>,
    },
}

/// How far a container is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "kebab-case")]
pub enum ContainerStatus {
    /// Set up, its program not yet running.
    Created,
    /// Running.
    Running,
    /// Kept from running.
    Paused,
    /// Stopped, with the status that `wait4(2)` gives for the first process.
    Stopped {
        /// As in `WIFEXITED(3)`.
        wait_status: u32,
    },
}

impl ContainerStatus {
    /// Returns the exit status that a shell would report, where the container has stopped.
    pub fn exit_code(self) -> Option<i32> {
        let Self::Stopped { wait_status } = self else { return None };
        let signo = wait_status & 0x7f;
        let code = if signo == 0 { (wait_status >> 8) & 0xff } else { 128 + signo };
        i32::try_from(code).ok()
    }
}

/// One process of the container.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ProcessInfo {
    /// The id in the container's pid namespace.
    pub pid: u32,
    /// The parent's.
    pub ppid: u32,
    /// The real user id.
    pub uid: u32,
    /// Threads.
    pub n_threads: u32,
    /// User and system time used, in nanoseconds.
    pub cpu_time_ns: u64,
    /// When it started, in nanoseconds of the sandbox's boot clock.
    pub start_time_ns: u64,
    /// The name, as in `/proc/PID/comm`.
    pub command: String,
    /// Whether it is the container's first one.
    pub is_first: bool,
    /// The number of the host process that runs it, in the sentry's pid namespace.
    pub host_pid: Option<u32>,
}

/// One thread of the container.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ThreadInfo {
    /// The id of its process in the container's pid namespace.
    pub pid: u32,
    /// Its own.
    pub tid: u32,
    /// The name, as in `/proc/PID/comm`.
    pub command: String,
    /// The letter of its state, as in `/proc/PID/stat`.
    pub state: char,
    /// The system call in which it waits.
    pub call: Option<String>,
}

/// Why a container could not be created or started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartError {
    /// One line, such as ``exec: "x": executable file not found in $PATH``.
    pub message: String,
    /// 127 where the program does not exist, 126 where it cannot be executed, 1 otherwise.
    pub exit_code: i32,
}

#[cfg(test)]
mod tests {
    use super::ContainerStatus;

    #[test]
    fn exit_code_of_signal_is_128_and_number() {
        assert_eq!(ContainerStatus::Stopped { wait_status: 9 }.exit_code(), Some(137));
        assert_eq!(ContainerStatus::Stopped { wait_status: 11 | 0x80 }.exit_code(), Some(139));
        assert_eq!(ContainerStatus::Stopped { wait_status: 7 << 8 }.exit_code(), Some(7));
        assert_eq!(ContainerStatus::Running.exit_code(), None);
    }
}
