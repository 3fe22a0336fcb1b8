"A real service under real clients: what it answers, what it refuses, and what it survives."
import asyncio
import gzip
import json
import os
import re
import resource
import signal
import socket
import struct
import subprocess
import sys
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace

import httpx
import psutil
import pytest
from conftest import environ, root
from prometheus_client.parser import text_string_to_metric_families

from sentiment_nb.api import ERRORS, PATHS, PUBLIC_PATHS, new_key
from sentiment_nb.core import MAX_CHARS, MAX_TEXTS
from sentiment_nb.inference import describe_classes
from sentiment_nb.protocol import HEAD_SECONDS, LINGER_SECONDS, MAX_PIPELINED

GOOD, BAD = 'I love it, thank you so much!', 'I hate it, this is the worst day ever'
JSON = {'Content-Type': 'application/json'}

@contextmanager
def running(model, folder, *command, ready='"ready"', stderr=None, url=None, **env):
    "A service as a process, ready, with its log in a file; SIGTERM when the block ends"
    log = folder/f'log{len(list(folder.glob("log*")))}'
    command = command or ('-m', 'sentiment_nb.cli', 'serve', '--port', '0')
    settings = {f'SENTIMENT_NB_{k}': str(v) for k,v in ({'DRAIN': 0} | env).items()}
    with open(stderr or log, 'w') as err:
        env = environ(SENTIMENT_NB_MODEL=str(model), **settings)
        p = subprocess.Popen([sys.executable, *command], env=env, stdout=err, stderr=err)
    try:
        until(lambda: p.poll() is not None or (alive(url) if url else ready in log.read_text()), 120)
        assert p.poll() is None, log.read_text()
        url = url or re.search(r'http://127\.0\.0\.1:\d+', log.read_text())[0]
        port = int(url.rsplit(':', 1)[1])
        with httpx.Client(base_url=url, timeout=60) as client:
            yield SimpleNamespace(url=url, port=port, process=p, log=log, client=client)
    finally:
        p.terminate()
        with suppress(subprocess.TimeoutExpired): p.wait(60)
        p.kill()

def until(true, seconds=10):
    "Wait for something to become true"
    end = time.monotonic()+seconds
    while not true():
        assert time.monotonic()<end, 'waited in vain'
        time.sleep(.02)

def alive(url):
    with suppress(httpx.HTTPError): return httpx.get(f'{url}/readyz').status_code==200

def free_port():
    with closing(socket.create_server(('127.0.0.1', 0))) as s: return s.getsockname()[1]

def metric(s, name, **headers):
    "A number from /metrics"
    lines = s.client.get('/metrics', headers=headers).text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if re.match(rf'sentiment_nb_{name}[ {{]', line))

def in_a_loop(coroutine):
    "Its result; in a thread of its own, because the browser's loop may stand in this one"
    with ThreadPoolExecutor(1) as pool: return pool.submit(asyncio.run, coroutine).result()

def well(s):
    "Does it answer, and rightly?"
    response = s.client.post('/predict/batch', json={'texts': [GOOD, BAD]})
    return response.status_code==200 and [p['tokens'] for p in response.json()['predictions']]==[11, 12]

def raw(s, *parts, timeout=60):
    "Send bytes, and read until the other side has no more to say"
    with socket.create_connection(('127.0.0.1', s.port), timeout=timeout) as c:
        with suppress(ConnectionError):
            for p in parts: c.sendall(p)
        received = b''
        with suppress(ConnectionError):
            while piece := c.recv(65536): received += piece
    return received

def head(path='/predict', length=None, *more):
    lines = [f'POST {path} HTTP/1.1', 'Host: localhost', 'Content-Type: application/json']
    if length is not None: lines.append(f'Content-Length: {length}')
    return '\r\n'.join([*lines, *more, '', '']).encode()

async def post_all(s, texts):
    "A request for each text, all at once"
    async with httpx.AsyncClient(base_url=s.url, timeout=60) as c:
        return await asyncio.gather(*(c.post('/predict', json={'text': t}) for t in texts))

@pytest.fixture(scope='module')
def service(tiny, tmp_path_factory):
    with running(tiny.model, tmp_path_factory.mktemp('service'), RATE_LIMIT='none', MAX_WAIT=1e6) as s: yield s

# Clients

def test_answers_are_those_of_the_model(service, tiny):
    "A hundred requests at once: each gets the answer to its own text"
    from sentiment_nb.inference import Predictor
    texts = [f'{GOOD if i%2 else BAD} ' + 'really '*(i%9) for i in range(100)]
    answers = [r.json() for r in in_a_loop(post_all(service, texts))]
    predictions = Predictor(tiny.model).predict(texts)
    assert [a['tokens'] for a in answers]==[p.tokens for p in predictions]
    for a,p in zip(answers, predictions):
        assert abs(a['confidence']-p.confidence)<1e-5 and set(a['probabilities'])==set(p.probabilities)
    assert len({a['confidence'] for a in answers})>5

def test_two_classes_are_named(service):
    "Once in the log, and in the schema; answers have the fields that they had"
    note = describe_classes(['negative', 'positive'])
    messages = [json.loads(line)['message'] for line in service.log.read_text().splitlines()]
    assert messages.count(note)==1
    schemas = service.client.get('/openapi.json').json()['components']['schemas']
    probabilities = schemas['PredictResponse']['properties']['probabilities']
    assert probabilities['description']==f'Of each class: negative, positive. {note}'
    fields = ['label', 'confidence', 'probabilities', 'tokens', 'truncated', 'uncertain', 'model']
    assert list(service.client.post('/predict', json={'text': GOOD}).json())==fields

HF = '''
import json, sys
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError
client = InferenceClient(base_url=sys.argv[1], token=sys.argv[2] or None)
top_k = int(sys.argv[4]) or None
try: print(json.dumps([[c.label, c.score] for c in client.text_classification(sys.argv[3], top_k=top_k)]))
except HfHubHTTPError as e: print(e.response.status_code, e)
'''

def test_head_and_body_leave_together(service):
    with closing(socket.create_connection(('127.0.0.1', service.port), timeout=60)) as c:
        for path in ('/livez', '/readyz'): # the second on the same connection
            c.sendall(head(path).replace(b'POST', b'GET'))
            assert c.recv(65536).endswith(b'{"status":"ok"}')

def hub(url, text, top_k=0, token=''):
    "What Hugging Face's own client makes of it"
    command = [sys.executable, '-c', HF, f'{url}/hf', token, text, str(top_k)]
    p = subprocess.run(command, env=environ(HF_HUB_OFFLINE='0'), capture_output=True, text=True)
    assert p.returncode==0, p.stderr
    return p.stdout

