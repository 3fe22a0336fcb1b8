"Workers of Ray and Spark: the bytes of one machine, whatever dies; one load for each worker; one clear line for what a user can fix."
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest
from conftest import environ, root, start_parts

from sentiment_nb.clusters import BatchPredictor, RayWorkers, SparkWorkers, answer_texts, connect_ray, fetch_model
from sentiment_nb.clusters import model_reference, predict_udf
from sentiment_nb.core import InputError, sha256_file, write_checksums
from sentiment_nb.inference import Predictor
from sentiment_nb.scale import MANIFEST, Manifest, merge_shards, predict_file
from sentiment_nb.tables import read_rows, write_rows

needs_ray = pytest.mark.skipif(not find_spec('ray'), reason='needs pip install "sentiment_nb[ray]"')
needs_spark = pytest.mark.skipif(not (find_spec('pyspark') and shutil.which('java')),
    reason='needs pip install "sentiment_nb[spark]", and Java 17')
WORDS = 'the crew was lovely and two hours late "again", bad seats; good food, never a bus to São Paulo 🙂'.split()

def write_table(path, n, seed=0):
    rng = random.Random(seed)
    rows = [{'id': str(i), 'text': ' '.join(rng.choices(WORDS, k=rng.choice((0, 1, 3, 40))))} for i in range(n)]
    write_rows(path, ['id', 'text'], rows, None)
    return Path(path)

def ids(path): return [int(row['id']) for row in read_rows(path, 'text')[2]]

def content(path):
    "The bytes of a file, or of all files of a folder"
    path = Path(path)
    return {p.name: p.read_bytes() for p in path.iterdir()} if path.is_dir() else path.read_bytes()

# Without a cluster

class Threads:
    "Workers that are threads of this process; each answers after a while of its own"
    def __init__(self, reference, n=3):
        self.ahead = 2*n
        self.reference = reference
        self.pool = ThreadPoolExecutor(n)
        self.most = 0

    def submit(self, texts):
        future = self.pool.submit(self.predict, texts)
        self.most = max(self.most, self.pool._work_queue.qsize())
        return future

    def predict(self, texts):
        time.sleep(random.random()/100)
        return answer_texts(self.reference, texts)['predictions']

@pytest.fixture
def threads(tiny):
    workers = Threads(model_reference(tiny.linear))
    yield workers
    workers.pool.shutdown()
    os.environ.pop('SENTIMENT_NB_THREADS', None)

@pytest.fixture(scope='module')
def linear(tiny): return Predictor(tiny.linear)

@pytest.mark.parametrize('out', ['b.csv', 'b.jsonl', 'b.parquet', 'b'])
def test_same_bytes_as_alone(out, linear, threads, workdir):
    "Many small files, of which several are on their way; an empty text; and no more parts read ahead than are wanted"
    Path('in').mkdir()
    for i in range(20): write_table(f'in/{i:02}.csv', 1+37*i)
    unbroken = f'unbroken{Path(out).suffix}'
    n = predict_file(linear, 'in', unbroken, part_rows=100)
    assert predict_file(linear, 'in', out, part_rows=100, workers=threads)==n
    assert content(out)==content(unbroken)
    assert 1<threads.most<=threads.ahead

@pytest.mark.parametrize('first', ['here', 'there'])
def test_work_goes_on_with_and_without_workers(first, linear, threads, workdir):
    "What was begun by one is finished by the other, and each part is predicted once"
    write_table('a.csv', 2000)
    predict_file(linear, 'a.csv', 'unbroken.csv', part_rows=100)
    def stop(rows, total):
        if rows>=700: raise RuntimeError('stopped')
    ways = {'here': None, 'there': threads}
    run = partial(predict_file, linear, 'a.csv', 'b.csv', part_rows=100)
    with pytest.raises(RuntimeError): run(report=stop, workers=ways.pop(first))
    begun = []
    run(report=lambda rows, total: begun.append(rows), workers=next(iter(ways.values())))
    assert begun[0]==700 and content('b.csv')==content('unbroken.csv')

def test_shards_with_workers(linear, threads, workdir):
    write_table('a.csv', 1000)
    predict_file(linear, 'a.csv', 'unbroken.csv', part_rows=100)
    for i in (2, 1): predict_file(linear, 'a.csv', 'b.csv', part_rows=100, shard=f'{i}/2', workers=threads)
    assert merge_shards('b.csv')==1000 and content('b.csv')==content('unbroken.csv')

