# A stick is captured, and the recording is exported as a device: the kernel finds the same partition
# there, with the same bytes.
limit=180
servers=usbferry

source "$vm/guest/stick.sh"

first=2048 sectors=4096

scenario() {
  local busid disk capture=$state/stick.pcapng
  busid=$(local_device STICKEHCI)
  disk=$(block_device_of "$busid")
  read_direct "$disk" "$state/start.img" 0 1
  make_partition "$disk"

  start_usbferry 3240 --device "$busid" --capture "$capture" --capture-snaplen all
  attach "$busid"
  read_partition "$state/read.img"
  detach "$attached"
  wait_for 15 "$busid to be released" released "$busid" usb-storage
  stop_server
  note "$(stat -c %s "$capture") bytes of capture"
  cp "$capture" "$log/$name.pcapng"

  step "the recording as a device"
  simulate "replay:$capture"
  attach "$(simulated_busid)"
  read_partition "$state/again.img"
  [[ $(checksum "$state/read.img") == "$(checksum "$state/again.img")" ]] ||
    fail "the recorded partition differs from the stick's"
  detach "$attached"
  stop_server
  wait_for 20 "the local driver" has_driver "$busid" usb-storage
  wait_for 20 "the local disk" block_device_of "$busid"
  disk=$(block_device_of "$busid")
  dd if="$state/start.img" of="$disk" bs=512 count=1 oflag=direct conv=fsync status=none
}

# An MBR with a partition: the stick has random bytes.
make_partition() { # device
  local entry
  printf -v entry '\\x00\\x00\\x00\\x00\\x83\\x00\\x00\\x00%s%s' \
    "$(little_endian $first)" "$(little_endian $sectors)"
  {
    head -c 446 /dev/zero
    printf '%b' "$entry"
    head -c 48 /dev/zero
    printf '\x55\xaa'
  } > "$state/mbr"
  dd if="$state/mbr" of="$1" bs=512 count=1 oflag=direct conv=fsync status=none
}

little_endian() { # number
  printf '\\x%02x\\x%02x\\x%02x\\x%02x' $(($1 & 255)) $(($1 >> 8 & 255)) $(($1 >> 16 & 255)) \
    $(($1 >> 24))
}

# The bytes of the partition that the kernel has found on the attached device.
read_partition() { # file
  local disk
  wait_for 60 "the disk of $attached" block_device_of "$attached"
  disk=$(block_device_of "$attached")
  wait_for 60 "the partition of $attached" test -b "${disk}1"
  [[ $(< "/sys/class/block/${disk##*/}1/size") == "$sectors" ]] || fail "another partition"
  step "read the partition $1"
  dd if="${disk}1" of="$1" bs=64K iflag=direct status=none
  [[ $(stat -c %s "$1") == $((sectors * 512)) ]] || fail "the partition is not whole"
}
