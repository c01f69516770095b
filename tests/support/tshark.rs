//! A capture as tshark (Debian package `tshark`) reads the file: a reader that knows nothing of
//! this project.

use std::path::Path;
use std::process::Command;

/// A record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Record {
    pub(crate) interface: String,
    /// `S`, `C` or `E`.
    pub(crate) event: char,
    pub(crate) id: String,
    /// 0 isochronous, 1 interrupt, 2 control, 3 bulk.
    pub(crate) transfer_type: u8,
    /// With 0x80 for IN.
    pub(crate) endpoint: u8,
    pub(crate) status: i32,
    pub(crate) len: u32,
    pub(crate) error_count: u32,
    pub(crate) packets: u32,
    pub(crate) comment: String,
    /// The dissectors' names, joined by colons.
    pub(crate) protocols: String,
}

const FIELDS: [&str; 11] = [
    "frame.interface_name",
    "usb.urb_type",
    "usb.urb_id",
    "usb.transfer_type",
    "usb.endpoint_address",
    "usb.urb_status",
    "usb.urb_len",
    "usb.iso.error_count",
    "usb.iso.numdesc",
    "frame.comment",
    "frame.protocols",
];

/// The records of a capture.
pub(crate) fn records(capture: &Path) -> Vec<Record> {
    let fields = FIELDS.iter().flat_map(|field| ["-e", *field]);
    let text = run(Command::new("tshark")
        .arg("-n")
        .arg("-r")
        .arg(capture)
        .args(["-T", "fields"])
        .args(fields));
    text.lines().map(record).collect()
}

/// The output of a command about a capture, which must end well.
pub(crate) fn run(command: &mut Command) -> String {
    // tshark as root warns on stderr.
    let output = command.output().expect("tshark is installed (Debian package tshark)");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {errors}");
    String::from_utf8(output.stdout).expect("tshark writes UTF-8")
}

fn record(line: &str) -> Record {
    let fields: Vec<&str> = line.split('\t').collect();
    let [interface, event, id, kind, endpoint, status, len, errors, packets, comment, protocols] =
        fields[..]
    else {
        panic!("{} fields: {line}", FIELDS.len())
    };
    assert!(!protocols.contains("malformed"), "{line}");
    Record {
        interface: interface.to_owned(),
        event: char::from(u8::try_from(number(event)).expect("a letter")),
        id: id.to_owned(),
        transfer_type: u8::try_from(number(kind)).expect("a type"),
        endpoint: u8::try_from(number(endpoint)).expect("an address"),
        status: i32::try_from(number(status)).expect("a status"),
        len: u32::try_from(number(len)).expect("a length"),
        error_count: u32::try_from(number(errors)).expect("a count"),
        // Once from each of two places in the header.
        packets: u32::try_from(number(packets.split(',').next().unwrap_or_default()))
            .expect("a count"),
        comment: comment.to_owned(),
        protocols: protocols.to_owned(),
    }
}

/// A number as tshark writes it: a letter in quotes, hexadecimal, decimal, or nothing for zero.
fn number(text: &str) -> i64 {
    let letter = |text: &str| Some(i64::from(*text.strip_prefix('\'')?.as_bytes().first()?));
    let hex = |text: &str| i64::from_str_radix(text.strip_prefix("0x")?, 16).ok();
    let known = letter(text).or_else(|| hex(text)).or_else(|| text.parse().ok());
    known.or_else(|| text.is_empty().then_some(0)).unwrap_or_else(|| panic!("a number: {text}"))
}
