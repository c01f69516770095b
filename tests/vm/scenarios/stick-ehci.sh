# A high-speed USB stick on EHCI: bulk both ways, checked against the file behind it.
limit=90

source "$vm/guest/stick.sh"
scenario() { stick STICKEHCI "$run/stick-ehci.img"; }
