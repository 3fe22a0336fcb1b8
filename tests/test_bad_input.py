"Bad input is refused in one line that says what came, what was expected and what to do; nothing is left half-written."
import gzip
import io
import json
import os
import shutil
import socketserver
import subprocess
import sys
import tarfile
import threading
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import environ, untouched

SIDES = ('bad', 'negative'), ('good', 'positive')
SPLITS = 'train', 'validation', 'test'
ENCODER_FILES = 'config.json', 'model.safetensors', 'tokenizer.json', 'tokenizer_config.json'
ROWS = [(f'film number {i} was {word}', label) for i in range(40) for word,label in SIDES]

def case(name, *values): return pytest.param(*values or (name,), id=name)

def table(rows=ROWS, header='text,label', sep=','):
    lines = [header, *(sep.join(r) for r in rows), '']
    return '\n'.join(lines).encode()

def with_row(n, row): return table([*ROWS[:n-1], row, *ROWS[n-1:]])

def damaged(blob, at=.5):
    "Eight bytes turned round"
    n = int(len(blob)*at)
    return blob[:n] + bytes(b ^ 0xff for b in blob[n:n+8]) + blob[n+8:]

def zipped(**files):
    f = io.BytesIO()
    with zipfile.ZipFile(f, 'w', zipfile.ZIP_DEFLATED) as z:
        for n,b in files.items(): z.writestr(n.replace('_csv', '.csv'), b)
    return f.getvalue()

def locked(blob):
    "A zip whose members say that they are encrypted"
    b = bytearray(blob)
    for mark,at in ((b'PK\3\4', 6), (b'PK\1\2', 8)): b[b.index(mark)+at] |= 1
    return bytes(b)

def parquet(**columns):
    f = io.BytesIO()
    pq.write_table(pa.table(columns), f)
    return f.getvalue()

def tarred(**files):
    f = io.BytesIO()
    with tarfile.open(fileobj=f, mode='w:gz') as t:
        for n,b in files.items():
            member = tarfile.TarInfo(n)
            member.size = len(b)
            t.addfile(member, io.BytesIO(b))
    return f.getvalue()

