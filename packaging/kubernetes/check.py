"""What packaging/kubernetes/check does, in a network namespace of its own."""

import os
import pathlib
import subprocess
import sys
import tempfile
import time
import urllib.request

import kubernetes_validate
import yaml

# The newest version of kubernetes-validate's schemas, and the oldest that Kubernetes itself supports.
VERSIONS = ("1.37", "1.35")

# Longest wait for anything, in seconds.
PATIENCE = 60


def objects():
    text = pathlib.Path("usbferry.yaml").read_text()
    return {each["kind"]: each for each in yaml.safe_load_all(text)}


def wait(what, condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            sys.exit(f"packaging/kubernetes/check: FAILED: waited {PATIENCE} s in vain: {what}")
        time.sleep(0.05)


def probed(probe):
    """Whether the kubelet's request is answered with a status that it takes for success."""
    where = probe["httpGet"]
    url = f"http://{where['host']}:{where['port']}{where['path']}"
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return 200 <= answer.status < 400
    except OSError:
        return False


def run(usbferry, container, settings):
    """The container's command, with its volume of settings in a directory and with simulated devices."""
    mounts = {each["name"]: each["mountPath"] for each in container["volumeMounts"]}
    with tempfile.TemporaryDirectory() as folder:
        for name, text in settings.items():
            (pathlib.Path(folder) / name).write_text(text)
        arguments = [each.replace(mounts["settings"], folder) for each in container["args"]]
        meaning = [usbferry, "check-config", f"{folder}/usbferry.toml"]
        said = subprocess.run(meaning, capture_output=True, text=True)
        assert said.returncode == 0 and "without a fault" in said.stdout, said
        server = subprocess.Popen(
            [usbferry, "serve", *arguments, "--simulate=serial,loopback"],
            env={**os.environ, "RUNTIME_DIRECTORY": folder},
        )
        try:
            for probe in ("livenessProbe", "readinessProbe"):
                wait(probe, lambda probe=probe: probed(container[probe]))
            port = next(each["containerPort"] for each in container["ports"])
            listed = [usbferry, "list", "--remote", f"10.1.2.3:{port}"]
            listed = subprocess.run(listed, check=True, capture_output=True, text=True).stdout
            assert "1209:0004" in listed and "1209:0001" in listed, listed
        finally:
            server.terminate()
        assert server.wait(PATIENCE) == 0


def main(usbferry):
    found = objects()
    for version in VERSIONS:
        for each in found.values():
            kubernetes_validate.validate(each, version, strict=True)
    spec = found["DaemonSet"]["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    volumes = {each["name"] for each in spec["volumes"]}
    assert volumes == {each["name"] for each in container["volumeMounts"]}, volumes
    # The node's address, which the settings admit.
    for command in ("link set lo up", "address add 10.1.2.3/32 dev lo"):
        subprocess.run(["ip", *command.split()], check=True)
    run(usbferry, container, found["ConfigMap"]["data"])
    print(f"usbferry.yaml fits Kubernetes {' and '.join(VERSIONS)}, and its command serves")


main(*sys.argv[1:])
