"The client before real services that refuse and go away, and before small ones that say what a service may say."
import asyncio
import itertools
import json
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
from test_api import free_port, in_a_loop, running

from sentiment_nb.api import new_key
from sentiment_nb.client import AsyncClient, Client, ServiceError
from sentiment_nb.core import InputError

# A real service

@contextmanager
def neighbour(url, key):
    "Somebody else, who sends one batch after the other, whether they are answered or not"
    over = threading.Event()
    def hammer():
        with httpx.Client(base_url=url, headers={'X-API-Key': key}, timeout=60) as c:
            while not over.is_set():
                with suppress(httpx.HTTPError): c.post('/predict/batch', json={'texts': ['bad']*64})
                over.wait(.02)
    thread = threading.Thread(target=hammer)
    thread.start()
    try: yield
    finally:
        over.set()
        thread.join()

def restart(stack, first, serve, *args, **settings):
    "End a service in order, and start another one on its port"
    first.process.terminate()
    first.process.wait(60)
    return stack.enter_context(running(*args, *serve, **settings))

def predict_through_a_restart(tiny, tmp_path, n):
    "Predictions of `n` distinct texts, in whose middle the service is started again; the texts, and the logs of both services"
    texts = [f'{word} {i}' for i,word in zip(range(n), itertools.cycle(['good','bad','so so','lovely','awful']))]
    mine, other = new_key(), new_key()
    port = free_port()
    serve = '-m', 'sentiment_nb.cli', 'serve', '--port', str(port)
    settings = dict(API_KEYS=f'{mine[1]},{other[1]}', RATE_LIMIT='400/second')
    with ExitStack() as stack, ThreadPoolExecutor(1) as pool:
        first = stack.enter_context(running(tiny.model, tmp_path, *serve, **settings))
        stack.enter_context(neighbour(first.url, other[0]))
        client = stack.enter_context(Client(first.url, mine[0]))
        stream = client.predict_iter(iter(texts))
        predictions = list(itertools.islice(stream, n//2))
        second = pool.submit(restart, stack, first, serve, tiny.model, tmp_path, **settings)
        predictions += stream
        return texts, predictions, [first.log.read_text(), second.result().log.read_text()]

def check_all_are_there(tiny, texts, predictions):
    "In their order, and each as the model itself predicts it"
    from sentiment_nb.inference import Predictor
    expected = list(Predictor(tiny.model).predict_iter(texts))
    assert [p.label for p in predictions]==[p.label for p in expected]
    assert [p.tokens for p in predictions]==[p.tokens for p in expected]
    assert max(abs(p.confidence-e.confidence) for p,e in zip(predictions, expected))<1e-4

def test_restart(tiny, tmp_path):
    "A neighbour hammers, the service is started again in the middle and, unless this machine is slow, refuses now and then: nothing is lost"
    texts, predictions, logs = predict_through_a_restart(tiny, tmp_path, 1200)
    check_all_are_there(tiny, texts, predictions)
    assert all('"status": 200' in log for log in logs)

@pytest.mark.slow
def test_restart_long(tiny, tmp_path):
    texts, predictions, logs = predict_through_a_restart(tiny, tmp_path, 20_000)
    check_all_are_there(tiny, texts, predictions)
    assert all('"status": 429' in log for log in logs)

# Small services

def answers(texts):
    "What a service would answer; each text is a number, and its probability shows which"
    fixed = dict(label='negative', confidence=.9, tokens=3, truncated=False, uncertain=False, model='small')
    shares = [int(t)/1e6 if t.isdigit() else 0. for t in texts]
    return {'predictions': [fixed | {'probabilities': {'negative': 1-s, 'positive': s}} for s in shares]}

def answer_all(texts): return 200, {}, answers(texts)
def answer_first(refusal):
    "A service that answers its first request, and refuses all others"
    turns = itertools.count()
    return lambda texts: refusal if next(turns) else answer_all(texts)

def numbers(n): return map(str, range(n))
def are_numbers(predictions):
    "Whether they are those of `numbers`, in order"
    read = [round(1e6*p.probabilities['positive']) for p in predictions]
    return len(read)>0 and read==list(range(len(read)))

@contextmanager
def service(respond):
    "A service whose status, headers and body for the texts of a request are those of `respond`; for None it hangs up"
    class Handler(BaseHTTPRequestHandler):
        protocol_version = 'HTTP/1.1'
        disable_nagle_algorithm = True
        def log_message(self, *_): pass
        def do_POST(self):
            texts = json.loads(self.rfile.read(int(self.headers['content-length'])))['texts']
            response = respond(texts)
            self.close_connection = response is None
            if response is None: return
            status, headers, body = response
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            for name,value in headers.items(): self.send_header(name, value)
            self.send_header('Content-Length', str(len(content)))
            self.end_headers()
            self.wfile.write(content)
    with ThreadingHTTPServer(('127.0.0.1', 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(.05,))
        thread.start()
        try: yield f'http://127.0.0.1:{server.server_port}'
        finally:
            server.shutdown()
            thread.join()

def predict(url, texts, **options):
    with Client(url, **options) as c: return c.predict(texts)

async def predict_async(url, texts, **options):
    async with AsyncClient(url, **options) as c:
        await c.predict('fine')
        return await c.predict(texts)

def from_a_loop(url, texts, **options): return in_a_loop(predict_async(url, texts, **options))

both = pytest.mark.parametrize('predict', [predict, from_a_loop], ids=['Client', 'AsyncClient'])

class Quota:
    "A limit by fixed windows, told in `RateLimit`"
    def __init__(self, units, seconds, price):
        self.units = units
        self.seconds = seconds
        self.price = price
        self.lock = threading.Lock()
        self.until = 0
        self.refused = 0

    def charge(self, n_texts):
        "Whether they are within the quota, and the headers"
        with self.lock:
            now = time.monotonic()
            if now>=self.until:
                self.until = now + self.seconds
                self.left = self.units
            cost = n_texts*self.price
            paid = cost<=self.left
            self.left -= cost*paid
            self.refused += not paid
            reset = int(self.until-now) + 1
            limit = f'"default";r={self.left};t={reset}'
            policy = f'"default";q={self.units};w={self.seconds}'
            return paid, {'RateLimit': limit, 'RateLimit-Policy': policy, 'Retry-After': str(reset)}

@both
@pytest.mark.parametrize('price', [1, 7])
def test_rate_limit_is_never_met(predict, price):
    "What `RateLimit` leaves is not exceeded once the price of a text is known, whatever a unit is"
    quota = Quota(units=300*price, seconds=1, price=price)
    def respond(texts):
        paid, headers = quota.charge(len(texts))
        return (200, headers, answers(texts)) if paid else (429, headers, {})
    with service(respond) as url: assert are_numbers(predict(url, numbers(700)))
    assert quota.refused==0

@both
def test_refusals_that_pass(predict):
    "A gateway's pages, hang-ups and a busy service, in turn: all texts are predicted, in order"
    now = {'Retry-After': '0'}
    page = (502, {'Content-Type': 'text/html'}, b'<h1>Bad gateway</h1>')
    gone = [page, None, (503, now, {}), (504, {}, b''), (429, now, {})]
    turns = itertools.count()
    def respond(texts):
        turn = next(turns)
        refusal = gone[turn//2%len(gone)]
        return refusal if turn%2 and turn<2*len(gone) else (200, {}, answers(texts))
    with service(respond) as url: assert are_numbers(predict(url, numbers(1000)))
    assert next(turns)>2*len(gone)

@both
@pytest.mark.parametrize('status', [413, 422])
def test_smaller_batches(predict, status):
    "A service that takes less than usual is asked for less, and after a few refusals no longer asked for more"
    sizes = []
    def respond(texts):
        sizes.append(len(texts))
        return (200, {}, answers(texts)) if len(texts)<=30 else (status, {}, {'error': {'message': 'too many'}})
    with service(respond) as url: assert are_numbers(predict(url, numbers(700)))
    assert all(n<=30 for n in sizes[-10:]) and sum(n>30 for n in sizes)<12

@both
def test_refusals_that_stay(predict):
    "A text that is refused, an hour to wait, and an answer of something else: an error at once, in a line"
    def error(message): return {'error': {'message': message}}
    refusals = [
        (422, {}, error('texts.0: there is nothing in it'), 'there is nothing in it'),
        (503, {'Retry-After': '3600'}, {}, 'try again in 3600 s'),
        (500, {}, error('the model failed'), 'the model failed'),
        (200, {}, b'<h1>Welcome</h1>', 'correct the address'),
        (200, {}, {'predictions': []}, 'correct the address'),
        (301, {'Location': 'https://example.org'}, b'', 'correct the address')]
    for *refusal,part in refusals:
        requests = []
        with service(lambda texts: requests.append(texts) or refusal) as url: # noqa: B023
            with pytest.raises(ServiceError, match=part) as e: predict(url, ['5'])
        assert '\n' not in str(e.value) and len(requests)==1, (e.value, requests)

def test_patience_ends():
    "A service that stays busy, and one that went away after an answer"
    with service(answer_first((503, {}, {}))) as url:
        with Client(url, max_wait=1) as c, pytest.raises(ServiceError, match='busy'): c.predict(['5']*500)
    with service(lambda texts: (200, {'Connection': 'close'}, answers(texts))) as url: client = Client(url, max_wait=1)
    with client, pytest.raises(ServiceError, match='does not answer'): client.predict('5')
    with pytest.raises(ServiceError, match='does not answer') as e: Client(url) # the address may be wrong
    assert not e.value.temporary

def test_timeout():
    "A request that hangs is sent again"
    turns = itertools.count()
    over = threading.Event()
    def respond(texts):
        if next(turns)==1: over.wait(30)
        return 200, {}, answers(texts)
    with service(respond) as url:
        with Client(url, timeout=.3) as c: assert are_numbers(c.predict(numbers(300)))
        over.set()
    assert next(turns)>4

def test_stream_in_bounded_memory():
    "Of an endless stream only a few batches are read ahead, and the stream can be left"
    drawn = itertools.count()
    texts = (str(i) for i in drawn)
    with service(answer_all) as url, Client(url, connections=2) as c:
        stream = c.predict_iter(texts)
        assert are_numbers(list(itertools.islice(stream, 1000)))
        stream.close()
    assert next(drawn)<1000 + 5*128

def test_stopped_while_it_waits():
    "What `sleep` raises ends the stream at once: so a page or a key stops a client that waits"
    def stop(seconds): raise KeyboardInterrupt
    with service(answer_first((503, {'Retry-After': '60'}, {}))) as url:
        with Client(url) as c, pytest.raises(KeyboardInterrupt): c.predict(numbers(1000), sleep=stop)

def test_cancelled():
    "A task that is cancelled leaves no request behind"
    over = threading.Event()
    async def cancel(url):
        async with AsyncClient(url) as c:
            task = asyncio.create_task(c.predict(numbers(1000)))
            await asyncio.sleep(.2)
            task.cancel()
            with suppress(asyncio.CancelledError): await task
            return len(asyncio.all_tasks())
    with service(lambda texts: over.wait(30) and None) as url:
        assert in_a_loop(cancel(url))==1
        over.set()

def test_other_classes():
    "A model with other classes behind the address would change the meaning of a file's columns"
    def respond(texts):
        body = answers(texts)
        if len(texts)==2: body['predictions'][0]['probabilities'] = {'negative': .2, 'neutral': .6, 'positive': .2}
        return 200, {}, body
    with service(respond) as url, Client(url) as c:
        with pytest.raises(InputError, match='from negative, positive to negative, neutral'): c.predict(['1', '2'])

def test_key_from_the_environment(monkeypatch):
    "SENTIMENT_NB_KEY is sent; one that cannot be a key is not"
    monkeypatch.setenv('SENTIMENT_NB_KEY', 'secret')
    with service(answer_all) as url:
        with Client(url) as c: assert c.http.headers['authorization']=='Bearer secret'
        monkeypatch.setenv('SENTIMENT_NB_KEY', 'sec\nret')
        with pytest.raises(InputError, match='copy it again'): Client(url)

# The command line

def test_refused_on_the_command_line(refuses, tmp_path):
    "One line, and no file"
    def refused(url, *args): return ['predict', '--api', url, '--text', 'fine', *args]
    refuses(refused('http://127.0.0.1:9'), 'does not answer')
    refuses(refused('127.0.0.1:9'), "'127.0.0.1:9'", 'http://127.0.0.1:8000')
    refuses(refused('http://127.0.0.1:9', '--model', 'mine'), '--model mine', '--api http')
    with service(lambda texts: (401, {}, {})) as url:
        (tmp_path/'a.csv').write_text('text\nfine\n')
        refuses(['predict', '--api', url, '--file', 'a.csv', '--out', 'b.csv'], 'SENTIMENT_NB_KEY')

def test_missing_extra(refuses, monkeypatch):
    "The line says what installs it"
    monkeypatch.delitem(sys.modules, 'sentiment_nb.client')
    monkeypatch.setitem(sys.modules, 'httpx', None)
    line = refuses(['predict', '--api', 'http://127.0.0.1:9', '--text', 'fine'])
    assert line=='sentiment-nb: --api needs httpx, which is not installed: pip install "sentiment_nb[client]"\n'
