"A real service under real clients: what it answers, what it refuses, and what it survives."
import asyncio
import gzip
import json
import re
import resource
import signal
import socket
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

from sentiment_nb.api import ERRORS, HEAD_SECONDS, MAX_CHARS, MAX_TEXTS, OPEN, PATHS, new_key

GOOD, BAD = 'I love it, thank you so much!', 'I hate it, this is the worst day ever'
JSON = {'Content-Type': 'application/json'}

@contextmanager
def running(model, folder, *command, ready='"ready"', stderr=None, url=None, **env):
    "A service as a process, ready, with its log in a file; SIGTERM when the block ends"
    log = folder/f'log{len(list(folder.glob("log*")))}'
    command = command or ('-m', 'sentiment_nb.cli', 'serve', '--port', '0')
    with open(stderr or log, 'w') as err:
        p = subprocess.Popen([sys.executable, *command], env=environ(SENTIMENT_NB_MODEL=str(model), **{f'SENTIMENT_NB_{k}': str(v) for k,v in env.items()}), stdout=err, stderr=err)
    try:
        until(lambda: p.poll() is not None or (alive(url) if url else ready in log.read_text()), 120)
        assert p.poll() is None, log.read_text()
        url = url or re.search(r'http://127\.0\.0\.1:\d+', log.read_text())[0]
        with httpx.Client(base_url=url, timeout=60) as client: yield SimpleNamespace(url=url, port=int(url.rsplit(':', 1)[1]), process=p, log=log, client=client)
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
    return sum(float(line.split()[-1]) for line in s.client.get('/metrics', headers=headers).text.splitlines() if re.match(rf'sentiment_nb_{name}[ {{]', line))

def in_a_loop(coroutine):
    "Its result; in a thread of its own, because the browser's loop may stand in this one"
    with ThreadPoolExecutor(1) as pool: return pool.submit(asyncio.run, coroutine).result()

def well(s):
    "Does it answer, and rightly?"
    found = s.client.post('/predict/batch', json={'texts': [GOOD, BAD]})
    return found.status_code==200 and [p['tokens'] for p in found.json()['predictions']]==[11, 12]

def raw(s, *parts, timeout=60):
    "Send bytes, and read until the other side has no more to say"
    with socket.create_connection(('127.0.0.1', s.port), timeout=timeout) as c:
        with suppress(ConnectionError):
            for p in parts: c.sendall(p)
        found = b''
        with suppress(ConnectionError):
            while piece := c.recv(65536): found += piece
    return found

def head(path='/predict', length=None, *more):
    return '\r\n'.join([f'POST {path} HTTP/1.1', 'Host: x', 'Content-Type: application/json', *([f'Content-Length: {length}'] if length is not None else []), *more, '', '']).encode()

@pytest.fixture(scope='module')
def service(tiny, tmp_path_factory):
    with running(tiny.model, tmp_path_factory.mktemp('service'), RATE_LIMIT='none', MAX_WAIT=1e6) as s: yield s

# Clients

def test_answers_are_those_of_the_model(service, tiny):
    "A hundred requests at once: each gets the answer to its own text"
    from sentiment_nb.inference import Predictor
    texts = [f'{GOOD if i%2 else BAD} ' + 'really '*(i%9) for i in range(100)]
    async def ask():
        async with httpx.AsyncClient(base_url=service.url, timeout=60) as c: return await asyncio.gather(*(c.post('/predict', json={'text': t}) for t in texts))
    found, wanted = [r.json() for r in in_a_loop(ask())], Predictor(tiny.model).predict(texts)
    assert [f['tokens'] for f in found]==[w.tokens for w in wanted]
    assert all(abs(f['confidence']-w.confidence)<1e-5 and set(f['probabilities'])==set(w.probabilities) for f,w in zip(found, wanted))
    assert len({f['confidence'] for f in found})>5

HF = '''
import json, sys
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError
client = InferenceClient(base_url=sys.argv[1], token=sys.argv[2] or None)
try: print(json.dumps([[c.label, c.score] for c in client.text_classification(sys.argv[3], top_k=int(sys.argv[4]) or None)]))
except HfHubHTTPError as e: print(e.response.status_code, e)
'''

