"The report by the command line: whole, without a request, markup of users escaped; its notebook runs; odd tables"
import json
import re

import nbformat
import numpy as np
import pandas as pd
import pytest
from nbclient import NotebookClient
from pypdf import PdfReader

from sentiment_nb.cli import main
from sentiment_nb.training import load_quickstart

N = 400
HOSTILE = '<script>alert("x")</script><img src=http://evil.example/x onerror=alert(1)> $awful$ service, says @ana_1985 &amp; co'

def scored_table(n=N, **columns):
    "Scored texts, a third of them negative"
    rng = np.random.default_rng(0)
    negative = rng.random(n) < .35
    complaints = ('they lost my bag, awful', 'terrible phone line, on hold for hours', 'I hate the price, a rip off')
    texts = [f'{complaints[i%3]} {i}' if bad else f'great crew, thank you {i}' for i, bad in enumerate(negative)]
    frame = pd.DataFrame({'text': texts, **columns})
    frame['prob_negative'] = np.where(negative, .85, .1)
    frame['prob_positive'] = 1 - frame.prob_negative
    return frame, negative

@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    "A table with dates in three formats, some missing, no text in February, time zones, hostile texts and names; and labels"
    dates = ['2024-01-05', '3/29/2024 08:15', 'Fri Mar 15 23:00:00 -0800 2024', '2024-04-01T00:30:00+09:00', '']
    dates = np.array(dates, object)
    products = np.array(['tea', '<b>mug</b>', 'pot @bob'], object)
    frame, negative = scored_table(created=dates[np.arange(N)%5], product=products[np.arange(N)%3])
    frame.loc[np.flatnonzero(negative)[:5], 'text'] = HOSTILE
    frame.loc[0, 'product'] = 'only once'
    folder = tmp_path_factory.mktemp('report')
    frame.to_csv(folder/'scored.csv', index=False)
    rows = np.random.default_rng(1).choice(N, 120, replace=False)
    gold = np.where(negative[rows], 'negative', 'positive')
    pd.DataFrame({'row': rows+1, 'gold': gold, 'chance': 120/N}).to_csv(folder/'labelled.csv', index=False)
    return folder

def run(capsys, *words, model=True):
    "Exit code, printed and error lines"
    with_model = ['--model', str(load_quickstart().linear), '--encoder', 'words'] if model else []
    code = main(['report', *map(str, words), *with_model])
    printed = capsys.readouterr()
    assert 'Traceback' not in printed.err
    return code, printed.out, printed.err

def text_of(page): return re.sub('<[^>]*>', ' ', re.sub('(?s)<style>.*?</style>', '', page))

def test_report_and_notebook(folder, capsys):
    groups = '--by product --date created --every month --k 3'.split()
    labels = ('--labelled', folder/'labelled.csv')
    code, out, _ = run(capsys, folder/'scored.csv', *labels, *groups, '--out', folder/'report')
    assert code == 0 and '120 texts labelled' in out
    page = (folder/'report'/'report.html').read_text(encoding='utf-8')
    tags = ' '.join(re.findall('<[^>]*>', page))
    assert not re.search(r'<script|<img|<link|<b>|\son\w+=|(src|href)="?http|url\((?!#)', tags)
    assert '@ana' not in page and '@bob' not in page and '&lt;b&gt;mug' in page and "default-src 'none'" in page
    shown = text_of(page)
    assert 'no created; they count for all texts only' in shown and 'How it was measured' in shown and 'bag' in shown
    assert page.count('<svg') == 2 and 'cause' not in shown.replace('never what causes it', '')
    notebook = nbformat.read(folder/'report'/'report.ipynb', as_version=4)
    nbformat.validate(notebook)
    NotebookClient(notebook, timeout=300, resources={'metadata': {'path': str(folder/'report')}}).execute()
    assert (folder/'report'/'report.html').read_text(encoding='utf-8') == page # the same answers, byte for byte
    assert run(capsys, folder/'scored.csv', '--out', folder, model=False)[0] == 2 # not over other files

