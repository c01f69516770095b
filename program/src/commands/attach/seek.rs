//! The server of a device of which only the name is given, among the servers on the network.
//!
//! A server of this program says of each name what an import would bring (`client::prospect`), be
//! it a nickname, a kind or a serial number. Any other server has the name in its list, or has not.
//!
//! Contract: *blocks*, for the look, for the answers, and on a terminal for the user.

use std::fmt;
use std::io::{self, IsTerminal, Write};

use log::{debug, info};

use super::backoff::Backoff;
use super::wait::{Awaited, Stop, Woken};
use crate::client::{self, ClientError, Exported, Server};
use crate::commands::CommandError;
use crate::commands::network::{Title, ask_all, at_first, exports, look};
use crate::discovery::Exporter;
use crate::wire::op::Refusal;
use crate::wire::types::BusId;

/// Times that a user may answer with something else than a number of the list.
const TRIES: usize = 3;

/// Why no server is chosen.
#[derive(Debug)]
pub enum SeekError {
    /// No server has the device, out of this number of servers.
    Nowhere(BusId, usize),
    /// Several servers have the device, in words, and nobody can be asked.
    Several(BusId, Vec<String>),
}

impl fmt::Display for SeekError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nowhere(name, 0) => write!(
                f,
                "no server is announced on the networks of this machine, to look for {name} there; \
                 name the server: usbferry attach HOST {name}"
            ),
            Self::Nowhere(name, servers) => write!(
                f,
                "none of {servers} servers on the networks of this machine exports {name} to this \
                 machine; \"usbferry list --discover\" shows what they export. If {name} is a \
                 server, name the device, too: usbferry attach {name} NAME"
            ),
            Self::Several(name, servers) => write!(
                f,
                "several servers export {name}; say which, as in usbferry attach HOST {name}: {}",
                servers.join("; ")
            ),
        }
    }
}

/// What a server says of a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Free,
    Taken,
    Absent,
}

/// The result of a search, which is repeated until the stop (`None`) if there is a stop. *Blocks.*
///
/// Only a device that is nowhere is waited for: its server may be about to start.
pub(super) fn first<T>(
    stop: Option<&Stop>,
    mut find: impl FnMut() -> Result<T, CommandError>,
) -> Result<Option<T>, CommandError> {
    let (mut backoff, mut said) = (Backoff::default(), String::new());
    if let Some(stop) = stop {
        stop.set_idle(true);
    }
    loop {
        let (stop, error) = match (stop, find()) {
            (Some(stop), Err(CommandError::Sought(error @ SeekError::Nowhere(..)))) => {
                (stop, error)
            }
            (_, found) => return found.map(Some),
        };
        let words = error.to_string();
        if said != words {
            info!("{words}; looking until there is one");
            said = words;
        }
        let woken = stop.wait(Awaited::Nothing, Some(backoff.next()));
        if woken.map_err(CommandError::Wait)? == Woken::Stop {
            return Ok(None);
        }
    }
}

/// The server on the network with a device, and the server's announced name. Servers where the
/// device is free go before others. *Blocks.*
pub(super) fn server_of(name: BusId) -> Result<(Server, String), CommandError> {
    let exporters = look()?;
    let states = ask_all(&exporters, |exporter| state(exporter, name));
    let found = exporters.iter().zip(states).filter_map(|(exporter, answer)| match answer {
        Ok((server, state)) => Some((exporter, server, state)),
        Err(error) => {
            debug!("{}: {error}", Title(exporter));
            None
        }
    });
    let found: Vec<(&Exporter, Server, State)> = found.collect();
    let with = |wanted: State| {
        let all = found.iter().filter(|(_, _, state)| *state == wanted);
        all.map(|(exporter, server, _)| (*exporter, server)).collect::<Vec<_>>()
    };
    let free = with(State::Free);
    let candidates = if free.is_empty() { with(State::Taken) } else { free };
    match &candidates[..] {
        [] => Err(CommandError::Sought(SeekError::Nowhere(name, exporters.len()))),
        [(exporter, server)] => Ok(((*server).clone(), exporter.name.clone())),
        several => {
            let (exporter, server) = several[choose(name, several)?];
            Ok((server.clone(), exporter.name.clone()))
        }
    }
}

