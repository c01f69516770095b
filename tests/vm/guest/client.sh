# usbferry as the client. Sourced by scenarios.

# Attaches a device of this machine's server with `usbferry attach`; leaves the name of the new device
# in $attached.
ferry_attach() { # busid [argument...]
  step "usbferry attach 127.0.0.1 $*"
  vhci_before=$(echo $(vhci_devices))
  "$usbferry" attach 127.0.0.1 "$@" >> "$log/$name.client.log" 2>&1
  wait_for 20 "the device of $1 on vhci" new_vhci_device
  attached=$(new_vhci_device_name)
}

# Starts `usbferry attach --persist`; $keeper is its process, for which the first argument may not be a
# function.
keep_attached() { # command that runs it or '', argument...
  local within=$1
  shift
  step "usbferry attach $* --persist"
  $within "$usbferry" attach "$@" --persist >> "$log/$name.client.log" 2>&1 &
  keeper=$!
}

# Waits for the only device on vhci, with its interfaces; leaves its name in $attached.
wait_attached() { # seconds
  wait_for "$1" "the device to come" keeper_has_device
  attached=$(vhci_devices)
}
keeper_has_device() {
  local devices
  process_gone "$keeper" && fail "the client ended: $(tail -n 1 "$log/$name.client.log")"
  devices=$(vhci_devices)
  [[ -n $devices && $devices != *$'\n'* && -n $(drivers_of "$devices") ]]
}
wait_lost() { wait_for "$1" "the device to go" no_vhci_device; } # seconds
no_vhci_device() { [[ -z $(vhci_devices) ]]; }

# How often the client has said the words.
said_times() { grep -cF -- "$1" "$log/$name.client.log"; } # words

# Ends the client by a signal or waits for its own end, which must be in order.
end_client() { # [signal]
  local status=0
  [[ -z ${1-} ]] || kill "-$1" "$keeper"
  wait_for 20 "the client to end" process_gone "$keeper"
  wait "$keeper" || status=$?
  ((status == 0)) || fail "usbferry attach ended with status $status: $(tail -n 1 "$log/$name.client.log")"
  wait_lost 20
}

# The median and the largest of the numbers in a file.
median_and_most() { # file
  sort -n "$1" | awk '{v[NR] = $1} END {printf "%.2f s, at most %.2f s", v[int((NR + 1) / 2)], v[NR]}'
}
