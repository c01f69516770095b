//! Which paths lead into the tree, and back.

use std::ffi::{CStr, CString, OsStr, c_char};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::tree;

/// Where the simulated controller is in sysfs.
pub(crate) const CONTROLLER: &str = "/sys/devices/platform/usbferry-usbfs";

/// The simulated directories, with everything below.
const SIMULATED: [&str; 4] = ["/dev/bus/usb", "/sys/bus/usb", "/sys/module/usbcore", CONTROLLER];

/// The place in the tree for `path`; `None` for all other paths, the result of most calls.
pub(crate) fn redirect(path: *const c_char) -> Option<CString> {
    if path.is_null() {
        return None;
    }
    // SAFETY: the program passed a path, and so a string with a NUL.
    let path = unsafe { CStr::from_ptr(path) }.to_bytes();
    if !is_simulated(path) {
        return None;
    }
    let relative = Path::new(OsStr::from_bytes(&path[1..]));
    CString::new(tree::root().join(relative).into_os_string().as_bytes()).ok()
}

/// Whether a path is simulated.
fn is_simulated(path: &[u8]) -> bool {
    SIMULATED.iter().any(|prefix| {
        let rest = path.strip_prefix(prefix.as_bytes());
        rest.is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
    })
}

/// Whether a path in the tree belongs to sysfs.
pub(crate) fn is_attribute(path: &Path) -> bool {
    path.strip_prefix(tree::root()).is_ok_and(|rest| rest.starts_with("sys"))
}

/// Bus and device number of a device node's path.
pub(crate) fn device_number(path: *const c_char) -> Option<u8> {
    if path.is_null() {
        return None;
    }
    // SAFETY: as in `redirect`.
    let path = unsafe { CStr::from_ptr(path) }.to_str().ok()?;
    path.strip_prefix("/dev/bus/usb/001/")?.parse().ok()
}

/// The number of the open file of a path in `/proc`.
pub(crate) fn open_file(path: *const c_char) -> Option<i32> {
    if path.is_null() {
        return None;
    }
    // SAFETY: as in `redirect`.
    let path = unsafe { CStr::from_ptr(path) }.to_str().ok()?;
    path.strip_prefix("/proc/self/fd/")?.parse().ok()
}

/// The program's view of a path in the tree.
pub(crate) fn unredirect(path: &[u8]) -> Option<&[u8]> {
    let root = tree::root().as_os_str().as_bytes();
    path.strip_prefix(root).filter(|rest| rest.first() == Some(&b'/'))
}
