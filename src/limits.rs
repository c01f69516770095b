//! The limits that a client, a device or a user of the server meets, each with the reason for the
//! value. Whatever a peer or a device can make grow has a limit here, or one of the protocol and of
//! Linux beside their code ([`crate::wire`], [`crate::usb::descriptor`]).
//!
//! Numbers by which the server is tuned (bytes of a read, turns of a loop, pauses) stand beside the
//! code that they tune, and are nobody's limits.
//!
//! Contract: constants and arithmetic; the assertions hold in every build.

use std::time::Duration;

use usbferry_sys::arena::BLOCK_LEN_MIN;

/// The limits that depend on the address space: each attached device reserves addresses for its
/// memory at once, and takes memory only for used pages.
struct AddressSpace {
    /// Bytes of addresses that a process has at least.
    len: u64,
    memory_default: usize,
    memory_max: usize,
    urb_len_default: usize,
    packets_waiting_max: usize,
    attached_max: usize,
    disks_len_max: u64,
}

/// Addresses of 64 bits: never short.
const OF_64_BITS: AddressSpace = AddressSpace {
    len: 1 << 46,
    memory_default: 64 << 20,
    memory_max: 1 << 30,
    urb_len_default: 16 << 20,
    packets_waiting_max: 2048,
    attached_max: 256,
    disks_len_max: 16 << 30,
};

/// Addresses of 32 bits: two or three GiB, and all devices together fit into two.
const OF_32_BITS: AddressSpace = AddressSpace {
    len: 2 << 30,
    memory_default: 16 << 20,
    memory_max: 512 << 20,
    urb_len_default: 8 << 20,
    packets_waiting_max: 256,
    attached_max: 32,
    disks_len_max: 512 << 20,
};

const HERE: AddressSpace = if usize::BITS >= 64 { OF_64_BITS } else { OF_32_BITS };

/// URB slots of a device by default: the number of URBs that can be in flight to the device. Linux
/// clients keep up to a few dozen URBs in flight (a webcam 5 URBs of 32 packets, storage with UAS
/// about 30).
pub const URBS_DEFAULT: usize = 256;

/// Smallest number of URB slots of a device: each endpoint can always have a slot
/// ([`ENDPOINT_RESERVE`]), and one more slot for each makes a queue possible.
pub const URBS_MIN: usize = 2 * ENDPOINT_RESERVE;

/// Largest number of URB slots of a device: beyond, usbfs's own memory for URBs is the limit.
pub const URBS_MAX: usize = 4096;

/// URBs of a device that wait for a slot. A waiting IN URB costs only its record. A SUBMIT beyond
/// is answered with -ENOMEM; to stop reading would keep UNLINKs out. Linux's `vhci_hcd` sends every
/// URB that a program submits, and capture programs submit thousands at once (4,000 URBs of 64 KiB
/// are a quarter of a gigabyte): the limit is twice as high.
pub const URBS_WAITING_MAX: usize = 8192;

/// The part of [`URBS_WAITING_MAX`] that can have isochronous packets, whose descriptors cost a
/// hundred times as much as a record: 2048, and 256 with addresses of 32 bits. At high speed, with
/// 8 packets for each URB, 2048 URBs are two seconds and 256 a quarter of a second; no driver plans
/// further ahead.
pub const PACKETS_WAITING_MAX: usize = HERE.packets_waiting_max;

/// Records for refused SUBMITs, whose answers need a place, too. When all of these records are in
/// use, the client has 16 refusals to read, and its socket is not read until the client has read a
/// refusal.
pub const URBS_REFUSED_MAX: usize = 16;

/// UNLINK replies that wait to be written before the client's socket is no longer read. The
/// client's kernel reads replies in a thread of its own, so the client can't be waiting for us
/// meanwhile.
pub const UNLINK_REPLIES_MAX: usize = 1024;

/// UNLINKs that wait for a SUBMIT which they have overtaken; an UNLINK beyond is answered at once.
/// Between two SUBMITs a client sends fewer UNLINKs.
pub const EARLY_UNLINKS_MAX: usize = 64;

/// The wait of an early UNLINK after the client's last byte. A Linux client sends the overtaken
/// SUBMIT next, and TCP repeats lost bytes mostly within a second; a client that never sends the
/// SUBMIT has seqnums of its own making, and waits for this time.
pub const EARLY_UNLINK_TIMEOUT: Duration = Duration::from_secs(2);

