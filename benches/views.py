#!/usr/bin/env python3
"""What answers cost: `show routes` of a large table beside single changes, `show protocols` of many sessions.

    sudo benches/views.py --margay target/fast/margay [--prefixes 1000000] [--sessions 5000] [--only dump]
    sudo benches/views.py --margay target/fast/margay --stations 8

Two network namespaces with a veth between them: margay in one, this script as three BGP speakers in the other. One feeds the
table, one changes a prefix again and again, one measures how long each change takes to reach it; meanwhile the command line
asks for everything. Nothing outside of the namespaces is touched, and both are removed at the end.
"""

import argparse
import ctypes
import os
import random
import select
import shutil
import socket
import struct
import subprocess
import tempfile
import threading
import time

NET = "10.254.0."
SELF = 1


def namespaces(tag):
    names = [f"mv{tag}a", f"mv{tag}b"]
    for name in names:
        subprocess.run(["ip", "netns", "add", name], check=True)
    ip = lambda name, *words: subprocess.run(["ip", "-n", name, *words], check=True)
    ip(names[0], "link", "add", "v0", "type", "veth", "peer", "name", "v0", "netns", names[1])
    for name in names:
        ip(name, "link", "set", "lo", "up")
        ip(name, "link", "set", "v0", "up")
    ip(names[0], "addr", "add", f"{NET}{SELF}/24", "dev", "v0")
    for host in (2, 3, 4):
        ip(names[1], "addr", "add", f"{NET}{host}/24", "dev", "v0")
    return names


def in_namespace(name):
    """Moves this process there, and what it starts from now on."""
    with open(f"/run/netns/{name}") as namespace:
        # os.setns came with Python 3.12.
        if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), 0x40000000) != 0:
            raise OSError(ctypes.get_errno(), "setns")


def message(kind, body):
    return b"\xff" * 16 + struct.pack(">HB", 19 + len(body), kind) + body


def update(nlri, path, med, hop):
    as_path = bytes([2, len(path)]) + b"".join(struct.pack(">I", asn) for asn in path)
    attributes = b"\x40\x01\x01\x00" + b"\x40\x02" + bytes([len(as_path)]) + as_path
    attributes += b"\x40\x03\x04" + socket.inet_aton(hop) + b"\x80\x04\x04" + struct.pack(">I", med)
    return message(2, struct.pack(">HH", 0, len(attributes)) + attributes + nlri)


class Speaker:
    """One eBGP session that answers nothing but the handshake."""

    def __init__(self, host):
        self.asn = 65000 + host
        self.address = f"{NET}{host}"
        self.socket = self.connected(time.monotonic() + 20)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        capabilities = b"\x01\x04\x00\x01\x00\x01" + b"\x41\x04" + struct.pack(">I", self.asn)
        options = b"\x02" + bytes([len(capabilities)]) + capabilities
        body = struct.pack(">BHH", 4, self.asn, 0) + socket.inet_aton(self.address)
        self.socket.sendall(message(1, body + bytes([len(options)]) + options))
        self.buffer = b""
        assert self.read()[0] == 1, "no OPEN"
        self.socket.sendall(message(4, b""))
        assert self.read()[0] == 4, "no KEEPALIVE"

    def connected(self, until):
        """margay may not listen yet."""
        while True:
            tried = socket.socket()
            tried.bind((self.address, 0))
            tried.settimeout(60)
            try:
                tried.connect((f"{NET}{SELF}", 179))
                return tried
            except ConnectionRefusedError:
                assert time.monotonic() < until, "margay does not listen"
                time.sleep(0.05)

    def read(self):
        while True:
            if len(self.buffer) >= 19:
                length, kind = struct.unpack(">HB", self.buffer[16:19])
                if len(self.buffer) >= length:
                    body, self.buffer = self.buffer[19:length], self.buffer[length:]
                    return kind, body
            read = self.socket.recv(1 << 20)
            assert read, "closed"
            self.buffer += read


def table(count, hop):
    """Seven /24s to a set of attributes, as in a table of the Internet."""
    random.seed(1)
    prefix = 0x14000000
    while count > 0:
        some = min(count, random.randint(1, 13))
        nlri = b"".join(struct.pack(">BI", 24, prefix + 256 * n)[:4] for n in range(some))
        prefix, count = prefix + 256 * some, count - some
        path = [65002] + [random.randint(1, 60000) for _ in range(random.randint(1, 6))]
        yield update(nlri, path, random.randint(0, 50), hop)


def cpu_seconds(pid):
    """Of all threads that there are; to the nanosecond, where stat has ticks of 10 ms."""
    tasks = os.listdir(f"/proc/{pid}/task")
    return sum(int(open(f"/proc/{pid}/task/{task}/schedstat").read().split()[0]) for task in tasks) / 1e9


