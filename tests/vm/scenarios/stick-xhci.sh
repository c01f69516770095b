# A SuperSpeed USB stick on xHCI: bulk both ways, checked against the file behind it.
limit=90

source "$vm/guest/stick.sh"
scenario() { stick STICKXHCI "$run/stick-xhci.img"; }
