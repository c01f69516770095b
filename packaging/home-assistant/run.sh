#!/bin/sh
# Turns the add-on's options into a command line. With an allowed network the server listens on all
# addresses, else for this machine alone.
set -eu
options=${OPTIONS:-/data/options.json}
set -- serve
while IFS= read -r allowed; do
  [ -z "$allowed" ] || set -- "$@" --allow "$allowed"
done << END
$(jq -r '.allow[]?' "$options")
END
[ $# -eq 1 ] || set -- "$@" --listen :3240
while IFS= read -r device; do
  [ -z "$device" ] || set -- "$@" --device "$device"
done << END
$(jq -r '.devices[]?' "$options")
END
[ "$(jq -r .all "$options")" != true ] || set -- "$@" --all
exec "${USBFERRY:-/usr/bin/usbferry}" "$@"
