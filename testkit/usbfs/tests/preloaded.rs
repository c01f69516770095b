//! The library in a program: each test runs itself once more with the library preloaded, and makes
//! usbfs's calls there.
#![cfg(target_os = "linux")]

use std::ffi::{c_int, c_uint, c_void};
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

/// Names the tree for the program with the library.
const ROOT: &str = "USBFERRY_USBFS_ROOT";

/// `_IO`, `_IOR` and the like of usbfs: `type` is `U`.
const SET_CONFIGURATION: u32 = 0x8004_5505;
const CLAIM_INTERFACE: u32 = 0x8004_550f;
const RELEASE_INTERFACE: u32 = 0x8004_5510;

/// Runs the test `name` in a program with the library and the options; the program runs `inside`.
fn preloaded(name: &str, options: &str, inside: impl FnOnce(&Path)) {
    if let Some(root) = std::env::var_os(ROOT) {
        return inside(Path::new(&root));
    }
    let scratch = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let library = usbferry_load::preload::build(&workspace, scratch).expect("it can be built");
    let root = scratch.join(format!("preloaded-{}-{name}", std::process::id()));
    fs::create_dir_all(&root).expect("a directory for the tree");
    let status = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", name, "--nocapture"])
        .env("LD_PRELOAD", library)
        .env(ROOT, &root)
        .env("USBFERRY_USBFS", options)
        .status()
        .expect("it starts");
    fs::remove_dir_all(&root).expect("it is ours");
    assert!(status.success());
}

fn open(device: usize) -> io::Result<File> {
    let node = format!("/dev/bus/usb/001/{:03}", device + 1);
    OpenOptions::new().read(true).write(true).open(node)
}

/// An ioctl whose argument is an integer.
#[allow(
    clippy::useless_conversion,
    reason = "requests are 32 bits, and longs where those have more"
)]
fn call(node: &File, request: u32, mut argument: c_int) -> io::Result<()> {
    let argument: *mut c_void = (&raw mut argument).cast();
    // SAFETY: an open file, and an argument for the request.
    let result = unsafe { libc::ioctl(node.as_raw_fd(), request.into(), argument) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn errno(result: io::Result<()>) -> c_int {
    result.err().and_then(|error| error.raw_os_error()).unwrap_or(0)
}

fn claim(node: &File, interface: c_uint) -> c_int {
    errno(call(node, CLAIM_INTERFACE, interface.cast_signed()))
}

/// A thread that shared its node with another would find the node closed by the other.
#[test]
fn no_two_opens_share_a_node() {
    preloaded("no_two_opens_share_a_node", "driver=", |_| {
        let open_and_call = || {
            for _ in 0..2000 {
                let node = open(1).expect("it is there");
                assert_eq!(claim(&node, 20), libc::ENOENT);
                thread::yield_now();
                assert_eq!(claim(&node, 20), libc::ENOENT);
            }
        };
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(open_and_call);
            }
        });
    });
}

/// The calls that wait for a lock held by others, and the calls that do not.
#[test]
fn a_held_lock_holds_up_its_device() {
    preloaded("a_held_lock_holds_up_its_device", "count=2", |root| {
        let (held, free) = (attribute(1, ""), attribute(2, ""));
        let node = open(1).expect("it is there");
        // The library has made the file by now.
        let locks = OpenOptions::new().write(true).open(root.join("locks")).expect("it is there");
        locks.write_all_at(&[1], 1).expect("it is long enough");
        for name in ["speed", "descriptors", "busnum", "idVendor"] {
            fs::read(held.join(name)).expect("it does not wait");
        }
        fs::read(free.join("bConfigurationValue")).expect("the other one's is free");
        open(2).expect("the other one's is free");
        let (sender, done) = channel();
        for name in ["bConfigurationValue", "product"] {
            let (attribute, sender) = (held.join(name), sender.clone());
            thread::spawn(move || sender.send(fs::read(attribute).map(drop)));
        }
        let of_open = sender.clone();
        thread::spawn(move || of_open.send(open(1).map(drop)));
        thread::spawn(move || {
            let result = call(&node, CLAIM_INTERFACE, 20);
            let _ = sender.send(Err(io::Error::from_raw_os_error(errno(result))));
        });
        let waited = done.recv_timeout(Duration::from_millis(100));
        assert_eq!(waited.err(), Some(RecvTimeoutError::Timeout), "they wait");
        locks.write_all_at(&[0], 1).expect("it is long enough");
        let results: Vec<io::Result<()>> = done.iter().collect();
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 3);
        let failed = results.into_iter().find_map(Result::err).expect("the claim");
        assert_eq!(failed.kind(), ErrorKind::NotFound, "{failed}");
    });
}

