"The engine predicts every text, alone or in any batch, or reports before the first prediction why it cannot."
import json
import os
import random
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import environ
from sentiment_nb.calibration import calibrate
from sentiment_nb.core import InputError, ModelRecord, write_checksums
from sentiment_nb.data import load_prepared
from sentiment_nb.inference import Predictor, explain, export_onnx, exported_quickstart
from sentiment_nb.tables import write_rows
from sentiment_nb.training import load_quickstart
from tokenizers import BertWordPieceTokenizer

@pytest.fixture(scope='module')
def splits(): return load_prepared(load_quickstart().data)

@pytest.fixture(scope='module')
def quick(splits):
    "The quickstart's model, exported; its folder, both engines, and tweets that neither training nor gate have seen"
    model = exported_quickstart()
    engines = {e: Predictor(model, e) for e in ('onnx', 'int8')}
    return SimpleNamespace(model=model, tweets=splits['test']['text'][:200], engines=engines)

@pytest.fixture(params=['onnx', 'int8'])
def predictor(request, quick): return quick.engines[request.param]

HOSTILE = {'nothing': '', 'blank': ' \t\r\n\u3000\u00a0', 'NUL': 'a\0b', 'a NUL and no more': '\0',
    'lone surrogates': '\ud83d a \udc80', 'controls': ''.join(map(chr, range(32))),
    '1 MB of a letter': 'a'*10**6, '1 MB of words': 'bad '*250_000, '1 MB of spaces': ' '*10**6,
    'marks': 'a' + '\u0301'*10_000, 'signs': '<&'*10_000, 'emojis': '😀'*10_000, 'a family': '👨‍👩‍👧‍👦 '*300,
    'joined for ever': '👩' + '\u200d👩'*5000, 'skin tones': '👍🏿👍🏻'*300, 'flags': '🇲🇦🇫🇷🇲'*300,
    'keycaps': '1️⃣2️⃣#️⃣', 'selectors': '\ufe0f'*1000, 'Arabic': 'هذا الفيلم رائع جدًّا، أحببته!',
    'tatweel and marks': 'رائـــــع جِدًّا', 'Persian joiner': 'نمی‌خواهم', 'Hebrew': 'הסרט הזה נהדר',
    'bidi controls': '\u202egood\u202c \u2067bad\u2069 \u200f', 'Thai': 'หนังเรื่องนี้ดีมาก',
    'Chinese': '这部电影太棒了', 'special tokens': '[CLS] [SEP] [PAD] [MASK] [UNK]',
    'unassigned': '\ue000\U0010ffff\ufdd0', 'zero width': '\u200b\u200d\u200c\ufeff'}

@pytest.fixture(scope='module')
def mixed(quick):
    "For each engine, what it predicts for tweets and hostile texts in turn, all in one batch"
    texts = [t for pair in zip(quick.tweets, HOSTILE.values()) for t in pair]
    return {e: p.predict(texts) for e,p in quick.engines.items()}

@pytest.mark.parametrize('engine', ['onnx', 'int8'])
def test_every_text_is_answered(engine, mixed):
    "Lengths from 0 to a million side by side, each answer in its place"
    predictions = mixed[engine]
    assert len(predictions)==2*len(HOSTILE)
    for p in predictions:
        probs = list(p.probabilities.values())
        assert np.isfinite(probs).all() and abs(sum(probs)-1)<1e-6
        assert p.label==max(p.probabilities, key=p.probabilities.get) and p.confidence==max(probs)
    hostile = dict(zip(HOSTILE, predictions[1::2]))
    words = hostile['1 MB of words']
    assert words.truncated and words.tokens==250_002
    nothing = hostile['nothing']
    assert nothing.tokens==2 and nothing.probabilities==pytest.approx(hostile['blank'].probabilities, abs=.05)

def test_hostile_texts_in_a_batch_change_nothing(mixed, quick):
    "A tweet among megabytes and empty texts gets the prediction that it gets without them"
    for name, p in quick.engines.items():
        among = np.array([list(q.probabilities.values()) for q in mixed[name][::2]])
        quiet = p.predict_proba(quick.tweets[:len(HOSTILE)])
        assert np.abs(among-quiet).max()<1e-5

