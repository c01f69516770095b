#!/usr/bin/env bash
# udev loses a device's last interface if the interface has no endpoints of its own: it is missing
# in ID_USB_INTERFACES, the property by which rules choose devices by what they can do, as rules
# for permissions and for export do (ENV{ID_USB_INTERFACES}=="*:ff0001:*"). Such interfaces are
# valid and common: an interface that uses endpoint 0 only has no endpoint descriptors (USB 2.0,
# section 9.6.5). The boards of Raspberry Pi's Pico SDK end with one, the interface for the reset
# into the bootloader (stdio_usb, class ff, subclass 00, protocol 01). Put first, the same
# interface is listed. The loop over the descriptors ends with 9 bytes left instead of with less
# (dev_if_packed_info in systemd's src/udev/udev-builtin-usb_id.c).
#
# Seen with udev 252.39 (Debian 12). umockdev 0.17.16 plays such a board to both readers: udevadm
# and libusb 1.0.30, which has all three interfaces. Linux has them too, and binds drivers to them.
#
# Output at the time of writing:
#   reset last: libusb :020200:0a0000:ff0001: udev :020200:0a0000:
#   reset first: libusb :ff0001:020200:0a0000: udev :ff0001:020200:0a0000:
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
mkdir -p archives/partial root
apt-get update -qq
apt-get install -qq -y --reinstall --download-only --no-install-recommends \
  -o APT::Sandbox::User=root -o Dir::Cache::archives="$folder/archives" \
  udev=252.39-1~deb12u2 {umockdev,libumockdev0}=0.17.16-1 > /dev/null
for package in archives/*.deb; do dpkg-deb -x "$package" root; done
pip install -q --disable-pip-version-check --root-user-action=ignore --no-deps \
  --target packages libusb-package==1.0.30.0 pyusb==1.3.1

cat > device.py << 'PYTHON'
import struct
import sys

HEAD = struct.pack("<BBH4B3H4B", 18, 1, 0x200, 0xEF, 2, 1, 64, 0x1209, 1, 0x100, 0, 0, 0, 1)
RESET = bytes.fromhex("09 04 02 00 00 ff 00 01 00")
SERIAL = bytes.fromhex(
    "08 0b 00 02 02 02 00 00"
    "09 04 00 00 01 02 02 00 00  07 05 81 03 08 00 10"
    "09 04 01 00 02 0a 00 00 00  07 05 02 02 40 00 00  07 05 82 02 40 00 00"
)
body = SERIAL + RESET if sys.argv[1] == "last" else RESET + SERIAL
descriptors = HEAD + struct.pack("<BBH5B", 9, 2, 9 + len(body), 3, 1, 0, 0x80, 125) + body
print(f"""P: /devices/usb1/1-1
N: bus/usb/001/002
E: DEVTYPE=usb_device
E: SUBSYSTEM=usb
A: idVendor=1209\\n
A: idProduct=0001\\n
A: busnum=1\\n
A: devnum=2\\n
A: speed=12\\n
A: bConfigurationValue=1\\n
H: descriptors={descriptors.hex()}
""")
PYTHON
cat > libusb.py << 'PYTHON'
import sys

sys.path.insert(0, "packages")
import usb.backend.libusb1
import usb.core

backend = usb.backend.libusb1.get_backend(lambda _: "packages/libusb_package/libusb-1.0.so")
device = usb.core.find(backend=backend, idVendor=0x1209)
for part in device[0]:
    kind = part.bInterfaceClass, part.bInterfaceSubClass, part.bInterfaceProtocol
    print(end=f":{bytes(kind).hex()}")
print(":")
PYTHON

libraries=(root/usr/lib/*-linux-gnu)
mocked() { # device, command
  LD_LIBRARY_PATH=$folder/${libraries[0]} root/usr/bin/umockdev-run -d "$1" -- "${@:2}" 2> log
}
seen() { # last or first
  python3 device.py "$1" > "$1"
  echo "reset $1: libusb $(mocked "$1" python3 libusb.py) udev $(
    mocked "$1" root/bin/udevadm test-builtin usb_id /sys/devices/usb1/1-1 \
      | sed -n 's/^ID_USB_INTERFACES=//p'
  )"
}
lines=$(seen last; seen first)
echo "$lines"
[[ $lines == "reset last: libusb :020200:0a0000:ff0001: udev :020200:0a0000:
reset first: libusb :ff0001:020200:0a0000: udev :ff0001:020200:0a0000:" ]]