/// Slots that only endpoints with nothing in flight may take, so that a silent endpoint with all
/// other slots can't keep control transfers out: one slot for each possible endpoint address.
/// Buffer memory has a reserve for the same reason ([`MEMORY_RESERVE_SHARE`]).
pub const ENDPOINT_RESERVE: usize = 32;

/// One in this many bytes of a device's buffer memory is for endpoints with nothing in flight.
pub const MEMORY_RESERVE_SHARE: usize = 16;

/// Bytes of a device's buffer memory by default. Reserved addresses become memory at first use: the
/// real cost is the largest amount that a client has had in flight at once.
pub const MEMORY_DEFAULT: usize = HERE.memory_default;

/// Smallest buffer memory of a device, in bytes: a few of the largest URBs of common drivers.
pub const MEMORY_MIN: usize = 1 << 20;

/// Largest buffer memory of a device, in bytes, and the largest value of any other size setting.
pub const MEMORY_MAX: usize = HERE.memory_max;

/// Bytes mapped from a device by default where the platform can map (usbfs), in addition to the
/// buffer memory and for long transfers. usbfs allows 16 MiB for all processes together by default;
/// `usb::libusb::memory` says how much a device gets, and when.
pub const DEVICE_MEMORY_DEFAULT: usize = 2 << 20;

/// Smallest memory mapped from a device, in bytes, unless none: in less there is no room for a few
/// long transfers, which alone gain.
pub const DEVICE_MEMORY_MIN: usize = 64 << 10;

/// Smallest buffer of a client's socket, in bytes, where a user sets the size: room for a header
/// with the data of the longest control transfer, and about what Linux itself has as its least
/// (`SOCK_MIN_SNDBUF` of `include/net/sock.h`).
pub const SOCKET_BUFFER_MIN: usize = 4 << 10;

/// Addresses that a server listens on: a name may have many, and each takes a descriptor.
pub const LISTENERS_MAX: usize = 64;

/// Bytes that the server needs at most beside its devices: the program and its libraries, a few
/// pages of stack for each thread, the table of connections, and replies to clients without a
/// device.
pub const SERVER_MEMORY: usize = 32 << 20;

/// Bytes that an attached device needs at most beside its buffers and URBs: the session's receive
/// and reply buffers, libusb's knowledge of the device, the worker's stack.
pub const SESSION_MEMORY: usize = 4 << 20;

/// Bytes that a URB needs at most beside its buffer: the record, the places in queues, and the
/// descriptors of [`PACKETS_MAX`](crate::wire::iso::PACKETS_MAX) isochronous packets.
pub const URB_MEMORY: usize = 17 << 10;

/// Bytes that a URB without packets needs at most beside its buffer.
pub const RECORD_MEMORY: usize = 256;

/// Bytes that a slot needs at most: a libusb transfer with room for all packets, and as much again
/// for libusb's form of the transfer for usbfs while in flight.
pub const SLOT_MEMORY: usize = 32 << 10;

/// One in this many bytes of buffer memory is needed in addition for the account of the blocks:
/// nine bytes for each [`BLOCK_LEN_MIN`].
pub const ACCOUNT_SHARE: usize = 28;

/// Bytes of the largest accepted URB by default.
pub const URB_LEN_DEFAULT: usize = HERE.urb_len_default;

/// Bytes of data of the longest control transfer to a device: libusb refuses longer transfers on
/// Linux (`MAX_CTRL_BUFFER_LENGTH`). A configuration may be longer, and comes from the host instead
/// of the device.
pub const CONTROL_LEN_MAX: usize = 4096;

/// Connections at once. Each costs a file descriptor and, before its IMPORT, well under a kilobyte.
/// The next connection takes the place of the oldest connection without a device.
pub const CONNECTIONS_MAX: usize = 4096;

/// Clients may use one in this many of the process's file descriptors: devices need descriptors,
/// too. When no descriptor is left, a new client gets the descriptor of a client without a device.
pub const CONNECTIONS_SHARE: usize = 2;

/// Devices attached at once: each has a thread and its buffer memory.
pub const ATTACHED_MAX: usize = HERE.attached_max;

/// Bytes of all simulated disks together. A disk costs memory only for written pages, but the
/// system has to grant all bytes at once.
pub const DISKS_LEN_MAX: u64 = HERE.disks_len_max;

/// Bytes of the largest file of settings: hundreds of rules with comments take a tenth.
pub const CONFIG_LEN_MAX: usize = 1 << 20;

