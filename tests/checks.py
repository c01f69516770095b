"""Checks of a test that runs programs: the first that fails ends the test."""

import sys
import time


class Checks:
    """The checks of the test with a title, whose conditions may take `patience` seconds."""

    def __init__(self, title, patience):
        self.title, self.patience, self.passed = title, patience, 0

    def check(self, what, condition, shown=""):
        if not condition:
            sys.exit(f"{self.title}: FAILED: {what}: {shown}")
        print(f"ok: {what}", flush=True)
        self.passed += 1

    def wait(self, what, condition):
        """Waits until a condition is true, and returns its value."""
        deadline = time.monotonic() + self.patience
        while not (value := condition()):
            if time.monotonic() > deadline:
                sys.exit(f"{self.title}: FAILED: not within {self.patience} s: {what}")
            time.sleep(0.1)
        return value
