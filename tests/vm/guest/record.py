#!/usr/bin/env python3
"""Stands between a client and the server, passes every message on, and records what the client sends.

  record.py PORT HOST SERVERPORT COMMANDS

Listens on PORT of this machine, one client at a time; the server is at HOST:SERVERPORT. On the port
COMMANDS it takes one word a connection, and answers with a line when it has been done, or can't be:

  table             what was recorded since the last one: a line for each endpoint
  speed N           from the next import on, the device is said to have that speed
  close, reset      ends the session for the client, between two messages
  half              ends it after half a header
  unknown           sends a reply to a URB that was never submitted
  command           sends a message that is no reply
  long              the next reply that has data says that it has more than was asked for
  packets           the next isochronous reply says that it has no packets, and brings none
  silent            nothing more comes from the server

What is done to a reply waits for the next one; a session that is silent has its socket open. Ends
when it is killed. Says "listening" when it does.
"""

import collections
import contextlib
import socket
import struct
import sys
import threading

OP = struct.Struct(">HHI")
HEADER = struct.Struct(">IIIII Iiiii 8s")
DEVICE_LEN, PACKET_LEN, SPEED_AT = 312, 16, 0x128
CMD_SUBMIT, CMD_UNLINK, RET_SUBMIT, RET_UNLINK = 1, 2, 3, 4
IN = 1
# Seconds that a command waits for its reply.
WAIT = 60
REQ_IMPORT, REP_IMPORT = 0x8003, 0x0003


class Endpoint:
    """What the SUBMITs of one endpoint had in their headers."""

    def __init__(self):
        self.count = 0
        self.flags, self.packets, self.starts, self.intervals = (collections.Counter() for _ in range(4))
        self.lengths, self.setups = collections.Counter(), collections.Counter()
        self.gaps = 0
        self.unlinked = 0

    def add(self, flags, length, start, packets, interval, setup):
        self.count += 1
        self.flags[flags] += 1
        self.packets[packets] += 1
        self.starts[start] += 1
        self.intervals[interval] += 1
        self.lengths[length] += 1
        if setup != bytes(8):
            self.setups[f"{setup[0]:02x}{setup[1]:02x} {setup[3]:02x}xx {length}"] += 1

    def __str__(self):
        said = (
            f"{self.count} URBs, length {span(self.lengths)}, flags {span(self.flags, hex)}, "
            f"np {span(self.packets)}, start_frame {span(self.starts)}, interval {span(self.intervals)}"
        )
        if self.unlinked:
            said += f", {self.unlinked} unlinked"
        if self.setups:
            said += f"; {', '.join(sorted(self.setups))}"
        return said


def span(values, form=str):
    """A few values as they are, many as the least and the greatest."""
    if len(values) <= 6:
        return " ".join(form(value) for value in sorted(values))
    return f"{form(min(values))} to {form(max(values))}, {len(values)} values"


class Closed(OSError):
    """The other end is gone."""


def receive(from_socket, length):
    data = bytearray()
    while len(data) < length:
        try:
            piece = from_socket.recv(length - len(data))
        except OSError as error:
            raise Closed(error.strerror) from None
        if not piece:
            raise Closed("end of stream")
        data += piece
    return bytes(data)


