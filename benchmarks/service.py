"""What does HTTP cost? The service beside the same `Predictor` in a plain loop, and beside LitServe

And what does it do under too much load, and for half an hour?

Method: server, load (`load.py`, whose own processor time is stated) and nothing else on the same machine. Ways take
turns, `--repeat` times. The texts are held-out tweets; every answer is checked against what the `Predictor` gives
alone, its label and its number of tokens. Parts, each of which keeps its own entry in the file:

    throughput  32 clients that ask again as soon as they are answered: the service, LitServe with the same Predictor
                and its batching on, LitServe with the torch model; and the Predictor in a loop, fed 32 texts at a time
    latency     one client; and the service at half of its throughput, by the clock
    startup     from process start to ready, on a warm disk; memory after 10,000 mixed requests
    overload    three times the throughput by the clock, then the time until all is as before
    soak        70 % of the throughput for `--minutes`
    fairness    a light client, alone and beside each of some heavy ones: its p99; and what the heavy one gets done alone
                and beside it. With `--before FOLDER` also what it got done alone in another checkout

    pip install -c constraints.txt litserve  # for `throughput` only, with the versions of the environment
    python benchmarks/service.py --model models/quickstart
    python benchmarks/service.py --model models/quickstart --part soak --minutes 30
    python benchmarks/service.py --model models/quickstart --part fairness --repeat 3 --before ../before
    python benchmarks/service.py --model models/quickstart --part startup --shape distilbert
"""
import argparse, hashlib, importlib.util, json, os, random, signal, socket, statistics, subprocess, sys, tempfile
import threading, time
import urllib.error, urllib.request
from contextlib import contextmanager
from functools import partial
from pathlib import Path
import psutil
from common import print_table, random_distilbert, save, say, spread

HERE = Path(__file__).parent
CLIENTS = 32
LOOP = '''
import json, sys, time
from itertools import cycle
from sentiment_nb.inference import Predictor
model,file = sys.argv[1:3]
n = int(sys.argv[3])
seconds = float(sys.argv[4])
predictor = Predictor(model)
texts = [t for t,_ in json.load(open(file))]
batches = cycle([texts[i:i+n] for i in range(0, len(texts)-n+1, n)])
for _ in range(20): predictor.predict(next(batches))
times = []
start = time.perf_counter()
cpu = time.process_time()
while time.perf_counter()-start<seconds:
    t = time.perf_counter()
    predictor.predict(next(batches))
    times.append(time.perf_counter()-t)
spent = time.perf_counter()-start
p50_ms = 1000*sorted(times)[len(times)//2]
cpu_seconds = time.process_time()-cpu
print(json.dumps(dict(per_second=n*len(times)/spent, p50_ms=p50_ms, cpu_seconds=cpu_seconds, seconds=spent)))
''' # The Predictor fed n texts at a time, in a process of its own

LITSERVE = '''
import sys
import litserve as ls
kind,model,port = sys.argv[1:]

class Served(ls.LitAPI):
    def setup(self, device):
        if kind=='predictor':
            from sentiment_nb.inference import Predictor
            self.predictor = Predictor(model)
        else:
            import torch
            from transformers import pipeline
            self.pipe = pipeline('text-classification', model, device='cpu')
    def decode_request(self, request): return request['text']
    def batch(self, texts): return list(texts)
    def predict(self, texts):
        if kind=='predictor': return [self.answer(p) for p in self.predictor.predict(texts)]
        return [{'label': p['label'], 'confidence': p['score']} for p in self.pipe(texts, batch_size=len(texts))]
    def answer(self, p): return {'label': p.label, 'confidence': p.confidence, 'probabilities': p.probabilities}
    def unbatch(self, answers): return answers
    def encode_response(self, answer): return answer

if __name__=='__main__':
    server = ls.LitServer(Served(max_batch_size=32, batch_timeout=.005), accelerator='cpu')
    server.run(host='127.0.0.1', port=int(port), generate_client_file=False, log_level='warning')
''' # Its own server around the same model: batches of at most 32, filled for at most 5 ms

def free_port():
    with socket.create_server(('127.0.0.1', 0)) as s: return s.getsockname()[1]

