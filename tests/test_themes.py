"Themes of odd tables, by the command line: an answer or one clear line"
import json

import numpy as np
import pandas as pd
import pytest

from sentiment_nb.cli import main
from sentiment_nb.training import load_quickstart

SAID = {
    'bag': ['They lost my bag again', 'My luggage is lost and my bag never came', 'Lost luggage again, the bag is gone'],
    'phone': ['Nobody answers the phone, awful', 'On hold for hours, terrible phone line', 'The phone line is terrible, on hold again'],
    'price': ['The price is a rip off, hate it', 'Awful price, they charge too much', 'Hate this price, they charge twice']}

@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    "Three complaints in many wordings, one of them mostly of one product and month, some praise, odd rows"
    rng = np.random.default_rng(0)
    rows = []
    for i in range(240):
        theme = ('bag', 'phone', 'price')[i%3]
        text = f"{rng.choice(SAID[theme])}, @ana_{i}! Word{i} is a sad and awful thing"
        date = ('2024-01-31 10:00', 'Fri Mar 15 23:00:00 +0000 2024')[i%2]
        if theme=='bag' and i%2: date = '2024-05-01T23:30:00-0800'
        if i%20==0: date = ''
        product = 'mug' if theme=='bag' and i%4 else 'tea'
        rows.append(dict(text=text, product=product, created=date, prob_negative=.9, prob_positive=.1))
    rows += [dict(text=f'Great crew, thank you so much, love it {i}', product='tea', created='2024-01-02',
        prob_negative=.1, prob_positive=.9) for i in range(60)]
    rows += [dict(text='', product='tea', created='2024-01-02')]*2
    folder = tmp_path_factory.mktemp('themes')
    pd.DataFrame(rows).to_csv(folder/'scored.csv', index=False)
    return folder

def run(capsys, *words):
    "Exit code, printed and error lines of `themes` with the linear model and without an encoder"
    code = main(['themes', *map(str, words), '--model', str(load_quickstart().linear), '--encoder', 'words'])
    printed = capsys.readouterr()
    assert 'Traceback' not in printed.err
    return code, printed.out, printed.err

def test_the_themes_are_those_that_were_put_in(folder, capsys):
    words = (folder/'scored.csv', *'--by product --date created --k 4 --json'.split(), '--aspects', 'luggage: bag, luggage')
    code, out, _ = run(capsys, *words)
    assert code == 0 and out == run(capsys, *words)[1] # repeatable
    about = json.loads(out)
    assert about['texts'] == 300 and sum(t['sentences'] for t in about['themes']) == about['sentences']
    assert '@ana' not in out and '@user' in out
    [bag] = [t for t in about['themes'] if {'bag', 'luggage'} & set(' '.join(t['phrases']).split())]
    assert bag['low'] <= bag['share'] <= bag['high'] and bag['stable']
    assert [c['group'] for c in bag['goes_with']] == [{'product': 'mug'}]
    assert bag['trend']['period'] == '2024-05' and bag['trend']['low'] > 0
    periods = [g['group']['created'] for g in bag['groups'] if 'created' in g['group']]
    assert periods == ['2024-01', '2024-03', '2024-05'] # no text in February, and 12 texts without a date
    [luggage] = about['aspects']
    assert luggage['texts'] == 80

def test_on_a_terminal(folder, capsys):
    code, out, _ = run(capsys, folder/'scored.csv', '--by', 'product', '--k', 4)
    assert code == 0 and 'goes with mug' in out and 'typical   row' in out and 'cause' not in out

def table(folder, rows):
    pd.DataFrame(rows).to_csv(folder/'odd.csv', index=False)
    return folder/'odd.csv'

GOOD = dict(text='Great crew, thank you, love it', product='tea', prob_negative=.1, prob_positive=.9)
BAD = dict(text='Awful, terrible, I hate it', product='tea', prob_negative=.9, prob_positive=.1)

def test_no_negatives_is_one_line(folder, capsys):
    code, _, err = run(capsys, table(folder, [GOOD]*30), '--by', 'product')
    assert code == 2 and 'is negative, so there is nothing to group' in err and len(err.strip().splitlines()) == 1

def test_one_negative_and_all_negative(folder, capsys):
    code, out, _ = run(capsys, table(folder, [GOOD]*9 + [BAD]), '--by', 'product', '--json')
    assert code == 0 and [t['share'] for t in json.loads(out)['themes']] == [.1]
    code, out, _ = run(capsys, table(folder, [BAD]*50), '--by', 'product', '--json')
    assert code == 0 and json.loads(out)['k'] == 1 and json.loads(out)['themes'][0]['goes_with'] == []

@pytest.mark.parametrize('words, message', [
    ('--label angry', 'expected negative, positive'), ('--by nothing', "no column 'nothing'"), ('--k 0', 'k is 0'),
    ('--text-column nothing', "no column 'nothing'"), ('--aspects delivery', 'a colon and words'),
    ('--date product', 'expected a date')])
def test_wrong_options_are_said_in_a_line(folder, capsys, words, message):
    code, _, err = run(capsys, folder/'scored.csv', *words.split())
    assert code == 2 and message in err
