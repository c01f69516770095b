//! `usbferry serve`: typed options, checked and turned into [`Settings`].
//!
//! Contract: no I/O. Each error says what to type instead.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf, absolute};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use ipnet::IpNet;

use super::capture::CaptureOptions;
use super::error::{UsageError, Written};
use super::parse::takeover;
use super::simulation::Simulation;
use super::usbipd::StandIn;
use crate::config::file::FileSettings;
use crate::config::listen::{self, ListenAt, parse_http};
use crate::config::policy::Terms;
use crate::config::rules::matching::Match;
use crate::config::rules::spec::DeviceSpec;
use crate::config::rules::{Allowed, Origin, Rule, Rules};
use crate::config::socket::{SOCKET_MODE_DEFAULT, SocketPlace, parse_socket, parse_socket_mode};
use crate::config::value::{
    parse_busy_poll, parse_device_memory, parse_memory, parse_network, parse_peer_timeout,
    parse_socket_buffer, parse_urb_size, parse_urbs,
};
use crate::config::{Http, Listen, OperatorSocket, Policy, Settings, TakeOver};
use crate::limits::{BUSY_POLL_DEFAULT, DeviceLimits, PEER_TIMEOUT_DEFAULT};
#[cfg(feature = "simulate")]
use crate::usb::sim::spec::Spec;

/// `usbferry serve`.
#[derive(Args, Clone, Debug, Default)]
pub struct Serve {
    /// Listen here instead of on 127.0.0.1:3240 and [::1]:3240: an address or a name, with or
    /// without a port, or :PORT for all addresses. May be repeated. An address that other machines
    /// can reach needs --allow. [::]:3240 takes clients over IPv4, too
    #[arg(long, value_name = "ADDR[:PORT]")]
    listen: Vec<ListenAt>,

    /// Let clients from this network or address connect, too. May be repeated. Example:
    /// 192.168.1.0/24. Clients with a loopback address (127.0.0.0/8 or ::1) may always connect:
    /// programs of this machine, and clients over "ssh -R". This machine's other addresses need
    /// --allow like the addresses of any other machine
    #[arg(long, value_name = "CIDR", value_parser = parse_network)]
    allow: Vec<IpNet>,

    /// Export every device except hubs and devices that came in over USB/IP
    #[arg(long)]
    all: bool,

    /// Export this device: a busid (1-2.3), VID:PID, VID:PID:SERIAL, serial:SERIAL, class:NAME or
    /// driver:NAME. With a name in front, clients see the name and may ask for it: stick=0781:5567.
    /// VID:PIDs with commas are one device in different states, such as a bootloader's. May be
    /// repeated
    #[arg(long, value_name = "[NAME=]SPEC")]
    device: Vec<DeviceSpec>,

    /// Never export this device, in spite of --all and --device. May be repeated
    #[arg(long, value_name = "SPEC")]
    exclude: Vec<Match>,

    #[command(flatten)]
    simulation: Simulation,

    /// When a client may take a device from another client (the holder) [default: stale]
    #[arg(long = "take-over", value_name = "WHEN", value_parser = takeover())]
    takeover: Option<TakeOver>,

    /// Drop a client that has shown no sign of life, or accepted no byte, for this long (s, m),
    /// from 3s to 60m [default: 15s]
    #[arg(long, value_name = "TIME", value_parser = parse_peer_timeout)]
    peer_timeout: Option<Duration>,

    /// Reset each device that a client gives back, as the kernel's own server does
    #[arg(long)]
    reset_on_release: bool,

    /// Read settings and rules from this file (docs/rules.md). What is typed here goes before the
    /// file. Without this option /etc/usbferry/usbferry.toml is read, if there is such a file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Answer "usbferry status" and other questions of this machine at this socket, or at none with
    /// "none" [default: /run/usbferry/usbferry.sock, or else usbferry/usbferry.sock in
    /// $XDG_RUNTIME_DIR]
    #[arg(long, value_name = "PATH", value_parser = parse_socket)]
    socket: Option<SocketPlace>,

    /// Who may use the socket: the mode of a file, in octal digits [default: 600]
    #[arg(long, value_name = "MODE", value_parser = parse_socket_mode)]
    socket_mode: Option<u32>,

