"A real page in a real browser: a text, files good and bad, a service behind it, a phone, the keyboard."
import csv
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace

import httpx
import psutil
import pytest
from conftest import environ, root

from sentiment_nb.api import new_key

TOLERANCE = 2e-6 # Numbers are written with six digits
csv.field_size_limit(1<<30)
TEXT = 'The room was small and the wait was awful, but the staff were wonderful!'
@pytest.fixture(scope='module')
def quickstart(tmp_path_factory):
    "The quickstart's model, exported, and tweets that it has not seen"
    from sentiment_nb.data import load_prepared
    from sentiment_nb.inference import Predictor, exported_quickstart
    from sentiment_nb.training import load_quickstart
    folder = Path(shutil.copytree(exported_quickstart(), tmp_path_factory.mktemp('models')/'quickstart'))
    splits = load_prepared(load_quickstart().data)
    return SimpleNamespace(folder=folder, texts=splits['test']['text'][:], predictor=Predictor(folder))

def until(true, seconds=60):
    end = time.monotonic()+seconds
    while not (value := true()):
        assert time.monotonic()<end, 'waited in vain'
        time.sleep(.05)
    return value

def alive(url):
    with suppress(httpx.HTTPError): return httpx.get(url).status_code==200

@contextmanager
def running(folder, command, ready, url=None, **env):
    "A server as a process, listening, with its output in a file; SIGTERM when the block ends"
    log = folder/f'log{len(list(folder.glob("log*")))}'
    with open(log, 'w') as f:
        p = subprocess.Popen([sys.executable, '-m', *command], cwd=folder, env=environ(**env), stdout=f, stderr=f)
    def address(): return re.findall(r'http://127\.0\.0\.1:\d+', log.read_text())
    try:
        url = url or until(lambda: p.poll() is not None or address() and address()[0])
        until(lambda: p.poll() is not None or alive(url+ready))
        assert p.poll() is None, log.read_text()
        yield SimpleNamespace(url=url, process=p, log=log)
    finally:
        p.terminate()
        with suppress(subprocess.TimeoutExpired): p.wait(30)
        p.kill()

def app(folder, *args, **env):
    command = ['sentiment_nb.cli', 'app', '--port', '0', *map(str, args)]
    return running(folder, command, '/_stcore/health', **env)

def service(folder, model, **env):
    command = ['sentiment_nb.cli', 'serve', '--port', '0', '--model', str(model)]
    return running(folder, command, '/readyz', **{f'SENTIMENT_NB_{k}': str(v) for k,v in env.items()})

@pytest.fixture(scope='module')
def server(quickstart, tmp_path_factory):
    with app(tmp_path_factory.mktemp('server'), '--model', quickstart.folder) as s: yield s