/// Rules in a file: each device of each scan is compared with all rules, and nobody has as many
/// devices.
pub const RULES_MAX: usize = 1024;

/// The longest time for which a device must have been present before a client gets the device. The
/// client waits, and its user needs an answer.
pub const SETTLE_MAX: Duration = Duration::from_secs(30);

/// Devices attached at once by clients at the same address: half of all, so that one machine leaves
/// room for others. A Linux client has 16 ports unless its kernel was built with more. Clients over
/// loopback are not limited: over `ssh -R` many machines have the same address.
pub const SESSIONS_PER_ADDRESS_MAX: usize = ATTACHED_MAX / 2;

/// Connections accepted from an address within a second; further connections of the second are
/// closed at once. A machine that attaches all of its 16 ports at once makes 32 connections, and a
/// router may stand for a few such machines. Clients over loopback are not limited: over `ssh -R`
/// many machines have the same address, and the share of the processor for clients without a device
/// bounds their floods.
pub const ACCEPTS_PER_SECOND: u32 = 100;

/// Addresses whose connections are counted at once. Each connection looks through the list, which
/// takes less time than the system needs to accept a connection. A flood from more addresses meets
/// [`CONNECTIONS_MAX`] instead.
pub const ADDRESSES_MAX: usize = 256;

/// Kinds (VID:PID) of one rule, which are one device in different states: a bootloader, a program,
/// a recovery mode and some to spare.
pub const RULE_IDS_MAX: usize = 16;

/// Threads that wait for devices which do not answer a scan, one thread for each device until the
/// answer. Beyond, a scan does not wait for further devices.
pub const READERS_MAX: usize = 64;

/// The time for which a device that has left is expected back in another state, such as its
/// bootloader: a microcontroller needs up to two seconds, and a person who plugs in another device
/// needs as long as this.
pub const RETURN_TIMEOUT: Duration = Duration::from_secs(5);

/// Devices expected back at once. Of more devices, the first to leave is expected no more: an
/// import of its name in the gap is refused rather than held.
pub const DEPARTURES_MAX: usize = 64;

/// Clients that watch devices at once. A watch costs a connection, and a status for each change of
/// the exports; a client that is refused asks again later.
pub const WATCHES_MAX: usize = 256;

/// Watches of clients at the same address at once: a Linux client has 16 ports and a watch for each
/// at most, and a router may stand for a few clients. Clients over loopback are not limited: over
/// `ssh -R` many machines have the same address.
pub const WATCHES_PER_ADDRESS_MAX: usize = WATCHES_MAX / 4;

/// The longest time of a watch. A client that still waits for its device after a day asks again.
pub const WATCH_TIME_MAX: Duration = Duration::from_secs(24 * 3600);

/// Devices named in the log line about a text that fits several devices; more are counted.
pub const CANDIDATES_SHOWN_MAX: usize = 8;

/// Time for a client's handshake, and for a client to take the last bytes of a reply.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// The wait of a request for a scan of the devices, which takes some milliseconds. A longer scan
/// waits for the system, and requests are answered from the result of the scan before.
pub const SCAN_TIMEOUT: Duration = Duration::from_secs(1);

/// The wait of a client for its device to be opened: longer than a kernel driver needs to let go of
/// the device, and longer than a request without an answer from the device (5 s,
/// `USB_CTRL_SET_TIMEOUT`), which holds the device's lock.
pub const OPEN_TIMEOUT: Duration = Duration::from_secs(8);

/// From an import until the work ahead for the next begins: the client that has just got a device
/// has the processor first, for the reply and for its first requests. With thirty devices the work
/// takes some milliseconds. Nobody waits for the work, and a scan ordered meanwhile begins at once.
pub const PREPARE_REST: Duration = Duration::from_millis(5);

/// The rest of a device whose last client broke the protocol: nobody can import the device
/// meanwhile. To open and to close a device costs more than anything else that a client can ask
/// for, and an abuser comes back at once.
pub const VIOLATION_REST: Duration = Duration::from_millis(20);

/// The time without a sign of life of a client, or with no byte accepted, after which the client is
/// taken for dead by default.
pub const PEER_TIMEOUT_DEFAULT: Duration = Duration::from_secs(15);

/// Shortest time after which a client may be taken for dead: TCP counts in seconds.
pub const PEER_TIMEOUT_MIN: Duration = Duration::from_secs(3);

