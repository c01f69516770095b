//! The server on the real libusb, with the simulated usbfs of `testkit/usbfs`: no part of usbferry
//! is replaced, and the log of usbfs has all calls.
//!
//! [`Server`] is the whole program as a process of its own, on hardware described by the options of
//! `testkit/usbfs/src/options.rs`. The server's log is kept and, if a test fails, shown.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use usbferry_load::client::{Client, Reply, patience};
use usbferry_load::pdu::{self, Submit};
use usbferry_load::preload;

/// The preloaded library, built once for all tests.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR"));
        preload::build(workspace, Path::new(env!("CARGO_TARGET_TMPDIR")))
            .expect("the simulated usbfs is part of this repository")
    })
}

/// A directory for hardware.
pub(crate) fn new_root() -> PathBuf {
    static ROOTS: AtomicU32 = AtomicU32::new(0);
    let number = ROOTS.fetch_add(1, Ordering::Relaxed);
    let name = format!("usbfs-{}-{number}", std::process::id());
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(root.join("run")).expect("a directory for the tree");
    root
}

/// A server on simulated hardware. Ended and cleaned up behind each test.
///
/// `USBFERRY_RUNNER` is a command for starting the server: `tests/memory-check` sets a memory
/// checker.
pub(crate) struct Server {
    pub(crate) process: Child,
    pub(crate) address: String,
    pub(crate) root: PathBuf,
    said: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Starts a server; `options` are options of the simulated usbfs.
    pub(crate) fn start(options: &str) -> Self {
        Self::start_with(options, &[])
    }

    /// The same with more arguments.
    pub(crate) fn start_with(options: &str, arguments: &[&str]) -> Self {
        Self::start_in(new_root(), options, arguments)
    }

    /// The same on existing hardware.
    pub(crate) fn start_in(root: PathBuf, options: &str, arguments: &[&str]) -> Self {
        Self::start_as(Self::command(&root, options, arguments), root)
    }

    /// The command that starts a server.
    pub(crate) fn command(root: &Path, options: &str, arguments: &[&str]) -> Command {
        let runner = std::env::var("USBFERRY_RUNNER").unwrap_or_default();
        let mut words = runner.split_whitespace().chain([env!("CARGO_BIN_EXE_usbferry")]);
        let mut command = Command::new(words.next().expect("the server at least"));
        command
            .args(words)
            .args(["serve", "--all", "--listen", "127.0.0.1:0"])
            .args(arguments)
            .env("LD_PRELOAD", library())
            .env("USBFERRY_USBFS_ROOT", root)
            .env("USBFERRY_USBFS", options)
            // The server must not see a killed server of another test, nor a real server.
            .env("RUNTIME_DIRECTORY", root.join("run"))
            .stderr(Stdio::piped());
        command
    }

