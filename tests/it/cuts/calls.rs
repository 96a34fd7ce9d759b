//! Puts the system calls of this test binary that write to files before the C library's, so that
//! a simulated [`Disk`] sees everything that is done below its folder, in order.
//!
//! The database library and Rust's standard library are both linked into this binary and both
//! call `pwrite64`, `fsync`, `rename` and so on by name; a definition in the binary goes before
//! the C library's. A file system layer of the database library's own ("VFS") would see only half
//! of it: a rewrite removes, renames and syncs files through the standard library.
//!
//! Calls that are not about a simulated disk go straight to the kernel. That path takes no lock,
//! so it is safe between `fork` and `exec` too.

use std::ffi::{CStr, c_char, c_int, c_long, c_uint, c_void};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::disk::{self, Change, Disk, Verdict};

/// File descriptors that can be those of a simulated disk.
const DESCRIPTORS_MAX: usize = 65_536;
/// What a descriptor stands for: 0, or the disk's number and the file's number on it plus one.
static DESCRIPTORS: [AtomicU64; DESCRIPTORS_MAX] = [const { AtomicU64::new(0) }; DESCRIPTORS_MAX];

const EIO: c_int = 5;
const ENOSPC: c_int = 28;
const O_CREAT: c_int = 0o100;
const O_TRUNC: c_int = 0o1000;

/// The numbers of system calls.
#[cfg(target_arch = "x86_64")]
mod number {
    pub const CLOSE: i64 = 3;
    pub const PWRITE: i64 = 18;
    pub const FSYNC: i64 = 74;
    pub const FDATASYNC: i64 = 75;
    pub const FTRUNCATE: i64 = 77;
    pub const OPENAT: i64 = 257;
    pub const UNLINKAT: i64 = 263;
    pub const RENAMEAT2: i64 = 316;
}

/// The numbers of system calls.
#[cfg(target_arch = "aarch64")]
mod number {
    pub const FTRUNCATE: i64 = 46;
    pub const OPENAT: i64 = 56;
    pub const CLOSE: i64 = 57;
    pub const PWRITE: i64 = 68;
    pub const FSYNC: i64 = 82;
    pub const FDATASYNC: i64 = 83;
    pub const UNLINKAT: i64 = 35;
    pub const RENAMEAT2: i64 = 276;
}

const AT_FDCWD: c_int = -100;

// SAFETY: both are functions of the C library with these signatures.
unsafe extern "C" {
    fn syscall(number: c_long, ...) -> c_long;
    fn __errno_location() -> *mut c_int;
}

fn fail(errno: c_int) -> c_int {
    // SAFETY: the C library answers a pointer to this thread's own variable.
    unsafe { *__errno_location() = errno };
    -1
}

fn remember(descriptor: c_int, disk: u32, file: u32) {
    let index = usize::try_from(descriptor).unwrap_or(usize::MAX);
    assert!(index < DESCRIPTORS_MAX, "a simulated disk was given descriptor {descriptor}");
    DESCRIPTORS[index].store((u64::from(disk) << 32) | u64::from(file + 1), Ordering::Release);
}

/// The disk and the file on it that a descriptor stands for.
fn behind(descriptor: c_int) -> Option<(Arc<Disk>, u32)> {
    let slot = DESCRIPTORS.get(usize::try_from(descriptor).ok()?)?;
    let found = slot.load(Ordering::Acquire);
    if found == 0 {
        return None;
    }
    let disk = disk::numbered(u32::try_from(found >> 32).ok()?)?;
    Some((disk, (found as u32) - 1))
}

/// The disk that a path leads to, and the name on it.
///
/// # Safety
/// `path` is a C string.
unsafe fn at<'a>(path: *const c_char) -> Option<(Arc<Disk>, &'a str)> {
    // SAFETY: the caller's promise.
    let bytes = unsafe { CStr::from_ptr(path) }.to_bytes();
    disk::at(bytes)
}

fn open(path: *const c_char, flags: c_int, mode: c_uint) -> c_int {
    // SAFETY: whoever opens a file passes a C string.
    let target = unsafe { at(path) };
    let raw = || {
        // SAFETY: the arguments are the caller's, unchanged.
        unsafe { syscall(number::OPENAT, AT_FDCWD, path, flags, mode) as c_int }
    };
    let Some((disk, name)) = target else {
        return raw();
    };
    if !disk::is_kept(name) {
        return raw();
    }
    let mut state = disk.lock();
    if name.ends_with(".ballast") && !state.has(name) {
        // Eight megabytes of nothing would only make the simulation slow. What is made of a log is
        // not so long.
        return fail(ENOSPC);
    }
    let makes = flags & O_CREAT != 0 && !name.is_empty() && !state.has(name);
    let empties = flags & O_TRUNC != 0 && state.has(name);
    if makes || empties {
        let change = if makes { Change::Made(name.into()) } else { Change::Emptied(name.into()) };
        match state.judge(&change) {
            Verdict::Go | Verdict::Short => {}
            Verdict::Fail(errno) => return fail(errno),
        }
        let descriptor = raw();
        if descriptor >= 0 {
            state.done(change);
            remember(descriptor, disk.number(), state.file(name));
        }
        return descriptor;
    }
    let descriptor = raw();
    if descriptor >= 0 {
        remember(descriptor, disk.number(), state.file(name));
    }
    descriptor
}

