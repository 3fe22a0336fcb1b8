"The path of `--model distilbert`, on a real pretrained DistilBERT that a hub's local cache holds."
import importlib.util
import shutil

import numpy as np
import pytest
from conftest import root, run_many

spec = importlib.util.spec_from_file_location('distilbert_layout', root/'benchmarks'/'distilbert_layout.py')
layout = importlib.util.module_from_spec(spec)

@pytest.fixture(scope='module')
def cached(tmp_path_factory):
    "HF_HOME with the model in it, and the model's folder"
    spec.loader.exec_module(layout)
    home = tmp_path_factory.mktemp('hf')
    return home, layout.write_hub_cache(home)

@pytest.fixture(scope='module')
def trained(cached, tiny, tmp_path_factory):
    "Folder with `model` and `report`, made by the command line; what each command printed"
    home = tmp_path_factory.mktemp('distilbert')
    settings = '--limit 320 --max-length 32 --epochs 1 --learning-rate 1e-4'
    commands = [f'train {tiny.data} --model distilbert {settings} --out model',
        f'export model --data {tiny.data} --no-int8',
        f'evaluate model {tiny.data} --limit 300 --baselines {tiny.linear} --out report']
    predict = ['predict', '--model', 'model', '--text', 'I love it']
    commands = [*(c.split() for c in commands), predict]
    printed, attempts = run_many(commands, home, HF_HOME=str(cached[0]), HF_HUB_OFFLINE='1')
    assert attempts==[]
    return home, printed

def test_same_hidden_states(cached):
    "Rewritten in the other layout, saved and loaded again, the encoder gives the same states for real tweets"
    import torch
    from sentiment_nb.data import load_tweets
    from sentiment_nb.encoders import resolve_encoder
    from transformers import AutoModel, AutoTokenizer
    bert = AutoModel.from_pretrained(resolve_encoder('minilm')).eval()
    distil = AutoModel.from_pretrained(cached[1]).eval()
    assert type(distil).__name__=='DistilBertModel'
    batch = AutoTokenizer.from_pretrained(cached[1])(load_tweets()['text'][:64], padding=True, return_tensors='pt')
    batch.pop('token_type_ids', None) # the tokenizer may speak of them, this layout knows none
    def token_states(model): return model(**batch).last_hidden_state[batch['attention_mask']==1]
    with torch.inference_mode(): difference = token_states(bert)-token_states(distil)
    assert difference.abs().max()<1e-5

@pytest.mark.slow
def test_found_under_the_hub_name(cached, trained):
    "`distilbert` is the hub's name for it, and the record remembers the standard settings"
    from sentiment_nb.core import ModelRecord
    record = ModelRecord.load(trained[0]/'model')
    assert (record.base, record.kind, record.max_length)==('distilbert', 'transformer', 32)
    assert '"DistilBertForSequenceClassification"' in (trained[0]/'model'/'config.json').read_text()

@pytest.mark.slow
def test_same_labels_everywhere(trained, tiny):
    "transformers.pipeline, PyTorch and the float ONNX graph see the model alike"
    from sentiment_nb.cleaning import clean_text
    from sentiment_nb.data import load_prepared
    from sentiment_nb.inference import Predictor
    from sentiment_nb.training import torch_logits
    from transformers import pipeline
    texts = load_prepared(tiny.data)['test']['text'][:64]
    model = trained[0]/'model'
    predictor = Predictor.from_pretrained(model, 'onnx')
    predictor.record.temperature = 1. # transformers knows nothing of calibration
    predictor.record.bend = 0.
    ours = predictor.predict(texts)
    pipe = pipeline('text-classification', str(model))
    theirs = pipe([clean_text(t, 'minimal') for t in texts], truncation=True, max_length=32)
    assert [p.label for p in ours]==[p['label'] for p in theirs]
    assert np.allclose([p.confidence for p in ours], [p['score'] for p in theirs], atol=1e-3)
    labels = 'negative', 'positive'
    assert [p.label for p in ours]==[labels[i] for i in torch_logits(model, texts).argmax(1)]

def test_every_command_reports(trained):
    "train, export, evaluate and predict end with their result"
    train, export, evaluate, predict = trained[1]
    assert 'validation accuracy' in train and 'onnx passed' in export and predict.startswith('Prediction: ')
    assert (trained[0]/'report'/'metrics.json').exists() and 'macro' in evaluate

@pytest.mark.slow
def test_somebody_elses_classifier(trained, tiny, tmp_path):
    "A fine-tuned model that the hub's cache holds under a name of its own is taken over by that name"
    repo = tmp_path/'hub'/'models--someone--sentiment'
    (repo/'refs').mkdir(parents=True)
    (repo/'refs'/'main').write_text('0'*40)
    ours_only = shutil.ignore_patterns('sentiment_nb.json', 'SHA256SUMS', 'onnx')
    shutil.copytree(trained[0]/'model', repo/'snapshots'/('0'*40), ignore=ours_only)
    commands = [f'export someone/sentiment --data {tiny.data}', 'predict --model models/sentiment --text lovely']
    printed, attempts = run_many([c.split() for c in commands], trained[0], HF_HOME=str(tmp_path), HF_HUB_OFFLINE='1')
    exported, predicted = printed
    assert attempts==[] and 'onnx passed' in exported and 'written to models/sentiment' in exported
    assert predicted.startswith('Prediction: ')

def test_script_writes_a_hub_cache(cached, tmp_path, monkeypatch, capsys):
    "`python benchmarks/distilbert_layout.py OUT` writes the same, and says how it is used"
    monkeypatch.setattr('sys.argv', ['distilbert_layout.py', str(tmp_path)])
    layout.main()
    assert 'HF_HOME' in capsys.readouterr().out
    def files(home):
        folder = next(home.glob('hub/models--*/snapshots/*'))
        return {p.name: p.read_bytes() for p in folder.iterdir()}
    assert files(cached[0])==files(tmp_path)
