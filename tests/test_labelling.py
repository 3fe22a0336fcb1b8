"Labels of one's own, from the label file to the four commands that read it: nothing lost, nothing counted twice, the test locked."
import json
import random
import time

import numpy as np
import pandas as pd
import pytest

from sentiment_nb.core import InputError
from sentiment_nb.data import load_prepared, load_reviews
from sentiment_nb.label_file import Label, LabelFile
from sentiment_nb.tables import SKIPPED, UNDONE, read_agreed, read_table, write_rows

HOSTILE = ['<script>alert(1)</script><b>fine</b>', 'שלום עולם, תודה', 'long ' * 20_000, '=HYPERLINK("http://example.com")',
    'two\nlines, "quoted"\r\nand a comma', 'a lone\rreturn', 'zero\0byte', '\u202eright to left override', '(undone)', '  spaces  ']

@pytest.fixture(scope='module')
def films():
    "Sentences about films, with their labels"
    ds = load_reviews()
    frame = pd.DataFrame({'text': ds['text'][:], 'label': ds['label'][:], 'domain': ds['domain'][:]})
    sentences = frame[frame.domain=='film sentences'].drop_duplicates('text')
    frame = sentences.sample(400, random_state=2).reset_index(drop=True)
    return pd.DataFrame({'text': frame.text, 'truth': np.where(frame.label, 'positive', 'negative')})

def answer_all(session, truth):
    "Label a phase rightly"
    while item := session.next_text(): session.give(truth[item.text], item)

def test_four_commands_read_one_file(films, tiny, cli, workdir):
    "From a scored table to labels, and from these to training data, a model, a report and a share; the test is the same in all"
    from sentiment_nb.labelling import Labelling
    copies = films.iloc[[3, 3, 5]] # labelled once
    table = pd.concat([films, copies, pd.DataFrame({'text': ['', '  ']})], ignore_index=True)
    table['truth'] = table.truth.fillna('')
    table[['text']].assign(id=range(len(table))).to_csv('texts.csv', index=False)
    assert cli('predict', '--model', tiny.model, '--file', 'texts.csv', '--out', 'scored.csv').code==0
    truth = dict(zip(films.text, films.truth))
    session = Labelling('scored.csv', 'labels.csv', labeller='Ann', model=tiny.model)
    assert (session.n_texts, session.n_empty, session.n_copies)==(403, 2, 3)
    assert session.file.columns[7:]==['id'] # no column that tells what the model says
    answer_all(session, truth)
    for _ in range(3):
        session.next_batch()
        answer_all(session, truth)
    session.give('negative', item) if (item := session.next_text()) else None
    agreed = {line.row: line for line in session.file.agreed()}
    test = {row: line for row,line in agreed.items() if line.part=='test'}
    assert len(test)==60 and len(agreed)==120 and len(session.file.lines())>=130
    assert all(table.text[row-1]==line.text and table.truth[row-1]==line.gold for row,line in agreed.items())
    # prepare: the locked test is the test split, and nothing of it is learned
    assert cli('prepare', 'labels.csv', '--out', 'data').code==0
    splits = load_prepared('data')
    assert sorted(splits['test']['text'][:])==sorted(line.text for line in test.values())
    learned = [*splits['train']['text'][:], *splits['validation']['text'][:]]
    assert sorted(learned)==sorted(line.text for line in agreed.values() if line.part=='train')
    assert not any(splits['test']['in_train'][:])
    # adapt and evaluate: the same sixty
    done = cli('adapt', tiny.model, 'labels.csv', '--out', 'mine', '--candidates', 'probe', '--json')
    assert done.code==0, done.err
    report = json.loads(done.out)
    assert report['n']==60 and report['test']['n']==60 and report['dropped']['in_test']==0
    metrics = json.loads(cli('evaluate', 'mine', 'labels.csv', '--out', 'report', '--json').out)
    assert metrics['n']==60 and metrics['accuracy']['value']==pytest.approx(report['test']['accuracy']['value'])
    # share: the sixty that chance drew, of the table's rows
    done = cli('share', 'scored.csv', '--labelled', 'labels.csv', '--json')
    assert done.code==0 and '60 labels left out: chance did not draw their texts' in done.err
    share = next(row for row in json.loads(done.out)['shares'] if row['label']=='negative')
    assert share['labelled']==60 and share['n']==403
    assert share['low'] <= (table.truth[:403]=='negative').mean() <= share['high']
    assert session.shares()[0]['share']==pytest.approx(share['share'])

