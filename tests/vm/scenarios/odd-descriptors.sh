# Devices with odd descriptors (guest/odd.py): usbferry serves each device as its own kernel has
# read the device, and the client's kernel comes to the same result. docs/descriptors.md has the
# table.
limit=600
servers=usbferry
zoo=yes

scenario() {
  local line
  modprobe usbserial
  echo "1209 0005" > /sys/bus/usb-serial/drivers/generic/new_id
  start_usbferry 3240 --device 1209:0005 --device 0926:0202
  start odd python3 "$vm/guest/odd.py" cases 3240
  while read -r line; do
    case $line in
      *' wrong') break ;;
      *) note "$line" ;;
    esac
  done < <(tail -n +1 -f --pid="$started" "$state/odd")
  wait "$started" || fail "$(grep -c '^WRONG' "$state/odd") cases: $(grep -m 1 '^WRONG' "$state/odd" || tail -n 1 "$state/odd")"
  stop_server
}