class Visitor:
    "A tab of the browser, and the hosts that it sent requests to"
    def __init__(self, context, url):
        self.tab = context.new_page()
        self.url = url
        self.hosts = set()
        self.wrong = []
        self.tab.set_default_timeout(60_000)
        self.tab.on('request', lambda r: self.hosts.add(re.sub(r'^\w+://([^/]*).*', r'\1', r.url)))
        self.tab.on('pageerror', lambda e: self.wrong.append(str(e)))
        self.tab.on('dialog', lambda d: (self.wrong.append('dialog'), d.dismiss()))
    def go(self, path=''):
        self.tab.goto(f'{self.url}/{path}')
        self.tab.locator('[data-testid=stMain] :is(h1,[role=alert])').first.wait_for()
        self.quiet()
        return self
    def button(self, name): return self.tab.get_by_role('button', name=re.compile(f'^{name}'))
    def alerts(self, kind='Error'): return self.tab.get_by_test_id(f'stAlertContent{kind}').all_inner_texts()
    def wait_alerts(self, kind='Error'):
        self.tab.get_by_test_id(f'stAlertContent{kind}').first.wait_for()
        return self.alerts(kind)
    def metrics(self):
        self.tab.get_by_test_id('stMetricValue').first.wait_for()
        return self.tab.get_by_test_id('stMetricValue').all_inner_texts()
    def bars(self):
        "Names and captions of the classes"
        return self.tab.get_by_role('group', name='share of each class').inner_text().split('\n')
    def submit(self, text):
        box = self.tab.get_by_role('textbox', name='Text')
        box.fill(text)
        box.press('Control+Enter')
        self.tab.wait_for_function("t => [...document.querySelectorAll('p[dir=auto]')].some(p => p.textContent.trim()==t)", arg=text)
        self.quiet()
    def choose(self, what, name):
        "By keyboard, from a list"
        self.tab.get_by_role('combobox', name=what).click()
        self.tab.keyboard.type(name)
        self.tab.keyboard.press('Enter')
        self.tab.wait_for_timeout(500)
        self.quiet()
    def upload(self, path):
        self.quiet()
        self.tab.locator('input[type=file]').set_input_files(path)
        self.tab.get_by_text(Path(path).name).first.wait_for()
    def predict(self):
        self.button('Predict').click()
        return self
    def done(self, seconds=120):
        self.tab.get_by_text('Least sure').wait_for(timeout=1000*seconds)
        self.quiet()
    def leave_and_return(self):
        self.tab.get_by_role('link', name='One text').click()
        self.tab.get_by_role('textbox', name='Text').wait_for()
        self.quiet()
        self.tab.get_by_role('link', name='Many texts').click()
        self.tab.get_by_role('heading', name='Sentiment of many texts').wait_for()
    def quiet(self):
        "Wait until the script has run to its end"
        self.tab.wait_for_function("document.querySelector('[data-testid=stApp]').dataset.testScriptState=='notRunning'")
    def download(self, folder):
        with self.tab.expect_download() as d: self.button('Download CSV').click()
        path = folder/d.value.suggested_filename
        d.value.save_as(path)
        with open(path, encoding='utf-8', newline='') as f: return path.name, list(csv.reader(f))
    def no_traceback(self):
        shown = self.tab.locator('body').inner_text()
        assert 'Traceback' not in shown and 'encountered an error' not in shown, shown
        assert not self.tab.get_by_test_id('stException').count() and not self.wrong, (shown, self.wrong)

@pytest.fixture(scope='module')
def context(browser):
    "One for all tabs: what the page is made of is fetched once"
    with browser.new_context() as c: yield c

@pytest.fixture
def visit(context):
    "Open a page in a tab of its own"
    visitors = []
    def new(server, path=''):
        visitors.append(Visitor(context, server.url))
        return visitors[-1].go(path)
    yield new
    for v in visitors: v.tab.close()

def write(path, rows, delimiter=',', encoding='utf-8', newline='\r\n'):
    with open(path, 'w', encoding=encoding, newline='') as f:
        csv.writer(f, delimiter=delimiter, lineterminator=newline).writerows(rows)
    return path

def numbers(row, n_before):
    "Confidence and probabilities of a row"
    return [float(v) for v in (row[n_before+1], *row[n_before+4:])]

def compare(rows, table, column, predictor):
    "Every row of a download: all columns as they came, and the prediction for the text"
    before = table[0]
    new = ['label', 'confidence', 'uncertain', 'truncated', *(f'prob_{n}' for n in predictor.record.labels)]
    assert rows[0]==before + [f'predicted_{n}' if n in before else n for n in new] and len(rows)==len(table)
    texts = [r[before.index(column)] for r in table[1:]]
    distinct = list(dict.fromkeys(texts))
    predictions = dict(zip(distinct, predictor.predict(distinct)))
    n = len(before)
    for row,uploaded,t in zip(rows[1:], table[1:], texts):
        if not t.strip():
            assert row==uploaded + ['']*len(new), row # there is nothing to predict
            continue
        p = predictions[t]
        assert row[:n]==uploaded and row[n]==p.label, (row, uploaded, p)
        assert row[n+2:n+4]==[str(p.uncertain), str(p.truncated)], (row, p)
        expected = [p.confidence, *p.probabilities.values()]
        assert all(abs(a-b)<TOLERANCE for a,b in zip(numbers(row, n), expected)), (row, p)

# A text

def test_text(visit, server, quickstart):
    "The answer is the model's, the words that decided are marked, and no other host gets a request"
    v = visit(server)
    v.submit(TEXT)
    p = quickstart.predictor.predict(TEXT)
    assert v.metrics()==[p.label, f'{p.confidence:.1%}']
    marked = v.tab.locator('p[dir=auto] span[title]')
    assert ''.join(marked.all_inner_texts())==TEXT.replace(' ', '')
    strongest = max(marked.all(), key=lambda e: abs(float(e.get_attribute('title'))))
    assert 'wonderful' in strongest.inner_text() + v.tab.get_by_text('Most for').inner_text()
    assert v.bars()==[part for n,share in p.probabilities.items() for part in (n, f'{share:.1%}')]
    v.no_traceback()
    assert v.hosts=={server.url.removeprefix('http://')}
    assert 'wonderful' not in server.log.read_text() and 'eprecat' not in server.log.read_text()

