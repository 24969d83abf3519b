#!/usr/bin/env python3
"""Fills a server of -m 64 and counts what stayed: one get for each key that was set.

    tests/fill.py BINARY [--case NAME[,NAME]] [--args "-o layout=memcached"] [--check]

One line for each case: items present, curr_items, and the most memory that the kernel ever counted
for the server (VmHWM) with how much of it is beyond -m. The case `shift` changes the values' sizes
over and over, and samples the server's memory (VmRSS) throughout. The case `idle`, which has to be
named, is about connections: what ten thousand that do nothing add to VmRSS. --check ends with
status 1 where a case holds less than it should, or memory goes beyond -m and 8 MiB. Under Linux.
"""

import argparse
import contextlib
import os
import random
import resource
import socket
import subprocess
import sys
import tempfile
import threading
import time

MEGABYTES = 64
# Beyond -m: code, stacks, connections.
ALLOWANCE_KIB = 8 << 10
MIXED = 50, 500
# Name: bytes of the key, bytes of the value or bounds of it, items set, items that should stay.
CASES = {
    "20+50": (20, 50, 2_000_000, 690_000),
    "30+100": (30, 100, 2_000_000, 435_000),
    "40+230": (40, 230, 2_000_000, 220_000),
    "45+1000": (45, 1000, 2_000_000, 60_000),
    "mixed": (30, MIXED, 2_000_000, 200_000),
}
OTHERS = "shift", "idle"
# Of `shift`: values' sizes, each set until they are so many times -m.
SHIFTS = [(30, 80), (150, 250), (1800, 2200), (18_000, 22_000), (200_000, 300_000), (1, 300_000),
          (18_000, 22_000), (1800, 2200), (150, 250), (30, 80), (1, 1000)]
OVERFILL = 1.5
# Of `idle`: connections, and the most bytes that each should take.
CONNECTIONS, IDLE_BYTES = 10_000, 256
BATCH_BYTES = 200_000
KEYS_OF_A_GET = 200
SAMPLE_SECONDS = 0.01


@contextlib.contextmanager
def running(command, stderr=None):
    """A server on an ephemeral port; gives that port and its process."""
    with tempfile.TemporaryDirectory() as folder:
        ports = os.path.join(folder, "ports")
        environment = dict(os.environ, MEMCACHED_PORT_FILENAME=ports)
        process = subprocess.Popen(command, env=environment, stderr=stderr)
        try:
            yield wait_for_port(process, ports), process
        finally:
            process.terminate()
            process.wait(timeout=20)


def wait_for_port(process, ports):
    for _ in range(2000):
        if process.poll() is not None:
            sys.exit(f"the server ended with {process.returncode}")
        if os.path.exists(ports):
            with open(ports, encoding="ascii") as file:
                for line in file:
                    if line.startswith("TCP INET:"):
                        return int(line.split()[-1])
        time.sleep(0.01)
    sys.exit("the server did not write its port")


class Client:
    def __init__(self, port):
        self.port = port
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.replies = self.socket.makefile("rb", 1 << 20)
        self.refused = 0

    @staticmethod
    def quiet(port):
        """A socket that has had one answer."""
        connection = socket.create_connection(("127.0.0.1", port))
        connection.sendall(b"mn\r\n")
        assert connection.recv(4) == b"MN\r\n"
        return connection

    def store(self, items):
        """Sets them in batches, of which only refusals are answered."""
        batch = bytearray()
        for key, size in items:
            batch += b"ms %s %d q\r\n" % (key, size) + b"v" * size + b"\r\n"
            if len(batch) > BATCH_BYTES:
                self.finish(batch)
                batch.clear()
        self.finish(batch)

    def finish(self, batch):
        self.socket.sendall(bytes(batch) + b"mn\r\n")
        while (line := self.replies.readline()) != b"MN\r\n":
            assert line.startswith(b"SERVER_ERROR"), line
            self.refused += 1

    def count(self, keys):
        """How many of the keys are there."""
        present = 0
        for first in range(0, len(keys), KEYS_OF_A_GET):
            self.socket.sendall(b"get " + b" ".join(keys[first:first + KEYS_OF_A_GET]) + b"\r\n")
            while (line := self.replies.readline()) != b"END\r\n":
                word, _, _, size = line.split()
                assert word == b"VALUE", line
                self.replies.read(int(size) + 2)
                present += 1
        return present

    def stats(self):
        self.socket.sendall(b"stats\r\n")
        stats = {}
        while (line := self.replies.readline()) != b"END\r\n":
            _, name, value = line.decode().rstrip().split(" ", 2)
            stats[name] = value
        return stats