def test_head_and_body_leave_together(service):
    with closing(socket.create_connection(('127.0.0.1', service.port), timeout=60)) as c:
        for path in ('/livez', '/readyz'): # the second on the same connection
            c.sendall(head(path).replace(b'POST', b'GET'))
            assert c.recv(65536).endswith(b'{"status":"ok"}')

def hub(url, text, top_k=0, token=''):
    "What Hugging Face's own client makes of it"
    p = subprocess.run([sys.executable, '-c', HF, f'{url}/hf', token, text, str(top_k)], env=environ(HF_HUB_OFFLINE='0'), capture_output=True, text=True)
    assert p.returncode==0, p.stderr
    return p.stdout

def test_hugging_face_client(service):
    "Classes with scores, best first; what is wrong, in words"
    both, best = json.loads(hub(service.url, GOOD)), json.loads(hub(service.url, GOOD, 1))
    assert sorted(n for n,_ in both)==['negative', 'positive'] and both[0][1]>=both[1][1] and abs(sum(v for _,v in both)-1)<1e-6
    assert len(best)==1 and best[0][0]==both[0][0]
    refused = hub(service.url, ' ')
    assert refused.startswith('422 ') and 'there is nothing in it' in refused

def test_uvicorn_app(tiny, tmp_path):
    "`uvicorn sentiment_nb.api:app` is the same service, and its log keeps quiet too"
    with running(tiny.model, tmp_path, '-m', 'uvicorn', 'sentiment_nb.api:app', '--port', '0', ready='Uvicorn running') as s:
        assert well(s) and s.client.get('/readyz').status_code==200
        assert s.client.get('/predict?text=quokka').status_code==405
        until(lambda: '"path": "/predict"' in s.log.read_text()) # written after the answer
        assert 'quokka' not in s.log.read_text()

def test_docs(service, browser):
    "Each example is sent with a click and answered, and nothing comes from elsewhere"
    page, asked = browser.new_page(), []
    page.on('request', lambda r: asked.append(r.url))
    page.goto(f'{service.url}/docs')
    for path in ('/predict', '/predict/batch', '/hf'):
        block = page.locator('.opblock', has=page.get_by_text(path, exact=True))
        block.locator('.opblock-summary-control').click()
        block.get_by_role('button', name='Try it out').click()
        block.get_by_role('button', name='Execute').click()
        assert block.locator('.live-responses-table .response-col_status').last.inner_text().startswith('200')
    assert all(u.startswith((service.url, 'data:')) for u in asked), asked
    page.close()

def schemathesis(s, tmp_path, examples, *args):
    "Requests made from the schema, right ones and wrong ones, with all checks; how many"
    p = subprocess.run([sys.executable, '-m', 'schemathesis.cli', 'run', f'{s.url}/openapi.json', '--seed', '42', '--max-examples', str(examples), '--continue-on-failure', '--no-color', *args],
        cwd=tmp_path, capture_output=True, text=True, env=environ(PYTHONIOENCODING='utf-8'))
    assert p.returncode==0, p.stdout[-6000:] + p.stderr
    return int(re.search(r'(\d[\d,]*) generated', p.stdout)[1].replace(',', ''))

def test_schema(tiny, tmp_path):
    "Some hundred generated requests, with keys, so that leaving them out is tried as well"
    key, digest = new_key()
    with running(tiny.model, tmp_path, RATE_LIMIT='none', API_KEYS=digest) as s:
        assert schemathesis(s, tmp_path, 20, '-H', f'Authorization: Bearer {key}')>=200
        assert '"status": 500' not in s.log.read_text() and '"status": 503' not in s.log.read_text()

@pytest.mark.slow
def test_schema_long(tiny, tmp_path):
    "Thousands of them"
    key, digest = new_key()
    with running(tiny.model, tmp_path, RATE_LIMIT='none', API_KEYS=digest) as s:
        assert schemathesis(s, tmp_path, 1500, '-H', f'Authorization: Bearer {key}')>=5000

# What is sent

TEXTS = {'lone surrogate': 'cut \ud83d off', 'two of them': '\udc00\ud800', 'NUL': 'a\0b', 'right to left': '\u202eevol I', 'Arabic': 'أحب هذا كثيرا', 'zero width': 'lo\u200bve\u200d\ufeff', 'nothing but zero width': '\u200b\u200d\u2060',
    'newlines': '\n'*(MAX_CHARS-1) + 'a', 'one word': 'a'*MAX_CHARS, 'accents': 'e' + '\u0301'*1000, 'emoji': '👩‍👩‍👧‍👦'*500, 'markup': '<<<&#&amp;'*1000}

