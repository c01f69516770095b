"""USB devices exported by usbferry, as resources of labgrid.

| module | part |
| --- | --- |
| `autoload` | makes labgrid's own commands import the rest |
| `plugin` | registers the resources and the driver with labgrid |
| `resource` | `USBFerryDevice` for the exporter, `NetworkUSBFerryDevice` for clients |
| `driver` | `USBFerryDriver`: attaches the device on the client's machine |
| `export` | the exporter's side: plugged in devices appear at the coordinator |
| `warden` | ends sessions of clients that do not hold the device's place |
| `authorize` | usbferry's hook: may this client have this device now? |
| `coordinator` | who holds which device, by the coordinator's word |
| `desk` | the socket of usbferry's operators |

This module imports nothing, since every Python program of the environment reads this module at its
start, also pytest, before pytest rewrites assertions: PYTEST_DONT_REWRITE.
"""