class Session:
    """One client, and its connection to the server."""

    def __init__(self, recorder, client):
        self.recorder, self.client = recorder, client
        self.server = socket.create_connection(recorder.server)
        for end in (client, self.server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # Of URBs without an answer: endpoint, direction, length, packets.
        self.pending = {}
        self.wish = None
        self.reset = False
        self.wished = threading.Event()
        self.lock = threading.Lock()
        # Keeps the messages of two threads apart.
        self.sending = threading.Lock()

    def run(self):
        request = receive(self.client, OP.size)
        code = OP.unpack(request)[1]
        if code == REQ_IMPORT:
            request += receive(self.client, 32)
        self.server.sendall(request)
        if not self.pass_reply_on():
            return
        back = threading.Thread(target=self.pass_replies, daemon=True)
        back.start()
        try:
            while True:
                self.pass_request()
        except Closed as closed:
            self.recorder.say(f"the client: {closed}")
        finally:
            # Ends the other thread.
            with contextlib.suppress(OSError):
                self.server.shutdown(socket.SHUT_RDWR)
        back.join()

    def pass_reply_on(self):
        """The reply to a request before the session; whether it begins one."""
        reply = receive(self.server, OP.size)
        _, code, status = OP.unpack(reply)
        if code != REP_IMPORT or status:
            self.client.sendall(reply)
            while piece := self.server.recv(65536):
                self.client.sendall(piece)
            return False
        device = bytearray(receive(self.server, DEVICE_LEN))
        if self.recorder.speed is not None:
            struct.pack_into(">I", device, SPEED_AT, self.recorder.speed)
        self.client.sendall(reply + device)
        return True

    def pass_request(self):
        header = receive(self.client, HEADER.size)
        command, seqnum, _, direction, number, flags, length, start, packets, interval, setup = (
            HEADER.unpack(header)
        )
        payload = b""
        if command == CMD_SUBMIT:
            if direction != IN:
                payload = receive(self.client, length)
            descriptors = packets if 0 < packets <= 1024 else 0
            payload += receive(self.client, PACKET_LEN * descriptors)
            with self.lock:
                endpoint = self.recorder.endpoint(number, direction)
                endpoint.add(flags, length, start, packets, interval, setup)
                self.pending[seqnum] = (direction, length, descriptors, endpoint)
        else:
            with self.lock:
                urb = self.pending.get(flags)
                if urb:
                    urb[3].unlinked += 1
        try:
            self.server.sendall(header + payload)
        except OSError as error:
            raise Closed(f"the server is gone ({error.strerror})") from None

    def pass_replies(self):
        try:
            while True:
                header = receive(self.server, HEADER.size)
                payload = self.payload_of(header)
                if self.wish == "silent":
                    self.done()
                    while True:
                        receive(self.server, 1)
                header, payload = self.spoil(header, payload)
                with self.sending:
                    self.client.sendall(header + payload)
        except OSError:
            # The server is done, or the client; a server's end is passed on.
            if not self.reset:
                with contextlib.suppress(OSError):
                    self.client.shutdown(socket.SHUT_WR)

    def payload_of(self, header):
        command, seqnum, *_, actual, _, _, _, _ = HEADER.unpack(header)
        if command != RET_SUBMIT:
            return b""
        with self.lock:
            direction, _, packets, _ = self.pending.pop(seqnum)
        data = receive(self.server, actual) if direction == IN else b""
        return data + receive(self.server, PACKET_LEN * packets)

    def spoil(self, header, payload):
        """The reply as it is to be, if somebody wished for something."""
        fields = list(HEADER.unpack(header))
        if self.wish == "long" and fields[0] == RET_SUBMIT and payload and not fields[8]:
            fields[6] = 1 << 20
            payload += bytes((1 << 20) - len(payload))
        elif self.wish == "packets" and fields[0] == RET_SUBMIT and fields[8] > 0:
            payload = payload[: -PACKET_LEN * fields[8]]
            fields[8] = 0
        else:
            return header, payload
        self.done()
        return HEADER.pack(*fields), payload

    def done(self):
        self.wish = None
        self.wished.set()

    def grant(self, wish):
        """Does what a line on the port for commands wishes; whether it could be done."""
        reply = HEADER.pack(RET_SUBMIT, 0x7FFFFFF0, 0, 0, 0, 0, 0, 0, 0, 0, bytes(8))
        if wish in ("long", "packets", "silent"):
            self.wished.clear()
            self.wish = wish
            return self.wished.wait(WAIT)
        with self.sending:
            if wish == "reset":
                # Wakes the reader, and sends nothing; closing is then a reset.
                self.reset = True
                self.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.client.shutdown(socket.SHUT_RD)
            elif wish == "close":
                self.client.shutdown(socket.SHUT_WR)
            elif wish == "half":
                self.client.sendall(reply[:24])
                self.client.shutdown(socket.SHUT_WR)
            elif wish == "unknown":
                self.client.sendall(reply)
            elif wish == "command":
                self.client.sendall(HEADER.pack(9, *HEADER.unpack(reply)[1:]))
            else:
                raise ValueError(wish)
        return True


class Recorder:
    def __init__(self, port, host, server_port, commands):
        self.server = (host, server_port)
        self.listener = socket.create_server(("127.0.0.1", port))
        self.commands = socket.create_server(("127.0.0.1", commands))
        self.speed = None
        self.session = None
        self.endpoints = {}

    def endpoint(self, number, direction):
        return self.endpoints.setdefault((number, direction), Endpoint())

    def say(self, line):
        print(line, flush=True)

    def run(self):
        threading.Thread(target=self.take_commands, daemon=True).start()
        self.say("listening")
        while True:
            client, _ = self.listener.accept()
            self.session = Session(self, client)
            try:
                self.session.run()
            except OSError as error:
                self.say(f"before a session: {error}")
            client.close()
            self.session.server.close()

    def take_commands(self):
        while True:
            connection, _ = self.commands.accept()
            with connection, connection.makefile("rw") as lines:
                word, *arguments = lines.readline().split()
                lines.write(self.obey(word, *arguments) + "\n")

    def obey(self, word, *arguments):
        if word == "table":
            said = "\n".join(
                f"{number} {'IN' if direction else 'OUT'}: {self.endpoints[number, direction]}"
                for number, direction in sorted(self.endpoints)
            )
            self.endpoints = {}
            return said
        if word == "speed":
            self.speed = int(arguments[0])
        elif not self.session.grant(word):
            return "not done: no such reply came"
        return "done"


if __name__ == "__main__":
    port, host, server_port, commands = sys.argv[1:]
    Recorder(int(port), host, int(server_port), int(commands)).run()
