"Texts are labelled by keyboard, on the page and in JupyterLab: by two at once, and while the server is killed."
import csv
import json
import re
import subprocess
import sys
from contextlib import contextmanager, suppress

import pytest
from conftest import environ, root
from test_app import Visitor, app, looks, quickstart, running, until # noqa: F401

KINDS = ['Great <b onclick="alert(1)">shop</b> <img src=x onerror="document.title=1"><script>document.title=2</script>',
    'مرحبا، الخدمة ممتازة', 'never '*17_000, 'two\nlines, "quoted"', 'Never again.']
LABELS = ['positive', 'negative', 'neutral']
TEXTS = {f'{kind} {i}': LABELS[i%3] for i,kind in enumerate(KINDS*4)}
KEYS = {'negative': '1', 'neutral': '2', 'positive': '3'}
GUIDE = {name: f'It is {name}.' for name in KEYS}
PARAGRAPHS = tuple(GUIDE.values())

def write_texts(path, texts):
    with open(path, 'w', encoding='utf-8', newline='') as f: csv.writer(f).writerows([['text'], *([t] for t in texts)])

def read_labels(path):
    with open(path, encoding='utf-8', newline='') as f: return list(csv.DictReader(f))

def label(folder, *args, port=0):
    "The page of `sentiment-nb label` on a file"
    command = ['sentiment_nb.cli', 'label', 'inbox.csv', '--port', str(port), *map(str, args)]
    return running(folder, command, '/_stcore/health')

class Labeller:
    "Somebody at the panel, in a page that shows it"
    def __init__(self, page):
        self.page = page
        self.panel = page.locator('.label-panel')
        self.page.set_default_timeout(60_000)
    def begin(self, name, paragraphs=PARAGRAPHS):
        "Fill in the form by keyboard"
        self.panel.get_by_role('button', name='Begin').wait_for()
        self.page.keyboard.type(name)
        for paragraph in paragraphs:
            self.page.keyboard.press('Tab')
            self.page.keyboard.type(paragraph)
        self.page.keyboard.press('Tab')
        self.page.keyboard.press('Enter')
        self.panel.locator('.text').wait_for()
        return self
    def text(self): return self.panel.locator('.text').text_content()
    def status(self): return self.panel.locator('.status').inner_text()
    def settle(self): self.page.locator('.label-panel:not(.saving)').wait_for()
    def press(self, key):
        self.page.keyboard.press(key)
        self.settle()
    def label(self, truth, n):
        "Label by keyboard what is shown, and return the texts"
        texts = []
        while len(texts)<n and self.text() in truth:
            texts.append(self.text())
            self.press(KEYS[truth[texts[-1]]])
        return texts

def visit(browser, url):
    "A labeller of one's own, with cookies and a session of one's own"
    page = browser.new_context().new_page()
    page.goto(url)
    return Labeller(page)

def is_shown_whole(labeller):
    "What looks like markup is text, and what is written from right to left is set so"
    text = labeller.text()
    direction = labeller.panel.locator('.text').evaluate('e => getComputedStyle(e).direction')
    n_elements = labeller.panel.locator('.text *').count()
    return text in TEXTS and n_elements==0 and direction==('rtl' if text.startswith(KINDS[1]) else 'ltr')

def test_two_label_a_file_by_keyboard(browser, tmp_path):
    """Two browsers, one file: all keys, markup, a hundred thousand characters, right to left; then the server is killed

    A key that is held down labels one text. What was shown as saved is in the file.
    """
    write_texts(tmp_path/'inbox.csv', TEXTS)
    with label(tmp_path, '--n-test', 10) as server:
        ann = visit(browser, server.url).begin('Ann')
        bob = visit(browser, server.url).begin('Bob', ['']*3) # Ann's guide stands there
        first = ann.text()
        key = KEYS[TEXTS[first]]
        for _ in range(3): ann.page.keyboard.down(key) # the second and third are repetitions
        ann.page.keyboard.up(key)
        until(lambda: ann.text()!=first)
        assert [row['text'] for row in read_labels(tmp_path/'labels.csv')]==[first]
        second = ann.text()
        ann.press('2')
        ann.press('Backspace')
        assert ann.text()==second
        ann.press(' ') # comes back at the end
        assert bob.text()==first
        for _ in range(3):
            assert is_shown_whole(bob)
            bob.label(TEXTS, 1)
        seen = ann.label(TEXTS, 5)
        assert ann.page.title()==bob.page.title()=='Label'
        ann.page.keyboard.press('0')
        server.process.kill()
    rows = read_labels(tmp_path/'labels.csv')
    last = {(row['labeller'], row['text']): row['gold'] for row in rows if row['part']=='test'}
    assert len([row for row in rows if row['labeller']=='Bob'])==3
    assert all(last['Ann',text]==TEXTS[text] for text in (first, *seen)) and last['Ann',second]=='(skipped)'
    assert json.loads((tmp_path/'labels.json').read_text())['guide']==GUIDE

