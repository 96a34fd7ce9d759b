//! Becoming another user, for the command line of beanstalkd (`-u`); a service manager does this
//! before the daemon is started.
//!
//! Done before any other thread is started: the system keeps these numbers per thread, and threads
//! inherit them.

use std::fs;
use std::io;

use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_gid, set_thread_groups, set_thread_uid};

use super::DaemonError;

/// Becomes this user, with the groups that /etc/passwd and /etc/group give it.
///
/// # Errors
/// There is no such user, or it is not for us to become it.
pub(super) fn become_user(name: &str) -> Result<(), DaemonError> {
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let groups = fs::read_to_string("/etc/group").unwrap_or_default();
    let (user, group) =
        find_user(&passwd, name).ok_or_else(|| DaemonError::User(name.to_owned()))?;
    let mut all = groups_of(&groups, name);
    all.push(group);
    let all: Vec<Gid> = all.into_iter().map(Gid::from_raw).collect();
    let failed = |error: rustix::io::Errno| {
        DaemonError::System("become another user", io::Error::from(error))
    };
    set_thread_groups(&all).map_err(failed)?;
    set_thread_gid(Gid::from_raw(group)).map_err(failed)?;
    set_thread_uid(Uid::from_raw(user)).map_err(failed)
}

/// The number of a user and of its group, out of passwd(5).
fn find_user(passwd: &str, name: &str) -> Option<(u32, u32)> {
    passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let numbers = (fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?);
        (fields.first() == Some(&name)).then_some(numbers)
    })
}

/// The numbers of the groups that a user is a member of, out of group(5).
fn groups_of(groups: &str, name: &str) -> Vec<u32> {
    let members = groups.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let is_member = fields.get(3)?.split(',').any(|member| member == name);
        is_member.then(|| fields.get(2)?.parse().ok()).flatten()
    });
    members.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_and_their_groups_are_found_by_name() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nmail:x:8:12::/:/bin/false\n";
        assert_eq!(find_user(passwd, "mail"), Some((8, 12)));
        assert_eq!(find_user(passwd, "nobody"), None);
        let groups = "root:x:0:\nadm:x:4:root,mail\nmailer:x:5:mailman\nlp:x:7:mail\n";
        assert_eq!(groups_of(groups, "mail"), [4, 7]);
    }

    #[test]
    fn an_unknown_user_is_an_error() {
        let error = become_user("no such user").unwrap_err();
        assert_eq!(error.to_string(), "-u: there is no user \"no such user\"");
    }
}