    /// Show a page of exports, sessions and rates here, with metrics for Prometheus at /metrics
    /// (docs/metrics.md): an address or a name, and a port, such as 127.0.0.1:9240. Clients are
    /// admitted as for USB/IP, so an address that other machines can reach needs --allow
    #[arg(long, value_name = "ADDR:PORT", value_parser = parse_http)]
    http: Option<ListenAt>,

    /// Announce this server on the networks where it listens, so that "usbferry list --discover"
    /// and other programs find the server (docs/discovery.md). Tells everybody there the version,
    /// and how many devices are for all clients
    #[arg(long)]
    advertise: bool,

    #[command(flatten)]
    capture: CaptureOptions,

    #[command(flatten)]
    tuning: Tuning,

    /// How the server stands in for usbipd, if it does.
    #[arg(skip)]
    stand_in: Option<StandIn>,
}

/// The options for tuning.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Tuning")]
struct Tuning {
    /// URBs in flight to a device at once, from 64 to 4096; further URBs wait. Each costs about a
    /// kilobyte, or 49 at most on a device with isochronous endpoints [default: 256]
    #[arg(long, value_name = "N", value_parser = parse_urbs)]
    urbs: Option<usize>,

    /// Bytes of buffer memory for a device (K, M, G), a power of two from 1M. Only addresses are
    /// reserved; memory is used as clients need it [default: 64M, or 16M where addresses have 32
    /// bits]
    #[arg(long, value_name = "SIZE", value_parser = parse_memory)]
    memory: Option<usize>,

    /// Bytes of further buffers for a device that its controller uses without a copy, on Linux. The
    /// kernel grants 16M to all programs together by default [default: 2M]
    #[arg(long, value_name = "SIZE", value_parser = parse_device_memory)]
    device_memory: Option<usize>,

    /// Bytes of the largest accepted URB; at most half of --memory, so that two fit [default: 16M,
    /// or 8M where addresses have 32 bits]
    #[arg(long, value_name = "SIZE", value_parser = parse_urb_size)]
    urb_size: Option<usize>,

    /// Bytes of each connection's send and receive buffer. By default the system sizes the buffers
    /// for the network, and no value is faster; a value limits the system's memory for a client
    /// that does not read
    #[arg(long, value_name = "SIZE", value_parser = parse_socket_buffer)]
    socket_buffer: Option<usize>,

    /// Look for work for up to this long before sleeping (us, ms), while one device is attached and
    /// short trials show a gain. The turnaround is much shorter for a client that sends one request
    /// after another, at the price of a busier processor: a look takes about as long as a wake-up
    /// at most. With 0us the server always sleeps at once [default: 200us]
    #[arg(long, value_name = "TIME", value_parser = parse_busy_poll)]
    busy_poll: Option<Duration>,
}

/// The devices to export.
#[derive(Debug)]
pub enum Chosen {
    /// Real devices.
    Real,
    /// Simulated devices.
    #[cfg(feature = "simulate")]
    Simulated(Vec<Spec>),
    /// Nothing was chosen.
    Nothing,
}

impl Serve {
    /// The file of settings, if named.
    #[must_use]
    pub fn config(&self) -> Option<&Path> {
        self.config.as_deref()
    }

    /// How the server stands in for `usbipd`, if it was started under that name.
    #[must_use]
    pub const fn stand_in(&self) -> Option<&StandIn> {
        self.stand_in.as_ref()
    }

    /// The same options for a server that stands in for `usbipd` and listens there, unless an
    /// address was typed. A named file gets its absolute path.
    ///
    /// # Errors
    /// There is no working directory.
    pub(super) fn standing_in(self, listen: ListenAt, stand_in: StandIn) -> io::Result<Self> {
        let config = self.config.map(absolute).transpose()?;
        let listen = if self.listen.is_empty() { vec![listen] } else { self.listen };
        Ok(Self { config, listen, stand_in: Some(stand_in), ..self })
    }

    /// Whether simulated devices are to be exported.
    #[must_use]
    pub const fn is_simulated(&self) -> bool {
        self.simulation.is_wanted()
    }

    /// Whether the file of settings in its usual place counts. Simulated devices are for trying
    /// out, and not for a system's settings.
    #[must_use]
    pub const fn follows_system(&self) -> bool {
        !self.is_simulated()
    }