class Memory(threading.Thread):
    """Samples the server's resident memory while it lives, in KiB."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.pid, self.highest, self.samples, self.done = pid, 0, 0, threading.Event()

    def run(self):
        while not self.done.wait(SAMPLE_SECONDS):
            self.highest = max(self.highest, memory(self.pid, "VmRSS"))
            self.samples += 1

    def stop(self):
        self.done.set()
        self.join()


def memory(pid, field):
    """A field of the kernel's, in KiB."""
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        for line in file:
            if line.startswith(field + ":"):
                return int(line.split()[1])
    raise ValueError(field)


def key(number, length):
    return (b"k%d" % number).ljust(length, b"x")


def fill(client, _pid, case):
    """One of CASES."""
    key_bytes, size, count, wanted = CASES[case]
    rng = random.Random(1)
    sizes = (rng.randint(*size) if isinstance(size, tuple) else size for _ in range(count))
    client.store((key(number, key_bytes), size) for number, size in zip(range(count), sizes))
    present = client.count([key(number, key_bytes) for number in range(count)])
    held = f"{present} of {count} present, wanted {wanted}, curr_items {counted(client)}"
    return present >= wanted and not client.refused, held


def counted(client):
    return client.stats()["curr_items"]


def shift(client, pid, _case):
    """The sizes change. Only memory is judged: nothing is read while they do, so the server cannot
    know which of the items are worth keeping."""
    rng = random.Random(2)
    sampler, number = Memory(pid), 0
    sampler.start()
    for low, high in SHIFTS:
        left, first, items = OVERFILL * (MEGABYTES << 20), number, []
        while left > 0:
            size = rng.randint(low, high)
            items.append((key(number, 20), size))
            left -= size
            number += 1
        client.store(items)
        stayed = client.count([name for name, _ in items])
        now = memory(pid, "VmRSS")
        print(f"    {low:>6} to {high:>6} bytes: {stayed:>7} of {number - first:>8} present, "
              f"VmRSS {now} KiB", flush=True)
    sampler.stop()
    held = f"curr_items {counted(client)}, of {sampler.samples} samples of VmRSS the highest is"
    within = sampler.highest <= (MEGABYTES << 10) + ALLOWANCE_KIB
    return within, f"{held} {sampler.highest} KiB"


def idle(client, pid, _case):
    """Connections that asked once and then stay."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    # What the first ones grow, such as a thread's buffers, is not theirs.
    others = [Client.quiet(client.port) for _ in range(100)]
    before = memory(pid, "VmRSS")
    others += [Client.quiet(client.port) for _ in range(CONNECTIONS)]
    each = (memory(pid, "VmRSS") - before) * 1024 / CONNECTIONS
    return each <= IDLE_BYTES, f"{each:.0f} bytes for each of {CONNECTIONS} idle connections"


def run(binary, extra, case):
    """True where the case holds what it should, in the memory that it may."""
    play = {"shift": shift, "idle": idle}.get(case, fill)
    command = [binary, "-l", "127.0.0.1", "-p", "-1", "-U", "0", "-m", str(MEGABYTES), *extra]
    if case == "idle":
        command += ["-c", str(CONNECTIONS + 200)]
    if os.geteuid() == 0:
        command += ["-u", "root"]
    with running(command) as (port, process):
        client = Client(port)
        fine, held = play(client, process.pid, case)
        highest = memory(process.pid, "VmHWM")
    beyond = highest - (MEGABYTES << 10)
    refused = f", {client.refused} refused" if client.refused else ""
    print(f"{case:>8}: {held}{refused}; VmHWM {highest} KiB, {beyond / 1024:+.1f} MiB beyond -m",
          flush=True)
    return fine and beyond <= ALLOWANCE_KIB


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("binary")
    parser.add_argument("--case", help="some of " + ", ".join([*CASES, *OTHERS]))
    parser.add_argument("--args", default="", help="further arguments for the server")
    parser.add_argument("--check", action="store_true", help="status 1 where a case falls short")
    args = parser.parse_args()
    cases = args.case.split(",") if args.case else [*CASES, "shift"]
    unknown = [case for case in cases if case not in CASES and case not in OTHERS]
    if unknown:
        sys.exit(f"no such case: {', '.join(unknown)}")
    short = [case for case in cases if not run(args.binary, args.args.split(), case)]
    if short and args.check:
        sys.exit(f"fell short: {', '.join(short)}")


if __name__ == "__main__":
    main()