def test_alone_and_in_any_batch(quick):
    "The same to 1e-5 in any batch, with float and with int8"
    report = {}
    order = np.random.default_rng(0).permutation(len(quick.tweets))
    batches = np.split(order, [7, 8, 100])
    for name, p in quick.engines.items():
        alone = np.concatenate([p.predict_proba([t]) for t in quick.tweets])
        shuffled = np.empty_like(alone)
        shuffled[order] = np.concatenate([p.predict_proba([quick.tweets[i] for i in rows]) for rows in batches])
        together = p.predict_proba(quick.tweets)
        report[name] = [np.abs(other-alone).max() for other in (together, shuffled)]
    print({n: [f'{d:.1e}' for d in v] for n,v in report.items()})
    assert max(sum(report.values(), []))<1e-5

@pytest.mark.parametrize('texts, message', [([*'ab', None], 'text 2 is NoneType'), (['a', b'b'], 'text 1 is bytes'),
    ([float('nan')], 'text 0 is float'), ([['a']], 'text 0 is list'), (b'ab', 'texts is bytes'),
    (None, 'texts is NoneType'), (7, 'texts is int')])
def test_what_is_no_text_is_named(texts, message, predictor):
    "By its type, and by its place"
    for ask in (predictor.predict, predictor.predict_proba):
        with pytest.raises(InputError, match=message): ask(texts)

def test_what_is_no_text_is_named_in_a_stream(predictor):
    "By its place in the whole stream; what came before it has been answered"
    answered = []
    texts = (t for t in ['fine']*25 + [None])
    with pytest.raises(InputError, match='text 25 is NoneType'):
        answered.extend(predictor.predict_iter(texts, chunk=10))
    assert len(answered)==20

def test_one_text_for_a_list(predictor):
    "A single text is not taken for a list of letters"
    assert predictor.predict('fine').label=='positive'
    with pytest.raises(InputError, match='texts is str'): predictor.predict_proba('fine')

def test_any_iterable(predictor, quick):
    "Tuples, arrays and generators are as good as lists"
    tweets = quick.tweets[:5]
    wanted = predictor.predict(tweets)
    for texts in (tuple(tweets), np.array(tweets), iter(tweets)): assert predictor.predict(texts)==wanted

LONG = [n for n in HOSTILE if n.startswith('1 MB') or n in ('marks', 'signs', 'emojis')]

@pytest.mark.parametrize('name', [n for n in HOSTILE if n not in LONG])
def test_hostile_texts_are_explained(name, quick):
    "Each part is where it says, parts do not overlap, and nothing but space lies between them"
    text = HOSTILE[name]
    evidence = explain(quick.engines['int8'], text, max_spans=8)
    assert all(text[e.start:e.end]==e.text and np.isfinite(e.score) for e in evidence)
    ends = [0, *(x for e in evidence for x in (e.start, e.end)), len(text)]
    gaps = [text[a:b] for a,b in zip(ends[::2], ends[1::2])]
    assert ends==sorted(ends) and not ''.join(gaps).strip()

# Folders that cannot be right

@pytest.fixture
def altered(tmp_path):
    "A copy of a model folder whose record is changed, with hashes that fit"
    def make(model, **changes):
        copy = tmp_path/'m'
        shutil.copytree(model, copy)
        record = json.loads((copy/'sentiment_nb.json').read_text()) | changes
        (copy/'sentiment_nb.json').write_text(json.dumps(record))
        write_checksums(copy)
        return copy
    return make

@pytest.mark.parametrize('kind', ['', '-linear', '-frozen'])
@pytest.mark.parametrize('labels', [['positive'], ['negative', 'neutral', 'positive']])
def test_label_map_of_another_size(kind, labels, quick, altered):
    "Whatever the engine, a map with a label too many or too few is refused before a text is seen"
    whole = load_quickstart().linear.with_name(f'quickstart{kind}') if kind else quick.model
    model = altered(whole, labels=labels)
    message = 'labels is' if len(labels)==1 else '2 classes, sentiment_nb.json names 3'
    with pytest.raises(InputError, match=message): Predictor(model)

