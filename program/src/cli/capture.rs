//! The options of a capture, with `usbferry serve` and with `usbferry capture`.
//!
//! Contract: no I/O.

use std::path::{PathBuf, absolute};

use clap::builder::{PathBufValueParser, TypedValueParser};
use clap::{Args, Subcommand};

use super::operator::Asking;
use crate::config::Capturing;
use crate::config::value::{parse_capture_size, parse_snap_len};
use crate::limits::SNAP_LEN_DEFAULT;

/// `usbferry capture`.
#[derive(Args, Debug)]
#[command(disable_help_subcommand = true)]
pub struct Capture {
    /// What to do.
    #[command(subcommand)]
    pub order: CaptureCommand,
}

/// What to do with a capture.
#[derive(Subcommand, Debug)]
pub enum CaptureCommand {
    /// Begin to write every URB into a file, for Wireshark
    Start(CaptureStart),
    /// End a capture
    Stop(CaptureStop),
}

/// `usbferry capture start`.
#[derive(Args, Debug)]
pub struct CaptureStart {
    /// The file, which is made anew with the rights of this user, or a FIFO; "-" is the standard
    /// output
    #[arg(value_name = "FILE.pcapng")]
    pub file: PathBuf,

    /// Only this device, by any name that a client could ask for, now and whenever it is lent
    #[arg(long, value_name = "NAME")]
    pub device: Option<String>,

    /// Bytes of the capture (K, M, G), from 4M: FILE.pcapng and FILE.1.pcapng take turns with half
    /// of the bytes each. By default the file grows
    #[arg(long, value_name = "SIZE", value_parser = parse_capture_size)]
    pub size: Option<u64>,

    /// The most bytes of data of a URB, or "all", as for serve --capture-snaplen [default: 128]
    #[arg(long, value_name = "SIZE", value_parser = parse_snap_len)]
    pub snaplen: Option<usize>,

    /// The server.
    #[command(flatten)]
    pub asking: Asking,

    /// Print JSON, see docs/status.md
    #[arg(long)]
    pub json: bool,
}

/// `usbferry capture stop`.
#[derive(Args, Debug)]
pub struct CaptureStop {
    /// The file of the capture, as "usbferry status" shows the file. May be left out if only one
    /// capture runs
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,

    /// The server.
    #[command(flatten)]
    pub asking: Asking,

    /// Print JSON, see docs/status.md
    #[arg(long)]
    pub json: bool,
}

/// The options of a capture.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Capture")]
pub(super) struct CaptureOptions {
    /// Write every URB into this file, for Wireshark: a new file, or a FIFO for a live view
    /// (docs/capture.md). All data is in there, such as what is typed on a keyboard
    #[arg(
        long,
        value_name = "FILE.pcapng",
        value_parser = PathBufValueParser::new().try_map(served_file)
    )]
    capture: Option<PathBuf>,

    /// Bytes of the capture (K, M, G), from 4M: when the file has half of the bytes, the file is
    /// renamed to FILE.1.pcapng, in the place of the last such file, and begun anew. By default the
    /// file grows
    #[arg(long, value_name = "SIZE", value_parser = parse_capture_size, requires = "capture")]
    capture_size: Option<u64>,

    /// The most bytes of data of a URB in the capture, or "all": a capture that is to be replayed
    /// needs all, which costs a fast device speed. Of a control URB all data is there in any case
    /// [default: 128]
    #[arg(long, value_name = "SIZE", value_parser = parse_snap_len, requires = "capture")]
    capture_snaplen: Option<usize>,
}

/// The standard output as a file.
pub const STDOUT: &str = "-";

/// A file for a server's capture.
fn served_file(file: PathBuf) -> Result<PathBuf, &'static str> {
    if file.as_os_str() == STDOUT {
        return Err("serve writes no capture to its output: name a file or a FIFO, or type \
                    \"usbferry capture start -\" once the server runs");
    }
    Ok(file)
}

impl CaptureOptions {
    /// The capture, if wanted. The file gets its absolute path, by which operators of any
    /// directory end the capture.
    pub(super) fn wanted(&self) -> Option<Capturing> {
        let file = self.capture.as_ref()?;
        let path = absolute(file).unwrap_or_else(|_| file.clone());
        let snap_len = self.capture_snaplen.unwrap_or(SNAP_LEN_DEFAULT);
        Some(Capturing { path, size: self.capture_size, snap_len })
    }
}
