"What is installed from the wheel predicts, and brings no framework."
import json
import os
import re
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import httpx
import pytest
from conftest import root
from sentiment_nb.core import FORMAT
from sentiment_nb.inference import exported_quickstart

pytestmark = pytest.mark.slow
heavy = 'torch transformers datasets pandas pyarrow sklearn scipy matplotlib skops'.split()

def run(*args, cwd, **env):
    "Output of a process that must succeed, outside the checkout and its environment"
    outer = {k: v for k,v in os.environ.items() if not k.startswith(('SENTIMENT_NB_', 'PYTHONPATH'))}
    p = subprocess.run(list(map(str, args)), cwd=cwd, capture_output=True, text=True, timeout=600, env=outer | env)
    assert p.returncode==0, p.stdout + p.stderr
    return p.stdout

@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    "The wheel, built from a copy of the checkout with notebooks, data and models lying about"
    copy = tmp_path_factory.mktemp('source')
    ignore = shutil.ignore_patterns('__pycache__')
    for name in ('sentiment_nb', 'nbs', 'tests'): shutil.copytree(root/name, copy/name, symlinks=True, ignore=ignore)
    for name in ('settings.ini', 'setup.py', 'MANIFEST.in', 'README.md', 'LICENSE', 'CITATION.cff'):
        if (root/name).exists(): shutil.copy(root/name, copy)
    for name in ('data/processed/train.parquet', 'models/m/model.safetensors', 'sentiment_nb/left.ipynb', 'sentiment_nb/left.csv'):
        (copy/name).parent.mkdir(parents=True, exist_ok=True)
        (copy/name).write_bytes(b'x')
    run(sys.executable, '-m', 'build', '--wheel', '--outdir', 'dist', '.', cwd=copy)
    return next((copy/'dist').glob('*.whl'))

@pytest.fixture(scope='module')
def installed(wheel, tmp_path_factory):
    "`bin` of an empty environment with the wheel and what it asks for, at the versions that were tested"
    home = tmp_path_factory.mktemp('installed')
    run(sys.executable, '-m', 'venv', 'venv', cwd=home)
    bin = home/'venv'/('Scripts' if os.name=='nt' else 'bin')
    run(bin/'python', '-m', 'pip', 'install', '--quiet', '-c', root/'constraints.txt', wheel, cwd=home)
    return bin

def test_wheel_holds_the_package_and_no_more(wheel):
    "Modules, the mark of types and metadata; no notebook, data or weights"
    with zipfile.ZipFile(wheel) as z: names = [n for n in z.namelist() if '.dist-info/' not in n]
    package = [p for p in (root/'sentiment_nb').iterdir() if p.suffix in ('.py', '.txt') or p.name=='py.typed']
    assert set(names)=={f'sentiment_nb/{p.name}' for p in package}

def test_nothing_heavy_is_installed(installed, tmp_path):
    "The base requirements bring neither a framework nor tables, and fit each other"
    script = f'import importlib.util as u; print(*[n for n in {heavy} if u.find_spec(n)])'
    assert run(installed/'python', '-c', script, cwd=tmp_path).split()==[]
    run(installed/'python', '-m', 'pip', 'check', cwd=tmp_path)

def test_installed_command_predicts(installed, tiny, tmp_path):
    "--help, --version, a text and a file, as in the full environment"
    shutil.copytree(tiny.model, tmp_path/'m')
    assert 'predict' in run(installed/'sentiment-nb', '--help', cwd=tmp_path)
    assert run(installed/'sentiment-nb', '--version', cwd=tmp_path).startswith('sentiment_nb ')
    predict = installed/'sentiment-nb', 'predict', '--model', 'm'
    prediction = json.loads(run(*predict, '--text', 'I love it', '--json', cwd=tmp_path))
    here = json.loads(tiny.printed[-1])
    assert prediction['label']==here['label'] and abs(prediction['confidence']-here['confidence'])<1e-6
    (tmp_path/'a.csv').write_text('text\nI love it\nI hate it\n')
    run(*predict, '--file', 'a.csv', '--out', 'b.csv', cwd=tmp_path)
    assert len((tmp_path/'b.csv').read_text().splitlines())==3