texts, labels = map(list, zip(*ROWS))
# compresses badly: damage in its middle hits the data
noise = table([(f'{i*7919**3 % 10**9:x} {w}', n) for i in range(3000) for w,n in SIDES])
twice = [(t, t, n) for t,n in ROWS]
stars = [(t, str(i%5+1)) for i,(t,_) in enumerate(ROWS)]
letters = [(t, 'abc'[i%3]) for i,(t,_) in enumerate(ROWS)]
positives = [r for r in ROWS if r[1]=='positive']
numbers = [float(n=='positive') for n in labels]
latin1 = with_row(3, ('café', 'positive')).decode().encode('latin-1')
SOURCES = { # name: file, its bytes, further arguments, what the line must hold
    'empty file': ('a.csv', b'', '', ['a.csv', 'is empty']),
    'empty gz': ('a.csv.gz', gzip.compress(b''), '', ['a.csv.gz', 'mpty']),
    'header only': ('a.csv', b'text,label\n', '', ['no rows']),
    'missing text column': ('a.csv', table(header='body,label'), '', ["'body', 'label'", '--text-column']),
    'missing label column': ('a.csv', table(header='text,stars'), '', ["'text', 'stars'", '--label-column']),
    'asked for a column that is not there': ('a.csv', table(), '--text-column body', ["'body'", "'text', 'label'", '--text-column']),
    'two text columns': ('a.csv', table(twice, 'review,tweet,label'), '', ["'review', 'tweet'", '--text-column']),
    'one name twice': ('a.csv', table(twice, 'text,text,label'), '', ["two columns called 'text'"]),
    'one class': ('a.csv', table(positives), '', ['positive', 'two classes']),
    'unknown labels': ('a.csv', table(stars), '', ["'1', '2', '3', '4', '5'", '--labels']),
    'label not in the mapping': ('a.csv', table(letters), '--labels a=negative,b=positive', ["'c'", '--labels']),
    'mapping to an unknown class': ('a.csv', table(), '--labels negative=bad,positive=good', ['bad', 'negative, neutral, positive']),
    'mapping without classes': ('a.csv', table(), '--labels negative', ["'negative'", 'SPELLING=CLASS']),
    'empty text': ('a.csv', with_row(3, ('', 'positive')), '', ['no text in 1 of its rows', 'row 3', '--drop-empty']),
    'blank text': ('a.csv', with_row(3, ('  ', 'positive')), '', ['no text in 1 of its rows', 'row 3', '--drop-empty']),
    'empty label': ('a.csv', with_row(3, ('fine', '')), '', ['no label in 1 of its rows']),
    'NaN label': ('a.csv', with_row(3, ('fine', 'NaN')), '', ['no label in 1 of its rows']),
    'NaN text': ('a.parquet', parquet(text=[*texts, None], label=[*labels, 'positive']), '', ['no text in 1 of its rows', 'row 81']),
    'null label': ('a.parquet', parquet(text=[*texts, 'fine'], label=[*labels, None]), '', ['no label in 1 of its rows']),
    'NaN in a number label': ('a.parquet', parquet(text=[*texts, 'fine'], label=[*numbers, float('nan')]), '', ['no label in 1 of its rows']),
    'latin-1 read as UTF-8': ('a.csv', latin1, '--encoding utf-8', ['a.csv', '--encoding']),
    'UTF-8 read as ASCII': ('a.csv', with_row(3, ('café', 'positive')), '--encoding ascii', ['a.csv', '--encoding']),
    'UTF-8 read as UTF-16': ('a.csv', table() + b'x', '--encoding utf-16', ['a.csv']),
    'UTF-16 without a mark': ('a.csv', table().decode().encode('utf-16-le'), '', ['a.csv']),
    'unknown encoding': ('a.csv', table(), '--encoding klingon', ["'klingon'", 'utf-8']),
    'wrong delimiter': ('a.csv', table(), '--delimiter ;', ["'text,label'"]),
    'delimiter of two signs': ('a.csv', table(), '--delimiter ||', ['||', '--delimiter']),
    'ragged row': ('a.csv', table() + b'one,positive,more\n', '', ['a.csv', '3']),
    'spreadsheet': ('a.ods', zipped(sheet=b'<x/>'), '', ['.xlsx', '.csv']),
    'broken parquet': ('a.parquet', damaged(parquet(text=texts, label=labels)), '', ['a.parquet']),
    'cut parquet': ('a.parquet', parquet(text=texts, label=labels)[:-100], '', ['a.parquet']),
    'text is a list': ('a.parquet', parquet(text=[[t] for t in texts], label=labels), '', ['text']),
    'not a gz': ('a.csv.gz', table(), '', ['a.csv.gz']),
    'cut gz': ('a.csv.gz', gzip.compress(noise)[:-2000], '', ['a.csv.gz']),
    'broken gz': ('a.csv.gz', damaged(gzip.compress(noise)), '', ['a.csv.gz']),
    'not a zip': ('a.zip', table(), '', ['a.zip']),
    'cut zip': ('a.zip', zipped(a_csv=noise)[:-2000], '', ['a.zip']),
    'broken zip': ('a.zip', damaged(zipped(a_csv=noise)), '', ['a.zip']),
    'zip with two tables': ('a.zip', zipped(a_csv=table(), b_csv=table()), '', ['2 files', 'unpack']),
    'zip with a password': ('a.zip', locked(zipped(a_csv=table())), '', ['a.zip']),
    'not a tar.gz': ('a.tar.gz', table(), '', ['a.tar.gz']),
    'tar.gz of something else': ('a.tar.gz', tarred(**{'x/readme.txt': b'hello'}), '', ['a.tar.gz', 'aclImdb']),
    'broken tar.gz': ('a.tar.gz', damaged(tarred(**{'aclImdb/train/pos/0_9.txt': noise})), '', ['a.tar.gz']),
    'review without a rating': ('a.tar.gz', tarred(**{'aclImdb/train/pos/readme.txt': b'hello'}), '', ['readme.txt']),
    'broken JSON line': ('a.jsonl', b'{"text": "fine", "label": "positive"}\n{"text": "ba\n', '', ['a.jsonl']),
    'JSON text is a list': ('a.jsonl', b'{"text": ["fine"], "label": "positive"}\n{"text": ["bad"], "label": "negative"}\n', '', ['text']),
    'JSON label is an object': ('a.jsonl', b'{"text": "fine", "label": {"v": 1}}\n{"text": "bad", "label": {"v": 0}}\n', '', ['label']),
    'lone surrogate in JSON': ('a.jsonl', b'{"text": "a \\ud83d b", "label": "positive"}\n{"text": "bad", "label": "negative"}\n', '', ['a.jsonl']),
    'limit of none': ('a.csv', table(), '--limit 0', ['limit', '0']),
    'limit below none': ('a.csv', table(), '--limit -5', ['limit', '-5']),
    'four classes': ('a.csv', table(), '--classes 4', ['4', '2']),
    'unknown policy': ('a.csv', table(), '--policy loud', ["'loud'", 'minimal']),
    'unknown format': ('a.csv', table(), '--format xml', ["'xml'", 'parquet']),
    'unknown way to split': ('a.csv', table(), '--by colour', ["'colour'", 'label']),
    'no users to split by': ('a.csv', table(), '--by user', ['user', 'text, label']),
    'seed below none': ('a.csv', table(), '--seed -1', ['seed', '-1']),
    'a date as a seed': ('a.csv', table(), '--seed 202401311200', ['seed', '4294967295', '--seed']),
    'too few rows to split': ('a.csv', table(ROWS[:3]), '', ['a.csv', '3']),
    'hardly a row of one class': ('a.csv', table([*positives, ROWS[0]]), '', ['a.csv']),
}

