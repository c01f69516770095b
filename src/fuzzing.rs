//! The fuzzers' functions: each takes untrusted bytes of some kind and checks every property of the
//! result.
//!
//! - [`handshake()`]: the start of a connection;
//! - [`pdu`]: any bytes after the handshake (`session::model::stream`);
//! - [`descriptors`]: a device's description of itself (`usb::descriptor`);
//! - [`recording`]: a capture as a device (`usb::sim::replay`);
//! - [`operations`]: a client, a device and a worker, all controlled by the bytes
//!   (`session::model`).
//!
//! The program's package has another: `announcement`, a message of multicast DNS
//! (`discovery::message`).
//!
//! `fuzz/` has a target for each function, and a corpus of inputs with wide coverage. With a
//! nightly toolchain and cargo-fuzz, from the top of the repository:
//!
//! ```text
//! cargo +nightly fuzz run -s none operations          until a failure
//! cargo +nightly fuzz run -s none operations <file>   the failing input once more
//! cargo +nightly fuzz cmin -s none operations         the corpus without useless inputs
//! ```
//!
//! Each run has sessions of its own, with megabytes of mostly untouched tables. On glibc
//! `MALLOC_MMAP_THRESHOLD_=500000` in the environment has the tables mapped and not cleared: five
//! times the runs. Without `-s none` an address sanitizer marks all these tables, and has little to
//! find: unsafe code is in `usbferry-sys`, the subject of `tests/memory-check`.
//!
//! Inputs left by `cmin` have random names. Inputs with telling names are for cases that coverage
//! does not distinguish, such as an UNLINK that overtakes its SUBMIT.
//!
//! On stable Rust `cargo test fuzzing` runs the corpus, and a fixed set of variations.

use std::collections::HashSet;

use crate::handshake::{Handshake, Request};
use crate::session::model;
#[cfg(test)]
use crate::session::model::Rng;
use crate::usb::descriptor::{
    self, CONFIGURATIONS_MAX, Descriptors, ENDPOINTS_MAX, Host, INTERFACES_MAX, SETTINGS_MAX,
};
use crate::usb::sim::replay::script::Script;
use crate::usb::{Configuration, Interface};
use crate::wire::Error;
use crate::wire::types::{BusId, EndpointAddress, Speed, TransferType};

/// Takes four bytes with the lengths of reads, then the request.
pub fn handshake(data: &[u8]) {
    let Some((cuts, request)) = data.split_first_chunk::<4>() else { return };
    let expected = read_request(request);
    let cuts = cuts.map(usize::from);
    // Zero is a read without data; with zeroes alone nothing would ever arrive.
    for cuts in [&cuts[..], &[usize::MAX]].into_iter().filter(|cuts| **cuts != [0; 4]) {
        assert_eq!(receive(request, cuts), expected, "in pieces of {cuts:?}");
    }
}

/// Gives the parser a request in pieces, and checks that no byte behind the request is consumed.
fn receive(request: &[u8], cuts: &[usize]) -> Result<Option<Request>, Error> {
    let (mut handshake, mut rest) = (Handshake::default(), request);
    for &cut in cuts.iter().cycle() {
        let wanted = handshake.wanted();
        assert!(wanted > 0, "the request is complete, and nobody was told");
        if rest.is_empty() {
            break;
        }
        let (piece, behind) = rest.split_at(cut.min(wanted).min(rest.len()));
        rest = behind;
        if let Some(asked) = handshake.receive(piece)? {
            let len = if matches!(asked, Request::Import(_)) { 40 } else { 8 };
            assert_eq!(request.len() - rest.len(), len, "bytes taken for {asked:?}");
            return Ok(Some(asked));
        }
    }
    Ok(None)
}

/// A second parser, after `usbip_network.h`: version, code and status, then a busid.
fn read_request(request: &[u8]) -> Result<Option<Request>, Error> {
    let Some((&[v0, v1, c0, c1, s0, s1, s2, s3], body)) = request.split_first_chunk() else {
        return Ok(None);
    };
    if [v0, v1] != [0x01, 0x11] {
        return Err(Error::Version(u16::from_be_bytes([v0, v1])));
    }
    if [s0, s1, s2, s3] != [0; 4] {
        return Err(Error::RequestStatus(u32::from_be_bytes([s0, s1, s2, s3])));
    }
    match [c0, c1] {
        [0x80, 5] => Ok(Some(Request::Devlist)),
        [0x80, 0x55] => Ok(Some(Request::Watch)),
        [0x80, 3] => Ok(body.first_chunk().map(|busid| Request::Import(BusId::from_wire(busid)))),
        code => Err(Error::Operation(u16::from_be_bytes(code))),
    }
}

