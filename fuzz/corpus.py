#!/usr/bin/env python3
"""Makes the first corpora of the fuzz targets from the golden transcripts: fuzz/corpus/TARGET."""

import pathlib
import re
import struct

HERE = pathlib.Path(__file__).parent
GOLDEN = HERE.parent / "tests"
PLAIN = {"r": "\r", "n": "\n", "0": "\0", "t": "\t", "s": " ", "\\": "\\", "{": "{", "$": "$"}
# Longer inputs only slow the fuzzers down.
LONGEST = 8192


def unescape(text):
    """The bytes of a transcript's line: see tests/common/transcript.rs."""
    text = re.sub(r"\$\{[^}]*\}", "1", text)
    out = ""
    at = 0
    while at < len(text):
        char = text[at]
        if char == "\\" and text[at + 1] == "x":
            out += chr(int(text[at + 2 : at + 4], 16))
            at += 4
        elif char == "\\":
            out += PLAIN[text[at + 1]]
            at += 2
        elif char == "{":
            end = text.index("}", at)
            what, times = text[at + 1 : end].rsplit("*", 1)
            out += unescape(what).decode("latin-1") * min(int(times), LONGEST)
            at = end + 1
        else:
            out += char
            at += 1
    return out.encode("latin-1")


def cases(path):
    """Name, and what each case sends, request by request."""
    name, sent = "start", []
    for line in path.read_text(encoding="latin-1").splitlines():
        if line.startswith("== "):
            if sent:
                yield name, sent
            name, sent = line[3:], []
        elif line.startswith("> "):
            sent.append(unescape(line[2:]) + b"\r\n")
        elif line.startswith(">- "):
            sent.append(unescape(line[3:]))
        elif line.startswith(">"):
            sent.append(b"\r\n")
    if sent:
        yield name, sent


def write(target, name, data):
    if len(data) <= LONGEST:
        folder = HERE / "corpus" / target
        folder.mkdir(parents=True, exist_ok=True)
        (folder / re.sub(r"[^a-z0-9]+", "-", name.lower())).write_bytes(data)


def frame(payload, total=1):
    datagram = struct.pack(">HHHH", 7, 0, total, 0) + payload
    return struct.pack("<H", len(datagram)) + datagram


def binary(opcode, extras=b"", key=b"", value=b"", cas=0):
    body = extras + key + value
    head = struct.pack(">BBHBBHIIQ", 0x80, opcode, len(key), len(extras), 0, 0, len(body), 9, cas)
    return head + body


def binary_seeds():
    """Each opcode once, alone and behind a set."""
    stored = binary(1, bytes(8), b"key", b"12")
    extras = {1: 8, 2: 8, 3: 8, 5: 20, 6: 20, 8: 4, 0x1B: 4, 0x1C: 4, 0x1D: 4, 0x1E: 4}
    valued = {1, 2, 3, 0x0E, 0x0F, 0x11, 0x12, 0x13, 0x19, 0x1A, 0x21, 0x22}
    bare = {7, 8, 0x0A, 0x0B, 0x10, 0x17, 0x18, 0x20}
    quiet = {0x11: 8, 0x12: 8, 0x13: 8, 0x15: 20, 0x16: 20, 0x18: 4, 0x23: 4, 0x24: 4}
    for opcode in range(0x30):
        more = bytes({**extras, **quiet}.get(opcode, 0))
        key = b"" if opcode in bare else b"key"
        request = binary(opcode, more, key, b"v" if opcode in valued else b"")
        yield f"opcode {opcode:02x}", stored + request + binary(10)


def token_seeds():
    """Tokens of -Y: right, wrong, misshapen; a request behind each."""
    tokens = [b"user pa55word", b"user wrong", b"user", b"", b" ", b"user pa55word more", b"u" * 300]
    for n, token in enumerate(tokens):
        for lie in (-1, 0, 1):
            length = max(0, len(token) + lie)
            yield f"token {n} {lie + 1}", b"set a 0 0 %d\r\n%s\r\nget k\r\n" % (length, token)
    for n, request in enumerate((b"get k", b"delete k", b"mg k v", b"flush_all", b"version")):
        yield f"without {n}", request + b"\r\n"


def sasl_seeds():
    """Steps of SASL, in order and out of it; a get behind each."""
    mechanisms, start, step = 0x20, 0x21, 0x22
    proof = b"c=biws,r=abcdef,p=dHpbMnBHSU9UQWhuLzBtRGVqdU5VZz09"
    steps = {
        "list": binary(mechanisms),
        "plain": binary(start, key=b"PLAIN", value=b"\0user\0pa55word"),
        "plain wrong": binary(start, key=b"PLAIN", value=b"\0user\0wrong"),
        "plain odd": binary(start, key=b"PLAIN", value=b"user\0\xff"),
        "none": binary(start, key=b"NONE"),
        "scram": binary(start, key=b"SCRAM-SHA-256", value=b"n,,n=user,r=abcdef"),
        "scram bound": binary(start, key=b"SCRAM-SHA-256", value=b"p=tls,a=b,n=user,r=abcdef"),
        "step": binary(step, key=b"SCRAM-SHA-256", value=proof),
        "step plain": binary(step, key=b"PLAIN", value=b"\0user\0wrong"),
    }
    get = binary(0, key=b"k")
    for name, first in steps.items():
        yield name, first + get
        for other, second in steps.items():
            yield f"{name} then {other}", first + second + get


def restart_seeds():
    """Each kind of file with each kind of start: as it is, and with one edit of each kind."""
    for kind in range(16):
        for start in range(16):
            yield f"whole {kind} {start}", bytes([kind, start])
        for what in range(6):
            for area in range(3):
                edit = struct.pack("<BBHI", what + 6 * 2, area, 5 + 7 * what, 3 + what)
                yield f"edit {kind} {what} {area}", bytes([kind, 0]) + edit


def main():
    count = 0
    for path in sorted(GOLDEN.glob("golden*/*.txt")):
        for name, sent in cases(path):
            data = b"".join(sent)
            target = "meta" if re.search(rb"(^|\n)m[gsdane] ", data) else "text"
            name = f"{path.stem} {name}"
            # The first byte says how a stream is cut.
            write("binary" if data[:1] == b"\x80" else target, name, b"\x07" + data)
            if len(data) <= LONGEST:
                write("udp", name, b"".join(map(frame, sent)))
            count += 1
    for name, data in binary_seeds():
        write("binary", name, b"\x07" + data)
        write("udp", name, frame(data) + frame(data[: len(data) // 2]) + frame(data, total=2))
    for name, data in token_seeds():
        write("auth", name, b"\x07" + data)
    for name, data in sasl_seeds():
        write("sasl", name, b"\x07" + data)
    for name, data in restart_seeds():
        write("restart", name, data)
    print(f"{count} cases of the transcripts")


if __name__ == "__main__":
    main()
