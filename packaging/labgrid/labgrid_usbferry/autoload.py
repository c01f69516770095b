"""Makes every program that imports labgrid import this package, too.

labgrid's environment files have `imports:`, and labgrid's pytest plugin reads these. The stock
`labgrid-exporter` reads no environment file and has no entry points, so a class of another package
is unknown there and its resource is exported as a constant. `labgrid-client` without an
environment refuses a place with a resource of an unknown class. So `labgrid_usbferry.pth`, read at
the start of Python, imports this module, which waits for the imports of `FOLLOWERS`.

The cost for other programs of the environment is a finder that compares a name. Nothing but `sys`
is imported before labgrid is.
"""

import sys

# What is imported behind which module of labgrid.
FOLLOWERS = {
    "labgrid": "labgrid_usbferry.plugin",
    "labgrid.remote.exporter": "labgrid_usbferry.export",
}


class _Finder:
    """Finds the modules of `FOLLOWERS` as everybody does, and imports the follower behind."""

    def __init__(self):  # type: ignore[no-untyped-def]
        self.searching = False

    def find_spec(self, fullname, path=None, target=None):  # type: ignore[no-untyped-def]
        if self.searching or fullname not in FOLLOWERS:
            return None
        import importlib.util

        self.searching = True
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            self.searching = False
        if spec is not None and spec.loader is not None:
            _follow(spec.loader, FOLLOWERS[fullname])
        return spec


def _follow(loader, follower):  # type: ignore[no-untyped-def]
    execute = loader.exec_module

    def exec_module(module):  # type: ignore[no-untyped-def]
        execute(module)
        _import(follower)

    loader.exec_module = exec_module


def _import(name):  # type: ignore[no-untyped-def]
    import importlib
    import warnings

    try:
        importlib.import_module(name)
    except Exception as error:  # labgrid must work where this package does not
        warnings.warn(f"{name} is not loaded: {error!r}", stacklevel=2)


if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
    sys.meta_path.insert(0, _Finder())
