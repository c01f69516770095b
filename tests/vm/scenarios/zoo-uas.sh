# A UAS disk at high speed: the client's uas driver has commands, status and data in flight side by side.
limit=120
zoo=yes

source "$vm/guest/zoo.sh"

scenario() {
  head -c 4M /dev/urandom > "$run/uas"
  plug "drive_add 0 if=none,id=uas-disk,format=raw,file=$host_run/uas" \
    "device_add usb-uas,bus=ehci.0,id=uas" \
    "device_add scsi-hd,bus=uas.0,scsi-id=0,lun=0,drive=uas-disk" \
    "qom-set /machine/peripheral/uas attached true"
  wait_for 30 "the local driver" has_driver "$plugged" uas
  attach_and_release "$plugged" uas judge
  unplug "$plugged" uas
}

judge() {
  local disk reader readers=()
  wait_for 60 "the disk of $attached" block_device_of "$attached"
  has_driver "$attached" uas || fail "not uas but $(drivers_of "$attached")"
  disk=$(block_device_of "$attached")
  compare_disk "$disk" "$run/uas"
  step "read at four places at once"
  for reader in 0 1 2 3; do
    dd if="$disk" bs=64K skip=$((reader * 16)) count=16 iflag=direct of="$state/part$reader" status=none &
    readers+=($!)
  done
  # Each reader by its number, since the server is a child, too.
  for reader in "${readers[@]}"; do wait "$reader" || fail "a reader failed"; done
  cat "$state"/part[0-3] | cmp - "$run/uas" || fail "what was read side by side differs"
  note "uas: read, written, four readers at once"
}
