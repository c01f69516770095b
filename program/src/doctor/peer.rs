//! The way to a server: some requests for its exports, one after the other, and what TCP then knows
//! of the way.
//!
//! Contract: *blocks* for the client's time limit for each request at most; the first failure is
//! the last request.

use std::time::Duration;

use super::Finding;
use crate::client::{self, ClientError, Exported, Probe, Server, Trouble};
use crate::sorted::sort_by;
use crate::wire::PORT;

const CHECK: &str = "peer";

/// Requests for the exports: enough for a median, and for a loss of a few in a hundred to show.
const PROBES: usize = 10;

/// A round trip from which on a device is noticeably slower than a local one, and from which on
/// many drivers become hard to use.
const FAR: Duration = Duration::from_millis(5);
const TOO_FAR: Duration = Duration::from_millis(50);

/// The patience of a client on PyPI (`serial-usbipclient`).
const PATIENCE: Duration = Duration::from_millis(250);

/// TCP's first repetition of a SYN (`TCP_TIMEOUT_INIT` of `include/net/tcp.h`), less some jitter.
const REPEATED_SYN: Duration = Duration::from_millis(900);

/// The exports of a server, and the findings about the way there.
pub(super) fn check(server: &Server) -> (Vec<Exported>, Vec<Finding>) {
    let mut probes = Vec::new();
    let mut exports = Vec::new();
    for _ in 0..PROBES {
        match client::probe(server) {
            Ok((found, probe)) => {
                exports = found;
                probes.push(probe);
            }
            Err(error) => return (exports, vec![failed(server, &error)]),
        }
    }
    let host = server.to_string();
    let findings = vec![latency(&host, &probes), loss(server, &probes)];
    (exports, findings)
}

fn failed(server: &Server, error: &ClientError) -> Finding {
    let finding = Finding::problem(CHECK, error.to_string()).about(server);
    match error.trouble {
        Trouble::Unreachable(_) | Trouble::Closed | Trouble::Silent(_) => finding.advise(format!(
            "on the server: usbferry serve --listen :{PORT} --allow ADDRESS --device BUSID, with this \
             machine's address; and look for a firewall"
        )),
        _ => finding,
    }
}

fn latency(host: &str, probes: &[Probe]) -> Finding {
    let round_trip = median(probes, |probe| probe.round_trip.unwrap_or(probe.connected));
    let answered = median(probes, |probe| probe.answered);
    let what = format!(
        "{host}: a round trip takes {} ms, the list of exports {} ms (medians of {})",
        milliseconds(round_trip),
        milliseconds(answered),
        probes.len()
    );
    let finding = if round_trip >= TOO_FAR {
        Finding::warning(CHECK, what).advise(
            "expect a disk to move some hundred kilobytes a second: each request waits for a round \
             trip, whatever the bandwidth",
        )
    } else if answered >= PATIENCE {
        Finding::warning(CHECK, what).advise("look for the cause on the server: usbferry doctor")
    } else if round_trip >= FAR {
        Finding::note(CHECK, what)
    } else {
        Finding::ok(CHECK, what)
    };
    finding.about(host)
}

fn loss(server: &Server, probes: &[Probe]) -> Finding {
    let lost =
        |probe: &&Probe| probe.retransmitted.unwrap_or(0) > 0 || probe.connected >= REPEATED_SYN;
    let losers = probes.iter().filter(lost).count();
    if losers == 0 {
        return Finding::ok("loss", format!("{server}: nothing was sent twice")).about(server);
    }
    let what = format!(
        "{server}: {losers} of {} connections had to repeat what was lost on the way",
        probes.len()
    );
    let finding = Finding::warning("loss", what).about(server);
    finding.advise(format!("ping -c 100 {}", server.host())).advise("prefer a cable to a radio")
}

fn median(probes: &[Probe], time: impl Fn(&Probe) -> Duration) -> Duration {
    let mut times: Vec<Duration> = probes.iter().map(time).collect();
    sort_by(&mut times, Ord::cmp);
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// A time in milliseconds, with two digits behind the point.
fn milliseconds(time: Duration) -> String {
    format!("{:.2}", time.as_secs_f64() * 1000.0)
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    fn probe(round_trip_ms: u64) -> Probe {
        let time = Duration::from_millis(round_trip_ms);
        let answered = time + Duration::from_millis(1);
        Probe { connected: time, answered, round_trip: Some(time), retransmitted: Some(0) }
    }

    #[test]
    fn far_servers_are_told() {
        for (round_trip, level) in [(1, Level::Ok), (5, Level::Note), (50, Level::Warning)] {
            // A single slow connection says nothing.
            let probes = [probe(round_trip), probe(200), probe(round_trip)];
            let found = latency("box", &probes);
            assert_eq!(found.level, level, "{found:?}");
            assert!(found.message.contains(&format!("{round_trip}.00 ms")), "{found:?}");
        }
        let slow = Probe { answered: PATIENCE, ..probe(1) };
        assert_eq!(latency("box", &[slow]).level, Level::Warning);
        let untold = Probe { round_trip: None, ..probe(60) };
        assert_eq!(latency("box", &[untold]).level, Level::Warning, "connecting is a round trip");
    }

    #[test]
    fn a_loss_is_told() {
        let lossy = Probe { retransmitted: Some(2), ..probe(1) };
        let late = Probe { connected: Duration::from_millis(1003), ..probe(1) };
        for (probes, level) in [
            ([probe(1), probe(1)], Level::Ok),
            ([probe(1), lossy], Level::Warning),
            ([late, probe(1)], Level::Warning),
        ] {
            let found = loss(&Server::parse("[::1]:3241").unwrap(), &probes);
            assert_eq!(found.level, level, "{found:?}");
            let has_advice = found.advice.first().is_some_and(|line| line.ends_with(" ::1"));
            assert_eq!(has_advice, level == Level::Warning);
        }
    }
}
