//! The command line: what is typed, checked and turned into [`Settings`].
//!
//! Contract: no I/O. Whatever is wrong is a sentence that says what to type instead.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::sync::LazyLock;
use std::time::Duration;

use clap::builder::PossibleValue;
use clap::{Args, Parser, Subcommand};
use ipnet::IpNet;
use log::LevelFilter;

use crate::config::rules::{Allowed, DeviceSpec, Selection};
use crate::config::{Listen, Policy, Settings, TakeOver};
use crate::limits::{self, DeviceLimits};
use crate::units;
use crate::usb::sim::spec::{self, Spec};

/// The port that the IANA gave to USB/IP.
pub const PORT: u16 = 3240;

/// A fast USB/IP server: exports USB devices to other computers, with no kernel module.
#[derive(Parser, Debug)]
#[command(version = version(), about, propagate_version = true, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,

    /// What to log on stderr: error, warn, info, debug or trace, or a filter such as
    /// "info,usbferry::session=trace". If this is not given, RUST_LOG says, or else it is info
    #[arg(long, global = true, value_name = "LEVEL", value_parser = parse_log)]
    log: Option<String>,
}

impl Cli {
    /// What to log: as was typed, or else as `RUST_LOG` has it. That is for all programs, and may
    /// name others only.
    ///
    /// # Errors
    /// A sentence: `RUST_LOG` holds neither a level nor a filter.
    pub fn log_filter(&self, environment: Option<String>) -> Result<String, String> {
        let environment = environment.filter(|text| !text.is_empty());
        match (&self.log, environment) {
            (Some(typed), _) => Ok(typed.clone()),
            (None, None) => Ok("info".to_owned()),
            (None, Some(text)) if parts_of(&text).all(names_another) => Ok(text),
            (None, Some(text)) => {
                parse_log(&text).map_err(|error| format!("RUST_LOG is “{text}”: {error}"))
            }
        }
    }
}

/// The program's version and that of libusb, which may be the system's and then any.
#[must_use]
pub fn version() -> &'static str {
    static VERSION: LazyLock<String> = LazyLock::new(|| {
        format!(
            "{} (libusb {})",
            env!("CARGO_PKG_VERSION"),
            usbferry_sys::libusb::version::libusb()
        )
    });
    &VERSION
}

/// The commands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Export devices
    Serve(Box<Serve>),
    /// Show the devices of this machine, or those another one exports
    List(List),
}

/// `usbferry list`.
#[derive(Args, Debug)]
pub struct List {
    /// Ask the USB/IP server there (any, not only usbferry) what it exports
    #[arg(long, value_name = "HOST[:PORT]")]
    pub remote: Option<String>,
}

/// `usbferry serve`.
#[derive(Args, Debug)]
pub struct Serve {
    /// Listen on this address and port, instead of 127.0.0.1:3240 and [::1]:3240. May be repeated.
    /// Addresses that other machines can reach need --allow
    #[arg(long, value_name = "ADDR:PORT", value_parser = parse_listen)]
    listen: Vec<SocketAddr>,

    /// Serve clients of this network or address too; this machine itself always may connect. May
    /// be repeated. Example: 192.168.1.0/24
    #[arg(long, value_name = "CIDR", value_parser = parse_network)]
    allow: Vec<IpNet>,

    /// Export every device but hubs and those that came in over USB/IP
    #[arg(long)]
    all: bool,

    /// Export this device: a busid (1-2.3), VID:PID or VID:PID:SERIAL. May be repeated
    #[arg(long, value_name = "SPEC")]
    device: Vec<DeviceSpec>,

    /// Do not export this device, whatever else says so. May be repeated
    #[arg(long, value_name = "SPEC")]
    exclude: Vec<DeviceSpec>,

    /// Export simulated devices instead of real ones: a list of disk, microphone, loopback and
    /// serial, each with options behind colons; with no list, a disk, a microphone and a loopback.
    /// Examples: --simulate, --simulate=disk:size=64M, --simulate=loopback:delay=1ms:count=2
    #[arg(
        long,
        value_name = "DEVICES",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = spec::ONE_OF_EACH,
        conflicts_with_all = ["all", "device", "exclude"]
    )]
    simulate: Option<String>,

    /// When a client that asks for a device somebody has gets it: never, stale (same address, and
    /// the holder's connection looks dead), same-host, or any
    #[arg(long, value_name = "WHEN", default_value = "stale")]
    takeover: TakeOver,

    /// A client that shows no sign of life, or accepts no byte, for so long is gone (s, ms)
    #[arg(long, value_name = "TIME", default_value = "15s", value_parser = parse_peer_timeout)]
    peer_timeout: Duration,

    /// Reset a device when its client is done with it, as the kernel's own server does
    #[arg(long)]
    reset_on_release: bool,

    #[command(flatten)]
    tuning: Tuning,
}

