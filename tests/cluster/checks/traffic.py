"""Bytes and truth: what the far side does is what the near side sees."""

from lib import check, expect

BIG = 100_000_000
WAYS = (("directly", ()), ("through a workload", ("--proxy-via", "all=web")))


def both_ways(sentence):
    """One check for the general agent, one through a via workload."""

    def register(function):
        for where, flags in WAYS:
            def body(w, flags=flags):
                with w.connected(*flags):
                    function(w)
            body.__module__ = function.__module__
            check(f"{sentence}, {where}")(body)
        return function

    return register


@both_ways("UDP datagrams come back")
def udp(w):
    answer = w.ws.client("udp", "edge", 9004, 50)
    expect(answer["back"] >= 49, str(answer))


@both_ways("a closed port is refused at once")
def closed(w):
    answer = w.ws.client("refused", "db", 9999)
    expect(answer["outcome"] == "refused" and answer["seconds"] < 1, str(answer))
    w.note(f"{answer['seconds'] * 1000:.0f} ms")


@both_ways("half-close works: the answer comes after the end of the question")
def half_close(w):
    expect(w.ws.client("half-close", "edge", 9001, 300_000)["equal"], "echo differs")
    expect(w.ws.client("sink", "edge", 9003, 300_000)["counted"] == 300_000, "the sink counted something else")


@both_ways("a reset is a reset")
def reset(w):
    expect(w.ws.client("reset", "edge", 9006)["outcome"] == "reset", "not a reset")


@both_ways("100 MB arrive unchanged, down")
def down(w):
    answer = w.ws.client("down", "http://edge/bytes", BIG, timeout=90)
    expect(answer["equal"] and answer["bytes"] == BIG, str(answer))
    w.note(f"{BIG * 8 / answer['seconds'] / 1e6:.0f} Mbit/s")


@both_ways("100 MB arrive unchanged, up and down at once")
def both(w):
    answer = w.ws.client("both", "edge", 9001, BIG, timeout=90)
    expect(answer["equal"] and answer["bytes"] == BIG, str(answer))


@both_ways("a hundred connections at once all answer")
def many(w):
    script = "seq 100 | xargs -P 50 -I{} curl -sS --fail --max-time 10 -o /dev/null http://edge/"
    done = w.ws.run("sh", "-c", script)
    expect(done.code == 0, done.said())
