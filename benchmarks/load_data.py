"""How fast, and in how much memory, do 1.6 million tweets become a `Dataset`?

Method: Sentiment140's six-column ISO-8859-1 file, made by repeating the sample under SENTIMENT_NB_DATA (random rows of
the same shape where there is none), plain and zipped. Three ways to the same `text` and `label`, each in a fresh
process with an empty cache, taking turns: `load_source`; `pandas.read_csv` and `Dataset.from_pandas`;
`datasets.load_dataset('csv')`. The clock starts after the imports. Peak is resident memory, imports included; `added`
is what loading put on top of the imports. Afterwards, off the clock, each result is checked: rows, sum of labels, bytes
of text. pandas leaves everything in memory, the other two leave a file mapped from disk.

    SENTIMENT_NB_DATA=FOLDER python benchmarks/load_data.py
"""
import argparse, json, os, subprocess, sys, tempfile, time, zipfile
from pathlib import Path
import numpy as np
from common import peak_memory, print_table, save, spread

COLUMNS = ['target', 'id', 'date', 'flag', 'user', 'text']
NAME = 'training.1600000.processed.noemoticon.csv'

def random_rows(n, seed):
    "Rows of the same shape and length as Sentiment140's"
    rng = np.random.default_rng(seed)
    words = [''.join(rng.choice(list('etaoinshrdlu\xe9'), k)) for k in rng.integers(2, 9, 5000)]
    for i in range(n):
        text = ' '.join(words[j] for j in rng.integers(0, 5000, rng.integers(3, 24)))
        first = f'"{rng.integers(2)*4}","{1467810369+i}","Mon Apr 06 22:19:45 PDT 2009","NO_QUERY"'
        yield f'{first},"user{i}","{text}"\n'.encode('latin-1')

def write_rows(folder, n, seed):
    "The CSV and its zip"
    root = os.environ.get('SENTIMENT_NB_DATA')
    sample = Path(root)/'sentiment140'/'training.sample.csv' if root else None
    lines = sample.read_bytes().splitlines(True) if sample else list(random_rows(min(n, 50_000), seed))
    path = Path(folder)/NAME
    with open(path, 'wb') as f:
        for start in range(0, n, len(lines)): f.writelines(lines[:n-start])
    zipped = path.with_suffix('.zip')
    with zipfile.ZipFile(zipped, 'w', zipfile.ZIP_DEFLATED) as z: z.write(path, NAME)
    return {'plain': path, 'zipped': zipped}, 'the repeated sample' if sample else 'random rows'

def by_package(path, temp):
    from sentiment_nb.data import load_source
    return lambda: load_source(path)['train']

def by_pandas(path, temp):
    import pandas as pd
    from datasets import ClassLabel, Dataset
    def load():
        df = pd.read_csv(path, encoding='latin-1', header=None, names=COLUMNS)
        df['label'] = df.pop('target').map({0: 0, 4: 1})
        return Dataset.from_pandas(df).cast_column('label', ClassLabel(names=['negative', 'positive']))
    return load

def by_datasets(path, temp):
    from datasets import ClassLabel, load_dataset
    def load():
        ds = load_dataset('csv', data_files=path, column_names=COLUMNS, encoding='latin-1', cache_dir=temp,
            split='train')
        ds = ds.map(lambda b: {'label': [t//4 for t in b['target']]}, batched=True, remove_columns='target')
        return ds.cast_column('label', ClassLabel(names=['negative', 'positive']))
    return load

WAYS = {'load_source': by_package, 'pandas.read_csv': by_pandas, "load_dataset('csv')": by_datasets}

def count_content(ds):
    "Rows, sum of labels, bytes of text"
    import pyarrow.compute as pc
    label_sum = 0
    text_bytes = 0
    for b in ds.with_format('arrow').iter(100_000):
        label_sum += pc.sum(b['label']).as_py()
        text_bytes += pc.sum(pc.binary_length(b['text'])).as_py()
    return [len(ds), label_sum, text_bytes]

def measure(way, path, temp):
    "One loading, in this process"
    load = WAYS[way](path, temp)
    before = peak_memory()
    start = time.perf_counter()
    ds = load()
    seconds = time.perf_counter()-start
    peak = peak_memory()
    print(json.dumps(dict(seconds=seconds, peak=peak, added=peak-before, content=count_content(ds))))

def run(way, path):
    "The same in a fresh process with an empty cache"
    with tempfile.TemporaryDirectory() as temp:
        env = os.environ | dict(SENTIMENT_NB_CACHE=temp, HF_HOME=temp, HF_DATASETS_CACHE=temp,
            HF_HUB_OFFLINE='1', HF_DATASETS_DISABLE_PROGRESS_BARS='1')
        command = [sys.executable, __file__, '--measure', way, str(path), temp]
        done = subprocess.run(command, env=env, capture_output=True, text=True)
        if done.returncode: raise SystemExit(f'{way}: {done.stderr[-2000:]}')
        return json.loads(done.stdout.splitlines()[-1])

def table_row(way, runs, n_rows):
    "What the table shows of a way"
    return dict(way=way, rows_per_s=spread([n_rows/r['seconds'] for r in runs], 0),
        seconds=spread([r['seconds'] for r in runs], 2),
        peak_mb=spread([r['peak']/1e6 for r in runs], 0),
        added_mb=spread([r['added']/1e6 for r in runs], 0))

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--rows', type=int, default=1_600_000)
    p.add_argument('--repeat', type=int, default=3)
    p.add_argument('--forms', nargs='+', default=['plain', 'zipped'], choices=['plain', 'zipped'])
    p.add_argument('--seed', type=int, default=0, help='of the random rows')
    p.add_argument('--measure', nargs=3, help=argparse.SUPPRESS)
    args = p.parse_args()
    if args.measure: return measure(*args.measure)
    with tempfile.TemporaryDirectory() as folder:
        files,made_of = write_rows(folder, args.rows, args.seed)
        megabytes = files['plain'].stat().st_size/1e6
        for form in args.forms:
            runs = {w: [] for w in WAYS}
            for _ in range(args.repeat):
                for w in WAYS: runs[w].append(run(w, files[form]))
            contents = {tuple(r['content']) for rs in runs.values() for r in rs}
            if len(contents)!=1: raise SystemExit(f'the ways disagree: {contents}')
            table = [table_row(w, rs, args.rows) for w,rs in runs.items()]
            print_table(table, f'{args.rows:,} rows, {megabytes:.0f} MB, {form}')
            check = dict(zip(('rows','label_sum','text_bytes'), contents.pop()))
            results = dict(rows=args.rows, megabytes=round(megabytes, 1), made_of=made_of, check=check, results=table)
            save('load_data', args, 'pyarrow datasets pandas numpy', results, part=form)

if __name__=='__main__': main()