def ask(url, body=None):
    "Status and body of one request"
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {'Content-Type': 'application/json'})
    try:
        with urllib.request.urlopen(request, timeout=60) as r: return r.status, r.read()
    except urllib.error.HTTPError as e: return e.code, e.read()
    except OSError: return 0, b''

@contextmanager
def serving(command, ready, folder=None, **env):
    "A server as a process group, ready; yields its psutil.Process and the seconds until it was"
    start = time.perf_counter()
    with tempfile.NamedTemporaryFile('w+') as log:
        p = subprocess.Popen([sys.executable, *command], env=os.environ | env, stdout=log, stderr=log, cwd=folder,
            start_new_session=True)
        try:
            while not ready():
                if p.poll() is not None or time.perf_counter()-start>180:
                    raise SystemExit(f'{command[:3]} did not start:\n{Path(log.name).read_text()[-3000:]}')
                time.sleep(.01)
            yield psutil.Process(p.pid), time.perf_counter()-start
        finally:
            os.killpg(p.pid, signal.SIGTERM)
            try: p.wait(30)
            except subprocess.TimeoutExpired: os.killpg(p.pid, signal.SIGKILL)

@contextmanager
def service(model, folder=None, **env):
    "`sentiment-nb serve`, of another checkout if `folder` names one: its URL, process and seconds until ready"
    port = free_port()
    url = f'http://127.0.0.1:{port}'
    command = ['-m', 'sentiment_nb.cli', 'serve', '--model', str(Path(model).resolve()), '--port', str(port)]
    def ready(): return ask(f'{url}/readyz')[0]==200
    if folder: env |= {'PYTHONPATH': str(Path(folder).resolve())}
    env |= {'SENTIMENT_NB_RATE_LIMIT': 'none'} # no allowance for each client
    with serving(command, ready, folder, **env) as (p,seconds): yield url, p, seconds

def is_answered(url): return ask(f'{url}/predict', {'text': 'good'})[0]==200

@contextmanager
def litserve(model, kind):
    "LitServe around the Predictor or the torch model"
    port = free_port()
    with tempfile.TemporaryDirectory() as d:
        script = Path(d)/'served.py'
        script.write_text(LITSERVE)
        url = f'http://127.0.0.1:{port}'
        command = [str(script), kind, model, str(port)]
        with serving(command, partial(is_answered, url)) as (p,seconds): yield url, p, seconds

def load(url, file, *args):
    "What the load generator reports"
    command = [sys.executable, str(HERE/'load.py'), f'{url}/predict', file, *map(str, args)]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)

def loop(model, file, n, seconds):
    "The Predictor in a loop"
    command = [sys.executable, '-c', LOOP, model, file, str(n), str(seconds)]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)

def cpu(process):
    "Processor seconds of a process and its children"
    return sum(sum(p.cpu_times()[:2]) for p in [process, *process.children(recursive=True)])

def write_texts(model, file, n):
    "Held-out tweets, with what the model alone predicts"
    from sentiment_nb.data import load_tweets
    from sentiment_nb.inference import Predictor
    texts = load_tweets().shuffle(seed=1)['text'][-n:]
    wanted = [{'tokens': p.tokens, 'label': p.label} for p in Predictor(model).predict(texts)]
    Path(file).write_text(json.dumps(list(zip(texts, wanted))))

def export_distilbert(model, folder):
    "DistilBERT's size with random weights, whose int8 file needs to pass no gate"
    from tokenizers import Tokenizer
    from sentiment_nb.core import ModelRecord, write_checksums
    from sentiment_nb.data import load_tweets
    from sentiment_nb.inference import quantize, token_ids
    from sentiment_nb.training import torch_to_onnx
    record = ModelRecord.load(model)
    (random_distilbert(model, folder, record)/'onnx').mkdir()
    torch_to_onnx(folder, folder/'onnx'/'model.onnx')
    ids = token_ids(record, Tokenizer.from_file(f'{model}/tokenizer.json'), load_tweets()['text'][:100])
    quantize(folder/'onnx'/'model.onnx', folder/'onnx'/'model_int8.onnx', ids)
    record.engines = {'int8': {'passed': True}}
    record.save(folder)
    write_checksums(folder)
    return str(folder)

