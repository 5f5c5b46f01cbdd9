# Calls under load, told of on demand: each target again and again over new connections, and an echo over
# connections that stay. "from" begins a new count; "told" prints it, times in milliseconds since "from".
import json, socket, sys, threading, time

every, echo, targets = float(sys.argv[1]), sys.argv[2], sys.argv[3:]
lock = threading.Lock()
count = {}


def split(to):
    host, port = to.rsplit(":", 1)
    return host.strip("[]"), int(port)


def begin():
    global count
    with lock:
        count = {"began": time.monotonic(), "served": 0, "failed": {}, "recovered": 0, "slowest": 0, "lost": 0}


def note(began, failure, key="failed"):
    now = time.monotonic()
    with lock:
        since = int((now - count["began"]) * 1000)
        count["slowest"] = max(count["slowest"], int((now - max(began, count["began"])) * 1000))
        if failure is None:
            # What began before the harm says nothing of how it is now.
            count["served"] += began >= count["began"]
        elif key == "lost":
            count["lost"] += 1
        else:
            count["failed"][failure] = count["failed"].get(failure, 0) + 1
            count["recovered"] = since


def ask(to):
    with socket.create_connection(split(to), 10) as s:
        s.sendall(b"GET / HTTP/1.0\r\nHost: x\r\n\r\n")
        return None if '"server"' in s.makefile().read() else "closed"


def new(to):
    while True:
        began = time.monotonic()
        try:
            failure = ask(to)
        except OSError as e:
            failure = type(e).__name__
        note(began, failure)
        time.sleep(every)


def stays():
    while True:
        try:
            with socket.create_connection(split(echo), 10) as s:
                while True:
                    s.sendall(b"still there?")
                    if not s.recv(64):
                        raise ConnectionError()
                    time.sleep(every)
        except OSError as e:
            note(time.monotonic(), type(e).__name__, "lost")
            time.sleep(0.1)


begin()
works = [(new, (to,)) for to in targets] + [(stays, ())] * 8
for work, arguments in works:
    threading.Thread(target=work, args=arguments, daemon=True).start()
for line in sys.stdin:
    if line.strip() == "from":
        begin()
    with lock:
        told = {k: v for k, v in count.items() if k != "began"}
    print(json.dumps(told), flush=True)
