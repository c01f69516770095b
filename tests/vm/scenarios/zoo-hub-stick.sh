# A stick with two LUNs behind a hub, at full speed: each LUN is a disk with the contents of its own
# file.
limit=180
zoo=yes

source "$vm/guest/zoo.sh"

scenario() {
  local lun
  for lun in 0 1; do head -c $((1 + lun))M /dev/urandom > "$run/lun$lun"; done
  plug_hub
  plug "drive_add 0 if=none,id=lun0,format=raw,file=$host_run/lun0" \
    "drive_add 0 if=none,id=lun1,format=raw,file=$host_run/lun1" \
    "device_add usb-bot,bus=xhci.0,port=4.1,id=bot" \
    "device_add scsi-hd,bus=bot.0,scsi-id=0,lun=0,drive=lun0" \
    "device_add scsi-hd,bus=bot.0,scsi-id=0,lun=1,drive=lun1" \
    "qom-set /machine/peripheral/bot attached true"
  wait_for 30 "the local driver" has_driver "$plugged" usb-storage
  attach_and_release "$plugged" usb-storage judge
  unplug "$plugged" bot
  unplug_hub
}

judge() {
  local lun
  [[ $(< "/sys/bus/usb/devices/$attached/speed") == 12 ]] || fail "not at full speed"
  for lun in 0 1; do
    # The disks may come in any order.
    wait_for 60 "the disk of LUN $lun" disk_of_blocks $((2048 * (1 + lun)))
    compare_disk "$(disk_of_blocks $((2048 * (1 + lun))))" "$run/lun$lun"
  done
  note "both LUNs read, written and compared"
}

disk_of_blocks() { # how many
  local path
  path=$(grep -lx "$1" "$(readlink -f "/sys/bus/usb/devices/$attached")"/*/host*/target*/*/block/sd?/size)
  [[ -n $path ]] && path=${path%/size} && echo "/dev/${path##*/}"
}
