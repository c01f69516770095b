//! The directory tree: device nodes, which are empty files here, and what sysfs says of them.
//!
//! Made when a program first asks, unless it is there already: programs that follow one another
//! see the devices as the last one left them. Nothing is undone at the end.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::device::{self, Device, INTERFACES};
use crate::{options, paths, refuse};

/// The tree's root, with the tree in it.
pub(crate) fn root() -> &'static Path {
    static ROOT: OnceLock<()> = OnceLock::new();
    let root = &options::get().root;
    ROOT.get_or_init(|| {
        if root.join("dev").exists() {
            device::all().iter().for_each(|device| find_drivers(root, device));
        } else if let Err(error) = make(root) {
            refuse(&format!("{}: {error}", root.display()));
        }
    });
    root
}

/// Takes over which interfaces the kernel's driver has.
fn find_drivers(root: &Path, device: &Device) {
    for number in 0..INTERFACES {
        device.find_driver(number, driver_link(root, device, number).is_symlink());
    }
}

fn make(root: &Path) -> io::Result<()> {
    fs::create_dir_all(root.join("sys/bus/usb/devices"))?;
    fs::create_dir_all(root.join("sys/bus/usb/drivers").join(&options::get().driver))?;
    let hub = directory(root, None);
    fs::create_dir_all(&hub)?;
    attributes(&hub, 1, &device::ROOT_HUB)?;
    link_device(root, "usb1", "usb1")?;
    // The sign that the tree is whole comes last.
    let nodes = root.join("dev.new/bus/usb/001");
    fs::create_dir_all(&nodes)?;
    fs::write(nodes.join("001"), "")?;
    for device in device::all() {
        make_device(root, device)?;
        fs::write(nodes.join(format!("{:03}", device.number())), "")?;
    }
    fs::rename(root.join("dev.new"), root.join("dev"))
}

/// Where sysfs has a device, or the root hub.
fn directory(root: &Path, device: Option<&Device>) -> PathBuf {
    let hub = root.join(&paths::CONTROLLER[1..]).join("usb1");
    device.map_or_else(|| hub.clone(), |device| hub.join(device.busid()))
}

fn make_device(root: &Path, device: &Device) -> io::Result<()> {
    let own = directory(root, Some(device));
    let busid = device.busid();
    for number in 0..INTERFACES {
        fs::create_dir_all(own.join(format!("{busid}:1.{number}")))?;
        link_driver(root, device, number, true)?;
    }
    attributes(&own, device.number(), &device::descriptors())?;
    let [manufacturer, product, serial] = device::STRINGS;
    fs::write(own.join("manufacturer"), format!("{manufacturer}\n"))?;
    fs::write(own.join("product"), format!("{product}\n"))?;
    fs::write(own.join("serial"), format!("{serial}{}\n", device.number()))?;
    link_device(root, &busid, &format!("usb1/{busid}"))
}

fn node(device: &Device) -> PathBuf {
    root().join(format!("dev/bus/usb/001/{:03}", device.number()))
}

/// Whether nobody may write to a device's node, be it root. libusb never opens one only to read.
pub(crate) fn is_read_only(device: &Device) -> bool {
    fs::metadata(node(device)).is_ok_and(|node| node.permissions().readonly())
}

fn attributes(own: &Path, number: usize, descriptors: &[u8]) -> io::Result<()> {
    fs::write(own.join("busnum"), "1\n")?;
    fs::write(own.join("devnum"), format!("{number}\n"))?;
    fs::write(own.join("speed"), "480\n")?;
    fs::write(own.join("bConfigurationValue"), "1\n")?;
    fs::write(own.join("descriptors"), descriptors)
}

fn link_device(root: &Path, name: &str, target: &str) -> io::Result<()> {
    let controller = paths::CONTROLLER.trim_start_matches("/sys/");
    let target = format!("../../../{controller}/{target}");
    symlink(target, root.join("sys/bus/usb/devices").join(name))
}

fn driver_link(root: &Path, device: &Device, interface: usize) -> PathBuf {
    directory(root, Some(device)).join(format!("{}:1.{interface}/driver", device.busid()))
}

fn link_driver(root: &Path, device: &Device, interface: usize, bound: bool) -> io::Result<()> {
    let link = driver_link(root, device, interface);
    let driver = &options::get().driver;
    match fs::remove_file(&link) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    if !bound || driver.is_empty() {
        return Ok(());
    }
    symlink(format!("../../../../../../bus/usb/drivers/{driver}"), link)
}

/// Shows whether the kernel's driver has an interface.
pub(crate) fn set_driver(device: &Device, interface: usize, bound: bool) {
    if let Err(error) = link_driver(root(), device, interface, bound) {
        refuse(&format!("the driver of {}: {error}", device.busid()));
    }
}

/// Shows a device's configuration; none is an empty attribute.
pub(crate) fn set_configuration(device: &Device, value: u8) {
    let text = if value == 0 { String::new() } else { format!("{value}\n") };
    let attribute = directory(root(), Some(device)).join("bConfigurationValue");
    if let Err(error) = fs::write(&attribute, text) {
        refuse(&format!("{}: {error}", attribute.display()));
    }
}

/// Takes a device out of the tree.
pub(crate) fn remove_device(device: &Device) {
    let root = root();
    let link = root.join("sys/bus/usb/devices").join(device.busid());
    // Another process that was told the same may have been first.
    let _ = fs::remove_file(node(device));
    let _ = fs::remove_file(link);
    let _ = fs::remove_dir_all(directory(root, Some(device)));
}
