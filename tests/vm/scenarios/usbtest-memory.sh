# The kernel's usbtest driver while usbfs has little memory: once because of a low limit with a
# share for the device, and once because another program has nearly all memory. URBs wait for each
# other, and none fails for want of memory.
limit=240
servers=usbferry

source "$vm/guest/gadget.sh"

# 32 URBs of 2 KiB at a time (5 to 8), control transfers (10), 32 of 128 KiB at a time (27, 28).
cases=5-8,10,27,28
size=131072
memory_limit=/sys/module/usbcore/parameters/usbfs_memory_mb

scenario() {
  local hog had
  had=$(< $memory_limit)
  plug_gadget high-speed SourceSink

  note "usbfs has 1 MiB"
  echo 1 > $memory_limit
  with_little_memory "share of the system's memory"
  echo "$had" > $memory_limit

  note "another program has all but 256 KiB of usbfs's memory"
  start hog python3 "$vm/guest/usbfs.py" hog "$(local_device KEYBOARD)" $((256 << 10))
  hog=$started
  wait_until_said 20 hog holding
  with_little_memory "memory.* is used up"
  kill -KILL "$hog"
  wait "$hog" 2> /dev/null || true
  unplug_gadget
}

with_little_memory() { # what the log says of that
  start_usbferry 3240 --device "$gadget_busid" --log debug
  attach "$gadget_busid"
  load_usbtest "$attached"
  python3 "$vm/guest/usbtest.py" "$attached" "$cases" "$channel" $size || fail "not all cases pass"
  # Otherwise no URB had to wait, and the scenario proves nothing.
  grep -q "$1" "$log/$name.server.log" || fail "the log does not say: $1"
  rmmod usbtest
  detach "$attached"
  wait_for 15 "$gadget_busid to be released" released "$gadget_busid" none
  stop_server
}
