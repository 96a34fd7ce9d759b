//! Whether this process may make namespaces, for tests with a disk, names or addresses of their own.

use super::children::Children as _;
use std::process::{Command, Stdio};

/// Whether a program can be started in namespaces of its own, and entered there. Says so when not:
/// that takes root, and more than root has in a container or a changed root.
pub fn can_be_made() -> bool {
    let succeeds = |words: &[&str]| {
        let [tool, arguments @ ..] = words else { return false };
        let status =
            Command::new(tool).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).ended();
        status.is_ok_and(|status| status.success())
    };
    let all =
        succeeds(&["unshare", "--mount", "--net", "true"]) && succeeds(&["nsenter", "--version"]);
    if !all {
        println!("skipped: needs nsenter and an unshare that may make namespaces");
    }
    all
}