def test_hugging_face_client(service):
    "Classes with scores, best first; what is wrong, in words"
    both = json.loads(hub(service.url, GOOD))
    best = json.loads(hub(service.url, GOOD, 1))
    assert sorted(n for n,_ in both)==['negative', 'positive'] and both[0][1]>=both[1][1]
    assert abs(sum(v for _,v in both)-1)<1e-6
    assert len(best)==1 and best[0][0]==both[0][0]
    refused = hub(service.url, ' ')
    assert refused.startswith('422 ') and 'there is nothing in it' in refused

def test_uvicorn_app(tiny, tmp_path):
    "`uvicorn sentiment_nb.api:app` is the same service, and its log holds no text either"
    with running(tiny.model, tmp_path, '-m', 'uvicorn', 'sentiment_nb.api:app', '--port', '0', ready='Uvicorn running') as s:
        assert well(s) and s.client.get('/readyz').status_code==200
        assert s.client.get('/predict?text=quokka').status_code==405
        until(lambda: '"path": "/predict"' in s.log.read_text()) # written after the answer
        assert 'quokka' not in s.log.read_text()

def test_docs(service, browser):
    "Each example is sent with a click and answered, and nothing comes from elsewhere"
    page = browser.new_page()
    urls = []
    page.on('request', lambda r: urls.append(r.url))
    page.goto(f'{service.url}/docs')
    for path in ('/predict', '/predict/batch', '/hf'):
        block = page.locator('.opblock', has=page.get_by_text(path, exact=True))
        block.locator('.opblock-summary-control').click()
        block.get_by_role('button', name='Try it out').click()
        block.get_by_role('button', name='Execute').click()
        assert block.locator('.live-responses-table .response-col_status').last.inner_text().startswith('200')
    assert all(u.startswith((service.url, 'data:')) for u in urls), urls
    page.close()

def test_docs_ask_for_the_key(keyed, browser):
    "Shown to anybody; a request is answered once the key is given"
    page = browser.new_page()
    page.goto(f'{keyed.url}/docs')
    page.locator('.btn.authorize').click()
    form = page.locator('.auth-container', has=page.get_by_text('X-API-Key'))
    form.locator('input').fill(keyed.client.headers['X-API-Key'])
    form.locator('.btn.authorize').click()
    page.locator('.close-modal').click()
    block = page.locator('.opblock', has=page.get_by_text('/predict', exact=True))
    block.locator('.opblock-summary-control').click()
    block.get_by_role('button', name='Try it out').click()
    block.get_by_role('button', name='Execute').click()
    assert block.locator('.live-responses-table .response-col_status').last.inner_text().startswith('200')
    page.close()

def schemathesis(s, tmp_path, examples, *args, seed=42):
    "Requests made from the schema, right ones and wrong ones, with all checks; how many"
    options = ['--seed', str(seed), '--max-examples', str(examples), '--continue-on-failure', '--no-color',
        '--suppress-health-check', 'too_slow', *args] # which is the machine's fault
    command = [sys.executable, '-m', 'schemathesis.cli', 'run', f'{s.url}/openapi.json', *options]
    p = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environ(PYTHONIOENCODING='utf-8'))
    assert p.returncode==0, p.stdout[-6000:] + p.stderr
    return int(re.search(r'(\d[\d,]*) generated', p.stdout)[1].replace(',', ''))

def test_schema(tiny, tmp_path):
    "Some hundred generated requests, with keys, so that leaving them out is tried as well"
    key, digest = new_key()
    with running(tiny.model, tmp_path, RATE_LIMIT='none', API_KEYS=digest) as s:
        assert schemathesis(s, tmp_path, 20, '-H', f'Authorization: Bearer {key}')>=200
        assert '"status": 500' not in s.log.read_text() and '"status": 503' not in s.log.read_text()

@pytest.mark.slow
@pytest.mark.parametrize('seed', [1, 2, 3])
def test_schema_long(seed, tiny, tmp_path):
    "Thousands of them"
    key, digest = new_key()
    with running(tiny.model, tmp_path, RATE_LIMIT='none', API_KEYS=digest) as s:
        assert schemathesis(s, tmp_path, 500, '-H', f'Authorization: Bearer {key}', seed=seed)>=1500
        assert '"status": 500' not in s.log.read_text()

# What is sent

TEXTS = {
    'lone surrogate': 'cut \ud83d off',
    'two of them': '\udc00\ud800',
    'NUL': 'a\0b',
    'right to left': '\u202eevol I',
    'Arabic': 'أحب هذا كثيرا',
    'zero width': 'lo\u200bve\u200d\ufeff',
    'nothing but zero width': '\u200b\u200d\u2060',
    'newlines': '\n'*(MAX_CHARS-1) + 'a',
    'one word': 'a'*MAX_CHARS,
    'accents': 'e' + '\u0301'*1000,
    'emoji': '👩‍👩‍👧‍👦'*500,
    'markup': '<<<&#&amp;'*1000}

@pytest.mark.parametrize('text', TEXTS.values(), ids=TEXTS)
def test_hostile_text_is_answered(text, service):
    response = service.client.post('/predict', content=json.dumps({'text': text}), headers=JSON)
    assert response.status_code==200 and 0<=response.json()['confidence']<=1 and well(service)

BODIES = { # name: body, status
    '1 MB of newlines': (b'\n'*1_000_000, 400),
    'nothing': (b'', 400),
    'too long': (b' '*1_000_001, 413),
    'cut short': (b'{"text": "a', 400),
    'not UTF-8': (b'{"text": "\xff\xfe\xfa"}', 400),
    'nested lists': (b'['*20_000, 400),
    'nested lists, closed': (b'{"text": ' + b'['*20_000 + b']'*20_000 + b'}', 400),
    'nested objects': (b'{"a":'*20_000 + b'1' + b'}'*20_000, 400),
    'nested less': (b'{"text": ' + b'['*500 + b']'*500 + b'}', 422),
    'a number': (b'5', 422),
    'a long number': (b'{"text": ' + b'9'*100_000 + b'}', 400),
    'NaN': (b'{"text": NaN}', 422),
    'null': (b'{"text": null}', 422),
    'many fields': (json.dumps({str(i): i for i in range(50_000)}).encode(), 422),
    'surrogate as field': (rb'{"text": "a", "\ud83d": 1}', 422),
    'too many characters': (json.dumps({'text': 'a'*(MAX_CHARS+1)}).encode(), 422),
    'white space': (rb'{"text": " \n\t"}', 422),
    'too long to explain': (json.dumps({'text': 'a '*2501, 'explain': True}).encode(), 422)}

@pytest.mark.parametrize('body, status', BODIES.values(), ids=BODIES)
def test_hostile_body_is_refused(body, status, service):
    "In the format of all errors"
    response = service.client.post('/predict', content=body, headers=JSON)
    error = response.json()['error']
    assert response.status_code==status and error['type']==ERRORS[status] and error['message'], response.text
    assert response.headers['x-request-id'] and well(service)

