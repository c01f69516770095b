//! The options of the client's commands: `list`, `attach`, `detach` and `port`. The short options
//! are those of Linux's `usbip` tool.
//!
//! Contract: pure.

use std::net::{IpAddr, SocketAddr};

use clap::Args;

use super::error::UsageError;
use super::operator::Asking;
use crate::client::Server;
use crate::wire::types::{BUS_ID_LEN, BusId};

/// `usbferry list`.
#[derive(Args, Debug)]
pub struct List {
    /// Show the exports of this USB/IP server (usbferry or any other)
    #[arg(short, long, value_name = "HOST[:PORT]", conflicts_with = "local")]
    remote: Option<String>,

    /// Show the devices of this machine, as without any option
    #[arg(short, long)]
    local: bool,

    /// Show the servers that are announced on the networks of this machine (docs/discovery.md), and
    /// their exports
    #[arg(long, conflicts_with_all = ["remote", "local", "parsable"])]
    discover: bool,

    /// Print the metrics of these servers as targets of Prometheus, see docs/discovery.md
    #[arg(long, requires = "discover", conflicts_with = "json")]
    prometheus_sd: bool,

    /// Print a line for each device as "usbip list -p -l" does, for scripts: no hubs, and no
    /// devices that came in over USB/IP
    #[arg(short, long, conflicts_with = "json")]
    pub parsable: bool,

    /// A server on this machine that says who has its devices.
    #[command(flatten)]
    pub asking: Asking,

    /// Print JSON, see docs/json.md
    #[arg(long)]
    pub json: bool,
}

/// The form in which the servers on the network are shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Discover {
    /// For people.
    Table,
    /// As JSON.
    Json,
    /// As targets of Prometheus.
    Prometheus,
}

impl List {
    /// Whether the servers on the network are wanted, and how.
    #[must_use]
    pub const fn discover(&self) -> Option<Discover> {
        match (self.discover, self.prometheus_sd, self.json) {
            (false, ..) => None,
            (true, true, _) => Some(Discover::Prometheus),
            (true, false, true) => Some(Discover::Json),
            (true, false, false) => Some(Discover::Table),
        }
    }

    /// The server to ask, or none for this machine.
    ///
    /// # Errors
    /// The text names no server.
    pub fn server(&self) -> Result<Option<Server>, UsageError> {
        self.remote.as_deref().map(server).transpose()
    }
}

/// The end of the help of `usbferry attach`.
const ATTACH_EXAMPLES: &str = "\
Examples:
  usbferry list --discover                    the servers that are announced, with their devices
  sudo usbferry attach stick                  a device of one of them
  usbferry list -r desk                       the names of the devices of desk
  sudo usbferry attach desk 1-2.3             a device by its place
  sudo usbferry attach desk stick --persist   a device by its nickname, again after each replug
  sudo usbferry detach stick";

/// `usbferry attach`.
#[derive(Args, Debug)]
#[command(
    override_usage = "usbferry attach [OPTIONS] HOST[:PORT] NAME\n       \
                      usbferry attach [OPTIONS] NAME\n       \
                      usbferry attach [OPTIONS] -r HOST[:PORT] -b NAME",
    after_help = ATTACH_EXAMPLES
)]
pub struct Attach {
    /// The USB/IP server, usbferry or any other, with or without a port: desk, desk:3241. Without a
    /// server the device is looked for on all servers that are announced on the networks of this
    /// machine
    #[arg(value_name = "HOST")]
    host: Option<String>,

    /// The name of the device on the server: the busid, or for usbferry also a nickname, VID:PID,
    /// VID:PID:SERIAL or serial:SERIAL
    #[arg(value_name = "NAME")]
    name: Option<String>,

    /// HOST, as in Linux's usbip tool
    #[arg(short, long, value_name = "HOST[:PORT]")]
    remote: Option<String>,

    /// NAME, as in Linux's usbip tool
    #[arg(short, long, value_name = "NAME", short_alias = 'd', alias = "device")]
    busid: Option<String>,

    /// Stay, and attach the device again whenever the device, the server or the network was away.
    /// Ctrl-C detaches the device and ends the command; "usbip detach" and "usbferry detach" do,
    /// too
    #[arg(long)]
    persist: bool,

    /// Print JSON, see docs/json.md
    #[arg(long)]
    json: bool,
}

/// The device to attach.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wanted {
    /// The server.
    pub server: Server,
    /// The device's name on the server.
    pub name: BusId,
    /// Attach again whenever the device was away.
    pub persist: bool,
    /// Print JSON.
    pub json: bool,
}