@pytest.mark.parametrize('case', list(map(case, SOURCES)))
def test_prepare_refuses(case, refuses, workdir):
    "A source or setting that `prepare` cannot use"
    name, blob, args, parts = SOURCES[case]
    (workdir/name).write_bytes(blob)
    refuses(['prepare', name, *args.split(), '--out', 'out'], *parts)

MISSING = ['missing.csv', 'folder/missing.csv', 'folder/missing.csv.gz', 'folder/missing.zip', 'folder/missing.txt',
    'missing.tar.gz']

@pytest.mark.parametrize('name', list(map(case, MISSING)))
def test_no_such_file(name, refuses):
    "A path that is not there is called so, and is looked for on no hub"
    err = refuses(['prepare', name, '--out', 'out'], name, 'does not exist')
    assert 'hub' not in err

def test_folder_for_a_file(refuses, workdir):
    "A folder without a known layout"
    (workdir/'folder').mkdir()
    refuses(['prepare', 'folder', '--out', 'out'], 'folder', 'name a file')

def test_data_folder_variable(refuses, workdir, monkeypatch):
    "SENTIMENT_NB_DATA has to name a folder"
    monkeypatch.setenv('SENTIMENT_NB_DATA', 'nowhere')
    refuses(['prepare', 'imdb', '--out', 'out'], 'SENTIMENT_NB_DATA', 'nowhere')

def test_sentiment140_without_a_copy(refuses):
    "Says where the data set is published and where to put it"
    refuses(['prepare', 'sentiment140', '--out', 'out'], 'https://', 'SENTIMENT_NB_DATA')

GUESSED = ('warning: a.csv is not UTF-8 and is read as cp1252; '
    'if letters look wrong, name the encoding by --encoding\n')

@pytest.mark.parametrize('encoding, text', [('cp1252', '“naïve” café – 5 €'), ('utf-8-sig', '007'),
    ('utf-16', 'café ☕ да')])
def test_other_encodings_are_read(encoding, text, cli, workdir):
    "Windows-1252 gets a warning, a byte order mark is obeyed, and numbers stay the text they were"
    from sentiment_nb.data import load_source
    (workdir/'a.csv').write_bytes(table([(text, 'positive'), *ROWS]).decode().encode(encoding))
    done = cli('prepare', 'a.csv', '--out', 'out')
    is_guessed = encoding=='cp1252'
    assert done.code==0, done
    assert done.err==(GUESSED if is_guessed else '')
    if not is_guessed: assert load_source('a.csv')['train']['text'][0]==text
    assert text in load_source('a.csv', encoding=encoding if is_guessed else None)['train']['text'][:]
    prepared = [pq.read_table(workdir/'out'/f'{s}.parquet')['text'].to_pylist() for s in SPLITS]
    assert text in sum(prepared, [])

@pytest.mark.parametrize('sign', [case('tab', '\t'), case('backslash t', '\\t')])
def test_delimiter_tab(sign, cli, workdir):
    "A tab may be given as shells give it"
    (workdir/'a.csv').write_bytes(table(header='text\tlabel', sep='\t'))
    assert cli('prepare', 'a.csv', '--delimiter', sign, '--out', 'out').code==0

def test_ten_rows_can_be_split(cli, workdir):
    "A first try with a handful of rows ends in data or in one line, never in a traceback"
    (workdir/'a.csv').write_bytes(table(ROWS[:10]))
    done = cli('prepare', 'a.csv', '--out', 'out')
    assert done.code==0 or done.code==2 and done.err.count('\n')==1

# Where results go

def test_other_files_are_kept(refuses, workdir):
    "A folder that holds something else is not replaced"
    (workdir/'a.csv').write_bytes(table())
    (workdir/'thesis').mkdir()
    (workdir/'thesis'/'chapter1.txt').write_text('years of work')
    refuses(['prepare', 'a.csv', '--out', 'thesis'], 'thesis', 'other files', '--out')

@pytest.mark.parametrize('out', [case('a.csv'), case('a.csv/out'), case('long name', 'x'*300)])
def test_no_place_for_a_folder(out, refuses, workdir):
    "A file stands where the folder, or a folder above it, should; a name too long for any disk"
    (workdir/'a.csv').write_bytes(table())
    refuses(['prepare', 'a.csv', '--out', out], out)

HOLD = '''import time
from sentiment_nb.core import atomic_folder
with atomic_folder('out'):
    print('held', flush=True)
    time.sleep(600)
'''

@pytest.fixture
def held(workdir):
    "Another live process is writing into `out`"
    command = [sys.executable, '-c', HOLD]
    p = subprocess.Popen(command, cwd=workdir, env=environ(), stdout=subprocess.PIPE, text=True)
    assert p.stdout.readline()=='held\n'
    yield p
    p.kill()
    p.wait()
    p.stdout.close()