/// What can be tuned.
#[derive(Args, Debug)]
#[command(next_help_heading = "Tuning")]
struct Tuning {
    /// URBs of a device that are with it at once; more wait. Each costs about a kilobyte, with
    /// isochronous endpoints 49 at most
    #[arg(long, value_name = "N", default_value_t = limits::URBS_DEFAULT, value_parser = parse_urbs)]
    urbs: usize,

    /// Bytes of buffers of a device (K, M, G), a power of two. Address space: memory is used as
    /// clients need it
    #[arg(
        long,
        value_name = "SIZE",
        default_value = size(limits::MEMORY_DEFAULT),
        value_parser = parse_memory
    )]
    memory: usize,

    /// Bytes of further buffers that the device's controller can use without a copy, on Linux;
    /// all programs together have 16M of them unless the kernel is told otherwise
    #[arg(long, value_name = "SIZE", default_value = "2M", value_parser = parse_size)]
    device_memory: usize,

    /// Bytes of the largest URB that is accepted; at most half of --memory, so that two fit
    #[arg(
        long,
        value_name = "SIZE",
        default_value = size(limits::URB_LEN_DEFAULT),
        value_parser = parse_urb_size
    )]
    urb_size: usize,

    /// Bytes of each connection's send and receive buffer. Without this the system grows them to
    /// what the network needs, and nothing is faster; a number bounds what a client that does not
    /// read can hold of the system's memory
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    socket_buffer: Option<usize>,

    /// Look for work up to so long before sleeping (us, ms), while one device is attached and where
    /// that has paid so far: a much shorter turnaround while a client sends one request after the
    /// other, for a processor that is then busy. 0us sleeps at once, always
    #[arg(long, value_name = "TIME", default_value = "200us", value_parser = parse_busy_poll)]
    busy_poll: Duration,
}

impl clap::ValueEnum for TakeOver {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Never, Self::Stale, Self::SameHost, Self::Any]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let (name, help) = match self {
            Self::Never => ("never", "Never: the new client is told that the device is busy"),
            Self::Stale => (
                "stale",
                "When the holder has the same address and its connection looks dead. Over `ssh -R` \
                 every client has the address 127.0.0.1 and a connection that is alive as long as \
                 the tunnel",
            ),
            Self::SameHost => (
                "same-host",
                "When the holder has the same address, dead or alive. Over `ssh -R` that is \
                 everybody",
            ),
            Self::Any => ("any", "Always: whoever asks last has the device"),
        };
        Some(PossibleValue::new(name).help(help))
    }
}

/// What to export.
#[derive(Debug)]
pub enum Source {
    /// Real devices.
    Real,
    /// Simulated ones.
    Simulated(Vec<Spec>),
    /// Nothing was chosen.
    Nothing,
}

impl Serve {
    /// Checks what was typed and turns it into settings.
    ///
    /// # Errors
    /// A sentence about what does not fit together.
    pub fn settings(&self) -> Result<(Settings, Source), String> {
        let tuning = &self.tuning;
        if tuning.urb_size > tuning.memory / 2 {
            let [urb_size, memory, most] =
                [tuning.urb_size, tuning.memory, tuning.memory / 2].map(units::typed_size);
            return Err(format!(
                "--urb-size {urb_size} is more than half of --memory {memory}: two of the largest \
                 URBs must fit; give --urb-size {most} or less, too, or more --memory"
            ));
        }
        let source = match &self.simulate {
            Some(text) => {
                Source::Simulated(Spec::parse_list(text).map_err(|error| error.to_string())?)
            }
            None if self.all || !self.device.is_empty() => Source::Real,
            None => Source::Nothing,
        };
        let settings = Settings {
            listen: self.listen_addresses()?,
            allowed: Allowed(self.allow.clone()),
            selection: Selection {
                all: self.all || self.simulate.is_some(),
                devices: self.device.clone(),
                exclude: self.exclude.clone(),
            },
            policy: Policy {
                limits: DeviceLimits {
                    urbs: tuning.urbs,
                    memory: tuning.memory,
                    device_memory: tuning.device_memory,
                    urb_len: tuning.urb_size,
                },
                takeover: self.takeover,
                reset_on_release: self.reset_on_release,
            },
            socket_buffer: tuning.socket_buffer,
            busy_poll: tuning.busy_poll,
            peer_timeout: self.peer_timeout,
            ..Settings::default()
        };
        Ok((settings, source))
    }

