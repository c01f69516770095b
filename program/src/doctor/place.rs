//! Where the program runs: USB devices must be passed through to containers and virtual machines.
//!
//! Contract: reads files.

use super::machine::Machine;

/// Where the program runs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Place {
    /// A container, by the name of its kind.
    Container(String),
    /// Windows' Linux.
    Wsl,
    /// A virtual machine, by the name of its maker.
    Virtual(String),
    /// A machine of its own, as far as can be told.
    Bare,
}

impl Place {
    pub(super) fn of(machine: &Machine) -> Self {
        if let Some(kind) = container(machine) {
            return Self::Container(kind);
        }
        // Microsoft's kernels are named so (5.15.90.1-microsoft-standard-WSL2).
        if machine.release().to_lowercase().contains("microsoft") {
            return Self::Wsl;
        }
        virtual_machine(machine).map_or(Self::Bare, Self::Virtual)
    }

    /// In words, behind "this is".
    pub(super) fn name(&self) -> String {
        match self {
            Self::Container(kind) => format!("a container ({kind})"),
            Self::Wsl => "WSL2".to_owned(),
            Self::Virtual(maker) => format!("a virtual machine ({maker})"),
            Self::Bare => "a machine of its own".to_owned(),
        }
    }

    /// How devices get in.
    pub(super) fn pass_through(&self) -> Vec<String> {
        let lines: &[&str] = match self {
            Self::Container(kind) if kind.contains("lxc") => &[
                "on the host, in the container's settings: \
                 lxc.cgroup2.devices.allow = c 189:* rwm",
                "and: lxc.mount.entry = /dev/bus/usb dev/bus/usb none bind,optional,create=dir",
            ],
            Self::Container(_) => &[
                "start the container with: -v /dev/bus/usb:/dev/bus/usb \
                 --device-cgroup-rule='c 189:* rwm'",
                "(--device /dev/bus/usb passes only devices plugged in before the start)",
            ],
            Self::Wsl => &[
                "in Windows, with usbipd-win: usbipd list",
                "then, as administrator: usbipd bind --busid BUSID",
                "then: usbipd attach --wsl --busid BUSID",
                "or serve from Windows itself: usbipd-win is a USB/IP server, too",
            ],
            Self::Virtual(maker) => return virtual_advice(maker),
            Self::Bare => &[
                "look for the USB controller: lspci -nn | grep -i usb",
                "load its driver: sudo modprobe xhci-pci",
            ],
        };
        lines.iter().map(|&line| line.to_owned()).collect()
    }
}

fn virtual_advice(maker: &str) -> Vec<String> {
    let line = match maker {
        "QEMU" => {
            "give the machine a controller and the device: -device qemu-xhci -device \
             usb-host,vendorid=0xVVVV,productid=0xPPPP (virt-manager: Add Hardware, USB Host Device)"
        }
        "VirtualBox" => "on the host: VBoxManage controlvm NAME usbattach UUID, or Devices, USB",
        "VMware" => "on the host: VM, Removable Devices, the device, Connect",
        "Hyper-V" => "Hyper-V passes no USB devices: serve from the host, with usbipd-win",
        _ => "pass the USB device through in the settings of the virtual machine",
    };
    vec![line.to_owned()]
}

/// The kind of container, if any.
fn container(machine: &Machine) -> Option<String> {
    if machine.exists("/.dockerenv") {
        return Some("docker".to_owned());
    }
    if machine.exists("/run/.containerenv") {
        return Some("podman".to_owned());
    }
    // systemd's convention, and that of lxc and others for the first process.
    let environment = machine.text("/proc/1/environ").unwrap_or_default();
    let named = environment.split('\0').find_map(|entry| entry.strip_prefix("container="));
    let named = named.map(str::to_owned).or_else(|| machine.text("/run/systemd/container"));
    if let Some(name) = named.filter(|name| !name.is_empty()) {
        return Some(name.escape_debug().to_string());
    }
    let groups = machine.text("/proc/1/cgroup").unwrap_or_default();
    ["docker", "kubepods", "lxc"].into_iter().find(|kind| groups.contains(kind)).map(str::to_owned)
}

/// The maker of the virtual machine, if any.
fn virtual_machine(machine: &Machine) -> Option<String> {
    let dmi = |name: &str| machine.text(&format!("/sys/class/dmi/id/{name}")).unwrap_or_default();
    let (vendor, product) = (dmi("sys_vendor"), dmi("product_name"));
    let known = [
        ("QEMU", "QEMU"),
        ("innotek", "VirtualBox"),
        ("VMware", "VMware"),
        ("Xen", "Xen"),
        ("Parallels", "Parallels"),
        ("Amazon EC2", "Amazon EC2"),
        ("Google", "Google"),
    ];
    if vendor == "Microsoft Corporation" && product == "Virtual Machine" {
        return Some("Hyper-V".to_owned());
    }
    if let Some((_, maker)) = known.into_iter().find(|(start, _)| vendor.starts_with(start)) {
        return Some(maker.to_owned());
    }
    let processors = machine.text("/proc/cpuinfo").unwrap_or_default();
    let mut flags = processors.lines().filter(|line| line.starts_with("flags"));
    let is_virtual = flags.any(|line| line.split_whitespace().any(|flag| flag == "hypervisor"));
    is_virtual.then(|| "of an unknown maker".to_owned())
}