@pytest.mark.parametrize('text', TEXTS.values(), ids=TEXTS)
def test_hostile_text_is_answered(text, service):
    found = service.client.post('/predict', content=json.dumps({'text': text}), headers=JSON)
    assert found.status_code==200 and 0<=found.json()['confidence']<=1 and well(service)

BODIES = { # name: body, status
    '1 MB of newlines': (b'\n'*1_000_000, 400), 'nothing': (b'', 400), 'too long': (b' '*1_000_001, 413), 'cut short': (b'{"text": "a', 400), 'not UTF-8': (b'{"text": "\xff\xfe\xfa"}', 400),
    'nested lists': (b'['*20_000, 400), 'nested lists, closed': (b'{"text": ' + b'['*20_000 + b']'*20_000 + b'}', 400), 'nested objects': (b'{"a":'*20_000 + b'1' + b'}'*20_000, 400), 'nested less': (b'{"text": ' + b'['*500 + b']'*500 + b'}', 422),
    'a number': (b'5', 422), 'a long number': (b'{"text": ' + b'9'*100_000 + b'}', 400), 'NaN': (b'{"text": NaN}', 422), 'null': (b'{"text": null}', 422), 'many fields': (json.dumps({str(i): i for i in range(50_000)}).encode(), 422),
    'surrogate as field': (rb'{"text": "a", "\ud83d": 1}', 422), 'too many characters': (json.dumps({'text': 'a'*(MAX_CHARS+1)}).encode(), 422), 'white space': (rb'{"text": " \n\t"}', 422),
    'too long to explain': (json.dumps({'text': 'a '*2501, 'explain': True}).encode(), 422)}

@pytest.mark.parametrize('body, status', BODIES.values(), ids=BODIES)
def test_hostile_body_is_refused(body, status, service):
    "In the shape of all refusals"
    found = service.client.post('/predict', content=body, headers=JSON)
    assert found.status_code==status and found.json()['error']['type']==ERRORS[status] and found.json()['error']['message'], found.text
    assert found.headers['x-request-id'] and well(service)

def test_batch_limits(service):
    for n,status in ((0, 422), (1, 200), (MAX_TEXTS, 200), (MAX_TEXTS+1, 422)): assert service.client.post('/predict/batch', json={'texts': ['a']*n}).status_code==status

@pytest.mark.parametrize('encoding, pack', [('gzip', gzip.compress), ('deflate', zlib.compress), ('br', lambda b: b'\x1b'), ('gzip, gzip', gzip.compress)])
def test_compressed_bombs_are_refused(encoding, pack, service):
    "50 MB in 50 kB, unopened; with and without saying so"
    bomb, before = pack(b' '*50_000_000), psutil.Process(service.process.pid).memory_info().rss
    assert service.client.post('/predict', content=bomb, headers=JSON | {'Content-Encoding': encoding}).status_code==415
    assert service.client.post('/predict', content=bomb, headers=JSON).status_code==400
    assert psutil.Process(service.process.pid).memory_info().rss-before<25e6 and well(service)

@pytest.mark.parametrize('kind', ['text/plain', 'multipart/form-data', 'application/x-www-form-urlencoded', None])
def test_only_json(kind, service):
    found = service.client.post('/predict', content=b'{"text": "a"}', headers={'Content-Type': kind} if kind else {})
    assert found.status_code==415

def test_endless_body_is_cut_off(service):
    "100 MB without a length: refused after the first, and not kept"
    piece, before = b'%x\r\n' % 100_000 + b' '*100_000 + b'\r\n', psutil.Process(service.process.pid).memory_info().rss
    assert raw(service, head('/predict', None, 'Transfer-Encoding: chunked'), *[piece]*1000).startswith(b'HTTP/1.1 413')
    assert psutil.Process(service.process.pid).memory_info().rss-before<25e6 and well(service)

def test_announced_length_is_enough(service):
    "A body that is too long is refused before it comes"
    assert raw(service, head('/predict', 10**12)).startswith(b'HTTP/1.1 413')

# Who is slow, who leaves, who comes too many

