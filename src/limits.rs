//! Every bound of the server, with its reason. Nothing that a peer or a device can make grow is
//! without one.

use std::time::Duration;

use usbferry_sys::arena::BLOCK_LEN_MIN;

/// What depends on how much address space there is: a device's memory takes that when it is
/// attached, and as memory only what is used of it.
struct AddressSpace {
    /// Bytes that a process may have at least.
    len: u64,
    memory_default: usize,
    memory_max: usize,
    urb_len_default: usize,
    packets_waiting_max: usize,
    attached_max: usize,
    disks_len_max: u64,
}

/// More than anybody needs.
const OF_64_BITS: AddressSpace = AddressSpace {
    len: 1 << 46,
    memory_default: 64 << 20,
    memory_max: 1 << 30,
    urb_len_default: 16 << 20,
    packets_waiting_max: 2048,
    attached_max: 256,
    disks_len_max: 16 << 30,
};

/// Two or three GiB, of which all devices together fit into the lesser.
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

/// URB slots of a device unless told otherwise: URBs that can be with the device at once. Linux
/// clients keep up to a few dozen in flight (a webcam 5 of 32 packets, storage with UAS 30 or so).
pub const URBS_DEFAULT: usize = 256;

/// Fewest URB slots of a device: each of its endpoints can always have one
/// ([`ENDPOINT_RESERVE`]), and one more makes a queue possible.
pub const URBS_MIN: usize = 2 * ENDPOINT_RESERVE;

/// Most URB slots of a device: beyond it, usbfs's own memory for URBs is the limit.
pub const URBS_MAX: usize = 4096;

/// URBs that wait for a slot, for each device. A waiting IN URB costs its record only. More than
/// these, and a SUBMIT is answered with -ENOMEM: to stop reading instead would keep UNLINKs out.
/// Linux's `vhci_hcd` sends whatever a program submits, and programs that capture submit thousands
/// at once (4,000 of 64 KiB are a quarter of a gigabyte): twice that.
pub const URBS_WAITING_MAX: usize = 8192;

/// Of these, how many can have isochronous packets, whose descriptors cost a hundred times what a
/// record does: 2048, and 256 where addresses have 32 bits. Each with 8 packets at high speed, that
/// is two seconds, or a quarter of one: nobody plans as far.
pub const PACKETS_WAITING_MAX: usize = HERE.packets_waiting_max;

/// Records kept for SUBMITs that are refused: their answer needs a place too. When even these are
/// used up, the client has not read so many refusals, and its socket is not read until it does.
pub const URBS_REFUSED_MAX: usize = 16;

/// UNLINK answers that can wait to be written before the socket is not read any more. The client's
/// kernel reads replies in a thread of its own, so it can't be waiting for us meanwhile.
pub const UNLINK_REPLIES_MAX: usize = 1024;

/// UNLINKs that can wait for a SUBMIT that they have overtaken; more are answered at once. A client
/// sends so few between two of its own SUBMITs.
pub const EARLY_UNLINKS_MAX: usize = 64;

/// How long one waits after the last byte that came. A Linux client that overtook a SUBMIT sends
/// that next, and TCP sends what was lost again within a second, mostly; a client that never sends
/// it has numbers of its own making, and waits so long for its answer.
pub const EARLY_UNLINK_TIMEOUT: Duration = Duration::from_secs(2);

/// Slots, and buffer memory in the same spirit, that only endpoints with nothing in flight may
/// take, so that a silent endpoint that has taken all others can't keep control transfers out.
/// One for each endpoint address there can be.
pub const ENDPOINT_RESERVE: usize = 32;

/// Share of a device's buffer memory that only endpoints with nothing in flight may take: one in
/// this many bytes.
pub const MEMORY_RESERVE_SHARE: usize = 16;

/// Bytes of buffer memory of a device unless told otherwise. Address space that is committed when
/// it is first used: what it costs is what a client really had in flight at once.
pub const MEMORY_DEFAULT: usize = HERE.memory_default;

/// Bytes of buffer memory of a device at least: a few of the largest URBs that common drivers
/// submit.
pub const MEMORY_MIN: usize = 1 << 20;

/// Bytes of buffer memory of a device at most, and of any other size that can be set.
pub const MEMORY_MAX: usize = HERE.memory_max;

/// Bytes mapped from a device at most where the platform can (usbfs), beside the above and for long
/// transfers, unless told otherwise. usbfs allows 16 MiB for all processes together by default; how
/// much of that a device really gets, and when, says `usb::libusb::memory`.
pub const DEVICE_MEMORY_DEFAULT: usize = 2 << 20;