def loop_row(measured):
    "A row of the loop: without HTTP nothing is wrong or lost"
    return dict(per_second=measured['per_second'], server_cpu=measured['cpu_seconds']/measured['seconds'],
        load_cpu=0., p50_ms=measured['p50_ms'], p99_ms=0., wrong=0, lost=0)

def load_row(report, server_seconds, checked):
    "A row of a server, from the report of the load; other servers count other tokens, so only ours is `checked`"
    refused = sum(n for s,n in report['statuses'].items() if s!='200')
    return dict(per_second=report['per_second'], server_cpu=server_seconds/report['seconds'],
        load_cpu=report['cpu_seconds']/report['seconds'], p50_ms=report['p50_ms'], p99_ms=report['p99_ms'],
        wrong=report['wrong'] if checked else 0, lost=sum(report['lost'].values()) + refused)

def summarize(way, rows): return dict(way=way, **{k: spread([r[k] for r in rows], 2) for k in rows[0]})

def ratio_to(ours, theirs): return spread([s['per_second']/o['per_second'] for s,o in zip(ours, theirs)], 3)

BOUNDS = {'Predictor in a loop': .85, 'LitServe, predictor': 1, 'LitServe, torch': 3} # Of the service's throughput

def measure_throughput(args, file):
    "Answers per second with 32 pending, by way"
    ways = {'service': partial(service, args.model)}
    if importlib.util.find_spec('litserve'):
        ways |= {f'LitServe, {k}': partial(litserve, args.model, k) for k in ('predictor', 'torch')}
    rows = {w: [] for w in ['Predictor in a loop', *ways]}
    for _ in range(args.repeat):
        rows['Predictor in a loop'].append(loop_row(loop(args.model, file, CLIENTS, args.seconds)))
        for w,start in ways.items():
            with start() as (url,p,_):
                load(url, file, '--clients', CLIENTS, '--seconds', 2)
                before = cpu(p)
                report = load(url, file, '--clients', CLIENTS, '--seconds', args.seconds)
                rows[w].append(load_row(report, cpu(p)-before, checked=w=='service'))
    table = [summarize(w, rs) for w,rs in rows.items()]
    print_table(table,
        f'{CLIENTS} texts pending at all times, {args.seconds:g} s, {args.repeat} turns; processor use in cores')
    ratios = {w: ratio_to(rows['service'], rs) for w,rs in rows.items() if w!='service'}
    for w,bound in BOUNDS.items():
        if w not in ratios:
            say(f'{w}: not measured, litserve is not installed')
            continue
        r = ratios[w]
        say(f"service / {w}: {r['median']:.2f} ({r['low']:.2f} to {r['high']:.2f}) turn by turn, "
            f"bound {bound}: {'held' if r['median']>=bound else 'MISSED'}")
    return dict(table=table, ratios=ratios)

def measure_latency(args, file):
    "One client, and half of what the service can do"
    with service(args.model) as (url,_,_):
        load(url, file, '--clients', 1, '--seconds', 1)
        alone = []
        in_process = []
        for _ in range(args.repeat):
            in_process.append(loop(args.model, file, 1, args.seconds/2)['p50_ms'])
            alone.append(load(url, file, '--clients', 1, '--seconds', args.seconds/2)['p50_ms'])
        rate = load(url, file, '--clients', CLIENTS, '--seconds', args.seconds)['per_second']/2
        half = [load(url, file, '--rate', rate, '--seconds', args.seconds) for _ in range(args.repeat)]
    values = {'p50 of one client, ms': alone, 'p50 in the process, ms': in_process,
        f'half load ({rate:.0f}/s), p50, ms': [h['p50_ms'] for h in half],
        'half load, p99, ms': [h['p99_ms'] for h in half],
        'half load, processor of the load, cores': [h['cpu_seconds']/h['seconds'] for h in half]}
    rows = [dict(what=what, value=spread(vs)) for what,vs in values.items()]
    print_table(rows, 'Latency')
    gap = statistics.median(alone)-statistics.median(in_process)
    say(f"HTTP costs {gap:.2f} ms, bound 3 ms: {'held' if gap<=3 else 'MISSED'}")
    return dict(table=rows, gap_ms=round(gap, 3), half_load=half)