def test_half_open_connections(tiny, tmp_path):
    "A thousand connections whose first line never ends: others are served meanwhile, and in the end all are closed"
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with running(tiny.model, tmp_path) as s:
        start, open_ = time.monotonic(), [socket.create_connection(('127.0.0.1', s.port)) for _ in range(1000)]
        try:
            for i,c in enumerate(open_): c.sendall(b'POST /predict HTTP/1.1\r\nHost: x\r\nX: '[:i%40])
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
    "Two hundred bodies that never come are told so after the deadline; others do not notice"
    with running(tiny.model, tmp_path, DEADLINE=2) as s:
        slow = [socket.create_connection(('127.0.0.1', s.port)) for _ in range(200)]
        for c in slow: c.sendall(head('/predict', 100) + b'{"text": ')
        assert well(s)
        for c in slow:
            c.settimeout(20)
            assert c.recv(1000).startswith(b'HTTP/1.1 408')
            c.close()
        assert well(s)

def busy(s, n):
    "Connections that have just sent a batch of 128 texts"
    body = json.dumps({'texts': [f'{i} ' + 'word '*40 for i in range(MAX_TEXTS)]}).encode()
    found = [socket.create_connection(('127.0.0.1', s.port)) for _ in range(n)]
    for c in found: c.sendall(head('/predict/batch', len(body), 'Connection: close') + body)
    return found

def answered(c):
    "Status and headers of the answer"
    c.settimeout(60)
    found = b''
    while piece := c.recv(65536): found += piece
    c.close()
    return int(found.split()[1]), found

def test_hang_up_frees_the_place(service):
    "Texts of clients that have gone leave the queue before their turn"
    until(lambda: metric(service, 'queue_texts')==0)
    first = busy(service, 4)
    until(lambda: metric(service, 'queue_texts')>MAX_TEXTS)
    gone = busy(service, 8)
    until(lambda: metric(service, 'queue_texts')>8*MAX_TEXTS)
    for c in gone: c.close()
    until(lambda: metric(service, 'queue_texts')<4*MAX_TEXTS)
    assert metric(service, 'queue_texts')>0, 'the engine was done before anything could be seen'
    assert [answered(c)[0] for c in first]==[200]*4
    until(lambda: metric(service, 'queue_texts')==0 and '"status": 499' in service.log.read_text())
    assert well(service)

def test_full_queue(tiny, tmp_path):
    "By one rule for one text and for many: 503 and when to come again; those inside are answered; soon all is as before"
    with running(tiny.model, tmp_path, MAX_WAIT=.05, RATE_LIMIT='none') as s:
        crowd = busy(s, 12)
        until(lambda: metric(s, 'queue_seconds')>.05)
        one = s.client.post('/predict', json={'text': 'a'})
        found = [answered(c) for c in crowd]
        assert one.status_code==503 and int(one.headers['retry-after'])>=1 and one.json()['error']['type']=='unavailable'
        assert {status for status,_ in found}=={200, 503} and all(b'retry-after: ' in b for status,b in found if status==503)
        until(lambda: well(s), 2)

def test_deadline(tiny, tmp_path):
    "Who has waited too long hears so"
    with running(tiny.model, tmp_path, DEADLINE=.3, MAX_WAIT=1e6, RATE_LIMIT='none') as s:
        found = [answered(c)[0] for c in busy(s, 12)]
        assert 504 in found and set(found)<={200, 408, 504}, found
        until(lambda: well(s), 5)
        assert metric(s, 'queue_texts')==0

def test_sigterm_drains(tiny, tmp_path):
    "What was accepted is answered, what comes later is refused, and then the process ends"
    with running(tiny.model, tmp_path, MAX_WAIT=1e6) as s:
        inside = busy(s, 4)
        until(lambda: metric(s, 'queue_texts')>MAX_TEXTS)
        s.process.send_signal(signal.SIGTERM)
        until(lambda: 'Shutting down' in s.log.read_text())
        with pytest.raises(httpx.HTTPError): httpx.post(f'{s.url}/predict', json={'text': GOOD})
        assert [answered(c)[0] for c in inside]==[200]*4
        assert s.process.wait(20) in (0, -signal.SIGTERM)

# Who may in

