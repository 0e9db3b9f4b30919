#!/usr/bin/env python3
"""Watches a Redis server by bpf and a small program by ptrace for a long time; judges memleax, not them.

    soak.py MEMLEAX FOLDER MINUTES        (scripts/soak.sh builds what it needs)

The server has a steady load of its own client: keys that come and go, and keys that stay. The program (worker.c) leaks slowly, starts threads,
and loads and unloads a library. Each minute is a line of the table. At the end:

- memory: the mean of memleax's resident memory in the last third is at most 3 % and 1 MiB above that of the second third, and for each block
  that the target has kept meanwhile 96 bytes more where memleax keeps the books itself (ptrace);
- numbers: the blocks that memleax calls live are as many as the program says to have leaked; at two call stacks of the server they are as many as
  the keys that stay;
- targets: both live, answer, and have answered rightly all the time;
- losses: memleax's report tells all that its metrics have told.
"""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request

BACKENDS = ("bpf", "ptrace")
EXPIRE = "20"
SITES = "60"


class Client(threading.Thread):
    """The server's load. Each answer is checked."""

    def __init__(self, path):
        super().__init__(name="client", daemon=True)
        self.connection = socket.socket(socket.AF_UNIX)
        self.connection.settimeout(60)
        self.connection.connect(path)
        self.answers = self.connection.makefile("rb")
        self.stopping = threading.Event()
        self.kept = 0
        self.requests = 0
        self.wrong = None

    def ask(self, *words):
        parts = [word.encode() for word in words]
        message = b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)
        self.connection.sendall(message)
        self.requests += 1
        line = self.answers.readline().rstrip(b"\r\n")
        if line.startswith(b"$") and line != b"$-1":
            return self.answers.read(int(line[1:]) + 2)[:-2].decode()
        return line.decode()

    def expect(self, answer, *words):
        got = self.ask(*words)
        if got != answer:
            raise ValueError(f"{words} was answered {got!r}, not {answer!r}")

    def round(self, number):
        for i in range(10):
            key, value = f"passing:{number % 50}:{i}", "v" * (number * 37 % 900 + i)
            self.expect("+OK", "SET", key, value)
            self.expect(value, "GET", key)
            self.expect(":1", "DEL", key)
        if number % 4 == 0:
            self.expect("+OK", "SET", f"staying:{self.kept:012}", "x" * 100)
            self.kept += 1

    def run(self):
        try:
            number = 0
            while not self.stopping.wait(0.02):
                self.round(number)
                number += 1
        except (OSError, ValueError) as error:
            self.wrong = str(error)

    def stop(self):
        self.stopping.set()
        self.join()


class Watch:
    """A memleax and its metrics."""

    def __init__(self, memleax, backend, pid, folder):
        self.backend = backend
        self.report = os.path.join(folder, f"{backend}.report")
        arguments = [memleax, "--backend", backend, "--quiet", "--expire", EXPIRE, "--metrics", "0", "--metrics-sites", SITES]
        arguments += ["-m", "1000000000", "-c", "1000000000", str(pid)]
        with open(self.report, "wb") as report:
            self.process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=report, stderr=subprocess.PIPE, text=True)
        line = self.process.stderr.readline()
        found = re.match(r"memleax: metrics are at (\S+)", line)
        if not found:
            raise SystemExit(f"memleax by {backend}: {line}{self.process.stderr.read()}")
        self.url = found.group(1)
        self.resident = []

    def metrics(self):
        """Values by series; the page is asked for until memleax has attached."""
        with urllib.request.urlopen(self.url, timeout=60) as page:
            lines = page.read().decode().splitlines()
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))}

    def sample(self, kept):
        values = self.metrics()
        self.resident.append((values["process_resident_memory_bytes"], kept))
        return values

    def end(self):
        self.process.send_signal(signal.SIGINT)
        _, errors = self.process.communicate(timeout=300)
        with open(self.report, encoding="utf-8") as report:
            return self.process.returncode, errors, report.read()

    def flatness(self):
        """The means of the second and the last third, and what the last may be."""
        third = len(self.resident) // 3
        second, last = self.resident[third : 2 * third], self.resident[2 * third :]
        mean = lambda of, index: sum(sample[index] for sample in of) / len(of)
        of_blocks = 96 * (mean(last, 1) - mean(second, 1)) if self.backend == "ptrace" else 0
        return mean(second, 0), mean(last, 0), mean(second, 0) * 1.03 + (1 << 20) + of_blocks


def losses(values):
    return int(sum(value for series, value in values.items() if series.startswith("memleax_losses_total")))


def live_blocks(values, function=None):
    """What is live, by call stack; of one function only."""
    named = lambda series: function is None or f'function="{function}"' in series
    return [int(value) for series, value in values.items() if series.startswith("memleax_site_live_blocks{") and named(series)]


def mebibytes(count):
    return f"{count / (1 << 20):.1f}"


