# A client killed in mid-transfer, with 64 bulk URBs under way: the device is free again at once and
# the local driver has it back. Once a gadget, both ways; once a stick, in the middle of a command. From
# there usb-storage recovers the stick now and then by a reset of the command's state, and sleeps for 6 s
# behind that (usb_stor_reset_common in drivers/usb/storage/transport.c); an import has to wait, since
# the driver lets go of the stick afterwards only.
limit=90
servers=usbferry

source "$vm/guest/gadget.sh"

scenario() {
  local stick expected=$state/expected.img
  stick=$(local_device STICKXHCI)
  head -c 4M "$run/stick-xhci.img" > "$expected"
  plug_gadget high-speed SourceSink
  load_usbtest "$gadget_busid"
  serve "$gadget_busid" "$stick"

  kill_client "$gadget_busid" usbtest 2 0 32 32 300
  kill_client "$stick" usb-storage 8 storage
  step "the local disk works"
  wait_for 20 "the local disk" block_device_of "$stick"
  dd if="$(block_device_of "$stick")" of="$state/read.img" bs=1M count=4 iflag=direct status=none
  cmp "$state/read.img" "$expected" || fail "the local disk has other data than before"

  stop_server
  rmmod usbtest
  unplug_gadget
}

kill_client() { # busid, local driver, seconds until the next import, argument of load.py...
  local busid=$1 driver=$2 bound=$3 killed_at
  shift 3
  start_load '' 127.0.0.1 "$busid" "$@"
  must_not_have "$busid" "$driver"
  await_free "$busid" 20
  step "kill the client"
  kill -KILL "$load"
  killed_at=$EPOCHREALTIME
  came_free "$killed_at" "$bound"
  wait "$load" 2> /dev/null || true
  wait_for 5 "the local driver" has_driver "$busid" "$driver"
}
