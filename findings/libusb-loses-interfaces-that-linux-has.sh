#!/usr/bin/env bash
# libusb lists fewer interfaces of a device than Linux, or none. In the first case libusb reports no
# error.
#
# Seen with libusb 1.0.30 (PyPI libusb-package 1.0.30.0; 1.0.26 behaves the same). sysfs has both
# devices below in Linux's form: `descriptors` with the device's bytes, bConfigurationValue 1.
# Linux's own reading (drivers/usb/core/config.c, usb_parse_interface and find_next_descriptor)
# skips the surplus, and binds drivers to every interface:
# - an interface with bNumEndpoints 1 and two endpoints: Linux skips the second endpoint and has all
#   three interfaces. libusb_get_active_config_descriptor returns 0 and two interfaces: the third is
#   missing.
# - an interface with bNumEndpoints 1 and no endpoint: Linux has both interfaces. libusb returns -1
#   (LIBUSB_ERROR_IO), so a program that asks for the configuration considers the device broken.
# So a program that serves devices to others must read sysfs itself.
#
# Needs root, for a mount namespace of its own with /sys/bus and /dev showing just these two
# devices. Output at the time of writing:
#   libusb 1.0.30: surplus endpoint: 2 of 3 interfaces; endpoint missing: error -1
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
pip install -q --disable-pip-version-check --root-user-action=ignore --no-deps \
  --target packages libusb-package==1.0.30.0

cat > world.sh << 'WORLD'
set -euo pipefail
mkdir dev
mount -t tmpfs none dev
mknod -m 666 dev/null c 1 3
mknod -m 666 dev/urandom c 1 9
mkdir -p dev/bus/usb/001
mount -t tmpfs none /sys/bus
device() { # name, number, its configuration in hexadecimal
  local own=/sys/bus/usb/devices/$1
  mkdir -p "$own"
  echo 1 > "$own/busnum"
  echo "$2" > "$own/devnum"
  echo 480 > "$own/speed"
  echo 1 > "$own/bConfigurationValue"
  python3 -c "import sys; sys.stdout.buffer.write(bytes.fromhex('12010002ff00004009121000000100000001$3'))" \
    > "$own/descriptors"
  : > "dev/bus/usb/001/00$2"
}
interface() { # number, how many endpoints it counts
  echo "0904${1}00${2}03000000"
}
surplus="0902400003010080 32 $(interface 00 01) 07058103400004 $(interface 01 01) 07058203400004 07058203400004 $(interface 02 01) 07058303400004"
missing="0902220002010080 32 $(interface 00 01) 07058103100008 $(interface 01 01)"
device 1-1 2 "${surplus// /}"
device 1-2 3 "${missing// /}"
mount --move dev /dev
exec python3 probe.py
WORLD
cat > probe.py << 'PYTHON'
import ctypes
import glob

lib = ctypes.CDLL(glob.glob("packages/libusb_package/libusb-1.0.so")[0])


class Version(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint16) for name in ("major", "minor", "micro", "nano")]


class Configuration(ctypes.Structure):
    _fields_ = [("length", ctypes.c_uint8), ("type", ctypes.c_uint8), ("total", ctypes.c_uint16),
                ("interfaces", ctypes.c_uint8)]


lib.libusb_get_version.restype = ctypes.POINTER(Version)
lib.libusb_get_device_list.restype = ctypes.c_ssize_t
version = lib.libusb_get_version().contents
context = ctypes.c_void_p()
assert lib.libusb_init(ctypes.byref(context)) == 0
devices = ctypes.POINTER(ctypes.c_void_p)()
count = lib.libusb_get_device_list(context, ctypes.byref(devices))
seen = {}
for device in map(ctypes.c_void_p, devices[:count]):
    found = ctypes.POINTER(Configuration)()
    code = lib.libusb_get_active_config_descriptor(device, ctypes.byref(found))
    seen[lib.libusb_get_device_address(device)] = (code, found.contents.interfaces if code == 0 else 0)
surplus, missing = seen[2], seen[3]
print(f"libusb {version.major}.{version.minor}.{version.micro}: "
      f"surplus endpoint: {surplus[1]} of 3 interfaces; endpoint missing: error {missing[0]}")
assert surplus == (0, 2) and missing == (-1, 0)
PYTHON
unshare --mount bash world.sh