def test_installed_command_serves(installed, tiny, tmp_path):
    "Over HTTP, with nothing but the base requirements"
    command = [installed/'sentiment-nb', 'serve', '--model', tiny.model, '--port', '0']
    path = tmp_path/'log'
    with open(path, 'w') as log: p = subprocess.Popen(command, cwd=tmp_path, stderr=log)
    try:
        for _ in range(600):
            printed = path.read_text()
            if '"ready"' in printed or p.poll() is not None: break
            time.sleep(.1)
        url = re.search(r'http://127\.0\.0\.1:\d+', printed)[0]
        answer = httpx.post(f'{url}/predict', json={'text': 'I love it'}).json()
        assert answer['label']==json.loads(tiny.printed[-1])['label']
    finally:
        p.terminate()
        p.wait(30)

@pytest.mark.parametrize('args', ['prepare tweets', 'train data --model linear', 'export m', 'evaluate m data', 'quickstart'])
def test_missing_extra_is_named(args, installed, tiny, tmp_path):
    "A command that needs more says in one line what installs it"
    (tmp_path/'m').symlink_to(tiny.model)
    (tmp_path/'data').symlink_to(tiny.data)
    p = subprocess.run([installed/'sentiment-nb', *args.split()], cwd=tmp_path, capture_output=True, text=True)
    assert p.returncode==2 and p.stderr.count('\n')==1, p.stderr
    assert 'pip install "sentiment_nb[' in p.stderr

def test_linear_model_needs_an_extra(installed, tiny, tmp_path):
    "The linear model is scikit-learn's; that is told, too"
    command = [installed/'sentiment-nb', 'predict', '--model', tiny.linear, '--text', 'fine']
    p = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert p.returncode==2 and p.stderr.count('\n')==1, p.stderr
    assert 'pip install "sentiment_nb[train]"' in p.stderr

@pytest.fixture(scope='module')
def model_wheel(tmp_path_factory):
    "The wheel of the default model, here of the small model of the chapters"
    out = tmp_path_factory.mktemp('model')
    run(sys.executable, root/'deploy'/'model_wheel.py', exported_quickstart(), out, cwd=out, PYTHONPATH=str(root))
    return next(out.glob('*.whl'))

def test_model_wheel_is_data(model_wheel):
    "The int8 file, tokenizer, record, card, keys of the training texts and hashes; an empty module; the terms of the training data; no more than 26 MB"
    with zipfile.ZipFile(model_wheel) as z:
        names = [n for n in z.namelist() if '.dist-info/' not in n]
        card = z.read('sentiment_nb_model/model/README.md').decode()
    files = ('README.md', 'SHA256SUMS', 'onnx/model_int8.onnx', 'sentiment_nb.json', 'tokenizer.json', 'train_keys.npy', 'unigrams.npz')
    assert set(names)=={'sentiment_nb_model/__init__.py', *(f'sentiment_nb_model/model/{f}' for f in files)}
    assert 'CC BY-NC-SA 4.0' in card and model_wheel.stat().st_size<=26*2**20
    assert model_wheel.name.startswith(f'sentiment_nb_model-{FORMAT}.')

def test_installed_model_is_the_default(installed, model_wheel, tmp_path):
    "Both wheels, no network, no model folder, no training: the command and `Predictor()` answer; a changed file is rejected"
    pip = installed/'python', '-m', 'pip', '--quiet'
    run(*pip, 'install', '--no-index', '--force-reinstall', model_wheel, cwd=tmp_path)
    prediction = json.loads(run(installed/'sentiment-nb', 'predict', '--text', 'I love it', '--json', cwd=tmp_path))
    script = "from sentiment_nb.inference import Predictor; p = Predictor(); print(p.predict('I love it').label, p.engine)"
    assert run(installed/'python', '-c', script, cwd=tmp_path).split()==[prediction['label'], 'int8']
    where = "from sentiment_nb.core import find_model; print(find_model())"
    folder = Path(run(installed/'python', '-c', where, cwd=tmp_path).strip())
    with open(folder/'tokenizer.json', 'a') as f: f.write(' ')
    p = subprocess.run([installed/'python', '-c', script], cwd=tmp_path, capture_output=True, text=True)
    run(*pip, 'uninstall', '-y', 'sentiment-nb-model', cwd=tmp_path)
    assert p.returncode and 'is not the file that was saved' in p.stderr
