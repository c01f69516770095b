# The time from the kernel's message about a replugged device to the answer of an import by nickname,
# VID:PID, VID:PID:SERIAL or serial:…, for a client that runs already and asks again at once.
limit=180
measures=yes
servers=usbferry

source "$vm/guest/gadget.sh"
source "$vm/guest/rules.sh"
# Milliseconds, in the median.
bound=$((150 * patience))

scenario() {
  serve_programmer
  step "import after a replug"
  python3 "$vm/guest/replugs.py" 127.0.0.1 "$gadget" 40 "$bound" \
    "${programmer_names[@]}" > "$state/replugs" 2>&1 ||
    fail "$(tail -n 1 "$state/replugs")"
  note "$(< "$state/replugs")"
  stop_server
  unplug_gadget
}
