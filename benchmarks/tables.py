"""What do `prepare` and `predict --file` cost on a large table, beside an earlier checkout: memory and time?

Method: each measurement is a whole process on one thread, with an empty cache of its own, and reports its wall time, its
processor time and its highest resident memory. The checkouts take turns, and every second round begins with the other one. The tables hold
embedded tweets, each made unique by its number: one of a gigabyte whose rows have a long second text beside the tweet,
which is carried and not read, and one of 100,000 plain rows. The model is a static one that the earlier checkout
distilled, from a teacher trained on 320 tweets: what it says means nothing, what it costs is right.

    python benchmarks/tables.py --before ../before
    python benchmarks/tables.py --before ../before --megabytes 20 --rows 2000 --repeat 1 --name tables-small
"""
import argparse, csv, json, os, random, shutil, subprocess, sys, tempfile
from pathlib import Path
from common import print_table, save, say, spread

HERE = Path(__file__).resolve().parent
MEASURED = '''
import json, sys, time
start = time.perf_counter()
report, benchmarks, *command = sys.argv[1:]
sys.path.append(benchmarks)
from common import peak_memory
import sentiment_nb
from sentiment_nb.cli import main
code = main(command)
seconds = {'seconds': time.perf_counter()-start, 'cpu_seconds': time.process_time()}
measured = seconds | {'peak_mb': peak_memory()/1e6, 'package': sentiment_nb.__file__}
open(report, 'w').write(json.dumps(measured))
sys.exit(code)
'''
TWEETS = '''
import json, sys
from sentiment_nb.data import load_tweets
ds = load_tweets().shuffle(seed=0)
names = ds.features['label'].names
json.dump([ds['text'][:], [names[i] for i in ds['label'][:]]], open(sys.argv[1], 'w'))
'''

def environment(checkout, cache):
    "One thread, no hub, the package of a checkout"
    changes = {'PYTHONPATH': str(checkout), 'SENTIMENT_NB_CACHE': str(cache)}
    return os.environ | changes | {'HF_HUB_OFFLINE': '1', 'OMP_NUM_THREADS': '1'}

def run(checkout, folder, *command, cache=None):
    "Seconds and peak memory of `sentiment-nb COMMAND` by a checkout, in a process whose current folder is `folder`"
    report = folder/'measured.json'
    own_cache = cache or folder/'cache'
    script = [sys.executable, '-c', MEASURED, str(report), str(HERE), *map(str, command)]
    done = subprocess.run(script, cwd=folder, env=environment(checkout, own_cache), capture_output=True, text=True)
    if done.returncode: raise SystemExit(f'{command} by {checkout} failed with code {done.returncode}: {done.stderr[-600:]}')
    if not cache: shutil.rmtree(own_cache, ignore_errors=True)
    measured = json.loads(report.read_text())
    package = Path(measured.pop('package'))
    if checkout not in package.parents: raise SystemExit(f'{package} was measured in place of {checkout}')
    return measured

def read_tweets(folder):
    "Texts and labels of the embedded tweets, read in another process"
    file = folder/'tweets.json'
    subprocess.run([sys.executable, '-c', TWEETS, str(file)], env=environment(HERE.parent, folder/'cache'), check=True)
    return list(zip(*json.loads(file.read_text())))

def tweet_rows(tweets):
    "Endless rows of id, text and label, no text twice"
    i = 0
    while True:
        for text,label in tweets:
            yield i, f'{text} {i:x}', label
            i += 1

def write_wide(path, tweets, size, seed=0):
    "A CSV of about `size` bytes with a long text that is only carried; returns its rows"
    rng = random.Random(seed)
    with open(path, 'w', encoding='utf-8', newline='') as f:
        writer = csv.writer(f)
        writer.writerow(['id', 'text', 'label', 'thread'])
        for n,row in enumerate(tweet_rows(tweets)):
            if f.tell()>=size: return n
            thread = '\n'.join(text for text,_ in rng.choices(tweets, k=10))
            writer.writerow([*row, thread])

def write_plain(path, tweets, n):
    "A CSV of `n` rows"
    with open(path, 'w', encoding='utf-8', newline='') as f:
        writer = csv.writer(f)
        writer.writerow(['id', 'text', 'label'])
        writer.writerows(row for row,_ in zip(tweet_rows(tweets), range(n)))

