//! `ioctl` on a device node: transfers go to the [`node`](crate::node), and this module answers the
//! rest after `drivers/usb/core/devio.c`.

use std::ffi::{CStr, c_char, c_int, c_uint, c_ulong, c_void};

use crate::abi::{
    self, ConnectInfo, ConnectInfoEx, ControlTransfer, DisconnectClaim, GetDriver, InterfaceIoctl,
    SetInterface, nr,
};
use crate::device::{Locked, outcome};
use crate::node::{self, Node};
use crate::{fail, memory, record, requests};

/// Bytes of data of a CONTROL call at most: a page.
const CONTROL_MAX: usize = 4096;

/// Flags of [`DisconnectClaim`].
const IF_DRIVER: c_uint = 1;
const EXCEPT_DRIVER: c_uint = 2;

/// Answers an ioctl while holding the device's lock, as the kernel does for every ioctl.
pub(crate) fn ioctl(node: &'static Node, request: c_ulong, argument: *mut c_void) -> c_int {
    let [number, kind, ..] = request.to_le_bytes();
    if kind != abi::IOCTL_TYPE {
        return fail(libc::ENOTTY);
    }
    let device = node.lock().device;
    let Some(mut host) = device.map(|device| device.lock()) else { return fail(libc::EBADF) };
    // Ended URBs can be reaped when the device is gone.
    let result = if number == nr::REAP_URB_NDELAY {
        node.reap().map(|urb| put(argument.cast(), urb))
    } else if host.device.is_gone() {
        Err(libc::ENODEV)
    } else {
        match number {
            nr::SUBMIT_URB => node.submit(&mut host, argument.cast()).map(|()| 0),
            nr::DISCARD_URB => node.discard(argument.cast()).map(|()| 0),
            other => control(node, &mut host, other, argument),
        }
    };
    result.unwrap_or_else(fail)
}

/// Answers every ioctl other than a transfer's.
fn control(
    node: &'static Node,
    host: &mut Locked<'_>,
    number: u8,
    argument: *mut c_void,
) -> Result<c_int, c_int> {
    node.count_other();
    match number {
        nr::GET_CAPABILITIES => Ok(put(argument.cast(), abi::CAPABILITIES)),
        nr::GET_SPEED => Ok(host.device.options.speed() as c_int),
        nr::CONTROL => control_transfer(node, host, argument.cast()),
        nr::CONNECT_INFO => {
            let device = c_uint::try_from(host.device.number()).unwrap_or(0);
            Ok(put(argument.cast(), ConnectInfo { device, slow: 0 }))
        }
        nr::CONNECT_INFO_EX => Ok(connect_info_ex(host, request_len(argument), argument)),
        nr::GET_DRIVER => get_driver(host, argument.cast()),
        _ => change(node, host, number, argument),
    }
}

/// Answers ioctls with changes, and logs the calls.
fn change(
    node: &'static Node,
    host: &mut Locked<'_>,
    number: u8,
    argument: *mut c_void,
) -> Result<c_int, c_int> {
    let options = host.device.options;
    let (what, result) = match number {
        nr::CLAIM_INTERFACE => {
            let interface = get::<c_uint>(argument);
            let result = options.refuses_at("claim", &interface);
            let result = result.and_then(|()| host.claim(node.id, interface));
            (format!("claim {interface}"), result.map(|()| 0))
        }
        nr::DISCONNECT_CLAIM => disconnect_claim(node, host, argument),
        nr::RELEASE_INTERFACE => {
            let interface = get::<c_uint>(argument);
            let result = options.refuses_at("release", &interface);
            let result = result.and_then(|()| {
                node.kill(host.endpoints_of(interface));
                host.release(node.id, interface)
            });
            (format!("release {interface}"), result.map(|()| 0))
        }
        nr::IOCTL => interface_ioctl(host, argument),
        nr::SET_INTERFACE => set_interface(node, host, argument),
        nr::SET_CONFIGURATION => {
            let value = get::<c_int>(argument);
            let result = options.refuses("set-configuration");
            let result = result.and_then(|()| host.set_configuration(value));
            (format!("configuration {value}"), result.map(|()| 0))
        }
        nr::CLEAR_HALT => clear_halt(node, host, argument),
        nr::RESET => {
            let result = options.refuses("reset").and_then(|()| {
                node.kill(u32::MAX);
                host.reset()
            });
            node.lock().streams = crate::transfers::Streams::default();
            ("reset".to_owned(), result.map(|()| 0))
        }
        _ => return Err(libc::ENOTTY),
    };
    let busid = host.device.busid();
    record::log(&format!("{busid} {what}{}", outcome(&result)));
    result
}

type Change = (String, Result<c_int, c_int>);

fn disconnect_claim(node: &Node, host: &mut Locked<'_>, argument: *mut c_void) -> Change {
    let claim = get::<DisconnectClaim>(argument);
    let interface = claim.interface;
    let named = name_of(&claim.driver);
    let may_take = |driver: &str| {
        (claim.flags & IF_DRIVER == 0 || driver == named)
            && (claim.flags & EXCEPT_DRIVER == 0 || driver != named)
    };
    let result = host.device.options.refuses_at("claim", &interface);
    let result = result.and_then(|()| host.take(node.id, interface, &may_take));
    (format!("claim {interface}"), result.map(|()| 0))
}

