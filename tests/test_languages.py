"An English model finds texts in other languages unfamiliar, at every door, and its own texts not."
import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from sentiment_nb.client import to_prediction
from sentiment_nb.core import LABELS
from sentiment_nb.data import load_prepared
from sentiment_nb.inference import UNFAMILIAR, Predictor, exported_quickstart
from sentiment_nb.training import load_quickstart

FRENCH = 'Le routeur ne marche plus.'

@pytest.fixture(scope='module')
def quick(): return load_quickstart()

@pytest.fixture(scope='module')
def model(): return exported_quickstart()

@pytest.fixture(scope='module')
def predictor(model): return Predictor(model)

def test_other_languages(predictor):
    "Of 210 sentences in fourteen languages at least 95 of 100 are uncertain for this reason; no language is missed"
    rows = pd.read_csv(Path(__file__).with_name('foreign.tsv'), sep='\t', names=['language', 'text'])
    predictions = predictor.predict(rows.text.tolist())
    rows['noticed'] = [p.unfamiliar and p.uncertain for p in predictions]
    by_language = rows.groupby('language').noticed.mean()
    print(by_language.round(2).to_dict())
    assert rows.noticed.mean()>=.95 and by_language.min()>=.8

def test_english_tweets(predictor, quick):
    "Of two thousand that were held out, emoji, names and slang included, at most one in a hundred"
    tweets = load_prepared(quick.data)['test']['text'][:2000]
    assert sum(p.unfamiliar for p in predictor.predict(tweets))<=20

def test_commands_say_why(model, cli):
    assert f'uncertain: {UNFAMILIAR})' in cli('predict', '--model', model, '--text', FRENCH).out
    assert json.loads(cli('predict', '--model', model, '--text', FRENCH, '--json').out)['unfamiliar'] is True
    assert 'unfamiliar' not in json.loads(cli('predict', '--model', model, '--text', 'I love it', '--json').out)

def test_answers_of_the_service(predictor):
    "The field is there where it is true, and a client reads both"
    for text in (FRENCH, 'I love it'):
        p = predictor.predict(text)
        assert to_prediction(p.to_dict())==p

def test_folder_without_frequencies(quick, tmp_path):
    "A folder of an earlier version answers as before"
    old = Path(shutil.copytree(quick.linear, tmp_path/'old'))
    (old/'unigrams.npz').unlink()
    sums = (old/'SHA256SUMS').read_text().splitlines(keepends=True)
    (old/'SHA256SUMS').write_text(''.join(line for line in sums if 'unigrams.npz' not in line))
    p = Predictor(old).predict(FRENCH)
    assert p.label in LABELS and not p.unfamiliar
