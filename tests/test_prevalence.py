"Shares of large and of odd tables, by the command line: an answer or one clear line"
import json

import numpy as np
import pandas as pd
import pytest

from sentiment_nb.calibration import confusion_by_confidence
from sentiment_nb.cli import main
from sentiment_nb.core import ModelRecord
from sentiment_nb.evaluation import confusion_matrix

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

@pytest.fixture(scope='module')
def copied(tmp_path_factory):
    "A thousand texts, a third of them negative, and one positive text five hundred times more, as retweets"
    folder = tmp_path_factory.mktemp('copies')
    frame = pd.DataFrame({'text': [f'text {i}' for i in range(1000)] + [f'RT @user{i}: text 999' for i in range(500)]})
    truth = np.append(np.arange(1000) % 3 == 0, np.zeros(500, bool))
    truth[999] = False
    frame['prob_negative'] = np.where(truth, .8, .2)
    frame['prob_positive'] = 1 - frame.prob_negative
    frame.to_csv(folder/'scored.csv', index=False)
    return folder, truth

@pytest.mark.parametrize('drawn', ['each', 'once'])
def test_copies_count_once(copied, capsys, drawn):
    "However the sample was drawn, the share is that of the thousand texts"
    folder, truth = copied
    scored = folder/'scored.csv'
    assert main(f"sample {scored} --n 300 --copies {drawn} --out {folder/drawn}.csv".split()) == 0
    capsys.readouterr()
    rows = pd.read_csv(f'{folder/drawn}.csv', dtype=str, keep_default_na=False)
    assert ('copies' in rows) == (drawn == 'once')
    rows['gold'] = np.where(truth[rows.row.astype(int)-1], 'negative', 'positive')
    rows.to_csv(f'{folder/drawn}.csv', index=False)
    code, out, err = run(capsys, scored, '--labelled', f'{folder/drawn}.csv', '--copies', 'once', '--json')
    negative_share = json.loads(out)['shares'][0]
    assert code == 0 and negative_share['n'] == 1000 and '500 copies are counted' in err
    assert negative_share['low'] <= truth[:1000].mean() <= negative_share['high']
    code, out, err = run(capsys, scored, '--labelled', f'{folder/drawn}.csv')
    assert code == (2 if drawn == 'once' else 0)
    assert drawn == 'each' or 'was drawn with --copies once' in err

def test_poststratify(sampled, capsys):
    "The known sizes of the products make the interval no wider here, and a product without a label is named"
    rows = pd.read_csv(sampled/'to_label.csv', dtype=str, keep_default_na=False)
    rows['gold'] = np.where(negative[rows.row.astype(int)-1], 'negative', 'positive')
    rows.drop(columns='stratum').to_csv(sampled/'plain.csv', index=False)
    by = ['--poststratify', 'product', '--json']
    code, out, err = run(capsys, sampled/'scored.csv', '--labelled', sampled/'plain.csv', *by)
    overall = json.loads(out)['shares'][0]
    assert code == 0 and overall['low'] <= negative.mean() <= overall['high']
    rows[rows['product'] != 'tea'].drop(columns='stratum').to_csv(sampled/'no_tea.csv', index=False)
    code, out, err = run(capsys, sampled/'scored.csv', '--labelled', sampled/'no_tea.csv', *by)
    assert code == 2 and "no labelled text is in 'tea'" in err

@pytest.mark.parametrize('squeeze, is_told', [(1., False), (.4, True)])
def test_unlike_texts_are_told(tmp_path, capsys, squeeze, is_told):
    "Without labels: texts of which the model says what it says of its test texts, and others"
    def predict(n_negative, n):
        is_negative = np.arange(n) < n_negative
        score = np.where(is_negative, rng.beta(5, 1, n), rng.beta(1, 3, n))
        return np.column_stack([score, 1-score]), 1-is_negative
    test_probs, labels = predict(2000, 4000)
    record = ModelRecord('linear', 'linear', ['negative', 'positive'])
    record.metrics = {'test_confusion': confusion_matrix(labels, test_probs.argmax(1), 2).tolist(),
        'test_confidence': confusion_by_confidence(test_probs, labels)}
    (tmp_path/'model').mkdir()
    record.save(tmp_path/'model')
    scored = pd.DataFrame(.5 + squeeze*(predict(300, 3000)[0]-.5), columns=['prob_negative', 'prob_positive'])
    scored.assign(text='a').to_csv(tmp_path/'scored.csv', index=False)
    code, out, err = run(capsys, tmp_path/'scored.csv', '--model', tmp_path/'model')
    assert code == 0 and ('unlike the model' in err) == is_told

@pytest.mark.slow
def test_two_hundred_thousand_rows(table, tmp_path, capsys):
    "Ten times the table, by product and month, copies counted once"
    frame = pd.read_csv(table/'scored.csv', dtype=str, keep_default_na=False)
    large = pd.concat([frame.assign(text=frame.text + f' of {i}') for i in range(10)])
    large.to_csv(tmp_path/'scored.csv', index=False)
    words = f"sample {tmp_path/'scored.csv'} --n 300 --copies once --out {tmp_path/'to_label.csv'}"
    assert main(words.split()) == 0
    capsys.readouterr()
    rows = pd.read_csv(tmp_path/'to_label.csv', dtype=str, keep_default_na=False)
    rows['gold'] = np.where(negative[(rows.row.astype(int)-1) % N], 'negative', 'positive')
    rows.to_csv(tmp_path/'right.csv', index=False)
    words = '--by product --date created --copies once --json'.split()
    code, out, err = run(capsys, tmp_path/'scored.csv', '--labelled', tmp_path/'right.csv', *words)
    overall = json.loads(out)['shares'][0]
    assert code == 0 and overall['n'] == 10*(N-3) and overall['low'] <= negative.mean() <= overall['high']