@pytest.mark.slow
def test_hundred_texts_on_the_page_and_a_kill(browser, tmp_path):
    "The server is killed three times on the way, and started again: whatever was shown as saved is there, and the labeller goes on"
    texts = {f'{text} {i}': label for i in range(12) for text,label in TEXTS.items()}
    write_texts(tmp_path/'inbox.csv', texts)
    saved = {}
    for n in (33, 33, 34):
        with label(tmp_path, '--n-test', 100, '--labeller', 'Ann') as server:
            ann = visit(browser, server.url)
            if not saved: ann.begin('')
            ann.panel.locator('.text').wait_for()
            for text in ann.label(texts, n): saved[text] = texts[text]
            ann.page.keyboard.press('0') # this one may be lost
            server.process.kill()
    rows = [row for row in read_labels(tmp_path/'labels.csv') if row['part']=='test']
    assert len(saved)>90 and {row['text']: row['gold'] for row in rows if row['gold']!='(cannot tell)'}==saved

@pytest.mark.slow
def test_from_an_upload_to_shares_with_intervals(browser, quickstart, tmp_path): # noqa: F811
    "A file is predicted, a sample of it labelled below, and the shares and the report have intervals, with no file in between"
    truth = dict(zip(quickstart.texts[:100], [p.label for p in quickstart.predictor.predict(quickstart.texts[:100])]))
    write_texts(tmp_path/'inbox.csv', truth)
    labels = quickstart.predictor.record.labels
    with app(tmp_path, '--model', quickstart.folder) as server, browser.new_context() as context:
        v = Visitor(context, server.url).go('file')
        v.upload(tmp_path/'inbox.csv')
        v.predict().done()
        v.tab.get_by_text('Label a sample').click()
        v.tab.get_by_role('spinbutton', name='Texts to label').fill('10')
        v.tab.keyboard.press('Tab')
        v.button('Begin').click()
        ann = Labeller(v.tab).begin('Ann', ['']*len(labels))
        for _ in range(10): ann.press(str(1+labels.index(truth[ann.text().strip()])))
        v.tab.get_by_text('Shares of the classes in the whole file').wait_for()
        assert len(re.findall(r'\d+% \[\d+%, \d+%\]', v.tab.locator('body').inner_text()))==len(labels)
        for _ in looks(v): ann.panel.wait_for()
        v.tab.get_by_text('Over time, by group, and about what').click()
        v.button('Answer').click()
        v.button('Download report').wait_for(timeout=180_000)
        assert 'from 10 texts labelled by a person' in v.tab.frame_locator('iframe').locator('body').inner_text()
        v.no_traceback()

@contextmanager
def jupyter_lab(folder, source):
    "A JupyterLab in a folder, with a notebook of one cell"
    cell = dict(cell_type='code', source=source, metadata={}, outputs=[], execution_count=None, id='a')
    kernel = dict(name='python3', display_name='Python 3', language='python')
    notebook = dict(cells=[cell], metadata=dict(kernelspec=kernel), nbformat=4, nbformat_minor=5)
    (folder/'label.ipynb').write_text(json.dumps(notebook))
    options = ['--no-browser', '--allow-root', '--port=0', '--ServerApp.token=t', '--LabApp.expose_app_in_browser=True']
    log = folder/'lab.log'
    with open(log, 'w') as f:
        env = environ(HOME=str(folder), PYTHONPATH=str(root))
        command = [sys.executable, '-m', 'jupyter', 'lab', *options]
        p = subprocess.Popen(command, cwd=folder, env=env, stdout=f, stderr=f)
    def address(): return re.findall(r'http://(?:localhost|127.0.0.1):\d+/', log.read_text())
    try: yield until(address, 120)[0] + 'lab/tree/label.ipynb?token=t&reset'
    finally:
        p.terminate()
        with suppress(subprocess.TimeoutExpired): p.wait(30)
        p.kill()

CELL = """
from sentiment_nb.labelling_page import label_texts
widget = label_texts('inbox.csv', 'labels.csv', labeller='Ann', guide={'negative': 'It is negative.'}, n_test=100)
widget
"""

@pytest.mark.slow
def test_hundred_texts_in_jupyterlab(browser, tmp_path):
    "Every key goes to the panel and none to the notebook, whose cell would be deleted by d d and turned by 1 or y"
    texts = {f'{text} {i}': label for i in range(12) for text,label in TEXTS.items()}
    write_texts(tmp_path/'inbox.csv', texts)
    with jupyter_lab(tmp_path, CELL) as url:
        page = browser.new_page(viewport={'width': 1300, 'height': 900})
        page.set_default_timeout(120_000)
        page.goto(url)
        notebook = 'jupyterapp.shell.currentWidget'
        page.wait_for_function(f"window.jupyterapp && {notebook}?.sessionContext?.session?.kernel?.status == 'idle'")
        page.locator('.jp-Cell .cm-content').click()
        page.keyboard.press('Shift+Enter')
        ann = Labeller(page)
        ann.panel.click()
        for key in ['d', 'd', 'x', 'y', 'm', 'Enter', '9', 'ArrowDown']: page.keyboard.press(key)
        ann.press('2')
        ann.press('Backspace')
        ann.page.wait_for_timeout(500)
        labelled = ann.label(texts, 100)
        cells = page.evaluate(f"[...{notebook}.content.model.cells].map(c => [c.type, c.sharedModel.getSource()])")
        assert cells[0]==['code', CELL] and len(cells)==2 and not ann.panel.locator('.text *').count()
        page.close()
    last = {row['text']: row['gold'] for row in read_labels(tmp_path/'labels.csv') if row['part']=='test'}
    assert len(labelled)==100 and all(last[text]==texts[text] for text in labelled)
