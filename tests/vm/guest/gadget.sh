# Gadgets on dummy_hcd. Sourced by the scenarios that plug, unplug or change a gadget.

gadget=/sys/kernel/config/usb_gadget/test
gadget_serial=SOURCESINK

# Plugs in a gadget of functions, an interface each: SourceSink, Loopback, mass_storage.
plug_gadget() { # speed: high-speed or super-speed, function...
  local speed=$1 function
  shift
  step "plug the gadget, $speed: $*"
  modprobe -a libcomposite usb_f_ss_lb usb_f_mass_storage
  modprobe dummy_hcd is_super_speed=1
  # After the modules, since configfs shows only the functions known when mounted.
  mountpoint -q /sys/kernel/config || mount -t configfs configfs /sys/kernel/config
  mkdir -p "$gadget"/{strings/0x409,configs/c.1/strings/0x409}
  # Gadget zero's numbers, which usbtest's table has.
  echo 0x0525 > "$gadget/idVendor"
  echo 0xa4a0 > "$gadget/idProduct"
  echo "$speed" > "$gadget/max_speed"
  echo "$gadget_serial" > "$gadget/strings/0x409/serialnumber"
  echo "source and sink" > "$gadget/strings/0x409/product"
  for function in "$@"; do
    mkdir -p "$gadget/functions/$function.0"
    [[ $function != mass_storage ]] || give_disk "$gadget/functions/$function.0/lun.0/file"
    ln -s "$gadget/functions/$function.0" "$gadget/configs/c.1/"
  done
  connect_gadget
}

# A disk of 8 MiB with the contents of $state/disk.img.
give_disk() { # attribute that takes a file's name
  head -c 8M /dev/urandom > "$state/disk.img"
  echo "$state/disk.img" > "$1"
}

# As if the cable were pulled and put back.
disconnect_gadget() { echo > "$gadget/UDC"; }
connect_gadget() {
  ls /sys/class/udc > "$gadget/UDC"
  wait_for 20 "the gadget" gadget_there
  gadget_busid=$(local_device "$gadget_serial")
}
gadget_there() {
  local busid
  busid=$(local_device "$gadget_serial")
  [[ -n $busid && -e /sys/bus/usb/devices/$busid/$busid:1.0 ]]
}

# Removes the gadget, and the modules too.
unplug_gadget() {
  local function
  step "unplug the gadget"
  [[ -z $(< "$gadget/UDC") ]] || disconnect_gadget
  wait_for 15 "the gadget to go" device_gone "$gadget_busid"
  for function in "$gadget"/functions/*; do
    rm "$gadget/configs/c.1/${function##*/}"
    rmdir "$function"
  done
  rmdir "$gadget"/{configs/c.1/strings/0x409,configs/c.1,strings/0x409} "$gadget"
  rmmod dummy_hcd
}

# usbtest binds every such device present at its loading: the gadget, so that there is a driver to
# give back, or the gadget's image on vhci, while the server has the gadget itself.
load_usbtest() { # device
  modprobe usbtest
  wait_for 20 "usbtest to take $1" has_driver "$1" usbtest
}