def requests_of(text):
    "Requests of all kinds, right and wrong"
    return [('/predict', {'text': text}), ('/predict/batch', {'texts': [text]*8}), ('/hf', {'inputs': text}),
        ('/predict', {'text': text[:60], 'explain': True}), ('/predict', {'text': text*20}),
        ('/predict', {'txt': text}), ('/readyz', None)]

def send_mixed(url, texts, n):
    "Requests of all kinds, one after the other on two threads"
    def work(k):
        for i in range(k, n, 2):
            kinds = requests_of(texts[i%len(texts)])
            path,body = kinds[i%len(kinds)]
            ask(url+path, body)
    threads = [threading.Thread(target=work, args=(k,)) for k in range(2)]
    for t in threads: t.start()
    for t in threads: t.join()

def measure_startup(args, file):
    "Seconds to ready, memory after many requests"
    times = []
    for i in range(args.repeat+1):
        with service(args.model) as (url,p,seconds):
            if i: times.append(seconds)
            if i==args.repeat:
                send_mixed(url, [t for t,_ in json.loads(Path(file).read_text())], args.requests)
                memory = p.memory_info().rss/2**20
    size = sum(f.stat().st_size for f in (Path(args.model)/'onnx').glob('*int8*'))/2**20
    median = statistics.median(times)
    say(f"\nFrom process start to ready: {median:.2f} s ({min(times):.2f} to {max(times):.2f}), "
        f"bound 3 s: {'held' if median<=3 else 'MISSED'}")
    say(f'Resident memory after {args.requests:,} mixed requests: {memory:.0f} MB (int8 file {size:.0f} MB); '
        'bound 250 MB with MiniLM, 320 MB in the shape of DistilBERT')
    return dict(ready_seconds=spread(times), resident_mb=round(memory, 1), requests=args.requests,
        int8_mb=round(size, 1))