/// Takes the place of the C library's function, which has a variable number of arguments: on the
/// architectures above the third arrives in the same register either way.
// SAFETY: the name is the C library's and so is the meaning.
#[unsafe(no_mangle)]
pub extern "C" fn open64(path: *const c_char, flags: c_int, mode: c_uint) -> c_int {
    open(path, flags, mode)
}

/// Takes the place of the C library's function.
// SAFETY: the name is the C library's and so is the meaning.
#[unsafe(no_mangle)]
pub extern "C" fn close(descriptor: c_int) -> c_int {
    if let Ok(index) = usize::try_from(descriptor)
        && let Some(slot) = DESCRIPTORS.get(index)
    {
        slot.store(0, Ordering::Release);
    }
    // SAFETY: the argument is the caller's.
    unsafe { syscall(number::CLOSE, descriptor) as c_int }
}

/// Takes the place of the C library's function.
// SAFETY: the name is the C library's and so is the meaning.
#[unsafe(no_mangle)]
pub extern "C" fn pwrite64(
    descriptor: c_int,
    bytes: *const c_void,
    count: usize,
    at: i64,
) -> isize {
    let raw = |count: usize| {
        // SAFETY: the caller's buffer has at least as many bytes as it said.
        unsafe { syscall(number::PWRITE, descriptor, bytes, count, at) as isize }
    };
    let Some((disk, file)) = behind(descriptor) else {
        return raw(count);
    };
    // SAFETY: the caller's buffer has as many bytes as it said, and we only read them.
    let data = unsafe { std::slice::from_raw_parts(bytes.cast::<u8>(), count) };
    let at_unsigned = usize::try_from(at).unwrap_or(0);
    let mut state = disk.lock();
    let change = Change::Written(file, at_unsigned, data.to_vec());
    let count = match state.judge(&change) {
        Verdict::Go => count,
        Verdict::Short => (count / 2).max(1),
        Verdict::Fail(errno) => return fail(errno) as isize,
    };
    let written = raw(count);
    if let Ok(written) = usize::try_from(written) {
        state.done(Change::Written(file, at_unsigned, data[..written].to_vec()));
    }
    written
}

/// Takes the place of the C library's function.
// SAFETY: the name is the C library's and so is the meaning.
#[unsafe(no_mangle)]
pub extern "C" fn ftruncate64(descriptor: c_int, length: i64) -> c_int {
    let raw = || {
        // SAFETY: the arguments are the caller's.
        unsafe { syscall(number::FTRUNCATE, descriptor, length) as c_int }
    };
    let Some((disk, file)) = behind(descriptor) else {
        return raw();
    };
    let change = Change::Cut(file, usize::try_from(length).unwrap_or(0));
    finish(&disk, change, raw)
}

fn sync(descriptor: c_int, number: i64) -> c_int {
    let Some((disk, file)) = behind(descriptor) else {
        // SAFETY: the argument is the caller's.
        return unsafe { syscall(number, descriptor) as c_int };
    };
    finish(&disk, Change::Synced(file), || 0)
}

/// Takes the place of the C library's function.
// SAFETY: the name is the C library's and so is the meaning.
#[unsafe(no_mangle)]
pub extern "C" fn fsync(descriptor: c_int) -> c_int {
    sync(descriptor, number::FSYNC)
}

/// Takes the place of the C library's function.
// SAFETY: the name is the C library's and so is the meaning.
#[unsafe(no_mangle)]
pub extern "C" fn fdatasync(descriptor: c_int) -> c_int {
    sync(descriptor, number::FDATASYNC)
}

/// Takes the place of the C library's function.
// SAFETY: the name is the C library's and so is the meaning.
#[unsafe(no_mangle)]
pub extern "C" fn rename(from: *const c_char, to: *const c_char) -> c_int {
    let raw = || {
        // SAFETY: the arguments are the caller's.
        unsafe { syscall(number::RENAMEAT2, AT_FDCWD, from, AT_FDCWD, to, 0) as c_int }
    };
    // SAFETY: whoever renames a file passes C strings.
    match unsafe { (at(from), at(to)) } {
        (Some((disk, from)), Some((_, to))) if disk::is_kept(from) => {
            finish(&disk, Change::Renamed(from.into(), to.into()), raw)
        }
        _ => raw(),
    }
}

/// Takes the place of the C library's function.
// SAFETY: the name is the C library's and so is the meaning.
#[unsafe(no_mangle)]
pub extern "C" fn unlink(path: *const c_char) -> c_int {
    let raw = || {
        // SAFETY: the argument is the caller's.
        unsafe { syscall(number::UNLINKAT, AT_FDCWD, path, 0) as c_int }
    };
    // SAFETY: whoever removes a file passes a C string.
    match unsafe { at(path) } {
        Some((disk, name)) if disk::is_kept(name) && disk.lock().has(name) => {
            finish(&disk, Change::Removed(name.into()), raw)
        }
        _ => raw(),
    }
}

/// Asks the disk, makes the call, and tells the disk.
fn finish(disk: &Disk, change: Change, raw: impl FnOnce() -> c_int) -> c_int {
    let mut state = disk.lock();
    match state.judge(&change) {
        Verdict::Go => {}
        Verdict::Short => return fail(EIO),
        Verdict::Fail(errno) => return fail(errno),
    }
    let result = raw();
    if result == 0 {
        state.done(change);
    }
    result
}
