//! A sound machine in a directory of its own, and each fault planted there.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::devices::present;
use super::machine::Machine;
use super::{Finding, Level, Wanted, client, congestion, kernel, server_findings};
use crate::client::Exported;
use crate::config::rules::Rules;
use crate::config::{Listen, Settings};
use crate::limits::DeviceLimits;
use crate::wire::op::client::RemoteDevice;
use crate::wire::types::BusId;

/// A machine's files, gone with the value.
struct Tree(PathBuf);

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Opens any node.
fn open(_: &Path) -> io::Result<()> {
    Ok(())
}

/// Refuses any node by its mode (`EACCES`).
fn refuse(_: &Path) -> io::Result<()> {
    Err(io::Error::from_raw_os_error(13))
}

/// Refuses any node by a rule of a sandbox (`EPERM`).
fn forbid(_: &Path) -> io::Result<()> {
    Err(io::Error::from_raw_os_error(1))
}

impl Tree {
    fn empty() -> Self {
        static TREES: AtomicUsize = AtomicUsize::new(0);
        let number = TREES.fetch_add(1, Ordering::Relaxed);
        let name = format!("usbferry-doctor-{}-{number}", std::process::id());
        let root = std::env::temp_dir().join(name);
        fs::create_dir_all(&root).expect("a temporary directory");
        Self(root)
    }

    /// A server with a stick at 1-2 behind the bus's own hub, and the default settings of Debian
    /// 13.
    fn server() -> Self {
        let tree = Self::empty();
        tree.plant_device("usb1", 1, ("1d6b", "0002", "09"), "480");
        tree.plant_device("1-2", 4, ("0781", "5567", "00"), "480");
        tree.plant_interface("1-2:1.0", "usb-storage");
        tree.plant("sys/module/usbcore/parameters/usbfs_memory_mb", "16\n");
        tree.plant("proc/net/tcp", "  sl  local_address rem_address   st\n");
        tree.plant("proc/sys/kernel/osrelease", "6.12.117-amd64\n");
        tree.plant("proc/sys/net/ipv4/tcp_congestion_control", "cubic\n");
        tree.plant("proc/sys/net/ipv4/ip_unprivileged_port_start", "1024\n");
        tree.plant(
            "proc/self/status",
            "Name:\tusbferry\nUid:\t1000\t1000\t1000\t1000\nGroups:\t24\n",
        );
        tree.plant("proc/mounts", "/dev/sda1 / ext4 rw 0 0\n");
        tree.plant("etc/passwd", "root:x:0:0::/root:/bin/sh\nada:x:1000:1000::/home/ada:/bin/sh\n");
        tree.plant("etc/group", "root:x:0:\nplugdev:x:46:\n");
        tree
    }

    /// A client with two free ports, beside the device of [`Self::server`].
    fn client() -> Self {
        let tree = Self::server();
        let status = "hub port sta spd dev      sockfd local_busid\n\
                      hs  0000 004 000 00000000 000000 0-0\n\
                      ss  0008 004 000 00000000 000000 0-0\n";
        tree.plant("sys/devices/platform/vhci_hcd.0/status", status);
        tree.plant("proc/sys/kernel/osrelease", "6.14.1\n");
        tree
    }

    fn plant(&self, at: &str, text: &str) {
        let path = self.0.join(at);
        fs::create_dir_all(path.parent().expect("a directory")).expect("it can be made");
        fs::write(path, text).expect("it can be written");
    }

    fn plant_link(&self, at: &str, to: &str) {
        let path = self.0.join(at);
        fs::create_dir_all(path.parent().expect("a directory")).expect("it can be made");
        let _ = fs::remove_file(&path);
        symlink(to, path).expect("it can be made");
    }

    fn remove(&self, at: &str) {
        let path = self.0.join(at);
        if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
            .expect("it was planted");
    }

    fn plant_device(&self, name: &str, address: u8, ids: (&str, &str, &str), speed: &str) {
        let place = format!("sys/devices/pci0000:00/usb1/{name}");
        let attribute = |name: &str, text: &str| self.plant(&format!("{place}/{name}"), text);
        attribute("busnum", "1\n");
        attribute("devnum", &format!("{address}\n"));
        attribute("idVendor", ids.0);
        attribute("idProduct", ids.1);
        attribute("bDeviceClass", ids.2);
        attribute("speed", speed);
        attribute("bConfigurationValue", "1\n");
        let link = format!("sys/bus/usb/devices/{name}");
        self.plant_link(&link, &format!("../../../devices/pci0000:00/usb1/{name}"));
        self.plant_link(&format!("{place}/driver"), "../../../bus/usb/drivers/usb");
        self.plant(&format!("dev/bus/usb/001/{address:03}"), "");
    }

