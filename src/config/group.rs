//! Groups by their name, for Unix sockets.

use std::io;

use nix::errno::Errno;
use nix::unistd::Group;

/// The number of a group: of this name in the system's group databases (nsswitch.conf(5)), or the
/// number that the text is. `None` when there is no such group.
///
/// # Errors
/// A database cannot be asked now: a directory server that is not up yet, for instance.
pub fn group_number(name: &str) -> io::Result<Option<u32>> {
    if let Ok(number) = name.parse() {
        return Ok(Some(number));
    }
    match Group::from_name(name) {
        Ok(group) => Ok(group.map(|group| group.gid.as_raw())),
        // The ways in which getgrnam(3) says that it has found none.
        Err(Errno::ENOENT | Errno::ESRCH | Errno::EBADF | Errno::EPERM) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_found_by_name_and_by_number() {
        let list = std::fs::read_to_string("/etc/group").unwrap();
        let mut fields = list.lines().find(|line| line.contains(':')).unwrap().split(':');
        let (name, number) = (fields.next().unwrap(), fields.nth(1).unwrap());
        assert_eq!(group_number(name).unwrap(), Some(number.parse().unwrap()));
        assert_eq!(group_number("1234").unwrap(), Some(1234));
        assert_eq!(group_number("no such group").unwrap(), None);
        // A name that no C string can hold names nobody.
        assert_eq!(group_number("a\0b").ok().flatten(), None);
    }
}