/// Longest time after which a client may be taken for dead: more than an hour is no protection.
pub const PEER_TIMEOUT_MAX: Duration = Duration::from_secs(3600);

/// The time without input from client and device, after which a session gives back the memory that
/// is not in use. Longer than the pauses of a person at work; with a quarter of a minute for the
/// many pieces of much memory, all is given back a minute after a load.
pub const IDLE_AFTER: Duration = Duration::from_secs(45);

/// The time for which the reactor looks for work before sleeping, by default and where looking has
/// paid: longer than a near client or a fast device takes to answer, and equal to the kernel's wait
/// for virtual machines (`halt_poll_ns`). A nap, while nothing is expected, does not count.
pub const BUSY_POLL_DEFAULT: Duration = Duration::from_micros(200);

/// The longest time to look for work: beyond, nobody could notice the cost of sleeping.
pub const BUSY_POLL_MAX: Duration = Duration::from_millis(100);

/// Time for which data is unacknowledged before the silence counts as a sign that a client is dead,
/// when another client from the same address wants its device. TCP repeats data after 200 ms, and
/// several times within a second.
pub const STALE_AFTER: Duration = Duration::from_secs(1);

/// Unanswered probes, or repetitions of data, that count as a sign that a client is dead. One is
/// not enough: a probe counts from its sending, so every silent client has an unanswered probe for
/// a round trip; and data is lost now and then. The second probe is sent when the first has been
/// unanswered for much longer: a second at least for keepalive, else TCP's timer.
pub const STALE_REPEATS: u8 = 2;

/// The wait of this program as a client for a server to accept the connection, for each address of
/// the server: TCP repeats its request after 1 s and 3 s, and a client that comes back after a cut
/// of the network is to try afresh soon.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(4);

/// The wait as a client for a server's list, the connection included: as long as this program as a
/// server has for a handshake.
pub const DEVLIST_TIMEOUT: Duration = HANDSHAKE_TIMEOUT;

/// The wait as a client for a device: a server may have to scan ([`SCAN_TIMEOUT`]), wait for
/// another client's end ([`HANDSHAKE_TIMEOUT`]) and open the device ([`OPEN_TIMEOUT`]).
pub const IMPORT_TIMEOUT: Duration = Duration::from_secs(20);

/// The wait as a client for a server to know of watches. A server without the extension mostly
/// closes at once, and a few stay silent; the client asks by plain imports then.
pub const WATCH_TIMEOUT: Duration = Duration::from_secs(2);

/// A server that knew of no watch is asked again after this time: the server may be a newer one.
pub const WATCH_PROBE_INTERVAL: Duration = Duration::from_secs(600);

/// The first wait of `attach --persist` before another try, for a server that is not there, or
/// where attachments end at once. Doubled with each try.
pub const RETRY_FIRST: Duration = Duration::from_millis(100);

/// The longest wait before another try: a try costs a server an accept, and a machine that is away
/// nothing, and a person waits no longer for a device whose server is back.
pub const RETRY_MAX: Duration = Duration::from_secs(2);

/// The interval of imports of a device that another client has, beside a watch: the other client
/// may be this client's own dead connection, at which a server looks for an import only.
pub const BUSY_INTERVAL: Duration = Duration::from_secs(5);

/// An attachment that lasted this long has worked: the next try comes at once, and the waits begin
/// with the first again.
pub const ATTACHED_WELL: Duration = Duration::from_secs(1);

/// The interval of looks for a server that was found by its name and refuses: another server may
/// have the address now, which is rare, and a look is heard by all servers of the network.
pub const SEEK_INTERVAL: Duration = Duration::from_secs(30);

/// The interval of imports at a server that refused and knows of no watch: a refusal costs usbipd a
/// process and two lines of its log.
pub const ASK_INTERVAL: Duration = Duration::from_secs(2);

/// The wait for the kernel to free the port of a lost device, before another port is taken.
pub const PORT_FREE_TIMEOUT: Duration = Duration::from_secs(1);

/// Controllers of `vhci_hcd`: the largest number that Linux can be built with
/// (`USBIP_VHCI_NR_HCS` of `drivers/usb/usbip/Kconfig`).
pub const VHCI_CONTROLLERS_MAX: usize = 128;

/// Tries of a free port of `vhci_hcd`, which other programs may take meanwhile: as many as a
/// controller has ports.
pub const PORT_TRIES: u32 = 30;

