#!/usr/bin/env python3
"""Drives a server with the clients that people use: pymemcache, python-memcached, pylibmc (text and
binary) and python-binary-memcached where they are installed, the tools of libmemcached, and
memcached's own memcached-tool.

    e2e.py /path/to/server

Prints a line for each part and ends with status 0 only if every part that could run did well.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time

# Where Debian's memcached has it.
MEMCACHED_TOOL = "/usr/share/memcached/scripts/memcached-tool"


USER, PASSWORD = "jane", "pencil"


@contextlib.contextmanager
def running(server, *options):
    """A server on an ephemeral port, which knows one user; gives that port."""
    with tempfile.TemporaryDirectory() as folder:
        ports = os.path.join(folder, "ports")
        users = os.path.join(folder, "users")
        with open(users, "w", encoding="ascii") as file:
            file.write(f"{USER}:{PASSWORD}\n")
        command = [server, "-l", "127.0.0.1", "-p", "-1", "-U", "0", "-m", "64", *options]
        if os.geteuid() == 0:
            command += ["-u", "root"]
        environment = dict(os.environ, MEMCACHED_PORT_FILENAME=ports, MEMCACHED_SASL_PWDB=users)
        process = subprocess.Popen(command, env=environment)
        try:
            yield wait_for_port(process, ports)
        finally:
            process.terminate()
            process.wait(timeout=20)
        assert process.returncode in (0, -15), process.returncode


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


def with_pymemcache(port):
    from pymemcache.client.base import Client

    client = Client(("127.0.0.1", port), default_noreply=False)
    assert client.version().count(b".") == 2
    assert client.set("a", b"1", expire=100)
    assert client.get("a") == b"1"
    assert not client.add("a", b"2")
    assert client.replace("a", b"10")
    assert client.incr("a", 5) == 15 and client.decr("a", 20) == 0
    assert client.touch("a", 200)
    value, unique = client.gets("a")
    assert client.cas("a", b"x", unique) and client.cas("a", b"y", unique) is False
    assert client.append("a", b"+") and client.prepend("a", b"-") and client.get("a") == b"-x+"
    many = {f"many{i}": b"%d" % i * 50 for i in range(500)}
    assert client.set_many(many) == []
    assert client.get_many(many) == many
    assert client.delete("a") and client.get("a") is None
    big = os.urandom(700_000)
    assert client.set("big", big) and client.get("big") == big
    client.set("quiet", b"1", noreply=True)
    assert client.get("quiet") == b"1"
    assert client.stats()[b"curr_items"] >= 500
    assert client.flush_all() and client.get("big") is None
    client.quit()


def with_python_memcached(port):
    import memcache

    client = memcache.Client([f"127.0.0.1:{port}"], debug=1)
    assert client.set("object", {"a": [1, 2, 3]}, time=100)
    assert client.get("object") == {"a": [1, 2, 3]}
    assert client.set("n", 5) and client.incr("n") == 6 and client.decr("n", 2) == 4
    assert client.set_multi({"x": "1", "y": "2"}) == []
    assert client.get_multi(["x", "y", "z"]) == {"x": "1", "y": "2"}
    assert client.touch("x", 50)
    assert client.delete("x") and client.get("x") is None
    assert len(client.get_stats()) == 1 and client.get_slab_stats()


def with_bmemcached(port):
    import bmemcached

    client = bmemcached.Client((f"127.0.0.1:{port}",))
    assert client.set("k", "value", time=100) and client.get("k") == "value"
    assert not client.add("k", "x") and client.replace("k", {"a": [1, 2]})
    value, unique = client.gets("k")
    assert value == {"a": [1, 2]} and not client.cas("k", "y", unique + 1)
    assert client.cas("k", "y", unique) and client.get("k") == "y"
    many = {f"many{i}": "x" * i for i in range(300)}
    assert client.set_multi(many) == [] and client.get_multi(list(many)) == many
    assert client.incr("n", 5, default=7) == 7 and client.incr("n", 5) == 12
    assert client.decr("n", 50) == 0
    big = os.urandom(700_000)
    assert client.set("big", big) and client.get("big") == big
    assert client.delete("k") and client.get("k") is None
    (figures,) = client.stats().values()
    assert int(figures["curr_items"]) >= 300
    (settings,) = client.stats("settings").values()
    assert settings["binding_protocol"] == b"auto-negotiate"
    assert client.flush_all() and client.get("big") is None
    client.disconnect_all()


def with_pylibmc(port):
    for binary in (False, True):
        use_pylibmc(port, binary)


def use_pylibmc(port, binary):
    import pylibmc

    behaviors = {"cas": True, "tcp_nodelay": True}
    client = pylibmc.Client([f"127.0.0.1:{port}"], binary=binary, behaviors=behaviors)
    assert client.set("k", "value", time=100) and client.get("k") == "value"
    value, unique = client.gets("k")
    assert client.cas("k", "other", unique)
    assert client.set_multi({f"m{i}": i for i in range(300)}) == []
    assert client.get_multi([f"m{i}" for i in range(300)]) == {f"m{i}": i for i in range(300)}
    assert client.set("n", 1) and client.incr("n") == 2
    assert client.add("k", "x") is False and client.append("k", "!")
    assert client.get("k") == "other!" and client.touch("k", 60) and client.delete("k")
    big = "0123456789" * 60_000
    assert client.set("big", big) and client.get("big") == big
    assert client.get_stats()
    client.disconnect_all()


def run(*command):
    """A command's stdout; it must end well."""
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, (command, done.stdout[-2000:], done.stderr[-2000:])
    return done.stdout


