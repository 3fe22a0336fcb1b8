"Work that survives a kill at any moment: nothing is lost, nothing is doubled, and the bytes are those of an unbroken run."
import importlib.util
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import Done, environ, start_parts, untouched

from sentiment_nb.core import InputError
from sentiment_nb.inference import Predictor
from sentiment_nb.scale import MANIFEST, Manifest, hold_work, merge_shards, predict_file, shard_folder
from sentiment_nb.tables import read_rows, write_rows

pytestmark = pytest.mark.skipif(sys.platform=='win32', reason='kills forked processes')
WORDS = 'the crew was lovely and two hours late "again", bad seats; good food, never a bus to São Paulo 🙂'.split()

def make_texts(n, seed=0):
    rng = random.Random(seed)
    for i in range(n): yield {'id': str(i), 'text': ' '.join(rng.choices(WORDS, k=rng.choice((1, 3, 8))))}

def write_table(path, n=3000, seed=0):
    write_rows(path, ['id', 'text'], make_texts(n, seed), None)
    return path

def ids(path):
    "The column id of a file, or of all parts of a folder"
    paths = sorted(path.glob('part-*')) if path.is_dir() else [path]
    return [int(row['id']) for p in paths for row in read_rows(p, 'text')[2]]

def content(path):
    "The bytes of a file, or of all files of a folder"
    if path.is_file(): return path.read_bytes()
    return {p.name: p.read_bytes() for p in path.iterdir()}

@pytest.fixture(scope='module')
def linear(tiny): return Predictor(tiny.linear)

def fork(job):
    "Start a job in a process of its own, which has the model already"
    p = multiprocessing.get_context('fork').Process(target=job)
    p.start()
    return p

def kill_after(job, seconds):
    "Start a job and kill it after some seconds, as a machine does; whether it was still at work"
    p = fork(job)
    p.join(seconds)
    p.kill()
    p.join()
    return p.exitcode==-signal.SIGKILL

def seconds_of(job):
    start = time.monotonic()
    p = fork(job)
    p.join()
    assert p.exitcode==0
    return time.monotonic()-start

def only(folder, *names): assert sorted(p.name for p in folder.iterdir())==sorted(names)

# A kill at any moment

SHAPES = { # name: input, result
    'csv': ('a.csv', 'b.csv'), 'jsonl': ('a.jsonl', 'b.jsonl'), 'parquet': ('a.parquet', 'b.parquet'),
    'folder of parquet to csv': ('in', 'b.csv'), 'folder of parquet to folder': ('in', 'b')}

