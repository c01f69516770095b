//! The options of a capture.
//!
//! Contract: no I/O.

use std::path::PathBuf;

use clap::Args;

use crate::config::Capturing;
use crate::config::value::{parse_capture_size, parse_snap_len};
use crate::limits::SNAP_LEN_DEFAULT;

/// The options of a capture.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Capture")]
pub(super) struct CaptureOptions {
    /// Write every URB into this file, for Wireshark: a new file, or a FIFO for a live view
    /// (docs/capture.md). All data is in there, such as what is typed on a keyboard
    #[arg(long, value_name = "FILE.pcapng")]
    capture: Option<PathBuf>,

    /// Bytes of the capture (K, M, G), from 4M: when the file has half of the bytes, the file is
    /// renamed to FILE.1.pcapng, in the place of the last such file, and begun anew. By default the
    /// file grows
    #[arg(long, value_name = "SIZE", value_parser = parse_capture_size, requires = "capture")]
    capture_size: Option<u64>,

    /// The most bytes of data of a URB in the capture. Fewer bytes cost a fast device less speed; a
    /// capture that is to be replayed needs all [default: 256K]
    #[arg(long, value_name = "SIZE", value_parser = parse_snap_len, requires = "capture")]
    capture_snaplen: Option<usize>,
}

impl CaptureOptions {
    /// The capture, if wanted.
    pub(super) fn wanted(&self) -> Option<Capturing> {
        let path = self.capture.clone()?;
        let snap_len = self.capture_snaplen.unwrap_or(SNAP_LEN_DEFAULT);
        Some(Capturing { path, size: self.capture_size, snap_len })
    }
}
