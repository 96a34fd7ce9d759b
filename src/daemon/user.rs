//! Becoming another user, for the command line of beanstalkd (`-u`); a service manager does this
//! before it starts the daemon.
//!
//! Done before any other thread is started: the system keeps these numbers per thread, and threads
//! inherit them.

use std::ffi::CString;
use std::io;

use nix::unistd::{User, getgrouplist};
use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_gid, set_thread_groups, set_thread_uid};

use super::DaemonError;

/// Becomes this user, with the groups that the system's databases give it.
///
/// # Errors
/// There is no such user, or this process may not become it.
pub(super) fn become_user(name: &str) -> Result<(), DaemonError> {
    let failed = |error: io::Error| DaemonError::System("become another user", error);
    let nobody = || DaemonError::User(name.to_owned());
    let user = User::from_name(name).map_err(|error| failed(error.into()))?.ok_or_else(nobody)?;
    let text = CString::new(name).map_err(|_| nobody())?;
    let groups = getgrouplist(&text, user.gid).map_err(|error| failed(error.into()))?;
    let groups: Vec<Gid> = groups.iter().map(|group| Gid::from_raw(group.as_raw())).collect();
    set_thread_groups(&groups).map_err(|error| failed(error.into()))?;
    set_thread_gid(Gid::from_raw(user.gid.as_raw())).map_err(|error| failed(error.into()))?;
    set_thread_uid(Uid::from_raw(user.uid.as_raw())).map_err(|error| failed(error.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_user_is_an_error() {
        let error = become_user("no such user").unwrap_err();
        assert_eq!(error.to_string(), "-u: there is no user \"no such user\"");
        assert_eq!(error.exit_code(), 64);
    }
}