def test_batch_limits(service):
    for n,status in ((0, 422), (1, 200), (MAX_TEXTS, 200), (MAX_TEXTS+1, 422)):
        assert service.client.post('/predict/batch', json={'texts': ['a']*n}).status_code==status

def brotli(body): return b'\x1b'

COMPRESSIONS = [('gzip', gzip.compress), ('deflate', zlib.compress), ('br', brotli), ('gzip, gzip', gzip.compress)]

@pytest.mark.parametrize('encoding, pack', COMPRESSIONS)
def test_compressed_bombs_are_refused(encoding, pack, service):
    "50 MB in 50 kB, unopened; with and without saying so"
    bomb = pack(b' '*50_000_000)
    before = psutil.Process(service.process.pid).memory_info().rss
    assert service.client.post('/predict', content=bomb, headers=JSON | {'Content-Encoding': encoding}).status_code==415
    assert service.client.post('/predict', content=bomb, headers=JSON).status_code==400
    assert psutil.Process(service.process.pid).memory_info().rss-before<25e6 and well(service)

@pytest.mark.parametrize('kind', ['text/plain', 'multipart/form-data', 'application/x-www-form-urlencoded', None])
def test_only_json(kind, service):
    response = service.client.post('/predict', content=b'{"text": "a"}', headers={'Content-Type': kind} if kind else {})
    assert response.status_code==415

def test_endless_body_is_cut_off(service):
    "100 MB without a length: refused after the first, and not kept"
    piece = b'%x\r\n' % 100_000 + b' '*100_000 + b'\r\n'
    before = psutil.Process(service.process.pid).memory_info().rss
    assert raw(service, head('/predict', None, 'Transfer-Encoding: chunked'), *[piece]*1000).startswith(b'HTTP/1.1 413')
    assert psutil.Process(service.process.pid).memory_info().rss-before<25e6 and well(service)

def test_announced_length_is_enough(service):
    "A body that is too long is refused before it comes"
    assert raw(service, head('/predict', 10**12)).startswith(b'HTTP/1.1 413')

def test_large_bodies_are_parsed_one_by_one(tiny, tmp_path):
    "Two dozen megabytes of empty lists at once, each of which takes twenty while it is parsed: others are served meanwhile"
    body = b'{"texts": [' + b'[],'*330_000 + b'[]]}'
    with running(tiny.model, tmp_path, RATE_LIMIT='none') as s, ThreadPoolExecutor(24) as pool:
        threads = psutil.Process(s.process.pid).num_threads()
        def post(_): return httpx.post(f'{s.url}/predict/batch', content=body, headers=JSON, timeout=60).status_code
        answers = pool.map(post, range(24))
        slowest = 0
        for _ in range(20):
            start = time.monotonic()
            assert s.client.get('/livez').status_code==200
            slowest = max(slowest, time.monotonic()-start)
        assert set(answers)=={422} and slowest<3
        assert psutil.Process(s.process.pid).num_threads()<=threads+2 and well(s)

# Slow clients, disconnects and overload

def test_half_open_connections(tiny, tmp_path):
    "A thousand connections whose first line never ends: others are served meanwhile, and in the end all are closed"
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with running(tiny.model, tmp_path) as s:
        start = time.monotonic()
        open_ = [socket.create_connection(('127.0.0.1', s.port)) for _ in range(1000)]
        try:
            for i,c in enumerate(open_): c.sendall(b'POST /predict HTTP/1.1\r\nHost: localhost\r\nX: '[:i%40])
            assert well(s)
            for c in open_:
                c.settimeout(max(.01, start + HEAD_SECONDS + 20 - time.monotonic()))
                with suppress(ConnectionResetError): assert c.recv(1000)==b''
            assert time.monotonic()-start>HEAD_SECONDS-2 and well(s)
        finally:
            for c in open_: c.close()
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

def test_endless_head(service):
    "A head without end is cut off, and not only when its time is over"
    start = time.monotonic()
    assert raw(service, b'GET / HTTP/1.1\r\n', *[b'X: ' + b'a'*8000 + b'\r\n']*100)==b''
    assert time.monotonic()-start<HEAD_SECONDS/2 and well(service)

def test_slow_bodies(tiny, tmp_path):
    "Two hundred bodies that never come get a 408 after the deadline; other clients do not notice"
    with running(tiny.model, tmp_path, DEADLINE=2) as s:
        slow = [socket.create_connection(('127.0.0.1', s.port)) for _ in range(200)]
        for c in slow: c.sendall(head('/predict', 100) + b'{"text": ')
        assert well(s)
        for c in slow:
            c.settimeout(20)
            assert c.recv(1000).startswith(b'HTTP/1.1 408')
            c.close()
        assert well(s)

def busy(s, n, *more):
    "Connections that have just sent a batch of 128 texts"
    body = json.dumps({'texts': [f'{i} ' + 'word '*40 for i in range(MAX_TEXTS)]}).encode()
    connections = [socket.create_connection(('127.0.0.1', s.port)) for _ in range(n)]
    for c in connections: c.sendall(head('/predict/batch', len(body), 'Connection: close', *more) + body)
    return connections

def answered(c):
    "Status and headers of the answer"
    c.settimeout(60)
    received = b''
    while piece := c.recv(65536): received += piece
    c.close()
    return int(received.split()[1]), received

def test_hang_up_frees_the_place(service):
    "Texts of clients that have gone leave the queue before their turn"
    until(lambda: metric(service, 'queue_texts')==0)
    first = busy(service, 4)
    until(lambda: metric(service, 'queue_texts')>MAX_TEXTS)
    disconnected = busy(service, 8)
    until(lambda: metric(service, 'queue_texts')>8*MAX_TEXTS)
    for c in disconnected: c.close()
    until(lambda: metric(service, 'queue_texts')<4*MAX_TEXTS)
    assert metric(service, 'queue_texts')>0, 'the engine was done before anything could be seen'
    assert [answered(c)[0] for c in first]==[200]*4
    until(lambda: metric(service, 'queue_texts')==0 and '"status": 499' in service.log.read_text())
    assert well(service)

@pytest.fixture(scope='module')
def pair(tiny, tmp_path_factory):
    "A service with a short queue and two clients: `client` has the key of the heavy one"
    keys, digests = zip(new_key(), new_key())
    settings = {'MAX_WAIT': .05, 'RATE_LIMIT': 'none', 'API_KEYS': ','.join(digests)}
    with running(tiny.model, tmp_path_factory.mktemp('pair'), **settings) as s:
        s.heavy, s.light = keys
        s.client.headers['X-API-Key'] = s.heavy
        yield s

def light_statuses(s, n=5, **request):
    "Of requests of the light client"
    request = request or {'json': {'text': 'a'}}
    return [s.client.post('/predict', headers=JSON | {'X-API-Key': s.light}, **request).status_code for _ in range(n)]

