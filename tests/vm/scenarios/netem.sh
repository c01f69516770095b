# A stick over a network with a delay of 50 ms and a loss of 1 % each way: attached, read and written
# with nothing lost or changed, and not taken for dead.
limit=180
servers=usbferry

source "$vm/guest/network.sh"
source "$vm/guest/stick.sh"

scenario() {
  local stick disk expected=$state/expected.img since
  stick=$(local_device STICKXHCI)
  cp "$run/stick-xhci.img" "$expected"
  make_network
  modprobe sch_netem
  tc qdisc add dev server-end root netem delay 50ms loss 1%
  in_network tc qdisc add dev client-end root netem delay 50ms loss 1%
  serve_network "$stick"

  attach_from_network "$stick"
  wait_for 60 "the disk of $attached" block_device_of "$attached"
  disk=$(block_device_of "$attached")
  since=$EPOCHREALTIME
  step "read 2 MiB"
  read_direct "$disk" "$state/read.img" 0 2
  cmp "$state/read.img" <(head -c 2M "$expected") || fail "what was read differs"
  step "write 1 MiB, read back"
  head -c 1M /dev/urandom > "$state/written.img"
  dd if="$state/written.img" of="$disk" bs=1M seek=3 oflag=direct conv=fsync status=none
  dd if="$state/written.img" of="$expected" bs=1M seek=3 conv=notrunc status=none
  read_direct "$disk" "$state/read.img" 3 1
  cmp "$state/read.img" "$state/written.img" || fail "read back differs from what was written"
  note "4 MiB in $(seconds_between "$since" "$EPOCHREALTIME") s, $(lost) packets lost"
  (($(lost) > 0)) || fail "not one packet was lost"

  detach "$attached"
  wait_for 15 "$stick to be released" released "$stick" usb-storage
  stop_server
  remove_network
  cmp "$run/stick-xhci.img" "$expected" || fail "the file behind the stick lacks what was written"
}

# Number of packets dropped by netem, both ways.
lost() {
  (tc -s qdisc show dev server-end && in_network tc -s qdisc show dev client-end) |
    sed -n 's/.*(dropped \([0-9]*\),.*/\1/p' | awk '{sum += $1} END {print sum + 0}'
}

# Attaches the busid from the client's network; leaves the name of the new device in $attached.
attach_from_network() { # busid
  step "usbip attach -b $1 from the other network"
  vhci_before=$(echo $(vhci_devices))
  in_network "${packaged[@]}" "$cache/root/usr/sbin/usbip" attach -r "$server_address" -b "$1"
  wait_for 60 "the device of $1 on vhci" new_vhci_device
  attached=$(new_vhci_device_name)
}
