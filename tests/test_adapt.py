"Adapting a model to one's own texts, by the command line: what is promised, what is obeyed, what is refused."
import json
import time

import numpy as np
import pandas as pd
import pytest

from sentiment_nb.adapt import ALPHA
from sentiment_nb.cleaning import read_train_keys, text_keys
from sentiment_nb.core import ModelRecord
from sentiment_nb.data import load_reviews
from sentiment_nb.inference import Predictor

@pytest.fixture(scope='module')
def films():
    "Sentences about films, which no model of tweets has seen"
    ds = load_reviews()
    frame = pd.DataFrame({'text': ds['text'][:], 'label': ds['label'][:], 'domain': ds['domain'][:]})
    frame = frame[frame.domain=='film sentences'].sample(180, random_state=1).reset_index(drop=True)
    return pd.DataFrame({'said': frame.text, 'stars': np.where(frame.label, 5, 1)})

COLUMNS = ['--text-column', 'said', '--label-column', 'stars', '--labels', '1=negative,5=positive']

def test_a_file_of_one_hundred_and_fifty_rows(films, tiny, cli, workdir):
    "Candidates with intervals, within a minute; a folder that predicts, evaluates and knows its rows; test rows stay unseen"
    mine = films.assign(part=['test']*30 + ['train']*150)
    mine = pd.concat([mine, mine.iloc[[40, 2]].assign(part='train')]) # a copy, and a copy of a test row
    mine.to_csv('mine.csv', index=False)
    start = time.process_time()
    done = cli('adapt', tiny.model, 'mine.csv', '--out', 'mine', '--general', tiny.data, '--json', *COLUMNS)
    assert done.code==0, done.err
    assert time.process_time()-start < 60
    report = json.loads(done.out)
    assert report['n']==150 and report['dropped']=={'copies': 1, 'contradictory': 0, 'in_test': 1}
    assert [s['name'] for s in report['scores']]==['unchanged', 'probe', 'ngrams']
    for s in report['scores']: assert s['accuracy']['low']<s['accuracy']['value']<s['accuracy']['high']
    assert (report['chosen']!='unchanged')==any(s['gain']['p']<ALPHA for s in report['scores'][1:])
    keys = read_train_keys('mine')
    is_test = (mine.part=='test').to_numpy()
    test_keys = text_keys(mine.said[is_test].tolist())
    assert np.isin(text_keys(mine.said[30:180].tolist()), keys).all() and not np.isin(test_keys, keys).any()
    preds = [p.label for p in Predictor('mine').predict(mine.said[:30].tolist())]
    wanted = np.where(mine.stars[:30]==5, 'positive', 'negative')
    assert report['test']['accuracy']['value']==pytest.approx((np.array(preds)==wanted).mean())
    assert cli('evaluate', 'mine', 'mine.csv', '--out', 'report', *COLUMNS).code==0

def test_each_kind_of_folder(films, tiny, workdir):
    "What wins (here at any price) is stored as a kind that there is, calibrated, and the same seed gives the same model"
    from sentiment_nb.adapt import adapt_model
    names = np.where(films.stars[:60]==5, 'positive', 'negative')
    table = pd.DataFrame({'text': films.said[:60], 'label': names})
    for name,kind in {'probe': 'frozen', 'ngrams': 'linear'}.items():
        report = adapt_model(tiny.model, table, name, candidates=(name,), general=tiny.data, alpha=2.)
        record = ModelRecord.load(name)
        assert report['chosen']==name and record.kind==kind and record.conformal
        assert record.settings['candidate']==name and record.data['rows']['train'].keys()=={'negative', 'positive'}
    again = adapt_model(tiny.model, table, 'again', candidates=('ngrams',), general=tiny.data, alpha=2.)
    assert again['scores']==report['scores']
    kept = adapt_model(tiny.model, table, 'same', candidates=(), general=tiny.data)
    assert kept['chosen']=='unchanged'
    texts = table.text[:20].tolist()
    before = Predictor(tiny.model).predict_proba(texts)
    assert (Predictor('same').predict_proba(texts).argmax(1)==before.argmax(1)).all()

def test_a_class_that_the_model_does_not_know(films, tiny, cli, workdir):
    "Neutral rows are learned by the candidates, and wrong for the starting model, which is said"
    mine = films[:90].assign(stars=np.tile([1, 3, 5], 30))
    mine.to_csv('mine.csv', index=False)
    labels = ['--text-column', 'said', '--label-column', 'stars', '--labels', '1=negative,3=neutral,5=positive']
    done = cli('adapt', tiny.model, 'mine.csv', '--out', 'three', '--candidates', 'probe', *labels)
    assert done.code==0, done.err
    assert 'knows no neutral: all its answers to these 30 texts are wrong' in done.out

BAD = {
    'one label': (dict(stars=5), [], ('positive', 'missing class')),
    'too few': (dict(rows=6), [], ('6 texts', 'label more')),
    'all of part test': (dict(part='test'), [], ('nothing to learn from',)),
    'no such candidate': ({}, ['--candidates', 'probe,magic'], ('magic', 'probe, ngrams, finetuned', '--candidates')),
    'no such group': ({}, ['--group-column', 'author'], ("'author'", '--group-column'))}

@pytest.mark.parametrize('case', BAD)
def test_refusals(case, films, tiny, refuses):
    "One line that says what came and what to do, and nothing is written"
    changes, options, parts = BAD[case]
    changes = dict(changes)
    mine = films[:changes.pop('rows', 40)].assign(**changes)
    mine.to_csv('mine.csv', index=False)
    refuses(['adapt', tiny.model, 'mine.csv', '--out', 'mine', *COLUMNS, *options], *parts)

@pytest.mark.slow
def test_fine_tuning_goes_on(films, tiny, cli, workdir):
    "The expensive candidate, on request: progress is shown, and its folder predicts"
    films[:40].to_csv('mine.csv', index=False)
    done = cli('adapt', tiny.model, 'mine.csv', '--out', 'mine', '--candidates', 'finetuned', *COLUMNS)
    assert done.code==0, done.err
    assert 'finetuned' in done.out and 'training' in done.err
    assert Predictor('mine').predict('Great').label in ('negative', 'positive')