def test_markup_is_text(visit, server):
    "What looks like a page stays a text"
    v = visit(server)
    text = '<img src=x onerror=alert(1)> <script>alert(2)</script> **bold** $x$ [a](javascript:alert(3)) fine'
    v.submit(text)
    assert v.tab.locator('p[dir=auto]').last.inner_text()==text
    assert not v.tab.locator('p[dir=auto] :is(img,script,a,strong)').count()
    v.no_traceback()

def test_uncertain_is_visible(visit, server, quickstart):
    predictions = quickstart.predictor.predict(quickstart.texts[:500])
    unsure = next(t for t,p in zip(quickstart.texts, predictions) if p.uncertain)
    v = visit(server)
    v.submit('I love it, thank you so much!')
    assert not v.alerts('Warning')
    v.submit(unsure)
    assert v.wait_alerts('Warning')[0].startswith('Uncertain.')

def test_no_text_and_a_long_one(visit, server, quickstart):
    "A sentence; a long text is answered without its words"
    v = visit(server)
    v.predict()
    assert 'type one' in v.wait_alerts('Warning')[0]
    long = 'The service was excellent. '*200
    v.tab.get_by_role('textbox', name='Text').fill(long)
    v.predict()
    v.tab.get_by_text('Words are weighed').wait_for()
    v.quiet()
    assert v.metrics()[0]==quickstart.predictor.predict(long).label and 'longer' in v.wait_alerts('Info')[0]
    v.no_traceback()

def test_keyboard(visit, server, quickstart):
    "Without a mouse: the text, the button, the other pages"
    v = visit(server)
    focus = lambda: v.tab.evaluate("(document.activeElement.getAttribute('aria-label') || document.activeElement.innerText).trim()")
    def tab_to(name, n=30):
        for _ in range(n):
            if focus()==name: return
            v.tab.keyboard.press('Tab')
        raise AssertionError(f'{name!r} cannot be reached: {focus()!r}')
    tab_to('Text')
    v.tab.keyboard.type('I love it')
    tab_to('Predict')
    v.tab.keyboard.press('Enter')
    v.tab.get_by_text('Green speaks for the answer').wait_for()
    v.quiet()
    assert v.metrics()[0]==quickstart.predictor.predict('I love it').label
    for _ in range(30):
        if focus()=='Many texts': break
        v.tab.keyboard.press('Shift+Tab')
    v.tab.keyboard.press('Enter')
    v.tab.get_by_role('heading', name='Sentiment of many texts').wait_for()
    for _ in range(30):
        if v.tab.evaluate("!!document.activeElement.closest('[data-testid=stFileUploader] section, [data-testid=stFileUploaderDropzone]')"): break
        v.tab.keyboard.press('Tab')
    else: raise AssertionError('no file can be chosen by keyboard')

# A file

def test_file(visit, server, quickstart, tmp_path):
    "A thousand rows: the bar moves, and every row of the download is the model's; what came and what is shown stays when the page is left"
    table = [['id','text','notes'], *([str(i), t, ''] for i,t in enumerate(quickstart.texts[:999]))]
    table.append(['999', 'two\nlines, "quoted"', 'kept; as it was'])
    v = visit(server, 'file')
    v.upload(write(tmp_path/'a thousand.csv', table))
    v.predict()
    seen = set()
    bar = v.tab.get_by_role('progressbar')
    bar.wait_for()
    caption = v.tab.get_by_text(re.compile(r'^[\d,]+ of 1,000'))
    while bar.count():
        with suppress(Exception): seen.add(int(caption.inner_text(timeout=500).split(' of ')[0].replace(',', '')))
        v.tab.wait_for_timeout(50)
    v.done()
    assert len([n for n in seen if 0<n<1000])>=3, seen
    name, rows = v.download(tmp_path)
    assert name=='a thousand-predicted.csv'
    compare(rows, table, 'text', quickstart.predictor)
    predictions = quickstart.predictor.predict([r[1] for r in table[1:]])
    counts = {n: sum(p.label==n for p in predictions) for n in quickstart.predictor.record.labels}
    assert v.bars()==[part for n,k in counts.items() for part in (n, f'{k:,} ({k/1000:.0%})')]
    shown = v.tab.locator('body').inner_text()
    assert f'{sum(p.uncertain for p in predictions)} of 1,000 answers are uncertain' in shown
    worst = min(range(1000), key=lambda i: predictions[i].confidence)
    assert f'row {worst+1:,}: {predictions[worst].label}, {predictions[worst].confidence:.1%}' in shown
    assert v.tab.get_by_role('group', name='words').count()==2 and v.tab.get_by_test_id('stVegaLiteChart').count()==1
    v.leave_and_return()
    v.done()
    v.no_traceback()
    assert v.hosts=={server.url.removeprefix('http://')}