    fn plant_interface(&self, name: &str, driver: &str) {
        let (device, _) = name.split_once(':').expect("a device's interface");
        let place = format!("sys/devices/pci0000:00/usb1/{device}/{name}");
        self.plant(&format!("{place}/bInterfaceClass"), "08\n");
        self.plant_link(
            &format!("{place}/driver"),
            &format!("../../../../bus/usb/drivers/{driver}"),
        );
        let link = format!("sys/bus/usb/devices/{name}");
        self.plant_link(&link, &format!("../../../devices/pci0000:00/usb1/{device}/{name}"));
    }

    /// A process with an open file.
    fn plant_program(&self, id: u32, name: &str, file: &str) {
        self.plant(&format!("proc/{id}/comm"), &format!("{name}\n"));
        self.plant_link(&format!("proc/{id}/fd/3"), file);
    }

    /// A listener, as `/proc/net/tcp` shows it; the address in this machine's order.
    fn plant_listener(&self, address: [u8; 4], port: u16, inode: u32) {
        let address = u32::from_ne_bytes(address);
        let line = format!(
            "   0: {address:08X}:{port:04X} 00000000:0000 0A 00000000:00000000 00:00000000 \
             00000000     0        0 {inode} 1 0000000000000000 100 0 0 10 0\n"
        );
        self.plant("proc/net/tcp", &format!("  sl  local_address\n{line}"));
    }

    fn machine(&self) -> Machine {
        Machine::at(self.0.clone(), open)
    }

    /// The findings about a server that exports all.
    fn findings(&self) -> Vec<Finding> {
        self.findings_with(open)
    }

    fn findings_with(&self, open: fn(&Path) -> io::Result<()>) -> Vec<Finding> {
        findings_of(&Machine::at(self.0.clone(), open), &wanted())
    }

    /// The single finding worse than a note.
    fn fault(&self) -> Finding {
        single(self.findings())
    }
}

fn findings_of(machine: &Machine, wanted: &Wanted) -> Vec<Finding> {
    server_findings(machine, wanted).findings
}

fn wanted() -> Wanted {
    let listen = ["127.0.0.1:3240", "[::1]:3240"].map(listen_at).to_vec();
    let settings = Settings { rules: Rules::all(), listen, ..Settings::default() };
    Wanted { settings, has_devices: true }
}

fn listen_at(address: &str) -> Listen {
    Listen { address: address.parse().unwrap(), optional: false }
}

/// The single finding worse than a note.
fn single(findings: Vec<Finding>) -> Finding {
    let all = format!("{findings:#?}");
    let mut bad = findings.into_iter().filter(|finding| finding.level > Level::Note);
    let found = bad.next().unwrap_or_else(|| panic!("nothing was found: {all}"));
    assert_eq!(bad.next(), None, "{all}");
    found
}

/// The single finding other than "ok".
fn note(findings: Vec<Finding>) -> Finding {
    let all = format!("{findings:#?}");
    let mut notes = findings.into_iter().filter(|finding| finding.level > Level::Ok);
    let found = notes.next().unwrap_or_else(|| panic!("nothing was found: {all}"));
    assert_eq!((found.level, notes.next()), (Level::Note, None), "{all}");
    found
}

fn assert_finds(found: &Finding, level: Level, check: &str, says: &[&str]) {
    assert_eq!((found.level, found.check), (level, check), "{found:?}");
    let text = format!("{}\n{}", found.message, found.advice.join("\n"));
    for says in says {
        assert!(text.contains(says), "\"{says}\" is not in {found:#?}");
    }
}

#[test]
fn a_sound_server_has_nothing_to_be_told() {
    let findings = Tree::server().findings();
    assert!(findings.iter().all(|finding| finding.level == Level::Ok), "{findings:#?}");
    let mut checks: Vec<&str> = findings.iter().map(|finding| finding.check).collect();
    checks.dedup();
    let all = ["nodes", "permissions", "holders", "memory", "kernel", "port", "congestion"];
    assert_eq!(checks, all, "each check says so");
}

