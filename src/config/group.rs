//! Groups by their name, for Unix sockets.

use std::fs;
use std::io;
use std::path::Path;

/// The number of a group: of this name in /etc/group, or the number that the text is. `root` is `/`
/// but in tests.
///
/// # Errors
/// /etc/group cannot be read.
pub fn group_number(root: &Path, name: &str) -> io::Result<Option<u32>> {
    if let Ok(number) = name.parse() {
        return Ok(Some(number));
    }
    let groups = fs::read_to_string(root.join("etc/group"))?;
    Ok(groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok()).flatten()
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_found_by_name_and_by_number() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("etc")).unwrap();
        fs::write(root.path().join("etc/group"), "root:x:0:\nwww-data:x:33:php\n").unwrap();
        assert_eq!(group_number(root.path(), "www-data").unwrap(), Some(33));
        assert_eq!(group_number(root.path(), "1234").unwrap(), Some(1234));
        assert_eq!(group_number(root.path(), "www").unwrap(), None);
        assert!(group_number(Path::new("/nonexistent"), "www").is_err());
    }
}