def test_full_queue(pair):
    "By one rule for one text and for many: 503 and when to come again, but for whoever filled it; soon all is as before"
    crowd = busy(pair, 12, f'X-API-Key: {pair.heavy}')
    until(lambda: metric(pair, 'queue_wait_seconds')>.1)
    one = pair.client.post('/predict', json={'text': 'a'})
    beside = light_statuses(pair)
    assert metric(pair, 'queue_texts')>0 and beside==[200]*5, 'the heavy client was done before anything could be seen'
    responses = [answered(c) for c in crowd]
    assert one.status_code==503 and int(one.headers['retry-after'])>=1
    assert one.json()['error']['type']=='unavailable'
    assert {status for status,_ in responses}=={200, 503}
    assert all(b'retry-after: ' in b for status,b in responses if status==503)
    until(lambda: well(pair), 2)

def test_uploads_that_never_end(pair):
    "Seventy of one client, each a byte short of the limit: the other's long body is still read"
    upload = head('/predict', 1_000_000, f'X-API-Key: {pair.heavy}') + b' '*999_999
    connections = [connect(pair, upload) for _ in range(70)]
    try:
        until(lambda: '"status": 503' in pair.log.read_text())
        assert light_statuses(pair, 1, content=b'{"text": "good"' + b' '*900_000 + b'}')==[200]
    finally:
        for c in connections: c.close()
    until(lambda: well(pair))

def test_deadline(tiny, tmp_path):
    "A request that has waited too long gets a 504"
    with running(tiny.model, tmp_path, DEADLINE=.3, MAX_WAIT=1e6, RATE_LIMIT='none') as s:
        statuses = [answered(c)[0] for c in busy(s, 12)]
        assert 504 in statuses and set(statuses)<={200, 408, 504}, statuses
        until(lambda: well(s), 5)
        assert metric(s, 'queue_texts')==0

@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGHUP])
def test_signals_drain(number, tiny, tmp_path):
    """For a moment all is answered, on connections that are closed, while /readyz says 503

    Then the port is closed, what was accepted is answered, and the process ends without an error.
    """
    if signal.getsignal(number)==signal.SIG_IGN: pytest.skip('hangups are ignored here, as under nohup')
    with running(tiny.model, tmp_path, MAX_WAIT=1e6, DRAIN=1) as s:
        inside = busy(s, 4)
        until(lambda: metric(s, 'queue_texts')>MAX_TEXTS)
        s.process.send_signal(number)
        until(lambda: s.client.get('/readyz').status_code==503)
        late = httpx.post(f'{s.url}/predict', json={'text': GOOD}, timeout=60)
        assert late.status_code==200 and late.headers['connection']=='close'
        until(lambda: 'Shutting down' in s.log.read_text())
        with pytest.raises(httpx.HTTPError): httpx.post(f'{s.url}/predict', json={'text': GOOD})
        assert [answered(c)[0] for c in inside]==[200]*4
        assert s.process.wait(20)==0

# What anybody who reaches the port may do with one connection

@pytest.fixture(scope='module')
def keyed(tiny, tmp_path_factory):
    "A service that asks for a key; its client has one"
    key, digest = new_key()
    with running(tiny.model, tmp_path_factory.mktemp('keyed'), RATE_LIMIT='none', MAX_WAIT=1e6, API_KEYS=digest) as s:
        s.key = f'X-API-Key: {key}'
        s.client.headers['X-API-Key'] = key
        yield s

CHUNKED = 'Transfer-Encoding: chunked'

def get(path='/livez', *more): return '\r\n'.join([f'GET {path} HTTP/1.1', 'Host: localhost', *more, '', '']).encode()

def connect(s, *parts):
    "A connection on which something was sent"
    c = socket.create_connection(('127.0.0.1', s.port), timeout=20)
    for p in parts: c.sendall(p)
    return c

@contextmanager
def harmless(s, seconds=8):
    "Whatever happens inside ends soon, takes no memory, and others are served at once after it"
    process = psutil.Process(s.process.pid)
    before = process.memory_info().rss
    start = time.monotonic()
    yield
    end = time.monotonic()
    assert s.client.get('/livez').status_code==200 and time.monotonic()-end<2
    assert end-start<seconds and process.memory_info().rss-before<25e6

TRAILERS = {
    'short ones': (b'0\r\n', b'X: y\r\n'*7000),
    'one of 42 MB': (b'0\r\nX: ', b'y'*42_000),
    'a chunk extension of 42 MB': (b'1;', b'y'*42_000)}

@pytest.mark.parametrize('begin, piece', TRAILERS.values(), ids=TRAILERS)
def test_endless_trailers(begin, piece, keyed):
    "With a key, and without: a 401 has been sent by then"
    for more in ([], [keyed.key]):
        with harmless(keyed): raw(keyed, head('/predict', None, CHUNKED, *more) + begin, *[piece]*1000)

def test_trailers_are_no_headers(keyed, service):
    "Neither a key nor a content type"
    text = b'10\r\n{"text": "fine"}\r\n0\r\n'
    def status(s, request, trailer):
        return int(raw(s, request + text + trailer.encode() + b'\r\n\r\n').split()[1])
    closing = (CHUNKED, 'Connection: close')
    assert status(keyed, head('/predict', None, *closing), keyed.key)==401
    assert status(keyed, head('/predict', None, *closing, keyed.key), 'X-API-Key: wrong')==200
    plain = head('/predict', None, *closing).replace(b'application/json', b'text/plain')
    assert status(service, plain, 'Content-Type: application/json')==415

def test_pipelining(keyed):
    "A few requests are answered in their order, a hundred thousand are not"
    paths = ['/livez', '/', '/metrics', '/nowhere', '/readyz']
    statuses = re.findall(rb'HTTP/1.1 (\d+)', raw(keyed, *map(get, paths), get('/livez', 'Connection: close')))
    assert [int(s) for s in statuses]==[200, 200, 401, 401, 200, 200]
    allowed = raw(keyed, get()*MAX_PIPELINED + get('/livez', 'Connection: close'))
    assert allowed.count(b'HTTP/1.1 200')==MAX_PIPELINED+1
    for more in ([], [keyed.key]):
        with harmless(keyed): received = raw(keyed, get('/?a', *more)*100_000)
        assert received.count(b'HTTP/1.1')<1000