def write_input(name, n, files=10):
    "A table, or a folder of small Parquet files"
    if Path(name).suffix: return write_table(Path(name), n)
    Path(name).mkdir()
    rows = list(make_texts(n))
    size = -(-n//files)
    for i in range(files): write_rows(f'{name}/{i:03}.parquet', ['id', 'text'], rows[i*size:(i+1)*size], None)
    return Path(name)

@pytest.mark.parametrize('shape', SHAPES)
def test_killed_at_random_moments(shape, linear, workdir):
    "Three kills, then the same call to its end"
    name, out = SHAPES[shape]
    source = write_input(name, 3000)
    unbroken = Path(f'unbroken{Path(out).suffix}')
    run = partial(predict_file, linear, source, part_rows=100)
    whole = seconds_of(partial(run, unbroken))
    rng = random.Random(shape)
    n_killed = sum(kill_after(partial(run, out), whole*rng.uniform(.1, .4)) for _ in range(3))
    left = {p.name for p in workdir.iterdir()} - {name, unbroken.name}
    assert n_killed and left<={out, f'{out}.partial'}, left
    assert run(out)==3000
    assert content(Path(out))==content(unbroken)
    assert ids(Path(out))==list(range(3000))
    only(workdir, name, out, unbroken.name)

@pytest.mark.parametrize('out', ['b.csv', 'b'])
def test_killed_at_the_end(out, linear, workdir):
    "While parts are joined, renamed and deleted: the next call ends it, or finds it done"
    source = write_table(Path('a.csv'), 600)
    run = partial(predict_file, linear, source, out, part_rows=50)
    def stop(rows, total):
        if rows==600: raise RuntimeError('stopped')
    with pytest.raises(RuntimeError): run(report=stop)
    shutil.copytree(f'{out}.partial', 'ready')
    end = seconds_of(run)
    expected = content(Path(out))
    for i in range(8):
        for path in (Path(out), Path(f'{out}.partial')):
            if path.is_dir(): shutil.rmtree(path)
            else: path.unlink(missing_ok=True)
        shutil.copytree('ready', f'{out}.partial')
        kill_after(run, end*i/8)
        assert run()==600
        assert content(Path(out))==expected
        only(workdir, 'a.csv', out, 'ready')

def test_a_machine_stops(tiny, shell, workdir):
    """The whole group of processes is killed, a part and the manifest are half on the disk

    While it lives, a second command is refused; after it the same command goes on.
    """
    write_table(Path('a.csv'), 8000)
    command = ['predict', '--model', tiny.linear, '--file', 'a.csv', '--out', 'b.csv', '--part-rows', '200']
    parts = Path('b.csv.partial')
    p = start_parts(command, parts, 5)
    p.send_signal(signal.SIGSTOP)
    second = shell(*command)
    assert (second.code, second.out)==(2, '') and 'in use by another run' in second.err
    os.killpg(p.pid, signal.SIGKILL)
    p.communicate()
    manifest = parts/MANIFEST
    n = len(Manifest(manifest).parts)
    with open(manifest, 'a') as f: f.write('{"part": [0, 7], "rows": 20')
    half = parts/f'part-00000-{n:06}.csv'
    half.write_text('id,text')
    only(workdir, 'a.csv', 'b.csv.partial')
    done = shell(*command)
    assert (done.code, done.out)==(0, '8,000 rows written to b.csv\n'), done.err
    assert ids(Path('b.csv'))==list(range(8000))
    only(workdir, 'a.csv', 'b.csv')

# What has changed since

@pytest.fixture
def begun(tiny, linear, workdir):
    "300 of 1,000 rows are finished; the command that goes on"
    write_table(Path('a.csv'), 1000)
    def stop(rows, total):
        if rows>=300: raise RuntimeError('stopped')
    with pytest.raises(RuntimeError): predict_file(linear, 'a.csv', 'b.csv', part_rows=100, report=stop)
    return ['predict', '--model', tiny.linear, '--file', 'a.csv', '--out', 'b.csv', '--part-rows', '100']

def finishes(cli, command, *more):
    done = cli(*command, *more)
    assert done.code==0, done.err
    assert ids(Path('b.csv'))==list(range(1000))

CHANGES = {'another setting': ('--level .9', 'level 0.95'), 'other parts': ('--part-rows 50', 'part_rows 100, and now it is 50'),
    'another way to read': ('--encoding utf-8', 'encoding None, and now it is utf-8')}

@pytest.mark.parametrize('change', CHANGES)
def test_other_settings_do_not_go_on(change, begun, refuses, cli):
    more, part = CHANGES[change]
    refuses([*begun, *more.split()], 'b.csv.partial was begun with', part, '(--overwrite)')
    finishes(cli, begun)

def test_another_model_does_not_go_on(begun, tiny, refuses, cli):
    other = [tiny.model if a==tiny.linear else a for a in begun]
    refuses(other, 'b.csv.partial was begun with the model linear', 'and now it is model', '(--overwrite)')
    finishes(cli, other, '--overwrite')
    assert not Path('b.csv.partial').exists()

def test_changed_input_does_not_go_on(begun, refuses, cli):
    "Longer, or of the same length; as it was it goes on"
    blob, stat = Path('a.csv').read_bytes(), os.stat('a.csv')
    Path('a.csv').write_bytes(blob + b'x,fine\n')
    refuses(begun, 'when a.csv had', '(--overwrite)')
    Path('a.csv').write_bytes(blob)
    refuses(begun, 'before a.csv was changed', '(--overwrite)')
    os.utime('a.csv', ns=(stat.st_atime_ns, stat.st_mtime_ns))
    finishes(cli, begun)

def test_lost_and_cut_parts_are_made_again(begun, cli):
    Path('b.csv.partial/part-00000-000000.csv').unlink()
    os.truncate('b.csv.partial/part-00000-000002.csv', 99)
    finishes(cli, begun)

def test_two_commands_in_one_place(begun, refuses, cli):
    with hold_work(Path('b.csv').absolute()): refuses(begun, 'b.csv is in use by another run')
    finishes(cli, begun)

def test_dry_run_changes_nothing(begun, cli, workdir):
    with untouched(workdir): done = cli(*begun, '--dry-run')
    assert done.code==0 and 'about 1,000 rows, in about 10 parts; 300 rows are finished' in done.out
    with untouched(workdir): plan = json.loads(cli(*begun, '--dry-run', '--json').out)
    assert (plan['rows'], plan['parts'], plan['finished'])==(1000, 10, 300)

# Disks

@contextmanager
def mounted(folder, options):
    "A file system in memory"
    folder.mkdir()
    command = ['mount', '-t', 'tmpfs', '-o', options, 'tmpfs', folder]
    if not shutil.which('mount') or subprocess.run(command, capture_output=True).returncode:
        pytest.skip('needs the right to mount a file system')
    try: yield
    finally: subprocess.run(['umount', folder], check=True)

def test_full_disk(begun, cli, workdir):
    "One line; with more room the same command goes on"
    with mounted(workdir/'disk', 'size=64k'):
        command = ['disk/b.csv' if a=='b.csv' else a for a in begun]
        done = cli(*command)
        assert (done.code, done.out, done.err.count('\n'))==(2, '', 1) and 'no space is left' in done.err
        finished = Manifest(Path('disk/b.csv.partial')/MANIFEST).total('rows')
        assert finished>=300
        assert [p.name for p in Path('disk').iterdir()]==['b.csv.partial']
        subprocess.run(['mount', '-o', 'remount,size=8m', 'disk'], check=True)
        assert cli(*command).code==0
        assert ids(Path('disk/b.csv'))==list(range(1000))

def test_read_only_folder(begun, cli, workdir):
    with mounted(workdir/'disk', 'ro'):
        done = cli(*['disk/b.csv' if a=='b.csv' else a for a in begun])
        assert (done.code, done.out)==(2, '') and 'cannot be written (Read-only file system)' in done.err
        assert done.err.count('\n')==1

def test_a_file_may_grow_too_large(begun, tiny, workdir):
    "The parts fit and their sum does not: all of them are kept"
    def limit(): resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
    full = [sys.executable, '-m', 'sentiment_nb.cli', *map(str, begun)]
    p = subprocess.run(full, env=environ(), capture_output=True, text=True, preexec_fn=limit)
    done = Done(p.returncode, p.stdout, p.stderr)
    assert (done.code, done.out, done.err.count('\n'))==(2, '', 1), done.err
    assert 'File too large' in done.err
    assert Manifest(Path('b.csv.partial')/MANIFEST).total('rows')==1000
    assert not Path('b.csv').exists()

# Shards

@pytest.mark.parametrize('name, n, out', [
    ('a.csv', 3, 'b.parquet'), ('a.csv', 16, 'b'), ('in', 4, 'b.csv'), ('in', 16, 'b')])
def test_shards_merge_to_the_whole(name, n, out, linear, workdir):
    "By part and by file, also where there are more shards than parts"
    source = write_input(name, 1000)
    run = partial(predict_file, linear, source, part_rows=100)
    run(f'whole{Path(out).suffix}')
    order = random.Random(n).sample(range(1, n+1), n)
    assert sum(run(out, shard=f'{i}/{n}') for i in order)==1000
    assert merge_shards(out)==1000
    assert content(Path(out))==content(Path(f'whole{Path(out).suffix}'))
    only(workdir, name, out, f'whole{Path(out).suffix}')

def test_shards_at_the_command_line(tiny, cli, refuses, workdir):
    "A missing one is named, one that is asked twice is finished, a half one is not merged"
    write_table(Path('a.csv'), 1000)
    command = ['predict', '--model', tiny.linear, '--file', 'a.csv', '--out', 'b.csv', '--part-rows', '100']
    merge = ['predict', '--merge', '--out', 'b.csv']
    refuses(merge, 'has no shards')
    for i in (1, 3): assert cli(*command, '--shard', f'{i}/3').code==0
    refuses(merge, 'shard 2/3 of', 'is missing')
    with hold_work(shard_folder(Path('b.csv').absolute())/'2-of-3'):
        refuses([*command, '--shard', '2/3'], 'in use by another run')
        refuses(merge, 'shard 2/3', 'missing or not finished')
    assert cli(*command, '--shard', '2/3').code==0
    with untouched(workdir): again = cli(*command, '--shard', '2/3')
    assert (again.code, again.out)==(0, '300 rows written to b.csv\n') and 'finished already' in again.err
    refuses([*command, '--level', '.9', '--shard', '2/3'], 'was begun with', '--overwrite')
    refuses([*command, '--shard', '4/3'], '3/16', '--shard')
    lost = next(shard_folder(Path('b.csv')).glob('2-of-3/part-*'))
    blob = lost.read_bytes()
    lost.unlink()
    refuses(merge, 'is missing', '--overwrite')
    lost.write_bytes(blob)
    done = cli(*merge)
    assert (done.code, done.out)==(0, '1,000 rows written to b.csv\n')
    only(workdir, 'a.csv', 'b.csv')

@pytest.mark.parametrize('out', ['b.csv', 'b'])
def test_killed_while_merging(out, linear, workdir):
    "At eight moments: the next call ends it, or says that there is nothing to merge since all is done"
    write_table(Path('a.csv'), 600)
    for i in (1, 2): predict_file(linear, 'a.csv', out, part_rows=20, shard=f'{i}/2')
    shutil.copytree(f'{out}.shards', 'ready')
    merge = partial(merge_shards, out)
    whole = seconds_of(merge)
    expected = content(Path(out))
    for i in range(8):
        shutil.rmtree(out) if Path(out).is_dir() else Path(out).unlink()
        shutil.copytree('ready', f'{out}.shards')
        kill_after(merge, whole*i/8)
        try: assert merge()==600
        except InputError as e: assert 'has no shards' in str(e)
        assert content(Path(out))==expected
        only(workdir, 'a.csv', out, 'ready')

# What stands elsewhere, and what is packed

def test_without_adapters(refuses, tiny, monkeypatch):
    "The line says which extra brings them"
    monkeypatch.setitem(sys.modules, 'fsspec', None)
    monkeypatch.setitem(sys.modules, 'fsspec.core', None)
    refuses(['predict', '--model', tiny.linear, '--file', 's3://a/b.csv', '--out', 'b.csv'], 'sentiment_nb[cloud]')

def test_zstandard(cli, tiny, workdir):
    zstd = pytest.importorskip('backports.zstd', reason='needs the extra cloud')
    write_table(Path('a.csv'), 300)
    Path('a.csv.zst').write_bytes(zstd.compress(Path('a.csv').read_bytes()))
    done = cli('predict', '--model', tiny.linear, '--file', 'a.csv.zst', '--out', 'b.csv')
    assert done.code==0 and ids(Path('b.csv'))==list(range(300)), done.err

def test_damaged_zstandard(refuses, tiny, workdir):
    zstd = pytest.importorskip('backports.zstd', reason='needs the extra cloud')
    write_table(Path('a.csv'), 300)
    Path('a.csv.zst').write_bytes(zstd.compress(Path('a.csv').read_bytes())[:-400])
    command = ['predict', '--model', tiny.linear, '--file', 'a.csv.zst', '--out', 'b.csv']
    refuses(command, 'a.csv.zst cannot be unpacked')
    Path('a.csv.zst').write_bytes(b'text\nfine\n')
    refuses(command, 'a.csv.zst cannot be unpacked')

def test_importing_is_light():
    "Of the libraries that the base install lacks, none"
    code = "import sys, sentiment_nb.scale; print({'pyarrow','fsspec','pandas','torch','ray','pyspark'} & set(sys.modules))"
    p = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, env=environ(), check=True)
    assert p.stdout=='set()\n'