def test_a_row_that_is_no_text(linear, threads, workdir):
    "Is rejected by its number, as without workers, and what is before its part is kept"
    lines = [json.dumps({'text': 'fine'})]*250 + ['{"text": 5}']
    Path('a.jsonl').write_text('\n'.join(lines))
    for workers in (None, threads):
        with pytest.raises(InputError, match='row 251'):
            predict_file(linear, 'a.jsonl', 'b.jsonl', part_rows=100, workers=workers, overwrite=True)
        assert Manifest(Path('b.jsonl.partial')/MANIFEST).total('rows')==200

# The model from elsewhere

def test_model_by_url(tiny, workdir):
    "Fetched once, without what only training reads; verified; another model under the same address is noticed"
    shutil.copytree(tiny.model, 'mine')
    url = (workdir/'mine').as_uri()
    copy = fetch_model(url)
    assert not list(copy.rglob('*.safetensors')) and copy.name=='mine' and workdir not in copy.parents
    assert Predictor(copy).predict('fine')==Predictor(tiny.model).predict('fine')
    Path('mine').rename('moved')
    assert fetch_model(url, sha256_file(copy/'SHA256SUMS'))==copy # needs nobody
    with pytest.raises(InputError, match='does not exist'): fetch_model(url)
    Path('moved').rename('mine')
    with open('mine/README.md', 'a') as f: f.write('changed')
    shutil.rmtree(copy)
    with pytest.raises(InputError, match='not the file that was saved'): fetch_model(url)
    assert not copy.exists()
    write_checksums('mine')
    with pytest.raises(InputError, match='is another model'): fetch_model(url, '0'*64)

def test_list_of_files_may_not_leave_its_folder(tiny, workdir):
    shutil.copytree(tiny.linear, 'mine')
    Path('loot').write_text('loot')
    with open('mine/SHA256SUMS', 'a') as f: f.write(f"{sha256_file('loot')}  ../loot\n")
    with pytest.raises(InputError, match='not in the folder'): fetch_model((workdir/'mine').as_uri())

def test_threads_of_a_worker(tiny, workdir):
    "As many as the reference says, whatever the machine has"
    code = ('import sys; from sentiment_nb.clusters import *; p = load_reference(model_reference(sys.argv[1], threads=1)); '
        'print(p._engine.pool._max_workers)')
    script = [sys.executable, '-c', code, tiny.model]
    p = subprocess.run(script, capture_output=True, text=True, env=environ(), check=True)
    assert p.stdout=='1\n'

# The command line

def command(tiny, engine, *more, out='b.csv'):
    words = ['predict', '--model', tiny.linear, '--file', 'a.csv', '--out', out, '--part-rows', '100']
    return [*words, '--engine', engine, *more]

@pytest.fixture
def table(workdir): return write_table('a.csv', 2000)

def missing_engine(engine):
    "Whether an engine is installed does not matter for what is wrong before it starts, but it is imported first"
    return pytest.mark.skipif(not find_spec({'ray': 'ray', 'spark': 'pyspark'}[engine]), reason=f'needs the extra {engine}')

def installed(engine, more, part): return pytest.param(engine, more, part, marks=missing_engine(engine))

REFUSED = [
    installed('ray', '--address 127.0.0.1:9', '127.0.0.1:9 cannot be reached'),
    installed('ray', '--address ray://127.0.0.1:9', 'cannot be reached'),
    installed('ray', '--address http://127.0.0.1:8265', 'expected HOST:PORT'),
    installed('spark', '--master spark://127.0.0.1:9', '127.0.0.1:9 cannot be reached'),
    installed('spark', '--master mesos://127.0.0.1:9', 'expected local[2]'),
    ('ray', '--master local[2]', 'belongs to the engine spark'), ('spark', '--address auto', 'belongs to the engine ray'),
    ('local', '--workers 2', '--engine ray or spark'), ('dask', '', 'expected local, ray or spark')]

@pytest.mark.parametrize('engine, more, part', REFUSED)
def test_refused_in_one_line(engine, more, part, tiny, table, refuses):
    refuses(command(tiny, engine, *more.split()), part)