def test_connections_answered_early(keyed):
    "Closed within seconds, though the client holds them and sends a byte; one that is idle is kept, one whose body ends is too"
    upload = head('/predict', 900_000, keyed.key)
    early = {
        401: head('/predict', 900_000),
        405: get('/predict', 'Content-Length: 900000', keyed.key),
        413: head('/predict', 10**9, keyed.key),
        415: upload.replace(b'application/json', b'text/plain'),
        200: get('/livez', 'Content-Length: 900000')}
    connections = {status: connect(keyed, request) for status,request in early.items()}
    idle = connect(keyed, get())
    ends = connect(keyed, head('/predict', 10))
    for status,c in [*connections.items(), (200, idle), (401, ends)]: assert int(c.recv(65536).split()[1])==status
    for c in connections.values(): c.sendall(b'x')
    ends.sendall(b'x'*10 + get())
    assert ends.recv(65536).startswith(b'HTTP/1.1 200')
    start = time.monotonic()
    for c in connections.values():
        with closing(c), suppress(ConnectionResetError): assert c.recv(65536)==b''
    assert time.monotonic()-start<LINGER_SECONDS+2
    time.sleep(.2)
    for c in (idle, ends):
        with closing(c):
            c.sendall(get())
            assert c.recv(65536).startswith(b'HTTP/1.1 200')

def test_a_body_that_is_too_long_gets_its_answer(keyed):
    "Not a reset: each of twelve clients that send all before they read"
    for _ in range(12):
        with closing(connect(keyed, head('/predict', 3_000_000, keyed.key, 'Connection: close'), b' '*3_000_000)) as c:
            assert c.recv(65536).startswith(b'HTTP/1.1 413')

def test_pipelining_and_reset(keyed):
    "Clients that leave in the middle of everything: each line of the log is JSON, and none holds a traceback"
    body = json.dumps({'text': GOOD}).encode()
    requests = (head('/predict', len(body), keyed.key) + body + get('/metrics', keyed.key))*4
    for i in range(80):
        c = connect(keyed, requests)
        if i%2: c.recv(100)
        c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0)) # close with a reset
        c.close()
    until(lambda: well(keyed) and metric(keyed, 'queue_texts')==0)
    log = keyed.log.read_text()
    entries = [json.loads(line) for line in log.splitlines()]
    assert 'Traceback' not in log and not [e for e in entries if e['level']=='ERROR']

def test_explanation_ends_when_its_client_leaves(keyed):
    "Its parts stand in the queue as texts of their own, and leave it"
    body = json.dumps({'text': ('word '*1000)[:5000], 'explain': True}).encode()
    connections = [connect(keyed, head('/predict', len(body), keyed.key) + body) for _ in range(8)]
    until(lambda: metric(keyed, 'queue_texts')>100)
    for c in connections: c.close()
    until(lambda: metric(keyed, 'queue_texts')==0, 2)
    assert well(keyed)

def test_what_is_no_http(keyed):
    "An error like all others, and counted"
    before = metric(keyed, 'requests_rejected_total')
    response = raw(keyed, b'NONSENSE\r\n\r\n')
    body = response.split(b'\r\n\r\n')[1]
    assert response.startswith(b'HTTP/1.1 400') and json.loads(body)['error']['type']=='bad_request'
    assert metric(keyed, 'requests_rejected_total')==before+1

def test_names(keyed, service):
    "On a loopback address only those of this machine: a page that has its own name lead there reads nothing, with a key or without"
    for s in (keyed, service):
        for path in ('/', '/predict', '/nowhere'):
            response = s.client.get(path, headers={'Host': 'rebound.example'})
            assert response.status_code==421 and response.json()['error']['type']=='misdirected'
        assert s.client.get('/', headers={'Host': 'localhost:8000'}).status_code==200

def test_ids_are_kept(service):
    "Those of the client and of its trace, in the response and in the log"
    sent, trace = '0b7e3d1c-58d5-4a6f-9d5e-2f4f7a1b9c3d', '4bf92f3577b34da6a3ce929d0e0e4736'
    response = service.client.get('/', headers={'X-Request-ID': sent, 'traceparent': f'00-{trace}-00f067aa0ba902b7-01'})
    assert response.headers['x-request-id']==sent
    until(lambda: f'"id": "{sent}", "status": 200, "trace_id": "{trace}"' in service.log.read_text())

# API keys, rate limits, CORS

def test_forwarded_addresses(service, tiny, tmp_path, monkeypatch):
    "Of a proxy that is named, and of nobody else, nor from a trailer: a program on this machine is one client"
    sent = head('/predict', None, CHUNKED, 'Connection: close', 'X-Forwarded-For: 10.0.0.7')
    request = sent + b'10\r\n{"text": "fine"}\r\n0\r\nX-Forwarded-For: 10.0.0.8\r\n\r\n'
    assert raw(service, request).startswith(b'HTTP/1.1 200')
    monkeypatch.setenv('FORWARDED_ALLOW_IPS', '127.0.0.1')
    with running(tiny.model, tmp_path) as s:
        assert raw(s, request).startswith(b'HTTP/1.1 200')
        until(lambda: '"client": "10.0.0.7"' in s.log.read_text())
        assert '10.0.0.8' not in s.log.read_text()
    until(lambda: '"client": "127.0.0.0/8"' in service.log.read_text())
    assert '10.0.0.' not in service.log.read_text()

def test_keys(tiny, tmp_path):
    "From the environment and from a file; everything but three paths asks for one"
    one, digest = new_key()
    two, other = new_key()
    (tmp_path/'keys').write_text(f'{other}  # Bert\n# that is all', encoding='utf-8-sig')
    with running(tiny.model, tmp_path, API_KEYS=digest, API_KEYS_FILE=tmp_path/'keys') as s:
        for path in sorted(PATHS | {'/nowhere', '/livez/', '/predict/'}):
            status = 200 if (path.rstrip('/') or '/') in PUBLIC_PATHS else 401
            head = s.client.head(path)
            assert s.client.get(path).status_code==status and (head.status_code, head.content)==(status, b''), path
        for path in (b'//', b'/livez/../metrics', b'/%6cetrics', b'http://x/metrics', b'/metrics?/livez'):
            request = b'GET ' + path + b' HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n'
            assert raw(s, request).startswith(b'HTTP/1.1 401'), path
        wrong_keys = [{'X-API-Key': k} for k in (digest, one[:-1], b'\xff\xfe')]
        for headers in ({}, {'Authorization': f'Basic {one}'}, *wrong_keys):
            response = s.client.post('/predict', content='['*20_000, headers=headers)
            assert response.status_code==401 and response.json()['error']['type']=='unauthorized'
            assert response.headers['www-authenticate']=='Bearer'
        beside = {'X-API-Key': one, 'Authorization': 'Bearer of another'}
        for headers in ({'X-API-Key': one}, {'X-API-Key': two}, beside):
            assert s.client.post('/predict', json={'text': GOOD}, headers=headers).status_code==200
        assert json.loads(hub(s.url, GOOD, 1, two)) and hub(s.url, GOOD, 1, 'wrong').startswith('401 ')
        log = s.log.read_text()
        assert not [k for k in (one, two, digest, other) if k in log] and 'ANYBODY' not in log