    fn listen_addresses(&self) -> Result<Vec<Listen>, String> {
        if self.listen.is_empty() {
            return Ok(vec![
                Listen { address: (Ipv4Addr::LOCALHOST, PORT).into(), optional: false },
                Listen { address: (Ipv6Addr::LOCALHOST, PORT).into(), optional: true },
            ]);
        }
        let public = self.listen.iter().find(|address| !address.ip().is_loopback());
        if let (Some(address), true) = (public, self.allow.is_empty()) {
            return Err(format!(
                "--listen {address} can be reached by other machines, and USB/IP knows no \
                 passwords: say which may connect with --allow, for instance \
                 --allow 192.168.1.0/24"
            ));
        }
        let listen = |&address| Listen { address, optional: false };
        Ok(self.listen.iter().map(listen).collect())
    }
}

/// A filter must have a part for this program: a word that is no level would be taken for the name
/// of another's module, and then nothing is logged at all.
fn parse_log(text: &str) -> Result<String, String> {
    let concerns_us = |part: &str| match part.split_once('=') {
        Some((target, level)) => is_ours(target) && is_level(level),
        None => is_level(part) || is_ours(part),
    };
    if parts_of(text).any(concerns_us) {
        return Ok(text.to_owned());
    }
    Err("give error, warn, info, debug or trace, or a filter for usbferry such as \
         info,usbferry::session=trace"
        .to_owned())
}

/// The parts of a filter. Behind a slash is what lines must have in them.
fn parts_of(filter: &str) -> impl Iterator<Item = &str> {
    filter.split('/').next().unwrap_or_default().split(',')
}

fn is_level(text: &str) -> bool {
    text.trim().parse::<LevelFilter>().is_ok()
}

fn is_ours(target: &str) -> bool {
    target.trim().starts_with("usbferry")
}

/// Whether a part of a filter is for another program, and says for what.
fn names_another(part: &str) -> bool {
    part.split_once('=').is_some_and(|(target, level)| !is_ours(target) && is_level(level))
}

fn parse_listen(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        "give an address with its port, such as 192.168.1.5:3240, 0.0.0.0:3240 or [::1]:3240 \
         (no names)"
            .to_owned()
    })
}

fn parse_network(text: &str) -> Result<IpNet, String> {
    let address =
        || text.parse().ok().map(|address| IpNet::new_assert(address, host_bits(address)));
    IpNet::from_str(text).ok().or_else(address).ok_or_else(|| {
        "give a network such as 192.168.1.0/24 or fd00::/8, or one address".to_owned()
    })
}

/// The prefix length of a network of one address.
const fn host_bits(address: std::net::IpAddr) -> u8 {
    match address {
        std::net::IpAddr::V4(_) => 32,
        std::net::IpAddr::V6(_) => 128,
    }
}

fn parse_urbs(text: &str) -> Result<usize, String> {
    let range = limits::URBS_MIN..=limits::URBS_MAX;
    let urbs = text.parse().ok().filter(|urbs| range.contains(urbs));
    urbs.ok_or_else(|| format!("give a number from {} to {}", range.start(), range.end()))
}

/// The largest size that can be set, as it is typed.
const MOST: &str = size(limits::MEMORY_MAX);

/// A size as it is typed, of those that the limits have.
const fn size(bytes: usize) -> &'static str {
    units::size_text(bytes as u64)
}

fn parse_memory(text: &str) -> Result<usize, String> {
    let range = limits::MEMORY_MIN..=limits::MEMORY_MAX;
    units::parse_size(text)
        .filter(|bytes| bytes.is_power_of_two() && range.contains(bytes))
        .ok_or_else(|| format!("give a power of two from 1M to {MOST}, such as 16M"))
}