#[test]
fn a_machine_without_nodes_is_told_how_to_get_devices_in() {
    for (at, text, says) in [
        (".dockerenv", "", "a container (docker), and no USB is passed through"),
        ("run/.containerenv", "", "--device-cgroup-rule='c 189:* rwm'"),
        ("proc/1/environ", "PATH=/bin\0container=lxc\0", "lxc.cgroup2.devices.allow"),
        ("proc/1/cgroup", "5:devices:/kubepods/pod1\n", "a container (kubepods)"),
        ("proc/sys/kernel/osrelease", "5.15.90.1-microsoft-standard-WSL2", "usbipd attach --wsl"),
        ("sys/class/dmi/id/sys_vendor", "QEMU\n", "-device usb-host,vendorid="),
        ("sys/class/dmi/id/sys_vendor", "innotek GmbH\n", "VBoxManage"),
        ("proc/cpuinfo", "flags\t\t: fpu hypervisor sse\n", "a virtual machine (of an unknown"),
    ] {
        let tree = Tree::server();
        tree.remove("dev/bus/usb");
        tree.plant(at, text);
        assert_finds(&tree.fault(), Level::Problem, "nodes", &["no /dev/bus/usb", says]);
    }
    let tree = Tree::server();
    tree.remove("dev/bus/usb");
    assert_finds(&tree.fault(), Level::Problem, "nodes", &["though this kernel has USB", "mount"]);
    tree.remove("sys/bus/usb");
    assert_finds(
        &tree.fault(),
        Level::Problem,
        "nodes",
        &["no USB controller", "modprobe xhci-pci"],
    );
}

#[test]
fn a_device_without_its_node_is_told() {
    let tree = Tree::server();
    tree.remove("dev/bus/usb/001/004");
    let found = tree.fault();
    assert_finds(&found, Level::Problem, "nodes", &["1-2 has no node", "udevadm trigger"]);
    assert_eq!(found.subject.as_deref(), Some("1-2"));
    // A container keeps the nodes of its start.
    tree.plant(".dockerenv", "");
    assert_finds(&tree.fault(), Level::Problem, "nodes", &["-v /dev/bus/usb:/dev/bus/usb"]);
}

#[test]
fn nothing_plugged_in_is_a_fault_only_where_devices_must_be_passed_through() {
    let tree = Tree::server();
    tree.remove("sys/bus/usb/devices/1-2");
    assert_finds(&note(tree.findings()), Level::Note, "nodes", &["no device to export"]);
    tree.plant("proc/sys/kernel/osrelease", "5.15.90.1-microsoft-standard-WSL2");
    assert_finds(&tree.fault(), Level::Warning, "nodes", &["This is WSL2", "usbipd bind"]);
}

#[test]
fn a_refused_node_gets_the_rule_for_this_very_device() {
    let tree = Tree::server();
    let found = single(tree.findings_with(refuse));
    let rule =
        "ATTR{idVendor}==\"0781\", ATTR{idProduct}==\"5567\", MODE=\"0660\", GROUP=\"plugdev\"";
    let says =
        ["1-2: this user may not write to /dev/bus/usb/001/004", rule, "usermod -aG plugdev ada"];
    assert_finds(&found, Level::Problem, "permissions", &says);
    assert!(!found.advice[0].contains("groupadd"), "{found:#?}");
    tree.plant("etc/group", "root:x:0:\n");
    let found = single(tree.findings_with(refuse));
    assert!(found.advice[0].contains("groupadd --system plugdev"), "{found:#?}");
}

#[test]
fn a_node_of_a_group_is_had_by_joining_the_group() {
    use std::os::unix::fs::PermissionsExt;
    let tree = Tree::server();
    let node = tree.0.join("dev/bus/usb/001/004");
    fs::set_permissions(&node, fs::Permissions::from_mode(0o660)).expect("it is ours");
    let group = fs::metadata(&node).expect("it is there").gid();
    tree.plant("etc/group", &format!("plugdev:x:{}:\nusb:x:{group}:\n", group + 1));
    let found = single(tree.findings_with(refuse));
    assert_finds(&found, Level::Problem, "permissions", &["usermod -aG usb ada", "log in again"]);
    // A member of the group needs another rule.
    tree.plant("proc/self/status", &format!("Uid:\t1000\t1000\nGroups:\t{group}\n"));
    let found = single(tree.findings_with(refuse));
    assert_finds(
        &found,
        Level::Problem,
        "permissions",
        &["/etc/udev/rules.d/60-usbferry-0781-5567"],
    );
}