def test_rate_is_counted_for_each_key(tiny, tmp_path):
    "In tokens; each response tells what is left, and a request that can never fit is not told to wait"
    one, digest = new_key()
    two, other = new_key()
    with running(tiny.model, tmp_path, API_KEYS=f'{digest},{other}', RATE_LIMIT='80/minute') as s:
        def post(key, n): return s.client.post('/predict/batch', json={'texts': ['a']*n}, headers={'X-API-Key': key})
        responses = [post(one, n) for n in (4, 9, 14)] # ten tokens for each request, two for each text
        assert [r.status_code for r in responses]==[200, 200, 429]
        assert responses[0].headers['ratelimit-policy']=='"tokens";q=80;qu="tokens";w=60'
        left = [int(re.match(r'"tokens";r=(\d+);t=\d+$', r.headers['ratelimit'])[1]) for r in responses]
        assert left[0]>left[1]>left[2]
        rejected = post(one, 9)
        assert 1<=int(rejected.headers['retry-after'])<=120 and rejected.json()['error']['type']=='rate_limited'
        assert rejected.headers['ratelimit'].endswith(f";t={rejected.headers['retry-after']}")
        assert post(two, 9).status_code==200
        never = post(two, 40)
        assert never.status_code==422 and 'retry-after' not in never.headers
        assert 'allows 80 in 60 s' in never.json()['error']['message']

def test_browsers_are_kept_out_unless_let_in(service, tiny, tmp_path):
    origin = {'Origin': 'https://example.org'}
    other = {'Origin': 'https://example.com'}
    preflight = origin | {'Access-Control-Request-Method': 'POST', 'Access-Control-Request-Headers': 'content-type,x-api-key'}
    allowed = 'access-control-allow-origin'
    assert allowed not in service.client.options('/predict', headers=preflight).headers
    assert allowed not in service.client.post('/predict', json={'text': 'a'}, headers=origin).headers
    with running(tiny.model, tmp_path, CORS_ORIGINS='https://example.org', API_KEYS=new_key()[1]) as s:
        assert s.client.options('/predict', headers=preflight).headers[allowed]=='https://example.org'
        assert s.client.options('/predict', headers=preflight | other).status_code==400
        assert s.client.post('/predict', headers=origin).headers[allowed]=='https://example.org'

def test_open_service_needs_a_word(tiny, tmp_path, refuses):
    "Beyond this machine and without a key it starts only where that is meant, and warns; by uvicorn, it answers nobody"
    beyond = '-m', 'sentiment_nb.cli', 'serve', '--host', '0.0.0.0', '--port'
    refuses(['serve', '--model', tiny.model, '--host', '0.0.0.0', '--port', 0], 'SENTIMENT_NB_ALLOW_ANONYMOUS', 'sentiment-nb key')
    for env,warns in (({'ALLOW_ANONYMOUS': 'true'}, True), ({'API_KEYS': new_key()[1]}, False)):
        port = free_port()
        with running(tiny.model, tmp_path, *beyond, str(port), url=f'http://127.0.0.1:{port}', **env) as s:
            assert ('ANYBODY WHO REACHES 0.0.0.0' in s.log.read_text())==warns

# What breaks

def poisoned(tiny, folder):
    "A copy of the tiny model, float engine only, that answers NaN wherever a text holds the word zebra, and panics at aaa…!"
    import shutil
    import numpy as np
    import onnx
    from onnx import numpy_helper
    from tokenizers import Tokenizer
    from sentiment_nb.core import ModelRecord, write_checksums
    shutil.copytree(tiny.model, folder)
    (folder/'onnx'/'model_int8.onnx').unlink(missing_ok=True)
    graph = onnx.load(str(folder/'onnx'/'model.onnx'))
    tokenizer = Tokenizer.from_file(str(folder/'tokenizer.json'))
    table = next(i for i in graph.graph.initializer if list(i.dims)[:1]==[tokenizer.get_vocab_size()])
    rows = numpy_helper.to_array(table).copy()
    rows[tokenizer.token_to_id('zebra')] = np.nan
    table.CopyFrom(numpy_helper.from_array(rows, table.name))
    onnx.save(graph, str(folder/'onnx'/'model.onnx'))
    file = json.loads((folder/'tokenizer.json').read_text())
    gives_up = {'type': 'Split', 'pattern': {'Regex': '(a+)+$'}, 'behavior': 'Isolated', 'invert': False}
    file['pre_tokenizer'] = {'type': 'Sequence', 'pretokenizers': [gives_up, file['pre_tokenizer']]}
    (folder/'tokenizer.json').write_text(json.dumps(file))
    record = ModelRecord.load(folder)
    record.engines = {k: v for k,v in record.engines.items() if k!='int8'}
    record.save(folder)
    write_checksums(folder)
    return folder

def test_nan_is_an_error_and_harms_nobody_else(tiny, tmp_path):
    "A text on which the model fails gets 500, its neighbours in the batch their answers, and the log neither text nor message"
    with running(poisoned(tiny, tmp_path/'m'), tmp_path, MAX_WAIT=1e6) as s:
        texts = [f'{GOOD} {i}' + ' zebra quokka'*(i==7) + f' {"a"*30}!'*(i==11) for i in range(20)]
        responses = in_a_loop(post_all(s, texts))
        assert [r.status_code for r in responses]==[500 if i in (7, 11) else 200 for i in range(20)]
        for _ in range(2): assert s.client.post('/predict', json={'text': texts[11]}).status_code==500 # more than there are threads
        error = responses[7].json()['error']
        request_id = responses[7].headers['x-request-id']
        assert error['type']=='model_failed' and request_id in error['message']
        assert s.client.post('/predict', json={'text': 'a zebra here', 'explain': True}).status_code==500 and well(s)
        until(lambda: s.log.read_text().count('RuntimeError')>1)
        log = s.log.read_text()
        assert request_id in log and 'inference.py' in log and '"error": "PanicException"' in log
        assert not [w for w in ('zebra', 'quokka', 'love', 'a'*10) if w in log] # a hash may hold four

QUOTING = '''
from sentiment_nb import api
class Quoting(api.Predictor):
    def predict(self, texts):
        if "zebra" in str(texts): raise ValueError(f"cannot read {texts}")
        return super().predict(texts)
api.Predictor = Quoting
api.serve_api(api.load_settings(), port=0)
'''

STALLED = '''
import sys
from sentiment_nb import api
api.LOGGING["handlers"]["stderr"]["size"] = 50
api.serve_api(api.load_settings(), port=int(sys.argv[1]))
'''

def test_message_of_an_error_stays_out_of_the_log(tiny, tmp_path):
    "A library may quote the text in it: neither the log nor the answer repeats that"
    with running(tiny.model, tmp_path, '-c', QUOTING) as s:
        response = s.client.post('/predict', json={'text': 'a zebra'})
        assert response.status_code==500 and 'zebra' not in response.text and well(s)
        until(lambda: 'ValueError' in s.log.read_text())
        assert 'zebra' not in s.log.read_text()

