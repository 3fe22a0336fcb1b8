"Shares of large and of odd tables, by the command line: an answer or one clear line"
import json

import numpy as np
import pandas as pd
import pytest

from sentiment_nb.cli import main

N = 20_000
rng = np.random.default_rng(0)
negative = rng.random(N) < .3
score = np.clip(rng.normal(np.where(negative, .7, .3), .2), .01, .99)
dates = np.where(np.arange(N) % 3, '2024-03-14 23:59 -0800', '3/29/2024 08:15').astype(object)
dates[::7] = 'Fri Mar 15 23:00:00 -0800 2024'
dates[::11] = ''

@pytest.fixture(scope='module')
def table(tmp_path_factory):
    "A large table: dates in three formats or missing, a group of one row, rows without a text"
    folder = tmp_path_factory.mktemp('shares')
    frame = pd.DataFrame({'text': [f'text {i}' for i in range(N)], 'created': dates})
    frame['product'] = ['only once', *rng.choice(['tea', 'mug', 'pot'], N-1)]
    frame['thread'] = [f'{n} {i%20}' for i, n in enumerate(negative)] # whose texts are all of one class
    frame['prob_negative'] = score
    frame['prob_positive'] = 1 - score
    frame.loc[N-3:, ['prob_negative', 'prob_positive']] = None
    frame.to_csv(folder/'scored.csv', index=False)
    return folder

def label(table, name, change=lambda rows: rows):
    "A sample with right labels, after a change"
    rows = pd.read_csv(table/'to_label.csv', dtype=str, keep_default_na=False)
    rows['gold'] = np.where(negative[rows.row.astype(int)-1], 'negative', 'positive')
    change(rows).to_csv(table/name, index=False)
    return str(table/name)

@pytest.fixture(scope='module')
def sampled(table):
    words = f"sample {table/'scored.csv'} --n 300 --by product --out {table/'to_label.csv'} --seed 1"
    assert main(words.split()) == 0
    return table

def run(capsys, *words):
    "Exit code, printed and error lines of one command"
    code = main(['share', *map(str, words)])
    printed = capsys.readouterr()
    assert 'Traceback' not in printed.err
    return code, printed.out, printed.err

def test_shares_hold_the_truth(sampled, capsys):
    gold = label(sampled, 'right.csv')
    groups = '--by product --date created --json'.split()
    code, out, err = run(capsys, sampled/'scored.csv', '--labelled', gold, *groups)
    assert code == 0 and '3 rows without a text' in err and 'texts without created' in err
    report = json.loads(out)
    overall = next(s for s in report['shares'] if not s['group'] and s['label'] == 'negative')
    assert overall['low_all'] <= overall['low'] <= negative.mean() <= overall['high'] <= overall['high_all']
    assert overall['labelled'] == 300 and overall['n'] == N-3
    assert {'product': 'only once'} in [s['group'] for s in report['shares']]
    assert [s['group'] for s in report['shares'] if list(s['group']) == ['created']] == [{'created': '2024-03'}]*2
    fields = {'from', 'to', 'label', 'difference', 'low', 'high', 'low_all', 'high_all', 'p'}
    assert report['changes'] and fields <= set(report['changes'][0])

def test_clusters_widen(sampled, capsys):
    gold = label(sampled, 'right.csv')
    def width(*words):
        share = json.loads(run(capsys, sampled/'scored.csv', '--labelled', gold, '--json', *words)[1])['shares'][0]
        return share['high'] - share['low']
    assert width('--cluster', 'thread') > 1.3*width()

def only_positive(rows): return rows.assign(gold='positive')
def without_label(rows): return rows.assign(gold='')
def unknown_row(rows): return rows.assign(row=[str(N+5), *rows.row[1:]])
def contradiction(rows): return pd.concat([rows, rows[:1].assign(gold='positive'), rows[:1].assign(gold='negative')])
def other_texts(rows): return rows.assign(text='another')
def other_label(rows): return rows.assign(gold=['meh', *rows.gold[1:]])

def test_no_text_of_a_class(sampled, capsys):
    gold = label(sampled, 'positive.csv', only_positive)
    code, out, _ = run(capsys, sampled/'scored.csv', '--labelled', gold, '--json')
    share = json.loads(out)['shares'][0]
    assert code == 0 and share['share'] == share['low'] == 0 < share['high'] < .02

@pytest.mark.parametrize('change, words', [
    (without_label, 'no label of a text that was drawn'), (unknown_row, f'labels row {N+5}'),
    (contradiction, 'contradict'), (other_texts, 'another text in row'), (other_label, "'meh', expected negative, positive")])
def test_wrong_labels_are_said_in_a_line(sampled, capsys, change, words):
    code, _, err = run(capsys, sampled/'scored.csv', '--labelled', label(sampled, 'wrong.csv', change))
    assert code == 2 and words in err and len(err.strip().splitlines()) == 1

@pytest.mark.parametrize('words, message', [
    ('--by nothing', "no column 'nothing'"), ('--date product', 'expected a date'),
    ('--date created --every hour', 'expected day, week, month'), ('--cluster nobody', "no column 'nobody'")])
def test_wrong_options_are_said_in_a_line(sampled, capsys, words, message):
    gold = label(sampled, 'right.csv')
    code, _, err = run(capsys, sampled/'scored.csv', '--labelled', gold, *words.split())
    assert code == 2 and message in err

def test_a_table_without_probabilities(table, capsys):
    pd.DataFrame({'text': ['fine']}).to_csv(table/'plain.csv', index=False)
    code, _, err = run(capsys, table/'plain.csv')
    assert code == 2 and 'score its texts first' in err