#[test]
fn a_sandbox_is_told_from_a_mode() {
    let tree = Tree::server();
    let says = ["a sandbox or a security policy forbids", "DeviceAllow=char-usb_device rw"];
    assert_finds(&single(tree.findings_with(forbid)), Level::Problem, "permissions", &says);
    tree.plant(".dockerenv", "");
    let found = single(tree.findings_with(forbid));
    assert_finds(&found, Level::Problem, "permissions", &["--device-cgroup-rule='c 189:* rwm'"]);
}

#[test]
fn only_devices_to_be_exported_are_examined() {
    let tree = Tree::server();
    tree.remove("dev/bus/usb/001/004");
    let mut wanted = wanted();
    wanted.settings.rules = Rules::default();
    let found = note(findings_of(&tree.machine(), &wanted));
    assert_finds(&found, Level::Note, "nodes", &["no device to export is plugged in"]);
    // Simulated devices need no USB.
    let simulated = Wanted { has_devices: false, ..wanted };
    tree.remove("dev/bus/usb");
    let findings = findings_of(&tree.machine(), &simulated);
    assert!(findings.iter().all(|finding| finding.level == Level::Ok), "{findings:#?}");
}

#[test]
fn the_kernels_memory_is_compared_with_the_settings() {
    const PARAMETER: &str = "sys/module/usbcore/parameters/usbfs_memory_mb";
    let tree = Tree::server();
    tree.plant(PARAMETER, "8\n");
    let says =
        ["usbfs has 8M", "--urb-size", "echo 256 | sudo tee /sys/module/usbcore/parameters/"];
    assert_finds(&tree.fault(), Level::Warning, "memory", &says);
    let small = DeviceLimits { urb_len: 1 << 20, ..DeviceLimits::default() };
    let mut wanted = wanted();
    wanted.settings.policy.limits = small;
    let findings = findings_of(&tree.machine(), &wanted);
    assert!(findings.iter().all(|finding| finding.level == Level::Ok), "{findings:#?}");
    tree.plant(PARAMETER, "16\n");
    for port in 3..12 {
        tree.plant_device(&format!("1-{port}"), 10 + port, ("0781", "5567", "00"), "480");
    }
    assert_finds(&tree.fault(), Level::Warning, "memory", &["10 devices share"]);
    tree.plant(PARAMETER, "0\n");
    assert!(tree.findings().iter().all(|finding| finding.level == Level::Ok));
    tree.remove(PARAMETER);
    assert_finds(&note(tree.findings()), Level::Note, "memory", &["does not tell"]);
}

#[test]
fn a_port_in_use_names_the_program() {
    let tree = Tree::server();
    tree.plant_listener([0, 0, 0, 0], 3240, 4711);
    tree.plant_program(99, "sshd", "socket:[4712]");
    tree.plant_program(123, "usbipd", "socket:[4711]");
    let found = tree.fault();
    let says =
        ["127.0.0.1:3240 is in use by usbipd (pid 123)", "systemctl stop usbipd", "--listen"];
    assert_finds(&found, Level::Problem, "port", &says);
    assert_eq!(found.subject.as_deref(), Some("127.0.0.1:3240"));
    tree.remove("proc/123");
    assert_finds(&tree.fault(), Level::Problem, "port", &["another user", "ss -ltnp"]);
    tree.plant_program(124, "usbferry", "socket:[4711]");
    assert_finds(&note(tree.findings()), Level::Note, "port", &["usbferry (pid 124) is serving"]);
}

#[test]
fn ports_of_root_are_told_to_others() {
    let tree = Tree::server();
    let mut wanted = wanted();
    wanted.settings.listen = vec![listen_at("127.0.0.1:80")];
    let found = single(findings_of(&tree.machine(), &wanted));
    assert_finds(&found, Level::Problem, "port", &["below 1024 need root", "--listen ADDR:3240"]);
    tree.plant("proc/self/status", "Uid:\t0\t0\t0\t0\n");
    assert!(findings_of(&tree.machine(), &wanted).iter().all(|found| found.level == Level::Ok));
}

#[test]
fn the_kernels_own_exporter_is_in_the_way() {
    let tree = Tree::server();
    tree.plant_link(
        "sys/devices/pci0000:00/usb1/1-2/driver",
        "../../../bus/usb/drivers/usbip-host",
    );
    assert_finds(&tree.fault(), Level::Problem, "holders", &["usbip unbind -b 1-2"]);
}