def test_labels_of_ones_own_are_mapped_in_each_command(films, tiny, cli, workdir):
    "Five stars; 3 is left out; one that nobody could tell, and a skipped one, are in no count"
    from sentiment_nb.labelling import Labelling
    films[['text']].to_csv('texts.csv', index=False)
    mapping = {'1': 'negative', '2': 'negative', '3': '', '4': 'positive', '5': 'positive'}
    stars = {'negative': '12', 'positive': '45'}
    truth = dict(zip(films.text, films.truth))
    session = Labelling('texts.csv', 'labels.csv', labels=[*mapping], n_test=30, n_repeats=0, model=tiny.model)
    with pytest.raises(InputError, match='nobody has said yet'): session.learn()
    session.cannot_tell()
    session.give('3')
    for i in range(58):
        if not session.next_text(): session.next_batch()
        item = session.next_text()
        session.give(stars[truth[item.text]][i%2], item)
    session.skip()
    session.set_mapping(mapping)
    assert Labelling(out='labels.csv').mapping==mapping
    option = '1=negative,2=negative,3=,4=positive,5=positive'
    done = cli('prepare', 'labels.csv', '--out', 'data', '--labels', option)
    assert done.code==0 and '2 texts without a label' in done.err, done.err
    assert load_prepared('data').num_rows=={'train': 27, 'validation': 3, 'test': 28}
    report = session.finish('mine', candidates=('probe',))
    assert (report['n'], report['test']['n'])==(30, 28)
    assert cli('predict', '--model', tiny.model, '--file', 'texts.csv', '--out', 'scored.csv').code==0
    done = cli('share', 'scored.csv', '--labelled', 'labels.csv', '--labels', option, '--json')
    assert done.code==0, done.err
    assert json.loads(done.out)['shares'][0]['labelled']==28
    done = cli('adapt', tiny.model, 'labels.csv', '--out', 'other')
    assert done.code==2 and '--labels' in done.err

def test_hostile_texts_come_back_as_they_are(tiny, cli, workdir):
    "Markup, right to left, 100,000 characters, breaks, a formula: shown as plain text, labelled, and read by all"
    from sentiment_nb.labelling import Labelling
    texts = [*HOSTILE, '', *(f'text {i}' for i in range(90))]
    write_rows('texts.jsonl', ['text'], [{'text': t} for t in texts], None)
    session = Labelling('texts.jsonl', 'labels.csv', n_test=20, n_repeats=5, model=tiny.model)
    shown = {}
    while True:
        item = session.next_text() or (session.next_batch() and session.next_text())
        if not item: break
        shown[item.row] = item.text
        session.give(session.labels[item.row%3], item)
    assert session.is_over and shown=={i: t for i,t in enumerate(texts, 1) if t.strip()}
    again = LabelFile('labels.csv').agreed()
    assert {line.row: line.text for line in again}==shown
    assert sorted(row['text'] for row in read_agreed('labels.csv')[1])==sorted(shown.values())
    done = cli('prepare', 'labels.csv', '--out', 'data', '--classes', 3)
    assert done.code==0, done.err
    splits = load_prepared('data')
    assert splits.num_rows['test']==20
    read = [t for split in splits.values() for t in split['text'][:]]
    assert sorted(read)==sorted(shown.values())

