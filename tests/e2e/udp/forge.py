# Sends what no socket of UDP would: `forge.py SOURCE DESTINATION PORT TEXT BY`, where each datagram bears the
# text and what it is. BY is `packets`, which the kernel may put together, `pieces`, which it may not, or
# `frames`, which arrive on the loopback interface.
import socket,struct,sys
source,to,port,text,by=sys.argv[1],sys.argv[2],int(sys.argv[3]),sys.argv[4],sys.argv[5]
ends=socket.inet_aton(source)+socket.inet_aton(to)
def total(data):
    data+=b'\0'*(len(data)%2)
    n=sum(struct.unpack('>%dH'%(len(data)//2),data))
    while n>>16: n=(n&0xffff)+(n>>16)
    return ~n&0xffff
def udp(what,length=0,wrong=0):
    payload=('%s %s '%(text,what)).encode().ljust(length,b'.')
    head=struct.pack('>HHHH',40007,port,8+len(payload),0)
    pseudo=ends+struct.pack('>BBH',0,17,8+len(payload))
    right=total(pseudo+head+payload) or 0xffff
    return head[:6]+struct.pack('>H',right^wrong)+payload
number=1
def ip(body,offset=0,more=False):
    head=struct.pack('>BBHHHBBH',0x45,0,20+len(body),number,(0x2000 if more else 0)|offset>>3,64,17,0)+ends
    return head[:10]+struct.pack('>H',total(head))+head[12:]+body
def cut(what,*parts):
    global number
    number+=1
    whole=udp(what,4000)
    return [ip(whole[start:end],start,end<len(whole)) for start,end in parts]
short=udp('length')
packets=[
    ip(udp('whole')),
    ip(udp('checksum',wrong=0x5555)),
    ip(short[:4]+struct.pack('>H',4000)+short[6:]),
    ip(udp('cut')[:6]),
    *cut('pieces',(0,1400),(1400,2800),(2800,4008)),
    *cut('hole',(0,1400),(2800,4008)),
    *cut('overlap',(0,1400),(800,2200),(2200,3200),(3200,4008)),
    *cut('backwards',(2800,4008),(1400,2800),(0,1400)),
    *cut('tiny',(0,8),(16,1400),(1400,2800)),
]
if by=='frames':
    s=socket.socket(socket.AF_PACKET,socket.SOCK_DGRAM)
    for p in packets: s.sendto(p,('lo',0x0800))
else:
    s=socket.socket(socket.AF_INET,socket.SOCK_RAW,socket.IPPROTO_RAW)
    # IP_NODEFRAG
    s.setsockopt(socket.IPPROTO_IP,22,int(by=='pieces'))
    for p in packets:
        try: s.sendto(p,(to,0))
        # Refused on its way out.
        except PermissionError: pass
