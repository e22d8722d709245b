//! Running a program: `execve(2)`.