def test_report(visit, server, quickstart, tmp_path):
    "From the upload to the downloaded report: shares by month and shop with intervals from labels, themes with quotes"
    n = 200
    days = ['2024-03-05', '2024-04-09']
    shops = ['north', 'south', 'north']
    rows = [[t, days[i%2], shops[i%3]] for i,t in enumerate(quickstart.texts[:n])]
    gold = [p.label for p in quickstart.predictor.predict(quickstart.texts[:n:2])]
    labels = [['row','gold','chance'], *([str(2*i+1), label, '0.5'] for i,label in enumerate(gold))]
    v = visit(server, 'file')
    v.upload(write(tmp_path/'shops.csv', [['text','day','shop'], *rows]))
    v.predict().done()
    v.tab.get_by_text('Over time, by group, and about what').click()
    v.choose('Column with dates', 'day')
    v.choose('Column to compare', 'shop')
    v.tab.locator('input[type=file]').nth(1).set_input_files(write(tmp_path/'labelled.csv', labels))
    v.tab.get_by_text('labelled.csv').first.wait_for()
    v.button('Answer').click()
    with v.tab.expect_download(timeout=180_000) as d: v.button('Download report').click(timeout=180_000)
    d.value.save_as(tmp_path/'report.html')
    page = (tmp_path/'report.html').read_text(encoding='utf-8')
    assert d.value.suggested_filename=='shops-report.html'
    assert 'from 100 texts labelled by a person' in page and page.count('<svg')==2 and '<blockquote' in page
    v.tab.frame_locator('iframe').get_by_role('heading', name='Since when').wait_for()
    v.no_traceback()
    assert v.hosts=={server.url.removeprefix('http://')}

def test_other_csv(visit, server, quickstart, tmp_path):
    "Other separators and encodings; a column that is empty; the texts in a column of another name"
    v = visit(server, 'file')
    def foreign(text): return f'{text.encode("ascii","ignore").decode()} Très déçu, naïve façade über ñ'
    formats = [(';','latin-1'), (';','utf-8-sig'), ('\t','utf-16'), ('|','utf-8')]
    for n,(delimiter,encoding) in enumerate(formats, 30):
        rows = ([str(i), '', foreign(t), ''] for i,t in enumerate(quickstart.texts[:n]))
        table = [['nr','leer','Kommentar','leer 2'], *rows]
        v.upload(write(tmp_path/f'{n}.csv', table, delimiter, encoding))
        v.button(f'Predict {n} rows').wait_for()
        v.quiet()
        assert v.tab.get_by_role('combobox', name='Encoding').count()==(encoding in ('latin-1','utf-16'))
        v.predict().done()
        compare(v.download(tmp_path)[1], table, 'Kommentar', quickstart.predictor)
        v.no_traceback()

def test_choice_of_column(visit, server, quickstart, tmp_path):
    "The page guesses a column; another can be chosen, by keyboard; an empty one is refused"
    table = [['long','short','none'], *([f'{t} and so on and so forth', t[:20] or 'x', ''] for t in quickstart.texts[:30])]
    v = visit(server, 'file')
    v.upload(write(tmp_path/'a.csv', table))
    v.button('Predict 30 rows').wait_for()
    v.choose('Column', 'none')
    assert "column 'none' is empty" in v.wait_alerts()[0] and not v.button('Predict').count()
    v.choose('Column', 'short')
    v.predict().done()
    compare(v.download(tmp_path)[1], table, 'short', quickstart.predictor)