#[test]
fn a_program_in_the_way_is_named() {
    let tree = Tree::server();
    tree.plant_interface("1-2:1.0", "usbfs");
    tree.plant_program(77, "pcscd", "/dev/bus/usb/001/004");
    let says = ["all interfaces are in use by pcscd (pid 77)", "sudo kill 77"];
    assert_finds(&tree.fault(), Level::Problem, "holders", &says);
    tree.plant_interface("1-2:1.1", "usbhid");
    assert_finds(
        &tree.fault(),
        Level::Warning,
        "holders",
        &["some interfaces are in use by pcscd"],
    );
    tree.remove("proc/77");
    assert_finds(
        &tree.fault(),
        Level::Warning,
        "holders",
        &["another user", "fuser -v /dev/bus/usb/"],
    );
    tree.plant_program(78, "usbferry", "/dev/bus/usb/001/004");
    assert_finds(&note(tree.findings()), Level::Note, "holders", &["lent to a client by usbferry"]);
}

#[test]
fn a_mounted_disk_is_told() {
    let tree = Tree::server();
    let place = "../devices/pci0000:00/usb1/1-2/1-2:1.0/host0/target0:0:0/0:0:0:0/block/sdb";
    tree.plant_link("sys/block/sdb", place);
    tree.plant_link("sys/block/sda", "../devices/pci0000:00/ata1/host1/block/sda");
    let findings = tree.findings();
    assert!(findings.iter().all(|finding| finding.level == Level::Ok), "{findings:#?}");
    tree.plant("proc/mounts", "/dev/sda1 / ext4 rw 0 0\n/dev/sdb1 /media/ada/STICK vfat rw 0 0\n");
    let says = ["/dev/sdb1 is mounted at /media/ada/STICK", "sudo umount /dev/sdb1"];
    assert_finds(&tree.fault(), Level::Warning, "holders", &says);
    tree.plant("proc/mounts", "/dev/sdba1 /other vfat rw 0 0\n");
    assert!(tree.findings().iter().all(|finding| finding.level == Level::Ok), "another disk");
}

#[test]
fn a_device_faster_than_any_client_is_told() {
    let tree = Tree::server();
    tree.plant_device("1-3", 5, ("0781", "55ae", "00"), "10000");
    let says = ["1-3 (0781:55ae) has 10 Gbit/s here and 5 at a client", "before 6.12"];
    assert_finds(&note(tree.findings()), Level::Note, "kernel", &says);
}

#[test]
fn pacing_is_told_to_a_client_and_noted_for_a_server() {
    const FILE: &str = "proc/sys/net/ipv4/tcp_congestion_control";
    let tree = Tree::server();
    tree.plant(FILE, "bbr\n");
    assert_finds(&note(tree.findings()), Level::Note, "congestion", &["bbr"]);
    let found = single(congestion::check_client(&tree.machine()));
    let says = ["bbr", "sysctl net.ipv4.tcp_congestion_control=cubic"];
    assert_finds(&found, Level::Warning, "congestion", &says);
    tree.plant(FILE, "reno\n");
    assert_eq!(congestion::check_client(&tree.machine())[0].level, Level::Ok);
}

#[test]
fn a_client_without_vhci_is_told_where_to_get_it() {
    let tree = Tree::client();
    let fault = |tree: &Tree| single(client::check(&tree.machine()));
    assert!(client::check(&tree.machine()).iter().all(|finding| finding.level == Level::Ok));
    tree.remove("sys/devices/platform/vhci_hcd.0");
    assert_finds(&fault(&tree), Level::Problem, "vhci", &["CONFIG_USBIP_VHCI_HCD"]);
    tree.plant("etc/os-release", "ID=ubuntu\n");
    assert_finds(&fault(&tree), Level::Problem, "vhci", &["linux-modules-extra-6.14.1"]);
    tree.plant("lib/modules/6.14.1/modules.dep", "kernel/drivers/usb/usbip/vhci-hcd.ko.xz: a.ko\n");
    let found = fault(&tree);
    assert_finds(
        &found,
        Level::Problem,
        "vhci",
        &["sudo modprobe vhci-hcd", "/etc/modules-load.d"],
    );
    tree.plant(".dockerenv", "");
    assert_finds(&fault(&tree), Level::Problem, "vhci", &["on the container's host"]);
}

