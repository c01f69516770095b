//! Whether the system's sockets pace their data, which costs more than sending on a short line.
//!
//! Contract: reads a file.

use super::Finding;
use super::machine::Machine;

const CHECK: &str = "congestion";

/// Algorithms that pace by timers, by the start of their names (`bbr_init` of
/// `net/ipv4/tcp_bbr.c`; others have the same rule).
const PACED: &str = "bbr";

/// A server's sockets are set by usbferry.
pub(super) fn check_server(machine: &Machine) -> Vec<Finding> {
    let name = name(machine);
    if name.starts_with(PACED) {
        let what = format!(
            "the system's congestion control is {name}, which paces data by timers; usbferry keeps \
             its own sockets to near clients from pacing"
        );
        return vec![Finding::note(CHECK, what)];
    }
    vec![Finding::ok(CHECK, format!("the congestion control {name} does not pace"))]
}

/// A client's sockets are the stock tool's.
pub(super) fn check_client(machine: &Machine) -> Vec<Finding> {
    let name = name(machine);
    if name.starts_with(PACED) {
        let what = format!(
            "the congestion control is {name}, which paces data by timers: over a short line data \
             to the device takes up to three times as long"
        );
        let finding = Finding::warning(CHECK, what);
        return vec![
            finding.advise("before attaching: sudo sysctl net.ipv4.tcp_congestion_control=cubic"),
        ];
    }
    vec![Finding::ok(CHECK, format!("the congestion control {name} does not pace"))]
}

fn name(machine: &Machine) -> String {
    let name = machine.text("/proc/sys/net/ipv4/tcp_congestion_control");
    name.unwrap_or_else(|| "unknown".to_owned()).escape_debug().to_string()
}
