"Sources in the layouts in which they circulate: every row arrives, in its order, with its own label."
import csv
import gzip
import importlib.machinery
import io
import json
import os
import tarfile
import zipfile
from datetime import datetime
from importlib.resources import files
from itertools import product
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sentiment_nb.data import HELD_OUT, load_reviews, load_source

real = os.environ.get('SENTIMENT_NB_DATA')
has_real = pytest.mark.skipif(not real, reason='SENTIMENT_NB_DATA names the folder with the large data sets')
REVIEWS = ['Great.<br /><br />"Quite" a film, she said', 'Zu lang, zu laut – schade', 'a\nb', "it's 007",
    '=1+1; really|odd\there', 'naïve café 5 €'] * 3
SIGNS = ['positive', 'negative', 'negative', 'positive', 'negative', 'positive'] * 3

def seen(ds): return ds['text'][:], ds.features['label'].int2str(ds['label'][:])

def csv_bytes(rows, encoding='utf-8', **kw):
    f = io.StringIO(newline='')
    csv.writer(f, **kw).writerows(rows)
    return f.getvalue().encode(encoding)

@pytest.fixture(autouse=True)
def _place(workdir): "Every test in its own folder"

# IMDb

RATINGS = {'neg': 2, 'pos': 9}

def acl(n=12):
    files = {}
    for s,l,i in product(('train', 'test'), RATINGS, range(n)):
        files[f'{s}/{l}/{i}_{RATINGS[l]}.txt'] = f'{s} {l} review {i}, naïve<br />'
    return files

def write_acl(files):
    extra = ('README', 'imdb.vocab', 'train/unsup/0_0.txt', 'train/urls_pos.txt', 'train/labeledBow.feat')
    for name,text in [*files.items(), *((n, 'not a labelled review') for n in extra)]:
        path = Path('aclImdb')/name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())

def tar_acl():
    with tarfile.open('aclImdb_v1.tar.gz', 'w:gz') as t: t.add('aclImdb')
    return [m.removeprefix('aclImdb/') for m in tarfile.open('aclImdb_v1.tar.gz').getnames()]

def check_acl(ds, files, order):
    assert set(ds)=={'train', 'test'}
    for s in ds:
        names = [n for n in order if n in files and n.startswith(f'{s}/')]
        labels = ['negative' if '/neg/' in n else 'positive' for n in names]
        assert seen(ds[s])==([files[n] for n in names], labels)
        assert [f'{i}_{r}' for i,r in zip(ds[s]['id'], ds[s]['rating'])]==[Path(n).stem for n in names]

@pytest.mark.parametrize('how', ['folder', 'archive', 'found folder', 'found archive'])
def test_acl(how, monkeypatch):
    "The authors' folder and archive, given or found by name; what is no labelled review is left out"
    files = acl()
    write_acl(files)
    order = tar_acl() if 'archive' in how else sorted(files)
    if 'archive' in how: Path('aclImdb').rename('elsewhere')
    if 'found' in how: monkeypatch.setenv('SENTIMENT_NB_DATA', '.')
    source = {'folder': 'aclImdb', 'archive': 'aclImdb_v1.tar.gz'}.get(how, 'imdb')
    check_acl(load_source(source), files, order)

def test_acl_folder_with_another_name():
    "The layout counts, not the name"
    write_acl(acl())
    Path('aclImdb').rename('reviews')
    assert {s: len(d) for s,d in load_source('reviews').items()}=={'train': 24, 'test': 24}

@pytest.mark.parametrize('how', ['IMDB Dataset.csv', 'found', 'zip'])
def test_kaggle(how, monkeypatch):
    "`review,sentiment`, with commas, quotes and line ends inside the texts"
    blob = csv_bytes([('review', 'sentiment'), *zip(REVIEWS, SIGNS)])
    if how=='zip':
        with zipfile.ZipFile('archive.zip', 'w') as z: z.writestr('IMDB Dataset.csv', blob)
    else: Path('IMDB Dataset.csv').write_bytes(blob)
    if how=='found': monkeypatch.setenv('SENTIMENT_NB_DATA', '.')
    ds = load_source({'found': 'imdb', 'zip': 'archive.zip'}.get(how, how))
    assert set(ds)=={'train'} and seen(ds['train'])==(REVIEWS, SIGNS)

@has_real
def test_real_imdb(monkeypatch):
    "All 50,000 reviews as the Parquet files have them; a part of them also by way of the authors' layout"
    monkeypatch.setenv('SENTIMENT_NB_DATA', real)
    ds = load_source('imdb')
    files = {}
    for s in ('train', 'test'):
        rows = pq.read_table(Path(real)/'imdb'/f'{s}.parquet').to_pylist()
        labels = ['negative' if r['label']==0 else 'positive' for r in rows]
        assert seen(ds[s])==([r['text'] for r in rows], labels) and len(rows)==25_000
        for l,d in ((0, 'neg'), (1, 'pos')):
            first = [r for r in rows if r['label']==l][:150]
            files |= {f'{s}/{d}/{r["id"]}_{r["rating"]}.txt': r['text'] for r in first}
    write_acl(files)
    check_acl(load_source('aclImdb'), files, sorted(files))
    order = tar_acl()
    check_acl(load_source('aclImdb_v1.tar.gz'), files, order)