def test_no_text_in_the_log(service):
    "Neither from a body, right or wrong, nor from a path, a query, a header or a cookie"
    word = 'wombat'
    bodies = [{'text': word}, {'text': word, 'explain': True}, {'txt': word}, {word: 1}]
    for body in bodies: service.client.post('/predict', json=body)
    for content in (f'{{"text": "{word}', json.dumps({'text': f'\ud83d {word}'})):
        service.client.post('/predict', content=content, headers=JSON)
    headers = {'X-Request-ID': word, 'User-Agent': word, 'Cookie': word, 'Authorization': f'Bearer {word}'}
    for path in (f'/{word}', f'/predict?text={word}', f'/%00{word}'): service.client.get(path, headers=headers)
    raw(service, f'NONSENSE {word}\r\n\r\n'.encode())
    assert len(service.log.read_text())>1000 and word not in service.log.read_text()

def test_altered_model(tiny, tmp_path, refuses, shell):
    "A file that changes on the disk does not change what runs, and is not loaded again: one line, exit code 2"
    import shutil
    model = tmp_path/'m'
    shutil.copytree(tiny.model, model)
    with running(model, tmp_path) as s:
        for f in [*(model/'onnx').iterdir(), model/'tokenizer.json']:
            with open(f, 'r+b') as g: g.write(b'\0\0\0\0')
        assert well(s)
    refuses(['serve', '--model', model, '--port', 0], 'is not the file that was saved', run=shell)
    command = [sys.executable, '-m', 'uvicorn', 'sentiment_nb.api:app', '--port', '0']
    p = subprocess.run(command, env=environ(SENTIMENT_NB_MODEL=str(model)), capture_output=True, text=True, timeout=120)
    assert p.returncode!=0 and 'is not the file that was saved' in p.stderr

def junk_graph(folder):
    (folder/'onnx'/'model.onnx').write_bytes(b'\x08' + b'junk'*100)

def junk_tokenizer(folder): (folder/'tokenizer.json').write_text('{"version": "1.0", "model": {"type": "nothing"}}')

def unlisted_weights(folder):
    "The graph keeps its weights in a file beside it, which is changed after all was listed"
    import onnx
    path = folder/'onnx'/'model.onnx'
    onnx.save(onnx.load(str(path)), str(path), save_as_external_data=True, location='weights.bin')

def smaller_vocabulary(folder):
    "A graph for which the tokenizer has too many tokens: it loads, and cannot predict"
    import onnx
    from onnx import numpy_helper
    path = folder/'onnx'/'model.onnx'
    graph = onnx.load(str(path))
    table = max(graph.graph.initializer, key=lambda i: list(i.dims)[:1])
    table.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(table)[:50].copy(), table.name))
    onnx.save(graph, str(path))

def out_of_range(folder):
    record = json.loads((folder/'sentiment_nb.json').read_text())
    (folder/'sentiment_nb.json').write_text(json.dumps(record | {'max_length': 2*10**9}))

DAMAGES = {junk_graph: 'model.onnx cannot be loaded', junk_tokenizer: 'tokenizer.json cannot be loaded',
    unlisted_weights: 'weights.bin is not the file', smaller_vocabulary: 'cannot be loaded', out_of_range: 'max_length is 2000000000'}

@pytest.mark.parametrize('damage', DAMAGES, ids=lambda f: f.__name__)
def test_model_folders_that_lie(damage, tiny, workdir, refuses):
    "With the right hashes, or without one for what the graph reads beside itself: one line, and no traceback"
    import shutil
    from sentiment_nb.core import write_checksums
    shutil.copytree(tiny.model, 'm', ignore=shutil.ignore_patterns('model_int8.onnx', 'model.safetensors'))
    record = json.loads(Path('m/sentiment_nb.json').read_text())
    record['engines'].pop('int8', None)
    Path('m/sentiment_nb.json').write_text(json.dumps(record))
    damage(Path('m'))
    write_checksums('m')
    if damage is unlisted_weights: Path('m/onnx/weights.bin').write_bytes(Path('m/onnx/weights.bin').read_bytes()[::-1])
    refuses(['predict', '--model', 'm', '--text', 'fine'], DAMAGES[damage])

REFUSED = [
    ('--model nowhere', {}, ['nowhere', 'quickstart']),
    ('--port 99999', {}, ['99999', '--port']),
    ('--host 192.0.2.1', {'API_KEYS': 'a'*64}, ['192.0.2.1', '--host']),
    ('', {'MAX_BODY': 'much'}, ['SENTIMENT_NB_MAX_BODY', 'much']),
    ('', {'RATE_LIMIT': 'often'}, ['SENTIMENT_NB_RATE_LIMIT', 'often']),
    ('', {'RATE_LIMIT': '0/minute'}, ['SENTIMENT_NB_RATE_LIMIT', 'at least 1']),
    ('', {'RATE_LIMIT': '10/minute;5/second'}, ['SENTIMENT_NB_RATE_LIMIT', '5/second']),
    ('', {'DEADLINE': 'inf'}, ['SENTIMENT_NB_DEADLINE', 'finite']),
    ('', {'CORS_ORIGINS': 'https://example.org/'}, ['SENTIMENT_NB_CORS_ORIGINS', 'slash']),
    ('', {'API_KEYS': ',,'}, ['SENTIMENT_NB_API_KEYS', 'nothing in it']),
    ('', {'API_KEY': 'secret'}, ['SENTIMENT_NB_API_KEY ', 'SENTIMENT_NB_API_KEYS']),
    ('', {'API_KEYS': 'secret'}, ['sentiment-nb key']),
    ('', {'API_KEYS_FILE': '/nowhere'}, ['/nowhere'])]

@pytest.mark.parametrize('args, env, parts', REFUSED)
def test_serve_refuses(args, env, parts, tiny, refuses, monkeypatch):
    "What keeps it from starting is an error in one line"
    monkeypatch.setenv('SENTIMENT_NB_MODEL', str(tiny.model))
    for k,v in env.items(): monkeypatch.setenv(f'SENTIMENT_NB_{k}', v)
    refuses(['serve', *args.split()], *parts)

def test_port_in_use(service, tiny, refuses):
    refuses(['serve', '--model', tiny.model, '--port', service.port], str(service.port), '--port')

@pytest.mark.skipif(not Path('/dev/full').exists(), reason='/dev/full is a full disk on Linux only')
def test_full_disk_under_the_log(tiny, tmp_path):
    "Lines are lost, answers are not"
    port = free_port()
    command = ['-m', 'sentiment_nb.cli', 'serve', '--port', str(port)]
    with running(tiny.model, tmp_path, *command, stderr='/dev/full', url=f'http://127.0.0.1:{port}') as s:
        for _ in range(20): assert well(s)