    /// Starts a server by a [`Self::command`] for `root`.
    pub(crate) fn start_as(mut command: Command, root: PathBuf) -> Self {
        let mut process = command.spawn().expect("the server starts");
        let lines = BufReader::new(process.stderr.take().expect("it was piped")).lines();
        let said = Arc::new(Mutex::new(Vec::new()));
        let (kept, (sender, address)) = (said.clone(), channel());
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if let Some((_, address)) = line.split_once("listening on ") {
                    // Nobody waits for a second address.
                    let _ = sender.send(address.to_owned());
                }
                // Shown when the test fails.
                eprintln!("{line}");
                kept.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            }
        });
        let address = address.recv().expect("it says where it listens");
        Self { process, address, root, said }
    }

    /// The lines of the server's log with `text`.
    pub(crate) fn said(&self, text: &str) -> Vec<String> {
        let lines = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().filter(|line| line.contains(text)).cloned().collect()
    }

    /// The same, after waiting for `count` lines: a thread of the server's own writes the log.
    pub(crate) fn said_by_now(&self, text: &str, count: usize) -> Vec<String> {
        wait_until(|| self.said(text).len() >= count, || format!("no {count} times \"{text}\""));
        self.said(text)
    }

    /// What `usbferry list` prints beside this server.
    pub(crate) fn list(&self, arguments: &[&str]) -> String {
        let output = Command::new(env!("CARGO_BIN_EXE_usbferry"))
            .arg("list")
            .args(arguments)
            .env("LD_PRELOAD", library())
            .env("USBFERRY_USBFS_ROOT", &self.root)
            .env("RUNTIME_DIRECTORY", self.root.join("run"))
            .output()
            .expect("it starts");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// A client with the first device.
    pub(crate) fn attach(&self) -> Client {
        self.attach_to(1)
    }

    /// A client with device 1-`number`.
    pub(crate) fn attach_to(&self, number: usize) -> Client {
        let busid = format!("1-{number}");
        Client::attach_when_free(&*self.address, &busid).expect("the device is there")
    }

    /// All devices of an OP_REP_DEVLIST.
    pub(crate) fn devices(&self) -> Vec<Listed> {
        let mut stream = TcpStream::connect(&self.address).expect("it listens");
        stream.set_read_timeout(Some(patience())).expect("a socket");
        stream.write_all(&[0x01, 0x11, 0x80, 0x05, 0, 0, 0, 0]).expect("it is sent");
        let mut reply = Vec::new();
        stream.read_to_end(&mut reply).expect("it is answered");
        assert_eq!(pdu::word(&reply, 1), 0, "DEVLIST is answered with a list");
        let mut rest = &reply[12..];
        (0..pdu::word(&reply, 2)).map(|_| Listed::read(&mut rest)).collect()
    }

    /// The calls of usbfs.
    pub(crate) fn log(&self) -> Vec<String> {
        let log = fs::read_to_string(self.root.join("log")).unwrap_or_default();
        log.lines().map(str::to_owned).collect()
    }

    /// The SETUP packets, in hexadecimal, of control requests that reached the first device, from
    /// any sender.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests_of(1)
    }

    /// The same of device 1-`number`.
    pub(crate) fn requests_of(&self, number: usize) -> Vec<String> {
        let requests = fs::read_to_string(self.root.join("requests")).unwrap_or_default();
        let busid = format!("1-{number} ");
        requests.lines().filter_map(|line| line.strip_prefix(&busid)).map(str::to_owned).collect()
    }

    /// Takes or releases the lock of device 1-`number`, or of the root hub for 0, like another
    /// program.
    pub(crate) fn hold(&self, number: u8, held: bool) {
        hold(&self.root, number, held);
    }

    /// An attribute of device 1-`number` in sysfs, without the end of its line.
    pub(crate) fn attribute(&self, number: usize, name: &str) -> String {
        let attribute = self.root.join(format!("sys/bus/usb/devices/1-{number}")).join(name);
        fs::read_to_string(attribute).expect("it is there").trim_end().to_owned()
    }

    /// A counter of usbfs, summed over all devices.
    pub(crate) fn counted(&self, counter: usize) -> u64 {
        let counters = fs::read(self.root.join("counters")).expect("they are there");
        let words = counters.as_chunks().0.iter().map(|bytes| u64::from_ne_bytes(*bytes));
        words.skip(counter).step_by(8).sum()
    }

    /// Waits until the log has a line.
    pub(crate) fn wait_for(&self, line: &str) {
        let is_logged = || self.log().iter().any(|logged| logged == line);
        wait_until(is_logged, || format!("no \"{line}\" in {:?}", self.log()));
    }

    /// Whether the kernel's driver has an interface of the first device's configuration 1.
    pub(crate) fn has_driver(&self, interface: u8) -> bool {
        self.has_driver_in(1, 1, interface)
    }

    /// The same for device 1-`number` and the configuration with the given number.
    pub(crate) fn has_driver_in(&self, number: usize, configuration: u8, interface: u8) -> bool {
        let devices = self.root.join("sys/bus/usb/devices");
        let interface = format!("1-{number}/1-{number}:{configuration}.{interface}");
        devices.join(interface).join("driver").is_symlink()
    }

    /// Number of devices that the server has to give back to drivers.
    pub(crate) fn notes(&self) -> usize {
        let files = fs::read_dir(self.root.join("run")).expect("it was made");
        let names = files.filter_map(|file| file.ok()?.file_name().into_string().ok());
        names.filter(|name| !name.starts_with('.') && name != "usbferry.sock").count()
    }

    /// Lets servers open the first device, or not.
    pub(crate) fn permit(&self, may_open: bool) {
        let mode = if may_open { 0o600 } else { 0o400 };
        let node = self.root.join("dev/bus/usb/001/002");
        fs::set_permissions(node, Permissions::from_mode(mode)).expect("it is ours");
    }

    /// Asks the server to end, and returns its status; `None` if the server does not end.
    pub(crate) fn end(&mut self) -> Option<ExitStatus> {
        let _ = Command::new("kill").arg(self.process.id().to_string()).status();
        let begun = Instant::now();
        while begun.elapsed() < patience() {
            if let Ok(Some(status)) = self.process.try_wait() {
                return Some(status);
            }
            thread::sleep(Duration::from_millis(1));
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
        None
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let status = self.end();
        let _ = fs::remove_dir_all(&self.root);
        // The message of a failed test is better.
        if !thread::panicking() {
            let status = status.expect("the server ends when it is told to");
            assert!(status.success(), "the server ended with {status}");
        }
    }
}