def make_static(checkout, folder):
    "A static model by a checkout"
    steps = ['prepare tweets --limit 4000 --out data', 'train data --model minilm --limit 320 --epochs 1 --out teacher',
        'export teacher --data data', 'distill teacher data --limit 2000 --epochs 1 --out static']
    for step in steps:
        say(f'making the model: {step}')
        run(checkout, folder, *step.split(), cache=folder/'cache')
    return folder/'static'

def measure(jobs, checkouts, repeat, folder):
    "Each job by each checkout, `repeat` times in turn: job to checkout to measurements"
    measured = {job: {name: [] for name in checkouts} for job in jobs}
    for i in range(repeat):
        order = list(checkouts)[::-1 if i%2 else 1]
        for job,command in jobs.items():
            for name in order:
                measured[job][name].append(run(checkouts[name], folder, *command))
                for out in folder.glob('out*'): shutil.rmtree(out) if out.is_dir() else out.unlink()
        say(f'round {i+1} of {repeat} is done')
    return measured

def summarize(runs):
    "Median and range of seconds, processor seconds and memory"
    digits = {'seconds': 3, 'cpu_seconds': 3, 'peak_mb': 1}
    return {unit: spread([r[unit] for r in runs], n) for unit,n in digits.items()}

def judge(summary):
    "What must hold: at most a tenth more memory on the large table, at most a tenth less throughput on the other"
    for job,by_checkout in summary.items():
        if 'before' not in by_checkout: return
        unit = 'seconds' if 'plain' in job else 'peak_mb'
        now,before = (by_checkout[name][unit]['median'] for name in ('now', 'before'))
        ratio = before/now if unit=='seconds' else now/before
        held = ratio>=.9 if unit=='seconds' else ratio<=1.1
        what = 'throughput' if unit=='seconds' else 'peak memory'
        yield dict(job=job, what=what, now_to_before=ratio, held='yes' if held else 'NO')

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--before', help='another checkout, measured beside this one')
    p.add_argument('--model', help='a static model folder that both can load; by default one is made')
    p.add_argument('--megabytes', type=int, default=1000, help='of the large table')
    p.add_argument('--rows', type=int, default=100_000, help='of the plain table')
    p.add_argument('--repeat', type=int, default=5)
    p.add_argument('--scratch', help='where to work, with five times the room of the large table')
    p.add_argument('--name', default='tables', help='of the files in results')
    args = p.parse_args()
    checkouts = {'now': HERE.parent} | ({'before': Path(args.before).resolve()} if args.before else {})
    with tempfile.TemporaryDirectory(dir=args.scratch) as d:
        folder = Path(d)
        tweets = read_tweets(folder)
        n_wide = write_wide(folder/'wide.csv', tweets, args.megabytes*10**6)
        write_plain(folder/'plain.csv', tweets, args.rows)
        model = Path(args.model).resolve() if args.model else make_static(list(checkouts.values())[-1], folder)
        predict = ['predict', '--model', model, '--file']
        prepare = ['prepare', '--out', 'out']
        jobs = {'prepare, wide': [*prepare, 'wide.csv'],
            'prepare, plain': [*prepare, 'plain.csv'],
            'predict, wide': [*predict, 'wide.csv', '--out', 'out.csv'],
            'predict, plain': [*predict, 'plain.csv', '--out', 'out.csv']}
        measured = measure(jobs, checkouts, args.repeat, folder)
        summary = {job: {name: summarize(runs) for name,runs in of.items()} for job,of in measured.items()}
        size = (folder/'wide.csv').stat().st_size
    pairs = [(job, name) for job,by_checkout in summary.items() for name in by_checkout]
    rows = [dict(job=job, checkout=name, **summary[job][name]) for job,name in pairs]
    print_table(rows, f'{n_wide:,} wide rows ({size/1e6:,.0f} MB), {args.rows:,} plain rows, n={args.repeat}')
    verdicts = list(judge(summary))
    if verdicts: print_table(verdicts, 'Must hold')
    results = dict(wide_rows=n_wide, wide_bytes=size, plain_rows=args.rows, jobs=summary, verdicts=verdicts)
    save(args.name, args, 'pyarrow datasets onnxruntime tokenizers numpy', results)

if __name__=='__main__': main()