def test_labels_of_ones_own(visit, server, quickstart, tmp_path):
    "A table that is labelled already, here as Parquet, keeps its columns; what the new ones are called stands there before they come"
    import pyarrow as pa
    import pyarrow.parquet as pq
    table = [['label','text','confidence'], *([str(i%2), t, 'high'] for i,t in enumerate(quickstart.texts[:40]))]
    pq.write_table(pa.Table.from_pylist([dict(zip(table[0], r)) for r in table[1:]]), tmp_path/'mine.parquet')
    v = visit(server, 'file')
    v.upload(tmp_path/'mine.parquet')
    v.tab.get_by_text('predicted_label, predicted_confidence, uncertain, truncated, prob_negative').wait_for()
    assert not v.tab.get_by_role('combobox', name='Encoding').count()
    v.predict().done()
    compare(v.download(tmp_path)[1], table, 'text', quickstart.predictor)
    v.no_traceback()

def test_spreadsheet(visit, server, quickstart, tmp_path):
    "As it came, or with an apostrophe before what a spreadsheet would run"
    formulas = [[c+'1+1 good', c+'x'] for c in ('=','+','-','@','\t','\r')]
    table = [['text','=note'], *formulas, ['fine =1','fine']]
    v = visit(server, 'file')
    v.upload(write(tmp_path/'a.csv', table))
    v.predict().done()
    compare(v.download(tmp_path)[1], table, 'text', quickstart.predictor)
    v.tab.get_by_text('For a spreadsheet').click()
    v.tab.wait_for_timeout(300)
    v.quiet()
    rows = v.download(tmp_path)[1]
    escaped = [[f"'{a}", f"'{b}"] for a,b in formulas]
    assert [r[:2] for r in rows]==[['text',"'=note"], *escaped, table[-1]]

WRONG = { # name: content, part of the error
    'empty.csv': (b'', 'is empty'),
    'header.csv': (b'text,id\n', 'a header but no rows'),
    'picture.csv': (b'\x89PNG\r\n\x1a\n\0\0\0\rIHDR'*99, 'not a text file'),
    'table.csv': (b'PK\x03\x04\x14\0\x06\0'*99, 'not a text file'),
    'blank.csv': (b'text,id\n ,\n', 'holds no text'),
    'longer.csv': (b'text,id\nfine,1\none,two,three\n', 'row 2: has more fields'),
    'twice.csv': (b'text,text\na,b\n', "two columns called 'text'"),
    'table.parquet': (b'PAR1 text,fine PAR1', 'cannot be read'),
    'quote.csv': (b'text,id\n"never closed,1\n', 'cannot be read'),
    'broken.jsonl': (b'{"text": "fine"}\n{"te\n', 'cannot be read'),
    'short.csv': (b'id,text\n1,fine\n2\n', 'row 2: has fewer fields'),
    '**b** `c` <i>.csv': (b'', '**b** `c` <i>.csv is empty')}

def test_wrong_files(visit, server, tmp_path):
    "A sentence for each, which names it, and after them all a good one works"
    v = visit(server, 'file')
    for name,(content,part) in WRONG.items():
        (tmp_path/name).write_bytes(content)
        v.upload(tmp_path/name)
        shown_name = name.replace('`', '')
        errors = until(lambda: [e for e in v.alerts() if e.startswith(shown_name)], 30) # noqa: B023
        assert len(errors)==1 and part.replace('`', '') in errors[0], errors
        assert '\n' not in errors[0] and '/tmp' not in errors[0] and not v.button('Predict').count(), errors
        v.no_traceback()
    v.upload(write(tmp_path/'good.csv', [['text'],['fine']]))
    v.predict().done()
    assert v.download(tmp_path)[1][1][0]=='fine'

def test_undecodable(visit, server, quickstart, tmp_path):
    "A file that is not in its apparent encoding can be read in another, and the choice stays when the page is left"
    (tmp_path/'a.csv').write_bytes(b'text\ngood \x81 \x8d \xe9\n')
    v = visit(server, 'file')
    v.upload(tmp_path/'a.csv')
    v.tab.get_by_role('combobox', name='Encoding').click()
    v.tab.keyboard.type('mac_roman')
    v.tab.keyboard.press('Enter')
    v.predict().done()
    v.leave_and_return()
    v.done()
    v.no_traceback()