    /// Checks the options together with a file, and turns both into settings, but for
    /// [`Self::listen`] and [`Self::http`]: an option goes before the same key of the file.
    ///
    /// # Errors
    /// Two values do not fit together.
    pub fn settings(&self, file: &FileSettings) -> Result<(Settings, Chosen), UsageError> {
        let policy = self.terms().over(file.terms.over(Policy::default()));
        check_urb_size(policy, || Written::Together(file.file.clone()))?;
        let rules = self.rules(file);
        for rule in rules.iter() {
            check_urb_size(rule.terms.over(policy), || Written::Rule(rule.origin.clone()))?;
        }
        let chosen = self.chosen(&rules)?;
        let peer_timeout = self.peer_timeout.or(file.peer_timeout);
        let settings = Settings {
            file: file.file.clone(),
            allowed: Allowed(self.allowed(file).to_vec()),
            rules,
            policy,
            socket_buffer: self.tuning.socket_buffer.or(file.socket_buffer),
            busy_poll: self.tuning.busy_poll.or(file.busy_poll).unwrap_or(BUSY_POLL_DEFAULT),
            peer_timeout: peer_timeout.unwrap_or(PEER_TIMEOUT_DEFAULT),
            capture: self.capture.wanted(),
            operators: self.operators(file),
            advertise: self.advertise || file.advertise.unwrap_or(false),
            ..Settings::default()
        };
        Ok((settings, chosen))
    }

    /// The socket of operators. A server has a socket unless told otherwise.
    fn operators(&self, file: &FileSettings) -> OperatorSocket {
        let place = self.socket.clone().or_else(|| file.socket.clone());
        let mode = self.socket_mode.or(file.socket_mode);
        OperatorSocket {
            place: place.unwrap_or(SocketPlace::Usual),
            mode: mode.unwrap_or(SOCKET_MODE_DEFAULT),
        }
    }

    /// The options and the file as rules: exceptions, devices, the rules of the file, and then
    /// everything else, so that the file's names and exceptions hold under `--all`, too.
    fn rules(&self, file: &FileSettings) -> Rules {
        let hooks = || Arc::clone(&file.hooks);
        let excluded = self.exclude.iter().map(|matches| {
            Rule::excluding(matches.clone(), Origin::Flag(format!("--exclude {matches}")))
        });
        let devices = self.device.iter().map(|spec| {
            let origin = Origin::Flag(format!("--device {spec}"));
            let rule = Rule::exporting(spec.matches.clone(), origin);
            Rule { name: spec.name, hooks: hooks(), ..rule }
        });
        let everything = [(self.all, "--all"), (self.is_simulated(), "--simulate")];
        let everything = everything.into_iter().filter(|&(is_given, _)| is_given);
        let everything = everything.map(|(_, option)| {
            let rule = Rule::exporting(Match::default(), Origin::Flag(option.to_owned()));
            Rule { hooks: hooks(), ..rule }
        });
        let named = excluded.chain(devices).chain(file.rules.iter().cloned());
        Rules::new(named.chain(everything))
    }

    fn terms(&self) -> Terms {
        let Tuning { urbs, memory, device_memory, urb_size, .. } = self.tuning;
        Terms {
            urbs,
            memory,
            device_memory,
            urb_len: urb_size,
            takeover: self.takeover,
            reset_on_release: self.reset_on_release.then_some(true),
            ..Terms::default()
        }
    }

    fn chosen(&self, rules: &Rules) -> Result<Chosen, UsageError> {
        match self.simulation.chosen() {
            Some(simulated) => simulated,
            // As usbipd without a bound device.
            None if self.stand_in.is_some() => Ok(Chosen::Real),
            None if rules.iter().any(|rule| rule.export) => Ok(Chosen::Real),
            None => Ok(Chosen::Nothing),
        }
    }

    fn allowed<'a>(&'a self, file: &'a FileSettings) -> &'a [IpNet] {
        if self.allow.is_empty() { file.allow.as_deref().unwrap_or_default() } else { &self.allow }
    }

