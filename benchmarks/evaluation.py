"""What does an honest evaluation cost beside the model's own time, and in how much memory?

Method: `sentiment-nb evaluate` on all test texts of a prepared folder, whole: intervals for every score, baselines, calibration, slices, report, figures, tables. A clock runs in the `Predictor` (the model's own time, loading it included) and one in
`vader_probs` (the dictionary's); the rest is what evaluating costs. Each repetition is a fresh process; imports and reading the data count as evaluating. Peak is resident memory of the whole process.

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
    own,dictionary = [], []
    cli.Predictor.predict_proba = timed(cli.Predictor.predict_proba, own)
    cli.Predictor = timed(cli.Predictor, own) # loading, where the command does it: members of an ensemble are part of that
    evaluation.vader_probs = timed(evaluation.vader_probs, dictionary)
    with tempfile.TemporaryDirectory() as out, contextlib.redirect_stdout(io.StringIO()) as printed: cli.evaluate(model, data, out=f'{out}/report', baselines=[model], json=True)
    total = time.perf_counter()-start
    return dict(n=json.loads(printed.getvalue())['n'], total=total, model=sum(own), vader=sum(dictionary), evaluating=total-sum(own)-sum(dictionary), peak_mb=peak_memory()/1e6)

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--model', default='models/imdb-linear', help='model folder; its answers stand in as a baseline too, so that nothing is fitted here')
    p.add_argument('--data', default='data/imdb', help='folder of prepared data')
    p.add_argument('--repeats', type=int, default=5)
    p.add_argument('--child', action='store_true', help=argparse.SUPPRESS)
    args = p.parse_args()
    if args.child: return print(json.dumps(once(args.model, args.data)))
    runs = [json.loads(subprocess.run([sys.executable, *sys.argv, '--child'], capture_output=True, text=True, check=True).stdout.splitlines()[-1]) for _ in range(args.repeats)]
    row = {'texts': runs[0]['n']} | {k: spread([r[k] for r in runs], 1) for k in ('total','model','vader','evaluating','peak_mb')}
    print_table([row], 'seconds, and peak memory in MB')
    save('evaluation', args, 'scikit-learn pandas matplotlib', dict(runs=runs, result=row))

if __name__=='__main__': main()
