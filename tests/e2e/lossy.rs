//! What links do to tunnels that lose, limit or block what crosses them: over TCP, over QUIC, and with
//! `auto`, in the same rig.

mod measured;
mod recaptured;
mod roaming;

use std::time::{Duration, SystemTime};

use crate::support::{Testbed, eventually, testbed, text};

/// Sends as many bytes as it is asked for (`N\n`), or echoes a line that is no number.
const SERVER: &str = "
import socket,threading
s=socket.socket(socket.AF_INET6); s.setsockopt(socket.SOL_SOCKET,socket.SO_REUSEADDR,1)
s.bind(('::',7000)); s.listen(512)
def serve(c):
    f=c.makefile('rb')
    for line in f:
        if line.strip().isdigit():
            left=int(line); chunk=bytes(1<<17)
            while left>0:
                c.sendall(chunk[:min(left,len(chunk))]); left-=len(chunk)
        else:
            c.sendall(line)
def run(c):
    try: serve(c)
    except OSError: pass
    c.close()
while True:
    c,_=s.accept(); c.setsockopt(socket.IPPROTO_TCP,socket.TCP_NODELAY,1)
    threading.Thread(target=run,args=(c,),daemon=True).start()
";

/// `bulk FLOWS BYTES` prints MB/s; `small TIMES PROGRAMS` prints p50, p99 and p99.9 in µs of echoes beside a
/// download, asked for a thousand times a second at most by as many connections, each of one at a time;
/// `connect TIMES` opens connections one after the other, each with one echo, and prints how many failed, p50
/// and p99 in µs, and when those that failed were begun, in seconds since 1970; `held FLOWS BYTES` downloads
/// slowly, prints how many have begun, then, after a line is read, goes on at full speed and prints how many broke.
const CLIENT: &str = "
import heapq,selectors,socket,sys,threading,time
to=('10.96.0.78',78)
def dial():
    c=socket.create_connection(to,10); c.settimeout(20)
    c.setsockopt(socket.IPPROTO_TCP,socket.TCP_NODELAY,1); return c
def pull(c,left):
    c.sendall(b'%d\\n'%left)
    while left>0:
        got=c.recv(1<<17)
        if not got: raise OSError('cut')
        left-=len(got)
