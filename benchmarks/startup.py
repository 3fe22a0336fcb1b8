"""How long does `sentiment-nb predict --text` take from process start to exit?

What is the time spent on, and what does a transformers pipeline take?

Method: wall time of whole processes on a warm disk (one run of each first, not counted), taking turns: the bare
interpreter, `sentiment-nb predict` with the int8 file, and the one-liner `transformers.pipeline` on the same folder.
Then the phases inside the command, each with a clock around it, and the imports by package (`python -X importtime`,
own time of every module, which itself slows imports somewhat). Weights' values do not matter to time: without
`--model` a model is trained on 320 tweets and exported.

    python benchmarks/startup.py
    python benchmarks/startup.py --model models/quickstart
"""
import argparse, json, os, re, statistics, subprocess, sys, tempfile, time
from collections import Counter
from pathlib import Path
from common import print_table, save, say, spread

BOUNDS = 1.5, 650, 4 # Seconds of the command, milliseconds of importing and loading, milliseconds of one text
TEXT = 'Thanks for the quick help today, you really made my day and saved our whole trip!'
N_TOKENS = 20 # Of TEXT
PIPELINE = '''import sys
from transformers import pipeline
print(pipeline("text-classification", sys.argv[1])(sys.argv[2]))'''
PHASES = '''
import json, sys, time
clock = time.perf_counter
seconds = {}
def phase(name, f):
    start = clock()
    value = f()
    seconds[name] = clock()-start
    return value
def imports():
    import sentiment_nb.cli
phase('imports', imports)
from pathlib import Path
from sentiment_nb import cli, core, inference
folder = Path(sys.argv[1])
text = sys.argv[2]
phase('building the parser', cli.parser)
record = phase('reading the record', lambda: core.ModelRecord.load(folder))
file = next(f for _,f in inference.ENGINES.values() if (folder/f).is_file())
phase('hashing', lambda: core.verify_checksums(folder, [file, 'tokenizer.json', 'sentiment_nb.json']))
tokenizer = phase('loading the tokenizer', lambda: inference.Tokenizer.from_file(str(folder/'tokenizer.json')))
session = phase('creating the session', lambda: inference._session(folder/file))
clean = phase('cleaning', lambda: inference.clean_text(text, record.policy))
ids,_ = phase('encoding', lambda: core.encode(tokenizer, [clean], record.max_length, record.truncation))
phase('first prediction', lambda: inference._run_batches(session, ids))
phase('second prediction', lambda: inference._run_batches(session, ids))
predictor = inference.Predictor(folder)
def one():
    start = clock()
    predictor.predict(text)
    return clock()-start
seconds['median of 500 further predictions, whole'] = sorted(one() for _ in range(500))[250]
print(json.dumps(seconds))
'''

def train_tiny(folder):
    "A MiniLM trained on 320 tweets, with ONNX files; the values are worth nothing"
    from sentiment_nb.cleaning import prepare_data
    from sentiment_nb.data import load_source
    from sentiment_nb.inference import export_onnx
    from sentiment_nb.training import train_transformer
    prepare_data('tweets', f'{folder}/data', limit=700)
    train_transformer(f'{folder}/data', f'{folder}/model', 'minilm', epochs=1, limit=320, max_length=128)
    print('engines:', export_onnx(f'{folder}/model', load_source('tweets')['train']['text'][:300]))
    return Path(folder)/'model'

def run(command, stderr=subprocess.DEVNULL):
    "Seconds and output of a process"
    # a user's imports are compiled once, not at each start
    env = {k: v for k,v in os.environ.items() if k!='PYTHONDONTWRITEBYTECODE'} | dict(HF_HUB_OFFLINE='1')
    start = time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=stderr, text=True, env=env)
    seconds = time.perf_counter()-start
    if done.returncode: raise SystemExit(f'{command[:3]} failed with code {done.returncode}')
    return seconds, done

STANDARD = {*sys.stdlib_module_names, 'encodings', '__main__'}

def count_imports(log):
    "Own time of imports in milliseconds, by package"
    times = Counter()
    for line in log.splitlines():
        m = re.match(r'import time:\s+(\d+) \|\s+(\d+) \|( +)(\S+)', line)
        if not m: continue
        name = m[4].partition('.')[0]
        times['the standard library' if name in STANDARD else name] += int(m[1])/1000
    return times

def import_times(repeat):
    "Medians of `count_imports`, the largest first"
    command = [sys.executable, '-X', 'importtime', '-c', 'import sentiment_nb.cli']
    runs = [count_imports(run(command, subprocess.PIPE)[1].stderr) for _ in range(repeat)]
    packages = sorted({k for r in runs for k in r}, key=lambda k: -runs[0][k])
    return {k: round(statistics.median(r[k] for r in runs), 1) for k in packages}

def megabytes(file): return file.stat().st_size/1e6 if file.exists() else None

READY = 'imports', 'reading the record', 'hashing', 'loading the tokenizer', 'creating the session'

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--model', help='a model folder with ONNX files')
    p.add_argument('--repeat', type=int, default=5)
    args = p.parse_args()
    with tempfile.TemporaryDirectory() as d:
        folder = Path(args.model) if args.model else train_tiny(d)
        command = Path(sys.executable).with_name('sentiment-nb')
        ways = {'python -c pass': [sys.executable, '-c', 'pass'],
            'sentiment-nb predict': [str(command), 'predict', '--model', str(folder), '--text', TEXT],
            'transformers.pipeline': [sys.executable, '-c', PIPELINE, str(folder), TEXT]}
        times = {w: [] for w in ways}
        phases = []
        for i in range(args.repeat+1):
            for w,c in ways.items():
                seconds,done = run(c)
                if i: times[w].append(seconds)
                elif w!='python -c pass': say(f'{w}: {done.stdout.strip()}')
            seconds_inside = json.loads(run([sys.executable, '-c', PHASES, str(folder), TEXT])[1].stdout)
            if i: phases.append(seconds_inside)
        imports = import_times(args.repeat)
        small = megabytes(folder/'onnx/model_int8.onnx')
        whole = megabytes(folder/'onnx/model.onnx')
    rows = [dict(way=w, seconds=spread(ts)) for w,ts in times.items()]
    inside = [dict(phase=n, ms=spread([1000*f[n] for f in phases], 1)) for n in phases[0]]
    print_table(rows, f'From process start to exit, n={args.repeat}')
    print_table(inside, 'Inside the command')
    loading = statistics.median(sum(f[n] for n in READY) for f in phases)
    measured = {'sentiment-nb predict, s': rows[1]['seconds']['median'],
        'importing and loading together, ms': round(1000*loading),
        f'one text of {N_TOKENS} tokens, ms': inside[-1]['ms']['median']}
    bounds = []
    for (what,value),bound in zip(measured.items(), BOUNDS):
        held = 'yes' if value<=bound else 'NO'
        bounds.append(dict(what=what, measured=float(value), bound=float(bound), held=held))
    print_table(bounds, 'Bounds')
    print_table([dict(package=k, ms=v) for k,v in list(imports.items())[:20]], 'Imports, own time')
    sizes = dict(int8=small and round(small, 1), onnx=whole and round(whole, 1))
    results = dict(bounds=bounds, model_mb=sizes, processes=rows, phases=inside, imports_ms=imports)
    save('startup', args, 'onnxruntime tokenizers numpy fastcore regex emoji tqdm torch transformers', results)

if __name__=='__main__': main()