def test_folder_in_use(held, refuses, workdir, cli, shell):
    "The second process is refused, whatever the command; when the first is gone, the place is free"
    (workdir/'a.csv').write_bytes(table())
    refuses(['prepare', 'a.csv', '--out', 'out'], 'out', 'in use')
    refuses(['train', 'data', '--model', 'linear', '--out', 'out'], 'out', 'in use', run=shell)
    held.kill()
    held.wait()
    assert cli('prepare', 'a.csv', '--out', 'out').code==0
    assert sorted(p.name for p in workdir.iterdir())==['.out.lock', 'a.csv', 'out']

# The hub

OFFLINE = {'prepare': ['tweets', 'SENTIMENT_NB_DATA'], 'train': ['--model minilm', 'folder']}

@pytest.fixture
def silent_hub():
    "A server that hangs up on every client, and counts"
    visits = []
    class HangUp(socketserver.BaseRequestHandler):
        def handle(self): visits.append(self.client_address)
    with socketserver.ThreadingTCPServer(('127.0.0.1', 0), HangUp) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f'http://127.0.0.1:{server.server_address[1]}', visits
        server.shutdown()

def data_or_encoder(data, encoder):
    "The two commands that may need the hub"
    commands = [['prepare', data], ['train', '{data}', '--model', encoder]]
    return pytest.mark.parametrize('args', commands, ids=['data', 'encoder'])

@data_or_encoder('imdb', 'distilbert')
def test_hub_cannot_be_reached(args, tiny, refuses, shell, silent_hub, tmp_path_factory):
    """That is reported after one attempt, without the hub client's minutes of retries

    The message names the ways that need no hub.
    """
    url, visits = silent_hub
    refuses([a.format(data=tiny.data) for a in args] + ['--out', 'out'], url, *OFFLINE[args[0]], run=shell,
        HF_HUB_OFFLINE='0', HF_ENDPOINT=url, HF_HOME=str(tmp_path_factory.mktemp('hf')))
    assert len(visits)==1

@data_or_encoder('somebody/reviews', 'somebody/encoder')
def test_hub_may_not_be_asked(args, tiny, refuses):
    "With HF_HUB_OFFLINE=1, what the local cache lacks is reported in the same way"
    refuses([a.format(data=tiny.data) for a in args] + ['--out', 'out'], args[-1], *OFFLINE[args[0]])

def test_endpoint_that_is_no_address(monkeypatch):
    "An HF_ENDPOINT without https:// is a mistake of the user, not of the program"
    from sentiment_nb.core import InputError, check_hub
    monkeypatch.setenv('HF_ENDPOINT', 'hub.example')
    with pytest.raises(InputError, match='hub.example'): check_hub('the data set', 'Give a file.')

# train, evaluate, export

@pytest.mark.parametrize('args, parts', [
    ('nowhere', ['nowhere', 'sentiment-nb prepare']),
    ('{data} --model bert', ["'bert'", 'minilm, distilbert, linear']),
    ('{data} --model no/such/folder', ["'no/such/folder'", 'minilm, distilbert, linear']),
    ('{data} --model minilm --max-length 3', ['3', '4 to 512']),
    ('{data} --model minilm --max-length 513', ['513', '4 to 512']),
    ('{data} --model minilm --truncation middle', ["'middle'", 'head+tail']),
    ('{data} --model minilm --policy loud', ["'loud'", 'minimal']),
    ('{data} --model minilm --limit 0', ['limit', '0']),
    ('{data} --model minilm --limit 1', ['limit', '1']),
    ('{data} --model minilm --limit -1', ['limit', '-1']),
    ('{data} --model minilm --epochs 0', ['epochs', '0']),
    ('{data} --model minilm --epochs -1', ['epochs', '-1']),
    ('{data} --model minilm --batch-size 0', ['batch_size', '0']),
    ('{data} --model minilm --learning-rate -1', ['learning_rate', '-1']),
    ('{data} --model minilm --learning-rate 0', ['learning_rate', '0']),
    ('{data} --model minilm --freeze-layers 7', ['freeze_layers', '7', '0 to 6']),
    ('{data} --model minilm --seed -1', ['seed', '-1']),
    ('{data} --model minilm --seed 4294967296', ['seed', '4294967295']),
    ('{data} --model minilm --epochs nan', ['epochs', 'nan']),
    ('{data} --model minilm --learning-rate inf', ['learning_rate', 'inf']),
    ('{data} --model linear --limit -1', ['limit', '-1']),
    ('{data} --model linear --limit 9 --seed 4294967296', ['seed', '4294967295']),
    ('{data} --model minilm --report-to nobody', ['nobody']),
    ('{data} --model linear --policy loud', ["'loud'", 'minimal']),
])
def test_train_refuses(args, parts, refuses, tiny):
    "Data, encoder or setting that `train` cannot use"
    limit = [] if '--limit' in args or 'linear' in args else ['--limit', '64']
    refuses(['train', *args.format(data=tiny.data).split(), *limit, '--out', 'out'], *parts)