/// The time for which a URB without memory is tried again while only other endpoints of the device
/// have URBs in flight: all use the same memory, and as long as any of them moves, memory comes
/// back sooner. With URBs of its own endpoint in flight, the URB waits for their end.
pub const NO_MEMORY_TIMEOUT: Duration = Duration::from_secs(5);

/// Time for the system to give back the resources of a device that is gone.
pub const GONE_TIMEOUT: Duration = Duration::from_secs(1);

/// The time for which requests to a gone device are answered before the client sees the end: most
/// requests on their way arrive within, and the client is to see the end within 50 ms.
pub const GONE_INPUT_TIMEOUT: Duration = Duration::from_millis(20);

/// Time for a client, when the server stops, to take the replies that were already queued.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(4);

/// The wait of a server that stops for the request of a client that it has accepted, and for the
/// client to take the list: several round trips of a far network. Service managers and users wait
/// for the end.
pub const LAST_ANSWERS_TIMEOUT: Duration = Duration::from_secs(1);

/// Bytes of the longest record of a capture, header included; longer URBs are cut. Wireshark reads
/// no longer record of this link type (`WTAP_MAX_PACKET_SIZE_STANDARD`), and gives the file up.
pub const CAPTURE_DATA_MAX: usize = 256 << 10;

/// The most bytes of data of a URB in a capture by default, but for control URBs: the commands and
/// statuses of sticks and most answers to commands, what keyboards and mice say, the headers of
/// video and network packets. A capture costs 3 % of the speed of 64 KiB URBs, 4 % of the processor
/// time, and 11 % of the latter with 1 KiB (docs/capture.md).
pub const SNAP_LEN_DEFAULT: usize = 128;

/// Bytes of a piece of a capture: room for the longest record, and few calls of the writer.
pub const CAPTURE_PIECE_LEN: usize = 512 << 10;

/// Bytes of a capture that wait for the disk or the reader; further records are dropped and
/// counted. A disk that pauses for a tenth of a second is caught up with at 160 MB/s.
pub const CAPTURE_QUEUE_LEN: usize = 16 << 20;

/// Captures at once, with that of the settings. Each has a thread and
/// [`CAPTURE_QUEUE_LEN`], and costs a captured URB a copy.
pub const CAPTURES_MAX: usize = 4;

/// Smallest size of a capture with a limit, in bytes: a half holds a few pieces.
pub const CAPTURE_SIZE_MIN: usize = 4 << 20;

/// Bytes of the largest recording that is read: the file is in memory as a whole.
pub const RECORDING_LEN_MAX: u64 = 512 << 20;

/// URBs in flight at once in a replay. Drivers have fewer; a server has less room for more.
pub const REPLAY_IN_FLIGHT_MAX: usize = 128;

/// Answers of a server that wait in a replay: for every URB in flight, and for its UNLINK.
pub const REPLAY_ANSWERS_MAX: usize = 2 * REPLAY_IN_FLIGHT_MAX;

/// Bytes of the longest URB of a replay: the longest that usbfs takes by default.
pub const REPLAY_URB_LEN_MAX: u32 = 16 << 20;

/// The wait for an answer in a replay. A URB that waits for longer than in its recording has
/// another answer.
pub const REPLAY_ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Differences of a replay that are printed; further ones are counted.
pub const REPLAY_DIFFERENCES_MAX: usize = 1000;

/// The wait at the end of the program for the reader of a capture.
pub const CAPTURE_END_TIMEOUT: Duration = Duration::from_secs(2);

/// Lines a second in the log about clients and their devices; further lines are counted. Nobody
/// reads more, and thirty devices can attach and detach within a second.
pub const COMPLAINTS_PER_SECOND: u32 = 100;

/// Lines that wait for the reader of the log; further lines are dropped and counted. The longest
/// meaningful burst comes from all devices at once, 256 at most, with a few lines each from import
/// to release. Complaints about clients take ten seconds for as many lines.
pub const LOG_LINES_MAX: usize = 1024;

/// Bytes of lines that wait for the reader of the log; further lines are dropped and counted. A
/// line has some hundred bytes, and with the texts of hooks some thousand.
pub const LOG_BYTES_MAX: usize = 1 << 20;

/// The wait at the end of the program for the reader of the log.
pub const LOG_END_TIMEOUT: Duration = Duration::from_secs(1);

/// The wait of a stop for devices to be given back. The process ends afterwards in any case, and
/// the kernel closes the rest.
pub const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(10);