def share(values, part):
    return sorted(values)[min(len(values) - 1, int(len(values) * part))]


def ask_bird(path, command):
    """As Calico's readers ask; seconds, and octets of the answer."""
    began = time.monotonic()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
        client.sendall(command.encode() + b"\n")
        octets, tail = 0, b""
        while not (tail.endswith(b"\n0000 \n") or b"\n0013 " in tail):
            read = client.recv(1 << 20)
            octets, tail = octets + len(read), (tail + read)[-64:]
    return time.monotonic() - began, octets


def memory(pid, key):
    """VmRSS or VmHWM, in octets."""
    lines = dict(line.split(":", 1) for line in open(f"/proc/{pid}/status") if line.startswith("Vm"))
    return int(lines[key].split()[0]) * 1024


class Changes:
    """Changes one prefix, waits until the other speaker hears of it, again and again."""

    def __init__(self, from_, to):
        self.from_, self.to, self.seen, self.going = from_, to, [], True
        self.number = 0

    def once(self):
        self.number += 1
        nlri = struct.pack(">BI", 32, 0x0A000001)
        began = time.monotonic()
        self.from_.socket.sendall(update(nlri, [self.from_.asn, 1 + self.number % 60000], 0, self.from_.address))
        while True:
            kind, body = self.to.read()
            if kind == 2 and nlri in body:
                return time.monotonic() - began

    def run(self):
        while self.going:
            self.seen.append(self.once())
            time.sleep(0.005)

    def during(self, act):
        """Latencies while `act` runs."""
        self.seen, self.going = [], True
        thread = threading.Thread(target=self.run)
        thread.start()
        try:
            return act(), self.seen
        finally:
            self.going = False
            thread.join()


def start(arguments, names, folder, text):
    path = os.path.join(folder, "margay.toml")
    with open(path, "w") as file:
        file.write(text)
    log = open(os.path.join(folder, "margay.log"), "w")
    command = ["ip", "netns", "exec", names[0], *arguments.priority.split(), arguments.margay, "run", "--config", path]
    daemon = subprocess.Popen(command, stderr=log)
    for _ in range(200):
        if os.path.exists(os.path.join(folder, "margay.sock")):
            return daemon
        time.sleep(0.05)
    raise SystemExit(open(log.name).read())


def config(folder, peers):
    control = f'[control]\nsocket = "{folder}/margay.sock"\nbird-sockets = ["{folder}/bird.ctl", "{folder}/bird6.ctl"]\n'
    return (f'[bgp]\nasn = 64512\nrouter-id = "{NET}{SELF}"\nhold-time = 0\nlisten = ["{NET}{SELF}:179"]\n'
            f'{control}[fib]\nenabled = false\n' + "".join(peers))


def peer(name, address, asn, export="all", more=""):
    return (f'[[bgp.peers]]\nname = "{name}"\naddress = "{address}"\nremote-asn = {asn}\nimport = "all"\n'
            f'export = "{export}"\npassive = true\n{more}')


def routes(arguments, names, folder):
    peers = [peer("feeder", f"{NET}2", 65002, "none"), peer("changer", f"{NET}3", 65003, "none"),
             peer("hearer", f"{NET}4", 65004, "probe")]
    policy = ('[[policy]]\nname = "probe"\n[[policy.rules]]\nmatch = { prefixes = ["10.0.0.1/32"] }\nthen = "accept"\n')
    daemon = start(arguments, names, folder, config(folder, peers) + policy)
    try:
        feeder, changer, hearer = Speaker(2), Speaker(3), Speaker(4)
        stream = b"".join(table(arguments.prefixes, f"{NET}2"))
        feeder.socket.sendall(stream + message(2, b"\0\0\0\0"))
        for speaker in (changer, hearer):
            speaker.socket.sendall(message(2, b"\0\0\0\0"))
        control = ["--socket", f"{folder}/margay.sock"]
        wait_loaded(arguments, daemon, control)
        changes = Changes(changer, hearer)
        changes.once()
        _, alone = changes.during(lambda: time.sleep(3))
        print(f"single changes alone: {describe(alone)}")

        def show(*words):
            def act():
                # From here on VmHWM is the peak of this command (proc(5), clear_refs).
                open(f"/proc/{daemon.pid}/clear_refs", "w").write("5")
                resident = memory(daemon.pid, "VmRSS")
                before, began = cpu_seconds(daemon.pid), time.monotonic()
                own = os.times()
                output = subprocess.Popen([*arguments.priority.split(), arguments.margay, *words, *control], stdout=subprocess.PIPE)
                octets, first = 0, None
                while read := output.stdout.read1(1 << 20):
                    first = first or time.monotonic() - began
                    octets += len(read)
                assert output.wait() == 0
                seconds, cpu = time.monotonic() - began, cpu_seconds(daemon.pid) - before
                client = os.times()
                client = client.children_user + client.children_system - own.children_user - own.children_system
                more = memory(daemon.pid, "VmHWM") - resident
                return seconds, first, cpu, client, octets, more
            (seconds, first, cpu, client, octets, more), seen = changes.during(act)
            print(f"margay {' '.join(words)}: first octet after {1000 * first:.0f} ms, all {seconds:.2f} s, {cpu:.2f} CPU s and "
                  f"{more / 1e6:.1f} MB more of the daemon, {client:.2f} CPU s of the client, {octets >> 20} MiB; "
                  f"single changes meanwhile: {describe(seen)}", flush=True)

        for _ in range(arguments.runs):
            show("dump")
        if arguments.only == "dump":
            return
        for _ in range(arguments.runs):
            show("show", "routes", "--json")
            show("show", "routes")
            show("show", "routes", "--peer", "feeder")
            show("show", "routes", "--as-path", "* 7 *")
        (seconds, octets), seen = changes.during(lambda: ask_bird(f"{folder}/bird.ctl", "show route"))
        print(f"bird.ctl show route: {seconds:.2f} s, {octets >> 20} MiB; single changes meanwhile: {describe(seen)}")
    finally:
        daemon.kill()
        daemon.wait()


