# The kernel's usbtest driver on a SuperSpeed gadget: all cases within the gadget's abilities.
limit=240

source "$vm/guest/usbtest.sh"
scenario() { usbtest super-speed; }
