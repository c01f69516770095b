# Devices of docs/devices.md, plugged in by QEMU while the guest runs or made of gadgets on
# dummy_hcd, and the common parts of the judging programs.

source "$vm/guest/gadget.sh"

# Where QEMU finds the files of $run.
host_run=$(sed 's/.*vm_cache=\([^ ]*\).*/\1/' /proc/cmdline)/run

need_program() { # program...
  local program
  for program in "$@"; do
    command -v "$program" > /dev/null || fail "$program is not installed: tests/vm/setup --zoo"
  done
}

# ---- QEMU's devices ------------------------------------------------------------------------------
# There is one port left on xHCI, which a hub takes, and five on EHCI, for high speed only.

# Gives QEMU's monitor commands. The last makes the device; $plugged is its name.
plug() { # command...
  local command
  local_before=" $(echo $(local_devices)) "
  for command in "$@"; do
    step "$command"
    monitor "$command"
  done
  wait_for 60 "the device of $command" new_local_device
  plugged=$(new_local_device_name)
}
new_local_device() {
  local device
  device=$(new_local_device_name)
  [[ -n $device && -e /sys/bus/usb/devices/$device/$device:1.0 ]]
}
new_local_device_name() {
  local device
  for device in $(local_devices); do
    [[ $local_before == *" $device "* ]] || echo "$device"
  done
}
unplug() { # device, QEMU's id
  step "device_del $2"
  monitor "device_del $2"
  wait_for 60 "$1 to go" device_gone "$1"
}
plug_hub() { plug "device_add usb-hub,bus=xhci.0,port=4,id=hub" && hub=$plugged; }
unplug_hub() { unplug "$hub" hub; }

# ---- Gadgets -------------------------------------------------------------------------------------

# Makes a gadget without functions.
make_gadget() { # product id
  modprobe -a libcomposite
  modprobe dummy_hcd
  mountpoint -q /sys/kernel/config || mount -t configfs configfs /sys/kernel/config
  mkdir -p "$gadget/strings/0x409"
  echo 0x1209 > "$gadget/idVendor"
  echo "$1" > "$gadget/idProduct"
  echo high-speed > "$gadget/max_speed"
  # A function has several interfaces, and an IAD then.
  echo 0xef > "$gadget/bDeviceClass"
  echo 2 > "$gadget/bDeviceSubClass"
  echo 1 > "$gadget/bDeviceProtocol"
  echo "$gadget_serial" > "$gadget/strings/0x409/serialnumber"
  echo "a gadget" > "$gadget/strings/0x409/product"
}

add_function() { # configuration's number, function.instance, attribute=value...
  local attribute
  modprobe "usb_f_${2%.*}"
  mkdir -p "$gadget/configs/c.$1/strings/0x409" "$gadget/functions/$2"
  for attribute in "${@:3}"; do
    printf '%b' "${attribute#*=}" > "$gadget/functions/$2/${attribute%%=*}"
  done
  ln -s "$gadget/functions/$2" "$gadget/configs/c.$1/"
}

