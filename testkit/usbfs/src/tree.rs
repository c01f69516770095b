//! The directory tree: device nodes, here empty files, and their sysfs.
//!
//! The tree is made at a program's first call, unless there is a tree already: each program sees
//! the devices in the state left by the program before. Nothing is undone at the end.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::device::{self, Device, Locked};
use crate::{locks, options, paths, refuse, standard, uevents};

/// The tree's root, with the tree in it.
pub(crate) fn root() -> &'static Path {
    static ROOT: OnceLock<()> = OnceLock::new();
    let root = &options::get().root;
    ROOT.get_or_init(|| {
        if root.join("dev").exists() {
            device::all().iter().for_each(|device| take_over(root, device));
        } else if let Err(error) = make(root) {
            refuse(&format!("{}: {error}", root.display()));
        }
    });
    root
}

/// Takes over which configuration is set, and which interfaces the kernel's driver has.
fn take_over(root: &Path, device: &Device) {
    let own = directory(root, Some(device));
    let value = fs::read_to_string(own.join("bConfigurationValue")).unwrap_or_default();
    let value = value.trim().parse().ok();
    let has_driver = |number| driver_link(root, device, value.unwrap_or(0), number).is_symlink();
    device.lock_alone().take_over(value, &has_driver);
}

fn make(root: &Path) -> io::Result<()> {
    fs::create_dir_all(root.join("sys/bus/usb/devices"))?;
    for device in device::all() {
        fs::create_dir_all(root.join("sys/bus/usb/drivers").join(&device.options.driver))?;
    }
    let parameters = root.join("sys/module/usbcore/parameters");
    fs::create_dir_all(&parameters)?;
    // Whole MiB; more than is there rather than no limit.
    let quota = options::get().quota.div_ceil(1 << 20);
    fs::write(parameters.join("usbfs_memory_mb"), format!("{quota}\n"))?;
    let hub = directory(root, None);
    fs::create_dir_all(&hub)?;
    attributes(&hub, 1, ("480", 0), &standard::ROOT_HUB)?;
    fs::write(hub.join("bConfigurationValue"), "1\n")?;
    link_device(root, "usb1", "usb1")?;
    // The sign of a complete tree comes last.
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
    fs::create_dir_all(&own)?;
    let known = (device.options.speed.as_str(), device.options.quirks);
    attributes(&own, device.number(), known, &device.host.sysfs())?;
    let locked = device.lock_alone();
    show_configuration(root, &locked)?;
    let [manufacturer, product, serial] = standard::STRINGS;
    fs::write(own.join("manufacturer"), format!("{manufacturer}\n"))?;
    fs::write(own.join("product"), format!("{product}\n"))?;
    fs::write(own.join("serial"), format!("{serial}{}\n", device.number()))?;
    link_device(root, &busid, &format!("usb1/{busid}"))
}

fn node(device: &Device) -> PathBuf {
    root().join(format!("dev/bus/usb/001/{:03}", device.number()))
}

/// Whether a device has a node. Tests take the node away from a device that another replaces.
pub(crate) fn has_node(device: &Device) -> bool {
    node(device).exists()
}

/// Whether nobody, not even root, may write to a device's node. libusb never opens a node only to
/// read.
pub(crate) fn is_read_only(device: &Device) -> bool {
    fs::metadata(node(device)).is_ok_and(|node| node.permissions().readonly())
}

/// The constant attributes.
fn attributes(
    own: &Path,
    number: usize,
    (speed, quirks): (&str, u32),
    descriptors: &[u8],
) -> io::Result<()> {
    let word = |at: usize| u16::from_le_bytes([descriptors[at], descriptors[at + 1]]);
    let texts = [
        ("busnum", "1".to_owned()),
        ("devnum", number.to_string()),
        ("speed", speed.to_owned()),
        ("quirks", format!("0x{quirks:x}")),
        ("version", format!("{:2x}.{:02x}", descriptors[3], descriptors[2])),
        ("idVendor", format!("{:04x}", word(8))),
        ("idProduct", format!("{:04x}", word(10))),
        ("bcdDevice", format!("{:04x}", word(12))),
        ("bDeviceClass", format!("{:02x}", descriptors[4])),
        ("bDeviceSubClass", format!("{:02x}", descriptors[5])),
        ("bDeviceProtocol", format!("{:02x}", descriptors[6])),
        ("bMaxPacketSize0", descriptors[7].to_string()),
        ("bNumConfigurations", descriptors[17].to_string()),
    ];
    for (name, text) in texts {
        fs::write(own.join(name), format!("{text}\n"))?;
    }
    fs::write(own.join("descriptors"), descriptors)
}

