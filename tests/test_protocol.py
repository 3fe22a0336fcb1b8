"Bytes by hand against a real service: what is read as which request, what is refused, and what a random head can do"
import json
import random
import re
import socket
from contextlib import closing, suppress

import pytest
from test_api import CHUNKED, GOOD, connect, get, harmless, head, metric, raw, running, until, well

from sentiment_nb.api import new_key

@pytest.fixture(scope='module')
def service(tiny, tmp_path_factory):
    "A service that asks for a key; its client has one"
    key, digest = new_key()
    settings = {'RATE_LIMIT': 'none', 'MAX_WAIT': 1e6, 'API_KEYS': digest}
    with running(tiny.model, tmp_path_factory.mktemp('protocol'), **settings) as s:
        s.key = f'X-API-Key: {key}'
        s.client.headers['X-API-Key'] = key
        yield s

def statuses(received): return [int(s) for s in re.findall(rb'HTTP/1\.1 (\d+)', received)]

TEXT = b'{"text": "fine"}'
CHUNKS = b'10\r\n%s\r\n0\r\n\r\n' % TEXT
SECOND = get('/second', 'Connection: close') # 401 if it is read as a request

def post(*fields, body=CHUNKS, first_line='POST /predict HTTP/1.1'):
    lines = [first_line, 'Host: localhost', 'Content-Type: application/json', *fields, '', '']
    return '\r\n'.join(lines).encode('latin-1') + body

# Framing: a request that two readers could read in two ways is refused, and nothing behind it is read

LENGTH = 'Content-Length: 16'
FRAMES = { # name: request, whether it is answered like any other
    'a length': (post(LENGTH, body=TEXT), True),
    'chunks': (post(CHUNKED), True),
    'chunks in capitals': (post('TRANSFER-ENCODING: CHUNKED'), True),
    'a length and chunks': (post(LENGTH, CHUNKED), False),
    'chunks and a length': (post(CHUNKED, 'Content-Length: 5'), False),
    'two lengths': (post(LENGTH, 'Content-Length: 5', body=TEXT), False),
    'a length twice': (post(LENGTH, LENGTH, body=TEXT), False),
    'a list of lengths': (post('Content-Length: 16, 16', body=TEXT), False),
    'a sign': (post('Content-Length: +16', body=TEXT), False),
    'less than nothing': (post('Content-Length: -1', body=TEXT), False),
    'hexadecimal': (post('Content-Length: 0x10', body=TEXT), False),
    'no length': (post('Content-Length:', body=TEXT), False),
    'more than 64 bits': (post('Content-Length: 18446744073709551632', body=TEXT), False),
    'an unknown coding': (post('Transfer-Encoding: xchunked'), False),
    'chunks within another coding': (post('Transfer-Encoding: chunked, gzip'), False),
    'no coding': (post('Transfer-Encoding: identity'), False),
    'a coding twice': (post(CHUNKED, CHUNKED), False),
    'a quoted coding': (post('Transfer-Encoding: "chunked"'), False),
    'a coding on a second line': (post('Transfer-Encoding:\r\n chunked'), False),
    'a vertical tab': (post('Transfer-Encoding: \x0bchunked'), False),
    'a blank before the colon': (post('Transfer-Encoding : chunked'), False),
    'a chunk with a sign': (post(CHUNKED, body=b'-' + CHUNKS), False),
    'a chunk with 0x': (post(CHUNKED, body=b'0x' + CHUNKS), False),
    'a chunk beyond 64 bits': (post(CHUNKED, body=b'100000000000000' + CHUNKS), False),
    'chunks with single line feeds': (post(CHUNKED, body=CHUNKS.replace(b'\r\n', b'\n')), False),
    'a chunk that is longer than it says': (post(CHUNKED, body=CHUNKS.replace(b'}', b'}}')), False),
    'lines with single line feeds': (get().replace(b'\r\n', b'\n'), False),
    'a carriage return within': (get('/livez', 'X: a\rY: b'), False),
    'a zero byte': (get('/livez', 'X: a\0b'), False),
    'a field on two lines': (get('/livez', 'X: a\r\n b'), False),
    'a field on two lines, with an offer': (get('/livez', 'Connection: Upgrade', 'Upgrade: h2c', 'X: a\r\n b'), False),
    'another protocol': (b'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', False),
    'a method for proxies': (b'CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n', False),
    'a path that is none': (get('livez'), False),
    'no version': (b'GET /livez\r\n', False)}

