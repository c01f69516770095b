//! The wire code by itself: nanoseconds and bytes of each PDU, parsed and emitted. Before the
//! timing the bench checks once that the code works.

use std::hint::black_box;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use usbferry::wire::iso::{DESCRIPTOR_LEN, Packets, PacketsMut};
use usbferry::wire::op::{self, Request, UsbDevice, UsbInterface, client};
use usbferry::wire::pdu::{CmdSubmit, CmdUnlink, Command, HEADER_LEN, Reply, RetSubmit, RetUnlink};
use usbferry::wire::status::Status;
use usbferry::wire::types::{BusId, DevId, Direction, EndpointAddress, SeqNum, Speed};

#[allow(dead_code, reason = "this bench has no servers")]
mod harness;

use harness::report::spread;
use harness::settings::{self, Settings};

/// Packets of isochronous URBs.
const PACKETS: [u16; 5] = [1, 8, 32, 128, 1024];

/// Bytes of a packet, and of the gap in front, closed by joining.
const PACKET_LEN: usize = 1024;
const GAP_LEN: usize = 512;

/// How often each case is timed, and how long at a time.
const TIMES: usize = 9;
const TIME: Duration = Duration::from_millis(20);
const TIME_SMOKE: Duration = Duration::from_millis(1);

/// The measurements of a case.
struct Case {
    name: String,
    bytes: usize,
    nanoseconds: f64,
}

