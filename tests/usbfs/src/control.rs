//! `ioctl` on a device node: transfers go to the [`node`](crate::node), the rest is answered here
//! as `drivers/usb/core/devio.c` has it.

use std::ffi::{CStr, c_char, c_int, c_uint, c_ulong, c_void};
use std::thread;

use crate::abi::{
    self, ConnectInfo, ConnectInfoEx, ControlTransfer, DisconnectClaim, GetDriver, InterfaceIoctl,
    SetInterface, nr,
};
use crate::device::{Device, ENDPOINTS};
use crate::node::{self, Node};
use crate::{fail, options, record, requests};

/// Flags of [`DisconnectClaim`].
const IF_DRIVER: c_uint = 1;
const EXCEPT_DRIVER: c_uint = 2;

/// Answers an ioctl.
pub(crate) fn ioctl(node: &'static Node, request: c_ulong, argument: *mut c_void) -> c_int {
    let [number, kind, ..] = request.to_le_bytes();
    if kind != abi::IOCTL_TYPE {
        return fail(libc::ENOTTY);
    }
    let result = match number {
        nr::SUBMIT_URB => node.submit(argument.cast()).map(|()| 0),
        nr::REAP_URB_NDELAY => node.reap().map(|urb| put(argument.cast(), urb)),
        nr::DISCARD_URB => node.discard(argument.cast()).map(|()| 0),
        other => control(node, other, argument),
    };
    result.unwrap_or_else(fail)
}

/// Answers what is no transfer.
fn control(node: &'static Node, number: u8, argument: *mut c_void) -> Result<c_int, c_int> {
    node.count_other();
    let device = node.lock().device.filter(|device| !device.is_gone()).ok_or(libc::ENODEV)?;
    let result = match number {
        nr::GET_CAPABILITIES => Ok(put(argument.cast(), abi::CAPABILITIES)),
        nr::GET_SPEED => Ok(abi::SPEED_HIGH),
        nr::CONTROL => control_transfer(node, device, argument.cast()),
        nr::CONNECT_INFO => Ok(put(
            argument.cast(),
            ConnectInfo { device: c_uint::try_from(device.number()).unwrap_or(0), slow: 0 },
        )),
        nr::CONNECT_INFO_EX => Ok(connect_info_ex(device, request_len(argument), argument)),
        nr::GET_DRIVER => get_driver(device, argument.cast()),
        _ => change(node, device, number, argument),
    };
    // Whatever was changed may have brought or taken endpoints.
    let active = device.active(node.id);
    node.lock().active = active;
    result
}

/// Answers what changes something, and logs it.
fn change(
    node: &'static Node,
    device: &'static Device,
    number: u8,
    argument: *mut c_void,
) -> Result<c_int, c_int> {
    let (what, result) = match number {
        nr::CLAIM_INTERFACE => {
            let interface = get::<c_uint>(argument);
            let result = device.claim(node.id, interface as usize, false);
            (format!("claim {interface}"), result.map(|()| 0))
        }
        nr::DISCONNECT_CLAIM => disconnect_claim(node, device, argument),
        nr::RELEASE_INTERFACE => {
            let interface = get::<c_uint>(argument);
            node.kill(endpoints_of(interface as usize));
            let result = device.release(node.id, interface as usize);
            (format!("release {interface}"), result.map(|()| 0))
        }
        nr::IOCTL => interface_ioctl(device, argument),
        nr::SET_INTERFACE => set_interface(node, device, argument),
        nr::SET_CONFIGURATION => {
            let value = get::<c_int>(argument);
            thread::sleep(options::get().slow);
            (format!("configuration {value}"), device.set_configuration(value).map(|()| 0))
        }
        nr::CLEAR_HALT => clear_halt(node, argument),
        nr::RESET => {
            // As in the kernel, nothing else is done with the device meanwhile.
            let mut state = node.lock();
            thread::sleep(options::get().slow);
            state.streams = crate::transfers::Streams::default();
            ("reset".to_owned(), Ok(0))
        }
        _ => return Err(libc::ENOTTY),
    };
    let outcome = result.map_or_else(|errno| format!(": errno {errno}"), |_| String::new());
    record::log(&format!("{} {what}{outcome}", device.busid()));
    result
}

type Change = (String, Result<c_int, c_int>);

fn disconnect_claim(node: &Node, device: &Device, argument: *mut c_void) -> Change {
    let claim = get::<DisconnectClaim>(argument);
    let interface = claim.interface as usize;
    let named = name_of(&claim.driver);
    let present = device.driver(interface).ok();
    let refused = claim.flags & IF_DRIVER != 0 && present.is_some_and(|driver| driver != named)
        || claim.flags & EXCEPT_DRIVER != 0 && present.is_some_and(|driver| driver == named);
    let result =
        if refused { Err(libc::EBUSY) } else { device.claim(node.id, interface, true).map(|()| 0) };
    (format!("claim {interface}"), result)
}