class Watch(threading.Thread):
    "Resident memory of a process, once a second"
    def __init__(self, process):
        super().__init__(daemon=True)
        self.process = process
        self.megabytes = []
        self.stop = threading.Event()
    def run(self):
        while not self.stop.wait(1): self.megabytes.append(round(self.process.memory_info().rss/2**20, 1))
    def drift(self, warm=10):
        "Largest distance from the memory at the tenth second, as a share"
        first = self.megabytes[min(warm, len(self.megabytes)-1)]
        later = self.megabytes[warm:] or self.megabytes[-1:]
        return max(abs(m-first) for m in later)/first
    def thinned(self):
        "About sixty of the values"
        return self.megabytes[::max(1, len(self.megabytes)//60)]

def measure_recovery(url, file, calm):
    "Seconds until a text is answered as quickly as in `calm` milliseconds, 30 at most"
    end = time.perf_counter()
    while not is_answered(url) or load(url, file, '--clients', 1, '--count', 20)['p50_ms']>1.5*calm+3:
        if time.perf_counter()-end>30: break
    return time.perf_counter()-end

def bombard(args, file, times, seconds, title):
    "A multiple of the throughput by the clock; then the time until a text is answered as quickly as before"
    with service(args.model) as (url,p,_):
        load(url, file, '--clients', CLIENTS, '--seconds', 2)
        rate = load(url, file, '--clients', CLIENTS, '--seconds', args.seconds)['per_second']
        calm = statistics.median(load(url, file, '--clients', 1, '--seconds', 1)['p50_ms'] for _ in range(3))
        watch = Watch(p)
        watch.start()
        report = load(url, file, '--rate', times*rate, '--seconds', seconds)
        watch.stop.set()
        recovery = measure_recovery(url, file, calm)
    print_table([dict(rate=round(times*rate), statuses=str(report['statuses']), wrong=report['wrong'],
        lost=sum(report['lost'].values()), p50_ms=report['p50_ms'], p99_ms=report['p99_ms'],
        load_cpu=report['cpu_seconds']/report['seconds'])], title)
    spotless = not (report['wrong'] or report['lost'] or report['without_retry_after'])
    fine = set(report['statuses'])<={'200','429','503'} and spotless
    drift = watch.drift()
    say(f"only 200, 429 and 503 with Retry-After, none lost or wrong: {'held' if fine else 'MISSED'}")
    say(f"memory {watch.megabytes[0]:.0f} to {watch.megabytes[-1]:.0f} MB, drift {drift:.1%} after the tenth second, "
        f"bound 5 %: {'held' if drift<=.05 else 'MISSED'}")
    return report | dict(times=times, throughput=rate, recovery_seconds=round(recovery, 2), memory_mb=watch.thinned(),
        memory_drift=round(drift, 4), fine=fine)

def measure_overload(args, file):
    results = bombard(args, file, 3, args.crowd, f'Three times the throughput, {args.crowd:g} s')
    seconds = results['recovery_seconds']
    say(f"as before after {seconds} s (a new process of the load included), "
        f"bound 2 s: {'held' if seconds<=2 else 'MISSED'}")
    return results

def measure_soak(args, file):
    return bombard(args, file, .7, 60*args.minutes, f'70 % of the throughput, {args.minutes:g} minutes')

def hard_text():
    "99,000 characters in words of 99 random letters, for which a tokenizer works long"
    rng = random.Random(1)
    words = [''.join(rng.choices('abcdefghijklmnopqrstuvwxyz', k=98)) for _ in range(1000)]
    return ' '.join(words)[:99_000]

EXPLAIN = {'text': ('word '*1000)[:5000], 'explain': True}
BATCH = {'texts': ['word '*118]*128}
HEAVY = { # connections, path, body
    'explain 5,000 characters, 1 connection': (1, '/predict', EXPLAIN),
    'explain 5,000 characters, 2 connections': (2, '/predict', EXPLAIN),
    'explain 5,000 characters, 8 connections': (8, '/predict', EXPLAIN),
    'texts of 99,000 characters, 2 connections': (2, '/predict', {'text': hard_text()}),
    'batches of 128 x 120 tokens, 1 connection': (1, '/predict/batch', BATCH),
    'batches of 128 x 120 tokens, 4 connections': (4, '/predict/batch', BATCH),
    '32 clients with small texts': (32, '/predict', {'text': 'good enough for me'})}
KEYS = {'heavy': 'h'*43, 'light': 'l'*43}
DIGESTS = ','.join(hashlib.sha256(k.encode()).hexdigest() for k in KEYS.values())

def load_as(url, path, who, file, *args):
    "The load generator as a process, with the key of a client"
    header = f'X-API-Key: {KEYS[who]}'
    command = [sys.executable, str(HERE/'load.py'), url+path, file, '--header', header, *map(str, args)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

def report_of(process): return json.loads(process.communicate()[0])

def run_light(url, file, n):
    return report_of(load_as(url, '/predict', 'light', file, '--clients', 1, '--count', n, '--pause', .01))

def run_heavy(url, heavy, file, seconds):
    n,path,_ = heavy
    return report_of(load_as(url, path, 'heavy', file, '--clients', n, '--seconds', seconds))

def run_both(url, heavy, heavy_file, file, n_light):
    "Reports of the light client and of the heavy one beside it"
    n,path,_ = heavy
    process = load_as(url, path, 'heavy', heavy_file, '--clients', n, '--seconds', 3600)
    time.sleep(1)
    light = run_light(url, file, n_light)
    process.terminate()
    return light, report_of(process)

def measure_neighbours(args, file, heavy, d):
    "One round: both alone, and side by side"
    heavy_file = f'{d}/heavy.json'
    Path(heavy_file).write_text(json.dumps([[heavy[2], {}]]))
    keys = {'SENTIMENT_NB_API_KEYS': DIGESTS}
    with service(args.model, **keys) as (url,_,_):
        run_light(url, file, 50)
        alone = run_light(url, file, args.light)
        heavy_alone = run_heavy(url, heavy, heavy_file, args.seconds)
        light,beside = run_both(url, heavy, heavy_file, file, args.light)
    measured = dict(light_p99_ms=alone['p99_ms'], light_p99_beside_ms=light['p99_ms'],
        light_ratio=light['p99_ms']/alone['p99_ms'], light_refused=sum(light['statuses'].values())-light['answered'],
        heavy_alone=heavy_alone['per_second'], heavy_beside=beside['per_second'],
        heavy_share=beside['per_second']/max(heavy_alone['per_second'], .001),
        wrong=alone['wrong']+light['wrong'], lost=sum(map(len, (alone['lost'], light['lost'], beside['lost']))))
    if not args.before: return measured
    with service(args.model, args.before, **keys) as (url,_,_):
        run_light(url, file, 50)
        before = run_heavy(url, heavy, heavy_file, args.seconds)['per_second']
    return measured | dict(heavy_before=before, heavy_kept=heavy_alone['per_second']/max(before, .001),
        heavy_share=beside['per_second']/max(before, .001))

def measure_fairness(args, file):
    rows = []
    with tempfile.TemporaryDirectory() as d:
        for name,heavy in HEAVY.items():
            rounds = [measure_neighbours(args, file, heavy, d) for _ in range(args.repeat)]
            rows.append({'heavy': name} | {k: spread([r[k] for r in rounds], 2) for k in rounds[0]})
            say(f'{name}: light p99 {rows[-1]["light_ratio"]["median"]:.1f} times its p99 alone')
    print_table(rows, f'A light client ({args.light:,} requests a round) beside a heavy one, {args.repeat} rounds')
    def median(key): return [r[key]['median'] for r in rows]
    def verdict(what, holds): say(f"{what}: {'held' if holds else 'MISSED'}")
    verdict(f'p99 of the light client at most 10 times its p99 alone, now {max(median("light_ratio")):.1f}',
        max(median('light_ratio'))<=10)
    verdict('no request of the light client refused, wrong or lost',
        not any(r[k]['high'] for r in rows for k in ('light_refused','wrong','lost')))
    verdict(f"the heavy one keeps 70 % beside it of what it had {'before' if args.before else 'alone'}, "
        f'now {min(median("heavy_share")):.0%}', min(median('heavy_share'))>=.7)
    if args.before: verdict(f'and 90 % alone, now {min(median("heavy_kept")):.0%}', min(median('heavy_kept'))>=.9)
    return dict(table=rows)

PARTS = dict(throughput=measure_throughput, latency=measure_latency, startup=measure_startup,
    overload=measure_overload, soak=measure_soak, fairness=measure_fairness)
SEPARATE = 'soak', 'fairness'
PACKAGES = ('fastapi uvicorn starlette pydantic uvloop httptools onnxruntime tokenizers '
    'litserve torch transformers')

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--model', default='models/quickstart', help='a model folder with ONNX files')
    p.add_argument('--shape', choices=['distilbert'],
        help='a random network of this size instead of the model, with its tokenizer')
    p.add_argument('--part', choices=PARTS, help='all but soak and fairness by default')
    p.add_argument('--repeat', type=int, default=5)
    p.add_argument('--seconds', type=float, default=10, help='of each measurement')
    p.add_argument('--crowd', type=float, default=60, help='seconds of the overload')
    p.add_argument('--minutes', type=float, default=30, help='of the soak')
    p.add_argument('--requests', type=int, default=10_000, help='mixed ones, before memory is read')
    p.add_argument('--texts', type=int, default=2000)
    p.add_argument('--light', type=int, default=2000, help='requests of the light client in a round of fairness')
    p.add_argument('--before', help='another checkout, whose throughput for a heavy client alone is the reference')
    args = p.parse_args()
    if not (Path(args.model)/'sentiment_nb.json').is_file():
        p.error(f'there is no model folder {args.model}: make one with `sentiment-nb quickstart`')
    with tempfile.TemporaryDirectory() as d:
        file = f'{d}/texts.json'
        if args.shape:
            work = Path(d)/args.shape
            work.mkdir()
            args.model = export_distilbert(args.model, work)
        write_texts(args.model, file, args.texts)
        suffix = f'-{args.shape}' if args.shape else ''
        for part in [args.part] if args.part else [n for n in PARTS if n not in SEPARATE]:
            save('service', args, PACKAGES, PARTS[part](args, file), part=part+suffix)

if __name__=='__main__': main()