@pytest.mark.parametrize('file, blob', [('train.parquet', b'PAR1 and no more'), ('train.parquet', None),
    ('validation.parquet', None), ('prepared.json', b'{'), ('prepared.json', b'{}'), ('prepared.json', b'\xff')])
def test_train_refuses_damaged_data(file, blob, refuses, tiny, workdir):
    "Prepared data with a file that is missing or broken"
    shutil.copytree(tiny.data, workdir/'data')
    if blob is None: (workdir/'data'/file).unlink()
    else: (workdir/'data'/file).write_bytes(blob)
    refuses(['train', 'data', '--model', 'linear', '--out', 'out'], 'data')

@pytest.mark.parametrize('file, blob', [('config.json', None), ('config.json', b'{'), ('config.json', b'{}'),
    ('model.safetensors', None), ('model.safetensors', b'no tensors'), ('tokenizer.json', b'{')])
def test_train_refuses_a_damaged_encoder(file, blob, refuses, tiny, workdir):
    "A local folder that does not hold a whole encoder"
    encoder = workdir/'encoder'
    encoder.mkdir()
    for n in ENCODER_FILES: (encoder/n).symlink_to(tiny.model/n)
    (encoder/file).unlink()
    if blob is not None: (encoder/file).write_bytes(blob)
    refuses(['train', tiny.data, '--model', 'encoder', '--limit', '64', '--out', 'out'], 'encoder')

def test_train_takes_no_pickles(refuses, tiny, workdir):
    "Weights that would have to be unpickled are not loaded"
    (workdir/'encoder').mkdir()
    for n in ENCODER_FILES:
        if n!='model.safetensors': shutil.copy(tiny.model/n, workdir/'encoder')
    (workdir/'encoder'/'pytorch_model.bin').write_bytes(b'\x80\x04N.')
    refuses(['train', tiny.data, '--model', 'encoder', '--limit', '64', '--out', 'out'], 'encoder', 'safetensors')

def test_quickstart_refuses(refuses):
    "Another number of classes, before anything is loaded"
    refuses(['quickstart', '--classes', '4', '--out', 'out'], 'classes is 4', '(--classes)')

@pytest.mark.parametrize('args, parts', [
    ('nowhere {data}', ['nowhere', 'sentiment-nb quickstart']),
    ('{model} nowhere', ['nowhere', 'check the path']),
    ('{model} {data} --split exam', ["'exam'", 'train']),
    ('{model} {data} --limit 0', ['limit', '0']),
    ('{model} {data} --limit -1', ['limit', '-1']),
    ('{model} {data} --baselines nowhere', ['nowhere']),
    ('{model} {three}', ['neutral', '--classes 2']),
    ('{model} {data} --limit 50 --baselines {report}', ['report', 'other texts']),
])
def test_evaluate_refuses(args, parts, refuses, tiny, cli, workdir, tmp_path_factory):
    "A model, data set or split that `evaluate` cannot use"
    three = tmp_path_factory.mktemp('three')
    if '{three}' in args: assert cli('prepare', 'tweets', '--classes', 3, '--limit', 200, '--out', three/'data').code==0
    args = args.format(data=tiny.data, model=tiny.model, report=tiny.report, three=three/'data')
    refuses(['evaluate', *args.split(), '--out', 'out'], *parts)

def test_export_refuses_a_linear_model(refuses, tiny):
    "Nothing to export"
    refuses(['export', tiny.linear], 'linear', 'transformer')

@pytest.mark.parametrize('file', ['model.safetensors', 'config.json', 'tokenizer.json', 'sentiment_nb.json'])
def test_export_refuses_an_altered_model(file, refuses, tiny, model_with):
    "One other byte in what is exported"
    refuses(['export', model_with(file, damaged), '--data', tiny.data], file)

# predict

@pytest.fixture
def model_with(tiny, workdir):
    "A copy of the tiny model, or of the linear one, in which one file is changed by a function of its bytes, or gone"
    def make(file, change, of=tiny.model):
        copy = workdir/'m'
        shutil.copytree(of, copy, copy_function=os.symlink)
        blob = (copy/file).read_bytes()
        (copy/file).unlink()
        if change: (copy/file).write_bytes(change(blob))
        return copy
    return make

