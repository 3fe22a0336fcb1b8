"Texts that a model will be tested on stay out of its training and validation, however they are written down; and sources of several domains."
import csv
import gzip
import html
import json
import os
import re
from itertools import product
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sentiment_nb.cleaning import dedup_key, letters_key, prepare_data
from sentiment_nb.data import data_record, load_prepared, load_texts, load_tweets

real = os.environ.get('SENTIMENT_NB_DATA')
has_real = pytest.mark.skipif(not real, reason='SENTIMENT_NB_DATA names the folder with the large data sets')
SIDES = {'good': 'positive', 'bad': 'negative'}
OWN = [(f'Film no. {i} was {word}, and nothing else', label) for i,(word,label) in product(range(40), SIDES.items())]
SEEN = ['FILM no 3 was <i>good</i> , and nothing else !', 'film no. 4 was bad, and nothing else http://t.co/a', 'elsewhere only']
LEFT_OUT = {OWN[6][0], OWN[9][0]}

def write_csv(name, rows, header=('text', 'label')):
    with open(name, 'w', encoding='utf-8', newline='') as f: csv.writer(f).writerows([header, *rows])
    return name

def write_jsonl(name, texts): Path(name).write_text('\n'.join(json.dumps({'id': 1, 'text': t}) for t in texts))
def write_parquet(name, texts): pq.write_table(pa.table({'id': [1]*len(texts), 'Review': texts}), name)
def write_text(name, texts): Path(name).write_text('\n'.join(texts) + '\n', encoding='utf-8')
def write_stars(name, texts): write_csv(name, [(i, t, i%5) for i,t in enumerate(texts)], ('id', 'content', 'stars'))
def write_tabs(name, texts): write_text(name, ['id\ttext', *(f'{i}\t{t}' for i,t in enumerate(texts))])
def write_packed(name, texts):
    with gzip.open(name, 'wt', encoding='utf-8') as f: f.write('\n'.join(['id;text', *(f'1;{t}' for t in texts)]))
def write_labelled(name, texts): write_csv(name, [(t, 'positive') for t in texts])
def write_lone(name, texts): write_csv(name, [(t,) for t in texts[1:]], texts[:1])

FORMS = [('a.csv', write_stars), ('a.csv', write_labelled), ('a.csv', write_lone), ('a.tsv', write_tabs),
    ('a.jsonl', write_jsonl), ('a.parquet', write_parquet), ('a.txt', write_text), ('a.csv.gz', write_packed)]

def texts_of(folder): return {split: d['text'][:] for split,d in load_prepared(folder).items()}

@pytest.mark.parametrize('name, write', FORMS, ids=[write.__name__ for _,write in FORMS])
def test_any_table_excludes(name, write, workdir):
    "Labels are not needed; the texts leave training, validation and a test that is drawn from the same rows"
    write(name, SEEN)
    record = prepare_data(write_csv('own.csv', OWN), 'out', exclude=name)
    left = set().union(*texts_of('out').values())
    assert left=={t for t,_ in OWN} - LEFT_OUT
    assert record['excluded']==2 and sum(sum(r.values()) for r in record['rows'].values())==len(OWN)-2

def test_validation_of_the_source_itself(workdir):
    "A validation split that came with the source loses them too and its test does not; a prepared folder excludes as well"
    prepare_data(write_csv('own.csv', OWN), 'own', sizes=(.3, .3))
    own = texts_of('own')
    seen = [own[split][0] for split in ('train', 'validation', 'test')]
    write_text('seen.txt', seen)
    record = prepare_data('own', 'again', exclude='seen.txt')
    again = texts_of('again')
    assert record['excluded']==2
    for split in ('train', 'validation'): assert set(again[split])==set(own[split]) - set(seen)
    assert again['test']==own['test']
    prepare_data(write_csv('few.csv', OWN[:40]), 'few')
    assert prepare_data('own.csv', 'rest', exclude='few')['excluded']==40

def test_first_sixty_letters(workdir):
    "A longer text is found by its beginning, a shorter one only by all of it"
    beginning = 'The plot of this film would have been thin for a film of a quarter'
    assert len(letters_key(beginning))<60==len(letters_key(f'{beginning} of an hour'))
    seen = [f'{beginning} of an hour, and then', 'It is good']
    write_text('seen.txt', seen)
    rows = [*OWN, (f'{beginning} of an hour.', 'negative'), (beginning, 'negative'), ('It is good enough', 'positive')]
    assert prepare_data(write_csv('own.csv', rows), 'out', exclude='seen.txt')['excluded']==1
    assert not any(t.endswith('an hour.') for split in texts_of('out').values() for t in split)

def test_other_scripts_are_not_confused(workdir):
    "Texts that share only their few Latin letters are not taken for one another"
    films = ['3D фильм очень хороший', '3D фильм ужасный', 'これは3D映画です', 'これは3Dゲームです']
    assert len({letters_key(t) for t in films})==len(films)

