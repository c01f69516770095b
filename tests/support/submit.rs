//! SUBMITs of a client, right or wrong: every field can have any value.

use usbferry::wire::setup::Setup;

/// The direction OUT of a header.
pub(crate) const OUT: u32 = 0;
/// The direction IN of a header.
pub(crate) const IN: u32 = 1;

/// An isochronous packet's descriptor: offset, length, actual_length, status.
pub(crate) type Descriptor = [u32; 4];

/// CMD_SUBMIT with its data and descriptors.
#[derive(Clone, Debug)]
pub(crate) struct Submit {
    /// `None`: the client's next number.
    pub(crate) seqnum: Option<u32>,
    /// `None`: the devid of the client's device.
    pub(crate) devid: Option<u32>,
    pub(crate) direction: u32,
    pub(crate) endpoint: u32,
    pub(crate) flags: u32,
    pub(crate) length: u32,
    pub(crate) start_frame: u32,
    pub(crate) number_of_packets: u32,
    pub(crate) interval: u32,
    pub(crate) setup: [u8; 8],
    pub(crate) data: Vec<u8>,
    pub(crate) descriptors: Vec<Descriptor>,
}

impl Submit {
    fn new(direction: u32, address: u8, length: u32) -> Self {
        Self {
            seqnum: None,
            devid: None,
            direction,
            endpoint: u32::from(address & 0x0f),
            flags: if direction == IN { 0x200 } else { 0 },
            length,
            start_frame: 0,
            number_of_packets: 0,
            interval: 0,
            setup: [0; 8],
            data: Vec::new(),
            descriptors: Vec::new(),
        }
    }

    /// A bulk or interrupt URB for `length` bytes from the endpoint.
    pub(crate) fn read(address: u8, length: u32) -> Self {
        assert!(address & 0x80 != 0, "an IN endpoint");
        Self::new(IN, address, length)
    }

    /// A bulk or interrupt URB with data for the endpoint.
    pub(crate) fn write(address: u8, data: &[u8]) -> Self {
        assert!(address & 0x80 == 0, "an OUT endpoint");
        Self { data: data.to_vec(), ..Self::new(OUT, address, len_of(data)) }
    }

    /// A control URB as Linux makes it: without a data stage the direction is OUT.
    pub(crate) fn control(setup: Setup, data: &[u8]) -> Self {
        let is_in = setup.request_type & 0x80 != 0 && setup.length > 0;
        let direction = if is_in { IN } else { OUT };
        if !is_in {
            assert_eq!(data.len(), usize::from(setup.length), "the data of the data stage");
        }
        Self {
            setup: setup.to_bytes(),
            data: data.to_vec(),
            ..Self::new(direction, 0, setup.length.into())
        }
    }

    /// GET_DESCRIPTOR of the device, 18 bytes.
    pub(crate) fn get_device_descriptor() -> Self {
        Self::control(setup(0x80, 6, 0x0100, 0, 18), &[])
    }

    /// SET_INTERFACE.
    pub(crate) fn set_interface(interface: u16, alternate: u16) -> Self {
        Self::control(setup(1, 11, alternate, interface, 0), &[])
    }

    /// SET_CONFIGURATION.
    pub(crate) fn set_configuration(value: u16) -> Self {
        Self::control(setup(0, 9, value, 0, 0), &[])
    }

    /// CLEAR_FEATURE(ENDPOINT_HALT).
    pub(crate) fn clear_halt(address: u8) -> Self {
        Self::control(setup(2, 1, 0, address.into(), 0), &[])
    }

    /// SET_FEATURE(PORT_RESET).
    pub(crate) fn port_reset() -> Self {
        Self::control(setup(0x23, 3, 4, 1, 0), &[])
    }

    /// An isochronous IN URB with packets without gaps, as filled in by Linux.
    pub(crate) fn iso_read(address: u8, lengths: &[u32]) -> Self {
        let total = lengths.iter().sum();
        Self::new(IN, address, total).with_packets(&in_a_row(lengths))
    }

    /// An isochronous OUT URB with packets without gaps.
    pub(crate) fn iso_write(address: u8, data: &[u8], lengths: &[u32]) -> Self {
        Self::write(address, data).with_packets(&in_a_row(lengths))
    }

    /// Adds packets, by offset and length.
    pub(crate) fn with_packets(self, packets: &[(u32, u32)]) -> Self {
        let descriptor = |&(offset, length)| [offset, length, 0, 0xffff_ffee];
        let descriptors: Vec<Descriptor> = packets.iter().map(descriptor).collect();
        let number_of_packets = u32::try_from(descriptors.len()).expect("not so many");
        Self { number_of_packets, descriptors, flags: self.flags | 0x2, ..self }
    }

    /// The bytes of the PDU.
    pub(crate) fn bytes(&self, seqnum: u32, devid: u32) -> Vec<u8> {
        let words = [
            1,
            seqnum,
            devid,
            self.direction,
            self.endpoint,
            self.flags,
            self.length,
            self.start_frame,
            self.number_of_packets,
            self.interval,
        ];
        let descriptors = self.descriptors.iter().flatten();
        let mut bytes: Vec<u8> = words.into_iter().flat_map(u32::to_be_bytes).collect();
        bytes.extend(self.setup);
        bytes.extend(&self.data);
        bytes.extend(descriptors.flat_map(|word| word.to_be_bytes()));
        bytes
    }
}

/// CMD_UNLINK.
pub(crate) fn unlink_bytes(seqnum: u32, devid: u32, target: u32) -> Vec<u8> {
    let words = [2, seqnum, devid, 0, 0, target, 0, 0, 0, 0, 0, 0];
    words.into_iter().flat_map(u32::to_be_bytes).collect()
}

pub(crate) const fn setup(
    request_type: u8,
    request: u8,
    value: u16,
    index: u16,
    length: u16,
) -> Setup {
    Setup { request_type, request, value, index, length }
}

/// Offsets and lengths of packets without gaps.
pub(crate) fn in_a_row(lengths: &[u32]) -> Vec<(u32, u32)> {
    let mut offset = 0;
    let packet = |&length: &u32| {
        let at = offset;
        offset += length;
        (at, length)
    };
    lengths.iter().map(packet).collect()
}

pub(crate) fn len_of(data: &[u8]) -> u32 {
    u32::try_from(data.len()).expect("a few megabytes")
}