def with_tools(port):
    # It speaks text alone.
    run("memcping", f"--servers=127.0.0.1:{port}")
    use_tools(port)
    use_tools(port, "--binary")


def use_tools(port, *options):
    server = [f"--servers=127.0.0.1:{port}", *options]
    assert b"curr_connections" in run("memcstat", *server)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "a_file")
        content = os.urandom(20_000).hex().encode()
        with open(path, "wb") as file:
            file.write(content)
        run("memccp", *server, "--set", path)
        assert content in run("memccat", *server, "a_file")
        run("memcexist", *server, "a_file")
        run("memctouch", *server, "--expire=100", "a_file")
        run("memcrm", *server, "a_file")
        gone = subprocess.run(["memcexist", *server, "a_file"], capture_output=True, timeout=60)
        assert gone.returncode != 0
        run("memccp", *server, "--set", path)
    assert run("memcdump", server[0]).split() == [b"a_file"]
    for topic in ("settings", "items", "slabs", "sizes"):
        assert run("memcstat", *server, f"--args={topic}").count(b": ") > 1, topic
    run("memcflush", *server)


def with_memccapable(port):
    for protocol in ("-a", "-b"):
        report = run("memccapable", "-h", "127.0.0.1", "-p", str(port), protocol)
        assert b"All tests passed" in report, report


def with_memcached_tool(port):
    def tool(mode):
        return run("perl", MEMCACHED_TOOL, f"127.0.0.1:{port}", mode).decode().splitlines()

    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"".join(b"set key%d 0 0 500\r\n%s\r\n" % (i, b"x" * 500) for i in range(99)))
        client.sendall(b"quit\r\n")
        while client.recv(4096):
            pass
    header, *classes = tool("display")
    columns = header.split()
    assert columns[:2] == ["#", "Item_Size"] and len(classes) == 1, (header, classes)
    assert classes[0].split()[columns.index("Count")] == "99", classes
    for mode, name, value in (("stats", "curr_items", "99"), ("settings", "evictions", "on")):
        assert [name, value] in [line.split() for line in tool(mode)], mode
    assert sum(int(line.split()[1]) for line in tool("sizes")[1:]) == 99
    assert sum(line.startswith("add key") for line in tool("dump")) == 99


def sasl_with_bmemcached(port):
    import bmemcached

    client = bmemcached.Client([f"127.0.0.1:{port}"], USER, PASSWORD)
    assert client.set("a", "value") and client.get("a") == "value"
    assert client.incr("n", 5, default=7) == 7 and client.incr("n", 5) == 12
    client.disconnect_all()
    stranger = bmemcached.Client([f"127.0.0.1:{port}"], USER, "wrong")
    try:
        stranger.get("a")
    except bmemcached.exceptions.MemcachedException as error:
        assert error.code == 0x20, error
        return
    raise AssertionError("a wrong password was let in")


def sasl_with_tools(port):
    server = [f"--servers=127.0.0.1:{port}", "--binary"]

    def run(tool, password, *arguments):
        command = [tool, *server, f"--username={USER}", f"--password={password}", *arguments]
        return subprocess.run(command, capture_output=True, timeout=60, check=False)

    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "a_file")
        with open(path, "wb") as file:
            file.write(b"content")
        done = run("memccp", PASSWORD, "--set", path)
        assert done.returncode == 0, done
    assert b"content" in run("memccat", PASSWORD, "a_file").stdout
    stranger = run("memccat", "wrong", "a_file")
    assert b"content" not in stranger.stdout, stranger


def installed(module):
    try:
        __import__(module)
    except ImportError:
        return False
    return True


def main():
    tools = shutil.which("memcstat") is not None
    parts = [
        ("pymemcache", with_pymemcache, installed("pymemcache"), []),
        ("python-memcached", with_python_memcached, installed("memcache"), []),
        ("pylibmc", with_pylibmc, installed("pylibmc"), []),
        ("python-binary-memcached", with_bmemcached, installed("bmemcached"), []),
        ("memccapable", with_memccapable, shutil.which("memccapable") is not None, []),
        ("memcached-tool", with_memcached_tool, os.path.exists(MEMCACHED_TOOL), []),
        ("libmemcached's tools", with_tools, tools, []),
        ("bmemcached over SASL", sasl_with_bmemcached, installed("bmemcached"), ["-S"]),
        ("libmemcached's tools over SASL", sasl_with_tools, tools, ["-S"]),
    ]
    ran = 0
    for name, part, available, options in parts:
        if not available:
            print(f"{name}: skipped, not installed")
            continue
        with running(sys.argv[1], *options) as port:
            part(port)
        ran += 1
        print(f"{name}: ok")
    if ran == 0:
        sys.exit("no client is installed")


if __name__ == "__main__":
    main()
