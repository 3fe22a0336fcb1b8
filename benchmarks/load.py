"""The other side of the service: many clients at once, in a process of its own, every answer checked.

Plain sockets and hand-made requests, because a comfortable client would need more of the processor than the service
that it measures. Two ways to ask: without `--rate`, each client asks again as soon as it is answered (what the service
can do); with it, requests leave by the clock, whether or not earlier ones have been answered (what a crowd does).
Prints one JSON object; `cpu_seconds` is the load's own.

    python benchmarks/load.py http://127.0.0.1:8000/predict texts.json --clients 32 --seconds 10
    python benchmarks/load.py http://127.0.0.1:8000/predict texts.json --rate 600 --seconds 60

`texts.json` holds [[text, {"label": …, "tokens": …}], …]: what the answer must hold. With `--key-in` the text goes
into another field than `text`; in place of a text there may be a whole body. A client that is refused asks again after
a twentieth of a second, whatever it was told. SIGTERM ends the asking, and the report follows.
"""
import argparse, asyncio, json, signal, statistics, time
from collections import Counter
from itertools import cycle, islice
from urllib.parse import urlsplit
try: from uvloop import run
except ImportError: from asyncio import run # Windows

WAIT = 60 # Seconds after which an answer counts as lost

class Client:
    "A connection that is kept, and made anew when the other side has closed it"
    def __init__(self, url):
        self.url = urlsplit(url)
        self.writer = None

    async def ask(self, request):
        "Status, headers and body of the answer"
        if self.writer and self.reader.at_eof(): self.close() # idle for longer than the other side keeps it
        if self.writer is None:
            self.reader,self.writer = await asyncio.open_connection(self.url.hostname, self.url.port)
        try:
            self.writer.write(request)
            head = await self.reader.readuntil(b'\r\n\r\n')
            lower = head.lower()
            body = await self.reader.readexactly(int(lower.split(b'content-length:')[1].split(b'\r\n')[0]))
        except BaseException:
            self.close()
            raise
        if b'connection: close' in lower: self.close()
        return int(head[9:12]), lower, body

    def close(self):
        if self.writer: self.writer.close()
        self.writer = None

def prepare(url, texts, field, headers=()):
    "The requests as bytes, each with what its answer must hold"
    parts = urlsplit(url)
    first_lines = f"POST {parts.path or '/'} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\n"
    first_lines += ''.join(f'{h}\r\n' for h in headers)
    def as_bytes(text):
        body = json.dumps(text if isinstance(text, dict) else {field: text}).encode()
        return f'{first_lines}Content-Length: {len(body)}\r\n\r\n'.encode() + body
    return [(as_bytes(t), wanted) for t,wanted in texts]

class Tally:
    "What came back"
    def __init__(self):
        self.statuses = Counter()
        self.seconds = []
        self.wrong = 0
        self.bare = 0 # Refusals without Retry-After
        self.lost = Counter()

    async def one(self, client, request, wanted):
        start = time.perf_counter()
        try: status,head,body = await asyncio.wait_for(client.ask(request), WAIT)
        except (OSError, EOFError, TimeoutError) as e:
            self.lost[type(e).__name__] += 1
            return None
        self.statuses[status] += 1
        if status==200:
            self.seconds.append(time.perf_counter()-start)
            self.wrong += not wanted.items()<=json.loads(body).items()
        elif status in (429,503) and b'retry-after:' not in head: self.bare += 1
        return status

    def report(self, seconds):
        s = sorted(self.seconds)
        def at(q): return round(1000*s[min(len(s)-1, int(q*len(s)))], 2) if s else None
        return dict(seconds=round(seconds, 2), answered=len(s), per_second=round(len(s)/seconds, 1),
            statuses={str(k): v for k,v in sorted(self.statuses.items())}, wrong=self.wrong,
            without_retry_after=self.bare, lost=dict(self.lost),
            mean_ms=s and round(1000*statistics.fmean(s), 2), p50_ms=at(.5), p99_ms=at(.99), max_ms=at(1),
            cpu_seconds=round(time.process_time(), 2))

async def ask_again(url, requests, clients, seconds, count, pause):
    "Each client asks as soon as it has been answered, or `pause` seconds after it"
    tally = Tally()
    over = asyncio.Event()
    try: asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, over.set)
    except NotImplementedError: pass # Windows
    start = time.perf_counter()
    source = cycle(requests) if count is None else islice(cycle(requests), count)
    async def work():
        client = Client(url)
        for request,wanted in source:
            status = await tally.one(client, request, wanted)
            if over.is_set() or count is None and time.perf_counter()-start>=seconds: break
            if wait := pause if status==200 else max(pause, .05): await asyncio.sleep(wait)
        client.close()
    await asyncio.gather(*(work() for _ in range(clients)))
    return tally.report(time.perf_counter()-start)

async def by_the_clock(url, requests, rate, seconds):
    "Requests leave every 1/rate seconds, over connections that are free or new"
    tally = Tally()
    start = time.perf_counter()
    free = [] # Clients whose answer has come
    tasks = set()
    async def send(request, wanted):
        client = free.pop() if free else Client(url)
        await tally.one(client, request, wanted)
        free.append(client)
    for i,(request,wanted) in enumerate(cycle(requests)):
        late = start + i/rate - time.perf_counter()
        if i/rate>=seconds: break
        if late>0: await asyncio.sleep(late)
        tasks.add(task := asyncio.create_task(send(request, wanted)))
        task.add_done_callback(tasks.discard)
    sent = time.perf_counter()-start
    await asyncio.gather(*tasks)
    for c in free: c.close()
    return tally.report(sent) | {'asked_per_second': round(i/sent, 1)}

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('url')
    p.add_argument('texts')
    p.add_argument('--clients', type=int, default=32)
    p.add_argument('--seconds', type=float, default=10)
    p.add_argument('--count', type=int, help='this many requests instead of seconds')
    p.add_argument('--rate', type=float, help='requests per second')
    p.add_argument('--key-in', default='text')
    p.add_argument('--pause', type=float, default=0, help='seconds between an answer and the next request of a client')
    p.add_argument('--header', action='append', default=[], help='for each request, as NAME: VALUE')
    args = p.parse_args()
    with open(args.texts, encoding='utf-8') as f: requests = prepare(args.url, json.load(f), args.key_in, args.header)
    if args.rate: work = by_the_clock(args.url, requests, args.rate, args.seconds)
    else: work = ask_again(args.url, requests, args.clients, args.seconds, args.count, args.pause)
    print(json.dumps(run(work)))

if __name__=='__main__': main()