# Sentiment140

STAMP = 'Mon Apr 06 22:19:45 PDT 2009'
BUMMER = '@switchfoot http://twitpic.com/2y1zl - Awww, that\'s a "bummer".  ;D'
TWEETS = [
    ('0', '1467810369', STAMP, 'NO_QUERY', '_TheSpecialOne_', BUMMER),
    ('4', '2193602129', 'Tue Jun 16 08:40:50 PDT 2009', 'NO_QUERY', 'RyanTrevMorris', 'café ½ &amp; happy '),
    ('0', '1467810672', STAMP, 'NO_QUERY', 'x', ' is upset, ')] * 4
MANUAL = [
    ('4', '3', 'Mon May 11 03:17:40 UTC 2009', 'kindle2', 'tpryan', 'I loooooooovvvvvveee it'),
    ('2', '4', 'Mon May 11 03:18:03 UTC 2009', 'aig', 'vcu451', 'Reading it'),
    ('0', '5', 'Mon May 11 03:18:54 UTC 2009', 'jquery', 'chadfu', 'Awful')]
TRAIN = 'training.1600000.processed.noemoticon.csv'
TEST = 'testdata.manual.2009.06.14.csv'
WORDS = {'0': 'negative', '2': 'neutral', '4': 'positive'}

def s140(rows): return csv_bytes(rows, 'iso-8859-1', quoting=csv.QUOTE_ALL)

def check_s140(ds, rows):
    assert seen(ds)==([r[5] for r in rows], [WORDS[r[0]] for r in rows])
    assert (ds['user'][:], [str(i) for i in ds['id']])==([r[4] for r in rows], [r[1] for r in rows])
    def date(s): return datetime.strptime(s[:20]+s[24:], '%a %b %d %H:%M:%S %Y')
    assert ds['date'][:]==[date(r[2]) for r in rows]

@pytest.mark.parametrize('how', ['file', 'folder', 'zip', 'found folder', 'found zip', 'found file', 'zip with another name'])
def test_sentiment140(how, monkeypatch):
    "Six columns without a header, ISO-8859-1, plain or zipped, alone or with the manual test set"
    Path('sentiment140').mkdir()
    for n,rows in ((TRAIN, TWEETS), (TEST, MANUAL)): Path('sentiment140', n).write_bytes(s140(rows))
    if 'zip' in how:
        archive = 'archive.zip' if 'another' in how else 'trainingandtestdata.zip'
        with zipfile.ZipFile(archive, 'w') as z:
            for n in (TRAIN, TEST): z.write(f'sentiment140/{n}', n)
    if how=='found file': Path('sentiment140', TRAIN).rename(TRAIN)
    if how.startswith('found') and how!='found folder': Path('sentiment140').rename('elsewhere')
    if how.startswith('found'): monkeypatch.setenv('SENTIMENT_NB_DATA', '.')
    paths = {'file': f'sentiment140/{TRAIN}', 'folder': './sentiment140', 'zip': 'trainingandtestdata.zip',
        'zip with another name': 'archive.zip'}
    ds = load_source(paths.get(how, 'sentiment140'))
    check_s140(ds['train'], TWEETS)
    assert ('manual' in ds)==('file' not in how)
    if 'manual' in ds: check_s140(ds['manual'], MANUAL)

def test_sentiment140_without_neutral():
    "Two classes leave out the manual set's neutral rows"
    Path(TRAIN).write_bytes(s140(TWEETS))
    Path(TEST).write_bytes(s140(MANUAL))
    ds = load_source('.', classes=2)
    assert seen(ds['manual'])==(['I loooooooovvvvvveee it', 'Awful'], ['positive', 'negative'])
    assert ds['manual'].features==ds['train'].features

@has_real
def test_real_sentiment140(monkeypatch):
    "Every row as Python's own reader has it, and again out of a zip"
    monkeypatch.setenv('SENTIMENT_NB_DATA', real)
    ds = load_source('sentiment140')
    folder = Path(real)/'sentiment140'
    def read_rows(name):
        text = (folder/name).read_bytes().decode('iso-8859-1')
        return list(csv.reader(io.StringIO(text, newline='')))
    read = {'train': read_rows('training.sample.csv'), 'manual': read_rows(TEST)}
    assert len(read['manual'])==498
    for s in read: check_s140(ds[s], read[s])
    with zipfile.ZipFile('archive.zip', 'w', zipfile.ZIP_DEFLATED) as z:
        for f in folder.glob('*.csv'): z.write(f, f.name)
    zipped = load_source('archive.zip')
    assert all(seen(zipped[s])==seen(ds[s]) for s in ds)

# Tables

def jsonl(rows): return '\n'.join(json.dumps({'text': t, 'label': l}) for t,l in rows).encode()
def parquet(rows):
    f = io.BytesIO()
    pq.write_table(pa.table(dict(zip(('text', 'label'), map(list, zip(*rows))))), f)
    return f.getvalue()
