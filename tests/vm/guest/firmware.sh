# Devices on FunctionFS with a firmware of firmware.py, which go and come back as other devices.
# Sourced by scenarios after guest/zoo.sh.

ffs=$state/ffs

# Plugs the device in as another product, with another firmware.
become() { # product id, argument of firmware.py...
  local product=$1
  shift
  step "become $product: $1"
  echo "$product" > "$gadget/idProduct"
  start firmware python3 "$vm/guest/firmware.py" "$ffs" "$@"
  firmware=$started
  wait_until_said 30 firmware ready
  connect_gadget
}

# Waits for the end of the firmware, and pulls the device out.
leave() {
  wait_for 60 "the firmware to end" grep -q '^ended' "$state/firmware"
  pull
}
pull() {
  disconnect_gadget
  wait_for 15 "the gadget to go" device_gone "$gadget_busid"
  kill -KILL "$firmware"
  wait "$firmware" 2> /dev/null || true
}

make_board() { # product id
  make_gadget "$1"
  modprobe usb_f_fs
  mkdir -p "$gadget"/{configs/c.1/strings/0x409,functions/ffs.board} "$ffs"
  ln -s "$gadget/functions/ffs.board" "$gadget/configs/c.1/"
  mount -t functionfs board "$ffs"
}

remove_board() {
  umount "$ffs"
  remove_gadget
}

# Runs a command that sees the buses of vhci and no other, as on a machine of its own.
at_client() { # command...
  unshare -m bash -c '
    buses=$1
    shift
    mkdir -p "$buses"
    for hub in /sys/devices/platform/vhci_hcd.*/usb*; do
      bus=$(printf "%03d" "${hub##*/usb}")
      mkdir -p "$buses/$bus"
      mount --bind "/dev/bus/usb/$bus" "$buses/$bus"
    done
    mount --rbind "$buses" /dev/bus/usb
    exec "$@"' at_client "$state/buses" "$@"
}
