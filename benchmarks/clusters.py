"""What a cluster costs: Ray and Spark on this machine beside no cluster at all

Method: the same file of real texts with variations, from CSV to CSV, by `predict_file`. `local` is one process with as many threads
as the others have workers of one thread each, so that what differs is the way of the texts to the workers and back. Starting
is timed apart: from nothing to the first answer of every worker, the model loaded. Ways take turns; with one worker and with all.
All outputs of a run must have the same bytes.

`driver`: reading and writing alone, with workers that answer at once. So many rows a second is what one driver can feed.

    python benchmarks/clusters.py --model models/quickstart --rows 20000
"""
import argparse, hashlib, os, statistics, tempfile, time
from pathlib import Path
from common import print_table, save, say, spread
from scale import varied
from sentiment_nb.clusters import RayWorkers, SparkWorkers, model_reference
from sentiment_nb.core import count_cpus
from sentiment_nb.data import load_tweets
from sentiment_nb.inference import Predictor
from sentiment_nb.scale import predict_file
from sentiment_nb.tables import write_rows

class InstantFuture:
    "The same prediction for each text"
    def __init__(self, prediction, n): self.predictions = [prediction]*n
    def result(self): return self.predictions

class InstantWorkers:
    "Workers that answer at once: what is left is reading and writing"
    ahead = 4
    def __init__(self, prediction): self.prediction = prediction
    def submit(self, texts): return InstantFuture(self.prediction, len(texts))

def digest(path):
    with open(path, 'rb') as f: return hashlib.file_digest(f, 'sha256').hexdigest()

def timed(job):
    begin = time.perf_counter()
    job()
    return time.perf_counter()-begin

def start_ray(reference, n): return RayWorkers(reference, n, 'local')
def start_spark(reference, n): return SparkWorkers(reference, n, f'local[{n}]')
STARTS = {'ray': start_ray, 'spark': start_spark}

def run_local(args, work, n):
    "Seconds to load the model, seconds for the file, and the hash of the output"
    os.environ['SENTIMENT_NB_THREADS'] = str(n)
    begin = time.perf_counter()
    predictor = Predictor(args.model)
    predictor.predict(['first'])
    start = time.perf_counter()-begin
    seconds = timed(lambda: predict_file(predictor, work/'in.csv', work/'local.csv', part_rows=args.part_rows))
    del os.environ['SENTIMENT_NB_THREADS']
    return start, seconds, digest(work/'local.csv')

def run_workers(args, work, n, engine):
    "The same with the workers of a cluster"
    predictor = Predictor(args.model)
    begin = time.perf_counter()
    with STARTS[engine](model_reference(args.model), n) as workers:
        for future in [workers.submit(['first']) for _ in range(4*n)]: future.result()
        start = time.perf_counter()-begin
        out = work/f'{engine}.csv'
        def job(): predict_file(predictor, work/'in.csv', out, part_rows=args.part_rows, workers=workers)
        seconds = timed(job)
    return start, seconds, digest(out)

def run(args, work, n, way): return run_local(args, work, n) if way=='local' else run_workers(args, work, n, way)

def measure_driver(args, work):
    "Rows a second that are read and written, if predicting took no time"
    predictor = Predictor(args.model)
    workers = InstantWorkers(predictor.predict('fine'))
    def job(): predict_file(predictor, work/'in.csv', work/'instant.csv', part_rows=args.part_rows, workers=workers)
    return [args.rows/timed(job) for _ in range(args.repeats)]

def measure(args):
    ways = ['local', *args.engines.split(',')]
    counts = sorted({1, count_cpus()})
    with tempfile.TemporaryDirectory() as d:
        work = Path(d)
        write_rows(work/'in.csv', ['id', 'text'], varied(load_tweets()['text'][:], args.rows, args.seed), None)
        driver = measure_driver(args, work)
        measured = {(way, n): [] for n in counts for way in ways}
        for _ in range(args.repeats):
            for way,n in measured: measured[way, n].append(run(args, work, n, way))
    return driver, measured

def summarise(args, driver, measured):
    "The table, and what it says in two sentences"
    medians = {key: statistics.median(seconds for _,seconds,_ in runs) for key,runs in measured.items()}
    table = []
    for (way,n),runs in measured.items():
        overhead = 1e6*(medians[way, n]-medians['local', n])/args.rows
        table.append(dict(way=way, workers=n, start_seconds=spread([r[0] for r in runs], 1),
            seconds=spread([r[1] for r in runs], 2), texts_per_second=round(args.rows/medians[way, n]),
            microseconds_more_per_text=round(overhead, 1)))
    print_table(table, f'{args.rows:,} texts in parts of {args.part_rows:,}')
    same = len({digest for runs in measured.values() for _,_,digest in runs})==1
    per_core = args.rows/medians['local', 1]
    rows = statistics.median(driver)
    say(f'\nsame bytes everywhere: {same}')
    say(f'the driver alone reads and writes {rows:,.0f} rows a second: as many as {rows/per_core:,.0f} workers predict')
    fed = dict(driver_rows_per_second=spread(driver, 0), workers_per_driver=round(rows/per_core))
    return dict(table=table, same_bytes=same, **fed)

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--model', default='models/quickstart')
    p.add_argument('--rows', type=int, default=20_000)
    p.add_argument('--part-rows', type=int, default=2048)
    p.add_argument('--engines', default='ray,spark', help='with commas between them')
    p.add_argument('--repeats', type=int, default=3)
    p.add_argument('--seed', type=int, default=0)
    args = p.parse_args()
    save('clusters', args, 'ray pyspark onnxruntime', summarise(args, *measure(args)))

if __name__=='__main__': main()