def test_marks_that_mean_nothing(visit, server, quickstart, tmp_path):
    "A file that is rejected for its quotation marks is read when the user says what they mean"
    (tmp_path/'a.csv').write_bytes(b'text,id\n"Great" is what it was,7\n')
    v = visit(server, 'file')
    v.upload(tmp_path/'a.csv')
    v.tab.get_by_role('combobox', name='Quotation marks').click()
    v.tab.keyboard.type('mean nothing')
    v.tab.keyboard.press('Enter')
    v.predict().done()
    assert v.download(tmp_path)[1][1][:2]==['"Great" is what it was', '7']
    v.no_traceback()

def test_stop(visit, server, quickstart, tmp_path):
    "A click ends a run within a second or two, and the page can be used as before"
    table = [['text'], *([t] for t in quickstart.texts[:4000])]
    v = visit(server, 'file')
    v.upload(write(tmp_path/'a.csv', table))
    v.predict()
    v.tab.get_by_text(re.compile(r'^[1-9][\d,]* of 4,000')).wait_for()
    assert v.button('Predict').is_disabled()
    v.button('Stop').last.click()
    v.button('Stop').last.wait_for(state='detached', timeout=10_000)
    v.quiet()
    assert v.button('Predict').is_enabled() and not v.button('Download').count()
    v.upload(write(tmp_path/'b.csv', table[:50]))
    v.button('Predict 49 rows').click()
    v.done()
    compare(v.download(tmp_path)[1], table[:50], 'text', quickstart.predictor)
    v.no_traceback()

# Models and services

def test_choice_of_models(visit, quickstart, tmp_path):
    "Several under models/: each answers for itself; one that is damaged is a sentence, and the others still work"
    from sentiment_nb.inference import Predictor
    from sentiment_nb.training import load_quickstart
    sources = {'linear': load_quickstart().linear, 'quickstart': quickstart.folder, 'damaged': quickstart.folder}
    for name,source in sources.items(): shutil.copytree(source, tmp_path/'models'/name)
    (tmp_path/'models'/'linear'/'README.md').write_text('---\nlanguage: en\n---\n\n# Mine\n\n## Intended use\n')
    for f in (tmp_path/'models'/'damaged'/'onnx').glob('*.onnx'): f.write_bytes(b'')
    with app(tmp_path, '--model', 'models/linear') as s:
        v = visit(s)
        for name in ('linear','quickstart'):
            if name!='linear': v.choose('Model', name)
            v.submit(TEXT)
            p = Predictor(tmp_path/'models'/name).predict(TEXT)
            assert v.metrics()==[p.label, f'{p.confidence:.1%}']
        v.choose('Model', 'damaged')
        assert 'copy the model folder again' in v.wait_alerts()[0]
        v.choose('Model', 'linear')
        v.tab.get_by_role('link', name='The model').click()
        v.tab.get_by_role('heading', name='Intended use').wait_for()
        assert 'language' not in v.tab.locator('body').inner_text()
        v.no_traceback()

def test_service(visit, quickstart, tmp_path):
    "The page before a service with a key: the same answers, in chunks that fit, after the waits that it wants; each error is a sentence"
    key, digest = new_key()
    table = [['text'], [''], *([t] for t in quickstart.texts[:200]), ['long '*30_000], ['я'*90_000]]
    with service(tmp_path, quickstart.folder, API_KEYS=digest, RATE_LIMIT='8000/10second') as api:
        with app(tmp_path, '--api', api.url, SENTIMENT_NB_KEY=key) as s:
            v = visit(s)
            v.submit(TEXT)
            p = quickstart.predictor.predict(TEXT)
            assert v.metrics()==[p.label, f'{p.confidence:.1%}']
            v.go('file').upload(write(tmp_path/'a.csv', table))
            v.predict()
            v.tab.get_by_text('the service is busy, going on in').wait_for()
            v.done()
            compare(v.download(tmp_path)[1], table, 'text', quickstart.predictor)
            assert 'No text in 1 of the rows' in v.alerts('Warning')[0]
            v.go('model').tab.get_by_text(re.compile('asks the service at')).wait_for()
            with app(tmp_path, SENTIMENT_NB_API=api.url, SENTIMENT_NB_KEY='no such key') as stranger:
                assert 'SENTIMENT_NB_KEY' in visit(stranger).wait_alerts()[0]
            v.go()
            for _ in range(30):
                v.tab.get_by_role('textbox', name='Text').fill(5*f'{TEXT} ')
                v.predict()
                v.tab.wait_for_timeout(200)
                v.quiet()
                if v.alerts(): break
            assert re.search(r'try again in \d+ s', v.alerts()[0])
            api.process.terminate()
            api.process.wait(30)
            v.tab.get_by_role('textbox', name='Text').fill('fine')
            v.predict()
            until(lambda: [s for s in v.alerts() if 'does not answer' in s], 30)
            v.no_traceback()
            assert key not in s.log.read_text() and 'wonderful' not in s.log.read_text()