fn interface_ioctl(device: &Device, argument: *mut c_void) -> Change {
    let command = get::<InterfaceIoctl>(argument);
    let interface = usize::try_from(command.interface).unwrap_or(usize::MAX);
    match command.code.to_le_bytes()[0] {
        nr::DISCONNECT => {
            (format!("disconnect {interface}"), device.disconnect(interface).map(|()| 0))
        }
        nr::CONNECT => (format!("connect {interface}"), device.connect(interface).map(c_int::from)),
        other => (format!("ioctl {other}"), Err(libc::ENOTTY)),
    }
}

fn set_interface(node: &'static Node, device: &Device, argument: *mut c_void) -> Change {
    let SetInterface { interface, setting } = get::<SetInterface>(argument);
    node.kill(endpoints_of(interface as usize));
    let mut state = node.lock();
    thread::sleep(options::get().slow);
    for endpoint in ENDPOINTS.iter().filter(|endpoint| endpoint.interface == interface as usize) {
        state.streams.restart(endpoint.address);
    }
    drop(state);
    let setting = u8::try_from(setting).unwrap_or(u8::MAX);
    let result = device.set_interface(node.id, interface as usize, setting);
    (format!("interface {interface} {setting}"), result.map(|()| 0))
}

fn clear_halt(node: &Node, argument: *mut c_void) -> Change {
    let address = get::<c_uint>(argument).to_le_bytes()[0];
    let mut state = node.lock();
    let result = if state.active & node::bit(address) == 0 { Err(libc::ENOENT) } else { Ok(0) };
    state.streams.restart(address);
    (format!("clear_halt {address:02x}"), result)
}

/// CONTROL: a whole control transfer in one call.
fn control_transfer(
    node: &Node,
    device: &Device,
    argument: *mut ControlTransfer,
) -> Result<c_int, c_int> {
    let transfer = get::<ControlTransfer>(argument.cast());
    let len = usize::from(u16::from_le_bytes([transfer.setup[6], transfer.setup[7]]));
    if len > 0 && transfer.data.is_null() {
        return Err(libc::EFAULT);
    }
    let data = if len == 0 {
        &mut []
    } else {
        // SAFETY: the program's buffer has wLength bytes, which is what it says by passing it.
        unsafe { std::slice::from_raw_parts_mut(transfer.data, len) }
    };
    let moved = requests::answer(transfer.setup, data, &mut node.lock().streams, device);
    moved.map(|moved| c_int::try_from(moved).unwrap_or(c_int::MAX)).ok_or(libc::EPIPE)
}

fn get_driver(device: &Device, argument: *mut GetDriver) -> Result<c_int, c_int> {
    let mut answer = get::<GetDriver>(argument.cast());
    let driver = device.driver(answer.interface as usize)?;
    answer.driver.fill(0);
    for (place, &byte) in answer.driver.iter_mut().zip(driver.as_bytes().iter().take(255)) {
        *place = byte.cast_signed();
    }
    Ok(put(argument, answer))
}

/// The length that a program gives in `ConnectInfoEx::size`; it is also part of the request.
fn request_len(argument: *mut c_void) -> u32 {
    get::<u32>(argument)
}

fn connect_info_ex(device: &Device, size: u32, argument: *mut c_void) -> c_int {
    if (size as usize) < size_of::<ConnectInfoEx>() {
        return fail(libc::EINVAL);
    }
    let number = u32::try_from(device.number()).unwrap_or(0);
    let port = u8::try_from(device.index + 1).unwrap_or(0);
    put(
        argument.cast(),
        ConnectInfoEx {
            size,
            bus: 1,
            device: number,
            speed: abi::SPEED_HIGH.cast_unsigned(),
            num_ports: 1,
            ports: [port, 0, 0, 0, 0, 0, 0],
        },
    )
}

/// The endpoints of an interface, a bit each.
fn endpoints_of(interface: usize) -> u32 {
    let of_it = ENDPOINTS.iter().filter(|endpoint| endpoint.interface == interface);
    of_it.fold(0, |set, endpoint| set | node::bit(endpoint.address))
}

fn name_of(field: &[c_char; 256]) -> String {
    // SAFETY: 256 bytes that are there; without a NUL the string would end with the last.
    let bytes = unsafe { std::slice::from_raw_parts(field.as_ptr().cast::<u8>(), 256) };
    let name = CStr::from_bytes_until_nul(bytes).map(CStr::to_string_lossy);
    name.map(std::borrow::Cow::into_owned).unwrap_or_default()
}

/// Reads an ioctl's argument.
fn get<T>(argument: *mut c_void) -> T {
    // SAFETY: the request's number says that the program passed a pointer to such a value.
    unsafe { argument.cast::<T>().read_unaligned() }
}

/// Writes an ioctl's answer.
fn put<T>(argument: *mut T, value: T) -> c_int {
    // SAFETY: as above.
    unsafe { argument.write_unaligned(value) };
    0
}
