# A client outside of a rule's addresses, in a network namespace of its own: neither the list nor an
# import by any name shows the device, while a client inside has both, and a device for everybody is
# there for both.
limit=120
servers=usbferry

source "$vm/guest/gadget.sh"
source "$vm/guest/network.sh"
source "$vm/guest/rules.sh"

scenario() {
  local stick asked outside
  stick=$(local_device STICKEHCI)
  plug_gadget high-speed SourceSink
  make_network
  write_rules << RULES
[[rule]]
id = "0525:a4a0"
name = "secret"
clients = ["127.0.0.1", "::1"]

[[rule]]
busid = "$stick"
RULES
  serve_rules --listen "$server_address:3240" --listen 127.0.0.1:3240 --allow "$client_address/32"

  step "outside"
  outside=$(in_network python3 "$vm/guest/usbip.py" "$server_address" list)
  [[ $outside == "$stick "* && $outside != *$'\n'* ]] || fail "a client outside sees: $outside"
  for asked in secret "$gadget_busid" 0525:a4a0 0525:a4a0:SOURCESINK serial:SOURCESINK nosuch; do
    outside=$(import_outside "$asked")
    [[ $outside == 4 ]] || fail "a client outside is answered $outside when asking for $asked"
  done
  outside=$(import_outside "$stick")
  [[ $outside == 0 ]] || fail "a client outside is answered $outside for the stick"

  step "inside"
  [[ $(remote_busids | sort | xargs) == "$(printf '%s\n' "$stick" secret | sort | xargs)" ]] ||
    fail "a client inside sees: $(remote_busids | xargs)"
  attach secret
  [[ $(serial_of "$attached") == "$gadget_serial" ]] || fail "secret is another device"
  step "outside, while a client inside has the device"
  outside=$(import_outside secret)
  [[ $outside == 4 ]] || fail "a client outside is answered $outside for a device in use"
  detach "$attached"
  wait_for 15 "$stick to be released" released "$stick" usb-storage
  stop_server
  remove_network
  unplug_gadget
}

# The status of an import. ST_NA (1) says that a scan for an unknown name did not come back in time,
# as happens on a busy machine: asked again.
import_outside() { # name
  local status
  while status=$(in_network python3 "$vm/guest/usbip.py" "$server_address" import "$1"); do
    [[ $status == 1 ]] || break
  done
  echo "$status"
}
