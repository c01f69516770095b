"""Importing this module registers the resources and the driver with labgrid.

Where `.pth` files are not read, an environment file can say `imports: [labgrid_usbferry.plugin]`.
"""

from .driver import USBFerryDriver
from .resource import NetworkUSBFerryDevice, USBFerryDevice

__all__ = ["NetworkUSBFerryDevice", "USBFerryDevice", "USBFerryDriver"]