fn attribute(device: usize, name: &str) -> PathBuf {
    PathBuf::from(format!("/sys/bus/usb/devices/1-{device}/{name}"))
}

/// Only -1 unconfigures a device that has a configuration numbered 0.
#[test]
fn configuration_0_is_set_where_the_device_has_one() {
    let zero = "09022000010000803209040000020b00000007058102400000070501024000000904010000ff0000";
    let options = format!("driver=:config={zero}");
    preloaded("configuration_0_is_set_where_the_device_has_one", &options, |root| {
        let node = open(1).expect("it is there");
        let value =
            || fs::read_to_string(attribute(1, "bConfigurationValue")).expect("it is there");
        let set = |value| errno(call(&node, SET_CONFIGURATION, value));
        assert_eq!(value(), "0\n");
        assert_eq!((set(-1), value().as_str()), (0, ""));
        assert_eq!(claim(&node, 0), libc::ENOENT);
        assert_eq!((set(0), value().as_str()), (0, "0\n"));
        assert!(attribute(1, "1-1:0.0").exists());
        assert_eq!(claim(&node, 0), 0);
        assert_eq!(set(0), libc::EBUSY);
        assert_eq!(errno(call(&node, RELEASE_INTERFACE, 0)), 0);
        assert_eq!([set(1), set(-2)], [libc::EINVAL; 2]);
        let requests = fs::read_to_string(root.join("requests")).expect("some were sent");
        assert_eq!(requests, "1-1 0009000000000000\n".repeat(2));
    });
}

/// Interfaces are a bit each in an unsigned long, so large numbers do not fit.
#[test]
fn usbfs_claims_no_interface_beyond_its_bits() {
    let high = "0902240003010080320904040000ff00000009043f0000ff0000000904400000ff000000";
    let options = format!("config={high}");
    preloaded("usbfs_claims_no_interface_beyond_its_bits", &options, |_| {
        let node = open(1).expect("it is there");
        let present = ["1-1:1.4", "1-1:1.63", "1-1:1.64"].map(|name| attribute(1, name).exists());
        assert_eq!(present, [true; 3]);
        assert_eq!(claim(&node, 4), libc::EBUSY, "the driver has it");
        assert_eq!(claim(&node, 64), libc::EINVAL);
        assert_eq!(claim(&node, 0), libc::ENOENT);
    });
}

#[test]
fn refused_requests_fail_at_their_place() {
    let options = "count=2:driver=:1.refuse=claim@1,EACCES:2.refuse=open,EMFILE";
    preloaded("refused_requests_fail_at_their_place", options, |_| {
        let node = open(1).expect("it is there");
        assert_eq!([claim(&node, 0), claim(&node, 1)], [0, libc::EACCES]);
        let refused = open(2).expect_err("it is refused");
        assert_eq!(refused.raw_os_error(), Some(libc::EMFILE));
    });
}

/// Bytes for the mappings of nodes: whole pages, with usbfs's own memory for each, within the
/// limit.
#[test]
fn mappings_count_in_whole_pages() {
    preloaded("mappings_count_in_whole_pages", "quota=12K", |_| {
        let node = open(1).expect("it is there");
        let map = |len| {
            let flags = libc::PROT_READ | libc::PROT_WRITE;
            let (null, fd) = (std::ptr::null_mut(), node.as_raw_fd());
            // SAFETY: a new mapping, which nobody uses.
            let base = unsafe { libc::mmap(null, len, flags, libc::MAP_SHARED, fd, 0) };
            (base != libc::MAP_FAILED).then_some(base)
        };
        let first = map(4097).expect("two pages of the three");
        assert_eq!(map(4096), None, "what is kept of them counts too");
        // SAFETY: the mapping above, which nobody uses.
        assert_eq!(unsafe { libc::munmap(first, 4097) }, 0);
        assert!(map(8192).is_some());
    });
}