fn link_device(root: &Path, name: &str, target: &str) -> io::Result<()> {
    let controller = paths::CONTROLLER.trim_start_matches("/sys/");
    let target = format!("../../../{controller}/{target}");
    symlink(target, root.join("sys/bus/usb/devices").join(name))
}

fn interface(root: &Path, device: &Device, configuration: u8, number: u8) -> PathBuf {
    directory(root, Some(device)).join(format!("{}:{configuration}.{number}", device.busid()))
}

fn driver_link(root: &Path, device: &Device, configuration: u8, number: u8) -> PathBuf {
    interface(root, device, configuration, number).join("driver")
}

fn link_driver(link: &Path, driver: &str) -> io::Result<()> {
    match fs::remove_file(link) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    if driver.is_empty() {
        return Ok(());
    }
    symlink(format!("../../../../../../bus/usb/drivers/{driver}"), link)
}

/// Shows whether the kernel's driver has an interface.
pub(crate) fn set_driver(device: &Device, configuration: u8, number: u8, bound: bool) {
    let link = driver_link(root(), device, configuration, number);
    if let Err(error) = link_driver(&link, if bound { &device.options.driver } else { "" }) {
        refuse(&format!("the driver of {}: {error}", device.busid()));
    }
    let name = format!("{}:{configuration}.{number}", device.busid());
    uevents::send(if bound { "bind" } else { "unbind" }, &name);
}

/// Shows a device's configuration and its interfaces.
pub(crate) fn set_configuration(locked: &Locked<'_>) {
    if let Err(error) = show_configuration(root(), locked) {
        refuse(&format!("the configuration of {}: {error}", locked.device.busid()));
    }
}

/// Attributes of an unconfigured device are empty.
fn show_configuration(root: &Path, locked: &Locked<'_>) -> io::Result<()> {
    let device = locked.device;
    let own = directory(root, Some(device));
    let mut changes = Vec::new();
    for entry in fs::read_dir(&own)?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.contains(':') {
            fs::remove_dir_all(entry.path())?;
            changes.push(("remove", name));
        }
    }
    let value = locked.configuration().map_or(0, |configuration| configuration.value);
    for (number, bound) in locked.drivers() {
        fs::create_dir_all(interface(root, device, value, number))?;
        let driver = if bound { &device.options.driver } else { "" };
        link_driver(&driver_link(root, device, value, number), driver)?;
        changes.push(("add", format!("{}:{value}.{number}", device.busid())));
    }
    let texts = locked.configuration().map(|configuration| {
        [
            ("bConfigurationValue", format!("{}\n", configuration.value)),
            ("bNumInterfaces", format!("{:2}\n", configuration.interfaces.len())),
            ("bmAttributes", format!("{:2x}\n", configuration.raw[7])),
            ("bMaxPower", format!("{}mA\n", 2 * u32::from(configuration.raw[8]))),
        ]
    });
    let names = ["bConfigurationValue", "bNumInterfaces", "bmAttributes", "bMaxPower"];
    let texts = texts.unwrap_or_else(|| names.map(|name| (name, String::new())));
    for (name, text) in texts {
        // No reader may see a half-written file.
        let new = root.join(format!("{}.new", device.busid()));
        fs::write(&new, text)?;
        fs::rename(new, own.join(name))?;
    }
    for (action, name) in changes {
        uevents::send(action, &name);
    }
    Ok(())
}

/// The place in [`locks`] of the lock for readers of a path, if any.
pub(crate) fn lock_of(path: &Path) -> Option<usize> {
    let name = path.file_name()?.to_str()?;
    if !locks::TAKEN_BY.contains(&name) {
        return None;
    }
    match path.parent()?.file_name()?.to_str()? {
        "usb1" => Some(0),
        busid => busid.strip_prefix("1-")?.parse().ok(),
    }
}

/// Takes a device out of the tree.
pub(crate) fn remove_device(device: &Device) {
    let root = root();
    let link = root.join("sys/bus/usb/devices").join(device.busid());
    // Another process with the same task may have been first.
    let _ = fs::remove_file(node(device));
    let _ = fs::remove_file(link);
    let _ = fs::remove_dir_all(directory(root, Some(device)));
    uevents::send("remove", &device.busid());
}