    /// The addresses to listen on. `look_up` gives the addresses of a name and a port.
    ///
    /// # Errors
    /// A name has no address, or other machines could connect and none is allowed to.
    pub fn listen(
        &self,
        file: &FileSettings,
        look_up: impl Fn(&str, u16) -> io::Result<Vec<SocketAddr>>,
    ) -> Result<Vec<Listen>, UsageError> {
        let (places, written) = if self.listen.is_empty() {
            let listen = file.listen.as_deref().unwrap_or_default();
            (listen, Written::Together(file.file.clone()))
        } else {
            (&*self.listen, Written::Together(None))
        };
        let all = listen::addresses(places, look_up).map_err(UsageError::Unresolved)?;
        match first_public(&all) {
            // usbipd listens everywhere; here the other machines' clients are refused one by one.
            Some(address) if self.allowed(file).is_empty() && self.stand_in.is_none() => {
                Err(UsageError::NoAllow { setting: "listen", address, written })
            }
            _ => Ok(all),
        }
    }

    /// Where the web server listens, if there is one. `look_up` gives the addresses of a name and a
    /// port.
    ///
    /// # Errors
    /// A name has no address, or other machines could connect and none is allowed to.
    pub fn http(
        &self,
        file: &FileSettings,
        look_up: impl Fn(&str, u16) -> io::Result<Vec<SocketAddr>>,
    ) -> Result<Http, UsageError> {
        let (place, written) = match (&self.http, &file.http) {
            (Some(typed), _) => (typed, Written::Together(None)),
            (None, Some(place)) => (place, Written::Together(file.file.clone())),
            (None, None) => return Ok(Http::default()),
        };
        let all = listen::addresses(std::slice::from_ref(place), look_up);
        let listen = all.map_err(UsageError::Unresolved)?;
        match first_public(&listen) {
            Some(address) if self.allowed(file).is_empty() => {
                Err(UsageError::NoAllow { setting: "http", address, written })
            }
            _ => Ok(Http { listen, name: place.name().map(str::to_owned) }),
        }
    }
}

/// The first address that other machines can reach.
fn first_public(all: &[Listen]) -> Option<SocketAddr> {
    let mut addresses = all.iter().map(|listen| listen.address);
    addresses.find(|address| !address.ip().is_loopback())
}

