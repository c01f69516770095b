# The kernel's usbtest driver on a high-speed gadget: all cases within the gadget's abilities.
limit=240

source "$vm/guest/usbtest.sh"
scenario() { usbtest high-speed; }