def test_keys(tiny, tmp_path):
    "From the environment and from a file; everything but three paths asks for one"
    (one, digest), (two, other) = new_key(), new_key()
    (tmp_path/'keys').write_text(f'# ours\n{other}  # Bert\n')
    with running(tiny.model, tmp_path, API_KEYS=digest, API_KEYS_FILE=tmp_path/'keys') as s:
        for path in sorted(PATHS | {'/nowhere', '/livez/', '/predict/'}): assert s.client.get(path).status_code==(200 if path in OPEN else 401), path
        for path in (b'//', b'/livez/../metrics', b'/%6cetrics', b'http://x/metrics', b'/metrics?/livez'): assert raw(s, b'GET ' + path + b' HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n').startswith(b'HTTP/1.1 401'), path
        for bad in ({}, {'X-API-Key': digest}, {'Authorization': f'Basic {one}'}, {'X-API-Key': one[:-1]}, {'X-API-Key': b'\xff\xfe'}):
            found = s.client.post('/predict', content='['*20_000, headers=bad)
            assert found.status_code==401 and found.json()['error']['type']=='unauthorized' and found.headers['www-authenticate']=='Bearer'
        for key in (one, two): assert s.client.post('/predict', json={'text': GOOD}, headers={'X-API-Key': key}).status_code==200
        assert json.loads(hub(s.url, GOOD, 1, two)) and hub(s.url, GOOD, 1, 'wrong').startswith('401 ')
        assert not [k for k in (one, two, digest, other) if k in s.log.read_text()] and 'ANYBODY' not in s.log.read_text()

def test_rate_is_counted_for_each_key(tiny, tmp_path):
    (one, digest), (two, other) = new_key(), new_key()
    with running(tiny.model, tmp_path, API_KEYS=f'{digest},{other}', RATE_LIMIT='10/minute') as s:
        ask = lambda key, n: s.client.post('/predict/batch', json={'texts': ['a']*n}, headers={'X-API-Key': key})
        assert [ask(one, n).status_code for n in (4, 5, 2)]==[200, 200, 429]
        refused = ask(one, 2)
        assert 1<=int(refused.headers['retry-after'])<=60 and refused.json()['error']['type']=='rate_limited'
        assert ask(two, 9).status_code==200

def test_browsers_are_kept_out_unless_let_in(service, tiny, tmp_path):
    ask = {'Origin': 'https://example.org', 'Access-Control-Request-Method': 'POST', 'Access-Control-Request-Headers': 'content-type,x-api-key'}
    assert 'access-control-allow-origin' not in service.client.options('/predict', headers=ask).headers
    assert 'access-control-allow-origin' not in service.client.post('/predict', json={'text': 'a'}, headers={'Origin': 'https://example.org'}).headers
    with running(tiny.model, tmp_path, CORS_ORIGINS='https://example.org', API_KEYS=new_key()[1]) as s:
        assert s.client.options('/predict', headers=ask).headers['access-control-allow-origin']=='https://example.org'
        assert s.client.options('/predict', headers=ask | {'Origin': 'https://example.com'}).status_code==400
        assert s.client.post('/predict', headers={'Origin': 'https://example.org'}).headers['access-control-allow-origin']=='https://example.org'

def test_open_door_is_told_loudly(tiny, tmp_path):
    "Beyond this machine and without a key"
    for env,loud in (({}, True), ({'API_KEYS': new_key()[1]}, False)):
        port = free_port()
        with running(tiny.model, tmp_path, '-m', 'sentiment_nb.cli', 'serve', '--host', '0.0.0.0', '--port', str(port), url=f'http://127.0.0.1:{port}', **env) as s:
            assert ('ANYBODY WHO REACHES 0.0.0.0' in s.log.read_text())==loud

# What breaks

def poisoned(tiny, folder):
    "A copy of the tiny model, float engine only, that answers NaN wherever a text holds the word zebra"
    import shutil
    import numpy as np
    import onnx
    from onnx import numpy_helper
    from tokenizers import Tokenizer
    from sentiment_nb.core import ModelRecord, write_sums
    shutil.copytree(tiny.model, folder)
    (folder/'onnx'/'model_int8.onnx').unlink(missing_ok=True)
    graph = onnx.load(str(folder/'onnx'/'model.onnx'))
    tokenizer = Tokenizer.from_file(str(folder/'tokenizer.json'))
    table = next(i for i in graph.graph.initializer if list(i.dims)[:1]==[tokenizer.get_vocab_size()])
    rows = numpy_helper.to_array(table).copy()
    rows[tokenizer.token_to_id('zebra')] = np.nan
    table.CopyFrom(numpy_helper.from_array(rows, table.name))
    onnx.save(graph, str(folder/'onnx'/'model.onnx'))
    record = ModelRecord.load(folder)
    record.engines = {k: v for k,v in record.engines.items() if k!='int8'}
    record.save(folder)
    write_sums(folder)
    return folder