/// Two of the largest URBs must fit into the memory of a device.
fn check_urb_size(policy: Policy, written: impl Fn() -> Written) -> Result<(), UsageError> {
    let DeviceLimits { urb_len: urb_size, memory, .. } = policy.limits;
    if urb_size > memory / 2 {
        return Err(UsageError::UrbSize { urb_size, memory, written: written() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::{Cli, Command};
    use super::*;
    use crate::limits;
    use crate::units::Size;

    fn serve(arguments: &[&str]) -> Result<(Settings, Chosen), Box<dyn std::error::Error>> {
        let line = ["usbferry", "serve"].iter().chain(arguments);
        match Cli::try_parse_from(line)?.command {
            Command::Serve(serve) => {
                let file = FileSettings::default();
                let (mut settings, chosen) = serve.settings(&file)?;
                settings.listen = serve.listen(&file, |_, _| Ok(Vec::new()))?;
                settings.http = serve.http(&file, |_, _| Ok(Vec::new()))?;
                Ok((settings, chosen))
            }
            _ => unreachable!("it says serve"),
        }
    }

    /// The help of an option, as text.
    fn help_of(option: &str) -> String {
        let mut command = <Cli as clap::CommandFactory>::command();
        let serve = command.find_subcommand_mut("serve").expect("it is one");
        let argument = serve.get_arguments().find(|argument| argument.get_id() == option);
        argument.and_then(|argument| argument.get_help()).expect("it is explained").to_string()
    }

    #[test]
    fn the_help_and_the_limits_agree() {
        let most = (limits::URB_MEMORY + limits::SLOT_MEMORY) >> 10;
        assert!(help_of("urbs").contains(&format!("{most} at most")));
        for (option, range) in [
            ("urbs", format!("from {} to {};", limits::URBS_MIN, limits::URBS_MAX)),
            ("memory", format!("from {}.", typed(limits::MEMORY_MIN))),
            ("capture_size", format!("from {}:", typed(limits::CAPTURE_SIZE_MIN))),
            ("peer_timeout", format!("from {:?} to 60m", limits::PEER_TIMEOUT_MIN)),
        ] {
            let help = help_of(option);
            assert!(help.contains(&range), "{option}: {range}: {help}");
        }
        assert_eq!(limits::PEER_TIMEOUT_MAX, Duration::from_secs(60 * 60));
        for (option, default) in [
            ("urbs", limits::URBS_DEFAULT.to_string()),
            ("memory", typed(limits::MEMORY_DEFAULT)),
            ("device_memory", typed(limits::DEVICE_MEMORY_DEFAULT)),
            ("urb_size", typed(limits::URB_LEN_DEFAULT)),
            ("takeover", TakeOver::default().name().to_owned()),
            ("peer_timeout", format!("{:?}", PEER_TIMEOUT_DEFAULT)),
            ("busy_poll", format!("{}us", BUSY_POLL_DEFAULT.as_micros())),
            ("capture_snaplen", typed(limits::SNAP_LEN_DEFAULT)),
            ("socket_mode", format!("{SOCKET_MODE_DEFAULT:o}")),
        ] {
            let help = help_of(option);
            let (_, defaults) = help.split_once("[default: ").expect("it has a default");
            let is_there = defaults.trim_end_matches(']').split([' ', ',']).any(|d| d == default);
            assert!(is_there, "{option}: {default}: {help}");
        }
    }

    /// A number of bytes as typed.
    fn typed(bytes: usize) -> String {
        Size(bytes as u64).to_string()
    }

    #[test]
    fn defaults_are_those_of_the_limits() {
        let (settings, chosen) = serve(&["--all"]).unwrap();
        assert_eq!(settings.policy.limits, DeviceLimits::default());
        assert_eq!(settings.busy_poll, BUSY_POLL_DEFAULT);
        assert!(matches!(chosen, Chosen::Real));
        let addresses: Vec<String> =
            settings.listen.iter().map(|l| l.address.to_string()).collect();
        assert_eq!(addresses, ["127.0.0.1:3240", "[::1]:3240"]);
        assert_eq!(settings.listen.iter().map(|l| l.optional).collect::<Vec<_>>(), [false, true]);
    }

    #[test]
    fn nothing_is_exported_by_itself() {
        let (settings, chosen) = serve(&[]).unwrap();
        assert!(matches!(chosen, Chosen::Nothing));
        assert!(settings.rules.is_empty());
    }

    #[test]
    fn simulate_takes_a_list_or_stands_for_one_of_each() {
        for (argument, count) in [("--simulate", 3), ("--simulate=disk", 1)] {
            let (settings, chosen) = serve(&[argument]).unwrap();
            assert!(matches!(chosen, Chosen::Simulated(specs) if specs.len() == count));
            assert!(settings.rules.iter().any(|rule| rule.export && rule.matches.is_every()));
        }
        assert!(serve(&["--simulate=printer"]).is_err());
        assert!(serve(&["--simulate", "--all"]).is_err());
    }

    #[test]
    fn options_are_rules_with_exceptions_first_and_all_last() {
        let typed = ["--all", "--device", "a=1-2", "--exclude", "1-3", "--device", "0781:5567"];
        let (settings, _) = serve(&typed).unwrap();
        let origins: Vec<String> =
            settings.rules.iter().map(|rule| rule.origin.to_string()).collect();
        let expected = ["--exclude 1-3", "--device a=1-2", "--device 0781:5567", "--all"];
        assert_eq!(origins, expected);
        let exports: Vec<bool> = settings.rules.iter().map(|rule| rule.export).collect();
        assert_eq!(exports, [false, true, true, true]);
        assert_eq!(settings.rules.iter().nth(1).unwrap().name, "a".parse().ok());
    }

    #[test]
    fn a_public_address_needs_allow() {
        let error = serve(&["--all", "--listen", "0.0.0.0:3240"]).unwrap_err().to_string();
        assert!(error.contains("--allow"), "{error}");
        let allowed = ["--all", "--listen", "0.0.0.0:3240", "--allow", "10.0.0.0/8"];
        assert!(serve(&allowed).is_ok());
        assert!(serve(&["--all", "--listen", "127.0.0.2:1"]).is_ok());
        assert!(serve(&["--all", "--allow", "10.1.2.3"]).is_ok());
        assert!(serve(&["--all", "--listen", "127.0.0.1"]).is_ok());
        assert!(
            serve(&["--all", "--listen", ":3240"]).unwrap_err().to_string().contains("--allow")
        );
    }

    #[test]
    fn a_web_server_is_off_and_asks_for_allow_like_any_listener() {
        assert_eq!(serve(&["--all"]).unwrap().0.http, Http::default());
        let (settings, _) = serve(&["--all", "--http", "127.0.0.1:9240"]).unwrap();
        let addresses: Vec<String> =
            settings.http.listen.iter().map(|listen| listen.address.to_string()).collect();
        assert_eq!(addresses, ["127.0.0.1:9240"]);
        let error = serve(&["--all", "--http", ":9240"]).unwrap_err().to_string();
        assert!(error.starts_with("--http 0.0.0.0:9240 can be reached by other"), "{error}");
        assert!(serve(&["--all", "--http", ":9240", "--allow", "10.0.0.0/8"]).is_ok());
        let file = "http = \"0.0.0.0:9240\"\n[[rule]]\nid = \"1209:0001\"";
        let file = FileSettings::read("f", file).unwrap();
        let error = Serve::default().http(&file, |_, _| Ok(Vec::new())).unwrap_err().to_string();
        assert!(error.starts_with("f, with the options typed: http 0.0.0.0:9240"), "{error}");
    }

    #[test]
    fn wrong_values_are_refused_with_a_sentence() {
        let (default, most) = (typed(limits::URB_LEN_DEFAULT), typed(limits::MEMORY_MAX));
        let too_large = format!("--urb-size {default} is more than half of --memory 2M: ");
        for (arguments, says) in [
            (["--urbs", "1"], "give a number from"),
            (["--urbs", "many"], "give a number from"),
            (["--memory", "3M"], "power of two"),
            (["--memory", "512K"], "power of two"),
            (["--urb-size", "-1"], "unexpected argument"),
            (["--urb-size", "1T"], "number of bytes"),
            (["--urb-size", "2G"], "number of bytes"),
            (["--urb-size", "0"], &format!("from 4096 to {most}")),
            (["--urb-size", "4095"], &format!("from 4096 to {most}")),
            (["--memory", "63MB"], &format!("power of two from 1M to {most}, such as 16M")),
            (["--memory", "1T"], &format!("power of two from 1M to {most}, such as 16M")),
            (["--memory", "0"], "power of two"),
            (["--urb-size", "64M"], "or more --memory"),
            (["--memory", "2M"], &too_large),
            (["--memory", "2048k"], "give --urb-size 1M or less, too, or more --memory"),
            (["--memory", "1M"], "give --urb-size 512K or less"),
            (["--listen", "3240"], "give an address, a name or a port"),
            (["--listen", "127.0.0.1:http"], "192.168.1.5:3240, localhost"),
            (["--listen", "127.0.0.1:80000"], "more than 65535"),
            (["--listen", ""], "give an address, a name or a port"),
            (["--listen", "nobody.invalid"], "can't resolve nobody.invalid, to listen there"),
            (["--device-memory", "1"], "from 64K to"),
            (["--socket-buffer", "0"], "from 4K to"),
            (["--busy-poll", "5"], "such as 50us"),
            (["--busy-poll", "2000ms"], "such as 50us"),
            (["--peer-timeout", "1s"], "from 3s"),
            (["--take-over", "perhaps"], "same-host"),
            (["--allow", "everybody"], "give a network"),
            (["--device", "stick"], "usbferry list"),
            (["--http", "127.0.0.1"], "such as 127.0.0.1:9240"),
            (["--http", "nobody.invalid:1"], "can't resolve nobody.invalid, to listen there"),
            (["--socket", ""], "or none"),
            (["--socket-mode", "888"], "octal"),
            (["--device", "0781-5567"], "write 0781:5567"),
            (["--device", "1-2=1-3"], "put a letter into the name"),
            (["--exclude", "a=1-3"], "usbferry list"),
        ] {
            let error = serve(&arguments).unwrap_err().to_string();
            assert!(error.contains(says), "{arguments:?}: {error}");
        }
    }
}
