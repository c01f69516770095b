# The scenario of the USB sticks: read the whole stick over USB/IP, write, read back, and see the
# local driver have the stick again afterwards with the written data.

checksum() { sha256sum "$1" | cut -d' ' -f1; }

# Reads past every cache of this guest.
read_direct() { # device, file, megabytes to skip, megabytes
  dd if="$1" of="$2" bs=1M skip="$3" count="$4" iflag=direct status=none
}

stick() { # serial, the file behind the stick
  local busid disk expected megabytes=16
  busid=$(local_device "$1")
  expected=$state/expected.img
  cp "$2" "$expected"

  serve "$busid"
  remote_busids | grep -qx "$busid" || fail "usbip list -r does not show $busid"
  attach "$busid"
  must_not_have "$busid" usb-storage
  wait_for 30 "the disk of $attached" block_device_of "$attached"
  disk=$(block_device_of "$attached")

  step "read $megabytes MiB"
  read_direct "$disk" "$state/read.img" 0 $megabytes
  [[ $(checksum "$state/read.img") == "$(checksum "$expected")" ]] ||
    fail "what was read differs from the file behind the stick"

  step "write 3 MiB, read back"
  head -c 3M /dev/urandom > "$state/written.img"
  dd if="$state/written.img" of="$disk" bs=1M seek=5 oflag=direct conv=fsync status=none
  dd if="$state/written.img" of="$expected" bs=1M seek=5 conv=notrunc status=none
  # Also a single sector: small transfers beside the large transfers.
  dd if="$state/written.img" of="$disk" bs=512 count=1 seek=7 oflag=direct conv=fsync status=none
  dd if="$state/written.img" of="$expected" bs=512 count=1 seek=7 conv=notrunc status=none
  read_direct "$disk" "$state/read.img" 0 $megabytes
  cmp "$state/read.img" "$expected" > /dev/null || fail "read back differs from what was written"

  detach "$attached"
  wait_for 15 "$busid to be released" released "$busid" usb-storage
  stop_server
  step "the local driver has it again"
  wait_for 20 "the local driver" has_driver "$busid" usb-storage
  wait_for 20 "the local disk" block_device_of "$busid"
  read_direct "$(block_device_of "$busid")" "$state/read.img" 0 $megabytes
  cmp "$state/read.img" "$expected" > /dev/null || fail "the local disk lacks what was written"
  cmp "$2" "$expected" > /dev/null || fail "the file behind the stick lacks what was written"
}