def test_nan_is_an_error_and_harms_nobody_else(tiny, tmp_path):
    "A text on which the model fails gets 500, its neighbours in the batch their answers, and the log neither text nor message"
    with running(poisoned(tiny, tmp_path/'m'), tmp_path, MAX_WAIT=1e6) as s:
        texts = [f'{GOOD} {i}' + ' zebra quokka'*(i==7) for i in range(20)]
        async def ask():
            async with httpx.AsyncClient(base_url=s.url, timeout=60) as c: return await asyncio.gather(*(c.post('/predict', json={'text': t}) for t in texts))
        found = in_a_loop(ask())
        assert [r.status_code for r in found]==[500 if i==7 else 200 for i in range(20)]
        assert found[7].json()['error']['type']=='model_failed' and found[7].headers['x-request-id'] in found[7].json()['error']['message']
        assert s.client.post('/predict', json={'text': 'a zebra', 'explain': True}).status_code==500 and well(s)
        until(lambda: s.log.read_text().count('RuntimeError')>1)
        log = s.log.read_text()
        assert found[7].headers['x-request-id'] in log and 'inference.py' in log
        assert not [w for w in ('zebra', 'quokka', 'love') if w in log]

QUOTING = '''
from sentiment_nb import api
class Quoting(api.Predictor):
    def predict(self, texts):
        if "zebra" in str(texts): raise ValueError(f"cannot read {texts}")
        return super().predict(texts)
api.Predictor = Quoting
api.serve(api.load_settings(), port=0)
'''

def test_message_of_an_error_stays_out_of_the_log(tiny, tmp_path):
    "A library may quote the text in it: neither the log nor the answer repeats that"
    with running(tiny.model, tmp_path, '-c', QUOTING) as s:
        found = s.client.post('/predict', json={'text': 'a zebra'})
        assert found.status_code==500 and 'zebra' not in found.text and well(s)
        until(lambda: 'ValueError' in s.log.read_text())
        assert 'zebra' not in s.log.read_text()

def test_no_text_in_the_log(service):
    "Neither from a body, right or wrong, nor from a path, a query, a header or a cookie"
    word = 'wombat'
    for send in (dict(json={'text': word}), dict(json={'text': word, 'explain': True}), dict(json={'txt': word}), dict(json={word: 1}), dict(content=f'{{"text": "{word}', headers=JSON), dict(content=json.dumps({'text': f'\ud83d {word}'}), headers=JSON)):
        service.client.post('/predict', **send)
    for path in (f'/{word}', f'/predict?text={word}', f'/%00{word}'): service.client.get(path, headers={'X-Request-ID': word, 'User-Agent': word, 'Cookie': word, 'Authorization': f'Bearer {word}'})
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
    p = subprocess.run([sys.executable, '-m', 'uvicorn', 'sentiment_nb.api:app', '--port', '0'], env=environ(SENTIMENT_NB_MODEL=str(model)), capture_output=True, text=True, timeout=120)
    assert p.returncode!=0 and 'is not the file that was saved' in p.stderr

@pytest.mark.parametrize('args, env, parts', [('--model nowhere', {}, ['nowhere', 'quickstart']), ('--port 99999', {}, ['99999', '--port']), ('--host 192.0.2.1', {}, ['192.0.2.1', '--host']),
    ('', {'MAX_BODY': 'much'}, ['SENTIMENT_NB_MAX_BODY', 'much']), ('', {'RATE_LIMIT': 'often'}, ['SENTIMENT_NB_RATE_LIMIT', 'often']), ('', {'API_KEYS': 'secret'}, ['sentiment-nb key']), ('', {'API_KEYS_FILE': '/nowhere'}, ['/nowhere'])])
def test_serve_refuses(args, env, parts, tiny, refuses, monkeypatch):
    "What keeps it from starting is told in a line"
    monkeypatch.setenv('SENTIMENT_NB_MODEL', str(tiny.model))
    for k,v in env.items(): monkeypatch.setenv(f'SENTIMENT_NB_{k}', v)
    refuses(['serve', *args.split()], *parts)