def flip(blob, n): return blob[:n] + bytes([blob[n] ^ 1]) + blob[n+1:]
def one_bit(blob): return flip(blob, len(blob)//2)
def one_bit_of_a_hash(blob): return flip(blob, blob.index(b'  tokenizer.json')-1)
def high_bit(blob): return bytes([blob[0] ^ 0x80]) + blob[1:]
def newer(blob): return json.dumps(json.loads(blob) | {'format': 99}).encode()
def unlisted(blob): return b''.join(line + b'\n' for line in blob.splitlines() if b'tokenizer.json' not in line)

DAMAGE = {'missing': None, 'one bit of': one_bit, 'first byte of': high_bit}
LOADED = 'engine', 'tokenizer.json', 'sentiment_nb.json', 'SHA256SUMS'

@pytest.mark.parametrize('change, file', [case(f'{n} {f}', c, f) for n,c in DAMAGE.items() for f in LOADED])
def test_predict_refuses_a_damaged_model(change, file, refuses, tiny, model_with):
    "Every file that `predict` loads has to be there as it was saved"
    from sentiment_nb.inference import ENGINES, Predictor
    if file=='engine': file = ENGINES[Predictor(tiny.model).engine][1]
    if file=='SHA256SUMS' and change is one_bit: change = one_bit_of_a_hash
    model = model_with(file, change)
    refuses(['predict', '--model', model, '--text', 'fine'], str(model))

@pytest.mark.parametrize('change', [None, one_bit], ids=['missing', 'one bit'])
def test_predict_refuses_a_damaged_linear_model(change, refuses, tiny, model_with):
    "The linear model's one file"
    refuses(['predict', '--model', model_with('linear.skops', change, tiny.linear), '--text', 'fine'], 'm')

@pytest.mark.parametrize('file, change, parts', [
    ('sentiment_nb.json', newer, ['99', 'upgrade']),
    ('sentiment_nb.json', lambda b: b'{', ['JSON']),
    ('sentiment_nb.json', lambda b: b'[]', ['format']),
    ('sentiment_nb.json', lambda b: b'{"format": 1}', ['fields']),
    ('SHA256SUMS', unlisted, ['tokenizer.json'])])
def test_predict_refuses_a_model_it_cannot_know(file, change, parts, refuses, model_with):
    "A record of a later version or of none; a file without a hash"
    refuses(['predict', '--model', model_with(file, change), '--text', 'fine'], *parts)

def test_predict_refuses_in_a_process(refuses, shell, model_with):
    "The exit code and the one line as a shell sees them"
    model = model_with('tokenizer.json', one_bit)
    refuses(['predict', '--model', model, '--text', 'fine'], 'tokenizer.json', 'SHA-256', run=shell)
    refuses(['predict', '--model', 'nowhere', '--text', 'fine'], 'nowhere', 'quickstart', run=shell)

@pytest.mark.parametrize('args, parts', [('', ['--text', '--file']),
    ('--text fine --file a.csv', ['--text', '--file']), ('--file a.csv', ['--out'])])
def test_predict_wants_one_input(args, parts, refuses, tiny):
    "A text or a file, and for a file a place"
    refuses(['predict', '--model', tiny.model, *args.split()], *parts)

changing = b'{"text": "fine", "x": 1}\n'*2048 + b'{"text": "bad", "x": "one"}\n' # the type of a column
cafe = 'text\nfine\ncafé\n'.encode('latin-1')
FILES = { # name: file, its bytes, where to write, further arguments, what the line must hold
    'no such file': ('a.csv', None, 'out.csv', '', ['a.csv', 'does not exist']),
    'empty file': ('a.csv', b'', 'out.csv', '', ['a.csv']),
    'header and no row': ('a.csv', b'text\n', 'out.csv', '', ['a.csv', 'no rows']),
    'empty JSON Lines': ('a.jsonl', b'', 'out.csv', '', ['a.jsonl', 'no rows']),
    'missing column': ('a.csv', b'body,x\nfine,1\n', 'out.csv', '', ["'body', 'x'", '--text-column']),
    'asked for a column that is not there': ('a.csv', b'text\nfine\n', 'out.csv', '--text-column body', ["'text'", '--text-column']),
    'latin-1 called UTF-8': ('a.csv', cafe, 'out.csv', '--encoding utf-8', ['a.csv', '--encoding']),
    'unknown encoding': ('a.csv', b'text\nfine\n', 'out.csv', '--encoding klingon', ['klingon', '--encoding']),
    'spreadsheet': ('a.ods', b'PK', 'out.csv', '', ['.xlsx', '.csv']),
    'unknown kind of result': ('a.csv', b'text\nfine\n', 'out.ods', '', ['.xlsx', '.csv']),
    'result under a file': ('a.csv', b'text\nfine\n', 'a.csv/out.csv', '', ['a.csv']),
    'more fields': ('a.csv', b'text,x\nfine,1\nbad,2,3\n', 'out.csv', '', ['row 2', 'more fields']),
    'fewer fields': ('a.csv', b'x,text\n1,fine\n2\n', 'out.csv', '', ['row 2', 'fewer fields']),
    'quote never closed': ('a.csv', b'text\n"a\nsecond\nthird\n', 'out.csv', '', ['cannot be read']),
    'JSON cut short': ('a.jsonl', b'{"text": "fine"}\n{"text": \n', 'out.jsonl', '', ['a.jsonl']),
    'JSON line is a list': ('a.jsonl', b'{"text": "fine"}\n["bad"]\n', 'out.jsonl', '', ['row 2']),
    'JSON line is a number': ('a.jsonl', b'{"text": "fine"}\n5\n', 'out.jsonl', '', ['row 2']),
    'JSON text is a number': ('a.jsonl', b'{"text": "fine"}\n{"text": 5}\n', 'out.jsonl', '', ['row 2']),
    'Parquet that is none': ('a.parquet', b'text\nfine\n', 'out.csv', '', ['a.parquet', 'cannot be read']),
    'Parquet cut short': ('a.parquet', parquet(text=['fine'])[:-9], 'out.csv', '', ['a.parquet', 'cannot be read']),
    'Parquet without the column': ('a.parquet', parquet(body=['fine'], x=[1]), 'out.csv', '', ["'body', 'x'", '--text-column']),
    'Parquet text is a number': ('a.parquet', parquet(text=[1]), 'out.parquet', '', ['row 1']),
    'a column whose type changes': ('a.jsonl', changing, 'out.parquet', '', ['a.jsonl', 'int64']),
}

@pytest.mark.parametrize('case', list(map(case, FILES)))
def test_predict_refuses_a_file(case, refuses, tiny, workdir):
    "A file that cannot be predicted leaves no result"
    name, blob, out, args, parts = FILES[case]
    if blob is not None: (workdir/name).write_bytes(blob)
    refuses(['predict', '--model', tiny.model, '--file', name, '--out', out, *args.split()], *parts)

def test_predict_refuses_an_empty_folder(refuses, tiny, workdir):
    "It is called one; nobody is sent to look for a file that is not there"
    (workdir/'reviews').mkdir()
    refuses(['predict', '--model', tiny.linear, '--file', 'reviews', '--out', 'out.csv'], 'reviews is a folder without a table')

@pytest.mark.parametrize('args', ['evaluate {linear} {data} --out out.csv', 'check {linear} --out out.csv'])
def test_one_place_one_run(args, refuses, tiny, workdir):
    "The second is refused at its beginning, also where the result is a file, or is written minutes later"
    from sentiment_nb.core import reserve_output
    (workdir/'a.csv').write_text('text\nfine\n')
    command = args.format(linear=tiny.linear, data=tiny.data).split()
    with reserve_output('out.csv'): refuses(command, 'out.csv', 'in use')

def test_others_may_read_a_model(tiny, workdir):
    "Its files have the mode that the umask gives, whichever library wrote them"
    (workdir/'new').touch()
    mode = (workdir/'new').stat().st_mode
    assert {p.stat().st_mode for p in tiny.model.rglob('*') if p.is_file()}=={mode}

@pytest.mark.parametrize('flags', ['--json', '--explain'])
def test_a_console_that_is_not_utf8(flags, tiny, workdir, monkeypatch):
    "JSON is the same everywhere; words for people lose the letters that the console lacks, and no more"
    from sentiment_nb.cli import main
    console = io.TextIOWrapper(io.BytesIO(), encoding='cp1252')
    monkeypatch.setattr(sys, 'stdout', console)
    command = ['predict', '--model', str(tiny.linear), '--text', 'tr\u00e8s bien \U0001f600', '--explain']
    assert main([*command, flags])==0
    printed = console.buffer.getvalue().decode('cp1252')
    if flags=='--explain': assert 'tr\u00e8s' in printed and '  ?\n' in printed
    else: assert printed.isascii() and {'text': '\U0001f600'}.items() <= json.loads(printed)['evidence'][-1].items()

def test_an_unexpected_error(cli, workdir, monkeypatch):
    "One line with the place of the traceback, exit status 1"
    from sentiment_nb.cli import COMMANDS
    def key():
        "A command with a bug"
        raise RuntimeError('one thing\nand another')
    monkeypatch.setitem(COMMANDS, 'key', key)
    monkeypatch.setenv('SENTIMENT_NB_CACHE', str(workdir/'cache'))
    done = cli('key')
    kept, = (workdir/'cache').iterdir()
    assert done.code==1 and done.out=='' and done.err.count('\n')==1 and str(kept) in done.err
    assert 'unexpected RuntimeError: one thing.' in done.err and 'and another' in kept.read_text()

@pytest.mark.parametrize('encoding', ['cp1252', 'utf-16', 'utf-8-sig'])
def test_predict_finds_the_encoding(encoding, cli, tiny, workdir):
    "As `prepare` does, and a guess gets a warning"
    (workdir/'a.csv').write_bytes('id;text\n1;“naïve” café – 5 €\n'.encode(encoding))
    done = cli('predict', '--model', tiny.model, '--file', 'a.csv', '--out', 'out.jsonl')
    assert done.code==0, done.err
    row = json.loads((workdir/'out.jsonl').read_text(encoding='utf-8'))
    assert row['text']=='“naïve” café – 5 €', done.err
    assert ('read as cp1252' in done.err)==(encoding=='cp1252')

def test_own_columns_are_kept(cli, tiny, workdir):
    """A table that has labels of its own keeps them

    Only a column of ours whose name is taken gets another, as the help explains.
    """
    (workdir/'a.csv').write_text('text,label,prob_negative\nfine,1,x\n')
    def predict_row(source, out):
        assert cli('predict', '--model', tiny.model, '--file', source, '--out', out).code==0
        return json.loads((workdir/out).read_text())
    once = predict_row('a.csv', 'b.jsonl')
    again = predict_row('b.jsonl', 'c.jsonl')
    assert again.items()>=once.items()>={'text': 'fine', 'label': '1', 'prob_negative': 'x'}.items()
    first = ['predicted_label', 'confidence', 'uncertain', 'truncated', 'predicted_prob_negative', 'prob_positive']
    second = [f'predicted_{n}' for n in first]
    assert list(again)==['text', 'label', 'prob_negative', *first, *second]
    assert [again[n] for n in first]==[again[n] for n in second]
    assert 'predicted_NAME' in cli('predict', '--help').out

def test_earlier_result_survives(refuses, tiny, workdir):
    "A row that stops the work in the middle does not cost the result of yesterday"
    (workdir/'a.csv').write_text('text,x\n' + 'fine,1\n'*2050 + 'bad,2,3\n')
    (workdir/'out.csv').write_text('yesterday')
    refuses(['predict', '--model', tiny.model, '--file', 'a.csv', '--out', 'out.csv'], 'row 2,051')

HOSTILE = {'1 MB': 'fine ' * 200_000, '1 MB of one word': 'a'*10**6, 'lone surrogate': 'a \ud83d b', 'NUL': 'a\0b',
    'nothing': '', 'blank': ' \t ', 'signs': '<<<&#&amp;'}

@pytest.mark.parametrize('text', [case(n, t) for n,t in HOSTILE.items() if t.strip()])
def test_hostile_text_is_predicted(text, cli, tiny):
    "Whatever a text holds, it gets a prediction"
    done = cli('predict', '--model', tiny.model, '--text', text, '--json')
    assert done.code==0 and json.loads(done.out)['label'] in ('negative', 'positive')

@pytest.mark.parametrize('text', ['', ' \t '])
def test_empty_text_is_refused(text, refuses, tiny):
    refuses(['predict', '--model', tiny.model, '--text', text], 'empty')

@pytest.mark.parametrize('text', [case(f'file with {n}', t) for n,t in HOSTILE.items()])
def test_hostile_rows_are_predicted(text, cli, tiny, workdir):
    "The same in a file, which keeps its text"
    (workdir/'a.jsonl').write_text(json.dumps({'text': text}) + '\n')
    done = cli('predict', '--model', tiny.model, '--file', 'a.jsonl', '--out', 'out.jsonl')
    assert done.code==0, done.err
    kept = [text, text.replace('\ud83d', '\ufffd'), text.replace('\ud83d', '?')]
    assert json.loads((workdir/'out.jsonl').read_text())['text'] in kept, done.err
    (workdir/'a.csv').write_bytes(f'id,text\n1,"{text}"\n'.encode(errors='replace'))
    done = cli('predict', '--model', tiny.model, '--file', 'a.csv', '--out', 'out.csv')
    assert done.code==0, done.err
    header = 'id,text,label,confidence,uncertain,truncated,prob_negative,prob_positive'
    assert (workdir/'out.csv').read_text().startswith(header), done.err
    assert ('no text in 1 of 1 rows' in done.err)==(not text.strip())

def test_undecodable_argument(tiny, shell):
    "Bytes of a command line that are no text in its encoding"
    done = shell('predict', '--model', tiny.model, '--text', 'caf\udce9')
    assert done.code==0 and done.out.startswith('Prediction: '), done.err

def test_model_variable(cli, refuses, tiny, monkeypatch):
    "SENTIMENT_NB_MODEL names the model where --model does not; without both the message names the default"
    refuses(['predict', '--text', 'fine'], 'models/quickstart', 'sentiment-nb quickstart')
    monkeypatch.setenv('SENTIMENT_NB_MODEL', str(tiny.model))
    assert cli('predict', '--text', 'fine').out.startswith('Prediction: ')
    monkeypatch.setenv('SENTIMENT_NB_MODEL', 'nowhere')
    refuses(['predict', '--text', 'fine'], 'nowhere')

def test_nothing_is_written_by_predict(cli, tiny):
    "Predicting leaves a model folder as it is"
    with untouched(tiny.home): assert cli('predict', '--model', tiny.model, '--text', 'fine').code==0