BAD = [('id,body\n1,Fine\n', 'a.csv', "expected one called 'text'"), ('text,review\n', 'a.csv', 'no rows'),
    ('', 'a.csv', 'is empty'), ('{"body": "Fine", "n": 1}\n', 'a.jsonl', "expected one called 'text'"),
    ('\n\n', 'a.txt', 'holds no text'), ('Fine', 'a.ods', 'save it as one of these'), (None, 'a.csv', 'does not exist'),
    ('{"text": ["Fine"], "n": 1}\n', 'a.jsonl', 'flatten it'), ('id,text\n1,Fine, really\n', 'a.csv', 'got 3'),
    ('no zip', 'a.csv.zip', 'zip')]

@pytest.mark.parametrize('content, name, part', BAD, ids=[f'{name} {part}' for _,name,part in BAD])
def test_bad_tables_are_refused(content, name, part, refuses, workdir):
    "One line that says what is wrong with the file, and names the option that it came by"
    if content is not None: Path(name).write_text(content)
    write_csv('own.csv', OWN)
    refuses(['prepare', 'own.csv', '--exclude', name, '--out', 'out'], name, part, '(--exclude)')

def test_nothing_left(refuses, cli, workdir):
    "A file that holds all of the source is refused; one that holds a part is counted in the printed line"
    write_csv('own.csv', OWN)
    refuses(['prepare', 'own.csv', '--exclude', 'own.csv', '--out', 'out'], 'every text of train stands in own.csv', '(--exclude)')
    write_text('seen.txt', SEEN)
    done = cli('prepare', 'own.csv', '--exclude', 'seen.txt', '--out', 'out')
    assert done.code==0 and ', 2 that stand in seen.txt\n' in done.out

def test_errors_of_the_source_name_its_own_options(refuses, workdir):
    "The excluded file is not blamed for the source"
    write_text('seen.txt', SEEN)
    write_csv('own.csv', OWN, ('body', 'label'))
    refuses(['prepare', 'own.csv', '--exclude', 'seen.txt', '--out', 'out'], '(--text-column)')

def bare_letters(text): return re.sub('[^a-z0-9]', '', html.unescape(html.unescape(text)).lower())

@has_real
@pytest.mark.parametrize('classes', [2, 3])
def test_no_airline_tweet_is_left(classes, workdir):
    "The embedded tweets contain the airline set, some with mangled emojis that the key of duplicates does not see"
    path = Path(real)/'airline'/'Tweets.csv'
    airline = load_texts(path)
    whole = {bare_letters(t) for t in airline}
    starts = {key[:60] for key in whole if len(key)>=60}
    def is_airline(text): return (key := bare_letters(text)) in whole or len(key)>=60 and key[:60] in starts

    record = prepare_data('tweets', 'out', classes, exclude=path)
    left = texts_of('out')
    assert [t for split in left.values() for t in split if is_airline(t)]==[]
    if classes==2: return
    assert len(airline)==14_640<=record['excluded']<14_700
    keys = {dedup_key(t) for t in airline}
    assert sum(is_airline(t) and dedup_key(t) not in keys for t in load_tweets()['text'])>600

# Sources of several domains

def write_domains(name='mixed.csv'):
    "Film and shop with both classes in unlike shares, a hotel without bad words, and three rows of a bank"
    counts = {('film', 'negative'): 60, ('film', 'positive'): 20, ('shop', 'negative'): 20, ('shop', 'positive'): 40,
        ('hotel', 'positive'): 30, ('bank', 'negative'): 3}
    rows = [(f'{domain} {i} {label}', label, domain) for (domain,label),n in counts.items() for i in range(n)]
    write_csv(name, rows, ('text', 'label', 'domain'))
    return counts

@pytest.mark.parametrize('seed', [0, 1, 42])
@pytest.mark.parametrize('format', ['parquet', 'csv'])
def test_each_domain_is_in_each_split(format, seed, workdir):
    "With its own share of each class, to a row; a class that one domain lacks, or has in three rows, is no error"
    counts = write_domains()
    record = prepare_data('mixed.csv', 'out', seed=seed, format=format)
    splits = {split: d.to_pandas().value_counts(['domain', 'label']) for split,d in load_prepared('out').items()}
    for split in ('validation', 'test'):
        for (domain,label),n in counts.items():
            if domain!='bank': assert abs(splits[split][domain, int(label=='positive')] - n/10)<=1
    by_domain = {split: n.groupby('domain').sum().to_dict() for split,n in splits.items()}
    assert record['domains']==by_domain and sum(d.get('bank', 0) for d in by_domain.values())==3
    assert data_record('out')['domains']==json.loads(Path('out/prepared.json').read_text())['domains']==by_domain

def test_many_small_domains(workdir):
    "A column of web addresses, each in one or two rows, is no error either"
    rows = [(t, label, f'site{i//2}.example') for i,(t,label) in enumerate(OWN)]
    record = prepare_data(write_csv('own.csv', rows, ('text', 'label', 'domain')), 'out')
    assert record['rows']['test']=={'negative': 4, 'positive': 4}
    assert sum(map(sum, (d.values() for d in record['domains'].values())))==len(OWN)

def test_without_domains(workdir):
    "The records of other sources have no such field"
    record = prepare_data(write_csv('own.csv', OWN), 'out')
    assert 'domains' not in record and 'domains' not in data_record('out')
