"What every test may rely on, however pytest is started."
import json
import os
import shutil
import subprocess
import sys
import time
from collections import namedtuple
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from filelock import FileLock

root = Path(__file__).resolve().parents[1]
os.environ.setdefault('SENTIMENT_NB_CACHE', str(root/'.cache'))
os.environ.setdefault('HF_HUB_OFFLINE', '1')
Done = namedtuple('Done', 'code out err')

def pytest_configure(config):
    config.addinivalue_line('markers', 'slow: takes minutes or wants the large data sets; run by `make test-all`')

# Files that read what `test_cache.py` makes
NEED_MODELS = [f'test_{name}.py' for name in ('app', 'engine', 'label', 'languages', 'report', 'roberta', 'themes')]

def pytest_collection_modifyitems(items):
    """One worker makes the models of `test_cache.py` and goes on with the first file that reads them; the other makes `tiny`

    What needs either waits behind the files that do without.
    """
    need_tiny = [item.path.name for item in items if 'tiny' in getattr(item, 'fixturenames', ())]
    early = ['test_cache.py', *need_tiny[:1], NEED_MODELS[0]]
    late = [*need_tiny, *NEED_MODELS]
    def rank(item):
        name = item.path.name
        if name in early: return early.index(name) - len(early)
        return late.index(name)+1 if name in late else 0
    items.sort(key=rank)

def environ(**changes):
    "The environment of a process of ours; None takes a variable out"
    env = os.environ | {'OMP_NUM_THREADS': '1'} | changes
    dropped = {'SENTIMENT_NB_DATA', 'SENTIMENT_NB_MODEL'} - changes.keys()
    return {k: v for k,v in env.items() if v is not None and k not in dropped}

@pytest.fixture
def workdir(tmp_path, monkeypatch, tmp_path_factory):
    "An empty current folder, with a cache of its own"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('SENTIMENT_NB_CACHE', str(tmp_path_factory.getbasetemp()/'cache'))
    for name in ('SENTIMENT_NB_DATA', 'SENTIMENT_NB_MODEL'): monkeypatch.delenv(name, raising=False)
    return tmp_path

@pytest.fixture
def cli(workdir, capsys):
    "`sentiment-nb …` in this process"
    from sentiment_nb.cli import main
    def run(*args):
        capsys.readouterr()
        try: code = main([str(a) for a in args])
        except SystemExit as e: code = e.code
        return Done(code, *capsys.readouterr())
    return run

@pytest.fixture
def shell(workdir):
    "`sentiment-nb …` as a process, with changes to its environment"
    def run(*args, **env):
        command = [sys.executable, '-m', 'sentiment_nb.cli', *map(str, args)]
        p = subprocess.run(command, capture_output=True, text=True, env=environ(**env), timeout=300)
        return Done(p.returncode, p.stdout, p.stderr)
    return run

def start_parts(command, folder, n):
    "A run of the program in a process and a session of its own, once `n` parts stand in `folder`"
    full = [sys.executable, '-m', 'sentiment_nb.cli', *map(str, command)]
    p = subprocess.Popen(full, env=environ(), start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while len(list(Path(folder).glob('part-*')))<n:
        assert p.poll() is None, p.communicate()[1]
        time.sleep(.002)
    return p

def is_lock(path): return path.name.startswith('.') and path.name.endswith('.lock')
def stamp(path): return (path.stat().st_size, path.stat().st_mtime_ns) if path.is_file() else None
def listing(folder): return {p.relative_to(folder).as_posix(): stamp(p) for p in folder.rglob('*') if not is_lock(p)}

@contextmanager
def untouched(folder):
    "Every file under `folder` stays as it is, and none is added but hidden locks"
    before = listing(folder)
    yield
    assert listing(folder)==before

@pytest.fixture
def refuses(cli, workdir):
    "Run a command that must be refused in one line that holds `parts`, and leave everything as it was"
    def run(args, *parts, run=cli, **env):
        with untouched(workdir):
            done = run(*args, **env)
            assert done.code==2 and done.out=='', done
        assert done.err.startswith('sentiment-nb: ') and done.err.count('\n')==1, done.err
        assert 'Traceback' not in done.err, done.err
        assert all(p in done.err for p in parts), done.err
        return done.err
    return run

# Runs commands one after the other; every way to a network is replaced by one that writes itself down and fails
MANY = '''
import json, socket, sys
commands = json.loads(sys.argv[1])
attempts = []
def is_local(args):
    return args and isinstance(args[0], socket.socket) and args[0].family==getattr(socket, 'AF_UNIX', None)
def closed(name, original):
    def f(*args, **kw):
        if is_local(args): return original(*args, **kw)
        address = [a for a in args if not isinstance(a, socket.socket)]
        attempts.append([name, repr(address)])
        raise OSError(f'{name}{address}: there is no network')
    return f
for n in ('connect', 'connect_ex', 'sendto'): setattr(socket.socket, n, closed(n, getattr(socket.socket, n)))
for n in ('getaddrinfo', 'gethostbyname', 'gethostbyname_ex', 'create_connection'): setattr(socket, n, closed(n, None))
from sentiment_nb.cli import main
for c in commands:
    if (code := main(c)): sys.exit(f'{c} ended with {code}')
    print('=====', flush=True)
import pathlib
pathlib.Path('attempts.json').write_text(json.dumps(attempts))
'''

def run_many(commands, cwd, **env):
    "Commands in one process without a network; what each printed, and the attempts to reach a network"
    script = [sys.executable, '-c', MANY, json.dumps(commands)]
    p = subprocess.run(script, cwd=cwd, env=environ(**env), capture_output=True, text=True, timeout=400)
    assert p.returncode==0, p.stderr
    return p.stdout.split('=====\n')[:-1], json.loads((cwd/'attempts.json').read_text())

BROWSERS = 'chromium', 'chromium-browser', 'google-chrome', 'chrome', 'msedge'

@pytest.fixture(scope='module')
def browser():
    """A real headless Chromium, the machine's own; without one its tests are skipped, but in CI they fail

    Its loop stands in this thread until the module ends.
    """
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if not path: (pytest.fail if os.environ.get('CI') else pytest.skip)('needs Chromium or Chrome on the PATH')
    from playwright.sync_api import sync_playwright
    with sync_playwright() as p:
        b = p.chromium.launch(executable_path=path, args=['--no-sandbox'])
        yield b
        b.close()

@pytest.fixture(scope='session')
def tiny(tmp_path_factory, request):
    """The whole job, small: prepared tweets, a linear and a fine-tuned model, exported

    Made with no network and none forbidden, once for all workers.
    """
    run = tmp_path_factory.getbasetemp() # of this worker, in the folder of all
    home = (run.parent if hasattr(request.config, 'workerinput') else run)/'tiny'
    log = home.with_suffix('.json')
    with FileLock(f'{home}.lock'):
        if not log.exists(): log.write_text(json.dumps(make_tiny(home)))
    printed, attempts = json.loads(log.read_text())
    return SimpleNamespace(home=home, data=home/'data', linear=home/'linear', model=home/'model', report=home/'report',
        printed=printed, attempts=attempts)

def make_tiny(home):
    "What `run_many` returns of the whole job"
    home.mkdir()
    commands = ['prepare tweets --limit 4000 --out data', 'train data --model linear --out linear',
        'train data --model minilm --limit 320 --max-length 32 --epochs 1 --out model', 'export model --data data',
        'evaluate model data --baselines linear --out report']
    predict = ['predict', '--model', 'model', '--json', '--text', 'I love it']
    return run_many([*(c.split() for c in commands), predict], home, HF_HUB_OFFLINE=None)
