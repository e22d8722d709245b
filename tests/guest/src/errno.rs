//! Names of error numbers, for messages.

macro_rules! names {
    ($value:expr, $($name:ident)*) => {
        match $value {
            $(libc::$name => stringify!($name).to_owned(),)*
            other => format!("errno {other}"),
        }
    };
}

/// Returns the name of an error number.
pub fn name(errno: i32) -> String {
    names!(errno,
        EPERM ENOENT ESRCH EINTR EIO ENXIO E2BIG ENOEXEC EBADF ECHILD EAGAIN ENOMEM EACCES EFAULT ENOTBLK
        EBUSY EEXIST EXDEV ENODEV ENOTDIR EISDIR EINVAL ENFILE EMFILE ENOTTY ETXTBSY EFBIG ENOSPC ESPIPE
        EROFS EMLINK EPIPE EDOM ERANGE EDEADLK ENAMETOOLONG ENOLCK ENOSYS ENOTEMPTY ELOOP ENODATA ETIME
        EOVERFLOW EILSEQ ENOTSOCK EDESTADDRREQ EMSGSIZE EPROTOTYPE ENOPROTOOPT EPROTONOSUPPORT
        EOPNOTSUPP EAFNOSUPPORT EADDRINUSE EADDRNOTAVAIL ENETUNREACH ECONNABORTED ECONNRESET ENOBUFS
        EISCONN ENOTCONN ETIMEDOUT ECONNREFUSED EALREADY EINPROGRESS ESTALE ECANCELED EOWNERDEAD
        ENOTRECOVERABLE)
}

/// An error that a failed check can print.
pub trait Describe {
    /// Returns the error in words.
    fn describe(&self) -> String;
}

impl Describe for i32 {
    fn describe(&self) -> String {
        name(*self)
    }
}
impl Describe for String {
    fn describe(&self) -> String {
        self.clone()
    }
}
impl Describe for &str {
    fn describe(&self) -> String {
        (*self).to_owned()
    }
}
impl Describe for std::io::Error {
    fn describe(&self) -> String {
        self.raw_os_error().map_or_else(|| self.to_string(), name)
    }
}
impl Describe for std::num::ParseIntError {
    fn describe(&self) -> String {
        self.to_string()
    }
}
impl Describe for std::string::FromUtf8Error {
    fn describe(&self) -> String {
        self.to_string()
    }
}