/// Bytes that the server has at most beside its devices: the program and its libraries, a few pages
/// of stack for each thread, the table of connections, what waits to be said to clients without a
/// device.
pub const SERVER_MEMORY: usize = 32 << 20;

/// Bytes that an attached device takes at most beside its buffers and URBs: where its session
/// receives and puts replies together, what libusb knows of it, its worker's stack.
pub const SESSION_MEMORY: usize = 4 << 20;

/// Bytes that a URB takes at most beside its buffer: its record, its places in queues, and the
/// descriptors of [`PACKETS_MAX`](crate::wire::iso::PACKETS_MAX) isochronous packets.
pub const URB_MEMORY: usize = 17 << 10;

/// The same of a URB without packets.
pub const RECORD_MEMORY: usize = 256;

/// Bytes that a slot takes at most: a transfer with as many packets in libusb, and the same again
/// in what libusb makes of it for usbfs while it is in flight.
pub const SLOT_MEMORY: usize = 32 << 10;

/// Of the buffer memory, one in this many bytes comes on top, to keep account of it: nine for each
/// of [`BLOCK_LEN_MIN`].
pub const ACCOUNT_SHARE: usize = 28;

/// Bytes of the largest URB that is accepted, unless told otherwise.
pub const URB_LEN_DEFAULT: usize = HERE.urb_len_default;

/// Bytes of data of the longest control transfer that a device is asked for: libusb refuses more on
/// Linux (`MAX_CTRL_BUFFER_LENGTH`). Configurations may be longer, and are not asked for.
pub const CONTROL_LEN_MAX: usize = 4096;

/// Connections at once. Each costs a descriptor and, before it imports, well under a kilobyte. For
/// one more, the oldest that has no device makes place.
pub const CONNECTIONS_MAX: usize = 4096;

/// Clients have one in this many of the descriptors that the process may have: devices need theirs,
/// and where there is none left, a client gets the one of another that has no device.
pub const CONNECTIONS_SHARE: usize = 2;

/// Devices attached at once: each has a thread and its buffer memory.
pub const ATTACHED_MAX: usize = HERE.attached_max;

/// Bytes of all simulated disks together. They cost what is written to them, but the system has to
/// grant them all at once.
pub const DISKS_LEN_MAX: u64 = HERE.disks_len_max;

/// Threads that wait for devices which do not answer a scan, one each, until they do. Beyond that,
/// further ones are not waited for.
pub const READERS_MAX: usize = 64;

/// How long a client may take for its handshake, and to take the last bytes of a reply.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a request waits for a scan of the devices, which takes some milliseconds. One that
/// takes longer waits for the system, and requests are answered from what the scan before has
/// found.
pub const SCAN_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a client waits for its device to be opened: longer than a kernel driver takes that lets
/// go of it, and than one request that a device does not answer (5 s, `USB_CTRL_SET_TIMEOUT`),
/// which holds the device's lock.
pub const OPEN_TIMEOUT: Duration = Duration::from_secs(8);

/// How long nobody can import a device whose last client broke the protocol. To open and close it
/// costs more than all else that a client can ask for, and one that means no good comes again at
/// once.
pub const VIOLATION_REST: Duration = Duration::from_millis(20);

/// How long a client may show no sign of life, or accept no byte, unless told otherwise.
pub const PEER_TIMEOUT_DEFAULT: Duration = Duration::from_secs(15);

/// How long the reactor looks for work before it sleeps, where that pays, unless told otherwise:
/// longer than a near client or a fast device takes to answer, and as long as the kernel lets
/// virtual machines wait (`halt_poll_ns`).
pub const BUSY_POLL_DEFAULT: Duration = Duration::from_micros(200);

/// Shortest time after which a client may be taken for gone: TCP counts in seconds.
pub const PEER_TIMEOUT_MIN: Duration = Duration::from_secs(3);

/// Longest such time: beyond an hour it is no protection.
pub const PEER_TIMEOUT_MAX: Duration = Duration::from_secs(3600);

/// Data unacknowledged for so long counts as a sign that a client is gone, when another one from
/// the same place wants its device. TCP sends again after 200 ms, and several times in a second.
pub const STALE_AFTER: Duration = Duration::from_secs(1);

/// Probes unanswered, and times that data was sent again, that count as such a sign. A probe counts
/// from when it is sent, so a client that is there has one for a round trip, whenever it has been
/// silent for a while; and data is lost once in a while. The second is sent when the first has had
/// no answer for much longer: keepalive's after a second at least, others by the timer that sends
/// again.
pub const STALE_REPEATS: u8 = 2;

