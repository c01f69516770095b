# 400 rounds of import, load and cut, each another way: the server has as many descriptors and threads
# and as much memory as before, usbfs as much to give, and the local drivers have their devices.
limit=240
servers=usbferry

source "$vm/guest/gadget.sh"

scenario() {
  local drivers settings before after sound
  sound=$(local_device SOUND)
  plug_gadget high-speed SourceSink
  load_usbtest "$gadget_busid"
  drivers=$(local_drivers)
  settings=$(settings_of "$gadget_busid" "$sound")
  keep_no_freed_memory
  serve "$gadget_busid" "$sound"

  # By now all memory that is allocated once and kept has been allocated.
  rounds 20
  wait_for 10 "the local drivers" drivers_are "$drivers"
  before=$(server_holds "$gadget_busid")
  grow_less_than 512 400 rounds
  wait_for 10 "the local drivers" drivers_are "$drivers"
  after=$(server_holds "$gadget_busid")
  note "$after"
  [[ $after == "$before" ]] || fail "before: $before; after: $after"
  [[ $(settings_of "$gadget_busid" "$sound") == "$settings" ]] ||
    fail "other alternate settings than before"

  stop_server
  rmmod usbtest
  unplug_gadget
}

# The sound card, whose driver takes long to come back, in few of the rounds.
rounds() { # count
  step "$1 rounds"
  python3 "$vm/guest/rounds.py" 127.0.0.1 "$1" \
    "$gadget_busid" "$gadget_busid" "$gadget_busid" "$gadget_busid" "$sound" \
    2> "$state/rounds" || fail "$(tail -n 1 "$state/rounds")"
}

drivers_are() { [[ $(local_drivers) == "$1" ]]; }

settings_of() { # device...
  local device
  for device in "$@"; do cat "/sys/bus/usb/devices/$device:"*/bAlternateSetting; done
}
