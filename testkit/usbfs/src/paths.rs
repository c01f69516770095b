//! Which paths lead into the tree, and back.

use std::ffi::{CStr, CString, OsStr, c_char};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::tree;

/// Where the simulated controller is in sysfs.
pub(crate) const CONTROLLER: &str = "/sys/devices/platform/usbferry-usbfs";

/// What is simulated, with all that is below it.
const SIMULATED: [&str; 4] = ["/dev/bus/usb", "/sys/bus/usb", "/sys/module/usbcore", CONTROLLER];

/// The place in the tree that stands for `path`; `None` for paths that are not simulated, which
/// is all that most calls ever ask.
pub(crate) fn redirect(path: *const c_char) -> Option<CString> {
    if path.is_null() {
        return None;
    }
    // SAFETY: the program passed it as a path, hence a string that ends in NUL.
    let path = unsafe { CStr::from_ptr(path) }.to_bytes();
    if !is_simulated(path) {
        return None;
    }
    let relative = Path::new(OsStr::from_bytes(&path[1..]));
    CString::new(tree::root().join(relative).into_os_string().as_bytes()).ok()
}

/// Whether a path is one of the simulated ones.
fn is_simulated(path: &[u8]) -> bool {
    SIMULATED.iter().any(|prefix| {
        let rest = path.strip_prefix(prefix.as_bytes());
        rest.is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
    })
}

/// Whether a path in the tree is one of sysfs.
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

/// The number of an open file that a path in `/proc` names.
pub(crate) fn open_file(path: *const c_char) -> Option<i32> {
    if path.is_null() {
        return None;
    }
    // SAFETY: as in `redirect`.
    let path = unsafe { CStr::from_ptr(path) }.to_str().ok()?;
    path.strip_prefix("/proc/self/fd/")?.parse().ok()
}

/// What a program is to see of a path in the tree.
pub(crate) fn unredirect(path: &[u8]) -> Option<&[u8]> {
    let root = tree::root().as_os_str().as_bytes();
    path.strip_prefix(root).filter(|rest| rest.first() == Some(&b'/'))
}