def test_streamlit_run(visit, quickstart, tmp_path):
    "Streamlit's own way to start the script"
    with socket.create_server(('127.0.0.1', 0)) as free: port = free.getsockname()[1]
    options = ['--server.headless', 'true', '--server.address', '127.0.0.1']
    options += ['--browser.gatherUsageStats', 'false', '--server.port', str(port)]
    command = ['streamlit', 'run', str(root/'sentiment_nb'/'app.py'), *options]
    url = f'http://127.0.0.1:{port}'
    with running(tmp_path, command, '/_stcore/health', url, SENTIMENT_NB_MODEL=str(quickstart.folder)) as s:
        v = visit(s)
        v.submit(TEXT)
        v.submit('I love it')
        assert v.metrics()[0]==quickstart.predictor.predict('I love it').label
        v.no_traceback()
        assert 'eprecat' not in s.log.read_text()

WITHOUT = "import sys; sys.modules['streamlit'] = None; from sentiment_nb.cli import main; sys.exit(main(['app', *sys.argv[1:]]))"

def test_refusals(refuses, shell, quickstart, workdir):
    "What keeps the page from starting, in a line"
    refuses(['app', '--model', 'nowhere'], 'no model folder nowhere', 'quickstart')
    refuses(['app', '--model', 'a', '--api', 'http://b'], '--model a', '--api http://b')
    refuses(['app', '--api', 'localhost:8000'], "'localhost:8000'", 'http://127.0.0.1:8000')
    (workdir/'empty').mkdir()
    refuses(['app', '--model', 'empty'], 'not a model folder')
    with socket.create_server(('127.0.0.1', 0)) as taken:
        port = taken.getsockname()[1]
        refuses(['app', '--model', quickstart.folder, '--port', port], 'choose another --host or --port', run=shell)
    command = [sys.executable, '-c', WITHOUT, '--model', str(quickstart.folder)]
    p = subprocess.run(command, env=environ(), capture_output=True, text=True)
    assert p.returncode==2 and p.stderr=='sentiment-nb: the page needs streamlit, which is not installed: pip install "sentiment_nb[app]"\n', p

def test_only_this_machine(server):
    "It listens on 127.0.0.1 and nowhere else, and ends in order"
    process = psutil.Process(server.process.pid)
    connections = [c for p in (process, *process.children(recursive=True)) for c in p.net_connections('tcp')]
    assert {c.laddr.ip for c in connections if c.status=='LISTEN'}=={'127.0.0.1'}

def test_names_of_this_machine(server):
    "A page that has its own name lead to this address reaches the WebSocket by no other name than one of this machine's"
    port = int(server.url.rsplit(':', 1)[1])
    upgrade = ['Connection: Upgrade', 'Upgrade: websocket', 'Sec-WebSocket-Version: 13', 'Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==']
    def handshake(name):
        request = ['GET /_stcore/stream HTTP/1.1', f'Host: {name}', f'Origin: http://{name}', *upgrade, '', '']
        with socket.create_connection(('127.0.0.1', port), timeout=20) as c:
            c.sendall('\r\n'.join(request).encode())
            return int(c.recv(1000).split()[1])
    assert handshake(f'localhost:{port}')==101 and handshake(f'rebound.example:{port}')==403

# How it looks

def looks(v):
    "The page on a phone and on a desk, by day and by night"
    for scheme,ground in (('light', 255), ('dark', 0)):
        v.tab.emulate_media(color_scheme=scheme)
        v.tab.wait_for_function("g => Math.abs(getComputedStyle(document.querySelector('[data-testid=stApp]')).backgroundColor.match(/\\d+/)[0]-g)<64", arg=ground)
        for width in (390, 1200):
            v.tab.set_viewport_size({'width': width, 'height': 850})
            v.tab.wait_for_timeout(500)
            yield
            assert v.tab.evaluate("[document.documentElement, document.querySelector('[data-testid=stMain]')].every(e => e.scrollWidth<=e.clientWidth)"), (scheme, width)

