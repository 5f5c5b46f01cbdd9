# Opens so many sockets, each a flow, and keeps them open. For each line it hears it asks from every one, so
# many at a time, and prints how many were answered, and how many that had been answered before were not.
import resource,select,socket,sys,time
to,port,count,together=sys.argv[1],int(sys.argv[2]),int(sys.argv[3]),int(sys.argv[4])
resource.setrlimit(resource.RLIMIT_NOFILE,(count+100,count+100))
flows=[]
for n in range(count):
    s=socket.socket(socket.AF_INET6 if ':' in to else socket.AF_INET,socket.SOCK_DGRAM)
    s.connect((to,port)); s.setblocking(False); flows.append(s)
before=set()
def ask(word):
    answered=set()
    for first in range(0,count,together):
        poll,waiting=select.epoll(),{}
        for n in range(first,min(first+together,count)):
            said=b'%s %d'%(word,n)
            waiting[flows[n].fileno()]=(n,said)
            poll.register(flows[n].fileno(),select.EPOLLIN)
            flows[n].send(said)
        until=time.monotonic()+5
        while waiting and time.monotonic()<until:
            for fd,_ in poll.poll(until-time.monotonic()):
                n,said=waiting[fd]
                if flows[n].recv(100)==said:
                    answered.add(n); del waiting[fd]; poll.unregister(fd)
        poll.close()
    return answered
print('ready',flush=True)
for line in sys.stdin:
    now=ask(line.strip().encode())
    print(len(now),len(before-now),flush=True)
    before|=now
