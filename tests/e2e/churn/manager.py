# The service manager of a machine: has units start, restart and stop, at random or as it is told.
#
# Its arguments are how many units there are, which of them (every so-manieth) hold a connection, the
# address and port they connect to, the seed, how many changes it makes a second at most, and where
# lateen is. It is told one thing a line, and answers with one line of JSON.
import json, os, select, signal, socket, sys, time

UNITS, EVERY, HOST, PORT, SEED, RATE, LATEEN = sys.argv[1:]
UNITS, EVERY, PORT, SEED, RATE = int(UNITS), int(EVERY), int(PORT), int(SEED), int(RATE)
SLICE = '/sys/fs/cgroup/system.slice/'
# Longest wait for an answer of somebody who is captured.
PATIENCE = 20

runs = {}
heard, tell = os.pipe()
os.set_blocking(heard, False)
done = {'changes': 0, 'connected': 0, 'failed': 0, 'cut': 0}


# A sequence of its own that is the same each time (Knuth's MMIX).
def below(limit):
    global SEED
    SEED = (SEED * 6364136223846793005 + 1442695040888963407) % (1 << 64)
    return (SEED >> 33) % limit


def group(unit):
    return SLICE + 'u%d.service' % unit


def enter(unit, pid):
    with open(group(unit) + '/cgroup.procs', 'w') as procs:
        procs.write(str(pid))


# Runs `work` in a process of the unit; a socket belongs to the unit in which it is made.
def program(unit, work):
    pid = os.fork()
    if pid:
        return pid
    try:
        enter(unit, 0)
        work()
    finally:
        os._exit(0)


def connect():
    stream = socket.create_connection((HOST, PORT), PATIENCE)
    return stream, stream.makefile('rb')


def ask(stream, answers):
    stream.sendall(b'GET / HTTP/1.1\r\nHost: store\r\n\r\n')
    length = 0
    while (line := answers.readline()) != b'\r\n':
        if not line:
            raise ConnectionError('closed')
        name, _, value = line.partition(b':')
        if name.lower() == b'content-length':
            length = int(value)
    return json.loads(answers.read(length))


# Holds a connection and uses it for as long as the unit runs, once the unit is captured: it waits for
# that as one does in ExecStartPre.
def hold(unit):
    manager = os.getppid()
    wait = ['lateen', 'capture', 'wait', '--unit', 'u%d.service' % unit]
    os.waitpid(os.posix_spawn(LATEEN, wait, os.environ), 0)
    held = None
    while os.getppid() == manager:
        try:
            if held is None:
                now = connect()
                ask(*now)
                held = now
                os.write(tell, b'+')
            else:
                ask(*held)
        except (OSError, ValueError):
            os.write(tell, b'!' if held is None else b'-')
            held = None
        time.sleep(0.1)


def connects(unit):
    return unit % EVERY == 0


def start(unit):
    os.makedirs(group(unit))
    if connects(unit):
        runs[unit] = program(unit, lambda: hold(unit))
    else:
        runs[unit] = os.posix_spawn('/bin/sleep', ['sleep', '3600'], {})
        enter(unit, runs[unit])


def stop(unit):
    pid = runs.pop(unit)
    # It may not have come to its group yet.
    os.kill(pid, signal.SIGKILL)
    kill(unit)
    os.waitpid(pid, 0)
    # Whoever has ended may be counted among the group's for a moment more.
    until = time.monotonic() + PATIENCE
    while True:
        try:
            return os.rmdir(group(unit))
        except OSError:
            if time.monotonic() > until:
                raise
            kill(unit)
            time.sleep(0.001)


# All that is in the unit: what its program has started too.
def kill(unit):
    with open(group(unit) + '/cgroup.procs') as procs:
        for pid in procs.read().split():
            try:
                os.kill(int(pid), signal.SIGKILL)
            except ProcessLookupError:
                pass


def change(unit):
    if unit not in runs:
        start(unit)
    elif below(3) == 0:
        stop(unit)
        start(unit)
    else:
        stop(unit)
    done['changes'] += 1


def listen():
    while select.select([heard], [], [], 0)[0]:
        said = os.read(heard, 4096)
        done['connected'] += said.count(b'+')
        done['failed'] += said.count(b'!')
        done['cut'] += said.count(b'-')


# Changes at random for so many seconds.
def churn(seconds):
    until = time.monotonic() + float(seconds)
    while (now := time.monotonic()) < until:
        change(below(UNITS))
        listen()
        time.sleep(max(0, now + 1 / RATE - time.monotonic()))


# Has all start that connect, and tells once they have.
def connected(seconds):
    before, wanted = done['connected'], 0
    for unit in range(0, UNITS, EVERY):
        if unit not in runs:
            start(unit)
            wanted += 1
    until = time.monotonic() + float(seconds)
    while done['connected'] < before + wanted and time.monotonic() < until:
        select.select([heard], [], [], 0.1)
        listen()


# Has all stop that connect.
def still():
    listen()
    for unit in [unit for unit in runs if connects(unit)]:
        stop(unit)


# Has programs of running units ask the service, all at once; the answer each of them got.
def asked(*units):
    answers = {}
    for unit in map(int, units):
        there, here = os.pipe()

        def work():
            try:
                said = ask(*connect())
            except (OSError, ValueError) as error:
                said = {'error': repr(error)}
            os.write(here, json.dumps(said).encode())

        answers[unit] = (program(unit, work), there)
        os.close(here)
    for unit, (pid, there) in answers.items():
        with os.fdopen(there, 'rb') as answer:
            answers[unit] = json.loads(answer.read() or b'{}')
        os.waitpid(pid, 0)
    return answers


def again(*units):
    for unit in map(int, units):
        stop(unit)
        start(unit)


def end():
    for unit in list(runs):
        stop(unit)


def some(count):
    left = sorted(runs)
    return [left.pop(below(len(left))) for _ in range(min(int(count), len(left)))]


TOLD = {
    'churn': churn, 'connected': connected, 'still': still, 'asked': asked, 'again': again, 'end': end,
    'some': some, 'runs': lambda: sorted(runs), 'done': lambda: done,
}
for line in sys.stdin:
    word, *rest = line.split()
    print(json.dumps(TOLD[word](*rest)), flush=True)
