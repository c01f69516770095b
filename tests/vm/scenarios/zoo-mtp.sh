# An MTP device: gphoto2, a libusb program, lists a folder at the client, gets a file and puts a
# file.
limit=240
zoo=yes

source "$vm/guest/zoo.sh"

scenario() {
  need_program gphoto2
  mkdir -p "$run/mtp"
  head -c 700000 /dev/urandom > "$run/mtp/picture.jpg"
  plug "device_add usb-mtp,bus=ehci.0,id=mtp,rootdir=$host_run/mtp,readonly=off"
  attach_and_release "$plugged" none judge
  unplug "$plugged" mtp
}

judge() {
  local port folder
  port=usb:$(printf %03d "$(< "/sys/bus/usb/devices/$attached/busnum")"),$(
    printf %03d "$(< "/sys/bus/usb/devices/$attached/devnum")")
  photo() {
    gphoto2 --quiet --port "$port" --camera "USB PTP Class Camera" "$@" > "$state/gphoto2" 2>&1 ||
      fail "gphoto2 $*: $(tail -n 3 "$state/gphoto2")"
  }
  step "gphoto2 --list-files"
  photo --list-files
  cat "$state/gphoto2"
  folder=$(cd /tmp && gphoto2 --port "$port" --camera "USB PTP Class Camera" --list-folders |
    sed -n "s/.*'\(.*store_[0-9a-f]*\)'.*/\1/p" | tail -1)
  [[ -n $folder ]] || fail "no store in it: $(tail -n 3 "$state/gphoto2")"
  step "gphoto2 --get-file and --upload-file"
  photo --folder "$folder" --get-file picture.jpg --filename "$state/got.jpg" --force-overwrite
  cmp "$run/mtp/picture.jpg" "$state/got.jpg" || fail "another file than on the device"
  head -c 300000 /dev/urandom > "$state/put.jpg"
  photo --folder "$folder" --upload-file "$state/put.jpg"
  cmp "$state/put.jpg" "$run/mtp/put.jpg" || fail "another file on the device than was sent"
  note "700,000 bytes got and 300,000 put in $folder"
}