# An object store that speaks S3

@pytest.fixture(scope='module')
def s3(tmp_path_factory):
    "A file system at a server on this machine"
    fsspec = pytest.importorskip('fsspec', reason='needs the extra cloud')
    pytest.importorskip('s3fs', reason='needs the extra cloud')
    moto = pytest.importorskip('moto.server', reason='needs pip install "moto[server]"')
    server = moto.ThreadedMotoServer(ip_address='127.0.0.1', port=0)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as changes:
        changes.setenv('AWS_ENDPOINT_URL', f'http://{host}:{port}')
        for name in ('AWS_ACCESS_KEY_ID', 'AWS_SECRET_ACCESS_KEY'): changes.setenv(name, 'test')
        changes.setenv('AWS_DEFAULT_REGION', 'us-east-1')
        fs = fsspec.filesystem('s3')
        fs.mkdir('texts')
        yield fs
    server.stop()

@pytest.mark.slow
@pytest.mark.parametrize('source, n_files', [
    ('s3://texts/{}', 12), ('s3://texts/{}/*.parquet', 12), ('s3://texts/{}/003.parquet', 1)])
def test_s3(source, n_files, s3, tiny, shell, workdir):
    "A prefix, a glob and an object; killed, gone on with, and the bytes of the same files on this machine"
    write_input('in', 12_000, files=12)
    s3.put('in', f'texts/{workdir.name}', recursive=True)
    options = ['--out', 'b.parquet', '--part-rows', '100']
    command = ['predict', '--model', tiny.linear, '--file', source.format(workdir.name), *options]
    p = start_parts(command, 'b.parquet.partial', 4)
    p.kill()
    p.communicate()
    done = shell(*command)
    assert (done.code, done.out)==(0, f'{1000*n_files:,} rows written to b.parquet\n'), done.err
    only(workdir, 'in', 'b.parquet')
    local = 'in' if n_files>1 else 'in/003.parquet'
    predict_file(Predictor(tiny.linear), local, 'local.parquet', part_rows=100)
    assert content(Path('b.parquet'))==content(Path('local.parquet'))

