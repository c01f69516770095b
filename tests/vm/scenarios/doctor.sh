# `usbferry doctor` finds faults that are planted one by one: by the right check, with something to
# type, and with the exit status of the level. Without a fault nothing is found.
limit=300
servers=usbferry

source "$vm/guest/gadget.sh"
source "$vm/guest/network.sh"

scenario() {
  # This machine may be a container itself.
  rm -f /.dockerenv
  plug_gadget high-speed SourceSink Loopback
  printf -v node '/dev/bus/usb/%03d/%03d' "$(< "/sys/bus/usb/devices/$gadget_busid/busnum")" \
    "$(< "/sys/bus/usb/devices/$gadget_busid/devnum")"
  as=()
  examine 0 --device "$gadget_busid"
  found ok nodes "each with its node"
  nodes_at_fault
  permissions_at_fault
  holders_at_fault
  server_at_fault
  examine 0 --device "$gadget_busid"
  client_at_fault
  note "$faults faults found"
  unplug_gadget
}

nodes_at_fault() {
  mv "$node" "$node.away"
  examine 4 --device "$gadget_busid"
  found PROBLEM nodes "$gadget_busid has no node $node" "sudo udevadm trigger"
  mv "$node.away" "$node"
  examine 3 --device 1d6b:ffff
  found warning nodes "no device to export is plugged in" "-device qemu-xhci"
  # As in a container: no node at all.
  as=(unshare -m bash -c 'mount -t tmpfs none /dev/bus/usb && "$@"' sh)
  touch /.dockerenv
  examine 4 --device "$gadget_busid"
  found PROBLEM nodes "this is a container (docker)" "-v /dev/bus/usb:/dev/bus/usb"
  rm /.dockerenv
  as=()
}

permissions_at_fault() {
  as=(setpriv --reuid=nobody --regid=nogroup --clear-groups)
  examine 4 --device "$gadget_busid"
  found PROBLEM permissions "this user may not write to $node" 'ATTR{idProduct}=="a4a0"'
  chgrp dialout "$node"
  chmod 660 "$node"
  examine 4 --device "$gadget_busid"
  found PROBLEM permissions "this user may not write to $node" "sudo usermod -aG dialout nobody"
  chgrp root "$node"
  chmod 666 "$node"
  examine 4 --device "$gadget_busid" --listen 127.0.0.1:80
  found PROBLEM port "ports below 1024 need root" "--listen ADDR:3240"
  chmod 600 "$node"
  as=()
}

holders_at_fault() {
  local holders=()
  hold 1
  examine 3 --device "$gadget_busid"
  found warning holders "some interfaces are in use by python3" "sudo kill $started"
  hold 0
  examine 4 --device "$gadget_busid"
  found PROBLEM holders "all interfaces are in use by python3" "sudo kill ${holders[0]}"
  kill -KILL "${holders[@]}"
  wait "${holders[@]}" 2> /dev/null || true
  usbip_tool bind -b "$gadget_busid"
  examine 4 --device "$gadget_busid"
  found PROBLEM holders "the kernel's own exporter (usbip-host) has the device" \
    "sudo usbip unbind -b $gadget_busid"
  usbip_tool unbind -b "$gadget_busid"
  mounted_disk
}

hold() { # interface
  start "holder-$1" python3 "$vm/guest/usbfs.py" claim "$gadget_busid" "$1"
  wait_until_said 20 "holder-$1" holding
  holders+=("$started")
}

mounted_disk() {
  local stick disk
  stick=$(local_device STICKXHCI)
  disk=$(block_device_of "$stick")
  busybox mke2fs "$disk" > /dev/null
  modprobe ext4
  mkdir -p "$state/disk"
  mount -t ext2 "$disk" "$state/disk"
  examine 3 --device "$stick"
  found warning holders "$disk is mounted at $state/disk" "sudo umount $disk"
  umount "$state/disk"
}

server_at_fault() {
  local memory=/sys/module/usbcore/parameters/usbfs_memory_mb before other
  before=$(< "$memory")
  echo 1 > "$memory"
  examine 3 --device "$gadget_busid"
  found warning memory "less than one URB may have" "echo 256 | sudo tee $memory"
  echo "$before" > "$memory"

  busybox httpd -f -p 127.0.0.1:3240 -h "$state" &
  other=$!
  wait_for 20 "httpd" listening 3240
  examine 4 --device "$gadget_busid"
  found PROBLEM port "127.0.0.1:3240 is in use by busybox (pid $other)" "sudo kill $other"
  kill "$other"
  wait "$other" 2> /dev/null || true

  modprobe tcp_bbr
  pace bbr
  examine 0 --device "$gadget_busid"
  found note congestion "the system's congestion control is bbr"
}

# Ends with the pacing of the server's faults.
client_at_fault() {
  make_network
  serve_network "$gadget_busid"
  pace bbr
  examine 3 --peer 127.0.0.1
  found warning congestion "the congestion control is bbr" "tcp_congestion_control=cubic"
  pace cubic
  examine 0 --peer 127.0.0.1
  found ok vhci "ports of vhci_hcd"

  modprobe sch_netem
  tc qdisc add dev server-end root netem delay 60ms
  as=(ip netns exec client)
  examine 3 --peer "$server_address"
  found warning peer "a round trip takes 6" "expect a disk to move"
  as=()
  examine 4 --peer 127.0.0.1:3241
  found PROBLEM peer "127.0.0.1:3241" "usbferry serve --listen"
  stop_server
  remove_network

  rmmod vhci_hcd
  examine 4 --peer 127.0.0.1
  found PROBLEM vhci "vhci_hcd, the driver for imported devices, is not loaded" \
    "sudo modprobe vhci-hcd"
  modprobe vhci_hcd
}

pace() { echo "$1" > /proc/sys/net/ipv4/tcp_congestion_control; } # congestion control

# Runs `usbferry doctor`, as another user or elsewhere by the words of $as.
examine() { # exit status, argument...
  local expected=$1 status=0
  shift
  step "usbferry doctor $*"
  "${as[@]}" "$usbferry" doctor "$@" > "$state/doctor" 2>&1 || status=$?
  ((status == expected)) ||
    fail "exit status $status instead of $expected by $* (${as[*]}): $(< "$state/doctor")"
}

# Checks that doctor has printed a finding, and an advice below the finding.
faults=0
found() { # level, check, part of the message [part of the advice]
  local line is_ours= has_message= has_advice=
  [[ $1 == ok ]] || faults=$((faults + 1))
  while IFS= read -r line; do
    if [[ $line == [a-zA-Z]* ]]; then
      [[ $line == "$1"*([ ])"$2"+([ ])*"$3"* ]] && is_ours=yes has_message=yes || is_ours=
    elif [[ -n $is_ours && -n ${4-} && $line == *"$4"* ]]; then
      has_advice=yes
    fi
  done < "$state/doctor"
  [[ -n $has_message ]] || fail "no $1 of $2 \"$3\" in: $(< "$state/doctor")"
  [[ -z ${4-} || -n $has_advice ]] || fail "no advice \"$4\" of $2 in: $(< "$state/doctor")"
}
