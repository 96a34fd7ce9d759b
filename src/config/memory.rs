//! How much memory the daemon may think of as its own: the machine's, or its control group's where
//! that is less, for `limits.max_memory = 0`; and what the limits of the process leave for any
//! `limits.max_memory`.

use std::fs;
use std::path::Path;

use rustix::process::{Resource, getrlimit};

/// What is taken when the system does not say how much memory it has, in bytes.
const UNKNOWN_MEMORY_BYTES: u64 = 2 << 30;

/// The bytes of memory that the machine has, as the system call says: the shipped unit hides
/// `/proc/meminfo`.
pub fn machine_bytes() -> Option<u64> {
    let info = rustix::system::sysinfo();
    info.totalram.checked_mul(u64::from(info.mem_unit))
}

/// The largest `limits.max_memory` for which the limits of this process (`ulimit -v`, `ulimit -d`)
/// leave room, in bytes: a quarter. Beyond them an allocation ends the process. Messages take one and
/// a half times as much, and the rest is for the program, the stacks of its threads, the two arenas
/// to which `build/malloc.c` holds the C library then, and buffers.
pub fn process_bytes() -> Option<u64> {
    let limits = [Resource::As, Resource::Data].map(|resource| getrlimit(resource).current);
    limits.into_iter().flatten().min().map(|limit| limit / 4)
}

/// The bytes of memory that there are on a machine with this many, or for the control groups of this
/// process where that is less. `root` is `/` but in tests.
pub fn available_bytes(machine: Option<u64>, root: &Path) -> u64 {
    let machine = machine.unwrap_or(UNKNOWN_MEMORY_BYTES);
    control_group_bytes(root).into_iter().fold(machine, u64::min)
}

/// The smallest limit of the process's control groups and all above them.
fn control_group_bytes(root: &Path) -> Option<u64> {
    let text = fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    let limits = text.lines().filter_map(|line| {
        // hierarchy:controllers:path; version 2 has the hierarchy 0 and no controllers.
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?);
        if controllers.is_empty() {
            let mounts = ["sys/fs/cgroup", "sys/fs/cgroup/unified"];
            mounts.iter().filter_map(|m| smallest(&root.join(m), path, "memory.max")).min()
        } else if controllers.split(',').any(|name| name == "memory") {
            smallest(&root.join("sys/fs/cgroup/memory"), path, "memory.limit_in_bytes")
        } else {
            None
        }
    });
    limits.min()
}

/// The smallest number in files of this name from `path` below `mount` up to `mount` itself.
/// In a container the path may be the host's and not exist below; the mount's own file counts then.
fn smallest(mount: &Path, path: &str, name: &str) -> Option<u64> {
    let group = Path::new(path.trim_start_matches('/'));
    let limits = group.ancestors().filter_map(|ancestor| {
        let text = fs::read_to_string(mount.join(ancestor).join(name)).ok()?;
        // Version 2 says "max" for no limit, version 1 a number larger than any machine.
        text.trim().parse::<u64>().ok()
    });
    limits.min()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    const MACHINE: Option<u64> = Some(8_000_000_000);

    #[test]
    fn without_a_control_group_the_machine_counts() {
        assert_eq!(available_bytes(MACHINE, machine(&[]).path()), 8_000_000_000);
    }

    #[test]
    fn the_smallest_limit_on_the_way_up_counts_in_version_2() {
        let root = machine(&[
            ("proc/self/cgroup", "0::/system.slice/phpmqd.service\n"),
            ("sys/fs/cgroup/system.slice/phpmqd.service/memory.max", "max\n"),
            ("sys/fs/cgroup/system.slice/memory.max", "1000000\n"),
            ("sys/fs/cgroup/memory.max", "2000000\n"),
        ]);
        assert_eq!(available_bytes(MACHINE, root.path()), 1_000_000);
    }

    #[test]
    fn version_1_limits_count_and_its_huge_numbers_do_not() {
        let group = ("proc/self/cgroup", "5:cpu:/x\n4:memory:/docker/abc\n");
        let file = "sys/fs/cgroup/memory/memory.limit_in_bytes";
        let root = machine(&[group, (file, "5000000\n")]);
        assert_eq!(available_bytes(MACHINE, root.path()), 5_000_000);
        let root = machine(&[group, (file, "9223372036854771712\n")]);
        assert_eq!(available_bytes(MACHINE, root.path()), 8_000_000_000);
    }

    #[test]
    fn a_machine_that_says_nothing_gets_a_modest_guess() {
        assert_eq!(available_bytes(None, machine(&[]).path()), UNKNOWN_MEMORY_BYTES);
    }

    #[test]
    fn this_machine_has_memory() {
        assert!(machine_bytes().unwrap() > 64 << 20);
    }
}