def loads(arguments, names, folder):
    """The CPU time of loading the table, without and with debugging of the peer that sends it, in turns."""
    stream = b"".join(table(arguments.prefixes, f"{NET}2")) + message(2, b"\0\0\0\0")
    seen = {False: [], True: []}
    for number in range(2 * arguments.loads):
        is_debugged = number % 2 == 1
        place = tempfile.mkdtemp(dir=folder)
        daemon = start(arguments, names, place, config(place, [peer("feeder", f"{NET}2", 65002, "none")]))
        try:
            control = ["--socket", f"{place}/margay.sock"]
            if is_debugged:
                command = [arguments.margay, "debug", "feeder", "--for", "30m", *control]
                # The control socket is there before the peers are.
                while subprocess.run(command, capture_output=True).returncode != 0:
                    assert daemon.poll() is None, "margay ended"
                    time.sleep(0.05)
            feeder = Speaker(2)
            before = cpu_seconds(daemon.pid)
            feeder.socket.sendall(stream)
            wait_loaded(arguments, daemon, control)
            seen[is_debugged].append(cpu_seconds(daemon.pid) - before)
            log = os.path.getsize(os.path.join(place, "margay.log"))
            events = subprocess.run([arguments.margay, "events", *control], check=True, capture_output=True).stdout
            print(f"load{', debugged' if is_debugged else ''}: {seen[is_debugged][-1]:.2f} CPU s, "
                  f"{events.count(10)} lines of events, {log} octets of log", flush=True)
        finally:
            daemon.kill()
            daemon.wait()
    for is_debugged, cpu in seen.items():
        print(f"{arguments.prefixes} prefixes{', debugged' if is_debugged else ''}: median {share(cpu, 0.5):.2f} CPU s, "
              f"{min(cpu):.2f} to {max(cpu):.2f}")


# A station: reads everything, and prints when it was sent the last of that, and how much it was, whenever asked to.
STATION = """
import select, socket, sys, time
server = socket.create_server((sys.argv[1], 11019))
print("listens", flush=True)
station = server.accept()[0]
last, total = 0.0, 0
while True:
    for ready in select.select([station, sys.stdin], [], [])[0]:
        if ready is sys.stdin:
            if not sys.stdin.readline(): sys.exit()
            print(last, total, flush=True)
            continue
        read = len(station.recv(1 << 20))
        if read == 0: sys.exit()
        last, total = time.monotonic(), total + read
"""