def test_without_the_extras(tiny, table, refuses, monkeypatch):
    for engine,module in (('ray', 'ray'), ('spark', 'pyspark.sql')):
        monkeypatch.setitem(sys.modules, module, None)
        refuses(command(tiny, engine), f'sentiment_nb[{engine}]')

@missing_engine('spark')
def test_without_java(tiny, table, refuses, monkeypatch):
    monkeypatch.setenv('JAVA_HOME', '/nowhere')
    refuses(command(tiny, 'spark'), 'needs Java 17')

# What happens in workers, seen from outside: each process that loads a model adds a line

SPY = '''
import importlib.abc, importlib.util, os, sys
from pathlib import Path
home = Path(os.environ['SPY'])
class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name!='sentiment_nb.inference': return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module
        def exec_module(module):
            execute(module)
            spy(module.Predictor)
        spec.loader.exec_module = exec_module
        return spec
def spy(Predictor):
    load, predict = Predictor.__init__, Predictor.predict
    def __init__(self, *args, **kwargs):
        with open(home/'loads', 'a') as f: f.write(f'{os.getpid()}\\n')
        load(self, *args, **kwargs)
    def spied(self, texts):
        if isinstance(texts, list) and len(texts)>1 and (home/'die').exists():
            (home/'die').rename(home/f'died-{os.getpid()}')
            os.kill(os.getpid(), 9)
        return predict(self, texts)
    Predictor.__init__, Predictor.predict = __init__, spied
sys.meta_path.insert(0, Finder())
'''

class Spy:
    "What workers did"
    def __init__(self, home): self.home = home
    def loads(self): return (self.home/'loads').read_text().split() if (self.home/'loads').exists() else []
    def let_one_die(self): (self.home/'die').touch()
    def died(self): return [p.name.removeprefix('died-') for p in self.home.glob('died-*')]

@pytest.fixture
def spy(tmp_path_factory, monkeypatch):
    "A `sitecustomize` for the processes that are started from here on"
    home = tmp_path_factory.mktemp('spy')
    (home/'sitecustomize.py').write_text(SPY)
    monkeypatch.setenv('SPY', str(home))
    monkeypatch.setenv('RAY_worker_niceness', '0') # else they wait for whatever else runs here
    monkeypatch.setenv('PYTHONPATH', os.pathsep.join(map(str, (home, root))))
    return Spy(home)

@pytest.fixture
def alone(linear, table):
    "The table, predicted by one process"
    predict_file(linear, 'a.csv', 'alone.csv', part_rows=100)
    return content('alone.csv')

def runs(pid):
    "Whether a process runs; one that has ended and that nobody has asked about does not"
    try: return Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0]!='Z'
    except OSError: return False

def gone(pids):
    "Wait until processes have ended"
    for _ in range(300):
        left = [pid for pid in pids if runs(pid)]
        if not left: return True
        time.sleep(.1)
    return left

# Ray

@needs_ray
def test_ray_two_actors(linear, tiny, alone, spy, workdir):
    "The bytes of one process, with one load for each actor; an int8 model to the last bit; nothing is left running"
    with RayWorkers(model_reference(tiny.linear), 2, 'local') as workers:
        assert predict_file(linear, 'a.csv', 'b.csv', part_rows=100, workers=workers)==2000
    assert content('b.csv')==alone
    assert len(spy.loads())==len(set(spy.loads()))==2
    assert gone(spy.loads()) is True

@needs_ray
@pytest.mark.slow
def test_ray_to_the_last_bit(tiny, workdir):
    "Unrounded probabilities of texts of all lengths"
    write_table('a.csv', 5000)
    texts = [row['text'] for row in read_rows('a.csv', 'text')[2]]
    with RayWorkers(model_reference(tiny.model), 2, 'local') as workers:
        futures = [workers.submit(texts[i:i+2500]) for i in (0, 2500)]
        predictions = [p for f in futures for p in f.result()]
    predictor = Predictor(tiny.model)
    assert predictions==[p for i in (0, 2500) for p in predictor.predict_iter(texts[i:i+2500])]

@needs_ray
@pytest.mark.slow
def test_ray_actor_killed(linear, tiny, alone, spy, workdir):
    "In the middle of a part: another process takes it, and each row is there once"
    with RayWorkers(model_reference(tiny.linear), 2, 'local') as workers:
        def kill(rows, total):
            if 500<=rows and not spy.died(): spy.let_one_die()
        assert predict_file(linear, 'a.csv', 'b.csv', part_rows=100, workers=workers, report=kill)==2000
    assert content('b.csv')==alone
    assert len(spy.died())==1 and len(set(spy.loads()))==3