/// Descriptors are read by control transfers, and without them a client can use nothing.
fn parse_urb_size(text: &str) -> Result<usize, String> {
    let bytes = parse_size(text)?;
    if bytes < limits::CONTROL_LEN_MAX {
        let least = limits::CONTROL_LEN_MAX;
        return Err(format!("give a number of bytes from {least} to {MOST}, such as 128K or 16M"));
    }
    Ok(bytes)
}

fn parse_size(text: &str) -> Result<usize, String> {
    units::parse_size(text)
        .filter(|&bytes| bytes <= limits::MEMORY_MAX)
        .ok_or_else(|| format!("give a number of bytes up to {MOST}, such as 4096, 128K or 16M"))
}

/// The longest busy polling: beyond it, sleeping costs nothing anybody could notice.
const BUSY_POLL_MAX: Duration = Duration::from_millis(100);

fn parse_busy_poll(text: &str) -> Result<Duration, String> {
    units::parse_time(text)
        .filter(|&time| time <= BUSY_POLL_MAX)
        .ok_or_else(|| "give a time up to 100ms, such as 50us or 1ms".to_owned())
}

fn parse_peer_timeout(text: &str) -> Result<Duration, String> {
    let range = limits::PEER_TIMEOUT_MIN..=limits::PEER_TIMEOUT_MAX;
    units::parse_time(text)
        .filter(|time| range.contains(time))
        .ok_or_else(|| "give a time from 3s to 3600s, such as 15s".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn serve(arguments: &[&str]) -> Result<(Settings, Source), String> {
        let line = ["usbferry", "serve"].iter().chain(arguments);
        match Cli::try_parse_from(line).map_err(|error| error.to_string())?.command {
            Command::Serve(serve) => serve.settings(),
            Command::List(_) => unreachable!("it says serve"),
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn a_size_of_the_limits_is_told_as_it_is_typed() {
        for bytes in [limits::MEMORY_DEFAULT, limits::URB_LEN_DEFAULT, limits::MEMORY_MAX] {
            assert_eq!(parse_size(size(bytes)), Ok(bytes));
        }
        let more = (limits::MEMORY_MAX + 1).to_string();
        assert!(parse_size(&more).unwrap_err().contains(MOST), "{more}");
    }

    #[test]
    fn the_help_states_what_a_urb_costs_as_the_limits_do() {
        let mut command = <Cli as clap::CommandFactory>::command();
        let serve = command.find_subcommand_mut("serve").expect("it is one");
        let urbs = serve.get_arguments().find(|argument| argument.get_id() == "urbs");
        let help = urbs.and_then(|urbs| urbs.get_help()).expect("it is explained").to_string();
        let most = (limits::URB_MEMORY + limits::SLOT_MEMORY) >> 10;
        assert!(help.contains(&format!("{most} at most")), "{help}");
    }

    #[test]
    fn defaults_are_those_of_the_limits() {
        let (settings, source) = serve(&["--all"]).unwrap();
        assert_eq!(settings.policy.limits, DeviceLimits::default());
        assert_eq!(settings.busy_poll, limits::BUSY_POLL_DEFAULT);
        assert!(matches!(source, Source::Real));
        let addresses: Vec<String> =
            settings.listen.iter().map(|l| l.address.to_string()).collect();
        assert_eq!(addresses, ["127.0.0.1:3240", "[::1]:3240"]);
        assert_eq!(settings.listen.iter().map(|l| l.optional).collect::<Vec<_>>(), [false, true]);
    }

    #[test]
    fn nothing_is_exported_by_itself() {
        let (settings, source) = serve(&[]).unwrap();
        assert!(matches!(source, Source::Nothing));
        assert_eq!(settings.selection, Selection::default());
    }

    #[test]
    fn simulate_takes_a_list_or_stands_for_one_of_each() {
        for (argument, count) in [("--simulate", 3), ("--simulate=disk", 1)] {
            let (settings, source) = serve(&[argument]).unwrap();
            assert!(matches!(source, Source::Simulated(specs) if specs.len() == count));
            assert!(settings.selection.all);
        }
        assert!(serve(&["--simulate=printer"]).is_err());
        assert!(serve(&["--simulate", "--all"]).is_err());
    }

    #[test]
    fn the_log_is_what_was_typed_or_what_the_environment_says() {
        let filter = |arguments: &[&str], environment: Option<&str>| {
            let line = ["usbferry", "list"].iter().chain(arguments);
            let cli = Cli::try_parse_from(line).map_err(|error| error.to_string())?;
            cli.log_filter(environment.map(str::to_owned))
        };
        assert_eq!(filter(&[], None).unwrap(), "info");
        assert_eq!(filter(&[], Some("othercrate=debug")).unwrap(), "othercrate=debug");
        assert_eq!(filter(&[], Some("")).unwrap(), "info");
        for both in ["a=info,b::c=off", "a=info/text", "a=info,warn"] {
            assert_eq!(filter(&[], Some(both)).unwrap(), both);
        }
        for wrong in ["loud", "loud/info", "usbferry=loud", "info=4", "a=info,loud", "a=loud"] {
            let refused = filter(&[], Some(wrong)).unwrap_err();
            assert!(
                refused.starts_with(&format!("RUST_LOG is “{wrong}”: give error")),
                "{refused}"
            );
            // What is typed is what counts.
            assert_eq!(filter(&["--log", "warn"], Some(wrong)).unwrap(), "warn");
        }
        for typed in ["trace", "OFF", "warn,usbferry::session=trace", "usbferry", "mio,debug/x"] {
            assert_eq!(filter(&["--log", typed], Some("warn")).unwrap(), typed);
        }
        for wrong in ["", "verbose", "verbose/info", "othercrate=debug", "usbferry=loud", "info=4"]
        {
            assert!(filter(&["--log", wrong], None).unwrap_err().contains("give error"), "{wrong}");
        }
    }

    #[test]
    fn a_public_address_needs_allow() {
        let error = serve(&["--all", "--listen", "0.0.0.0:3240"]).unwrap_err();
        assert!(error.contains("--allow"), "{error}");
        let allowed = ["--all", "--listen", "0.0.0.0:3240", "--allow", "10.0.0.0/8"];
        assert!(serve(&allowed).is_ok());
        assert!(serve(&["--all", "--listen", "127.0.0.2:1"]).is_ok());
        assert!(serve(&["--all", "--allow", "10.1.2.3"]).is_ok());
    }

    #[test]
    fn wrong_values_are_refused_with_a_sentence() {
        let default = size(limits::URB_LEN_DEFAULT);
        let too_large = format!("--urb-size {default} is more than half of --memory 2M: ");
        for (arguments, says) in [
            (["--urbs", "1"], "give a number from"),
            (["--urbs", "many"], "give a number from"),
            (["--memory", "3M"], "power of two"),
            (["--memory", "512K"], "power of two"),
            (["--urb-size", "-1"], "unexpected argument"),
            (["--urb-size", "1T"], "number of bytes"),
            (["--urb-size", "2G"], "number of bytes"),
            (["--urb-size", "0"], &format!("from 4096 to {MOST}")),
            (["--urb-size", "4095"], &format!("from 4096 to {MOST}")),
            (["--memory", "64MB"], &format!("power of two from 1M to {MOST}, such as 16M")),
            (["--memory", "1T"], &format!("power of two from 1M to {MOST}, such as 16M")),
            (["--memory", "0"], "power of two"),
            (["--urb-size", "64M"], "or more --memory"),
            (["--memory", "2M"], &too_large),
            (["--memory", "2048k"], "give --urb-size 1M or less, too, or more --memory"),
            (["--memory", "1M"], "give --urb-size 512K or less"),
            (["--listen", "127.0.0.1"], "give an address with its port"),
            (["--listen", "3240"], "give an address with its port"),
            (["--listen", ":3240"], "give an address with its port"),
            (["--listen", "::1"], "give an address with its port"),
            (["--listen", "localhost:3240"], "(no names)"),
            (["--listen", "127.0.0.1:99999"], "such as 192.168.1.5:3240"),
            (["--listen", ""], "give an address with its port"),
            (["--busy-poll", "5"], "such as 50us"),
            (["--busy-poll", "2000ms"], "such as 50us"),
            (["--peer-timeout", "1s"], "from 3s"),
            (["--takeover", "perhaps"], "same-host"),
            (["--allow", "everybody"], "give a network"),
            (["--device", "stick"], "usbferry list"),
        ] {
            let error = serve(&arguments).unwrap_err();
            assert!(error.contains(says), "{arguments:?}: {error}");
        }
    }
}