def stations(arguments, names, folder):
    """Loading the table without and with a monitoring station, in turns."""
    stream = b"".join(table(arguments.prefixes, f"{NET}2")) + message(2, b"\0\0\0\0")
    seen = {False: [], True: []}
    entry = (f'[[bmp]]\nname = "noc"\naddress = "{NET}4"\nribs = ["loc-rib", "adj-rib-in-post-policy"]\n'
             "statistics-interval = false\n")
    for number in range(2 * arguments.stations):
        is_watched = number % 2 == 1
        place = tempfile.mkdtemp(dir=folder)
        station = None
        if is_watched:
            station = subprocess.Popen(["python3", "-c", STATION, f"{NET}4"], text=True, stdin=subprocess.PIPE,
                                       stdout=subprocess.PIPE)
            assert station.stdout.readline() == "listens\n"
        text = config(place, [peer("feeder", f"{NET}2", 65002, "none")]) + (entry if is_watched else "")
        daemon = start(arguments, names, place, text)
        try:
            control = ["--socket", f"{place}/margay.sock"]
            feeder = Speaker(2)
            time.sleep(1)
            before, began = cpu_seconds(daemon.pid), time.monotonic()
            feeder.socket.sendall(stream)
            wait_loaded(arguments, daemon, control, 0.02)
            loaded, cpu = time.monotonic(), cpu_seconds(daemon.pid) - before
            late, total = last_octets(station) if is_watched else (loaded, 0)
            after = cpu_seconds(daemon.pid) - before
            shed = subprocess.run([arguments.margay, "show", "bmp", "--json", *control], capture_output=True, text=True).stdout
            assert '"too_slow":0' in shed or not is_watched, shed
            seen[is_watched].append((loaded - began, cpu, after, late - loaded))
            print(f"load{', station' if is_watched else ''}: {loaded - began:.2f} s, {cpu:.2f} CPU s, {after:.2f} with the rest; "
                  f"last octet {late - loaded:+.2f} s, {total} octets", flush=True)
        finally:
            daemon.kill()
            daemon.wait()
            if station:
                station.kill()
                station.wait()
    for is_watched, of in seen.items():
        wall, cpu, after, late = ([one[n] for one in of] for n in range(4))
        print(f"{arguments.prefixes} prefixes{', station' if is_watched else ''}: median {share(wall, 0.5):.2f} s, "
              f"{share(cpu, 0.5):.2f} CPU s, {share(after, 0.5):.2f} with the rest; last octet {share(late, 0.5):+.2f} s")


def last_octets(station):
    """When a station was sent its last octet, once there were none for two seconds."""
    while True:
        station.stdin.write("\n")
        station.stdin.flush()
        last, total = station.stdout.readline().split()
        if float(last) + 2 < time.monotonic():
            return float(last), int(total)
        time.sleep(0.2)


def wait_loaded(arguments, daemon, control, pause=0.5):
    while True:
        assert daemon.poll() is None, "margay ended"
        status = subprocess.run([arguments.margay, "show", "status", "--json", *control], capture_output=True).stdout
        if f'"paths":{{"ipv4":{arguments.prefixes},'.encode() in status:
            return
        time.sleep(pause)


def sessions(arguments, names, folder):
    address = lambda n: f"10.{100 + n // 62500}.{n // 250 % 250}.{n % 250 + 1}"
    peers = [peer(f"Mesh_{address(n).replace('.', '_')}", address(n), 64512) for n in range(arguments.sessions)]
    daemon = start(arguments, names, folder, config(folder, peers))
    try:
        time.sleep(2)
        before, began = cpu_seconds(daemon.pid), time.monotonic()
        time.sleep(10)
        idle = (cpu_seconds(daemon.pid) - before) / (time.monotonic() - began)
        print(f"{arguments.sessions} sessions, nobody asks: {100 * idle:.4f} % of a core")
        for command in ("show protocols", "show status", "show protocols all"):
            before = cpu_seconds(daemon.pid)
            answers = [ask_bird(f"{folder}/bird.ctl", command) for _ in range(50)]
            cpu = (cpu_seconds(daemon.pid) - before) / 50
            seen = [seconds for seconds, _ in answers]
            print(f"bird.ctl {command}: {describe(seen)}, {1000 * cpu:.3f} CPU ms each, {answers[0][1] >> 10} KiB")
    finally:
        daemon.kill()
        daemon.wait()


def describe(seconds):
    return (f"median {1000 * share(seconds, 0.5):.2f} ms, p99 {1000 * share(seconds, 0.99):.2f} ms, "
            f"longest {1000 * max(seconds):.2f} ms (n = {len(seconds)})")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--margay", default="target/fast/margay")
    parser.add_argument("--prefixes", type=int, default=1_000_000)
    parser.add_argument("--sessions", type=int, default=5_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--loads", type=int, default=0, help="compare this many loads of the table without and with debugging")
    parser.add_argument("--stations", type=int, default=0, help="compare this many loads without and with a monitoring station")
    parser.add_argument("--only", choices=["dump"], help="measure margay dump, and nothing else")
    parser.add_argument("--priority", default="", help='put before margay, for example "chrt -r 5" on a busy machine')
    arguments = parser.parse_args()
    arguments.margay = os.path.abspath(arguments.margay)
    folder = tempfile.mkdtemp(prefix="margay-views-")
    names = namespaces(os.getpid() % 100_000)
    try:
        # This process speaks from the second namespace; threads and children are in it too.
        in_namespace(names[1])
        measures = (stations,) if arguments.stations > 0 else (loads,) if arguments.loads > 0 else (routes,) if arguments.only else (sessions, routes)
        for measure in measures:
            place = tempfile.mkdtemp(dir=folder)
            measure(arguments, names, place)
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name])
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
