//! `usbferry serve`: typed options, checked and turned into [`Settings`].
//!
//! Contract: no I/O. Each error says what to type instead.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use clap::Args;
use ipnet::IpNet;

use super::error::UsageError;
use crate::config::rules::matching::Match;
use crate::config::rules::spec::DeviceSpec;
use crate::config::rules::{Allowed, Origin, Rule, Rules};
use crate::config::value::{
    parse_busy_poll, parse_listen, parse_memory, parse_network, parse_peer_timeout, parse_size,
    parse_urb_size, parse_urbs,
};
use crate::config::{Listen, Policy, Settings, TakeOver};
use crate::limits::{self, DeviceLimits};
use crate::units::Size;
use crate::usb::sim::spec::{self, Spec};
use crate::wire::PORT;

/// `usbferry serve`.
#[derive(Args, Debug)]
pub struct Serve {
    /// Listen on this address and port instead of 127.0.0.1:3240 and [::1]:3240. May be repeated.
    /// An address that other machines can reach needs --allow
    #[arg(long, value_name = "ADDR:PORT", value_parser = parse_listen)]
    listen: Vec<SocketAddr>,

    /// Let clients from this network or address connect, too; this machine itself may always
    /// connect. May be repeated. Example: 192.168.1.0/24
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

    /// Export simulated devices instead of real devices: a list of disk, microphone, loopback and
    /// serial, each with options after colons. Without a list: a disk, a microphone and a loopback.
    /// Examples: --simulate, --simulate=disk:size=64M, --simulate=loopback:delay=1ms:count=2
    #[arg(
        long,
        value_name = "DEVICES",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = spec::ONE_OF_EACH,
        conflicts_with = "all"
    )]
    simulate: Option<String>,

    /// When a client may take a device from another client (the holder)
    #[arg(long, value_name = "WHEN", default_value = "stale")]
    takeover: TakeOver,

    /// Drop a client that has shown no sign of life, or accepted no byte, for this long (s, ms)
    #[arg(long, value_name = "TIME", default_value = "15s", value_parser = parse_peer_timeout)]
    peer_timeout: Duration,

    /// Reset each device that a client gives back, as the kernel's own server does
    #[arg(long)]
    reset_on_release: bool,

    #[command(flatten)]
    tuning: Tuning,
}

/// The options for tuning.
#[derive(Args, Debug)]
#[command(next_help_heading = "Tuning")]
struct Tuning {
    /// URBs in flight to a device at once; further URBs wait. Each costs about a kilobyte, or 49 at
    /// most on a device with isochronous endpoints
    #[arg(
        long,
        value_name = "N",
        default_value_t = limits::URBS_DEFAULT,
        value_parser = parse_urbs
    )]
    urbs: usize,

    /// Bytes of buffer memory for a device (K, M, G), a power of two. Only addresses are reserved;
    /// memory is used as clients need it
    #[arg(
        long,
        value_name = "SIZE",
        default_value = typed(limits::MEMORY_DEFAULT),
        value_parser = parse_memory
    )]
    memory: usize,

    /// Bytes of further buffers for a device that its controller uses without a copy, on Linux. The
    /// kernel grants 16M to all programs together by default
    #[arg(
        long,
        value_name = "SIZE",
        default_value = typed(limits::DEVICE_MEMORY_DEFAULT),
        value_parser = parse_size
    )]
    device_memory: usize,

    /// Bytes of the largest accepted URB; at most half of --memory, so that two fit
    #[arg(
        long,
        value_name = "SIZE",
        default_value = typed(limits::URB_LEN_DEFAULT),
        value_parser = parse_urb_size
    )]
    urb_size: usize,

    /// Bytes of each connection's send and receive buffer. By default the system sizes the buffers
    /// for the network, and no value is faster; a value limits the system's memory for a client
    /// that does not read
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    socket_buffer: Option<usize>,

    /// Look for work for up to this long before sleeping (us, ms), while one device is attached and
    /// looking has paid so far. The turnaround is much shorter for a client that sends one request
    /// after another, at the price of a busy processor. With 0us the server always sleeps at once
    #[arg(long, value_name = "TIME", default_value = "200us", value_parser = parse_busy_poll)]
    busy_poll: Duration,
}

/// A number of bytes as typed.
fn typed(bytes: usize) -> String {
    Size(bytes as u64).to_string()
}

/// The devices to export.
#[derive(Debug)]
pub enum Chosen {
    /// Real devices.
    Real,
    /// Simulated devices.
    Simulated(Vec<Spec>),
    /// Nothing was chosen.
    Nothing,
}