def test_a_kill_at_any_byte_loses_at_most_the_last_line(workdir):
    "A file cut off anywhere opens, keeps each whole line, and goes on"
    def row(i): return Label(i, HOSTILE[i+3], 'positive', 'test', .5, 'Ann', f'2026-12-01T10:00:0{i}.000001Z')
    rows = [row(i) for i in range(4)]
    LabelFile('whole.csv', ('city',)).append(rows, {'city': 'Bad "Ems",\nLahn'})
    with open('whole.csv', 'rb') as f: content = f.read()
    header = content.index(b'\n') + 1
    ends = [header]
    for n in range(1, 5):
        LabelFile(f'part{n}.csv', ('city',)).append(rows[:n], {'city': 'Bad "Ems",\nLahn'})
        with open(f'part{n}.csv', 'rb') as f: ends.append(len(f.read()))
    assert ends[-1]==len(content)
    for size in range(header, len(content)+1):
        with open('cut.csv', 'wb') as f: f.write(content[:size])
        kept = LabelFile('cut.csv')
        n_whole = sum(end<=size for end in ends[1:])
        assert rows[:n_whole]==kept.lines()[:n_whole] and len(kept.lines())<=n_whole+1, size
        if size%50==0:
            kept.append([rows[0]])
            assert LabelFile('cut.csv').lines()[-1]==rows[0]

def test_a_spreadsheet_may_save_the_file(workdir):
    "With semicolons, a byte order mark, other columns first, or as a workbook; it goes on being a label file"
    log = LabelFile('labels.csv')
    log.append([Label(i, f'text {i}', 'positive', 'train', None, 'Ann', '2026-12-01T10:00:00Z') for i in range(5)])
    frame = pd.DataFrame(list(read_table('labels.csv')[1]))[['text','row','gold','part','chance','labeller','at']]
    frame.assign(note='mine').to_csv('saved.csv', index=False, sep=';', encoding='utf-8-sig')
    saved = LabelFile('saved.csv')
    saved.append([Label(9, 'more', 'negative', 'train')], {'note': 'new'})
    assert [line.row for line in LabelFile('saved.csv').lines()]==[0, 1, 2, 3, 4, 9]
    assert [row['note'] for row in read_table('saved.csv')[1]]==['mine']*5 + ['new']
    frame.to_excel('saved.xlsx', index=False)
    assert [row['gold'] for row in read_agreed('saved.xlsx')[1]]==['positive']*5
    LabelFile('ends.csv').append([Label(1, 'a', 'positive', 'train', None, 'Ann', '2026-12-01T10:00:00Z')])
    with open('ends.csv', 'rb') as f: content = f.read()
    with open('ends.csv', 'wb') as f: f.write(content.rstrip()) # an editor took the last line break
    LabelFile('ends.csv').append([Label(2, 'b', 'positive', 'train')])
    assert [line.row for line in LabelFile('ends.csv').lines()]==[1, 2]

class Told:
    "What a labeller did, kept in memory: the rule by which the file is judged"
    def __init__(self): self.stack = []
    def labels(self):
        latest = {}
        for row,kind,gold in self.stack: latest[row, kind=='repeat'] = gold
        return {key: gold for key,gold in latest.items() if gold not in (SKIPPED, '(cannot tell)')}

@pytest.mark.parametrize('seed', range(4))
def test_any_order_of_labels_skips_and_undos(seed, workdir):
    "After each step, what the file says is what was done and not taken back; a session that is opened anew shows the same text"
    from sentiment_nb.labelling import Labelling
    rng = random.Random(seed)
    texts = [f'text {i}' for i in range(24)]
    session = Labelling(texts, 'labels.csv', n_test=9, n_repeats=3, batch=4, labeller='Ann', seed=seed)
    truth = Told()
    for _ in range(60):
        item = session.next_text() or (session.next_batch() and session.next_text())
        step = rng.choices(('give','skip','cannot','undo'), (6, 1, 1, 3))[0]
        if step=='undo' or item is None:
            if truth.stack: truth.stack.pop()
            session.undo()
        else:
            if step=='give': line = session.give(rng.choice(session.labels), item)
            else: line = session.skip(item) if step=='skip' else session.cannot_tell(item)
            truth.stack.append((item.row, item.kind, line.gold))
        live = {(line.row, line.part=='repeat'): line.gold for line in session.file.live() if line.is_given}
        assert live==truth.labels()
        again = Labelling(texts, 'labels.csv', labeller='Ann')
        assert again.file.live()==session.file.live()
        if session.progress().phase=='test': assert again.next_text()==session.next_text()
    assert UNDONE in {line.gold for line in session.file.lines()}

