#!/usr/bin/env bash
# The crate pcap-file takes the microseconds of a pcapng capture for nanoseconds, when reading and
# when writing, without an error: its Duration for a packet is a thousandth of the time, and other
# programs read times a thousand times too large from the files that it writes. A pcapng interface
# without the option if_tsresol counts microseconds (draft-ietf-opsawg-pcapng, section on the
# Interface Description Block, if_tsresol), and usbmon has no finer times. The crate reads the
# option into its block, and does not heed it. For whoever measures from a capture how long an
# exporter takes for a URB, every reply is a thousand times as quick.
#
# Seen with pcap-file 2.0.0 on the two packets of a URB in usbmon's form, 1.5 s apart, in a file by
# python-pcapng 2.1.1, which also reads what the crate writes. 2.0.0 is the newest stable version;
# the release candidates of 3.0.0 convert by the option.
#
# Output at the time of writing:
#   python-pcapng wrote 1.500000 s | pcap-file reads 0.001500 s
#   pcap-file wrote 1.500000 s | python-pcapng reads 1500.000000 s
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
pip install -q --disable-pip-version-check --root-user-action=ignore --no-deps \
  --target packages python-pcapng==2.1.1

mkdir src
cat > Cargo.toml << 'TOML'
[package]
name = "times"
version = "0.0.0"
edition = "2021"

[dependencies]
pcap-file = "=2.0.0"
TOML
cat > src/main.rs << 'RUST'
use std::borrow::Cow;
use std::fs::File;
use std::time::Duration;

use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketBlock;
use pcap_file::pcapng::blocks::interface_description::InterfaceDescriptionBlock;
use pcap_file::pcapng::{Block, PcapNgReader, PcapNgWriter};
use pcap_file::DataLink;

fn main() {
    let mut reader = PcapNgReader::new(File::open("in.pcapng").unwrap()).unwrap();
    let mut times = Vec::new();
    while let Some(block) = reader.next_block() {
        if let Block::EnhancedPacket(packet) = block.unwrap() {
            times.push(packet.timestamp);
        }
    }
    println!("{:.6}", (times[1] - times[0]).as_secs_f64());

    let mut writer = PcapNgWriter::new(File::create("out.pcapng").unwrap()).unwrap();
    let link = InterfaceDescriptionBlock::new(DataLink::USB_LINUX_MMAPPED, 0);
    writer.write_pcapng_block(link).unwrap();
    for time in [Duration::ZERO, Duration::from_millis(1500)] {
        let packet = EnhancedPacketBlock {
            interface_id: 0,
            timestamp: time,
            original_len: 64,
            data: Cow::Owned(vec![0; 64]),
            options: Vec::new(),
        };
        writer.write_pcapng_block(packet).unwrap();
    }
}
RUST
cat > capture.py << 'PYTHON'
import struct
import sys

sys.path.insert(0, "packages")
from pcapng import FileScanner
from pcapng.blocks import EnhancedPacket, InterfaceDescription, SectionHeader
from pcapng.writer import FileWriter


def event(kind, status, microseconds):
    """An event of usbmon: a bulk IN URB of 0 bytes to endpoint 1 of device 2."""
    seconds, rest = divmod(microseconds, 10**6)
    head = struct.pack("<Q4BH2B", 1, ord(kind), 3, 0x81, 2, 1, ord("-"), ord("<"))
    return head + struct.pack("<qiiII24x", seconds, rest, status, 0, 0)


def gap(path):
    with open(path, "rb") as stream:
        times = [block.timestamp for block in FileScanner(stream) if hasattr(block, "packet_data")]
    return f"{times[1] - times[0]:.6f}"


if sys.argv[1] == "write":
    section = SectionHeader()
    link = section.new_member(InterfaceDescription, link_type=220, snaplen=0)
    with open("in.pcapng", "wb") as stream:
        writer = FileWriter(stream, section)
        for kind, status, time in (("S", -115, 0), ("C", 0, 1_500_000)):
            packet = section.new_member(EnhancedPacket, interface_id=0)
            packet.timestamp_high, packet.timestamp_low = 0, time
            packet.packet_data = event(kind, status, time)
            writer.write_block(packet)
print(gap(f"{sys.argv[2]}.pcapng"))
PYTHON

wrote=$(python3 capture.py write in)
read=$(CARGO_TARGET_DIR=$folder/target cargo run --quiet)
again=$(python3 capture.py read out)
lines="python-pcapng wrote $wrote s | pcap-file reads $read s
pcap-file wrote 1.500000 s | python-pcapng reads $again s"
echo "$lines"
[[ $lines == "python-pcapng wrote 1.500000 s | pcap-file reads 0.001500 s
pcap-file wrote 1.500000 s | python-pcapng reads 1500.000000 s" ]]