@pytest.mark.slow
def test_s3_refuses(s3, tiny, shell, refuses, linear, workdir):
    "An object that has changed, one that is not there, and a server that is not there"
    write_table(Path('a.csv'), 1000)
    s3.put('a.csv', 'texts/changing.csv')
    def stop(rows, total):
        if rows>=300: raise RuntimeError('stopped')
    url = 's3://texts/changing.csv'
    with pytest.raises(RuntimeError): predict_file(linear, url, 'b.csv', part_rows=100, report=stop)
    s3.put(str(write_table(Path('a.csv'), 1000, seed=1)), 'texts/changing.csv')
    command = ['predict', '--model', tiny.linear, '--out', 'b.csv', '--part-rows', '100', '--file']
    refuses([*command, url], 'changing.csv', '(--overwrite)', run=shell)
    refuses([*command, 's3://texts/nowhere.csv'], 's3://texts/nowhere.csv does not exist', run=shell)
    refuses([*command, url], 'cannot be read', run=shell, AWS_ENDPOINT_URL='http://127.0.0.1:9')
    assert shell(*command, url, '--overwrite').code==0
    assert ids(Path('b.csv'))==list(range(1000))

# The large versions

@pytest.mark.slow
@pytest.mark.parametrize('out', ['b.csv', 'b.parquet', 'b'])
def test_five_hundred_files(out, linear, workdir):
    "Small Parquet files, three kills"
    write_input('in', 100_000, files=500)
    run = partial(predict_file, linear, 'in')
    unbroken = Path(f'unbroken{Path(out).suffix}')
    whole = seconds_of(partial(run, unbroken))
    rng = random.Random(out)
    assert sum(kill_after(partial(run, out), whole*rng.uniform(.1, .3)) for _ in range(3))==3
    assert run(out)==100_000
    assert content(Path(out))==content(unbroken)
    assert ids(Path(out))==list(range(100_000))
    only(workdir, 'in', out, unbroken.name)

@pytest.mark.slow
@pytest.mark.skipif(sys.platform!='linux', reason='reads /proc')
def test_a_million_texts(tmp_path, monkeypatch):
    "Flat memory, three kills and a machine that stops, and the rest after a kill at 65 % (benchmarks/scale.py)"
    folder = Path(__file__).resolve().parents[1]/'benchmarks'
    monkeypatch.syspath_prepend(folder)
    spec = importlib.util.spec_from_file_location('benchmark_of_scale', folder/'scale.py')
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    steps = benchmark.measure_kills(SimpleNamespace(rows=1_000_000, seed=0, work=str(tmp_path/'work')))
    alone, killed, late = (steps[n] for n in ('alone', 'killed', 'late'))
    assert killed['in_order'] and killed['left']==['killed.csv']
    assert killed['sha256']==late['sha256']==alone['sha256']
    assert alone['mb_afterwards'][1]<1.05*alone['mb_at_50_000']
    assert late['seconds']<.45*alone['seconds']