def test_a_file_that_failed_the_gate_is_not_taken(quick, altered):
    "An int8 file that is in the folder although it failed the gate is not loaded"
    engines = ModelRecord.load(quick.model).engines
    model = altered(quick.model, engines=engines | {'int8': engines['int8'] | {'passed': False}})
    assert Predictor(model).engine=='onnx'
    with pytest.raises(InputError, match="no engine 'int8', only onnx"): Predictor(model, 'int8')

# The gate

def add_outliers(bert):
    "Scale the first channel down where it is written, and up where it is read"
    layer = bert.encoder.layer[0]
    attention = layer.attention
    readers_of = {bert.embeddings.LayerNorm: [attention.self.query, attention.self.key, attention.self.value],
        attention.output.LayerNorm: [layer.intermediate.dense]}
    for norm, readers in readers_of.items():
        for p in (norm.weight, norm.bias): p.data[0] *= 1e-3
        for r in readers: r.weight.data[:,0] *= 1e3

def write_random(folder, texts, outliers=False):
    """A tiny random BERT that has opinions

    With `outliers`, one channel is written in thousandths and read a thousandfold, which rounding cannot follow.
    """
    import torch
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast
    torch.manual_seed(0)
    pieces = BertWordPieceTokenizer()
    pieces.train_from_iterator(texts, vocab_size=1000, show_progress=False)
    net = BertForSequenceClassification(BertConfig(vocab_size=pieces.get_vocab_size(), hidden_size=16,
        num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, max_position_embeddings=64,
        initializer_range=.4))
    for name, p in net.named_parameters(): # equal ones would be stored once
        p.data += .1*torch.randn_like(p) if name.endswith('bias') else 0
    if outliers: add_outliers(net.bert)
    else: net.classifier.bias.data[1] += 3 # hardly a text is undecided
    net.save_pretrained(folder)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=pieces._tokenizer, unk_token='[UNK]', pad_token='[PAD]',
        cls_token='[CLS]', sep_token='[SEP]')
    tokenizer.save_pretrained(folder)
    ModelRecord('transformer', 'random', ['negative', 'positive'], max_length=64).save(folder)
    write_checksums(folder)
    return folder

def test_int8_is_refused(splits, tmp_path, capsys):
    """Where rounding changes answers there is no int8 file, and predictions come from the float file

    The line says by how much they change.
    """
    from sentiment_nb.cli import main
    model = write_random(tmp_path/'m', splits['train']['text'][:500], outliers=True)
    assert main(['export', str(model), '--data', str(load_quickstart().data)])==0
    line = capsys.readouterr().out.splitlines()[1]
    engines = ModelRecord.load(model).engines
    int8 = engines['int8']
    assert engines['onnx']['passed'] and not int8['passed'] and int8['agreement']<.985
    assert line.startswith('int8 REFUSED (at least 98.5% and 99.5%')
    assert f"{int8['agreement']:.2%}" in line and f"accuracy {100*int8['accuracy_change']:+.1f} points" in line
    assert not (model/'onnx'/'model_int8.onnx').exists() and Predictor(model).engine=='onnx'

def test_an_earlier_int8_file_is_not_kept(splits, tmp_path):
    "Exporting again without int8 leaves no int8 file, not even the old one"
    texts = splits['train']['text'][:200]
    model = write_random(tmp_path/'m', texts)
    assert export_onnx(model, texts)['int8']['passed'] and Predictor(model).engine=='int8'
    export_onnx(model, texts, int8=False)
    assert Predictor(model).engine=='onnx' and not (model/'onnx'/'model_int8.onnx').exists()

def test_calibrated_on_the_logits_that_answer(splits, tmp_path):
    "Given the validation split, export fits the temperature to the int8 file's logits, not the float model's"
    validation = splits['validation'].select(range(200))
    labels = np.array(validation['label'])
    model = write_random(tmp_path/'m', validation['text'])
    export_onnx(model, validation['text'])
    expected = ModelRecord.load(model)
    logits = np.log(Predictor(model, 'int8').predict_proba(validation['text']))*expected.temperature
    calibrate(expected, logits, labels)
    export_onnx(model, validation['text'], labels=labels, validation=validation)
    fitted = ModelRecord.load(model)
    assert fitted.engines['int8']['passed'] and fitted.temperature==pytest.approx(expected.temperature, rel=1e-4)
    assert fitted.conformal==pytest.approx(expected.conformal, abs=1e-5)

