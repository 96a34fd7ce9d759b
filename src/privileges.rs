//! Becoming another user, for `beanstalkd -u` (a service manager does this better).
//!
//! The system keeps users by thread. So this has to happen while the process has one thread; those
//! that are started later inherit it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

/// Why the process could not become another user.
#[derive(Debug)]
pub enum UserError {
    /// A file of users or groups cannot be read.
    Unreadable(PathBuf, io::Error),
    /// There is no such user.
    Unknown(String),
    /// The system refuses.
    Refused(String, io::Error),
}

impl fmt::Display for UserError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UserError::Unreadable(path, error) => {
                write!(f, "{} cannot be read: {error}", path.display())
            }
            UserError::Unknown(name) => write!(f, "there is no user {name:?}"),
            UserError::Refused(name, error) => write!(f, "cannot become user {name:?}: {error}"),
        }
    }
}

impl std::error::Error for UserError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            UserError::Unreadable(_, error) | UserError::Refused(_, error) => Some(error),
            UserError::Unknown(_) => None,
        }
    }
}

/// Makes this thread, and those started by it from now on, belong to the user of this name and its
/// groups, for good. To be called while it is the only thread.
///
/// # Errors
/// There is no such user, or this process may not become it.
pub fn become_user(name: &str) -> Result<(), UserError> {
    let user = find_user(name, Path::new("/etc/passwd"), Path::new("/etc/group"))?;
    let refused = |errno: rustix::io::Errno| UserError::Refused(name.to_owned(), errno.into());
    let groups: Vec<Gid> = user.groups.iter().map(|id| Gid::from_raw(*id)).collect();
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    // The user last: it is what allows the rest.
    set_thread_groups(&groups).map_err(refused)?;
    set_thread_res_gid(gid, gid, gid).map_err(refused)?;
    set_thread_res_uid(uid, uid, uid).map_err(refused)
}

#[derive(Debug, PartialEq, Eq)]
struct User {
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
}

fn find_user(name: &str, passwd: &Path, group: &Path) -> Result<User, UserError> {
    let read = |path: &Path| {
        std::fs::read_to_string(path).map_err(|e| UserError::Unreadable(path.to_owned(), e))
    };
    // passwd(5): name, password, uid, gid, ...
    let users = read(passwd)?;
    let mut rows = users.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let found = rows.find_map(|row| match row[..] {
        [row_name, _, uid, gid, ..] if row_name == name => {
            Some((uid.parse().ok()?, gid.parse().ok()?))
        }
        _ => None,
    });
    let (uid, gid) = found.ok_or_else(|| UserError::Unknown(name.to_owned()))?;
    // group(5): name, password, gid, members
    let mut groups = vec![gid];
    for line in read(group)?.lines() {
        if let [_, _, id, members] = line.split(':').collect::<Vec<_>>()[..]
            && members.split(',').any(|member| member == name)
            && let Ok(id) = id.parse()
            && !groups.contains(&id)
        {
            groups.push(id);
        }
    }
    Ok(User { uid, gid, groups })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_with_its_groups() {
        let directory = tempfile::tempdir().unwrap();
        let passwd = directory.path().join("passwd");
        let group = directory.path().join("group");
        std::fs::write(&passwd, "root:x:0:0:root:/root:/bin/sh\nbs:x:7:8::/:/bin/false\n").unwrap();
        std::fs::write(&group, "bs:x:8:\nwww:x:33:root,bs\nadm:x:4:absent\n").unwrap();
        let user = find_user("bs", &passwd, &group).unwrap();
        assert_eq!(user, User { uid: 7, gid: 8, groups: vec![8, 33] });
        let error = find_user("b", &passwd, &group).unwrap_err();
        assert_eq!(error.to_string(), "there is no user \"b\"");
        let error = find_user("bs", &directory.path().join("none"), &group).unwrap_err();
        assert!(matches!(error, UserError::Unreadable(..)));
    }

    #[test]
    fn an_unknown_user_cannot_be_become() {
        let error = become_user("no such user: of course").unwrap_err();
        assert!(matches!(error, UserError::Unknown(_)));
    }
}
