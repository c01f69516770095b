# Devices on FunctionFS with a firmware of firmware.py, which go and come back as other devices.
# Sourced by scenarios after guest/zoo.sh and guest/rules.sh.

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

# Fails if the firmware has died.
firmware_runs() {
  ! process_gone "$firmware" || fail "the firmware ended: $(tail -n 1 "$state/firmware")"
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

# Plugs in a board that is two devices in turn, serves the board under one name, and has the client
# keep the board attached; $keeper is the client.
keep_board() { # name, product id, product id of the other state, argument of firmware.py...
  local called=$1 product=$2 other=$3
  make_board "$product"
  become "$product" "${@:4}"
  # By the port, too: the same machine has the board a second time on vhci.
  write_rules << RULES
[[rule]]
id = ["1209:${product#0x}", "1209:${other#0x}"]
busid = "$gadget_busid"
name = "$called"
RULES
  serve_rules
  step "usbferry attach --persist"
  start keeper "$usbferry" attach 127.0.0.1 "$called" --persist
  keeper=$started
}

end_board() {
  kill -TERM "$keeper"
  wait "$keeper" || fail "usbferry attach --persist: $(tail -n 1 "$state/keeper")"
  wait_for 20 "the board to be detached" no_vhci_device
  stop_server
  pull
  remove_board
}
no_vhci_device() { [[ -z $(vhci_devices) ]]; }

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
    for hub in /sys/devices/platform/vhci_hcd.*/usb[0-9]*; do
      bus=$(printf "%03d" "${hub##*/usb}")
      mkdir -p "$buses/$bus"
      mount --bind "/dev/bus/usb/$bus" "$buses/$bus"
    done
    mount --rbind "$buses" /dev/bus/usb
    exec "$@"' at_client "$state/buses" "$@"
}