impl Attach {
    /// The server, if named, and the name of the device. A word alone is the device, and no
    /// address.
    ///
    /// # Errors
    /// The device is missing, or a word makes no sense.
    pub fn device(&self) -> Result<(Option<Server>, BusId), UsageError> {
        let mut words: Vec<&String> = self.host.iter().chain(&self.name).collect();
        let none = if self.remote.is_some() { UsageError::NoName } else { UsageError::NoHost };
        let name = self.busid.as_ref().or_else(|| words.pop()).ok_or(none)?;
        let host = self.remote.as_ref().or_else(|| words.pop());
        match words.pop() {
            // Of too many words the last.
            Some(word) if self.busid.is_some() => Err(UsageError::TooMuch(word.clone())),
            Some(_) => Err(UsageError::TooMuch(name.clone())),
            None if host.is_none() && is_address(name) => Err(UsageError::NoName),
            None => Ok((host.map(|host| server(host)).transpose()?, busid(name)?)),
        }
    }

    /// Whether to stay, and to attach again whenever the device was away.
    #[must_use]
    pub const fn persists(&self) -> bool {
        self.persist
    }

    /// The device to attach, once its server is known.
    #[must_use]
    pub const fn wanted(&self, server: Server, name: BusId) -> Wanted {
        Wanted { server, name, persist: self.persist, json: self.json }
    }
}

/// Whether a word is the address of a machine.
fn is_address(word: &str) -> bool {
    word.parse::<IpAddr>().is_ok() || word.parse::<SocketAddr>().is_ok()
}

/// `usbferry detach`.
#[derive(Args, Debug)]
pub struct Detach {
    /// The device's name on its server, if a single attached device has the name
    #[arg(value_name = "NAME", conflicts_with = "port")]
    name: Option<String>,

    /// The port, as shown by "usbferry port"
    #[arg(short, long, value_name = "PORT", value_parser = parse_port)]
    port: Option<u32>,

    /// Print JSON, see docs/json.md
    #[arg(long)]
    pub json: bool,
}

/// Which device to detach.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Which<'a> {
    /// The device at a port.
    Port(u32),
    /// The device with a name on its server.
    Name(&'a str),
}

impl Detach {
    /// Which device to detach.
    ///
    /// # Errors
    /// Neither a port nor a name is given.
    pub fn which(&self) -> Result<Which<'_>, UsageError> {
        match (self.port, &self.name) {
            (Some(port), _) => Ok(Which::Port(port)),
            (None, Some(name)) => Ok(Which::Name(name)),
            (None, None) => Err(UsageError::NothingToDetach),
        }
    }
}

fn parse_port(text: &str) -> Result<u32, &'static str> {
    text.parse().map_err(|_| "give the number that \"usbferry port\" shows")
}

/// `usbferry port`.
#[derive(Args, Debug)]
pub struct Port {
    /// Print JSON, see docs/json.md
    #[arg(long)]
    pub json: bool,
}

pub(super) fn server(text: &str) -> Result<Server, UsageError> {
    Server::parse(text).map_err(|error| UsageError::Host(error.to_string()))
}

