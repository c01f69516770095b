"""What tests/web/run checks, once the tools are there."""

import atexit
import json
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1]))

from browser import Browser
from checks import Checks
from usbip import Client, Load

TOP = pathlib.Path(__file__).resolve().parents[2]
DASHBOARD = TOP / "packaging/grafana/usbferry.json"
RULES = TOP / "packaging/prometheus"

# The simulated loopback device: its bulk IN endpoint, its texts, and texts of the same lengths that a
# malicious device might have.
SOURCE = 1
MALICE = {"usbferry": "<script>", "Simulated loopback": "<b id=evil>B</b>!!"}

# The longest wait for a condition, in seconds.
PATIENCE = 60

CHECKS = Checks("tests/web/run", PATIENCE)
check, wait = CHECKS.check, CHECKS.wait


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def get(address):
    try:
        with urllib.request.urlopen(address, timeout=30) as answer:
            return answer.read().decode()
    except (urllib.error.URLError, ConnectionError):
        return ""


class Server:
    """usbferry on ports of its own."""

    def __init__(self, binary, folder, *arguments):
        self.port, self.http = free_port(), free_port()
        self.page = f"http://127.0.0.1:{self.http}/"
        self.process = subprocess.Popen(
            [binary, "serve", f"--listen=127.0.0.1:{self.port}", f"--http=127.0.0.1:{self.http}",
             f"--socket={folder}/{self.port}.sock", "--advertise", *arguments])
        atexit.register(self.process.kill)
        wait("the server is ready", lambda: get(self.page + "readyz") == "ready\n")

    def stop(self):
        self.process.terminate()
        check("the server ends in order", self.process.wait(PATIENCE) == 0)


def malicious_recording(binary, folder):
    """The recording of a loopback device, with texts that are markup."""
    path = f"{folder}/device.pcapng"
    server = Server(binary, folder, "--simulate=loopback", f"--capture={path}")
    client = Client(server.port, "1-1")
    for index in range(4):
        client.string(index)
    client.close()
    server.stop()
    recording = pathlib.Path(path).read_bytes()
    for text, malice in MALICE.items():
        assert len(text) == len(malice)
        found = text.encode("utf-16-le")
        check(f"the recording has the text {text}", found in recording)
        recording = recording.replace(found, malice.encode("utf-16-le"))
    pathlib.Path(path).write_bytes(recording)
    return path


def lint(server):
    """promtool's opinion of the metrics: no output at all."""
    metrics = get(server.page + "metrics")
    lint = subprocess.run(["promtool", "check", "metrics"], input=metrics, text=True,
                          capture_output=True, timeout=PATIENCE)
    said = lint.stdout + lint.stderr
    check("promtool finds no fault in /metrics", lint.returncode == 0 and not said, said)


def check_rules():
    """The alerts parse, and come when they should and not else."""
    for command, file in (("check", "usbferry-rules.yml"), ("test", "usbferry-rules-test.yml")):
        ended = subprocess.run(["promtool", command, "rules", file], cwd=RULES, text=True,
                               capture_output=True, timeout=PATIENCE)
        said = ended.stdout + ended.stderr
        check(f"promtool {command} rules", ended.returncode == 0 and "FAILED" not in said, said)
    rules, tests = ((RULES / file).read_text()
                    for file in ("usbferry-rules.yml", "usbferry-rules-test.yml"))
    for alert in re.findall(r"alert: (\w+)", rules):
        check(f"{alert} is tested both ways", len(re.findall(rf"alertname: {alert}\b", tests)) > 1)


def discovered(binary, servers):
    """The servers as usbferry finds them for Prometheus, without those of others."""
    own = {f"127.0.0.1:{server.http}" for server in servers}

    def look():
        listed = subprocess.run([binary, "list", "--discover", "--prometheus-sd"], check=True,
                                capture_output=True, text=True, timeout=PATIENCE).stdout
        found = [group for group in json.loads(listed) if own & set(group["targets"])]
        return len(found) == len(own) and found

    return wait("usbferry finds its servers for Prometheus", look)


class Prometheus:
    """A Prometheus with the alerts that scrapes discovered servers each second."""

    def __init__(self, targets, folder):
        config = f"{folder}/prometheus.yml"
        pathlib.Path(f"{folder}/targets.json").write_text(json.dumps(targets))
        pathlib.Path(config).write_text(
            "global:\n  scrape_interval: 1s\n"
            f"rule_files: ['{RULES / 'usbferry-rules.yml'}']\n"
            "scrape_configs:\n  - job_name: usbferry\n"
            "    file_sd_configs:\n      - files: ['targets.json']\n")
        self.port = free_port()
        self.process = subprocess.Popen(
            ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder}/tsdb",
             f"--web.listen-address=127.0.0.1:{self.port}", "--log.level=error"])
        atexit.register(self.process.kill)
        wait("Prometheus has scraped all",
             lambda: len(self.query("up == 1")) == len(targets))

    def query(self, expression):
        """The values of an expression; none before there are any."""
        address = f"http://127.0.0.1:{self.port}/api/v1/query?"
        try:
            with urllib.request.urlopen(
                    address + urllib.parse.urlencode({"query": expression}), timeout=30) as answer:
                return json.load(answer)["data"]["result"]
        except urllib.error.HTTPError as error:
            if error.code == 503:  # It starts.
                return []
            sys.exit(f"tests/web/run: FAILED: {expression}: {error.read().decode()}")
        except (urllib.error.URLError, ConnectionError):
            return []

    def end(self):
        self.process.terminate()
        self.process.wait(PATIENCE)