/// Programs of hooks running at once, beside those that authorize imports. Each has three threads;
/// the programs of a device run one after another, so more would only serve devices that come and
/// go at the same moment.
pub const HOOKS_RUNNING_MAX: usize = 8;

/// Programs that authorize imports, running at once: in places of their own, so that no other
/// program, however long, keeps an import waiting. Enough for the clients that come back together
/// after a restart; a machine that serves USB devices can bear as many processes.
pub const QUESTIONS_RUNNING_MAX: usize = 16;

/// Programs of [`QUESTIONS_RUNNING_MAX`] for one device: a client that asks for its device over and
/// over leaves places to the clients of other devices.
pub const QUESTIONS_PER_DEVICE_MAX: usize = 4;

/// Programs of [`QUESTIONS_RUNNING_MAX`] for clients at one address, and
/// [`QUESTIONS_PER_DEVICE_AND_ADDRESS_MAX`] of them for a device: half of the places, so that no
/// machine has all, with however many connections. Over `ssh -R` all clients have one address.
pub const QUESTIONS_PER_ADDRESS_MAX: usize = QUESTIONS_RUNNING_MAX / 2;

/// Programs of [`QUESTIONS_PER_DEVICE_MAX`] for clients at one address.
pub const QUESTIONS_PER_DEVICE_AND_ADDRESS_MAX: usize = QUESTIONS_PER_DEVICE_MAX / 2;

/// Events that wait for a program; further events are dropped, with a line of the log. Every device
/// may come, or go, at once, and each event may be two: gone and back as another. As many imports
/// wait for a program of theirs, beside the events, half of them at most from one address; further
/// imports are refused.
pub const HOOKS_WAITING_MAX: usize = 2 * ATTACHED_MAX;

/// The time of a hook's program, which is killed afterwards: long enough to mount a disk or to send
/// a mail, short enough for the next event of the device.
pub const HOOK_TIMEOUT: Duration = Duration::from_secs(60);

/// The wait of an import for the program that authorizes it, with the programs that run before. A
/// client waits with a silent connection, and clients give up after some tens of seconds.
pub const AUTHORIZE_TIMEOUT: Duration = Duration::from_secs(20);

/// Lines of a program of a hook that the log gets, for each run; the rest is read and dropped.
/// Enough for a message with its circumstances; a program with more to say has a log of its own.
pub const HOOK_LINES_MAX: usize = 16;

/// Bytes of such a line: more than a message has, and no screenful.
pub const HOOK_LINE_MAX: usize = 256;

/// The wait of a stop for programs that run or are to run; whatever runs then is killed. Together
/// with [`SHUTDOWN_TIMEOUT`] well below the patience of service managers (90 s for systemd).
pub const HOOKS_END_TIMEOUT: Duration = Duration::from_secs(10);

/// Connections of operators at once, each with a thread. Nobody needs more than a few beside a
/// monitoring program; a further connection is told so and closed.
pub const OPERATORS_MAX: usize = 16;

/// Bytes of an operator's request: a name with its request takes a tenth.
pub const OPERATOR_REQUEST_LEN_MAX: usize = 4096;

/// The wait for an operator's next request, and for the operator to take the answer; at the other
/// end, the wait for the answer. Programs answer within milliseconds.
pub const OPERATOR_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of the longest line that a server may send to an operator: the state of
/// [`ATTACHED_MAX`] devices takes 5 KB for an endpoint with a URB in each bucket of its turnaround,
/// so 40 MB if all devices have all possible endpoints.
pub const OPERATOR_ANSWER_LEN_MAX: usize = 64 << 20;

/// Clients of the web server at once. A few people and a monitoring program or two have one each;
/// of more clients, the one whose time ends first makes place.
pub const HTTP_CONNECTIONS_MAX: usize = 64;

/// Clients of the web server may use one in this many of the process's file descriptors: the web
/// server leaves those of devices and USB/IP clients alone.
pub const HTTP_CONNECTIONS_SHARE: usize = 8;

/// Bytes of a request to the web server, and the least that hyper's buffer may have. Browsers send
/// below one kilobyte to an address without cookies.
pub const HTTP_HEADER_LEN_MAX: usize = 8 << 10;

/// Header fields of a request to the web server. Browsers send below twenty.
pub const HTTP_HEADERS_MAX: usize = 64;

