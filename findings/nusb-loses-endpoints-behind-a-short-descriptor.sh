#!/usr/bin/env bash
# The crate nusb loses the endpoints behind a class or vendor descriptor of two bytes, without an
# error: InterfaceDescriptor::endpoints() has fewer endpoints than num_endpoints() says, and
# endpoint() then claims that the interface has no such endpoint. Length and type are all that a
# descriptor must have (USB 2.0, sections 9.5 and 9.6; Linux's usb_parse_configuration in
# drivers/usb/core/config.c refuses lengths below 2), and a program that asks for the descriptors
# one by one gets them all from nusb too: DescriptorIter goes on at a length of 2, while the search
# for the end of an interface asks for more than 2 (split_by_type in src/descriptors.rs). An
# exporter on nusb would tell its client of endpoints, through the device's own bytes, that it can't
# open.
#
# Seen with nusb 0.2.9. libusb 1.0.30, the second reader, has the device from umockdev 0.17.16
# (Debian 12). No device on the market with such a descriptor is known to us.
#
# Output at the time of writing:
#   libusb: 81 02 | nusb: descriptors 81 02, endpoints() 81 of num_endpoints() 2
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
mkdir -p archives/partial root src
apt-get update -qq
apt-get install -qq -y --reinstall --download-only --no-install-recommends \
  -o APT::Sandbox::User=root -o Dir::Cache::archives="$folder/archives" \
  {umockdev,libumockdev0}=0.17.16-1 > /dev/null
for package in archives/*.deb; do dpkg-deb -x "$package" root; done
pip install -q --disable-pip-version-check --root-user-action=ignore --no-deps \
  --target packages libusb-package==1.0.30.0 pyusb==1.3.1

device=120100020000004009120100000100000001
interface=0904000002ff000000 short=0241 in=07058102000200 out=07050202000200
configuration=090222000101008032$interface$in$short$out
cat > device << DEVICE
P: /devices/usb1/1-1
N: bus/usb/001/002
E: DEVTYPE=usb_device
E: SUBSYSTEM=usb
A: busnum=1\\n
A: devnum=2\\n
A: speed=480\\n
A: bConfigurationValue=1\\n
H: descriptors=$device$configuration
DEVICE
cat > libusb.py << 'PYTHON'
import sys

sys.path.insert(0, "packages")
import usb.backend.libusb1
import usb.core

backend = usb.backend.libusb1.get_backend(lambda _: "packages/libusb_package/libusb-1.0.so")
device = usb.core.find(backend=backend, idVendor=0x1209)
print(*(f"{endpoint.bEndpointAddress:02x}" for endpoint in device[0][0, 0]))
PYTHON
libraries=(root/usr/lib/*-linux-gnu)
libusb=$(
  LD_LIBRARY_PATH=$folder/${libraries[0]} root/usr/bin/umockdev-run -d device -- \
    python3 libusb.py 2> log
)

cat > Cargo.toml << 'TOML'
[package]
name = "endpoints"
version = "0.0.0"
edition = "2021"

[dependencies]
nusb = "=0.2.9"
TOML
cat > src/main.rs << 'RUST'
use nusb::descriptors::ConfigurationDescriptor;

fn hex(addresses: impl Iterator<Item = u8>) -> String {
    addresses.map(|address| format!("{address:02x}")).collect::<Vec<_>>().join(" ")
}

fn main() {
    let text = std::env::args().nth(1).unwrap();
    let byte = |at| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    let bytes: Vec<u8> = (0..text.len()).step_by(2).map(byte).collect();
    let configuration = ConfigurationDescriptor::new(&bytes).unwrap();
    let interface = configuration.interface_alt_settings().next().unwrap();
    let each = configuration.descriptors().filter(|found| found.descriptor_type() == 5);
    println!(
        "descriptors {}, endpoints() {} of num_endpoints() {}",
        hex(each.map(|found| found[2])),
        hex(interface.endpoints().map(|endpoint| endpoint.address())),
        interface.num_endpoints()
    );
}
RUST
nusb=$(CARGO_TARGET_DIR=$folder/target cargo run --quiet -- "$configuration")
line="libusb: $libusb | nusb: $nusb"
echo "$line"
[[ $line == "libusb: 81 02 | nusb: descriptors 81 02, endpoints() 81 of num_endpoints() 2" ]]
