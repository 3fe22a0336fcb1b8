"""What does an honest evaluation cost beside the model's own time, and in how much memory?

Method: `sentiment-nb evaluate` on all test texts of a prepared folder, whole: intervals for every score, baselines,
calibration, slices, report, figures, tables. A clock runs in the `Predictor` (the model's own time, loading it
included) and one in `vader_probs` (the dictionary's); the rest is what evaluating costs. Each repetition is a fresh
process; imports and reading the data count as evaluating. Peak is resident memory of the whole process.

    sentiment-nb train data/imdb --model linear --out models/imdb-linear
    python benchmarks/evaluation.py --model models/imdb-linear --data data/imdb
"""
import argparse, contextlib, io, json, subprocess, sys, tempfile, time
from common import peak_memory, print_table, save, spread

def timed(func, clock):
    "`func`, adding its seconds to `clock`"
    def run(*args, **kw):
        start = time.perf_counter()
        try: return func(*args, **kw)
        finally: clock.append(time.perf_counter()-start)
    return run

def once(model, data):
    "Seconds and bytes of one evaluation, in this process"
    start = time.perf_counter()
    from sentiment_nb import cli, evaluation
    model_times = []
    vader_times = []
    cli.Predictor.predict_proba = timed(cli.Predictor.predict_proba, model_times)
    # loading, where the command does it: members of an ensemble are part of that
    cli.Predictor = timed(cli.Predictor, model_times)
    evaluation.vader_probs = timed(evaluation.vader_probs, vader_times)
    with tempfile.TemporaryDirectory() as out, contextlib.redirect_stdout(io.StringIO()) as printed:
        cli.evaluate(model, data, out=f'{out}/report', baselines=[model], json=True)
    total = time.perf_counter()-start
    metrics = json.loads(printed.getvalue())
    evaluating = total-sum(model_times)-sum(vader_times)
    return dict(n=metrics['n'], total=total, model=sum(model_times), vader=sum(vader_times), evaluating=evaluating,
        peak_mb=peak_memory()/1e6)

def run():
    "The same in a fresh process"
    command = [sys.executable, *sys.argv, '--child']
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--model', default='models/imdb-linear', 
        help='model folder; its answers stand in as a baseline too, so that nothing is fitted here')
    p.add_argument('--data', default='data/imdb', help='folder of prepared data')
    p.add_argument('--repeats', type=int, default=5)
    p.add_argument('--child', action='store_true', help=argparse.SUPPRESS)
    args = p.parse_args()
    if args.child: return print(json.dumps(once(args.model, args.data)))
    runs = [run() for _ in range(args.repeats)]
    row = {'texts': runs[0]['n']}
    for k in ('total','model','vader','evaluating','peak_mb'): row[k] = spread([r[k] for r in runs], 1)
    print_table([row], 'seconds, and peak memory in MB')
    save('evaluation', args, 'scikit-learn pandas matplotlib', dict(runs=runs, result=row))

if __name__=='__main__': main()