#[test]
fn a_client_without_a_free_port_is_told() {
    let tree = Tree::client();
    let status = "hub port sta spd dev      sockfd local_busid\n\
                  hs  0000 006 003 00010002 000005 2-1\n";
    tree.plant("sys/devices/platform/vhci_hcd.0/status", status);
    let found = single(client::check(&tree.machine()));
    assert_finds(&found, Level::Problem, "vhci", &["all 1 ports", "usbip detach -p PORT"]);
    // A second controller has ports of its own.
    tree.plant(
        "sys/devices/platform/vhci_hcd.0/status.1",
        "hub port sta spd dev      sockfd local_busid\nhs  0016 004 000 00000000 000000 0-0\n",
    );
    let found = client::check(&tree.machine());
    assert_finds(&found[0], Level::Ok, "vhci", &["ports of vhci_hcd: 2, free: 1"]);
    tree.plant("sys/devices/platform/vhci_hcd.0/status", "another form\n");
    let found = client::check(&tree.machine());
    assert_finds(&found[0], Level::Note, "vhci", &["a form that usbferry does not know"]);
}

#[test]
fn a_tool_for_another_kernel_is_told() {
    let tree = Tree::client();
    let script =
        "#!/bin/bash\nfull_version=`uname -r`\nthis=\"/usr/lib/linux-tools/$full_version/usbip\"\n";
    tree.plant("usr/bin/usbip", script);
    let found = single(client::check(&tree.machine()));
    assert_finds(&found, Level::Warning, "tool", &["apt-get install linux-tools-6.14.1"]);
    tree.plant("usr/lib/linux-tools/6.14.1/usbip", "\u{7f}ELF");
    assert!(client::check(&tree.machine()).iter().all(|finding| finding.level == Level::Ok));
}

#[test]
fn old_kernels_of_a_client_are_told() {
    for (release, level, says) in [
        ("4.19.0-27-amd64", Level::Warning, "mended in 5.15"),
        ("6.1.0-13-amd64", Level::Note, "mended in 6.14"),
        ("6.14.1", Level::Ok, "Linux 6.14.1"),
        ("7.2", Level::Ok, "Linux 7.2"),
        ("unknown", Level::Note, "the kernel's release is unknown"),
    ] {
        let tree = Tree::client();
        tree.plant("proc/sys/kernel/osrelease", release);
        assert_finds(&kernel::check_client(&tree.machine())[0], level, "kernel", &[says]);
    }
}

#[test]
fn exports_too_fast_for_a_clients_kernel_are_told() {
    let device = |busid: &str, speed: u32| Exported {
        device: RemoteDevice {
            path: String::new(),
            busid: BusId::new(busid).unwrap(),
            busnum: 1,
            devnum: 1,
            speed,
            id_vendor: 1,
            id_product: 2,
            device_class: [0; 3],
            num_interfaces: 0,
        },
        interface_classes: Vec::new(),
    };
    let exports = [device("1-1", 3), device("2-1", 5), device("2-2", 6)];
    for (release, expected) in
        [("4.9.0", &["2-1", "2-2"][..]), ("6.1.0", &["2-2"]), ("6.12.0", &[]), ("7.3.4", &[])]
    {
        let tree = Tree::client();
        tree.plant("proc/sys/kernel/osrelease", release);
        let found = kernel::check_speeds(&tree.machine(), &exports);
        let about: Vec<&str> = found.iter().filter_map(|found| found.subject.as_deref()).collect();
        assert_eq!(about, expected, "{release}");
        assert!(found.iter().all(|found| found.level == Level::Problem));
    }
}

#[test]
fn a_directory_of_nonsense_is_survived() {
    let tree = Tree::server();
    for name in ["speed", "busnum", "devnum", "idVendor"] {
        tree.plant(&format!("sys/devices/pci0000:00/usb1/1-2/{name}"), "\u{fffd}-1\n");
        assert_eq!(present(&tree.machine()).len(), 1, "{name}: the hub alone is known");
        let text = if name == "speed" { "480" } else { "1" };
        tree.plant(&format!("sys/devices/pci0000:00/usb1/1-2/{name}"), text);
    }
    tree.plant("proc/net/tcp", "0: 0A\n1: x:y 0:0 0A 0 0 0 0 0 1\n: : : : : : : : : :\n");
    tree.plant("proc/mounts", "\n/dev/sdb1\n");
    tree.plant("proc/self/status", "Uid:\n");
    let _ = tree.findings_with(refuse);
}
