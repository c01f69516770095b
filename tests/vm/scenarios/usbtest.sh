# The kernel's usbtest driver on a high-speed gadget: all cases that the gadget can serve.
limit=240

source "$vm/guest/usbtest.sh"
scenario() { usbtest high-speed; }
