//! Programs that the tests start, and the copies of our descriptors that they have for a moment.
//!
//! A new process has a copy of every descriptor of this one until it runs its program, which closes
//! them. All tests of this binary are threads of one process: a socket that one of them closes stays
//! open as long as a program that another one starts has its copy. Where it matters that nobody has
//! one, [`without_copies`] waits for that.

use std::io::Result;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{PoisonError, RwLock};

/// Held to read while a program is started; whoever writes is alone with our descriptors.
static STARTS: RwLock<()> = RwLock::new(());

/// Does something while no new process has copies of our descriptors.
pub fn without_copies<T>(act: impl FnOnce() -> T) -> T {
    let _alone = STARTS.write().unwrap_or_else(PoisonError::into_inner);
    act()
}

/// Starting a program, for every test of this binary in the place of what `Command` has.
pub trait Children {
    /// As `spawn`.
    fn start(&mut self) -> Result<Child>;

    /// As `status`.
    fn ended(&mut self) -> Result<ExitStatus> {
        self.start()?.wait()
    }

    /// As `output`.
    fn said(&mut self) -> Result<Output>;
}

impl Children for Command {
    fn start(&mut self) -> Result<Child> {
        let _start = STARTS.read().unwrap_or_else(PoisonError::into_inner);
        // It returns when the program runs.
        self.spawn()
    }

    fn said(&mut self) -> Result<Output> {
        let command = self.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.start()?.wait_with_output()
    }
}