def soak(memleax, folder, minutes, started):
    socket_path = os.path.join(folder, "redis.sock")
    # The socket's name has to be short, and that of a server that was killed is in the way.
    if os.path.exists(socket_path):
        os.unlink(socket_path)
    server = subprocess.Popen(
        ["redis-server", "--port", "0", "--save", "", "--appendonly", "no", "--unixsocket", os.path.basename(socket_path)],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, cwd=folder,
    )
    started.append(server)
    for line in server.stdout:
        if "eady to accept connections" in line:
            break
    threading.Thread(target=server.stdout.read, daemon=True).start()
    worker = subprocess.Popen(
        [os.path.join(folder, "worker"), os.path.join(folder, "plugin.so")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    started.append(worker)
    assert worker.stdout.readline() == "READY\n"

    def tell_worker(line):
        worker.stdin.write(f"{line}\n")
        worker.stdin.flush()

    def halted():
        tell_worker("halt")
        return int(worker.stdout.readline())

    def leaked():
        count = halted()
        tell_worker("go on")
        return count

    by_bpf = Watch(memleax, "bpf", server.pid, folder)
    started.append(by_bpf.process)
    by_bpf.metrics()
    client = Client(os.path.relpath(socket_path))
    client.start()
    before = halted()
    by_ptrace = Watch(memleax, "ptrace", worker.pid, folder)
    started.append(by_ptrace.process)
    by_ptrace.metrics()
    tell_worker("go on")

    print("        | redis-server, by bpf                       | worker, by ptrace", flush=True)
    print(" minute |   requests    keys  MiB    CPU s  losses   |   leaked  MiB    CPU s  losses", flush=True)
    begin = time.monotonic()
    samples = max(18, 6 * minutes)
    for number in range(1, samples + 1):
        due = begin + number * 60 * minutes / samples
        time.sleep(max(0, due - time.monotonic()))
        of_server, of_worker = by_bpf.sample(client.kept), by_ptrace.sample(leaked())
        if number * minutes // samples > (number - 1) * minutes // samples:
            print(
                f" {number * minutes // samples:6} | {client.requests:10} {client.kept:7}"
                f" {mebibytes(of_server['process_resident_memory_bytes']):>5} {of_server['process_cpu_seconds_total']:7.1f}"
                f" {losses(of_server):6}    |  {leaked():7} {mebibytes(of_worker['process_resident_memory_bytes']):>5}"
                f" {of_worker['process_cpu_seconds_total']:7.1f} {losses(of_worker):6}",
                flush=True,
            )
    client.stop()

    complaints = []
    if client.wrong:
        complaints.append(f"the server has not answered rightly: {client.wrong}")
    count = halted() - before
    of_worker = by_ptrace.metrics()
    # By bpf a page may tell of the look before.
    for _ in range(30):
        of_server = by_bpf.metrics()
        if live_blocks(of_server).count(client.kept) >= 2:
            break
        time.sleep(1)
    exact = live_blocks(of_server).count(client.kept)
    print(f"keys that stay: {client.kept}; call stacks of the server with as many live blocks: {exact}")
    if exact < 2:
        complaints.append(f"{client.kept} keys stay, but the call stacks have {sorted(live_blocks(of_server), reverse=True)[:8]} live blocks")
    seen = sum(live_blocks(of_worker, "leak_slowly"))
    print(f"blocks leaked by the worker since it is watched: {count}; memleax has {seen}")
    if seen != count:
        complaints.append("these are not the same")
    tell_worker("go on")
    for watch, values in ((by_bpf, of_server), (by_ptrace, of_worker)):
        second, last, limit = watch.flatness()
        print(f"memory by {watch.backend}: {mebibytes(second)} MiB in the second third, {mebibytes(last)} in the last; at most {mebibytes(limit)}")
        if last > limit:
            complaints.append(f"memleax by {watch.backend} grows")
        status, errors, report = watch.end()
        if status != 0 or errors:
            complaints.append(f"memleax by {watch.backend} ended with {status}: {errors}")
        if "== Terminate monitoring." not in report:
            complaints.append(f"no report by {watch.backend}")
        if losses(values) > 0 and not re.search(r"Warning: \d+ (allocat|call|map)", report):
            complaints.append(f"the report by {watch.backend} does not tell {losses(values)} losses")
    if leaked() < count + before or worker.poll() is not None:
        complaints.append("the worker is not well")
    try:
        client.expect("+PONG", "PING")
        client.expect(f":{client.kept}", "DBSIZE")
    except (OSError, ValueError) as error:
        complaints.append(f"the server is not well: {error}")
    return complaints


def main():
    memleax, folder, minutes = sys.argv[1], os.path.relpath(sys.argv[2]), int(sys.argv[3])
    started = []
    try:
        complaints = soak(memleax, folder, minutes, started)
    finally:
        # Those who watch first.
        for process in reversed(started):
            if process.poll() is None:
                process.terminate()
                process.wait()
    for complaint in complaints:
        print(f"soak: {complaint}", file=sys.stderr)
    print("soak: " + ("FAILED" if complaints else f"{minutes} minutes without a complaint"))
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