pub(super) fn busid(text: &str) -> Result<BusId, UsageError> {
    let is_text = !text.contains(|c: char| c.is_control());
    let busid = BusId::new(text).filter(|_| is_text);
    busid.ok_or_else(|| UsageError::Name { name: text.to_owned(), most: BUS_ID_LEN - 1 })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::{Cli, Command};
    use super::*;

    fn wanted(arguments: &[&str]) -> Result<Wanted, Box<dyn std::error::Error>> {
        let line = ["usbferry", "attach"].iter().chain(arguments);
        match Cli::try_parse_from(line)?.command {
            Command::Attach(attach) => {
                let (server, name) = attach.device()?;
                Ok(attach.wanted(server.ok_or("no server is named")?, name))
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_device_alone_is_looked_for_on_the_network() {
        for arguments in [&["stick"][..], &["-b", "stick"], &["--busid=stick", "--persist"]] {
            let line = ["usbferry", "attach"].iter().chain(arguments);
            let Command::Attach(attach) = Cli::try_parse_from(line).unwrap().command else {
                panic!("{arguments:?}")
            };
            assert_eq!(attach.device().unwrap(), (None, BusId::new("stick").unwrap()));
        }
    }

    #[test]
    fn a_look_at_the_network_has_three_forms_and_no_server() {
        let list = |line: &str| {
            let line = ["usbferry", "list"].into_iter().chain(line.split_whitespace());
            match Cli::try_parse_from(line)?.command {
                Command::List(list) => Ok::<_, clap::Error>(list.discover()),
                other => panic!("{other:?}"),
            }
        };
        for (line, form) in [
            ("", None),
            ("--json", None),
            ("--discover", Some(Discover::Table)),
            ("--discover --json", Some(Discover::Json)),
            ("--discover --prometheus-sd", Some(Discover::Prometheus)),
        ] {
            assert_eq!(list(line).unwrap(), form, "{line}");
        }
        for wrong in [
            "--prometheus-sd",
            "--discover --remote desk",
            "--discover --local",
            "--discover --parsable",
            "--discover --json --prometheus-sd",
        ] {
            assert!(list(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn server_and_device_are_typed_as_words_or_as_for_the_stock_tool() {
        for arguments in [
            &["desk:3241", "1-2"][..],
            &["-r", "desk:3241", "-b", "1-2"],
            &["--remote=desk:3241", "--busid=1-2"],
            &["-r", "desk:3241", "-d", "1-2"],
            &["--remote", "desk:3241", "1-2"],
            &["desk:3241", "-b", "1-2"],
        ] {
            let wanted = wanted(arguments).unwrap();
            assert_eq!((wanted.server.host(), wanted.server.port()), ("desk", 3241));
            assert_eq!(wanted.name, BusId::new("1-2").unwrap());
            assert!(!wanted.persist && !wanted.json);
        }
        assert!(wanted(&["desk", "stick", "--persist"]).unwrap().persist);
        for (arguments, says) in [
            (&[][..], "usbferry attach HOST NAME"),
            (&["-r", "desk"], "usbferry list -r HOST"),
            (&["-r", "desk", "-b", "1-2", "more"], "\"more\" is too much"),
            (&["-r", "desk", "1-2", "1-3"], "\"1-3\" is too much"),
            (&["desk", "1-2", "1-3"], "unexpected"),
            (&["desk:port", "1-2"], "is no host"),
            (&["desk", "a-name-of-more-than-31-characters"], "up to 31 bytes"),
            (&["desk", ""], "up to 31 bytes"),
            (&["desk", "a\nb"], "up to 31 bytes"),
        ] {
            let error = wanted(arguments).unwrap_err().to_string();
            assert!(error.contains(says), "{arguments:?}: {error}");
        }
    }

    /// Whatever the help shows in the place of a word can be typed there.
    #[test]
    fn the_help_of_attach_names_each_word_once() {
        let mut command = <Cli as clap::CommandFactory>::command();
        let attach = command.find_subcommand_mut("attach").expect("it is one");
        let help = attach.render_help().to_string();
        for line in [
            "Usage: usbferry attach [OPTIONS] HOST[:PORT] NAME\n",
            "       usbferry attach [OPTIONS] NAME\n",
            "       usbferry attach [OPTIONS] -r HOST[:PORT] -b NAME\n",
            "\n  [HOST]  The USB/IP server",
            "\n  [NAME]  The name of the device",
        ] {
            assert!(help.contains(line), "{line}: {help}");
        }
        let examples = help.lines().filter_map(|line| line.trim().strip_prefix("sudo usbferry "));
        let examples: Vec<&str> = examples.filter(|line| line.starts_with("attach")).collect();
        assert_eq!(examples.len(), 3, "{help}");
        for example in examples {
            let typed = example.split("   ").next().unwrap_or_default();
            let line = ["usbferry"].into_iter().chain(typed.split_whitespace());
            let Ok(Command::Attach(attach)) = Cli::try_parse_from(line).map(|cli| cli.command)
            else {
                panic!("{typed}")
            };
            assert!(attach.device().is_ok(), "{typed}");
        }
    }

    #[test]
    fn a_device_is_detached_by_port_or_by_name() {
        let parse = |arguments: &[&str]| {
            Cli::try_parse_from(["usbferry", "detach"].iter().chain(arguments)).map(|cli| match cli
                .command
            {
                Command::Detach(detach) => detach,
                other => panic!("{other:?}"),
            })
        };
        assert_eq!(parse(&["-p", "15"]).unwrap().which(), Ok(Which::Port(15)));
        assert_eq!(parse(&["--port=0"]).unwrap().which(), Ok(Which::Port(0)));
        assert_eq!(parse(&["stick"]).unwrap().which(), Ok(Which::Name("stick")));
        for wrong in [&["-p", "0", "stick"][..], &["-p", "zero"], &["a", "b"]] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
        let error = parse(&["-p", "zero"]).unwrap_err().to_string();
        assert!(error.contains("give the number that \"usbferry port\" shows"), "{error}");
        let error = parse(&[]).unwrap().which().unwrap_err().to_string();
        assert!(error.contains("-p PORT"), "{error}");
    }
}