@pytest.fixture
def ray_cluster(spy, workdir):
    "A cluster of one machine with two cores, in processes of its own; its address"
    program = [sys.executable, '-m', 'ray.scripts.scripts']
    words = ['start', '--head', '--num-cpus', '2', '--block', '--port', '0', '--node-ip-address', '127.0.0.1']
    words += ['--include-dashboard', 'false', '--disable-usage-stats']
    head = subprocess.Popen([*program, *words], env=environ(PYTHONUNBUFFERED='1'), stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, start_new_session=True)
    for line in head.stdout:
        if '--address=' in line: break
    address = line.split('--address=')[1].strip(" '\n")
    threading.Thread(target=head.stdout.read, daemon=True).start()
    yield address
    os.killpg(head.pid, signal.SIGTERM)
    head.wait(60)

@needs_ray
@pytest.mark.slow
def test_ray_driver_killed(linear, tiny, alone, spy, ray_cluster, shell):
    "And started again, on the same cluster: it goes on after the last finished part, and the first one's actors are gone"
    write_table('a.csv', 20_000)
    predict_file(linear, 'a.csv', 'alone.csv', part_rows=100)
    arguments = command(tiny, 'ray', '--address', ray_cluster)
    driver = start_parts(arguments, 'b.csv.partial', 5)
    driver.kill()
    driver.communicate()
    finished = Manifest(Path('b.csv.partial')/MANIFEST).total('rows')
    first = [p for p in spy.loads() if p!=str(driver.pid)]
    assert 500<=finished<20_000
    done = shell(*arguments)
    assert (done.code, done.out)==(0, '20,000 rows written to b.csv\n'), done.err
    assert content('b.csv')==content('alone.csv')
    assert gone(first) is True

@needs_ray
@pytest.mark.slow
def test_ray_refuses(tiny, table, shell, ray_cluster, workdir):
    "A worker without the model, or with another one: one line, exit 2, and what can go on goes on"
    reference = model_reference(tiny.linear)
    away = workdir/'away'
    shutil.copytree(tiny.linear, away)
    lost = model_reference(away)
    shutil.rmtree(away)
    for wrong,message in ((lost, 'there is no model folder'), (replace(reference, sha256='0'*64), 'is another model'),
        (replace(reference, version='0.0.1'), 'install the same')):
        with pytest.raises(InputError, match=message) as caught, RayWorkers(wrong, 2, ray_cluster) as workers:
            predict_file(Predictor(tiny.linear), 'a.csv', 'b.csv', part_rows=100, workers=workers)
        assert str(caught.value).count('\n')==0 and str(caught.value).startswith('worker ')
    done = shell(*command(tiny, 'ray', '--address', ray_cluster))
    assert (done.code, done.out, done.err)==(0, '2,000 rows written to b.csv\n', done.err) and done.err.count('\n')<=1, done.err

@needs_ray
@pytest.mark.slow
def test_ray_gives_up(tiny, table, spy, workdir):
    "A part that kills each of its workers does not go round forever"
    code = (spy.home/'sitecustomize.py')
    code.write_text(code.read_text().replace("(home/'die').rename(home/f'died-{os.getpid()}')", "(home/f'died-{os.getpid()}').touch()"))
    spy.let_one_die()
    reference = model_reference(tiny.linear)
    with pytest.raises(InputError, match='died four times'), RayWorkers(reference, 1, 'local') as workers:
        predict_file(Predictor(tiny.linear), 'a.csv', 'b.csv', part_rows=100, workers=workers)
    assert len(spy.died())==4

