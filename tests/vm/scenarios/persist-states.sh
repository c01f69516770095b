# A gadget that cycles among three product ids, as a device and its bootloader do, under one name of a
# rule, with `usbferry attach --persist` on the client: each of 50 states is attached and usable before
# the next, with the right product id, and none is lost.
limit=1200
measures=yes
servers=usbferry

source "$vm/guest/gadget.sh"
source "$vm/guest/client.sh"
cycles=50
products=(a4a0 a4a1 a4a2)
# Without emulation a state has to be usable within 2 s. Here the hub's own work and a scan take
# seconds on a busy machine.
bound=10

scenario() {
  local state_number product since
  plug_gadget high-speed SourceSink
  # By the port, too: the same machine has the device a second time on vhci.
  cat > "$state/usbferry.toml" << RULES
[[rule]]
id = ["0525:a4a0", "0525:a4a1", "0525:a4a2"]
busid = "$gadget_busid"
name = "programmer"
RULES
  start_usbferry 3240 --config "$state/usbferry.toml"
  keep_attached '' 127.0.0.1 programmer
  wait_attached 30
  : > "$state/usable"
  for ((state_number = 1; state_number <= cycles; state_number++)); do
    product=${products[state_number % 3]}
    step "state $state_number: $product"
    disconnect_gadget
    wait_for 10 "the gadget to go" device_gone "$gadget_busid"
    echo "0x$product" > "$gadget/idProduct"
    connect_gadget
    since=$EPOCHREALTIME
    wait_for $bound "$product on vhci" attached_as "$product"
    echo "$(seconds_between "$since" "$EPOCHREALTIME")" >> "$state/usable"
  done
  note "usable after $(median_and_most "$state/usable")"
  (($(said_times "attached to port") == cycles + 1)) ||
    fail "$(said_times "attached to port") attaches for $((cycles + 1)) states"
  end_client TERM
  stop_server
  unplug_gadget
}

# Whether the only device on vhci has the product id and its interface.
attached_as() { # product id
  keeper_has_device || return 1
  attached=$(vhci_devices)
  [[ $(< "/sys/bus/usb/devices/$attached/idProduct") == "$1" ]]
}