fn main() -> ExitCode {
    let settings = Settings::read();
    match bench(&settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn bench(settings: &Settings) -> Result<(), String> {
    let time = if settings.smoke { TIME_SMOKE } else { TIME };
    let mut table = Table { time, filter: settings.filter.clone(), cases: Vec::new() };
    println!("{:32} {:>7} {:>9} {:>9}", "PDU", "bytes", "ns", "GB/s");
    headers(&mut table);
    handshake(&mut table);
    for count in PACKETS {
        packets(&mut table, count);
    }
    settings.expect_some(&table.cases)?;
    let rows = table.cases.iter().map(|case| {
        let Case { name, bytes, nanoseconds } = case;
        format!("{{\"pdu\":\"{name}\",\"bytes\":{bytes},\"ns\":{nanoseconds:.3}}}")
    });
    let json =
        format!("{{\"bench\":\"wire\",\"rows\":[\n{}\n]}}\n", rows.collect::<Vec<_>>().join(",\n"));
    let directory = settings::results()?;
    harness::write(&directory.join("wire.json"), &json)?;
    println!("written to target/bench/wire.json; benches/plot draws the file");
    Ok(())
}

struct Table {
    time: Duration,
    filter: String,
    cases: Vec<Case>,
}

impl Table {
    /// Times `call`, which handles `bytes` bytes.
    fn add(&mut self, name: &str, bytes: usize, mut call: impl FnMut()) {
        if !name.contains(&self.filter) {
            return;
        }
        let calls = calls_in(self.time, &mut call);
        let times = (0..TIMES).map(|_| {
            let begun = Instant::now();
            for _ in 0..calls {
                call();
            }
            begun.elapsed().as_secs_f64() * 1e9 / f64::from(calls)
        });
        let nanoseconds = spread(times).median;
        #[expect(clippy::cast_precision_loss, reason = "a few thousand")]
        let rate = bytes as f64 / nanoseconds;
        println!("{name:32} {bytes:>7} {nanoseconds:>9.1} {rate:>9.2}");
        self.cases.push(Case { name: name.to_owned(), bytes, nanoseconds });
    }
}

/// How many calls take about `time`.
fn calls_in(time: Duration, call: &mut impl FnMut()) -> u32 {
    let mut calls = 16;
    loop {
        let begun = Instant::now();
        for _ in 0..calls {
            call();
        }
        let taken = begun.elapsed();
        if taken >= time / 4 || calls >= 1 << 26 {
            let factor = time.as_secs_f64() / taken.as_secs_f64().max(1e-9);
            #[expect(clippy::cast_possible_truncation, reason = "bounded by the above")]
            #[expect(clippy::cast_sign_loss, reason = "times are positive")]
            return (f64::from(calls) * factor).clamp(1.0, 1e9) as u32;
        }
        calls *= 2;
    }
}

fn headers(table: &mut Table) {
    let submit = CmdSubmit {
        seqnum: SeqNum(7),
        devid: DevId::new(1, 2),
        endpoint: EndpointAddress::new(1, Direction::In),
        transfer_flags: 0x200,
        transfer_buffer_length: 512,
        start_frame: 0,
        number_of_packets: 0,
        interval: 0,
        setup: [0; 8],
    };
    let unlink = CmdUnlink { seqnum: SeqNum(8), devid: DevId::new(1, 2), target: SeqNum(7) };
    for (name, command) in
        [("CMD_SUBMIT", Command::Submit(submit)), ("CMD_UNLINK", Command::Unlink(unlink))]
    {
        let mut header = [0; HEADER_LEN];
        command.emit(&mut header);
        assert_eq!(Command::parse(&header), Ok(command));
        table.add(&format!("{name} parse"), HEADER_LEN, || {
            let _ = black_box(Command::parse(black_box(&header)));
        });
    }
    let mut header = [0; HEADER_LEN];
    let ret = RetSubmit {
        seqnum: SeqNum(7),
        status: Status::OK,
        actual_length: 512,
        start_frame: 0,
        number_of_packets: 0,
        error_count: 0,
    };
    ret.emit(&mut header);
    assert_eq!(Reply::parse(&header), Ok(Reply::Submit(ret)));
    table.add("RET_SUBMIT emit", HEADER_LEN, || {
        black_box(&ret).emit(&mut header);
        black_box(&header);
    });
    let ret = RetUnlink { seqnum: SeqNum(8), status: Status::ECONNRESET };
    ret.emit(&mut header);
    assert_eq!(Reply::parse(&header), Ok(Reply::Unlink(ret)));
    table.add("RET_UNLINK emit", HEADER_LEN, || {
        black_box(&ret).emit(&mut header);
        black_box(&header);
    });
}

fn handshake(table: &mut Table) {
    let device = UsbDevice {
        path: "/sys/devices/pci0000:00/0000:00:14.0/usb1/1-2".to_owned(),
        busid: BusId::new("1-2").expect("short"),
        busnum: 1,
        devnum: 2,
        speed: Speed::High,
        id_vendor: 0x1209,
        id_product: 1,
        bcd_device: 0x100,
        device_class: 0,
        device_sub_class: 0,
        device_protocol: 0,
        configuration_value: 1,
        num_configurations: 1,
        interfaces: vec![UsbInterface { class: 0xff, sub_class: 0, protocol: 0 }; 2],
    };
    let request = Request::Import.to_bytes();
    assert_eq!(Request::parse(&request), Ok(Request::Import));
    assert_eq!(BusId::from_wire(device.busid.as_wire()), device.busid);
    table.add("OP_REQ_IMPORT parse", request.len() + op::IMPORT_BODY_LEN, || {
        let _ = black_box(Request::parse(black_box(&request)));
        black_box(BusId::from_wire(black_box(device.busid.as_wire())));
    });
    let mut out = Vec::new();
    op::emit_import(Ok(&device), &mut out);
    let (_, record) = out.split_at(op::OP_COMMON_LEN);
    assert_record(record, &device);
    table.add("OP_REP_IMPORT emit", out.len(), || {
        out.clear();
        op::emit_import(Ok(black_box(&device)), &mut out);
        black_box(&out);
    });
    out.clear();
    op::emit_devlist(std::iter::repeat_n(&device, 8), &mut out);
    let (common, rest) = out.split_first_chunk().expect("it begins with op_common");
    assert_eq!(client::parse_common(common, Request::Devlist), Ok(()));
    let (count, records) = rest.split_first_chunk().expect("their number follows");
    assert_eq!(u32::from_be_bytes(*count), 8);
    let record_len = op::USB_DEVICE_LEN + device.interfaces.len() * op::USB_INTERFACE_LEN;
    assert_eq!(records.len(), 8 * record_len);
    for record in records.chunks(record_len) {
        assert_record(&record[..op::USB_DEVICE_LEN], &device);
    }
    table.add("OP_REP_DEVLIST of 8 emit", out.len(), || {
        out.clear();
        op::emit_devlist(std::iter::repeat_n(black_box(&device), 8), &mut out);
        black_box(&out);
    });
}

/// Looks whether a `usb_device` record is the device's.
fn assert_record(record: &[u8], device: &UsbDevice) {
    let read = client::parse_device(record.try_into().expect("the bytes of a record"));
    assert_eq!((&read.path, read.busid), (&device.path, device.busid));
    assert_eq!((read.id_vendor, read.id_product), (device.id_vendor, device.id_product));
    assert_eq!(usize::from(read.num_interfaces), device.interfaces.len());
}

fn packets(table: &mut Table, count: u16) {
    let step = GAP_LEN + PACKET_LEN;
    let (len, buffer_len) = (usize::from(count) * PACKET_LEN, usize::from(count) * step);
    let [len_word, buffer_len_word] =
        [len, buffer_len].map(|len| u32::try_from(len).expect("two megabytes at most"));
    let mut bytes = usbferry_load::pdu::descriptors(count.into(), PACKET_LEN);
    for (index, descriptor) in bytes.as_chunks_mut::<DESCRIPTOR_LEN>().0.iter_mut().enumerate() {
        let offset = u32::try_from(index * step + GAP_LEN).expect("below the above");
        descriptor[..4].copy_from_slice(&offset.to_be_bytes());
    }
    assert_eq!(Packets::new(&bytes).check(buffer_len_word, true), Ok(len_word));
    table.add(&format!("packets check {count}"), bytes.len(), || {
        let _ = black_box(Packets::new(black_box(&bytes)).check(black_box(buffer_len_word), true));
    });
    // A packet is filled with its number, and the gap in front is not.
    let packet = |index: u16| [index.to_le_bytes()[0]; PACKET_LEN];
    let gap = |index: u16| [!index.to_le_bytes()[0]; GAP_LEN];
    let mut data: Vec<u8> =
        (0..count).flat_map(|index| gap(index).into_iter().chain(packet(index))).collect();
    Packets::new(&bytes).join(&mut data);
    assert!(data[..len].iter().copied().eq((0..count).flat_map(packet)), "{count} packets joined");
    // Joining again moves as much.
    table.add(&format!("packets join {count}"), bytes.len() + len, || {
        Packets::new(black_box(&bytes)).join(&mut data);
    });
    let whole = || std::iter::repeat((u32::MAX, Status::OK));
    let fill = |bytes: &mut [u8]| PacketsMut::new(bytes).fill(whole());
    assert_eq!(fill(&mut bytes), (len_word, 0));
    assert!(Packets::new(&bytes).iter().all(|packet| packet.actual_length == packet.length));
    table.add(&format!("packets fill {count}"), bytes.len(), || {
        black_box(fill(black_box(&mut bytes)));
    });
}