/// Takes a byte with the host's own knowledge, then a device's descriptors in the form of sysfs.
pub fn descriptors(data: &[u8]) {
    let Some((&host, bytes)) = data.split_first() else { return };
    let speed = [Speed::Low, Speed::Full, Speed::High, Speed::Super][usize::from(host & 3)];
    let Some(found) = Descriptors::split(bytes) else { return };
    let ignored = if host & 8 != 0 { found.device.ignored_endpoints() } else { &[] };
    let host = Host { speed, honors_interface_count: host & 4 != 0, ignored };
    assert!(found.configurations.len() <= CONFIGURATIONS_MAX);
    let whole = found.configurations.concat();
    assert!(
        whole.is_empty() || bytes[descriptor::DEVICE_LEN..].ends_with(&whole[..]) || {
            // The device has more configurations than count.
            bytes[descriptor::DEVICE_LEN..].windows(whole.len()).any(|window| window == whole)
        }
    );
    for bytes in &found.configurations {
        if let Some(configuration) = descriptor::parse_configuration(bytes, host) {
            check_configuration(&configuration);
        }
    }
}

/// Checks the properties of a configuration from any bytes.
fn check_configuration(configuration: &Configuration) {
    assert!(configuration.interfaces.len() <= INTERFACES_MAX);
    assert!(configuration.interfaces.is_sorted_by(|one, other| one.number < other.number));
    let mut elsewhere = HashSet::new();
    for interface in &configuration.interfaces {
        assert!((1..=SETTINGS_MAX).contains(&interface.alternates.len()));
        assert!(interface.alternate().is_some(), "the setting in force is one");
        let own = check_settings(interface);
        for address in &own {
            assert!(!elsewhere.contains(address), "{address} is another interface's");
        }
        elsewhere.extend(own);
    }
}

/// The endpoints of an interface in any setting.
fn check_settings(interface: &Interface) -> HashSet<EndpointAddress> {
    let (mut settings, mut all) = (HashSet::new(), HashSet::new());
    for alternate in &interface.alternates {
        assert!(settings.insert(alternate.setting), "one setting twice");
        assert!(alternate.endpoints.len() <= ENDPOINTS_MAX);
        let mut own = HashSet::new();
        for endpoint in &alternate.endpoints {
            let address = endpoint.address;
            assert!((1..=15).contains(&address.number()));
            assert!(own.insert(address), "{address} twice in a setting");
            if endpoint.transfer_type == TransferType::Control {
                own.insert(EndpointAddress::from_byte(address.as_byte() ^ 0x80));
            }
        }
        all.extend(own);
    }
    all
}

/// Gives PDUs, or bytes without any valid PDU, to a session ([`model::stream`]).
pub fn pdu(data: &[u8]) {
    model::stream::run(data);
}

/// A file that may be the recording of a device.
pub fn recording(data: &[u8]) {
    if let Err(error) = Script::read(data) {
        assert!(!error.to_string().is_empty());
    }
}

/// Operations on the model, eight bytes each ([`model::run`]).
pub fn operations(data: &[u8]) {
    let words = data.as_chunks().0.iter().map(|&word| u64::from_le_bytes(word));
    model::run(words);
}

#[cfg(test)]
#[path = "../fuzz/replay.rs"]
mod replay;

#[cfg(test)]
mod tests {
    use super::replay::replay;
    use super::*;

    #[test]
    fn the_handshakes_corpus_and_variations_hold() {
        replay("handshake", handshake, 20_000);
    }

    #[test]
    fn the_descriptors_corpus_and_variations_hold() {
        replay("descriptors", descriptors, 20_000);
    }

    #[test]
    fn the_recordings_corpus_and_variations_hold() {
        replay("recording", recording, 20_000);
    }

    #[test]
    fn the_pdu_corpus_and_variations_hold() {
        replay("pdu", pdu, 500);
    }

    #[test]
    fn the_operations_corpus_and_variations_hold() {
        replay("operations", operations, 100);
    }
}