fn interface_ioctl(host: &mut Locked<'_>, argument: *mut c_void) -> Change {
    let command = get::<InterfaceIoctl>(argument);
    let interface = u32::try_from(command.interface).unwrap_or(u32::MAX);
    let options = host.device.options;
    match command.code.to_le_bytes()[0] {
        nr::DISCONNECT => {
            let result = options.refuses_at("disconnect", &interface);
            let result = result.and_then(|()| host.disconnect(interface));
            (format!("disconnect {interface}"), result.map(|()| 0))
        }
        nr::CONNECT => {
            let result = options.refuses_at("connect", &interface);
            let result = result.and_then(|()| host.connect(interface));
            (format!("connect {interface}"), result.map(c_int::from))
        }
        other => (format!("ioctl {other}"), Err(libc::ENOTTY)),
    }
}

fn set_interface(node: &'static Node, host: &mut Locked<'_>, argument: *mut c_void) -> Change {
    let SetInterface { interface, setting } = get::<SetInterface>(argument);
    let result = host.device.options.refuses_at("set-interface", &interface);
    let result = result.and_then(|()| host.check(node.id, interface)).and_then(|()| {
        let endpoints = host.endpoints_of(interface);
        node.kill(endpoints);
        node.lock().streams.restart(endpoints);
        host.set_interface(interface, setting)
    });
    (format!("interface {interface} {setting}"), result.map(|()| 0))
}

fn clear_halt(node: &Node, host: &mut Locked<'_>, argument: *mut c_void) -> Change {
    let address = get::<c_uint>(argument).to_le_bytes()[0];
    let result = host.device.options.refuses_at("clear-halt", &format_args!("{address:02x}"));
    let result = result.and_then(|()| {
        let interface = host.interface_of(address)?;
        host.check(node.id, interface)?;
        host.tell([0x02, 1, 0, 0, address, 0, 0, 0])?;
        node.lock().streams.restart(node::bit(address));
        Ok(0)
    });
    (format!("clear_halt {address:02x}"), result)
}

/// CONTROL: a whole control transfer in a single call.
fn control_transfer(
    node: &Node,
    host: &mut Locked<'_>,
    argument: *mut ControlTransfer,
) -> Result<c_int, c_int> {
    let transfer = get::<ControlTransfer>(argument.cast());
    let len = usize::from(u16::from_le_bytes([transfer.setup[6], transfer.setup[7]]));
    host.device.options.refuses("control")?;
    host.check_recipient(node.id, transfer.setup)?;
    if len > CONTROL_MAX {
        return Err(libc::EINVAL);
    }
    let cost = memory::take_control()?;
    memory::give_back(cost);
    if len > 0 && transfer.data.is_null() {
        return Err(libc::EFAULT);
    }
    let data = if len == 0 {
        &mut []
    } else {
        // SAFETY: the program promises a buffer of wLength bytes by the call.
        unsafe { std::slice::from_raw_parts_mut(transfer.data, len) }
    };
    let moved = requests::answer(transfer.setup, data, &mut node.lock().streams, host);
    moved.map(|moved| c_int::try_from(moved).unwrap_or(c_int::MAX)).ok_or(libc::EPIPE)
}

fn get_driver(host: &Locked<'_>, argument: *mut GetDriver) -> Result<c_int, c_int> {
    let mut answer = get::<GetDriver>(argument.cast());
    host.device.options.refuses_at("get-driver", &{ answer.interface })?;
    let driver = host.driver(answer.interface)?;
    answer.driver.fill(0);
    for (place, &byte) in answer.driver.iter_mut().zip(driver.as_bytes().iter().take(255)) {
        *place = c_char::from_ne_bytes([byte]);
    }
    Ok(put(argument, answer))
}

/// The program's length in `ConnectInfoEx::size`, also a part of the request's number.
fn request_len(argument: *mut c_void) -> u32 {
    get::<u32>(argument)
}

fn connect_info_ex(host: &Locked<'_>, size: u32, argument: *mut c_void) -> c_int {
    if (size as usize) < size_of::<ConnectInfoEx>() {
        return fail(libc::EINVAL);
    }
    let number = u32::try_from(host.device.number()).unwrap_or(0);
    let port = u8::try_from(host.device.index + 1).unwrap_or(0);
    put(
        argument.cast(),
        ConnectInfoEx {
            size,
            bus: 1,
            device: number,
            speed: host.device.options.speed() as u32,
            num_ports: 1,
            ports: [port, 0, 0, 0, 0, 0, 0],
        },
    )
}

fn name_of(field: &[c_char; 256]) -> String {
    // SAFETY: 256 existing bytes; without a NUL the string would end with the last byte.
    let bytes = unsafe { std::slice::from_raw_parts(field.as_ptr().cast::<u8>(), 256) };
    let name = CStr::from_bytes_until_nul(bytes).map(CStr::to_string_lossy);
    name.map(std::borrow::Cow::into_owned).unwrap_or_default()
}

/// Reads an ioctl's argument.
fn get<T>(argument: *mut c_void) -> T {
    // SAFETY: by the request's number the program passed a pointer to a value of this type.
    unsafe { argument.cast::<T>().read_unaligned() }
}

/// Writes an ioctl's answer.
fn put<T>(argument: *mut T, value: T) -> c_int {
    // SAFETY: as above.
    unsafe { argument.write_unaligned(value) };
    0
}