/// The time of a client of the web server from one request to the next, with the answer taken, and
/// from the beginning to the first request. Longer than the usual interval of Prometheus (15 s).
pub const HTTP_TIMEOUT: Duration = Duration::from_secs(30);

/// The wait for the reactor's answer, beyond which the server counts as hung: a turn takes
/// milliseconds. Below the time limit of Prometheus and of most health checks (10 s).
pub const HTTP_PATIENCE: Duration = Duration::from_secs(2);

/// The most bytes of a message of multicast DNS (RFC 6762, 17).
pub const MDNS_MESSAGE_LEN_MAX: usize = 9000;

/// Questions and records of a message: a service has some ten, and a message has room for 800 of
/// the smallest.
pub const MDNS_RECORDS_MAX: usize = 256;

/// Answers of an announced server to single clients in a second, so that a liar about its address
/// can't have a server flood another machine: enough for a room full of people who look at once.
pub const MDNS_ANSWERS_PER_SECOND: u32 = 100;

/// Names that a server takes in a minute since others have its name. A machine that claims every
/// name silences a server.
pub const NAMES_PER_MINUTE: u32 = 10;

/// Networks on which a server is announced and looked for: more than machines have, but for hosts
/// of containers with a network for each.
pub const LINKS_MAX: usize = 32;

/// Addresses of this machine on a network that count, so that an announcement fits a packet.
pub const LINK_ADDRESSES_MAX: usize = 8;

/// The time of a look for servers on the network: a server on a busy network answers within a
/// second of the last of three questions.
pub const SEARCH_TIME: Duration = Duration::from_secs(2);

/// Servers that a look finds at most; no network of people has more, and a liar could invent any
/// number.
pub const EXPORTERS_MAX: usize = 256;

/// Servers that are asked for their exports at once, a thread each.
pub const EXPORTERS_ASKED_MAX: usize = 32;

/// The wait for the exports of a server on the network: others are shown all the same.
pub const EXPORTER_TIMEOUT: Duration = Duration::from_secs(3);

/// The age of a report that is given to several clients: the reactor makes at most five reports in
/// a second for all clients of the web server.
pub const REPORT_AGE: Duration = Duration::from_millis(200);

/// Devices held back at once, by as many names. Each import looks through the list.
pub const HOLDS_MAX: usize = 256;

/// Operators that follow events at once: half of [`OPERATORS_MAX`], so that others can still ask.
pub const FOLLOWERS_MAX: usize = OPERATORS_MAX / 2;

/// Events that wait for a follower; further events are counted, and the follower is told the
/// number. All devices can come or go at once, and each with a client.
pub const EVENTS_WAITING_MAX: usize = 4 * ATTACHED_MAX;

/// The time for which a follower may take nothing: a person may stop a terminal for a while.
pub const FOLLOWER_TIMEOUT: Duration = Duration::from_secs(60);

/// The wait of a stop for followers to take the last events.
pub const FOLLOWERS_END_TIMEOUT: Duration = Duration::from_secs(1);

const _: () = assert!(SESSIONS_PER_ADDRESS_MAX >= 16, "a Linux client can use all of its ports");
const _: () = assert!(WATCHES_PER_ADDRESS_MAX >= 16, "a Linux client can use all of its ports");
const _: () = assert!(URBS_MIN <= URBS_DEFAULT && URBS_DEFAULT <= URBS_MAX);
const _: () = assert!(MEMORY_MIN <= MEMORY_DEFAULT && DEVICE_MEMORY_DEFAULT <= MEMORY_DEFAULT);
const _: () = assert!(DEVICE_MEMORY_MIN <= DEVICE_MEMORY_DEFAULT);
const _: () = assert!(SOCKET_BUFFER_MIN <= MEMORY_MAX);
const _: () = assert!(URB_LEN_DEFAULT <= MEMORY_DEFAULT / 2, "two of the largest fit at once");
const _: () = assert!(4 * ATTACHED_MAX <= LOG_LINES_MAX);
const _: () = assert!(10 * COMPLAINTS_PER_SECOND as usize <= LOG_LINES_MAX);
const _: () = assert!(
    SCAN_TIMEOUT.as_secs() + HANDSHAKE_TIMEOUT.as_secs() + OPEN_TIMEOUT.as_secs()
        < IMPORT_TIMEOUT.as_secs()
);
const _: () = assert!(DRAIN_TIMEOUT.as_secs() < SHUTDOWN_TIMEOUT.as_secs());
const _: () = assert!(3 * LAST_ANSWERS_TIMEOUT.as_secs() < SHUTDOWN_TIMEOUT.as_secs());
const _: () = assert!(BLOCK_LEN_MIN / ACCOUNT_SHARE >= 9);
const _: () = assert!(CONTROL_LEN_MAX + 8 <= MEMORY_MIN / MEMORY_RESERVE_SHARE);