def test_two_labellers_at_once(workdir):
    "Two sessions on one file: nothing is lost, and what one labels to learn from is not asked of the other"
    from sentiment_nb.labelling import Labelling
    texts = [f'text {i}' for i in range(60)]
    ann = Labelling(texts, 'labels.csv', n_test=6, n_repeats=0, batch=30, labeller='Ann')
    bob = Labelling(texts, 'labels.csv', labeller='Bob')
    for _ in range(6):
        for session in (ann, bob): session.give('positive')
    ann.next_batch()
    bob.next_batch()
    while ann.next_text() or bob.next_text():
        for session in (ann, bob):
            if item := session.next_text(): session.give('negative', item)
    lines = LabelFile('labels.csv').live()
    assert [sum(line.part=='test' for line in lines if line.labeller==name) for name in ('Ann', 'Bob')]==[6, 6]
    learned = [line.row for line in lines if line.part=='train']
    assert len(learned)==len(set(learned))

def test_a_sample_that_was_drawn_is_the_test(films, tiny, cli, workdir):
    "`sample`, `label`, `share`: rows, chances and strata stay"
    from sentiment_nb.labelling import Labelling
    table = films[['text']].assign(shop=np.where(np.arange(400)%4, 'tea', 'mug'))
    table.to_csv('texts.csv', index=False)
    assert cli('predict', '--model', tiny.model, '--file', 'texts.csv', '--out', 'scored.csv').code==0
    assert cli('sample', 'scored.csv', '--n', 40, '--by', 'shop', '--out', 'to_label.csv').code==0
    session = Labelling('to_label.csv', 'labels.csv', model=tiny.model)
    answer_all(session, dict(zip(films.text, films.truth)))
    assert session.is_over
    for scored in ('to_label.csv', 'labels.csv'):
        drawn = pd.read_csv(scored)
        drawn = drawn[drawn.get('part', pd.Series('test', index=drawn.index))=='test'].sort_values('row')
        assert drawn.row.is_unique and len(drawn)==40 and set(drawn.stratum)=={'tea', 'mug'}
    done = cli('share', 'scored.csv', '--labelled', 'labels.csv', '--by', 'shop', '--json')
    assert done.code==0 and len(json.loads(done.out)['shares'])==6

def batch_seconds(n_pool, tiny):
    "Seconds to refit and to choose a batch of a pool with states"
    from sentiment_nb.labelling import Labelling
    rng = np.random.default_rng(0)
    states = rng.normal(size=(n_pool, 384)).astype(np.float32)
    texts = [f'text {i} {"fine" if i%2 else "bad"}' for i in range(n_pool)]
    session = Labelling(texts, 'labels.csv', strategy='mixed', n_test=0, model=tiny.model)
    session.embed = lambda positions, on_progress=None: states[positions] # the encoder's time is another matter
    seconds = []
    for _ in range(3):
        start = time.process_time()
        assert session.next_batch()==20
        seconds.append(time.process_time()-start)
        while item := session.next_text(): session.give('positive' if 'fine' in item.text else 'negative', item)
    return seconds

def test_a_batch_of_a_pool_is_chosen_fast(tiny, workdir): assert max(batch_seconds(5_000, tiny)) < 1

@pytest.mark.slow
def test_a_batch_of_fifty_thousand_texts_is_chosen_within_two_seconds(tiny, workdir):
    assert max(batch_seconds(50_000, tiny)) < 2
