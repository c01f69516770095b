//! Servers on the network: `usbferry list --discover`, and the server of `usbferry attach NAME`.
//!
//! A server's words are escaped before a person sees the words.
//!
//! Contract: *blocks* for the look, and for the servers' answers, each for [`EXPORTER_TIMEOUT`] at
//! most. At most [`EXPORTERS_ASKED_MAX`] threads ask at once.

use std::fmt;
use std::io::{self, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use super::CommandError;
use super::json::{self, ExporterJson, ExportersJson, TargetJson};
use super::list::{Row, printed};
use crate::cli::Discover;
use crate::client::{self, ClientError, Exported, Server};
use crate::discovery::{Exporter, search};
use crate::limits::{EXPORTER_TIMEOUT, EXPORTERS_ASKED_MAX};
use crate::sorted;
use crate::words::printable;

/// Where nobody answers.
const NOBODY: &str = "no server is announced on the networks of this machine: \"usbferry serve \
                      --advertise\" announces one. \"usbferry list --remote HOST\" asks any other";

/// `usbferry list --discover`.
pub(super) fn show(form: Discover) -> Result<(), CommandError> {
    let exporters = look()?;
    if form == Discover::Prometheus {
        let targets: Vec<TargetJson> = exporters.iter().filter_map(target).collect();
        return printed(json::print(&targets));
    }
    let answers = ask_all(&exporters, exports);
    let found = exporters.iter().zip(answers);
    if form == Discover::Json {
        return printed(json::print(&ExportersJson::new(found.map(into_json).collect())));
    }
    if exporters.is_empty() {
        return printed(writeln!(io::stdout(), "{NOBODY}"));
    }
    printed(print(found))
}

/// The servers on the network. *Blocks.*
pub(super) fn look() -> Result<Vec<Exporter>, CommandError> {
    search().map_err(CommandError::Search)
}

/// Asks all servers, and returns their answers in the same order. *Blocks.*
pub(super) fn ask_all<T: Send>(
    exporters: &[Exporter],
    ask: impl Fn(&Exporter) -> T + Sync,
) -> Vec<T> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut answers = Vec::new();
        while let Some((number, exporter)) = {
            let number = next.fetch_add(1, Ordering::Relaxed);
            exporters.get(number).map(|exporter| (number, exporter))
        } {
            answers.push((number, ask(exporter)));
        }
        answers
    };
    let mut all: Vec<(usize, T)> = thread::scope(|scope| {
        let threads = EXPORTERS_ASKED_MAX.min(exporters.len());
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect()
    });
    sorted::sort_by_key(&mut all, |(number, _)| *number);
    all.into_iter().map(|(_, answer)| answer).collect()
}

/// Has something done at the first address of a server that can be reached in time.
pub(super) fn at_first<T>(
    exporter: &Exporter,
    act: impl Fn(&Server) -> Result<T, ClientError>,
) -> Result<(Server, T), ClientError> {
    let begun = Instant::now();
    let mut addresses = exporter.addresses.iter();
    loop {
        let address = addresses.next().expect("a server has an address");
        let server = Server::at(*address);
        let result = act(&server);
        let has_time = begun.elapsed() < EXPORTER_TIMEOUT;
        match result {
            Ok(done) => return Ok((server, done)),
            Err(error) if addresses.len() == 0 || !has_time => return Err(error),
            Err(_) => {}
        }
    }
}

/// The exports of a server.
pub(super) fn exports(exporter: &Exporter) -> Result<(Server, Vec<Exported>), ClientError> {
    at_first(exporter, |server| client::exports_within(server, EXPORTER_TIMEOUT))
}

/// A server as a target of Prometheus, if the server's metrics are announced: by the server's
/// address, since the metrics are at each address of the server.
fn target(exporter: &Exporter) -> Option<TargetJson> {
    let mut place = *exporter.addresses.first()?;
    place.set_port(exporter.http?);
    Some(TargetJson::new(place.to_string(), exporter.name.clone(), exporter.version.clone()))
}

/// The answer of a server to a question for its exports.
type Answered = Result<(Server, Vec<Exported>), ClientError>;

fn into_json((exporter, answer): (&Exporter, Answered)) -> ExporterJson {
    let (devices, error) = match answer {
        Ok((_, exports)) => {
            let rows = exports.into_iter().map(Row::remote);
            (Some(rows.map(Row::into_json).collect()), None)
        }
        Err(error) => (None, Some(error.to_string())),
    };
    ExporterJson {
        name: exporter.name.clone(),
        hosts: exporter.addresses.iter().map(ToString::to_string).collect(),
        version: exporter.version.clone(),
        metrics: target(exporter).map(TargetJson::into_target),
        devices,
        error,
    }
}

fn print<'a>(found: impl Iterator<Item = (&'a Exporter, Answered)>) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for (number, (exporter, answer)) in found.enumerate() {
        let gap = if number > 0 { "\n" } else { "" };
        writeln!(out, "{gap}{}", Title(exporter))?;
        match answer {
            Ok((_, exports)) if exports.is_empty() => {
                writeln!(out, "  exports nothing that is free now")?;
            }
            Ok((_, exports)) => {
                let mut rows = exports.into_iter().map(Row::remote);
                rows.try_for_each(|row| {
                    writeln!(out, "  {}", row.to_string().replace('\n', "\n  "))
                })?;
            }
            Err(error) => writeln!(out, "  {error}")?,
        }
    }
    Ok(())
}

/// A server in words.
pub(super) struct Title<'a>(pub(super) &'a Exporter);

impl fmt::Display for Title<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Exporter { name, addresses, version, .. } = self.0;
        let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        write!(f, "{} at {}", printable(name), addresses.join(", "))?;
        match version {
            Some(version) => write!(f, " (usbferry {})", printable(version)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exporter(name: &str, http: Option<u16>) -> Exporter {
        let addresses = ["10.0.0.5:3240", "[fd00::5]:3240"].map(|text| text.parse().unwrap());
        let version = Some("0.1.0\u{1b}".to_owned());
        Exporter { name: name.to_owned(), addresses: addresses.to_vec(), version, http }
    }

    #[test]
    fn a_title_has_nothing_unprintable() {
        let title = Title(&exporter("desk\u{7}", None)).to_string();
        assert_eq!(title, "desk\\u{7} at 10.0.0.5:3240, [fd00::5]:3240 (usbferry 0.1.0\\u{1b})");
    }

    #[test]
    fn a_server_without_metrics_is_no_target() {
        assert!(target(&exporter("desk", None)).is_none());
        let target = target(&exporter("desk", Some(9240))).unwrap();
        let text = serde_json::to_string(&target).unwrap();
        let labels = r#"{"exporter":"desk","__meta_usbferry_version":"0.1.0\u001b"}"#;
        assert_eq!(text, format!(r#"{{"targets":["10.0.0.5:9240"],"labels":{labels}}}"#));
    }

    #[test]
    fn all_are_asked_and_answer_in_order() {
        let all: Vec<Exporter> =
            (0..3 * EXPORTERS_ASKED_MAX).map(|n| exporter(&n.to_string(), None)).collect();
        let names: Vec<String> = all.iter().map(|exporter| exporter.name.clone()).collect();
        assert_eq!(ask_all(&all, |exporter| exporter.name.clone()), names);
        assert!(ask_all(&[], |_| ()).is_empty());
    }
}