@pytest.mark.parametrize('request_, is_read', FRAMES.values(), ids=FRAMES)
def test_framing(request_, is_read, service):
    received = raw(service, request_.replace(b'Host: localhost', f'Host: localhost\r\n{service.key}'.encode(), 1) + SECOND)
    assert statuses(received)==([200, 401] if is_read else [400]), received

def test_transfer_codings_are_no_way_around(service):
    "A body that says it is compressed is refused, whichever field says so"
    assert statuses(raw(service, post('Transfer-Encoding: gzip, chunked', service.key, 'Connection: close')))==[415]

def test_hosts(service):
    "HTTP/1.1 has one, HTTP/1.0 may have none"
    two = get('/livez', 'Host: rebound.example', 'Connection: close')
    none = b'GET /livez HTTP/1.1\r\nConnection: close\r\n\r\n'
    old = b'GET /livez HTTP/1.0\r\n\r\n'
    assert [statuses(raw(service, r)) for r in (two, none, old)]==[[400], [400], [200]]
    for name in ('rebound.example', 'rebound.example@localhost', 'localhost, rebound.example', 'localhost:x', ''):
        request = get('/livez', 'Connection: close').replace(b'Host: localhost', f'Host: {name}'.encode())
        assert statuses(raw(service, request))==[421], name

def test_http_1_0(service):
    "Answered, and closed; what is behind it is not read"
    for fields, body in (([LENGTH], TEXT), ([CHUNKED], CHUNKS)):
        request = post(*fields, service.key, first_line='POST /predict HTTP/1.0', body=body)
        assert statuses(raw(service, request + SECOND))==[200]
    assert statuses(raw(service, b'GET /livez HTTP/1.0\r\nConnection: keep-alive\r\n\r\n' + SECOND))==[200]

def test_absolute_form(service):
    "The path counts, and the key is asked for as elsewhere"
    def status(url): return statuses(raw(service, get(url, 'Connection: close')))
    assert [status(f'http://localhost{path}') for path in ('/livez', '/metrics')]==[[200], [401]]
    assert status('*')==[401]

def test_half_closed(service):
    "A client that ends its side is gone: it gets no answer, its work is cancelled, and the connection does not stay"
    body = json.dumps({'text': ('word '*1000)[:5000], 'explain': True}).encode()
    whole = head('/predict', len(body), service.key) + body
    for request in (whole, whole[:-100], b'GET /livez HT'):
        with closing(connect(service, request)) as c:
            c.shutdown(socket.SHUT_WR)
            assert c.recv(1000)==b''
    until(lambda: metric(service, 'queue_texts')==0 and service.log.read_text().count('"status": 499')>=2)
    assert well(service)

def test_expect(service):
    "100 for a body that may come; an error at once for one that may not"
    expect = 'Expect: 100-continue'
    with closing(connect(service, head('/predict', 16, service.key, expect))) as c:
        assert c.recv(1000)==b'HTTP/1.1 100 Continue\r\n\r\n'
        c.sendall(TEXT)
        assert c.recv(1000).startswith(b'HTTP/1.1 200')
    assert statuses(raw(service, head('/predict', 10**9, service.key, expect)))==[413]

OFFERS = [['Connection: Upgrade, HTTP2-Settings', 'Upgrade: h2c', 'HTTP2-Settings: AAMAAABkAAQAAP__'],
    ['Connection: Upgrade', 'Upgrade: websocket', 'Sec-WebSocket-Key: dGhlIHNhbXBsZQ==', 'Sec-WebSocket-Version: 13']]

@pytest.mark.parametrize('offer', OFFERS, ids=['h2c', 'websocket'])
def test_offers_of_other_protocols(offer, service):
    "Ignored: Java's client makes one with each request. The body is read, and what comes behind it, too"
    body = json.dumps({'text': GOOD}).encode()
    request = head('/predict', len(body), service.key, *offer) + body
    received = raw(service, request*2, get('/livez', *offer) + get('/livez', 'Connection: close'))
    assert statuses(received)==[200]*4 and received.count(b'"tokens":11')==2
    assert 'upgrade' not in service.log.read_text().lower()