@pytest.mark.skipif(not hasattr(os, 'mkfifo'), reason='a pipe with a name')
def test_stalled_reader_of_the_log(tiny, tmp_path):
    "A pipe from which nobody reads: requests are answered as before, lines that find no place are counted, and the end is orderly"
    os.mkfifo(tmp_path/'pipe')
    reader = os.open(tmp_path/'pipe', os.O_RDONLY | os.O_NONBLOCK)
    port = free_port()
    options = {'stderr': tmp_path/'pipe', 'url': f'http://127.0.0.1:{port}', 'RATE_LIMIT': 'none'}
    try:
        with running(tiny.model, tmp_path, '-c', STALLED, str(port), **options) as s:
            for _ in range(400): assert s.client.get('/livez').status_code==200 # 80 kB of log, more than a pipe takes
            until(lambda: metric(s, 'log_lines_dropped_total')>0 or s.client.get('/nowhere').status_code!=404)
            assert well(s)
            s.process.terminate()
            assert s.process.wait(20)==0
    finally: os.close(reader)

def test_killed_worker_is_replaced(tiny, tmp_path):
    "uvicorn with two workers: one dies, requests go on, a new one comes"
    started = 'Application startup complete'
    command = ['-m', 'uvicorn', 'sentiment_nb.api:app', '--workers', '2', '--port', '0']
    with running(tiny.model, tmp_path, *command, ready=started) as s:
        def workers():
            children = psutil.Process(s.process.pid).children()
            return [c for c in children if 'resource_tracker' not in ' '.join(c.cmdline())]
        until(lambda: s.log.read_text().count(started)==2, 60)
        first = workers()
        first[0].kill()
        first[0].wait(10)
        for _ in range(10):
            with httpx.Client(base_url=s.url, timeout=30) as c:
                assert c.post('/predict', json={'text': GOOD}).status_code==200
        until(lambda: s.log.read_text().count(started)==3, 60)
        assert len(workers())==2 and well(s)

@pytest.mark.skipif(not Path('/proc').exists(), reason='/proc tells what a process has loaded')
def test_no_framework_is_loaded(service):
    "In a process that has answered everything above"
    assert well(service)
    maps = Path(f'/proc/{service.process.pid}/maps').read_text()
    assert 'onnxruntime' in maps and not re.search(r'/(torch|pandas|sklearn|pyarrow|matplotlib)/', maps)

def test_metrics(service):
    "What went through is counted"
    names = ('tokens_total', 'text_tokens_count', 'confidence_ratio_count', 'texts_truncated_total',
        'batch_texts_count')
    before = {n: metric(service, n) for n in names}
    service.client.post('/predict/batch', json={'texts': [GOOD, 'word '*500]})
    after = {n: metric(service, n)-v for n,v in before.items()}
    assert after['text_tokens_count']==after['confidence_ratio_count']==2 and after['texts_truncated_total']==1
    assert after['tokens_total']==11+502 and 1<=after['batch_texts_count']<=2
    rejected = metric(service, 'requests_rejected_total')
    service.client.post('/predict', json={})
    assert metric(service, 'requests_rejected_total')==rejected+1

UNITS = 'seconds', 'bytes', 'ratio', 'texts', 'tokens', 'requests', 'lines', 'predictions' # One is in each name

def test_metric_names(service):
    "Read by Prometheus's own parser: each says what it is, with the project's name in front and a unit, `_total` for what only grows"
    assert well(service)
    families = list(text_string_to_metric_families(service.client.get('/metrics').text))
    own = {f.name.removeprefix('sentiment_nb_'): f for f in families if not f.name.startswith('process_')}
    assert all(f.name.startswith('sentiment_nb_') and f.documentation for f in own.values())
    assert len(families)-len(own)>=4
    def has_unit(name): return name=='model_info' or set(UNITS) & set(name.split('_'))
    assert all(re.fullmatch('[a-z_]+', n) and has_unit(n) for n in own), own.keys()
    assert all(s.name.endswith('_total') for f in own.values() if f.type=='counter' for s in f.samples)
    assert own['requests_in_flight'].samples[0].value==1
    assert own['model_info'].samples[0].labels.keys()=={'model', 'engine', 'version'}

def test_port_for_metrics(tiny, tmp_path):
    "There without a key, and nothing else is; elsewhere they are not; who cannot open it does not start"
    key, digest = new_key()
    port = free_port()
    with running(tiny.model, tmp_path, API_KEYS=digest, METRICS_PORT=port) as s:
        s.client.headers['X-API-Key'] = key
        assert well(s) and s.client.get('/metrics').status_code==404
        def ask(path, **headers): return httpx.get(f'http://127.0.0.1:{port}{path}', headers=headers)
        families = {f.name for f in text_string_to_metric_families(ask('/metrics').text)}
        assert 'sentiment_nb_requests' in families
        assert [ask(p).status_code for p in ('/', '/livez', '/predict', '/docs')]==[404]*4
        assert ask('/metrics', Host='rebound.example').status_code==421
    command = [sys.executable, '-m', 'uvicorn', 'sentiment_nb.api:app', '--port', '0']
    env = environ(SENTIMENT_NB_MODEL=str(tiny.model), SENTIMENT_NB_METRICS_PORT=str(port))
    p = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    assert p.returncode!=0 and 'SENTIMENT_NB_METRICS_PORT' in p.stderr

def load(s, file, *args):
    "What benchmarks/load.py, in a process of its own, reports"
    command = [sys.executable, root/'benchmarks'/'load.py', f'{s.url}/predict', file, *map(str, args)]
    p = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(p.stdout)

@pytest.mark.slow
def test_overload(tiny, tmp_path):
    "Three times what it can do, for a minute: yes or not now, no answer lost or another's, memory as before, and soon all is as it was"
    from sentiment_nb.inference import Predictor
    texts = [f'{GOOD if i%2 else BAD} {i} ' + 'and more '*(i%13) for i in range(400)]
    expected = [(t, {'tokens': p.tokens, 'label': p.label}) for t,p in zip(texts, Predictor(tiny.model).predict(texts))]
    assert len({e['tokens'] for _,e in expected})>10
    (tmp_path/'texts.json').write_text(json.dumps(expected))
    with running(tiny.model, tmp_path, RATE_LIMIT='none') as s:
        def memory(): return psutil.Process(s.process.pid).memory_info().rss
        rate = load(s, tmp_path/'texts.json', '--seconds', 5)['per_second']
        load(s, tmp_path/'texts.json', '--rate', 3*rate, '--seconds', 10)
        before = memory()
        report = load(s, tmp_path/'texts.json', '--rate', 3*rate, '--seconds', 60)
        until(lambda: well(s), 2)
        assert set(report['statuses'])=={'200', '503'}, report
        assert not (report['wrong'] or report['lost'] or report['without_retry_after']), report
        assert report['answered']>rate*60/4 and abs(memory()/before-1)<=.05, (report, rate, before, memory())
