"""Headless Chromium over the pipe of its DevTools protocol: JSON with a NUL behind each message, on
the descriptors 3 (to the browser) and 4 (from the browser)."""

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import time

# Debian's name, and the name elsewhere.
NAMES = ("chromium", "chromium-browser")

# The longest wait for an answer or a condition, in seconds.
PATIENCE = 60


class Browser:
    def __init__(self, profile):
        program = next(filter(None, map(shutil.which, NAMES)), None)
        if program is None:
            sys.exit("tests/web/run: there is no chromium; install the Debian package chromium")
        to_browser, self.sender = os.pipe()
        self.receiver, from_browser = os.pipe()
        # In the shell, so that no descriptor of this process is moved.
        shell = f'exec "$0" "$@" 3<&{to_browser} 4>&{from_browser}'
        self.process = subprocess.Popen(
            ["bash", "-c", shell, program, "--headless=new", "--no-sandbox", "--disable-gpu",
             "--disable-dev-shm-usage", "--no-first-run", f"--user-data-dir={profile}",
             "--remote-debugging-pipe", "about:blank"],
            pass_fds=(to_browser, from_browser), stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(to_browser)
        os.close(from_browser)
        self.received, self.number, self.session, self.events = b"", 0, None, []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self.session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method, **params):
        """Calls a method, and keeps the events that come first."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.sender, json.dumps(message).encode() + b"\0")
        while True:
            answer = self.receive()
            if answer.get("id") == self.number:
                if "error" in answer:
                    sys.exit(f"tests/web/run: {method}: {answer['error']['message']}")
                return answer["result"]
            self.events.append(answer)

    def receive(self):
        while b"\0" not in self.received:
            if not select.select([self.receiver], [], [], PATIENCE)[0]:
                sys.exit("tests/web/run: chromium does not answer")
            part = os.read(self.receiver, 1 << 16)
            if not part:
                sys.exit("tests/web/run: chromium has ended; run it by hand for the reason")
            self.received += part
        message, self.received = self.received.split(b"\0", 1)
        return json.loads(message)

    def look(self, width, height, scheme):
        """The size of the window, and the preferred colours, light or dark."""
        mobile = width < 600
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height,
                  deviceScaleFactor=2 if mobile else 1, mobile=mobile)
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.call("Emulation.setEmulatedMedia", features=[feature])

    def open(self, address):
        self.call("Page.navigate", url=address)

    def evaluate(self, expression):
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        if "exceptionDetails" in result:
            sys.exit(f"tests/web/run: {expression}: {result['exceptionDetails']}")
        return result["result"].get("value")

    def wait(self, what, expression):
        """Waits for a condition of the page."""
        deadline = time.monotonic() + PATIENCE
        while not self.evaluate(expression):
            if time.monotonic() > deadline:
                text = self.evaluate("document.body.innerText")
                sys.exit(f"tests/web/run: not within {PATIENCE} s: {what}\n{text}")
            time.sleep(0.1)

    def screenshot(self, path):
        """The whole page as a picture."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        picture = self.call("Page.captureScreenshot", format="png", clip=clip,
                            captureBeyondViewport=True)
        with open(path, "wb") as file:
            file.write(base64.b64decode(picture["data"]))

    def faults(self):
        """Exceptions, and errors such as a part that the page's policy forbids."""
        faults = [event["params"] for event in self.events
                  if event.get("method") == "Runtime.exceptionThrown"]
        entries = [event["params"]["entry"] for event in self.events
                   if event.get("method") == "Log.entryAdded"]
        return faults + [entry for entry in entries if entry["level"] == "error"]

    def addresses(self):
        """Everything that was asked for."""
        requests = [event for event in self.events
                    if event.get("method") == "Network.requestWillBeSent"]
        return {event["params"]["request"]["url"] for event in requests}

    def end(self):
        self.process.kill()
        self.process.wait()
