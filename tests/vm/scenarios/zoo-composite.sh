# A gadget of five functions and seven interfaces: disk, serial port, network, keyboard, printer.
# Each function has another driver at the client, and all five work.
limit=300
zoo=yes

source "$vm/guest/zoo.sh"

# A boot keyboard's report descriptor.
keyboard='\x05\x01\x09\x06\xa1\x01\x05\x07\x19\xe0\x29\xe7\x15\x00\x25\x01\x75\x01\x95\x08\x81\x02\x95\x01\x75\x08\x81\x03\x95\x05\x75\x01\x05\x08\x19\x01\x29\x05\x91\x02\x95\x01\x75\x03\x91\x03\x95\x06\x75\x08\x15\x00\x25\x65\x05\x07\x19\x00\x29\x65\x81\x00\xc0'

scenario() {
  need_program rz sz
  modprobe -a cdc-acm cdc_ether usblp
  head -c 1M /dev/urandom > "$state/disk.img"
  make_gadget 0x0005
  add_function 1 mass_storage.0 "lun.0/file=$state/disk.img"
  add_function 1 acm.0
  add_function 1 ecm.0 dev_addr=02:00:00:00:00:01 host_addr=02:00:00:00:00:02
  # Without an OUT endpoint: dummy_hcd's would have the number of the printer's.
  add_function 1 hid.0 no_out_endpoint=1 protocol=1 subclass=1 report_length=8 "report_desc=$keyboard"
  add_function 1 printer.0 'pnp_string=MFG:usbferry;MDL:gadget;CMD:TEXT;'
  connect_gadget
  wait_for 30 "the local drivers" all_drivers "$gadget_busid"
  attach_and_release "$gadget_busid" usb-storage judge
  wait_for 30 "the local drivers" all_drivers "$gadget_busid"
  remove_gadget
}

all_drivers() { # device
  local driver
  for driver in usb-storage cdc_acm cdc_ether usbhid usblp; do
    driver_on "$1" "$driver" || return 1
  done
}

judge() {
  local port input keys
  wait_for 60 "the five drivers of $attached" all_drivers "$attached"
  wait_for 60 "the disk of $attached" block_device_of "$attached"
  compare_disk "$(block_device_of "$attached")" "$state/disk.img"
  note "disk: read, written, compared"

  wait_for 20 "the port of $attached" tty_of "$attached"
  port=$(tty_of "$attached")
  zmodem "$port" /dev/ttyGS0 20000
  zmodem /dev/ttyGS0 "$port" 20000

  gadget_network ecm.0

  step "keys"
  wait_for 20 "the input device of $attached" input_of "$attached"
  input=$(input_of "$attached")
  start keys python3 "$vm/guest/keys.py" "$input" 2
  keys=$started
  wait_until_said 30 keys listening
  printf '\x00\x00\x04\x00\x00\x00\x00\x00' > /dev/hidg0
  printf '\x00\x00\x00\x00\x00\x00\x00\x00' > /dev/hidg0
  wait_for 30 "the keys" process_gone "$keys"
  [[ $(tail -n 2 "$state/keys" | xargs) == "30 1 30 0" ]] || fail "keys: $(< "$state/keys")"
  note "keyboard: a key"

  printer
}

printer() {
  local lp reader
  step "print"
  lp=$(node_of "$attached" usbmisc) || fail "no printer of $attached"
  head -c 50000 /dev/urandom > "$state/page"
  timeout $((60 * patience)) head -c 50000 /dev/g_printer0 > "$state/printed" &
  reader=$!
  cat "$state/page" > "$lp"
  wait "$reader" || fail "only $(stat -c %s "$state/printed") bytes were printed"
  cmp "$state/page" "$state/printed" || fail "another page was printed"
  grep -q 'MDL:gadget' "$(readlink -f "/sys/class/usbmisc/${lp##*/}/device")/ieee1284_id" ||
    fail "the printer does not say what it is"
  note "printer: 50,000 bytes, and what it says of itself"
}
