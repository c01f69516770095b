# Two machines: the exporter's is this machine, the client's a network namespace. The client finds the
# exporter by multicast DNS, from the name of the device alone, and the kernel has the device. Then labgrid
# lends the device: coordinator, exporter and client as pinned in packaging/labgrid. A place is acquired, the
# package's driver attaches the device, and the release of the place takes the device away from the client.
limit=400
servers=usbferry

source "$vm/guest/network.sh"
source "$vm/guest/client.sh"

labgrid=$(cd "$vm/../.." && pwd)/target/labgrid/bin
coordinator=$server_address:20408

scenario() {
  local busid
  [[ -x $labgrid/labgrid-client ]] || fail "no labgrid in $labgrid: packaging/labgrid/setup"
  busid=$(local_device STICKXHCI)
  make_network
  start_usbferry 3240 --listen "$server_address:3240" --allow "$client_address/32" --advertise \
    --device "stick=$busid"
  found_by_name "$busid"
  start_labgrid
  lent_by_labgrid "$busid"
  stop_server
  remove_network
}

found_by_name() { # busid
  step "usbferry attach stick"
  vhci_before=$(echo $(vhci_devices))
  in_network "$usbferry" attach stick >> "$log/$name.client.log" 2>&1
  wait_for 20 "the stick on vhci" new_vhci_device
  attached=$(new_vhci_device_name)
  has_right_data
  must_not_have "$1" usb-storage
  [[ $("$usbferry" status) == *"lent to $client_address"* ]] || fail "status: $("$usbferry" status)"
  "$usbferry" port | grep -qF "usbip://$server_address:3240/stick" ||
    fail "usbferry port: $("$usbferry" port)"
  "$usbferry" detach stick 2>> "$log/$name.client.log"
  wait_for 20 "$attached to go away" device_gone "$attached"
  wait_for 15 "$1 to be released" released "$1" usb-storage
  note "found by name, and detached again"
}

# The coordinator and labgrid's exporter, whose imports take long under emulation.
start_labgrid() {
  step "start labgrid"
  # labgrid's drivers run programs on pseudo-terminals.
  mountpoint -q /dev/pts || mount -t devpts -o ptmxmode=666 --mkdir devpts /dev/pts
  cat > "$state/exporter.yaml" << 'EXPORTER'
bench:
  stick:
    cls: USBFerryDevice
    match:
      name: stick
EXPORTER
  start coordinator "$labgrid/labgrid-coordinator" --listen "$coordinator"
  coordinator_pid=$started
  # labgrid's exporter ends without a coordinator.
  wait_for 90 "the coordinator" listening_or_dead 20408 "$coordinator_pid"
  start exporter "$labgrid/labgrid-exporter" --coordinator "$coordinator" --name desk \
    --hostname "$server_address" "$state/exporter.yaml"
  exporter_pid=$started
}

lent_by_labgrid() { # busid
  local since person
  since=$EPOCHREALTIME
  cat > "$state/env.yaml" << ENVIRONMENT
targets:
  main:
    resources:
      RemotePlace:
        name: box
    drivers:
    - USBFerryDriver:
        timeout: 60
tools:
  usbferry: $usbferry
ENVIRONMENT
  export LG_COORDINATOR=$coordinator LG_HOSTNAME=$client_address LG_USERNAME=ann
  # Without the folder of the program, whose serial.py is not the package of the name.
  start person ip netns exec client "$labgrid/python" -P "$vm/guest/person.py" "$state/env.yaml"
  person=$started
  wait_for 120 "the place's device" said_or_dead person 'attached .*' "$person"
  attached=$(sed -n 's/^attached //p' "$state/person")
  [[ -n $attached ]] || person_failed
  note "attached by labgrid's driver as $attached after $(seconds_between "$since" "$EPOCHREALTIME") s"
  has_right_data
  must_not_have "$1" usb-storage
  [[ $("$usbferry" status) == *"lent to $client_address"* ]] || fail "status: $("$usbferry" status)"

  step "labgrid-client release"
  in_network "$labgrid/labgrid-client" -p box release >> "$log/$name.client.log" 2>&1
  since=$EPOCHREALTIME
  wait_for 20 "$attached to go away" device_gone "$attached"
  note "taken away by the release within $(seconds_between "$since" "$EPOCHREALTIME") s"
  wait_for 15 "$1 to be released" released "$1" usb-storage
  [[ $("$usbferry" status) != *"lent to"* ]] || fail "status: $("$usbferry" status)"
  [[ $("$usbferry" port --json) == *'"ports":[]'* ]] || fail "port: $("$usbferry" port --json)"
  wait_for 30 "the person's program to end" process_gone "$person"
  wait "$person" || person_failed
  kill "$exporter_pid" "$coordinator_pid"
  wait "$exporter_pid" "$coordinator_pid" 2> /dev/null || true
}

person_failed() {
  cat "$state"/{coordinator,exporter,person}
  fail "the person's program ended: $(tail -n 1 "$state/person")"
}

has_right_data() {
  wait_for 30 "the disk of $attached" block_device_of "$attached"
  dd if="$(block_device_of "$attached")" bs=1M count=2 iflag=direct status=none |
    cmp - <(head -c 2M "$run/stick-xhci.img") || fail "other data than on the stick"
}
