//! The keys of a file: those before the first rule, and those of a rule.
//!
//! Contract: plain data.

/// The keys of the server alone.
const OF_SERVER: [&str; 10] = [
    "listen",
    "allow",
    "peer-timeout",
    "busy-poll",
    "socket-buffer",
    "socket",
    "socket-mode",
    "http",
    "advertise",
    "rule",
];

/// The keys of a rule alone.
const OF_RULES: [&str; 9] =
    ["busid", "id", "serial", "class", "driver", "name", "export", "clients", "configuration"];

/// The keys of terms and hooks, which stand in a rule, or before all rules for every device.
const OF_BOTH: [&str; 14] = [
    "reset-on-import",
    "reset-on-release",
    "settle",
    "take-over",
    "urbs",
    "memory",
    "device-memory",
    "urb-size",
    "on-attach",
    "on-detach",
    "on-arrive",
    "on-leave",
    "on-reset",
    "authorize",
];

/// The keys before the first rule.
pub(super) const SERVER_KEYS: [&str; 24] = joined(&OF_SERVER, &OF_BOTH);

/// The keys of a rule.
pub(super) const RULE_KEYS: [&str; 23] = joined(&OF_RULES, &OF_BOTH);

/// Two lists, one behind the other.
const fn joined<const LEN: usize>(
    first: &[&'static str],
    second: &[&'static str],
) -> [&'static str; LEN] {
    assert!(first.len() + second.len() == LEN);
    let (mut all, mut at) = ([""; LEN], 0);
    while at < LEN {
        all[at] = if at < first.len() { first[at] } else { second[at - first.len()] };
        at += 1;
    }
    all
}
