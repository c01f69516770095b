# Gadgets on dummy_hcd. Sourced by the scenarios that plug one in, unplug it, or make it another.

gadget=/sys/kernel/config/usb_gadget/test
gadget_serial=SOURCESINK

# Plugs in a gadget of functions such as SourceSink and Loopback, an interface each.
plug_gadget() { # speed: high-speed or super-speed, function...
  local speed=$1 function
  shift
  step "plug the gadget, $speed: $*"
  modprobe -a libcomposite usb_f_ss_lb
  modprobe dummy_hcd is_super_speed=1
  # After the modules: configfs shows what was there when it was mounted.
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
    ln -s "$gadget/functions/$function.0" "$gadget/configs/c.1/"
  done
  connect_gadget
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

# Ends it for good, and the modules with it.
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

# The driver that takes the gadget where it is plugged in, so that there is one to give back.
load_usbtest() {
  modprobe usbtest
  wait_for 20 "usbtest to take $gadget_busid" has_driver "$gadget_busid" usbtest
}
