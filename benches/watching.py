#!/usr/bin/env python3
"""What it costs to look: `margay top` and the status page, with sessions that are established.

    sudo benches/watching.py --margay target/fast/margay [--sessions 1000] [--seconds 10] [--runs 3]

Two network namespaces with a veth between them, and a margay in each: one has the sessions as dynamic peers, each with
routes and an update group of its own, which is the worst case, and is looked at. Printed is the CPU time of the daemon while
nobody looks, of the daemon and of `margay top` while that runs on a terminal of 200 x 50, and of the daemon while the requests
of one page, and of ten, come every two seconds, with their ETags as a browser sends them.
"""

import argparse
import fcntl
import http.client
import os
import pty
import shutil
import signal
import struct
import subprocess
import tempfile
import termios
import threading
import time

from views import cpu_seconds, in_namespace, namespaces

ANSWERS = ("status", "overview", "events", "rates")


def config(folder, router_id, more):
    return (f'[bgp]\nasn = 64512\nrouter-id = "{router_id}"\nlisten = ["0.0.0.0:1790"]\ngroups-max = 6000\n'
            f'hold-time = 3600\n[fib]\nenabled = false\n[control]\nsocket = "{folder}/margay.sock"\n{more}')


def start(arguments, namespace, folder, text):
    os.makedirs(folder)
    path = os.path.join(folder, "margay.toml")
    with open(path, "w") as file:
        file.write(text)
    with open(os.path.join(folder, "margay.log"), "w") as log:
        command = ["ip", "netns", "exec", namespace, arguments.margay, "run", "--config", path]
        return subprocess.Popen(command, stderr=log)


def top(arguments, folder):
    """CPU seconds of `margay top` for as long as it is looked at, its start not counted, and the octets that it drew."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ["TERM"] = "xterm-256color"
        os.execv(arguments.margay, [arguments.margay, "top", "--socket", f"{folder}/margay.sock"])
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 200, 0, 0))
    octets = 0

    def read():
        nonlocal octets
        try:
            while some := os.read(terminal, 1 << 16):
                octets += len(some)
        except OSError:
            pass  # The other end is closed.

    reader = threading.Thread(target=read)
    reader.start()
    time.sleep(3)
    before, drawn = cpu_seconds(pid), octets
    yield
    spent = cpu_seconds(pid) - before
    os.kill(pid, signal.SIGTERM)
    os.waitpid(pid, 0)
    reader.join()
    os.close(terminal)
    yield spent, octets - drawn


def page(arguments, seconds, pages):
    """The requests of pages for some seconds, as page.js sends them; returns how many octets were sent."""
    octets, until = 0, time.monotonic() + seconds
    known = [{} for _ in range(pages)]
    links = [http.client.HTTPConnection("127.0.0.1", 9479) for _ in range(pages)]
    while time.monotonic() < until:
        began = time.monotonic()
        for link, versions in zip(links, known):
            for name in ANSWERS:
                headers = {"If-None-Match": versions[name]} if name in versions else {}
                link.request("GET", f"/status/api/{name}", headers=headers)
                answer = link.getresponse()
                octets += len(answer.read())
                assert answer.status in (200, 304), f"{name}: {answer.status}"
                versions[name] = answer.getheader("ETag")
        time.sleep(max(0, 2 - (time.monotonic() - began)))
    return octets


def measure(arguments, names, folder):
    for name, own, other, via in ((names[0], 100, 200, "10.254.0.2"), (names[1], 200, 100, "10.254.0.1")):
        ip = lambda *words: subprocess.run(["ip", "-n", name, *words], check=True)
        ip("route", "add", "local", f"10.{own}.0.0/16", "dev", "lo")
        ip("route", "add", f"10.{other}.0.0/16", "via", via)
    ours, theirs = os.path.join(folder, "a"), os.path.join(folder, "b")
    looked_at = (f'[http]\nlisten = "127.0.0.1:9479"\nstatus-page = true\n[[bgp.dynamic-peers]]\nprefix = "10.200.0.0/16"\n'
                 f'remote-asn = 64512\npeers-max = {arguments.sessions}\n')
    address = lambda net, n: f"10.{net}.{n // 250}.{n % 250 + 1}"
    peers = "".join(f'[[bgp.peers]]\naddress = "{address(100, n)}"\nport = 1790\nremote-asn = 64512\n'
                    f'source-address = "{address(200, n)}"\n' for n in range(arguments.sessions))
    routes = "".join(f'[[originate]]\nprefix = "10.65.{n}.0/26"\nkind = "none"\n' for n in range(3))
    daemons = [start(arguments, names[0], ours, config(ours, "10.254.0.1", looked_at))]
    try:
        daemons.append(start(arguments, names[1], theirs, config(theirs, "10.254.0.2", peers + routes)))
        status = [arguments.margay, "show", "status", "--json", "--socket", f"{ours}/margay.sock"]
        until = time.monotonic() + 180
        while f'"peers_established":{arguments.sessions},'.encode() not in subprocess.run(status, capture_output=True).stdout:
            assert time.monotonic() < until and daemons[0].poll() is None, "the sessions do not come up"
            time.sleep(1)
        time.sleep(5)
        pid = daemons[0].pid

        def during(act):
            before = cpu_seconds(pid)
            act()
            return cpu_seconds(pid) - before

        rest = lambda: time.sleep(arguments.seconds)
        for _ in range(arguments.runs):
            alone = during(rest)
            looking = top(arguments, ours)
            next(looking)
            beside = during(rest)
            own, drawn = next(looking)
            looking.close()
            one = during(lambda: page(arguments, arguments.seconds, 1))
            ten = during(lambda: page(arguments, arguments.seconds, 10))
            print(f"{arguments.sessions} sessions, {arguments.seconds} s: daemon alone {alone:.3f} CPU s; margay top {own:.3f} ({drawn} octets drawn), "
                  f"daemon beside it {beside:.3f}; daemon beside a status page {one:.3f}, beside ten {ten:.3f}", flush=True)
    finally:
        for daemon in daemons:
            daemon.kill()
            daemon.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--margay", default="target/fast/margay")
    parser.add_argument("--sessions", type=int, default=1_000)
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    arguments.margay = os.path.abspath(arguments.margay)
    folder = tempfile.mkdtemp(prefix="margay-watching-")
    names = namespaces(os.getpid() % 100_000)
    try:
        in_namespace(names[0])
        measure(arguments, names, folder)
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name])
        shutil.rmtree(folder, ignore_errors=True)


main()
