"The docs site as a reader meets it: built from the notebooks and driven in a real browser."
import re
import sys
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from execnb.nbio import read_nb
from execnb.shell import CaptureShell

root = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(root/'docs'))
DESKTOP,PHONE = {'width': 1280, 'height': 900}, {'width': 390, 'height': 844}

def markdown(outputs):
    data = [o.get('data', {}) for o in outputs or []]
    return [''.join(d['text/markdown']) for d in data if 'text/markdown' in d]

def test_tables_of_results_are_what_the_files_say(monkeypatch):
    "A stored table is the one that today's files give"
    monkeypatch.chdir(root/'nbs')
    cells = [c for c in read_nb('results.ipynb').cells if c.cell_type=='code' and 'nbdev_export()' not in c.source]
    shell = CaptureShell()
    fresh = [markdown(shell.run(c.source)) for c in cells]
    assert not shell.exc and sum(map(len, fresh))>5
    assert fresh == [markdown(c.outputs) for c in cells]

class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_): pass

@pytest.fixture(scope='module')
def site(tmp_path_factory):
    "The built site, served: its address, its folder, its pages, what is broken, and how long it took"
    import build
    folder,begun = tmp_path_factory.mktemp('site')/'_docs', time.monotonic()
    pages,broken = build.build(folder)
    took = time.monotonic() - begun
    with ThreadingHTTPServer(('127.0.0.1', 0), partial(Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f'http://127.0.0.1:{server.server_port}', folder, sorted(p.out.name for p in pages.values()), broken, took
        server.shutdown()

@pytest.fixture(scope='module')
def opened(site, browser):
    "Every page, opened in a fresh browser of a size and a colour scheme; what went wrong is kept"
    contexts = []
    def open_all(size, scheme='light', scale=1):
        url,_,pages,*_ = site
        context = browser.new_context(viewport=size, color_scheme=scheme, device_scale_factor=scale)
        contexts.append(context)
        for name in pages:
            page,wrong = context.new_page(), []
            page.on('console', lambda m, wrong=wrong: wrong.append(m.text) if m.type=='error' else None)
            page.on('pageerror', lambda e, wrong=wrong: wrong.append(str(e)))
            page.on('requestfailed', lambda r, wrong=wrong: wrong.append(r.url))
            page.on('response', lambda r, wrong=wrong: wrong.append(f'{r.status} {r.url}') if r.status>=400 else None)
            page.goto(f'{url}/{name}', wait_until='load')
            yield name, page, wrong
            page.close()
    yield open_all
    for c in contexts: c.close()

slow = pytest.mark.slow # the build loads every library that the chapters import

@slow
def test_every_notebook_is_a_page_and_no_link_is_broken(site):
    _,folder,pages,broken,took = site
    notebooks = [p for p in (root/'nbs').iterdir() if p.suffix in ('.ipynb', '.qmd')]
    assert len(pages)==len(notebooks) and not broken, broken
    assert took<180, f'{took:.0f} s' # a machine that does nothing else takes a third of a minute

@slow
def test_links_and_anchors_lead_somewhere(opened, site):
    anchors = {}
    links = []
    for name,page,_ in opened(DESKTOP):
        anchors[name] = set(page.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)"))
        links += [(name, h) for h in page.evaluate("[...document.querySelectorAll('a[href]')].map(a => a.href)")]
    lost = []
    for name,href in links:
        path,_,anchor = href.partition('#')
        if not path.startswith(site[0]): continue
        target = path.removeprefix(site[0]).lstrip('/') or 'index.html'
        if target not in anchors: lost += [(name, href)] if not (site[1]/target).is_file() else []
        elif anchor and anchor not in anchors[target]: lost.append((name, href))
    assert len(links)>1000 and not lost

@slow
@pytest.mark.parametrize('size', [DESKTOP, PHONE], ids=['desktop', 'phone'])
@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_pages_load_and_read_well(opened, size, scheme):
    "No error, no request that failed, nowhere else asked for anything, no markup left raw, nothing wider than the screen"
    for name,page,wrong in opened(size, scheme):
        assert not wrong, (name, wrong)
        hosts = page.evaluate("performance.getEntriesByType('resource').map(e => new URL(e.name).hostname).filter(h => h && h!='127.0.0.1')")
        assert not hosts, (name, hosts)
        text = page.evaluate("(() => { const m = document.querySelector('main').cloneNode(true); m.querySelectorAll('pre, code, style, script').forEach(e => e.remove()); return m.textContent })()")
        raw = re.findall(r'@(?:fig|tbl|sec)-\w+|:::|\\\(|\\\[|^---$|output-file|\]\((?:https?:|#|[\w/]+\.(?:html|ipynb))|\*\*\w', text, re.M)
        assert len(text)>100 and not raw, (name, raw)
        assert 'github.io' not in page.inner_text('main'), name
        assert page.evaluate('document.documentElement.scrollWidth')<=size['width'], name
        dark = page.evaluate("(() => { const [r,g,b] = getComputedStyle(document.body).backgroundColor.match(/\\d+/g); return r*1 + g*1 + b*1 < 380 })()")
        assert dark==(scheme=='dark'), name

@slow
@pytest.mark.parametrize('size', [DESKTOP, PHONE], ids=['desktop', 'phone'])
def test_figures_are_sharp_and_fit(opened, size):
    "Twice as many dots as a screen of double density shows, and no wider than the text"
    count,blurred,wide = 0, [], []
    for name,page,_ in opened(size, scale=2):
        for shown,dots,text in page.evaluate("""[...document.querySelectorAll('main img[src^="data:image/png"]')].filter(i => !i.closest('.cards')).map(i => [i.clientWidth, i.naturalWidth, document.querySelector('main').clientWidth])"""):
            count += 1
            if dots<1.9*shown: blurred.append((name, shown, dots))
            if shown>text: wide.append((name, shown, text))
    assert count>15 and not wide, wide
    assert not blurred, blurred

@slow
@pytest.mark.parametrize('words', ['Predictor', 'temperature', 'confusion matrix'])
def test_search_finds(site, browser, words):
    "Typed into the box, the first answers lead to a section that holds the words"
    page = browser.new_page(viewport=DESKTOP)
    page.goto(site[0])
    page.fill('#quarto-search input', words)
    page.wait_for_selector('.smalldocs-search-results a')
    page.click('.smalldocs-search-results a')
    page.wait_for_load_state()
    assert page.url!=site[0] + '/' and words.lower() in page.inner_text('main').lower()
    page.close()

@slow
def test_a_chapter_opens_elsewhere_and_dark_mode_stays(site, browser):
    "Source, Colab and JupyterLab, by the address in settings.ini; a click makes the site dark on the next page too"
    context = browser.new_context(viewport=DESKTOP, color_scheme='light')
    page = context.new_page()
    page.goto(f'{site[0]}/cleaning.html')
    hrefs = page.evaluate("[...document.querySelectorAll('.toc-actions a')].map(a => a.href)")
    ini = (root/'settings.ini').read_text(encoding='utf-8')
    repo = '/'.join(re.search(rf'^{k} = (.+)$', ini, re.M)[1] for k in ('user', 'repo'))
    for want in (f'https://github.com/{repo}/blob/main/nbs/05_cleaning.ipynb', f'https://colab.research.google.com/github/{repo}/blob/main/nbs/05_cleaning.ipynb', 'http://localhost:8888/lab/tree/05_cleaning.ipynb'):
        assert want in hrefs, hrefs
    page.click('.quarto-color-scheme-toggle')
    page.goto(f'{site[0]}/core.html')
    assert page.evaluate("document.documentElement.classList.contains('quarto-dark')")
    context.close()