# Memory

RESIDENT = '''
import random, sys
from sentiment_nb.inference import Predictor
from sentiment_nb.scale import predict_file
def resident():
    with open('/proc/self/status') as f: return next(int(line.split()[1]) for line in f if line.startswith('VmRSS'))
seen = []
'''

STREAM = RESIDENT + '''
def texts(n, rng=random.Random(0)):
    for _ in range(n): yield ' '.join(rng.choices(words, k=rng.choice((1, 2, 4, 8, 40))))
words = sys.argv[2].split()
for i,p in enumerate(Predictor(sys.argv[1]).predict_iter(texts(int(sys.argv[3]))), 1):
    if i%1000==0: seen.append(resident())
assert i==int(sys.argv[3])
print(*seen)
'''

FILE = RESIDENT + '''
def watch(rows, total): seen.append(resident())
assert predict_file(Predictor(sys.argv[1]), sys.argv[2], sys.argv[3], part_rows=2048, report=watch)==200_000
print(*seen)
'''

@pytest.fixture(scope='module')
def streams(splits, tmp_path_factory):
    "A tiny random encoder, and words to make texts of"
    texts = splits['train']['text'][:500]
    model = write_random(tmp_path_factory.mktemp('streams')/'m', texts)
    export_onnx(model, texts[:200])
    words = {w for t in texts[:300] for w in t.split()}
    return model, sorted(w for w in words if w.isascii() and w.isalpha())

def flat(*args):
    "Run a script that prints its resident memory while it predicts 200,000 texts: after the first 20,000 it stays within 5 %"
    command = [sys.executable, '-c', *map(str, args)]
    run = subprocess.run(command, env=environ(), capture_output=True, text=True, check=True)
    seen = np.array(run.stdout.split(), float)/1024
    tenth = len(seen)//10
    print(f'{seen[tenth-1]:.1f} MB after 20,000 texts, then {seen[tenth:].min():.1f} to {seen[tenth:].max():.1f}')
    assert len(seen)>=196 and seen[tenth:].max()<1.05*seen[tenth-1]

linux = pytest.mark.skipif(sys.platform!='linux', reason='reads /proc')

@linux
@pytest.mark.slow
def test_memory_stays_flat(streams):
    "Texts from a generator"
    model, words = streams
    flat(STREAM, model, ' '.join(words), 200_000)

@linux
@pytest.mark.slow
@pytest.mark.parametrize('suffix', ['csv', 'jsonl', 'parquet'])
def test_memory_of_a_file_stays_flat(suffix, streams, tmp_path):
    "A file read, answered and written in the same format"
    model, words = streams
    rng = random.Random(0)
    rows = ({'id': i, 'text': ' '.join(rng.choices(words, k=rng.choice((1, 2, 4, 8, 40))))} for i in range(200_000))
    write_rows(tmp_path/f'in.{suffix}', ['id', 'text'], rows, None)
    flat(FILE, model, tmp_path/f'in.{suffix}', tmp_path/f'out.{suffix}')

FORKED = """
import multiprocessing, sys
from datasets import Dataset
from sentiment_nb.inference import Predictor
predictor = Predictor(sys.argv[1], 'onnx')
texts = [f'note {i} was fine ' + 'very '*i for i in range(60)] # several batches
def score(part): return [p.label for p in predictor.predict(part)]
whole = score(texts)
with multiprocessing.get_context('fork').Pool(2) as pool:
    halves = pool.map_async(score, [texts[:30], texts[30:]]).get(timeout=100)
assert halves[0] + halves[1]==whole
def add_labels(batch): return {'label': score(batch['text'])}
mapped = Dataset.from_dict({'text': texts}).map(add_labels, batched=True, batch_size=30, num_proc=2)
assert mapped['label'][:]==whole
"""

@pytest.mark.skipif(not hasattr(os, 'fork'), reason='needs fork')
def test_after_a_fork(quick, tmp_path):
    "Children of a process that has predicted, whose threads they do not inherit, predict as well; `datasets` forks too"
    command = [sys.executable, '-c', FORKED, str(quick.model)]
    env = environ(HF_DATASETS_CACHE=str(tmp_path))
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=280)
    assert done.returncode==0, done.stderr