def quantiles(times):
    times.sort(); n=len(times)
    return '%d %d'%(times[n//2]*1e6,times[min(n-1,n*99//100)]*1e6)
what=sys.argv[1]
if what=='bulk':
    flows,size=int(sys.argv[2]),int(sys.argv[3])
    cs=[dial() for _ in range(flows)]
    begun=time.time()
    ts=[threading.Thread(target=pull,args=(c,size)) for c in cs]
    [t.start() for t in ts]; [t.join() for t in ts]
    print('%.1f'%(flows*size/(time.time()-begun)/1e6))
elif what=='small':
    times,programs=int(sys.argv[2]),int(sys.argv[3])
    bulk,cs,stop=dial(),[dial() for _ in range(programs)],False
    def load():
        try:
            while not stop: pull(bulk,1<<20)
        except OSError: pass
    t=threading.Thread(target=load,daemon=True); t.start(); time.sleep(.3)
    word,took,asked,left=b'x'*60+b'\\n',[],{},{}
    due=[(time.time()+.001*n,n) for n in range(programs)]
    come=selectors.DefaultSelector()
    for n,c in enumerate(cs): come.register(c,selectors.EVENT_READ,n)
    while len(took)<times:
        while due and due[0][0]<=time.time():
            n=heapq.heappop(due)[1]; asked[n],left[n]=time.time(),len(word); cs[n].sendall(word)
        ready=come.select(max(0,due[0][0]-time.time()) if due else 20)
        if not ready and not due: raise OSError('silent')
        for key,_ in ready:
            n=key.data; got=len(cs[n].recv(100)); left[n]-=got
            if not got: raise OSError('cut')
            if left[n]: continue
            took.append(time.time()-asked[n]); heapq.heappush(due,(time.time()+.001*programs,n))
    stop=True
    print(quantiles(took),int(took[len(took)*999//1000]*1e6))
elif what=='held':
    flows,size=int(sys.argv[2]),int(sys.argv[3])
    begun,broken,go=[],[],threading.Event()
    def hold(c):
        try:
            c.sendall(b'%d\\n'%size); left=size
            while left>0:
                got=c.recv(1<<16 if go.is_set() else 1<<12)
                if not got: raise OSError('cut')
                if left==size: begun.append(c)
                left-=len(got)
                if not go.is_set(): go.wait(.05)
        except OSError: broken.append(c)
    ts=[threading.Thread(target=hold,args=(dial(),)) for _ in range(flows)]
    [t.start() for t in ts]
    while len(begun)+len(broken)<flows: time.sleep(.01)
    print(len(begun),flush=True)
    sys.stdin.readline(); go.set()
    [t.join() for t in ts]
    print(len(broken),flush=True)
else:
    times,failed=[],[]
    for n in range(int(sys.argv[2])):
        begun=time.time()
        try:
            c=dial(); c.sendall(b'x\\n')
            if c.recv(10)!=b'x\\n': failed.append(begun)
            c.close()
        except OSError: failed.append(begun)
        times.append(time.time()-begun); time.sleep(.003)
    print(len(failed),quantiles(times),*failed)
";

const WEB: (&str, Option<&str>) = ("edge-1", Some("web"));

fn begin(testbed: &mut Testbed) {
    static STARTED: std::sync::Once = std::sync::Once::new();
    STARTED.call_once(|| serve(testbed));
}

fn serve(testbed: &mut Testbed) {
    testbed.program("edge-2", Some("cart-2"), &["python3", "-c", SERVER]);
}

/// Has tunnels between `web` and the server go so.
fn by(testbed: &Testbed, transport: &str) {
    let service = "[[service]]\nname = \"bulk\"\nnamespace = \"shop\"\naddresses = [\"10.96.0.78\"]\n\
         ports = [{ port = 78, target-port = 7000, app-protocol = \"tcp\" }]\n\
         selector = { app = \"bulk\" }\n";
    testbed.write_mesh_file("policy.toml", service);
    let mesh = include_str!("../../examples/quickstart/mesh/mesh.toml");
    let mode = "dataplane-mode = \"ambient\"";
    assert!(mesh.contains(mode));
    let said = format!("{mode}\ntransport = \"{transport}\"");
    testbed.write_mesh_file("mesh.toml", &mesh.replace(mode, &said));
    let shop = include_str!("../../examples/quickstart/mesh/shop.toml");
    let only = "labels = { app = \"cart\", version = \"v1\" }\ncapture = { netns = \"cart-2\" }";
    let both = only.replace("\"cart\"", "\"bulk\"");
    assert!(shop.contains(only));
    testbed.write_mesh_file("shop.toml", &shop.replace(only, &both));
    eventually(&format!("tunnels by {transport}"), || {
        let workloads = testbed.lateen("edge-1", &["status", "-o", "json"]);
        let told = text(&workloads.stdout).replace(' ', "");
        let wanted = format!("\"transport\":\"{transport}\"");
        match told.contains(&wanted) && client(testbed, &["connect", "1"]).starts_with("0 ") {
            true => Ok(()),
            false => Err(told),
        }
    });
}

fn client(testbed: &Testbed, words: &[&str]) -> String {
    let command = [&["python3", "-c", CLIENT], words].concat();
    let output = testbed.exec(WEB.0, WEB.1, &command);
    text(&output.stdout).trim().to_owned()
}

/// Filters of the links of both hosts, whatever they had before.
fn link(testbed: &Testbed, rules: &[String]) {
    for host in ["edge-1", "edge-2"] {
        let mut script = String::from("add table netdev loss\ndelete table netdev loss\n");
        if !rules.is_empty() {
            script.push_str(
                "add table netdev loss\nadd chain netdev loss in { type filter hook ingress \
                 device \"eth0\" priority -400; policy accept; }\n",
            );
        }
        for rule in rules {
            script.push_str(&format!("add rule netdev loss in {rule}\n"));
        }
        let words = ["sh", "-c", &format!("nft -f - <<'END'\n{script}END")];
        let output = testbed.exec(host, None, &words);
        assert!(output.status.success(), "{script}: {output:?}");
    }
}

#[test]
fn where_datagrams_are_blocked_or_come_to_be_nothing_fails() {
    let mut testbed = testbed();
    begin(&mut testbed);
    let blocked = ["udp dport 15008 drop".to_owned()];
    link(&testbed, &blocked);
    by(&testbed, "auto");
    let from_the_start = client(&testbed, &["connect", "200"]);
    link(&testbed, &[]);
    let unblocked = client(&testbed, &["connect", "200"]);
    for (name, seen) in [("blocked", from_the_start), ("unblocked", unblocked)] {
        assert!(seen.starts_with("0 "), "{name}: {seen}");
    }
}

/// A lossy way, on which `auto` goes by QUIC, whose datagrams are blocked amid connections.
#[test]
fn a_way_that_breaks_while_it_is_used_fails_no_connection() {
    let mut testbed = testbed();
    begin(&mut testbed);
    let lossy = ["tcp dport 15008 numgen random mod 100 < 2 drop".to_owned()];
    link(&testbed, &[]);
    // One that remembers nothing of ways that were blocked.
    testbed.kill("edge-1");
    testbed.daemon("edge-1");
    by(&testbed, "auto");
    link(&testbed, &lossy);
    eventually("tunnels by QUIC", || {
        let (seen, tapped) = testbed.tapped(|| client(&testbed, &["connect", "40"]));
        let frames = tapped.kinds.get("udp/15008").copied().unwrap_or_default();
        match frames > 80 {
            true => Ok(()),
            false => Err((seen, tapped)),
        }
    });
    let mut blocked = lossy.to_vec();
    blocked.push("udp dport 15008 drop".to_owned());
    let mut busy = testbed.session(WEB.0, WEB.1, &["python3", "-c", CLIENT, "connect", "400"]);
    // Some have been made by QUIC by then, and many are still to come.
    std::thread::sleep(Duration::from_millis(700));
    link(&testbed, &blocked);
    let broken = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let broken = broken.unwrap().as_secs_f64();
    let seen = busy.line();
    link(&testbed, &[]);
    // One may have been open, and what is open does not move; none that came after it fails.
    let begun: Vec<f64> = seen
        .split(' ')
        .skip(3)
        .map(|at| at.parse().unwrap())
        .collect();
    assert!(
        begun.len() <= 1 && begun.iter().all(|at| *at < broken),
        "{seen}, broken at {broken}"
    );
}