/// The resources of one attached device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DeviceLimits {
    /// URB slots.
    pub urbs: usize,
    /// Bytes of buffer memory.
    pub memory: usize,
    /// Bytes to map from the device in addition, where the platform can map.
    pub device_memory: usize,
    /// Bytes of the largest URB.
    pub urb_len: usize,
}

impl DeviceLimits {
    /// Bytes of memory that one attached device needs at most. The sum for all devices and
    /// [`SERVER_MEMORY`] is the whole memory of the server, without the system's buffers of the
    /// sockets. Memory is committed at first use: few clients ever reach a tenth.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "the largest limits fit, see below")]
    pub const fn memory_max(&self) -> usize {
        self.memory_in(&HERE) as usize
    }

    /// [`Self::memory_max`] in an address space.
    const fn memory_in(&self, space: &AddressSpace) -> u64 {
        let buffers = self.memory as u64 + self.device_memory as u64;
        let with_packets = self.urbs + space.packets_waiting_max + URBS_REFUSED_MAX;
        let without = URBS_WAITING_MAX - space.packets_waiting_max;
        buffers
            + buffers / ACCOUNT_SHARE as u64
            + SESSION_MEMORY as u64
            + with_packets as u64 * URB_MEMORY as u64
            + without as u64 * RECORD_MEMORY as u64
            + self.urbs as u64 * SLOT_MEMORY as u64
    }

    /// The default limits in an address space.
    const fn default_in(space: &AddressSpace) -> Self {
        Self {
            urbs: URBS_DEFAULT,
            memory: space.memory_default,
            device_memory: DEVICE_MEMORY_DEFAULT,
            urb_len: space.urb_len_default,
        }
    }
}

/// Whether all devices with default limits, and one with the largest, fit into an address space.
const fn fits(space: &AddressSpace) -> bool {
    let default = DeviceLimits::default_in(space);
    let (urbs, memory) = (URBS_MAX, space.memory_max);
    let largest = DeviceLimits { urbs, memory, device_memory: memory, ..default };
    let all = space.attached_max as u64 * default.memory_in(space) + SERVER_MEMORY as u64;
    // Two devices with the largest limits need not fit into 32 bits; one has to.
    MEMORY_MIN <= space.memory_default
        && default.urb_len <= default.memory / 2
        && space.packets_waiting_max <= URBS_WAITING_MAX
        && all <= space.len
        && largest.memory_in(space) <= space.len
}

const _: () = assert!(fits(&OF_64_BITS) && fits(&OF_32_BITS));

impl Default for DeviceLimits {
    fn default() -> Self {
        Self::default_in(&HERE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_a_device_is_the_sum_of_its_parts() {
        let limits = DeviceLimits { urbs: 100, memory: 28 << 20, ..DeviceLimits::default() };
        let limits = DeviceLimits { device_memory: 28 << 20, ..limits };
        let urbs = 100 * (URB_MEMORY + SLOT_MEMORY);
        let waiting = (PACKETS_WAITING_MAX + URBS_REFUSED_MAX) * URB_MEMORY
            + (URBS_WAITING_MAX - PACKETS_WAITING_MAX) * RECORD_MEMORY;
        assert_eq!(limits.memory_max(), (56 << 20) + (2 << 20) + SESSION_MEMORY + urbs + waiting);
    }

    #[test]
    fn all_devices_fit_into_the_address_space_of_32_bits() {
        let each = DeviceLimits::default_in(&OF_32_BITS).memory_in(&OF_32_BITS);
        assert!(each <= 48 << 20, "{each}");
        let all = u64::from(u32::try_from(OF_32_BITS.attached_max).unwrap()) * each;
        assert!(all + SERVER_MEMORY as u64 <= 2 << 30, "{all}");
        // With the limits of 64 bits all devices would not fit: hence limits of their own.
        let wide = DeviceLimits::default_in(&OF_64_BITS).memory_in(&OF_64_BITS);
        assert!(256 * wide > u64::from(u32::MAX));
        assert!(!fits(&AddressSpace { len: 2 << 30, ..OF_64_BITS }));
    }
}
