# A user's work with the simulated disk: mounted, a file read, a file written, and the file still
# there after another attach.
limit=90
servers=usbferry

scenario() {
  local busid partition readable sum
  modprobe -a vfat nls_cp437 nls_ascii nls_iso8859-1
  mkdir -p /mnt
  head -c 300K /dev/urandom > "$state/written"

  simulate disk
  busid=$(simulated_busid)
  mount_disk rw
  readable=$(cd /mnt && find . -type f -size +0 | head -1)
  [[ -n $readable ]] || fail "there is no file with anything in it on the disk"
  sum=$(sha256sum < "/mnt/$readable")
  note "readable file: ${readable#./}, $(stat -c %s "/mnt/$readable") bytes"
  step "write a file"
  mkdir /mnt/folder
  cp "$state/written" "/mnt/folder/a file written.bin"
  umount /mnt
  detach "$attached"

  mount_disk ro
  step "read the file"
  cmp "$state/written" "/mnt/folder/a file written.bin" || fail "the file that was written differs"
  [[ $(sha256sum < "/mnt/$readable") == "$sum" ]] || fail "$readable is not what it was"
  umount /mnt
  detach "$attached"
  stop_server
}

mount_disk() { # rw or ro
  attach "$busid"
  wait_for 30 "the disk of $attached" block_device_of "$attached"
  partition=$(block_device_of "$attached")
  # With a partition table or without.
  [[ ! -e ${partition}1 ]] || partition+=1
  step "mount $partition $1"
  mount -t vfat -o "$1" "$partition" /mnt
}
