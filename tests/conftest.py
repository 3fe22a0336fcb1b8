"What every test may rely on, however pytest is started."
import json
import os
import shutil
import subprocess
import sys
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

def environ(**changes):
    "The environment of a process of ours; None takes a variable out"
    env = os.environ | {'OMP_NUM_THREADS': '1'} | changes
    return {k: v for k,v in env.items() if v is not None and (k in changes or k not in ('SENTIMENT_NB_DATA', 'SENTIMENT_NB_MODEL'))}

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
        p = subprocess.run([sys.executable, '-m', 'sentiment_nb.cli', *map(str, args)], capture_output=True, text=True, env=environ(**env), timeout=300)
        return Done(p.returncode, p.stdout, p.stderr)
    return run

def listing(folder): return {p.relative_to(folder).as_posix(): (p.stat().st_size, p.stat().st_mtime_ns) if p.is_file() else None
    for p in folder.rglob('*') if not (p.name.startswith('.') and p.name.endswith('.lock'))}

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
        assert done.err.startswith('sentiment-nb: ') and done.err.count('\n')==1 and 'Traceback' not in done.err, done.err
        assert all(p in done.err for p in parts), done.err
        return done.err
    return run

# Runs commands one after the other; every way to a network is replaced by one that writes itself down and fails
MANY = '''
import json, socket, sys
commands, attempts = json.loads(sys.argv[1]), []
def closed(name, known):
    def f(*args, **kw):
        who = [a for a in args if not isinstance(a, socket.socket)]
        if args and isinstance(args[0], socket.socket) and args[0].family==getattr(socket, 'AF_UNIX', None): return known(*args, **kw)
        attempts.append([name, repr(who)])
        raise OSError(f'{name}{who}: there is no network')
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
    p = subprocess.run([sys.executable, '-c', MANY, json.dumps(commands)], cwd=cwd, env=environ(**env), capture_output=True, text=True, timeout=400)
    assert p.returncode==0, p.stderr
    return p.stdout.split('=====\n')[:-1], json.loads((cwd/'attempts.json').read_text())

@pytest.fixture(scope='module')
def browser():
    "A real headless Chromium, the machine's own; without one its tests are skipped, but in CI they fail. (Its loop stands in this thread until the module ends)"
    found = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome', 'chrome', 'msedge'))), None)
    if not found: (pytest.fail if os.environ.get('CI') else pytest.skip)('needs Chromium or Chrome on the PATH')
    from playwright.sync_api import sync_playwright
    with sync_playwright() as p:
        b = p.chromium.launch(executable_path=found, args=['--no-sandbox'])
        yield b
        b.close()

@pytest.fixture(scope='session')
def tiny(tmp_path_factory, request):
    "The whole job, small: prepared tweets, a linear and a fine-tuned model, exported; made with no network and none forbidden, once for all workers"
    run = tmp_path_factory.getbasetemp() # of this worker, in the folder of all
    home = (run.parent if hasattr(request.config, 'workerinput') else run)/'tiny'
    with FileLock(f'{home}.lock'):
        if not home.with_suffix('.json').exists(): home.with_suffix('.json').write_text(json.dumps(make_tiny(home)))
    printed, attempts = json.loads(home.with_suffix('.json').read_text())
    return SimpleNamespace(home=home, data=home/'data', linear=home/'linear', model=home/'model', report=home/'report', printed=printed, attempts=attempts)

def make_tiny(home):
    "What `run_many` says of the whole job"
    home.mkdir()
    commands = ['prepare tweets --limit 4000 --out data', 'train data --model linear --out linear',
        'train data --model minilm --limit 320 --max-length 32 --epochs 1 --out model', 'export model --data data',
        'evaluate model data --baselines linear --out report', 'predict --model model --json --text']
    return run_many([c.split() for c in commands[:-1]] + [commands[-1].split() + ['I love it']], home, HF_HUB_OFFLINE=None)