impl Serve {
    /// Checks the options and turns them into settings.
    ///
    /// # Errors
    /// Two values do not fit together.
    pub fn settings(&self) -> Result<(Settings, Chosen), UsageError> {
        let policy = self.policy()?;
        let chosen = self.chosen()?;
        let settings = Settings {
            listen: self.listen_addresses()?,
            allowed: Allowed(self.allow.clone()),
            rules: self.rules(),
            policy,
            socket_buffer: self.tuning.socket_buffer,
            busy_poll: self.tuning.busy_poll,
            peer_timeout: self.peer_timeout,
            ..Settings::default()
        };
        Ok((settings, chosen))
    }

    /// The options as rules: exceptions first, and everything last.
    fn rules(&self) -> Rules {
        let excluded = self.exclude.iter().map(|matches| {
            Rule::excluding(matches.clone(), Origin::Flag(format!("--exclude {matches}")))
        });
        let devices = self.device.iter().map(|spec| {
            let origin = Origin::Flag(format!("--device {spec}"));
            Rule { name: spec.name, ..Rule::exporting(spec.matches.clone(), origin) }
        });
        let all = [(self.all, "--all"), (self.simulate.is_some(), "--simulate")];
        let all = all
            .into_iter()
            .filter(|&(is_given, _)| is_given)
            .map(|(_, option)| Rule::exporting(Match::default(), Origin::Flag(option.to_owned())));
        Rules::new(excluded.chain(devices).chain(all))
    }

    fn policy(&self) -> Result<Policy, UsageError> {
        let Tuning { urbs, memory, device_memory, urb_size, .. } = self.tuning;
        if urb_size > memory / 2 {
            return Err(UsageError::UrbSize { urb_size, memory });
        }
        let limits = DeviceLimits { urbs, memory, device_memory, urb_len: urb_size };
        let (takeover, reset_on_release) = (self.takeover, self.reset_on_release);
        Ok(Policy { limits, takeover, reset_on_release, ..Policy::default() })
    }

    fn chosen(&self) -> Result<Chosen, UsageError> {
        match &self.simulate {
            Some(text) => {
                Spec::parse_list(text).map_err(UsageError::Simulate).map(Chosen::Simulated)
            }
            None if self.all || !self.device.is_empty() => Ok(Chosen::Real),
            None => Ok(Chosen::Nothing),
        }
    }

    fn listen_addresses(&self) -> Result<Vec<Listen>, UsageError> {
        if self.listen.is_empty() {
            return Ok(vec![
                Listen { address: (Ipv4Addr::LOCALHOST, PORT).into(), optional: false },
                Listen { address: (Ipv6Addr::LOCALHOST, PORT).into(), optional: true },
            ]);
        }
        let public = self.listen.iter().find(|address| !address.ip().is_loopback());
        if let (Some(address), true) = (public, self.allow.is_empty()) {
            return Err(UsageError::NoAllow(*address));
        }
        let listen = |&address| Listen { address, optional: false };
        Ok(self.listen.iter().map(listen).collect())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::{Cli, Command};
    use super::*;

    fn serve(arguments: &[&str]) -> Result<(Settings, Chosen), Box<dyn std::error::Error>> {
        let line = ["usbferry", "serve"].iter().chain(arguments);
        match Cli::try_parse_from(line)?.command {
            Command::Serve(serve) => Ok(serve.settings()?),
            _ => unreachable!("it says serve"),
        }
    }

    #[test]
    fn the_help_and_the_limits_agree_on_the_cost_of_a_urb() {
        let mut command = <Cli as clap::CommandFactory>::command();
        let serve = command.find_subcommand_mut("serve").expect("it is one");
        let urbs = serve.get_arguments().find(|argument| argument.get_id() == "urbs");
        let help = urbs.and_then(|urbs| urbs.get_help()).expect("it is explained").to_string();
        let most = (limits::URB_MEMORY + limits::SLOT_MEMORY) >> 10;
        assert!(help.contains(&format!("{most} at most")), "{help}");
    }

    #[test]
    fn defaults_are_those_of_the_limits() {
        let (settings, chosen) = serve(&["--all"]).unwrap();
        assert_eq!(settings.policy.limits, DeviceLimits::default());
        assert_eq!(settings.busy_poll, limits::BUSY_POLL_DEFAULT);
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
            (["--memory", "64MB"], &format!("power of two from 1M to {most}, such as 16M")),
            (["--memory", "1T"], &format!("power of two from 1M to {most}, such as 16M")),
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
            (["--device", "0781-5567"], "write 0781:5567"),
            (["--device", "1-2=1-3"], "put a letter into the name"),
            (["--exclude", "a=1-3"], "usbferry list"),
        ] {
            let error = serve(&arguments).unwrap_err().to_string();
            assert!(error.contains(says), "{arguments:?}: {error}");
        }
    }
}
