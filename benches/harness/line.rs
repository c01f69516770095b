//! A line with delay and loss between the client and the servers, which are in a network namespace
//! of their own. Linux only, as root; `libusb` includes the file by its path.
//!
//! The line is two TUN interfaces and a process between them, which passes each packet on after the
//! delay, or loses the packet. So the line needs no `netem` in the kernel, and a lost packet is
//! TCP's own to send again.
//!
//! The process has the second processor, and the interfaces and the namespace end with the process.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::settings::pin;

/// The argument with which a bench is the line's process instead; round trip in microseconds and
/// lost packets of a million follow.
pub(crate) const LINE: &str = "--be-line";

/// The lines of the rows: names, round trips in microseconds, and lost packets of a million.
pub(crate) const LINES: [(&str, u64, u64); 3] =
    [("line 0.2 ms", 200, 0), ("line 1 ms", 1000, 0), ("line 20 ms 0.1 % lost", 20_000, 1000)];

/// The addresses of both ends, in a network that nobody else is likely to use here.
pub(crate) const NEAR: &str = "10.213.77.1";
pub(crate) const FAR: &str = "10.213.77.2";

/// Bytes of the longest packet, as on Ethernet, and packets on their way at most.
const PACKET_LEN: usize = 1500;
const PACKETS: usize = 65_536;

/// A running line.
pub(crate) struct Line {
    process: Child,
    pub(crate) namespace: String,
}

impl Line {
    /// Starts the process, and waits until the line is there.
    pub(crate) fn start(round_trip: u64, lost: u64) -> Result<Self, String> {
        let mut process = std::env::current_exe()
            .and_then(|program| {
                let mut command = Command::new(program);
                command.args([LINE, &round_trip.to_string(), &lost.to_string()]);
                command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()
            })
            .map_err(|error| format!("the line can't be started: {error}"))?;
        pin(process.id(), 1);
        let mut said = String::new();
        if let Some(stdout) = process.stdout.take() {
            // An end without a line is the failure below.
            let _ = BufReader::new(stdout).read_line(&mut said);
        }
        let line = Self { process, namespace: said.trim().to_owned() };
        if line.namespace.is_empty() {
            return Err("rows with a line need root, /dev/net/tun and `ip` (iproute2)".to_owned());
        }
        Ok(line)
    }

    /// A command that runs a program at the far end.
    pub(crate) fn far(&self, environment: &[(&str, std::ffi::OsString)]) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace, "env"]);
        for (name, value) in environment {
            let mut variable = std::ffi::OsString::from(format!("{name}="));
            variable.push(value);
            command.arg(variable);
        }
        command
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        // The process ends when its stdin does, and takes the namespace along.
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

/// The line's process: passes packets on until stdin ends.
pub(crate) fn serve(arguments: &[String]) -> Result<(), String> {
    let number = |index: usize| arguments.get(index)?.parse::<u64>().ok();
    let (round_trip, lost) =
        number(0).zip(number(1)).ok_or("a round trip and a loss are wanted")?;
    let id = std::process::id();
    let (namespace, near, far) =
        (format!("usbferry-bench-{id}"), format!("ubn{id}"), format!("ubf{id}"));
    let explain = |error: io::Error| format!("a line needs root and /dev/net/tun: {error}");
    let near_end = open(&near).map_err(explain)?;
    let far_end = open(&far).map_err(explain)?;
    ip(&["netns", "add", &namespace])?;
    let made = connect(&namespace, [&near, &far]).and_then(|()| {
        // Times of the threads below are exact to the nanosecond, not to 50 µs.
        // SAFETY: integers for the calling thread.
        unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1) };
        let clones = near_end.try_clone().and_then(|near| Ok((near, far_end.try_clone()?)));
        let (near_again, far_again) = clones.map_err(explain)?;
        let delay = Duration::from_micros(round_trip / 2);
        relay(near_end, far_again, delay, lost);
        relay(far_end, near_again, delay, lost);
        println!("{namespace}");
        let _ = io::stdin().read_to_end(&mut Vec::new());
        Ok(())
    });
    ip(&["netns", "delete", &namespace])?;
    made
}

/// Makes a TUN interface, which lasts as long as the file.
fn open(name: &str) -> io::Result<File> {
    /// `IFF_TUN` and `IFF_NO_PI` of `linux/if_tun.h`.
    const FLAGS: u16 = 0x1001;
    const TUNSETIFF: libc::Ioctl = libc::_IOW::<libc::c_int>(b'T' as u32, 202);

    let file = OpenOptions::new().read(true).write(true).open("/dev/net/tun")?;
    // `struct ifreq`: a name of 16 bytes, then the flags.
    let mut request = [0_u8; 40];
    request[..name.len().min(15)].copy_from_slice(&name.as_bytes()[..name.len().min(15)]);
    request[16..18].copy_from_slice(&FLAGS.to_ne_bytes());
    // SAFETY: the file is open, and the request as long as `struct ifreq`.
    let made = unsafe { libc::ioctl(file.as_raw_fd(), TUNSETIFF, request.as_mut_ptr()) };
    if made < 0 { Err(io::Error::last_os_error()) } else { Ok(file) }
}

fn connect(namespace: &str, [near, far]: [&str; 2]) -> Result<(), String> {
    ip(&["link", "set", far, "netns", namespace])?;
    ip(&["address", "add", NEAR, "peer", FAR, "dev", near])?;
    ip(&["link", "set", near, "txqueuelen", "10000", "up"])?;
    ip(&["-n", namespace, "address", "add", FAR, "peer", NEAR, "dev", far])?;
    ip(&["-n", namespace, "link", "set", "lo", "up"])?;
    ip(&["-n", namespace, "link", "set", far, "txqueuelen", "10000", "up"])
}

fn ip(arguments: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(arguments).output();
    let output = output.map_err(|error| format!("ip (iproute2): {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("ip {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
}

/// Passes packets on in one direction.
fn relay(mut from: File, to: File, delay: Duration, lost: u64) {
    let (sender, receiver) = mpsc::sync_channel::<(Instant, Vec<u8>)>(PACKETS);
    thread::spawn(move || pass_on(&receiver, to));
    thread::spawn(move || {
        let mut packet = [0; PACKET_LEN];
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        while let Ok(len) = from.read(&mut packet) {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            if random % 1_000_000 >= lost {
                // A packet behind too many others is lost, as on any line.
                let _ = sender.try_send((Instant::now() + delay, packet[..len].to_vec()));
            }
        }
    });
}

fn pass_on(packets: &Receiver<(Instant, Vec<u8>)>, mut to: File) {
    for (due, packet) in packets {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        // A packet that the other end does not take is lost.
        let _ = to.write(&packet);
    }
}
