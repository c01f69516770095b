# A device that its client cannot use does not affect other clients. While a device is attached that
# the client's kernel has given up, the server gives five disks to another client. After that device
# is detached, the disks are attached and all read at once, beside a device with 6,000 bytes of
# configuration, a size that an earlier version could not serve.
limit=480
servers=usbferry
zoo=yes

source "$vm/guest/program.sh"

count=5
gadgets=/sys/kernel/config/usb_gadget

scenario() {
  local number long long_program mute busids=() ports=()
  load_usbserial 0002
  plug_program long 6000
  long=$program_busid long_program=$program
  program_port=3251 program_place=1
  plug_program mute
  mute=$program_busid
  plug_disks
  for ((number = 0; number < count; number++)); do busids+=("$(local_device "DISK$number")"); done

  start_usbferry 3240 $(printf -- '--device %s ' "$mute" "$long" "${busids[@]}")
  attach_in_vain "$mute"
  for number in "${busids[@]}"; do
    [[ $(usbip_py 127.0.0.1 import "$number") == 0 ]] || fail "$number can't be imported"
  done
  detach_by_hand "$vain"
  wait_for 30 "$mute to be free" may_be_imported "$mute"

  attach "$long"
  ports+=("$attached")
  for number in "${!busids[@]}"; do
    attach "${busids[number]}"
    ports+=("$attached")
  done
  wait_for 30 "the port of ${ports[0]}" tty_of "${ports[0]}"
  loop_through "$(tty_of "${ports[0]}")" 10000
  read_disks "${ports[@]:1}"
  note "10,000 bytes through ${ports[0]}, and all of ${#busids[@]} disks at once"

  for number in "${ports[@]}"; do detach "$number"; done
  for number in "${busids[@]}"; do
    wait_for 30 "$number to be released" released "$number" usb-storage
  done
  stop_server
  unplug_disks
  unplug_program
  program=$long_program program_busid=$long
  unplug_program
}

# The first device on its controller; $vain then has its port.
attach_in_vain() { # busid
  local status=/sys/devices/platform/vhci_hcd.0/status
  step "usbip attach -b $1, in vain"
  vhci_before=$(echo $(vhci_devices))
  usbip_tool attach -r 127.0.0.1 -b "$1"
  wait_for 120 "the client's kernel to give $1 up" given_up
  [[ -z $(new_vhci_device_name) ]] || fail "the client can use $1"
  vain=$(awk '$1 == "hs" && $3 != "004" {print $2 + 0}' "$status")
  [[ $vain =~ ^[0-9]+$ ]] || fail "$1 is not attached: $(< "$status")"
}
# While a port has no device, every command of the tool fails ("open vhci_driver"), detach included:
# the tool looks in sysfs for the device of each port in use (usbip_vhci_driver_open).
detach_by_hand() { # port
  ! usbip_tool port > "$state/ports" 2>&1 || note "this tool does without the device of a port"
  echo "$1" > /sys/devices/platform/vhci_hcd.0/detach
}
may_be_imported() { [[ $(usbip_py 127.0.0.1 import "$1") == 0 ]]; } # busid
given_up() { dmesg | sed "1,/scenario $name begins/d" | grep -q 'unable to enumerate USB device'; }

read_disks() { # device...
  local number disk pid readers=()
  for number in "${!busids[@]}"; do
    disk=${*:number+1:1}
    wait_for 60 "the disk of $disk" block_device_of "$disk"
    disk=$(block_device_of "$disk")
    cmp <(dd if="$disk" bs=64K iflag=direct status=none) "$state/disk$number" &
    readers+=($!)
  done
  step "read all disks at once"
  for pid in "${readers[@]}"; do wait "$pid" || fail "a disk has other bytes than its gadget"; done
}

plug_disks() {
  local number gadget
  step "plug $count disks"
  modprobe -a libcomposite usb_f_mass_storage
  modprobe dummy_hcd num=$count
  mountpoint -q /sys/kernel/config || mount -t configfs configfs /sys/kernel/config
  for ((number = 0; number < count; number++)); do
    gadget=$gadgets/disk$number
    mkdir -p "$gadget"/{strings/0x409,configs/c.1/strings/0x409} "$gadget/functions/mass_storage.0"
    echo 0x1209 > "$gadget/idVendor"
    echo 0x000c > "$gadget/idProduct"
    echo high-speed > "$gadget/max_speed"
    echo "DISK$number" > "$gadget/strings/0x409/serialnumber"
    head -c 2M /dev/urandom > "$state/disk$number"
    echo "$state/disk$number" > "$gadget/functions/mass_storage.0/lun.0/file"
    ln -s "$gadget/functions/mass_storage.0" "$gadget/configs/c.1/"
    echo "dummy_udc.$number" > "$gadget/UDC"
  done
  for ((number = 0; number < count; number++)); do
    wait_for 60 "disk $number" disk_there "DISK$number"
  done
}
disk_there() { # serial
  local device
  device=$(local_device "$1")
  [[ -n $device ]] && has_driver "$device" usb-storage
}

unplug_disks() {
  local gadget
  step "unplug the disks"
  for gadget in "$gadgets"/disk*; do
    echo > "$gadget/UDC"
    rm "$gadget/configs/c.1/mass_storage.0"
    rmdir "$gadget"/{configs/c.1/strings/0x409,configs/c.1,strings/0x409} \
      "$gadget/functions/mass_storage.0" "$gadget"
  done
  rmmod dummy_hcd
}