def expressions():
    """The title of each panel of the dashboard, with an expression."""
    dashboard = json.loads(DASHBOARD.read_text())
    panels = dashboard["panels"]
    identities = [panel["id"] for panel in panels]
    check("the dashboard's panels have numbers of their own",
          len(set(identities)) == len(identities) and dashboard["uid"] == "usbferry")
    for panel in panels:
        assert panel["type"] == "row" or panel["targets"], panel["title"]
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            yield f"the variable {variable['name']}", variable["query"]["query"]


def query_dashboard(prometheus):
    """Each expression has data while a session runs, with the dashboard's variables filled in."""
    for title, expression in expressions():
        if match := re.fullmatch(r"label_values\((.*), \w+\)", expression):
            expression = match[1]
        filled = expression.replace("$__rate_interval", "5s").replace("$__range", "5s")
        filled = filled.replace("$instance", ".*").replace("$device", ".*")
        check(f"the dashboard's \"{title}\" leaves no variable", "$" not in filled, filled)
        wait(f"data of \"{title}\": {filled}", lambda: prometheus.query(filled))
        check(f"the dashboard's \"{title}\" has data", True)


def query_many(prometheus, targets):
    """Devices in the same place of several servers stay apart, by the server's name, too."""
    rate = "sum by (instance, busid) (rate(usbferry_endpoint_bytes_total[5s])) > 0"
    wait("both servers move data", lambda: len({
        one["metric"]["instance"] for one in prometheus.query(rate)}) == len(targets))
    names = {one["metric"]["exporter"] for one in prometheus.query("usbferry_build_info")}
    check("each server has its name as a label",
          names == {group["labels"]["exporter"] for group in targets}, names)
    alerts = prometheus.query('ALERTS{alertstate="firing"}')
    check("no alert comes of servers at work", not alerts, alerts)


TEXT = "document.body.innerText"
RATE = r"/\d(\.\d+)? ?[kMG]?B\/s/"


def look_at_page(server, folder, pictures):
    browser = Browser(f"{folder}/profile")
    try:
        browser.look(1280, 800, "light")
        browser.open(server.page)
        browser.wait("both sessions", "document.querySelectorAll('#sessions article').length === 2")
        browser.wait("a rate that is not zero",
                     "[...document.querySelectorAll('#sessions .big.in')]"
                     ".some((rate) => /^[1-9].*B\\/s$/.test(rate.textContent))")
        browser.wait("lines of rates",
                     "document.querySelectorAll('svg.line path[d*=L]').length > 5")
        text = browser.evaluate(TEXT)
        for part in ("serving", "stick", "client 127.0.0.1:", "Endpoints", "1 bulk in", "p99", "free", "lent"):
            check(f"the page shows {part}", part in text or part in
                  browser.evaluate("document.body.textContent"), text)
        for malice in MALICE.values():
            check(f"the page shows {malice} as text", malice in text, text)
        check("no element comes from a device's text",
              browser.evaluate("document.getElementById('evil') === null"
                               " && document.scripts.length === 1"))
        for name, width, height, scheme in (("desktop-light", 1280, 800, "light"),
                                            ("desktop-dark", 1280, 800, "dark"),
                                            ("phone-light", 390, 844, "light"),
                                            ("phone-dark", 390, 844, "dark")):
            browser.look(width, height, scheme)
            time.sleep(3 if pictures else 0.2)
            check(f"nothing is cut off at {width} pixels", browser.evaluate(
                f"document.documentElement.scrollWidth <= {width}"
                " && [...document.querySelectorAll('.wide')]"
                ".every((one) => one.scrollWidth <= one.clientWidth)"))
            browser.screenshot(f"{pictures or folder}/{name}.png")
        check("a keyboard reaches the button and the tables", browser.evaluate(
            "[...document.querySelectorAll('button, .wide')].every((one) => one.tabIndex === 0)"))
        browser.evaluate("document.getElementById('pause').click()")
        check("the page can be paused", browser.evaluate(
            "document.getElementById('pause').getAttribute('aria-pressed') === 'true'"))
        browser.evaluate("document.getElementById('pause').click()")
        own = {server.page, server.page + "status.json"}
        foreign = {address for address in browser.addresses()
                   if not address.startswith("data:")} - own
        check("the page asks for nothing but itself and its data", not foreign, foreign)
        check("the page has no fault", not browser.faults(), browser.faults())
        server.stop()
        browser.wait("a word that the server is gone",
                     "!document.getElementById('alarm').hidden")
        check("the page says that the server is gone", True)
    finally:
        browser.end()


def main(binary, pictures):
    for tool in ("promtool", "prometheus"):
        if shutil.which(tool) is None:
            sys.exit(f"tests/web/run: there is no {tool}; install the Debian package prometheus")
    if pictures:
        pathlib.Path(pictures).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        recording = malicious_recording(binary, folder)
        server = Server(binary, folder, f"--simulate=replay:{recording},disk,loopback:delay=1ms,"
                        "loopback,serial", "--device=stick=1-3", f"--capture={folder}/all.pcapng")
        lint(server)
        loads = [Load(server.port, busid, SOURCE, length, depth)
                 for busid, length, depth in (("1-3", 1 << 16, 4), ("1-4", 1 << 12, 8))]
        check_rules()
        second = Server(binary, folder, "--simulate=disk,disk,loopback:delay=1ms")
        other = Load(second.port, "1-3", SOURCE, 1 << 12, 1)
        targets = discovered(binary, (server, second))
        prometheus = Prometheus(targets, folder)
        query_dashboard(prometheus)
        query_many(prometheus, targets)
        other.stop()
        second.stop()
        lint(server)
        look_at_page(server, folder, pictures)
        prometheus.end()
        del loads
    print(f"{CHECKS.passed} passed, 0 failed")


main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None)