def test_port_in_use(service, tiny, refuses):
    refuses(['serve', '--model', tiny.model, '--port', service.port], str(service.port), '--port')

@pytest.mark.skipif(not Path('/dev/full').exists(), reason='/dev/full is a full disk on Linux only')
def test_full_disk_under_the_log(tiny, tmp_path):
    "Lines are lost, answers are not"
    port = free_port()
    with running(tiny.model, tmp_path, '-m', 'sentiment_nb.cli', 'serve', '--port', str(port), stderr='/dev/full', url=f'http://127.0.0.1:{port}') as s:
        for _ in range(20): assert well(s)

def test_killed_worker_is_replaced(tiny, tmp_path):
    "uvicorn with two workers: one dies, requests go on, a new one comes"
    with running(tiny.model, tmp_path, '-m', 'uvicorn', 'sentiment_nb.api:app', '--workers', '2', '--port', '0', ready='Application startup complete') as s:
        workers = lambda: [c for c in psutil.Process(s.process.pid).children() if 'resource_tracker' not in ' '.join(c.cmdline())]
        until(lambda: s.log.read_text().count('Application startup complete')==2, 60)
        first = workers()
        first[0].kill()
        first[0].wait(10)
        for _ in range(10):
            with httpx.Client(base_url=s.url, timeout=30) as c: assert c.post('/predict', json={'text': GOOD}).status_code==200
        until(lambda: s.log.read_text().count('Application startup complete')==3, 60)
        assert len(workers())==2 and well(s)

@pytest.mark.skipif(not Path('/proc').exists(), reason='/proc tells what a process has loaded')
def test_no_framework_is_loaded(service):
    "In a process that has answered everything above"
    assert well(service)
    maps = Path(f'/proc/{service.process.pid}/maps').read_text()
    assert 'onnxruntime' in maps and not re.search(r'/(torch|pandas|sklearn|pyarrow|matplotlib)/', maps)

def test_metrics(service):
    "What went through is counted"
    before = {n: metric(service, n) for n in ('tokens_total', 'text_tokens_count', 'confidence_count', 'truncated_total', 'batch_texts_count')}
    service.client.post('/predict/batch', json={'texts': [GOOD, 'word '*500]})
    after = {n: metric(service, n)-v for n,v in before.items()}
    assert after['text_tokens_count']==after['confidence_count']==2 and after['truncated_total']==1 and after['tokens_total']==11+502 and 1<=after['batch_texts_count']<=2
    refused = metric(service, 'rejected_total')
    service.client.post('/predict', json={})
    assert metric(service, 'rejected_total')==refused+1

def load(s, file, *args):
    "What benchmarks/load.py, in a process of its own, reports"
    p = subprocess.run([sys.executable, root/'benchmarks'/'load.py', f'{s.url}/predict', file, *map(str, args)], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(p.stdout)

@pytest.mark.slow
def test_overload(tiny, tmp_path):
    "Three times what it can do, for a minute: yes or not now, no answer lost or another's, memory as before, and soon all is as it was"
    from sentiment_nb.inference import Predictor
    texts = [f'{GOOD if i%2 else BAD} {i} ' + 'and more '*(i%13) for i in range(400)]
    known = [(t, {'tokens': p.tokens, 'label': p.label}) for t,p in zip(texts, Predictor(tiny.model).predict(texts))]
    assert len({k['tokens'] for _,k in known})>10
    (tmp_path/'texts.json').write_text(json.dumps(known))
    with running(tiny.model, tmp_path, RATE_LIMIT='none') as s:
        memory = lambda: psutil.Process(s.process.pid).memory_info().rss
        rate = load(s, tmp_path/'texts.json', '--seconds', 5)['per_second']
        load(s, tmp_path/'texts.json', '--rate', 3*rate, '--seconds', 10)
        before = memory()
        found = load(s, tmp_path/'texts.json', '--rate', 3*rate, '--seconds', 60)
        until(lambda: well(s), 2)
        assert set(found['statuses'])=={'200', '503'} and not (found['wrong'] or found['lost'] or found['without_retry_after']), found
        assert found['answered']>rate*60/4 and abs(memory()/before-1)<=.05, (found, rate, before, memory())
