# The kernel's usbtest driver on a SuperSpeed gadget: all cases that the gadget can serve.
limit=240

source "$vm/guest/usbtest.sh"
scenario() { usbtest super-speed; }