@pytest.mark.parametrize('case', ['one group', 'all negative', 'no negatives', 'no dates at all', 'one text'])
def test_odd_tables(folder, capsys, case):
    frame, negative = scored_table(60, product='tea', created='2024-01-05')
    if case == 'all negative': frame = frame[negative]
    if case == 'no negatives': frame = frame[~negative]
    if case == 'no dates at all': frame['created'] = ''
    if case == 'one text': frame = frame[:1]
    frame.to_csv(folder/'odd.csv', index=False)
    code, out, err = run(capsys, folder/'odd.csv', '--by', 'product', '--date', 'created', '--out', folder/'odd')
    assert code == 0 and 'written to' in out, err
    page = (folder/'odd'/'report.html').read_text(encoding='utf-8')
    assert 'biased' in text_of(page) and 'nan' not in text_of(page).lower()
    if case == 'no negatives': assert 'nothing to group' in out

@pytest.mark.parametrize('words, message', [
    ('--by nothing', "no column 'nothing'"), ('--label angry', 'expected negative, positive'),
    ('--date product', 'expected a date'), ('--date created --every hour', 'expected day, week, month'), ('--labelled nowhere.csv', 'nowhere.csv'), ('--aspects x', 'a colon')])
def test_wrong_options_are_said_in_a_line(folder, capsys, words, message):
    code, _, err = run(capsys, folder/'scored.csv', *words.split(), '--out', folder/'wrong')
    assert code == 2 and message in err and len(err.strip().splitlines()) == 1
    assert not (folder/'wrong').exists()

def test_without_a_model(folder, capsys, monkeypatch, tmp_path):
    "Shares are told all the same, and why there are no themes"
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv('SENTIMENT_NB_MODEL', raising=False)
    code, out, _ = run(capsys, folder/'scored.csv', '--labelled', folder/'labelled.csv', '--out', 'page', model=False)
    assert code == 0 and 'No themes: there is no model folder' in out
    assert json.loads((tmp_path/'page'/'report.ipynb').read_text(encoding='utf-8'))['nbformat'] == 4

@pytest.mark.slow
def test_print_to_pdf(folder, capsys, browser, tmp_path):
    "On A4, asked for from a dark desktop: what is folded on the screen is open, black on white, and no line is cut at the edge"
    groups = '--by product --date created --every month --k 3'.split()
    labels = ('--labelled', folder/'labelled.csv')
    assert run(capsys, folder/'scored.csv', *labels, *groups, '--out', folder/'printed')[0] == 0
    page = browser.new_page(viewport={'width': 1200, 'height': 900}, color_scheme='dark')
    page.goto((folder/'printed'/'report.html').as_uri())
    dark = page.evaluate('getComputedStyle(document.body).backgroundColor')
    quote = page.locator('.theme details blockquote').first
    assert not quote.is_visible()
    page.emulate_media(media='print')
    assert quote.is_visible()
    assert page.evaluate('getComputedStyle(document.body).backgroundColor') == 'rgb(255, 255, 255)' != dark
    page.set_viewport_size({'width': 672, 'height': 1000}) # 210 mm less two margins of 16 mm
    assert page.evaluate('document.documentElement.scrollWidth') <= 672
    page.pdf(path=tmp_path/'report.pdf', format='A4', prefer_css_page_size=True)
    page.close()
    sheets = PdfReader(tmp_path/'report.pdf').pages
    for s in sheets: np.testing.assert_allclose(s.mediabox[2:], (595, 842), atol=2) # points; Chromium rounds up to its pixels
    texts = [s.extract_text() for s in sheets]
    printed = ' '.join(' '.join(texts).split())
    headings = ('In short', 'Since when', 'By product', 'About what', 'How it was measured')
    assert all(words in printed for words in (*headings, 'counted texts labelled'))
    quotes = re.findall('<blockquote dir="auto">(.*?) <span', (folder/'printed'/'report.html').read_text(encoding='utf-8'))
    assert printed.count('row ') >= len(quotes) > 6 and all(len(t.split()) > 10 for t in texts)