# Many small things in few bytes

SMALL = {
    'fields': get()[:-2] + b'a:\r\n'*13_000,
    'fields of a path': b'GET /livez HTTP/1.1\r\n' + b'a: b\r\n'*10_000,
    'chunks': head('/predict', None, CHUNKED) + b'1\r\n \r\n'*200_000,
    'trailers': head('/predict', None, CHUNKED) + b'0\r\n' + b'a:\r\n'*13_000,
    'heads that wait': get('/static-offline-docs/swagger-ui-bundle.js', f'X: {"y"*9_000}')*12}

@pytest.mark.parametrize('request_', SMALL.values(), ids=SMALL)
def test_many_small_things(request_, service):
    "They count beside their bytes, so the connection is cut off: twenty of them do not keep the others waiting"
    with harmless(service):
        connections = [connect(service) for _ in range(20)]
        for c in connections:
            with suppress(ConnectionError): c.sendall(request_)
        for c in connections:
            with closing(c), suppress(ConnectionError):
                received = b''
                while piece := c.recv(2**20): received += piece
                assert 200 not in statuses(received)

# Random heads

PIECES = [
    b'GET', b'POST', b'HEAD', b'QUERY', b' ', b'  ', b'\t', b'/', b'/livez', b'/predict', b'/metrics', b'//', b'%00',
    b'%', b'*', b'http://localhost', b'?a=b', b'#', b' HTTP/1.1', b' HTTP/1.0', b' HTTP/0.9', b' http/1.1', b'\r\n',
    b'\n', b'\r', b'\r\n\r\n', b'\0', b'Host: localhost\r\n', b'Host:', b'Content-Length: 2\r\n', b'Content-Length:',
    b'Content-Type: application/json\r\n', b':', b';', b',', b'Transfer-Encoding: chunked\r\n', b'Transfer-Encoding:',
    b'Connection: close\r\n', b'Connection: Upgrade\r\n', b'Upgrade: h2c\r\n', b'Expect: 100-continue\r\n',
    b'Range: bytes=0-1\r\n', b'X-Request-ID: ', b'traceparent: 00-', b'Authorization: Bearer ', b'wombat',
    b'0\r\n\r\n', b'5\r\n', b'{}', b'a'*300, b'\xff\xfe', b'\xc3\xa9', b'1'*30]
STATUSES = {100, 200, 400, 401, 404, 405, 408, 413, 415, 421, 422}

def random_bytes(rng):
    "A right request with some changes, or pieces in any order"
    if rng.random()<.3: return b''.join(rng.choices(PIECES, k=rng.randint(1, 40)))
    request = bytearray(rng.choice([get(), get('/nowhere', 'X: y'), post(LENGTH, body=TEXT), post(CHUNKED)]))
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(request))
        request[place:place+rng.choice([0, 0, 1, 5])] = rng.choice(PIECES)
    return bytes(request)

def fuzz(s, seed, n):
    "Send random bytes: whatever comes back is HTTP, no answer is the service's own fault, and none is given without a key"
    rng = random.Random(seed)
    with harmless(s, n/10 + 20):
        for _ in range(n):
            sent = random_bytes(rng)
            with closing(connect(s, sent)) as c, suppress(ConnectionError, TimeoutError):
                c.settimeout(.03) # many wait for more
                received = b''
                while piece := c.recv(65536): received += piece
                is_http = received.startswith(b'HTTP/1.1 ') and set(statuses(received))<=STATUSES
                assert not received or is_http, (seed, sent)
                assert b'label' not in received, (seed, sent)
    log = s.log.read_text()
    assert 'Traceback' not in log and '"status": 500' not in log and 'wombat' not in log
    assert all(json.loads(line) for line in log.splitlines()) and well(s)

def test_random_heads(service): fuzz(service, 0, 200)

@pytest.mark.slow
@pytest.mark.parametrize('seed', [1, 2, 3])
def test_random_heads_long(seed, service): fuzz(service, seed, 10_000)
