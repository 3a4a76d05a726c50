"""A client of the sample workloads, run on the workstation: prints one JSON document, exits 1 with a message.

usage: client.py refused HOST PORT | udp HOST PORT COUNT | half-close HOST PORT BYTES | sink HOST PORT BYTES
                 down URL BYTES | both HOST PORT BYTES | reset HOST PORT | keep HOST PORT
"""

import hashlib
import json
import signal
import socket
import sys
import threading
import time
import urllib.request

LIMIT = 30
# Of a program that outlasts an outage.
PATIENCE = 120


def connect(host, port, limit=LIMIT):
    s = socket.create_connection((host, int(port)), timeout=float(limit))
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return s


def pattern(count):
    """The bytes that the sample workloads serve: they repeat after 251."""
    period = bytes(range(251))
    return (period * (count // 251 + 1))[:count]


def digest(data):
    return hashlib.sha256(data).hexdigest()


def rest(s):
    """Everything until the end, as a digest and a count."""
    h, n = hashlib.sha256(), 0
    while block := s.recv(1 << 18):
        h.update(block)
        n += len(block)
    return h.hexdigest(), n


def refused(host, port):
    began = time.monotonic()
    try:
        connect(host, port, 10).close()
        outcome = "connected"
    except ConnectionRefusedError:
        outcome = "refused"
    except OSError as e:
        outcome = str(e)
    return {"outcome": outcome, "seconds": time.monotonic() - began}


def udp(host, port, count):
    info = socket.getaddrinfo(host, int(port), type=socket.SOCK_DGRAM)[0]
    s = socket.socket(info[0], socket.SOCK_DGRAM)
    s.settimeout(2)
    s.connect(info[4])
    back = 0
    for i in range(int(count)):
        sent = b"%d " % i + pattern(i * 37 % 1300)
        s.send(sent)
        try:
            back += s.recv(65536) == sent
        except TimeoutError:
            pass
    return {"sent": int(count), "back": back}


def half_close(host, port, count, limit=LIMIT):
    data = pattern(int(count))
    with connect(host, port, limit) as s:
        def send():
            s.sendall(data)
            s.shutdown(socket.SHUT_WR)
        t = threading.Thread(target=send)
        t.start()
        got, n = rest(s)
        t.join()
    return {"equal": got == digest(data), "bytes": n}


def sink(host, port, count):
    with connect(host, port) as s:
        s.sendall(pattern(int(count)))
        s.shutdown(socket.SHUT_WR)
        answer = b""
        while block := s.recv(4096):
            answer += block
    return {"counted": int(answer)}


def down(url, count, limit=LIMIT):
    began = time.monotonic()
    h, n = hashlib.sha256(), 0
    with urllib.request.urlopen(f"{url}?n={count}", timeout=float(limit)) as r:
        while block := r.read(1 << 18):
            h.update(block)
            n += len(block)
    return {"equal": h.hexdigest() == digest(pattern(int(count))), "bytes": n, "seconds": time.monotonic() - began}


def reset(host, port):
    try:
        with connect(host, port) as s:
            return {"outcome": "end" if s.recv(1) == b"" else "bytes"}
    except ConnectionResetError:
        return {"outcome": "reset"}


def keep(host, port):
    """One connection that speaks all the time, until SIGTERM: how often, and what was the longest silence?"""
    longest, turns, over = 0.0, 0, threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: over.set())
    with connect(host, port, PATIENCE) as s:
        print("open", flush=True)
        while not over.wait(0.02):
            began, word = time.monotonic(), b"%64d" % turns
            s.sendall(word)
            back = b""
            while len(back) < len(word):
                block = s.recv(len(word) - len(back))
                if not block:
                    raise OSError(f"it ended after {turns} turns")
                back += block
            if back != word:
                raise ValueError(f"other bytes came back: {back}")
            longest = max(longest, time.monotonic() - began)
            turns += 1
    return {"turns": turns, "longest": longest}


COMMANDS = {
    "refused": refused, "udp": udp, "half-close": half_close, "sink": sink, "down": down,
    "both": half_close, "reset": reset, "keep": keep,
}

if __name__ == "__main__":
    try:
        print(json.dumps(COMMANDS[sys.argv[1]](*sys.argv[2:])))
    except (OSError, KeyError, TypeError, ValueError) as error:
        sys.exit(f"{' '.join(sys.argv[1:])}: {type(error).__name__}: {error}")