def test_fits(visit, server, quickstart, tmp_path):
    "Nothing is wider than a phone, on any page, and everything that is read stands out from its ground"
    v = visit(server)
    v.submit(f'{TEXT} {"unbroken"*40}')
    for _ in looks(v):
        for e in v.tab.locator('p[dir=auto] span[title]').all(): assert contrast(e)>=4.5
        assert contrast(v.tab.get_by_text('Green speaks'))>=4.5
    table = [['text','a','b','c','d'], *([t,'','','',''] for t in quickstart.texts[:80])]
    v.go('file').upload(write(tmp_path/'a.csv', table))
    v.predict().done()
    for _ in looks(v): assert min(contrast(e) for e in v.tab.locator('[aria-label=words] span').all()[:3])>=3
    v.go('model').tab.get_by_role('heading', name='When it was trained').wait_for()
    for _ in looks(v): pass
    v.no_traceback()

CONTRAST = """e => {
    const rgba = c => { const m = c.match(/[\\d.]+/g).map(Number); return [m[0], m[1], m[2], m[3] ?? 1] }
    const grounds = []
    for (let n = e; n; n = n.parentElement) grounds.unshift(rgba(getComputedStyle(n).backgroundColor))
    const over = (below, c) => below.map((v, i) => v*(1-c[3]) + c[i]*c[3])
    const ground = grounds.reduce(over, [255, 255, 255])
    const light = c => { const [r,g,b] = c.map(v => v/255).map(v => v<=.04045 ? v/12.92 : ((v+.055)/1.055)**2.4); return .2126*r + .7152*g + .0722*b }
    const [a,b] = [light(over(ground, rgba(getComputedStyle(e).color))), light(ground)].sort((x,y) => y-x)
    return (a+.05)/(b+.05)
}"""

def contrast(e):
    "Of letters and their ground, 1 to 21 (WCAG 2)"
    return e.evaluate(CONTRAST)

def test_picture(visit, server, tmp_path):
    "The picture of the home page and of the app chapter. `APP_PICTURE=nbs/app.png pytest tests/test_app.py -k picture` writes it there"
    v = visit(server)
    v.tab.set_viewport_size({'width': 900, 'height': 750})
    v.submit('The room was small and the wait at the desk was long, but the staff were wonderful and I would love to come back!')
    v.tab.evaluate('document.activeElement.blur()')
    v.tab.wait_for_timeout(500)
    path = root/os.environ['APP_PICTURE'] if os.environ.get('APP_PICTURE') else tmp_path/'app.png'
    path.parent.mkdir(exist_ok=True)
    v.tab.screenshot(path=path)
    assert path.stat().st_size<150_000

# A long file

@pytest.mark.slow
def test_hundred_thousand_rows(visit, server, quickstart, tmp_path, capsys):
    "All of them are right, somebody else is served meanwhile, and the memory does not grow with them"
    distinct = quickstart.texts[:4000]
    table = [['id','text'], *([str(i), distinct[i%len(distinct)]] for i in range(100_000))]
    process = psutil.Process(server.process.pid)
    peaks = []
    over = threading.Event()
    visit(server).submit(TEXT)
    before = process.memory_info().rss
    def watch():
        while not over.wait(.2): peaks.append(process.memory_info().rss)
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        v = visit(server, 'file')
        start = time.monotonic()
        path = write(tmp_path/'a.csv', table)
        v.upload(path)
        v.button('Predict 100,000 rows').click()
        v.tab.get_by_text(re.compile(r'^[1-9][\d,]* of 100,000')).wait_for()
        other = visit(server)
        waits = []
        while v.tab.get_by_role('progressbar').count():
            submitted = time.monotonic()
            other.submit(f'{TEXT} {len(waits)}')
            waits.append(time.monotonic()-submitted)
            v.tab.wait_for_timeout(5000)
        v.done(60)
        seconds = time.monotonic()-start
        rows = v.download(tmp_path)[1]
    finally:
        over.set()
        watcher.join()
    compare(rows, table, 'text', quickstart.predictor)
    with capsys.disabled():
        print(f'\n100,000 rows ({path.stat().st_size/1e6:.1f} MB) in {seconds:.0f} s')
        print(f'memory {before/1e6:.0f} MB before, {max(peaks)/1e6:.0f} MB at most')
        print(f'{len(waits)} other visits, the slowest answered in {max(waits):.1f} s')
    assert max(peaks)-before < 300e6 and max(waits)<10 and len(waits)>=3
    v.no_traceback()
