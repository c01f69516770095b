#!/usr/bin/env bash
# PyPI's usb-remote detaches the wrong device: before it attaches device 1-1 of a server, it detaches
# device 1-10 of that server, in use or not. Its pattern for the output of `usbip port` has [1-9-.]* for
# the busid, without 0, so a busid is cut at its first 0: 1-10 becomes 1-1, 10-1 becomes 1, and
# whoever looks for 1-10 finds nothing. Linux counts a hub's ports and a machine's buses in decimal
# numbers, and large machines have more than nine buses.
#
# Seen with usb-remote 2.3.2: the script calls the function with which attach_device begins. `usbip
# port` is played by a script that prints the words of the stock tool
# (usbip_vhci_imported_device_dump of tools/usb/usbip/libsrc/vhci_driver.c) for one attached device.
#
# Output at the time of writing:
#   attached: 1-10 at port 03 | to free 1-1: usbip detach -p 03 | to free 1-10: nothing
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  usb-remote==2.3.2 pydantic==2.12.5 pyudev==0.24.4 pyusb==1.3.1 PyYAML==6.0.3 typer==0.20.0

mkdir "$folder/bin"
cat > "$folder/bin/sudo" << 'SUDO'
#!/bin/sh
case "$2" in
port) cat << 'PORTS' ;;
Imported USB devices
====================
Port 03: <Port in Use> at High Speed(480Mbps)
       SanDisk Corp. : Cruzer Blade (0781:5567)
       9-4 -> usbip://desk:3240/1-10
           -> remote bus/dev 001/012
PORTS
detach) echo "$*" >> "$NOTES" ;;
esac
SUDO
chmod +x "$folder/bin/sudo"
export NOTES=$folder/notes PATH=$folder/bin:$PATH HOME=$folder

free() { # busid
  : > "$NOTES"
  "$folder/venv/bin/python" -c \
    'import sys; from usb_remote.client import detach_local_device as free; free(sys.argv[1], "desk")' \
    "$1"
  echo "to free $1: $(grep . "$NOTES" || echo nothing)"
}
line="attached: 1-10 at port 03 | $(free 1-1) | $(free 1-10)"
echo "$line"
[[ $line == "attached: 1-10 at port 03 | to free 1-1: usbip detach -p 03 | to free 1-10: nothing" ]]