/// How long a URB that there is no memory for is tried again, whatever else its device has in
/// flight, unless that is of its own endpoint: others use the same memory, and as long as one of
/// them moves it comes back sooner.
pub const NO_MEMORY_TIMEOUT: Duration = Duration::from_secs(5);

/// How often.
pub const NO_MEMORY_RETRY: Duration = Duration::from_millis(10);

/// How long the system may take to give back what a device had that is gone.
pub const GONE_TIMEOUT: Duration = Duration::from_secs(1);

/// How long requests to a device that is gone are answered before its client sees the end: most of
/// what was under way comes within this, and the end is to be seen within 50 ms.
pub const GONE_INPUT_TIMEOUT: Duration = Duration::from_millis(20);

/// How long a client may take, when the server stops, for what was already said to it.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(4);

/// Lines a second in the log about clients and their devices; the rest is counted. Nobody reads
/// more, and it is an attach and a detach of thirty devices in a second.
pub const COMPLAINTS_PER_SECOND: u32 = 100;

/// Lines of the log that wait for whoever reads it; more are dropped and counted. The longest burst
/// that means something is that of all devices at once, 256 or fewer, each with a few lines from
/// its import to its release. Complaints about clients need ten seconds for as many.
pub const LOG_LINES_MAX: usize = 1024;

/// How long the end of the program waits for whoever reads the log.
pub const LOG_END_TIMEOUT: Duration = Duration::from_secs(1);

/// How long shutdown waits for devices to be given back before the process ends anyway; the kernel
/// then closes what is left.
pub const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(10);

const _: () = assert!(URBS_MIN <= URBS_DEFAULT && URBS_DEFAULT <= URBS_MAX);
const _: () = assert!(MEMORY_MIN <= MEMORY_DEFAULT && DEVICE_MEMORY_DEFAULT <= MEMORY_DEFAULT);
const _: () = assert!(URB_LEN_DEFAULT <= MEMORY_DEFAULT / 2, "two of the largest fit at once");
const _: () = assert!(4 * ATTACHED_MAX <= LOG_LINES_MAX);
const _: () = assert!(10 * COMPLAINTS_PER_SECOND as usize <= LOG_LINES_MAX);
const _: () = assert!(DRAIN_TIMEOUT.as_secs() < SHUTDOWN_TIMEOUT.as_secs());
const _: () = assert!(BLOCK_LEN_MIN / ACCOUNT_SHARE >= 9);
const _: () = assert!(CONTROL_LEN_MAX + 8 <= MEMORY_MIN / MEMORY_RESERVE_SHARE);

/// What one attached device may use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DeviceLimits {
    /// URB slots.
    pub urbs: usize,
    /// Bytes of buffer memory.
    pub memory: usize,
    /// Bytes to map from the device beside it, where the platform can.
    pub device_memory: usize,
    /// Bytes of the largest URB.
    pub urb_len: usize,
}

impl DeviceLimits {
    /// Bytes of memory that one attached device takes at most. Together with [`SERVER_MEMORY`], and
    /// this for each device, that is all that the server has, but for what the system keeps of the
    /// sockets. It is committed as it is used: few clients ever reach a tenth.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "the largest limits fit, see below")]
    pub const fn memory_max(&self) -> usize {
        self.memory_in(&HERE) as usize
    }

    /// The same for an address space.
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

    /// What is set unless told otherwise.
    const fn default_in(space: &AddressSpace) -> Self {
        Self {
            urbs: URBS_DEFAULT,
            memory: space.memory_default,
            device_memory: DEVICE_MEMORY_DEFAULT,
            urb_len: space.urb_len_default,
        }
    }
}

/// Whether the limits suit an address space.
const fn fits(space: &AddressSpace) -> bool {
    let default = DeviceLimits::default_in(space);
    let (urbs, memory) = (URBS_MAX, space.memory_max);
    let largest = DeviceLimits { urbs, memory, device_memory: memory, ..default };
    let all = space.attached_max as u64 * default.memory_in(space) + SERVER_MEMORY as u64;
    // Of the largest there is at most one in so little address space, and its sum is a number.
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
    fn a_device_takes_what_its_parts_take() {
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
        // With the limits of 64 bits they would not, which is why there are others.
        let wide = DeviceLimits::default_in(&OF_64_BITS).memory_in(&OF_64_BITS);
        assert!(256 * wide > u64::from(u32::MAX));
        assert!(!fits(&AddressSpace { len: 2 << 30, ..OF_64_BITS }));
    }
}