/// A device in OP_REP_DEVLIST.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Listed {
    pub(crate) busid: String,
    pub(crate) speed: u32,
    pub(crate) configuration: u8,
    pub(crate) configurations: u8,
    /// Class, subclass and protocol of each.
    pub(crate) interfaces: Vec<[u8; 3]>,
}

impl Listed {
    /// Bytes of a device, and of an interface record.
    const LEN: usize = 312;
    const INTERFACE_LEN: usize = 4;

    fn read(bytes: &mut &[u8]) -> Self {
        let (device, behind) = bytes.split_at(Self::LEN);
        let busid = device[256..288].split(|byte| *byte == 0).next().expect("there is a first");
        let (interfaces, behind) = behind.split_at(usize::from(device[311]) * Self::INTERFACE_LEN);
        *bytes = behind;
        Self {
            busid: String::from_utf8_lossy(busid).into_owned(),
            speed: pdu::word(device, 74),
            configuration: device[309],
            configurations: device[310],
            interfaces: interfaces.chunks(4).map(|one| [one[0], one[1], one[2]]).collect(),
        }
    }
}

/// The same as [`Server::hold`] for hardware before the first server.
pub(crate) fn hold(root: &Path, number: u8, held: bool) {
    let locks =
        OpenOptions::new().write(true).create(true).truncate(false).open(root.join("locks"));
    let locks = locks.expect("it can be made");
    locks.write_all_at(&[held.into()], number.into()).expect("there is room");
}

/// Waits for a condition, and fails with an explanation after a time.
pub(crate) fn wait_until(condition: impl Fn() -> bool, explain: impl Fn() -> String) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < patience(), "{}", explain());
        thread::sleep(Duration::from_millis(5));
    }
}

/// A URB to the endpoint with the given address.
pub(crate) fn urb(address: u8, len: usize) -> Submit {
    let (is_in, endpoint) = (address & 0x80 != 0, address & 0x0f);
    Submit { seqnum: 0, devid: 0, is_in, endpoint, len, packets: 0, setup: [0; 8] }
}

/// Kills a server whose device a client has.
pub(crate) fn kill_attached(server: &mut Server) {
    let mut client = server.attach();
    assert_eq!(transfer(&mut client, urb(0x81, 512), &[]).status, 0);
    server.process.kill().expect("it runs");
    server.process.wait().expect("it ends");
}

/// SET_FEATURE(PORT_RESET), in a hub's form.
pub(crate) const PORT_RESET: [u8; 8] = [0x23, 3, 4, 0, 1, 0, 0, 0];

/// A control request without data.
pub(crate) fn request(setup: [u8; 8]) -> Submit {
    Submit { is_in: false, setup, ..urb(0, 0) }
}

/// Submits a URB and waits for its reply.
pub(crate) fn transfer(client: &mut Client, submit: Submit, data: &[u8]) -> Reply {
    let seqnum = client.submit(submit, data).expect("it is sent");
    let reply = client.reply().expect("it is answered");
    assert_eq!((reply.seqnum, reply.is_unlink), (seqnum, false));
    reply
}