remove_gadget() {
  local path
  step "remove the gadget"
  [[ -z $(< "$gadget/UDC") ]] || disconnect_gadget
  wait_for 15 "the gadget to go" device_gone "$gadget_busid"
  remove_functions
  rmdir "$gadget/strings/0x409" "$gadget"
  rmmod dummy_hcd
}
remove_functions() {
  local path
  for path in "$gadget"/configs/*/*.*; do [[ ! -L $path ]] || rm "$path"; done
  for path in "$gadget"/configs/*; do rmdir "$path/strings/0x409" "$path"; done
  for path in "$gadget"/functions/*; do rmdir "$path"; done
}

# ---- What judges ---------------------------------------------------------------------------------

attach_and_release() { # busid, local driver, command that is called in between
  serve "$1"
  wait_for 20 "usbip list -r to show $1" offered "$1"
  attach "$1"
  # The kernel's exporter binds the device itself, and leaves its interfaces without a driver.
  [[ $2 == none && $server == usbipd ]] || must_not_have "$1" "$2"
  "$3"
  detach "$attached"
  wait_for 30 "$1 to be released" released "$1" "$2"
  stop_server
}

# A file by ZMODEM from a port to another, compared.
zmodem() { # from, to, bytes
  local sender
  step "zmodem from $1 to $2"
  # No speed: the port of a gadget has none to be set.
  stty -F "$1" raw -echo
  stty -F "$2" raw -echo
  rm -rf "$state/received"
  mkdir "$state/received"
  head -c "$3" /dev/urandom > "$state/zmodem"
  sz -q -b "$state/zmodem" < "$1" > "$1" 2> "$state/sz" &
  sender=$!
  (cd "$state/received" && timeout $((90 * patience)) rz -q -b < "$2" > "$2" 2> "$state/rz") ||
    fail "rz: $(tail -n 1 "$state/rz")"
  wait "$sender" || fail "sz: $(tail -n 1 "$state/sz")"
  cmp "$state/zmodem" "$state/received/zmodem" || fail "another file arrived than was sent"
  note "zmodem: $3 bytes from $1 to $2"
}

# A character device made by a driver for a device: `node_of 9-1 tty`.
node_of() { # device, tty, usbmisc or hidraw
  local path
  path=$(below "$1" "*/$2/*" | head -1)
  [[ -n $path ]] || return 1
  path=/dev/$(sed -n 's/^DEVNAME=//p' "$path/uevent")
  [[ -c $path ]] && echo "$path"
}

net_of() { # device
  local path
  path=$(below "$1" '*/net/*')
  path=${path##*/net/}
  [[ -n $path ]] && echo "${path%%/*}"
}

# Pings and a file by HTTP from the gadget, each by the network of its own kernel. The client's end
# is in a namespace, since otherwise both ends would be this machine. Afterwards the client's
# interface leaves the namespace, to disappear with its device.
gadget_network() { # function's name in configfs
  local near net httpd
  near=$(< "$gadget/functions/$1/ifname")
  wait_for 30 "the network of $attached" net_of "$attached"
  net=$(net_of "$attached")
  step "ping by $net"
  ip netns add client
  ip link set "$net" netns client
  ip address replace 10.88.0.1/24 dev "$near"
  ip link set "$near" up
  ip netns exec client ip address add 10.88.0.2/24 dev "$net"
  ip netns exec client ip link set "$net" up
  ip netns exec client busybox ping -c 10 -W 10 -s 1400 10.88.0.1 > "$state/ping" ||
    fail "ping: $(tail -n 2 "$state/ping")"

  step "HTTP by $net"
  mkdir -p "$state/www"
  head -c 500000 /dev/urandom > "$state/www/file"
  busybox httpd -f -p 10.88.0.1:80 -h "$state/www" &
  httpd=$!
  wait_for 20 "httpd" listening 80
  ip netns exec client busybox wget -q -O "$state/fetched" http://10.88.0.1/file ||
    fail "wget by $net"
  kill "$httpd"
  wait "$httpd" 2> /dev/null || true
  cmp "$state/www/file" "$state/fetched" || fail "another file arrived by $net"
  note "network: 10 pings, 500,000 bytes by HTTP"
  ip netns exec client ip link set "$net" netns 1
  ip netns delete client
}

# Reads a whole disk past the cache, writes a piece, and compares with the disk's file.
compare_disk() { # disk, file
  step "compare $1"
  cmp <(dd if="$1" bs=64K iflag=direct status=none) "$2" || fail "$1 is not $2"
  head -c 256K /dev/urandom > "$state/piece"
  dd if="$state/piece" of="$1" bs=64K seek=3 oflag=direct conv=fsync status=none
  cmp <(dd if="$1" bs=64K skip=3 count=4 iflag=direct status=none) "$state/piece" ||
    fail "$1 has other bytes than were written"
  cmp <(dd if="$2" bs=64K skip=3 count=4 status=none) "$state/piece" ||
    fail "$2 lacks what was written to $1"
}