def sheet(**kw): return lambda rows: csv_bytes([('text', 'label'), *rows], **kw)

TABLES = [
    ('csv', sheet()),
    ('tsv', sheet(delimiter='\t')),
    ('jsonl', jsonl),
    ('ndjson', jsonl),
    ('parquet', parquet),
    ('txt', sheet(delimiter='|')),
    ('csv', sheet(delimiter=';')),
    ('csv', sheet(encoding='utf-16')),
    ('csv', sheet(encoding='utf-8-sig')),
    ('csv', sheet(quoting=csv.QUOTE_ALL, encoding='utf-8-sig'))]

@pytest.mark.parametrize('packed', ['', '.gz', '.zip'])
@pytest.mark.parametrize('end, write', TABLES, ids=[f'{e}{i}' for i,(e,_) in enumerate(TABLES)])
def test_tables(end, write, packed):
    "Each kind of table, plain and packed"
    if end=='parquet' and packed: pytest.skip('Parquet is packed in itself')
    blob = write(zip(REVIEWS, SIGNS))
    path = Path(f'a.{end}{packed}')
    if packed=='.zip':
        with zipfile.ZipFile(path, 'w') as z: z.writestr(f'a.{end}', blob)
    else: path.write_bytes(gzip.compress(blob) if packed else blob)
    assert seen(load_source(path)['train'])==(REVIEWS, SIGNS)

@pytest.mark.parametrize('spelt', [('neg', 'pos'), ('Negative', 'POSITIVE '), ('0', '1'), ('0', '4'), ('0.0', '1.0')])
def test_usual_labels(spelt):
    "Spellings that need no mapping"
    rows = [(t, spelt[l=='positive']) for t,l in zip(REVIEWS, SIGNS)]
    Path('a.csv').write_bytes(sheet()(rows))
    assert seen(load_source('a.csv')['train'])==(REVIEWS, SIGNS)

def test_mapped_labels_and_named_columns():
    "Stars mapped to classes; the order of the classes is ours; other columns stay"
    stars = [str(i%5+1) for i in range(len(REVIEWS))]
    Path('a.csv').write_bytes(csv_bytes([('n', 'stars', 'body'), *zip(map(str, range(99)), stars, REVIEWS)]))
    words = dict(zip('12345', ['negative', 'negative', 'neutral', 'positive', 'positive']))
    ds = load_source('a.csv', text_column='body', label_column='stars', labels=words)['train']
    assert seen(ds)==(REVIEWS, [words[s] for s in stars]) and 'n' in ds.column_names
    assert ds.features['label'].names==['negative', 'neutral', 'positive']

@pytest.mark.parametrize('kind', [pa.dictionary(pa.int32(), pa.string()), pa.large_string(), pa.string_view()], ids=str)
def test_parquet_string_types(kind):
    "Categories and large strings, as pandas and polars write them"
    pq.write_table(pa.table({'text': pa.array(REVIEWS).cast(kind), 'label': pa.array(SIGNS).cast(kind)}), 'a.parquet')
    assert seen(load_source('a.parquet')['train'])==(REVIEWS, SIGNS)

def test_changed_file_is_read_again():
    "The cached form of a file is not mistaken for the file"
    Path('a.csv').write_bytes(sheet()(zip(REVIEWS, SIGNS)))
    load_source('a.csv')
    Path('a.csv').write_bytes(sheet()(zip(REVIEWS[::-1], SIGNS[::-1])))
    assert seen(load_source('a.csv')['train'])==(REVIEWS[::-1], SIGNS[::-1])

@has_real
@pytest.mark.parametrize('name', ['dev.tsv', 'glue_dev.tsv'])
def test_real_sst2(name):
    "A TSV whose quotation marks are plain characters loses no row, or is refused"
    from sentiment_nb.core import InputError
    path = Path(real)/'sst2'/name
    with open(path, encoding='utf-8', newline='') as f:
        rows = list(csv.reader(f, delimiter='\t', quoting=csv.QUOTE_NONE))
    head = [c.lower() for c in rows[0]]
    try: ds = load_source(path)['train']
    except InputError: return
    column = head.index('sentence' if 'sentence' in head else 'text')
    assert ds['text'][:]==[r[column] for r in rows[1:]]

# The films of the general model

@has_real
def test_no_public_test_set_is_among_the_reviews():
    "The list of rows to leave out is what the real files give, and no text of theirs is left, by letters and digits"
    path = Path(__file__).parents[1]/'benchmarks'/'held_out.py'
    held_out = importlib.machinery.SourceFileLoader('held_out', str(path)).load_module()
    hashes = held_out.held_out_hashes(Path(real))
    assert hashes==files('sentiment_nb').joinpath(HELD_OUT).read_text(encoding='ascii').split()
    keys = [held_out.letters(t) for t in held_out.test_texts(Path(real))]
    beginnings = {k[:held_out.FIRST] for k in keys}
    left = [held_out.letters(t)[:held_out.FIRST] for t in load_reviews()['text'][:]]
    assert len(left)==30_173
    assert not beginnings & set(left)