/// The server of an announced name as of now, maybe at another address. *Blocks.*
///
/// Another server is none, though its device have the name: a disk of the same kind elsewhere is
/// another disk.
pub(super) fn again(exporter: &str, name: BusId) -> Option<Server> {
    let found = look().unwrap_or_else(|error| {
        debug!("{error}");
        Vec::new()
    });
    let found = found.iter().filter(|found| found.name == exporter);
    found.filter_map(|found| state(found, name).ok()).map(|(server, _)| server).next()
}

fn state(exporter: &Exporter, name: BusId) -> Result<(Server, State), ClientError> {
    if exporter.version.is_none() {
        let (server, exports) = exports(exporter)?;
        return Ok((server, state_in(&exports, name)));
    }
    let (server, prospect) = at_first(exporter, |server| client::prospect(server, name))?;
    let state = match prospect {
        Ok(()) => State::Free,
        Err(Refusal::NO_DEVICE) => State::Absent,
        Err(_) => State::Taken,
    };
    Ok((server, state))
}

/// A device in a server's list, by its name or its kind.
fn state_in(exports: &[Exported], name: BusId) -> State {
    let is_meant = |Exported { device, .. }: &Exported| {
        let kind = format!("{:04x}:{:04x}", device.id_vendor, device.id_product);
        device.busid == name || kind.as_bytes().eq_ignore_ascii_case(name.as_bytes())
    };
    if exports.iter().any(is_meant) { State::Free } else { State::Absent }
}

/// Has the user choose, where the user can be asked: an index.
fn choose(name: BusId, several: &[(&Exporter, &Server)]) -> Result<usize, CommandError> {
    let titles: Vec<String> =
        several.iter().map(|(exporter, _)| Title(exporter).to_string()).collect();
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Err(CommandError::Sought(SeekError::Several(name, titles)));
    }
    let mut out = io::stderr();
    let mut ask = || -> io::Result<Option<usize>> {
        writeln!(out, "Several servers export {name}:")?;
        for (number, title) in titles.iter().enumerate() {
            writeln!(out, "  {}  {title}", number + 1)?;
        }
        for _ in 0..TRIES {
            write!(out, "From which? [1-{}] ", titles.len())?;
            out.flush()?;
            let mut line = String::new();
            if io::stdin().read_line(&mut line)? == 0 {
                break;
            }
            let number = line.trim().parse::<usize>().ok();
            if let Some(number) = number.filter(|number| (1..=titles.len()).contains(number)) {
                return Ok(Some(number - 1));
            }
        }
        Ok(None)
    };
    match ask() {
        Ok(Some(chosen)) => Ok(chosen),
        _ => Err(CommandError::Sought(SeekError::Several(name, titles))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> BusId {
        BusId::new(text).unwrap()
    }

    fn nowhere() -> Result<u32, CommandError> {
        Err(CommandError::Sought(SeekError::Nowhere(name("stick"), 0)))
    }

    #[test]
    fn a_device_that_is_nowhere_is_waited_for_until_the_stop() {
        let (stop, mut sender) = Stop::by_hand().unwrap();
        let mut answers = vec![Ok(7), nowhere(), nowhere()];
        assert_eq!(first(Some(&stop), || answers.pop().unwrap()).unwrap(), Some(7));
        let several = || Err(CommandError::Sought(SeekError::Several(name("stick"), vec![])));
        assert!(first::<u32>(Some(&stop), several).is_err(), "nobody can choose later either");
        assert!(first(None, nowhere).is_err(), "without --persist");
        sender.write_all(&[0]).unwrap();
        assert_eq!(first(Some(&stop), nowhere).unwrap(), None);
    }

    #[test]
    fn a_missing_device_has_words_that_help() {
        for (servers, says) in [(0, "no server is announced"), (3, "none of 3 servers")] {
            let error = SeekError::Nowhere(name("stick"), servers).to_string();
            assert!(error.contains(says) && error.contains("stick"), "{error}");
        }
        let several = vec!["desk at 10.0.0.5:3240".to_owned(), "attic at 10.0.0.6:3240".to_owned()];
        let error = SeekError::Several(name("stick"), several).to_string();
        assert!(error.ends_with("desk at 10.0.0.5:3240; attic at 10.0.0.6:3240"), "{error}");
    }
}