@needs_ray
@pytest.mark.slow
def test_ray_data(tiny, workdir):
    "Somebody's data set, by `map_batches`; and Ray's own checkpoints leave out what is written"
    import pyarrow.parquet as pq
    import ray
    from ray.data import ActorPoolStrategy, DataContext
    from ray.data.checkpoint import CheckpointConfig
    write_table('a.csv', 1000)
    predict_file(Predictor(tiny.linear), 'a.csv', 'alone.parquet')
    alone = sorted(pq.read_table('alone.parquet').to_pylist(), key=lambda row: int(row['id']))
    connect_ray('local')
    config = CheckpointConfig('id', str(workdir/'checkpoints'), delete_checkpoint_on_success=False)
    try:
        DataContext.get_current().checkpoint_config = config
        DataContext.get_current().enable_progress_bars = False
        for _ in range(2):
            ds = ray.data.from_items([{k: row[k] for k in ('id', 'text')} for row in alone], override_num_blocks=4)
            ds = ds.map_batches(BatchPredictor, fn_constructor_args=[model_reference(tiny.linear)],
                batch_format='pandas', batch_size=100, compute=ActorPoolStrategy(size=1))
            ds.write_parquet(str(workdir/'scored'))
    finally: ray.shutdown()
    scored = sorted(pq.read_table('scored').to_pylist(), key=lambda row: int(row['id']))
    assert scored==alone

# Spark

@needs_spark
@pytest.mark.slow
def test_spark(linear, tiny, alone, spy, workdir):
    "The bytes of one process, with one load for each Python worker; nothing is left running"
    with SparkWorkers(model_reference(tiny.linear), master='local[2]') as workers:
        assert workers.n==2
        assert predict_file(linear, 'a.csv', 'b.csv', part_rows=100, workers=workers)==2000
    assert content('b.csv')==alone
    assert 1<=len(spy.loads())==len(set(spy.loads()))<=2
    assert gone(spy.loads()) is True

@needs_spark
@pytest.mark.slow
def test_spark_task_tried_again(linear, tiny, alone, spy, workdir):
    "A Python worker dies in the middle of a part; where Spark may not try again, that is one line, and the rest goes on later"
    reference = model_reference(tiny.linear)
    with SparkWorkers(reference, master='local[2,2]') as workers:
        def kill(rows, total):
            if 500<=rows and not spy.died(): spy.let_one_die()
        assert predict_file(linear, 'a.csv', 'b.csv', part_rows=100, workers=workers, report=kill)==2000
    assert content('b.csv')==alone and len(spy.died())==1
    spy.let_one_die()
    with pytest.raises(InputError, match='Spark gave up a part'), SparkWorkers(reference, master='local[2,1]') as workers:
        predict_file(linear, 'a.csv', 'c.csv', part_rows=100, workers=workers)
    predict_file(linear, 'a.csv', 'c.csv', part_rows=100)
    assert content('c.csv')==alone

@needs_spark
@pytest.mark.slow
def test_spark_refuses(tiny, table, shell, refuses, workdir):
    "A worker without the model, one line; then the command as it should be"
    away = workdir/'away'
    shutil.copytree(tiny.linear, away)
    lost = model_reference(away)
    shutil.rmtree(away)
    with pytest.raises(InputError, match='there is no model folder') as caught, SparkWorkers(lost, master='local[1]') as workers:
        predict_file(Predictor(tiny.linear), 'a.csv', 'b.csv', part_rows=100, workers=workers)
    assert str(caught.value).count('\n')==0
    done = shell(*command(tiny, 'spark', '--master', 'local[2]'))
    assert (done.code, done.out)==(0, '2,000 rows written to b.csv\n') and done.err.count('\n')<=1, done.err

@needs_spark
@pytest.mark.slow
def test_spark_udf(tiny, table, spy, workdir):
    "In somebody's session: the columns of a file, one load for each worker, null without a text"
    import pandas as pd
    from pyspark.sql import SparkSession
    predict_file(Predictor(tiny.linear), 'a.csv', 'alone.parquet', columns=['id'])
    alone = pd.read_parquet('alone.parquet')
    local = {'spark.ui.enabled': 'false', 'spark.driver.host': '127.0.0.1', 'spark.driver.bindAddress': '127.0.0.1'}
    spark = SparkSession.builder.master('local[2]').config(map=local).getOrCreate()
    try:
        rows = [(row['id'], row['text']) for row in read_rows('a.csv', 'text')[2]]
        df = spark.createDataFrame(rows, 'id string, text string').repartition(8)
        scored = df.select('id', predict_udf(tiny.linear)('text').alias('p')).select('id', 'p.*').toPandas()
    finally: spark.stop()
    scored = scored.sort_values('id', key=lambda s: s.astype(int), ignore_index=True)
    pd.testing.assert_frame_equal(scored, alone, check_dtype=False)
    assert len(spy.loads())==len(set(spy.loads()))<=2
