"""The least of a USB/IP client: imports a device, reads descriptors, and keeps reads in flight."""

import socket
import struct
import threading

OUT, IN = 0, 1

# The request by which the simulated loopback device fails the next URB of endpoint 1 IN.
FAIL_NEXT = struct.pack("<BBHHH", 0x40, 0x13, 100, 0x81, 0)

# Of this number of URBs, the device fails one.
FAILS_OF = 500


class Client:
    def __init__(self, port, busid):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.sendall(struct.pack(">HHI32s", 0x0111, 0x8003, 0, busid.encode()))
        version, _, status = struct.unpack(">HHI", self.take(8))
        assert (version, status) == (0x0111, 0), f"{busid}: status {status}"
        record = self.take(312)
        busnum, devnum = struct.unpack(">II", record[288:296])
        self.devid = busnum << 16 | devnum
        self.seqnum = 0

    def take(self, length):
        data = bytearray()
        while len(data) < length:
            part = self.socket.recv(length - len(data))
            assert part, "the server has closed"
            data += part
        return bytes(data)

    def submit(self, endpoint, length, setup=bytes(8), direction=IN):
        """Sends a SUBMIT without data."""
        self.seqnum += 1
        head = struct.pack(">IIIII", 1, self.seqnum, self.devid, direction, endpoint)
        self.socket.sendall(head + struct.pack(">IIIII", 0, length, 0, 0, 0) + setup)

    def reply(self):
        """The status and the data of the next reply."""
        head = self.take(48)
        status, length = struct.unpack(">iI", head[20:28])
        return status, self.take(length)

    def string(self, index):
        """Reads a string descriptor."""
        setup = struct.pack("<BBHHH", 0x80, 6, 0x0300 | index, 0x0409 if index else 0, 255)
        self.submit(0, 255, setup)
        return self.reply()

    def close(self):
        self.socket.close()


class Load(threading.Thread):
    """Reads from an endpoint until stopped, with a number of reads in flight, of which some fail."""

    def __init__(self, port, busid, endpoint, length, depth):
        super().__init__(daemon=True)
        self.client, self.stopping = Client(port, busid), threading.Event()
        self.plan = endpoint, length, depth
        self.start()

    def run(self):
        endpoint, length, depth = self.plan
        for _ in range(depth):
            self.client.submit(endpoint, length)
        count = depth
        while not self.stopping.is_set():
            self.client.reply()
            count += 1
            if count % FAILS_OF == 0:
                self.client.submit(0, 0, FAIL_NEXT, OUT)
            else:
                self.client.submit(endpoint, length)

    def stop(self):
        self.stopping.set()
        self.join()
        self.client.close()
