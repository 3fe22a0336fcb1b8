"Killed at any moment, a run leaves no half-written result, keeps the earlier one, and can be done again or gone on with."
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import environ, listing, untouched

# a shell's background jobs ignore interrupts, and so would their children
def heed_interrupts(): signal.signal(signal.SIGINT, signal.SIG_DFL)

def start(*args, **kw):
    command = [sys.executable, '-m', 'sentiment_nb.cli', *map(str, args)]
    return subprocess.Popen(command, env=environ(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=heed_interrupts, **kw)

def wait_for(condition, process, seconds=300):
    "Until `condition()` is true while the process lives"
    end = time.monotonic()+seconds
    while not condition():
        ended = process.poll() is not None
        assert not ended, (f'it ended with {process.returncode} before anything could interrupt it: '
            f'{process.communicate()[1]}')
        assert time.monotonic()<end, 'it took too long'
        time.sleep(.02)

def kill(process, how=signal.SIGKILL):
    process.send_signal(how)
    return process.communicate()

def visible(folder): return sorted(p.name for p in folder.iterdir() if not p.name.startswith('.'))

@pytest.mark.parametrize('how', [signal.SIGKILL, signal.SIGINT])
def test_prepare_interrupted(how, cli, workdir):
    """Killed or interrupted while it cleans, `prepare` keeps the earlier result

    Done again, it replaces it and leaves nothing aside.
    """
    assert cli('prepare', 'tweets', '--limit', 300, '--out', 'data').code==0
    with untouched(workdir/'data'):
        p = start('prepare', 'tweets', '--classes', 3, '--out', 'data')
        wait_for(Path('.data.partial').is_dir, p)
        time.sleep(.5)
        out, err = kill(p, how)
    assert out=='' and visible(workdir)==['data']
    if how==signal.SIGINT:
        assert p.returncode==130 and err==''
        assert not Path('.data.partial').exists()
    assert cli('prepare', 'tweets', '--limit', 400, '--out', 'data').code==0
    assert json.loads(Path('data/prepared.json').read_text())['limit']==400
    assert sorted(p.name for p in workdir.iterdir())==['.data.lock', 'data']

def test_killed_between_two_renames(cli, workdir):
    """Killed between two renames, the earlier one comes back

    It has been moved aside, and the new one not yet into its place.
    """
    assert cli('prepare', 'tweets', '--limit', 300, '--out', 'data').code==0
    before = listing(workdir/'data')
    Path('data').rename('.data.old')
    Path('.data.partial').mkdir()
    assert cli('prepare', 'missing.csv', '--out', 'data').code==2
    assert listing(workdir/'data')==before and sorted(p.name for p in workdir.iterdir())==['.data.lock', 'data']

# 150 steps, a checkpoint after each 50
TRAIN = '--model minilm --limit 600 --batch-size 4 --max-length 16 --epochs 1 --out model'.split()

def checkpoint(n): return Path(f'.model.checkpoints/checkpoint-{n}/trainer_state.json')

@pytest.fixture(scope='module')
def killed_once(tiny, tmp_path_factory):
    """A training run killed some steps after its first checkpoint; an older model stands in its place

    With nothing to go on from, the command starts at the beginning.
    """
    folder = tmp_path_factory.mktemp('killed')
    shutil.copytree(tiny.model, folder/'model')
    with untouched(folder/'model'):
        p = start('train', tiny.data, *TRAIN, cwd=folder)
        wait_for((folder/checkpoint(50)).exists, p)
        time.sleep(.5)
        out, err = kill(p)
    assert p.returncode==-signal.SIGKILL and out=='' and ' 0/150' in err
    assert visible(folder)==['model']
    return folder

@pytest.fixture
def killed(killed_once, workdir):
    "The same state for each test, as the current folder"
    return Path(shutil.copytree(killed_once, workdir, copy_function=os.link, dirs_exist_ok=True))

def finish(data, *more):
    "The same command, to its end; what it printed of its progress"
    done = start('train', data, *TRAIN, *more)
    out, err = done.communicate(timeout=300)
    assert done.returncode==0, err
    assert 'written to model' in out
    return err

def test_training_goes_on(killed, tiny, cli):
    """The same command goes on behind its last whole checkpoint, and replaces the older model

    Here it is not the checkpoint that a kill left torn (trainer_state.json is written last).
    """
    torn = checkpoint(149).parent
    torn.mkdir()
    for n in ('config.json', 'model.safetensors'): shutil.copy(checkpoint(50).parent/n, torn)
    older = json.loads(Path('model/sentiment_nb.json').read_text())
    err = finish(tiny.data)
    assert re.search(r'\b(50|100)/150\b', err) and ' 0/150' not in err
    record = json.loads(Path('model/sentiment_nb.json').read_text())
    assert older['settings']['limit']==320 and record['settings']['limit']==600
    assert sorted(p.name for p in killed.iterdir())==['.model.lock', 'model']
    assert cli('export', 'model', '--data', tiny.data, '--no-int8').code==0
    assert cli('predict', '--model', 'model', '--text', 'fine').code==0

def test_other_settings_do_not_go_on(killed, tiny, refuses):
    "A checkpoint is no start for a run with other settings; nothing of it is lost"
    # what the killed run was writing goes with the next run, whatever it is
    shutil.rmtree('.model.partial', ignore_errors=True)
    refuses(['train', tiny.data, *TRAIN, '--learning-rate', '3e-4'], 'other settings', '--overwrite')
    assert checkpoint(50).exists()

def test_overwrite_starts_again(killed, tiny):
    "With --overwrite nothing of the interrupted run is used"
    p = start('train', tiny.data, *TRAIN, '--overwrite')
    wait_for(lambda: not checkpoint(50).exists(), p)
    kill(p)

@pytest.mark.slow
def test_killed_five_times(tiny, workdir):
    "Killed at five random moments, a training ends with the weights of the run that nothing interrupted, to the last bit"
    from safetensors.numpy import load_file
    finish(tiny.data)
    expected = load_file('model/model.safetensors')
    shutil.rmtree('model')
    rng = random.Random(0)
    for n in (1, 50, 50, 100, 100):
        p = start('train', tiny.data, *TRAIN)
        wait_for(Path('.model.partial').is_dir if n==1 else checkpoint(n).exists, p)
        time.sleep(rng.uniform(0, 1))
        kill(p)
        assert p.returncode==-signal.SIGKILL
    finish(tiny.data)
    weights = load_file('model/model.safetensors')
    assert all((weights[name]==expected[name]).all() for name in expected)
